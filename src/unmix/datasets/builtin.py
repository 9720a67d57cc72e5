"""Real data that lie in the package, each with its source, licence and citation in ``files/``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RealData:
    """A real data set; the latents behind it are not known (``z`` is None).

    Attributes
    ----------
    x : float array (n_samples, n_features)
    domains : str array (n_samples,)
    feature_names : list of str
    targets : dict of domain → features that the intervention acts on (as its authors describe it), where there is one
    description, citation : str
    """

    x: NDArray[np.float64]
    domains: NDArray[np.str_]
    feature_names: list[str]
    targets: dict[str, tuple[str, ...]]
    description: str
    citation: str
    z: None = None


_SACHS_TARGETS = {
    "cd3cd28_aktinhib": ("Akt",),
    "cd3cd28_g0076": ("PKC",),
    "cd3cd28_psitect": ("PIP2",),
    "cd3cd28_u0126": ("Mek",),
    "cd3cd28_ly": ("Akt",),
    "pma": ("PKC",),
    "b2camp": ("PKA",),
}


def load_sachs(*, log: bool = True) -> RealData:
    """Protein signalling in single human T cells under nine conditions (Sachs et al. 2005).

    7,466 cells × 11 phosphorylated proteins and phospholipids, flow cytometry. ``domains`` are the nine
    stimulation or inhibition conditions; ``targets`` names the molecule each intervention acts on (LY294002 inhibits
    PI3K, which is not measured; Akt lies below it).

    Parameters
    ----------
    log : bool, default True
        ``log(1 + x)`` of the intensities, as is usual for flow cytometry.

    Examples
    --------
    >>> data = load_sachs()
    >>> data.x.shape, len(set(data.domains))
    ((7466, 11), 9)
    """
    with files("unmix.datasets").joinpath("files/sachs.npz").open("rb") as file, np.load(file) as content:
        x = content["x"].astype(float)
        names = [str(name) for name in content["feature_names"]]
        domains = content["domain_names"][content["domain"]]
    return RealData(
        x=np.log1p(x) if log else x,
        domains=domains,
        feature_names=names,
        targets=dict(_SACHS_TARGETS),
        description="Sachs et al. 2005: 11 phosphoproteins and phospholipids in 7,466 T cells, nine conditions",
        citation=(
            "K. Sachs, O. Perez, D. Pe'er, D. A. Lauffenburger, G. P. Nolan: Causal protein-signaling networks derived "
            "from multiparameter single-cell data. Science 308 (2005) 523-529."
        ),
    )
