"""Images of all domains made alike in closed form: by one map of colours for each domain, or by transport of pixels.

Both are learnt from four fifths of the images first. Whichever brings the others nearer to images of the domains that
they are carried to is used; the map of colours where both are as near. It leaves every shape as it is. Pixels are
carried on the leading principal components of all images (``models/transport.py``), turned so that images which are
each other's nearest neighbours come together (``models/matching.py``).

Where such pairs differ between two halves of the images, they are not of the same things, and would carry an image to
another thing. Then nothing is turned, what the components leave of an image is kept, and covariances are changed as
little as it takes for a classifier to read what is carried as of its target, nearly as often as it would be at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unmix.models.colours import ColourTransport
from unmix.models.matching import all_partners, repeated, turn
from unmix.models.transport import GaussianTransport
from unmix.nets.translator import halvings

_TURN, _MOVE = 0.12, 0.0625
_SIDE, ALIGNED_ROWS = 32, 4096
_VIEWS, _VIEWED = 4, 2**24
_HELD_OUT = 5
LEAST_REPEATED = 0.4
_SHRINKS, _LOSS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2), 0.01
_READ_ROWS, _READ_AT_ONCE = 1024, 64
Reader = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pairs:
    """Images ``x`` (rows, height, width, channels) of the domains ``groups``, and places of those that are partners."""

    x: Tensor
    groups: Tensor
    first: Tensor
    second: Tensor


class Alignment(GaussianTransport):
    """Carries padded images to what domains have in common and back.

    With ``n_colours`` of the images, by their colours, and nothing else is carried; else by the transport of pixels, of
    which only the components are kept. Of images larger than 32 pixels the means of blocks are carried, and details
    added to them as they are. ``repeated``: share of pairs that both halves of the images find.
    """

    repeated = 1.0

    def __init__(
        self, n_domains: int, n_features: int, n_components: int, *, keep_rest: bool = False, n_colours: int = 0
    ) -> None:
        super().__init__(n_domains, n_features, n_components, keep_rest=keep_rest or n_colours > 0)
        self.colours = ColourTransport(n_domains, n_colours) if n_colours else None

    @classmethod
    def learn(
        cls,
        x: Tensor,
        groups: Tensor,
        n_domains: int,
        *,
        n_components: int,
        shrink: float,
        seed: int,
        reader: Reader | None = None,
    ) -> Alignment:
        """From padded images ``x`` of the domains ``groups``; ``reader`` finds the domains (n,) of such images."""
        if colours_suffice(x, groups, n_domains, n_components):
            colours = ColourTransport.fit(x, groups, n_domains)
            small = reduced(colours.common(x, groups)).flatten(1)
            plain = GaussianTransport.plain(small, n_domains, n_components)
            aligned = cls(n_domains, *plain.basis.shape[::-1], n_colours=x.shape[1])
            aligned.load_state_dict(plain.state_dict() | {f"colours.{k}": v for k, v in colours.state_dict().items()})
            return aligned.to(x.device)
        views = pixel_views(x, seed)
        fitted = cls.fit(
            torch.cat(views),
            groups.repeat(len(views)),
            n_domains,
            n_components=n_components,
            shrink=shrink,
            keep_rest=False,
        )
        share = repeated(fitted, views, groups, seed)
        if share >= LEAST_REPEATED:
            turn(fitted, views, groups)
            return fitted
        tried = [
            cls.fit(views[0], groups, n_domains, n_components=n_components, shrink=own, keep_rest=True)
            for own in ((shrink,) if reader is None else (*_SHRINKS, shrink))
        ]
        read = [0.0 if reader is None else one.read_as_target(x, groups, reader) for one in tried]
        fitted = next(one for one, own in zip(tried, read, strict=True) if own >= max(read) - _LOSS)
        fitted.repeated = share
        return fitted

    def read_as_target(self, x: Tensor, groups: Tensor, reader: Reader) -> float:
        """Least share, of all target domains, of padded images whose domain ``reader`` finds to be their target."""
        shares = []
        for target in range(len(self.means)):
            own = torch.nonzero(groups != target)[:, 0]
            own = own[:: -(-len(own) // _READ_ROWS)]
            found = [
                reader(self.carried(x[rows], groups[rows], torch.full_like(rows, target)).clamp(-1.0, 1.0))
                for rows in own.split(_READ_AT_ONCE)
            ]
            shares.append(float((torch.cat(found) == target).float().mean()))
        return min(shares)

    def common_of(self, x: Tensor, groups: Tensor) -> Tensor:
        """Padded images of the domains ``groups``, as they are in what domains have in common."""
        x = x if self.colours is None else self.colours.common(x, groups)
        small = reduced(x)
        common = self.common(small.flatten(1), groups).view_as(small)
        if small is x:
            return common
        return x + functional.interpolate(common - small, size=x.shape[2:], mode="nearest")

    def components_of(self, x: Tensor, groups: Tensor) -> Tensor:
        """Leading components (rows, n_components) of padded images, in what domains have in common."""
        return reduced(self.common_of(x, groups)).flatten(1) @ self.basis.T

    def drawn(self, image: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
        """Images of the domains ``groups``: ``image``, added to what components (rows, n_components) make."""
        small = self.of_scores(scores, groups)
        factor = _reduction(*image.shape[2:])
        small = small.unflatten(1, (image.shape[1], image.shape[2] // factor, image.shape[3] // factor))
        if factor > 1:
            small = functional.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)
        return image + small if self.colours is None else self.colours.back(image + small, groups)

    def carried(self, x: Tensor, groups: Tensor, target: Tensor) -> Tensor:
        """Padded images of the domains ``groups`` as the transport of pixels alone carries them to ``target``."""
        small = reduced(x)
        moved = self.back(self.common(small.flatten(1), groups), target).view_as(small)
        return x + functional.interpolate(moved - small, size=x.shape[2:], mode="bilinear", align_corners=False)

    def rest(self, difference: Tensor, groups: Tensor, target: Tensor) -> Tensor:
        """Differences of images of the domains ``groups`` in ``target``, where the rest of an image is kept."""
        if self.colours is not None:
            return self.colours.linear_back(self.colours.linear(difference, groups), target)
        return self.carried(difference, groups, target) - self.carried(torch.zeros_like(difference), groups, target)


def colours_suffice(x: Tensor, groups: Tensor, n_domains: int, n_components: int) -> bool:
    """Whether held-out images come as near to other domains by a map of colours as by transport of pixels.

    False where a domain has fewer than ten images, too few to hold some out.
    """
    places = [torch.nonzero(groups == u)[:, 0] for u in range(n_domains)]
    if min(map(len, places)) < 2 * _HELD_OUT:
        return False
    held = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for own in places:
        held[own[::_HELD_OUT]] = True
    small = reduced(x)
    known, known_groups = small[~held], groups[~held]
    colours = ColourTransport.fit(known, known_groups, n_domains)
    rows = known.flatten(1)
    views = pixel_views(known, 0)
    pixels = GaussianTransport.fit(
        torch.cat(views), known_groups.repeat(len(views)), n_domains, n_components=n_components, keep_rest=False
    )
    turn(pixels, views, known_groups)

    def by_colours(own: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return colours.back(colours.common(own.view(-1, *small.shape[1:]), source), target).flatten(1)

    def by_pixels(own: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return pixels.back(pixels.common(own, source), target)

    new, new_groups = small[held].flatten(1), groups[held]
    known_of = [rows[known_groups == u] for u in range(n_domains)]
    near = [_apart(move, new, new_groups, known_of, n_components) for move in (by_colours, by_pixels)]
    return near[0] <= near[1]


def _apart(
    move: Callable[[Tensor, Tensor, Tensor], Tensor],
    rows: Tensor,
    groups: Tensor,
    known: list[Tensor],
    n_components: int,
) -> float:
    """Mean squared distance of ``rows``, moved to every other domain, to the nearest that is ``known`` there.

    On the leading components of the domain, in units of its variance.
    """
    found = []
    for v, there in enumerate(known):
        basis = torch.linalg.svd(there - there.mean(0), full_matrices=False)[2][:n_components]
        nearest = (there - there.mean(0)) @ basis.T
        size = nearest.square().sum(1).mean().clamp_min(1e-12)
        own = groups != v
        moved = move(rows[own], groups[own], torch.full_like(groups[own], v))
        distance = torch.cdist((moved - there.mean(0)) @ basis.T, nearest)
        found.append(float(distance.amin(1).square().mean() / size))
    return sum(found) / len(found)


def find_pairs(x: Tensor, groups: Tensor, align: Alignment, sides: tuple[int, int]) -> Pairs | None:
    """Which uint8 images of the domains are each other's nearest in what domains have in common."""
    chosen = torch.arange(0, len(x), -(-len(x) // ALIGNED_ROWS), device=x.device)
    scores = align.components_of(as_padded(x[chosen], sides), groups[chosen])
    first, second = all_partners(scores.cpu().double().numpy(), groups[chosen].cpu().numpy(), len(align.means))
    if not len(first):
        return None
    return Pairs(x, groups, *(chosen[torch.from_numpy(own).to(x.device)] for own in (first, second)))


def as_padded(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """uint8 images (rows, height, width, channels) as -1 … 1, colours first; edges are repeated up to ``sides``."""
    images = x.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    below, right = sides[0] - images.shape[2], sides[1] - images.shape[3]
    return functional.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


def reduced(x: Tensor) -> Tensor:
    """Means of blocks, so that the side is 32 pixels at most."""
    factor = _reduction(x.shape[2], x.shape[3])
    return functional.avg_pool2d(x, factor) if factor > 1 else x


def _reduction(height: int, width: int) -> int:
    return int(2 ** max(0, halvings(height, width) - halvings(_SIDE, _SIDE)))


def jittered(x: Tensor, source: torch.Generator) -> Tensor:
    """Images scaled by up to ±12 % and moved by up to a sixteenth of their side; edges are repeated."""
    return _placed(x, 2 * torch.rand(3, len(x), generator=source).to(x.device) - 1)


def pixel_views(x: Tensor, seed: int) -> list[Tensor]:
    """The padded images, flattened, and as often as memory easily holds the images all scaled and moved alike."""
    count = min(_VIEWS, _VIEWED // reduced(x[:1]).numel() // len(x))
    source = torch.Generator().manual_seed(seed)
    draws = 2 * torch.rand(max(0, count), 3, 1, generator=source).to(x.device) - 1
    views = [x] + [_placed(x, own.expand(-1, len(x))) for own in draws]
    return [reduced(view).flatten(1) for view in views]


def _placed(x: Tensor, draws: Tensor) -> Tensor:
    """Images scaled and moved by ``draws`` (3, rows) from -1 to 1; edges are repeated."""
    theta = x.new_zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.0 + _TURN * draws[0]
    theta[:, :, 2] = 2 * _MOVE * draws[1:].T
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    # Up to the centres of the outermost pixels: Apple GPUs know no padding with the border.
    most = 1.0 - 1.0 / torch.tensor(x.shape[:1:-1], device=x.device)
    return functional.grid_sample(x, grid.clamp(-most, most), mode="bilinear", align_corners=False)
