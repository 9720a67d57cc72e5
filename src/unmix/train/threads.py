"""How many threads a fit takes: one where a step has too little work for more, so that it never waits for another."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

# Below, two threads save an eighth of the time at most on an idle machine, and take many times as long on a busy one
# (docs/speed.md).
_NUMBERS, _PIXELS = 2**20, 2**9


@dataclass
class _Fits:
    """Of all Python threads: how many fits ask for one thread, and how many there were before the first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    before: int = 1


_FITS = _Fits()


@contextmanager
def sensible_threads(shape: Sequence[int], n_at_once: int) -> Iterator[None]:
    """Compute with one thread inside, unless rows are images of more than 512 pixels or a step sees 2²⁰ numbers.

    More threads than idle cores wait for each other at every operation, which can take several times as long as one.
    What torch was set to is never raised, and comes back afterwards.

    Parameters
    ----------
    shape : of a row, (n_features,) or (height, width, channels)
    n_at_once : rows of a step, times the starts that share it
    """
    many = math.prod(shape[:2]) > _PIXELS if len(shape) == 3 else n_at_once * shape[0] >= _NUMBERS
    if many:
        yield
        return
    with _FITS.lock:
        _FITS.running += 1
        if _FITS.running == 1:
            _FITS.before = torch.get_num_threads()
            torch.set_num_threads(1)
    try:
        yield
    finally:
        with _FITS.lock:
            _FITS.running -= 1
            if _FITS.running == 0:
                torch.set_num_threads(_FITS.before)
