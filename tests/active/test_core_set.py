"""k-center greedy beside a slow one, the best possible one, and scikit-activeml's."""

import itertools
import tracemalloc

import numpy as np
import pytest

from aitom_ssl.active.core_set import k_center_greedy
from aitom_ssl.errors import InputError

# k_greedy_center of scikit-activeml 1.0.1, as skactiveml.pool.CoreSet().query(X, y, batch_size=15,
# return_utilities=True) chose with the first 5 of the 60 rows of `theirs` labelled: positions among the other 55.
CHOSEN = [44, 42, 4, 41, 30, 49, 28, 39, 26, 19, 20, 7, 52, 48, 50]
DISTANCES = [5.78436, 4.85186, 4.21089, 3.61598, 3.58044, 3.54954, 3.36291, 3.28031, 3.05481, 2.82544, 2.78501]
DISTANCES += [2.67318, 2.61987, 2.57628, 2.4582]


def greedy(features, labelled, budget, seed=0):
    return k_center_greedy(np.asarray(features), np.asarray(labelled), budget, np.random.default_rng(seed))


def radius(points, centres):
    return np.linalg.norm(points[:, None] - centres[None], axis=2).min(axis=1).max()


def test_as_scikit_activeml():
    theirs = np.random.default_rng(0).standard_normal((60, 5)) * [1, 2, 3, 1, 0.5] + 10
    taken, distances = greedy(theirs[5:], theirs[:5], 15)
    np.testing.assert_array_equal(taken, CHOSEN)
    np.testing.assert_allclose(distances, DISTANCES, atol=1e-4)


@pytest.mark.parametrize("labelled", [1, 300])
def test_as_a_slow_one_far_from_the_origin(labelled):
    """Pooled features have a mean that dwarfs their spread; 300 centres are two chunks."""
    rng = np.random.default_rng(1)
    points = rng.standard_normal((40, 6)) + 200
    centres = rng.standard_normal((labelled, 6)) + 200
    taken, distances = greedy(points, centres, 25)
    points, centres = np.float64(np.float32(points)), np.float64(np.float32(centres))
    for pick, distance in zip(taken, distances, strict=True):
        nearest = np.linalg.norm(points[:, None] - centres[None], axis=2).min(axis=1)
        assert pick == nearest.argmax()
        assert distance == pytest.approx(nearest[pick], rel=1e-4)
        centres = np.concatenate([centres, points[[pick]]])


@pytest.mark.parametrize("seed", range(5))
def test_its_radius_is_at_most_twice_the_best_one(seed):
    points = np.random.default_rng(seed).standard_normal((11, 2))
    pool, labelled = points[1:], points[:1]
    subsets = itertools.combinations(range(10), 3)
    best = min(radius(points, np.concatenate([labelled, pool[list(subset)]])) for subset in subsets)
    taken, _ = greedy(pool, labelled, 3, seed)
    found = radius(points, np.concatenate([labelled, pool[taken]]))
    assert best - 1e-6 <= found <= 2 * best


def test_with_nothing_labelled_the_first_is_random_and_the_rest_greedy():
    points = np.random.default_rng(2).standard_normal((12, 3))
    runs = [greedy(points, np.zeros((0, 3)), 12, seed) for seed in range(40)]
    assert len({taken[0] for taken, _ in runs}) > 8
    for taken, distances in runs:
        assert sorted(taken) == list(range(12))
        rest, _ = greedy(points, points[taken[:1]], 12)
        np.testing.assert_array_equal(taken[1:], [pick for pick in rest if pick != taken[0]])
        assert distances[0] == distances[1] and (np.diff(distances) <= 0).all()


def test_equal_rows_are_taken_once_each_in_an_order_that_the_seed_draws():
    orders = [greedy(np.ones((6, 4)), np.ones((2, 4)), 6, seed)[0].tolist() for seed in range(5)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(map(tuple, orders))) > 1


def test_memory_is_linear_in_the_pool_and_does_not_grow_with_the_budget():
    features = np.random.default_rng(3).standard_normal((6000, 64)).astype(np.float32)
    tracemalloc.start()
    try:
        peaks = []
        for budget in (2, 300):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            greedy(features[1000:], features[:1000], budget)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[1] < 2 * 4 * 5000 * (64 + 256)


def test_a_diverged_network_is_named():
    with pytest.raises(InputError, match="NaN"):
        greedy([[1.0], [np.nan]], np.zeros((0, 1)), 1)
