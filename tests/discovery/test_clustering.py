"""The over-partition against known groups and scikit-learn, its determinism, and what it does with odd features."""

import io

import numpy as np
import pytest
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from aitom_ssl.discovery.clustering import TINY, over_partition, size_statistics
from aitom_ssl.discovery.clustering_figure import cluster_sizes_figure
from aitom_ssl.errors import InputError


def groups(sizes, dimensions=5, spread=0.05, seed=0):
    """Features about far corners, and the group of each, shuffled."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    corners = 10 * rng.standard_normal((len(sizes), dimensions))
    return (corners[truth] + spread * rng.standard_normal((len(truth), dimensions))).astype(np.float32), truth


@pytest.mark.parametrize("memory", [2 << 30, 10_000])
def test_groups_far_apart_are_found_and_sorted_by_size(memory):
    features, truth = groups([50, 400, 120, 30])
    found = over_partition(features, 4, seed=1, memory=memory)
    assert found.minibatch == (memory == 10_000) and found.asked == 4
    assert found.sizes.tolist() == [400, 120, 50, 30] and found.labels.dtype == np.int64
    for cluster, group in enumerate([1, 2, 0, 3]):
        np.testing.assert_array_equal(found.members(cluster), np.flatnonzero(truth == group))
        np.testing.assert_allclose(found.centres[cluster], features[truth == group].mean(axis=0), atol=0.05)
    assert [found.at_least(size) for size in (1, 31, 120, 121, 500)] == [4, 3, 2, 1, 0]


def test_it_is_k_means():
    features = np.random.default_rng(0).standard_normal((600, 6)).astype(np.float32)
    found = over_partition(features, 20, seed=3)
    nearest = np.linalg.norm(features[:, None] - found.centres[None], axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest, found.labels)
    means = np.stack([features[found.labels == c].mean(axis=0) for c in range(20)])
    np.testing.assert_allclose(found.centres, means, atol=1e-5)
    with threadpool_limits(1):
        theirs = KMeans(20, n_init=1, random_state=3).fit(features)
    own = np.square(features - found.centres[found.labels]).sum()
    assert own == pytest.approx(theirs.inertia_, rel=1e-5)


def test_minibatches_come_near_to_all_at_once():
    features = np.random.default_rng(0).standard_normal((6000, 6)).astype(np.float32)

    def inertia(found):
        return np.square(features - found.centres[found.labels]).sum()

    whole, parts = over_partition(features, 30), over_partition(features, 30, memory=60_000)
    assert parts.minibatch and not whole.minibatch
    assert inertia(whole) < inertia(parts) < 1.08 * inertia(whole)


@pytest.mark.parametrize("memory", [2 << 30, 20_000])
def test_the_seed_decides(memory):
    features = np.random.default_rng(0).standard_normal((1500, 4)).astype(np.float32)
    first, again, other = (over_partition(features, 25, seed, memory) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.centres, again.centres)
    assert (first.labels != other.labels).any()


def test_a_memory_mapped_file_gives_the_same(tmp_path):
    features = np.random.default_rng(0).standard_normal((3000, 4)).astype(np.float32)
    np.save(tmp_path / "f.npy", features)
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    for memory in (2 << 30, 20_000):
        one, two = (over_partition(which, 10, 0, memory) for which in (features, mapped))
        np.testing.assert_array_equal(one.labels, two.labels)


def test_repeated_features_give_fewer_clusters_and_none_empty():
    features = np.repeat(np.arange(7.0), [1, 2, 3, 40, 5, 6, 7])[:, None]
    found = over_partition(features, 30)
    assert found.asked == 30 and found.sizes.tolist() == [40, 7, 6, 5, 3, 2, 1] and len(found.centres) == 7
    assert over_partition(np.ones((5, 3)), 3).sizes.tolist() == [5]
    lone = over_partition(np.arange(4.0)[:, None], 4)
    assert lone.sizes.tolist() == [1, 1, 1, 1] and sorted(lone.labels.tolist()) == [0, 1, 2, 3]


def test_sizes_are_told_in_numbers():
    told = size_statistics(np.array([60, 20, 10, 10]))
    assert told["clusters"] == 4 and told["samples"] == 100 and told["largest"] == 60 and told["smallest"] == 10
    assert told["median"] == 15 and told["tiny"] == 2 and told["in_tiny"] == 20
    assert told["large"] == 1 and told["in_large"] == 60 and TINY == 10
    entropy = -sum(p * np.log(p) for p in (0.6, 0.2, 0.1, 0.1))
    assert told["effective"] == pytest.approx(np.exp(entropy)) and told["evenness"] == pytest.approx(
        np.exp(entropy) / 4
    )
    assert size_statistics(np.full(100, 7))["evenness"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("features", "clusters", "message"),
    [
        (np.zeros((5, 2)), 100, "100 clusters of 5 samples: ask for 1 to 5"),
        (np.zeros((5, 2)), 0, "0 clusters"),
        (np.zeros(5), 2, r"Received shape \(5,\)"),
        (np.zeros((0, 2)), 1, r"Received shape \(0, 2\)"),
        (np.array([[0.0], [1.0], [np.nan]]), 2, "features of sample 2 are NaN"),
    ],
)
def test_mistakes_are_named(features, clusters, message):
    with pytest.raises(InputError, match=message):
        over_partition(features, clusters)


def test_clusters_that_are_not_there():
    with pytest.raises(InputError, match="no cluster 2: expected 0 to 1"):
        over_partition(np.arange(4.0)[:, None], 2).members(2)
    with pytest.raises(InputError, match="1 or more each"):
        size_statistics(np.array([3, 0]))


def test_the_figure_has_every_cluster_in_a_bin_of_shared_axes():
    partitions = {"structural features": np.full(100, 115), "pose normalisation": np.array([2470] + [1] * 84)}
    figure = cluster_sizes_figure(partitions)
    for axes, sizes in zip(figure.axes, partitions.values(), strict=True):
        assert sum(patch.get_height() for patch in axes.patches) == len(sizes)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim() and "84 of 10 or fewer" in figure.axes[1].get_title(
        "left"
    )
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    with pytest.raises(InputError, match="no cluster sizes"):
        cluster_sizes_figure({})
