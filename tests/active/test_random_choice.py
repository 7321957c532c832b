"""Random choice: every sample as likely, another draw for another seed."""

import types

import numpy as np

from aitom_ssl.active.random_choice import RandomChoice


def chosen(seed, budget=3, pool=10):
    return RandomChoice().select(types.SimpleNamespace(unlabelled=range(pool), seed=seed), budget).indices


def test_every_sample_is_as_likely_in_every_place():
    picks = np.array([chosen(seed) for seed in range(2000)])
    for place in picks.T:
        # 200 expected, a standard deviation of 13.4.
        assert np.abs(np.bincount(place, minlength=10) - 200).max() < 5 * 13.4


def test_the_draw_is_not_that_of_the_next_cycle():
    assert not np.array_equal(chosen(0, 10), chosen(1, 10))
