"""Clusters and a few labels: closed forms, slow transcriptions, and that hidden labels stay hidden."""

import itertools
import json

import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation import few_labels as module
from aitom_ssl.evaluation.few_labels import (
    cluster_scores,
    directions,
    draw_labels,
    few_labels,
    kmeans,
    neighbour_graph,
    spread_labels,
)

NAMES = ("ribosome", "igg", "groel")


def groups(sizes=(40, 30, 20), dim=12, spread=0.3):
    """Features and labels of groups far apart, shuffled."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = 4 * rng.normal(size=(len(sizes), dim)) + 100
    return centres[labels] + spread * rng.normal(size=(len(labels), dim)), labels


# === Clusters ===


def test_groups_are_found_and_numbered_by_size():
    features, labels = groups(sizes=(20, 40, 30))
    clusters = kmeans(features, 3)
    np.testing.assert_array_equal(clusters, np.array([2, 0, 1])[labels])
    np.testing.assert_array_equal(clusters, kmeans(features, 3))


def test_scale_and_offset_of_single_features_do_not_matter():
    features, _ = groups(spread=4.0)
    scale, offset = np.geomspace(1e-3, 1e3, 12), np.linspace(-50, 50, 12)
    np.testing.assert_array_equal(kmeans(features, 3), kmeans(features * scale + offset, 3))


def test_beyond_the_limit_a_subset_finds_the_centres():
    features, labels = groups()
    np.testing.assert_array_equal(kmeans(features, 3, limit=30), labels)
    with pytest.raises(InputError, match=r"31 clusters of 30 samples: ask for 1 to 30"):
        kmeans(features, 31, limit=30)


def test_features_that_are_all_alike_are_one_cluster():
    clusters = kmeans(np.ones((12, 4)), 3)
    assert not clusters.any()
    assert cluster_scores(clusters, np.arange(12) % 3).adjusted_rand == 0


def test_scores_by_hand():
    clusters, labels = np.array([0, 0, 0, 1, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1, 0])
    scores = cluster_scores(clusters, labels)
    np.testing.assert_array_equal(scores.counts, [[2, 1], [0, 3], [1, 0]])
    np.testing.assert_array_equal(scores.names, [0, 1, -1])
    assert scores.purity == pytest.approx(6 / 7) and scores.accuracy == pytest.approx(5 / 7)
    # Pairs that are together: in both 1 + 3 = 4, in clusters 6, in labels 3 + 6 = 9, of 21.
    expected = 6 * 9 / 21
    assert scores.adjusted_rand == pytest.approx((4 - expected) / ((6 + 9) / 2 - expected))

    def entropy(counts):
        share = np.array(counts) / 7
        return -(share * np.log(share)).sum()

    shared = entropy([3, 3, 1]) + entropy([3, 4]) - entropy([2, 1, 3, 1])
    assert scores.mutual_information == pytest.approx(shared / ((entropy([3, 3, 1]) + entropy([3, 4])) / 2))


@pytest.mark.parametrize("clusters", [2, 4, 6])
def test_the_best_names_are_the_best_of_all(clusters):
    rng = np.random.default_rng(clusters)
    found, labels = rng.integers(0, clusters, 60), rng.integers(0, 4, 60)
    counts = cluster_scores(found, labels).counts
    square = np.zeros((6, 6), int)
    square[: counts.shape[0], : counts.shape[1]] = counts
    best = max(sum(square[k, name] for k, name in enumerate(order)) for order in itertools.permutations(range(6)))
    assert cluster_scores(found, labels).accuracy == best / 60


def test_other_names_for_clusters_change_no_score():
    rng = np.random.default_rng(5)
    clusters, labels = rng.integers(0, 5, 80), rng.integers(0, 3, 80)
    first, second = cluster_scores(clusters, labels).to_dict(), cluster_scores(4 - clusters, labels).to_dict()
    assert first.pop("counts") == second.pop("counts")[::-1]
    assert first == pytest.approx(second)


def test_no_cluster_is_named_after_a_class_that_it_does_not_hold():
    scores = cluster_scores(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 0]))
    np.testing.assert_array_equal(scores.names, [1, 0])
    scores = cluster_scores(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(scores.names, [0, 1])
    scores = cluster_scores(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0]))
    np.testing.assert_array_equal(scores.names, [0, -1])
    assert scores.accuracy == 0.5


def test_samples_without_a_label_are_not_scored():
    with pytest.raises(InputError, match="1 of 2 clustered samples have no label"):
        cluster_scores(np.array([0, 1]), np.array([0, -1]))


# === Spreading ===


def test_neighbours_are_the_nearest_of_either():
    rows = np.random.default_rng(1).normal(size=(15, 4))
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + 1e9 * np.eye(15)
    nearest = np.zeros((15, 15), bool)
    nearest[np.arange(15)[:, None], np.argsort(distance, axis=1)[:, :3]] = True
    np.testing.assert_array_equal(neighbour_graph(rows, 3).toarray(), nearest | nearest.T)
    np.testing.assert_array_equal(neighbour_graph(rows, 99).toarray(), ~np.eye(15, dtype=bool))


def test_spreading_is_its_closed_form():
    """Zhou 2004, equation 4: F = (I - alpha S)^-1 Y with S = D^-1/2 W D^-1/2."""
    rng = np.random.default_rng(2)
    graph = neighbour_graph(rng.normal(size=(60, 3)), 4)
    labels = np.full(60, -1)
    labels[:9] = np.arange(9) % 3
    dense = graph.toarray()
    root = np.sqrt(dense.sum(axis=0))
    given = np.where(labels[:, None] == np.arange(3), 1.0, 0.0)
    exact = np.linalg.solve(np.eye(60) - 0.9 * dense / root / root[:, None], given)
    exact /= exact.sum(axis=1, keepdims=True)
    clear = np.diff(np.sort(exact, axis=1))[:, -1] > 0.01
    assert clear.sum() > 50
    np.testing.assert_array_equal(spread_labels(graph, labels)[clear], exact.argmax(axis=1)[clear])


def test_what_no_label_reaches_gets_none():
    rows = np.concatenate([np.zeros((5, 2)), np.full((5, 2), 9.0)]) + np.random.default_rng(3).normal(size=(10, 2))
    labels = np.array([1, 0, -1, -1, -1, -1, -1, -1, -1, -1])
    found = spread_labels(neighbour_graph(rows, 3), labels)
    assert set(found[:5]) <= {0, 1} and (found[5:] == -1).all()


def test_a_label_goes_round_a_long_way():
    """Two rings, one label each: neighbours lead round, and the other ring is nearer than the far side of one's own."""
    angle = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    rings = np.concatenate([radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) for radius in (1.0, 1.6)])
    labels = np.full(160, -1)
    labels[[0, 120]] = 0, 1
    np.testing.assert_array_equal(spread_labels(neighbour_graph(rings, 4), labels), np.repeat([0, 1], 80))


# === A few labels ===


def test_labels_are_drawn_by_class_and_fewer_are_among_more():
    labels = np.random.default_rng(4).permutation(np.repeat([-1, 0, 1, 4], [30, 20, 9, 3]))
    few, more = draw_labels(labels, 2, seed=1), draw_labels(labels, 5, seed=1)
    np.testing.assert_array_equal(np.bincount(labels[few]), [2, 2, 0, 0, 2])
    np.testing.assert_array_equal(np.bincount(labels[more]), [5, 5, 0, 0, 3])
    assert set(few) < set(more) and (np.diff(more) > 0).all()
    assert set(few) != set(draw_labels(labels, 2, seed=2))


def test_groups_far_apart_need_few_labels():
    features, labels = groups()
    found = few_labels(features, labels, NAMES, (1, 5), seeds=(0, 1, 2))
    assert all((found.accuracy[name] == 1).all() and found.accuracy[name].shape == (2, 3) for name in module.METHODS)
    assert found.measured == (87, 75) and found.samples == 90 and found.left_out == 0
    assert found.classes == 3 and found.chance == pytest.approx(40 / 90)


def test_features_that_say_nothing_are_at_chance():
    rng = np.random.default_rng(6)
    found = few_labels(rng.normal(size=(600, 8)), np.arange(600) % 3, NAMES, (5,), seeds=range(4))
    assert all(found.accuracy[name].mean() == pytest.approx(1 / 3, abs=0.05) for name in module.METHODS)


def test_only_given_labels_are_seen_and_only_hidden_ones_are_counted(monkeypatch):
    features, labels = groups()
    labels = np.where(np.arange(90) % 9 == 0, -1, labels)
    seen = []
    # Gives back what it was given: right for every given label, and for no hidden one.
    monkeypatch.setattr(module, "spread_labels", lambda graph, start: seen.append(start) or start)
    found = few_labels(features, labels, NAMES, (2, 4), seeds=(0, 1))
    assert (found.accuracy["label spreading"] == 0).all() and found.measured == (74, 68) and found.samples == 90
    for start, count in zip(seen, (2, 2, 4, 4), strict=True):
        given = start >= 0
        np.testing.assert_array_equal(start[given], labels[given])
        np.testing.assert_array_equal(np.bincount(start[given]), [count] * 3)


def test_beyond_the_limit_some_are_left_out_and_every_class_stays():
    features, labels = groups(sizes=(200, 80, 6))
    found = few_labels(features, labels, NAMES, (2, 5), seeds=(0,), limit=40)
    assert found.samples == 40 and found.left_out == 246 and found.measured == (34, 25)
    assert found.accuracy["linear probe"].min() > 0.95
    assert "246 samples, drawn at random, were left out" in found.caption()


def test_directions_are_of_unit_length():
    features, _ = groups()
    np.testing.assert_allclose(np.linalg.norm(directions(features), axis=1), 1)


def test_the_table_has_means_and_spreads():
    accuracy = {name: np.array([[0.5, 0.7]]) + k / 10 for k, name in enumerate(module.METHODS)}
    found = module.FewLabels((5,), (0, 1), accuracy, (1085,), 1100, 0, 3, 0.4)
    assert found.rows() == [
        ["labels a class", "label spreading", "kNN", "linear probe", "measured on"],
        ["5", "0.600 ± 0.141", "0.700 ± 0.141", "0.800 ± 0.141", "1,085"],
        ["chance", "0.400", "0.400", "0.400", ""],
    ]
    assert found.table().splitlines()[2] == "5               0.600 ± 0.141    0.700 ± 0.141  0.800 ± 0.141  1,085"
    assert "2 draws of the labels (seed 0, 1)" in found.caption() and "left out" not in found.caption()
    assert json.loads(json.dumps(found.to_dict()))["accuracy"]["kNN"] == [[0.6, pytest.approx(0.8)]]


# === Bad input ===

FEATURES, LABELS = groups(sizes=(12, 9, 4))
BUT_ONE = (LABELS == 2) & (np.cumsum(LABELS == 2) > 1)  # all of the last class but one


@pytest.mark.parametrize(
    ("labels", "counts", "said"),
    [
        (LABELS, (2, 5), "groel has 4 labelled samples: 5 labels a class leave none to measure on, ask for 3 or fewer"),
        (LABELS, (4,), "groel has 4 labelled samples: 4 labels a class"),
        (np.where(BUT_ONE, -1, LABELS), (1,), "groel has 1 labelled sample: 1 labels a class .* label more of it"),
        (np.full(25, -1), (1,), "None of the 25 samples has a label"),
        (np.where(LABELS == 1, 1, -1), (1,), "All 9 labelled samples are igg: expected 2 classes or more"),
        (LABELS, (), r"labels a class \[\]: expected numbers of 1 or more"),
        (LABELS, (2, 0), r"labels a class \[2, 0\]"),
    ],
)
def test_labels_that_are_too_few_are_named_with_the_numbers(labels, counts, said):
    with pytest.raises(InputError, match=said) as caught:
        few_labels(FEATURES, labels, NAMES, counts)
    assert "\n" not in str(caught.value)


def test_bad_features_and_seeds_are_named():
    with pytest.raises(InputError, match="one seed or more"):
        few_labels(FEATURES, LABELS, NAMES, (1,), seeds=())
    with pytest.raises(InputError, match=r"Received shape \(25, 12\) with NaN"):
        few_labels(np.where(FEATURES > 100, np.nan, FEATURES), LABELS, NAMES, (1,))
    with pytest.raises(InputError, match=r"Received shape \(12,\)"):
        kmeans(np.ones(12), 2)
