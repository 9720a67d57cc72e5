"""Small fits take one thread; what torch was set to comes back."""

import threading

import numpy as np
import pytest
import torch

import unmix
from unmix.train.threads import sensible_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("shape", "n_at_once", "inside"),
    [((8,), 512, 1), ((1000,), 512, 1), ((5000,), 512, 2), ((16, 16, 3), 64, 1), ((32, 32, 1), 32, 2)],
)
def test_more_than_one_thread_only_where_they_save_time(two_threads, shape, n_at_once, inside):
    with sensible_threads(shape, n_at_once):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 2


def test_the_number_of_threads_is_never_raised(two_threads):
    torch.set_num_threads(1)
    with sensible_threads((5000,), 512):
        assert torch.get_num_threads() == 1


def test_fits_that_overlap_leave_the_number_as_it_was(two_threads):
    first, second = sensible_threads((8,), 1), sensible_threads((8,), 1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == 2


def test_a_fit_takes_one_thread_and_gives_the_others_back_also_when_it_fails(two_threads):
    x, y = np.random.default_rng(0).normal(size=(200, 4)), np.arange(200) % 2
    seen = []

    def look(_):
        seen.append((torch.get_num_threads(), threading.get_ident()))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unmix.CGVAE(2, max_epochs=4, n_restarts=1, verbose=0).fit(x, y, callbacks=[look])
    assert [threads for threads, _ in seen] == [1, 1]
    assert torch.get_num_threads() == 2
