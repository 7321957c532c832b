"""What a COS-Net is worth: intervals, unseen classes only, one pass for each volume, episodes by hand."""

import math

import numpy as np
import pytest

from aitom_ssl.data import Dataset
from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError
from aitom_ssl.oneshot.evaluation import (
    Interval,
    Measured,
    aligned_logits,
    answer_episodes,
    batches,
    dice_by_class,
    interval,
    measure,
    measured_classes,
)


class Oracle:
    """Stands for a trained network: the features are the label, the mask a part of the true one."""

    has_masks, batch_size = True, 5

    def __init__(self, data, wrong=()):
        self.labels, self.data, self.seen, self.wrong = data.labels, data, [], set(wrong)

    def __call__(self, volumes, standardized=False):
        assert standardized
        rows = np.arange(len(self.seen), len(self.seen) + len(volumes))
        self.seen += rows.tolist()
        features = np.array([[9.0 + row if row in self.wrong else self.labels[row]] for row in rows])
        masks = 0.9 * self.data.masks(rows).astype(np.float32)
        masks[:, :4] = 0
        return features, masks

    def similarity(self, targets, supports):
        return -np.abs(targets[:, None, 0] - supports[None, :, 0]).astype(np.float32)


def test_an_interval_of_known_values():
    found = interval([0.0, 1.0, 1.0, 0.0])
    # Standard deviation 1/sqrt(3), of four values; 1.96 standard errors.
    assert found.mean == 0.5 and found.half_width == pytest.approx(1.959964 / math.sqrt(12), rel=1e-6)
    assert str(Interval(0.93912, 0.00449, 100)) == "0.939 ± 0.004"
    alone = interval([0.25])
    assert str(alone) == "0.250" and alone.to_dict() == {"mean": 0.25, "half_width": None, "count": 1}


def test_about_95_of_100_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        found = interval(rng.random(50))
        held += abs(found.mean - 0.5) <= found.half_width
    assert 0.9 < held / 400 < 0.98


def test_classes_that_were_trained_on_are_left_out(splits, maskless):
    assert measured_classes(splits["test"], ("a", "b", "c", "d")) == [4, 5]
    everything = Dataset(maskless, "test")
    assert measured_classes(everything, ("a", "f", "of other data")) == [1, 2, 3, 4]
    assert measured_classes(everything, ("a", "f"), seen=True) == [0, 5]
    with pytest.raises(InputError, match=r"maskless, test, has samples of too few classes .* not trained on \(f\)"):
        measured_classes(everything, tuple("abcde"))
    with pytest.raises(InputError, match=r"that the network was trained on \(none\)"):
        measured_classes(splits["test"], ("a", "b"), seen=True)


def test_every_volume_goes_through_the_network_once(splits):
    data, told = splits["test"], []
    oracle = Oracle(data)
    measured = measure(oracle, data, say=told.append)
    assert oracle.seen == list(range(12)) and told == [5, 5, 2]
    for way in (2, 2):
        answer_episodes(oracle, measured, way, episodes=10)
    assert len(oracle.seen) == 12


def test_dice_before_and_after_refining(splits):
    data = splits["test"]
    measured = measure(Oracle(data), data, refine=lambda volume, probability: np.ones_like(probability, np.uint8))
    truth = data.masks(range(12)).astype(bool)
    half = truth.copy()
    half[:, :4] = False
    both, sizes = half.reshape(12, -1).sum(axis=1), truth.reshape(12, -1).sum(axis=1)
    np.testing.assert_allclose(measured.dice, 2 * both / (both + sizes))
    np.testing.assert_allclose(measured.refined, 2 * sizes / (sizes + 512))
    by_class = dice_by_class(measured, measured.dice)
    assert set(by_class) == {4, 5} and by_class[4].count == 6
    assert by_class[4].mean == pytest.approx(measured.dice[::2].mean())


def test_without_masks_there_is_no_dice(maskless):
    data = Dataset(maskless, "test")
    oracle = Oracle(data)
    oracle.has_masks = False
    oracle.data = type("Data", (), {"masks": lambda self, rows: np.zeros((len(rows), 8, 8, 8))})()
    measured = measure(oracle, data)
    assert measured.dice is None and measured.refined is None


def test_episodes_by_hand(splits):
    """A sample that looks like no class is taken for its neighbour in feature, and is a bad example of its own."""
    data = splits["test"]
    sure = answer_episodes(Oracle(data), measure(Oracle(data), data), 2, targets=3, episodes=40)
    assert sure.accuracy == Interval(1.0, 0.0, 40) and set(sure.by_class) == {4, 5}

    # Sample 0, of class 4, has the feature 9: nearer to class 5.
    oracle = Oracle(data, wrong=[0])
    measured = measure(oracle, data)
    found = answer_episodes(oracle, measured, 2, episodes=4000, seed=1)
    # As a target (1 in 6) it alone is wrong; as the support of class 4 (1 in 6) the target of class 4 is.
    assert found.by_class[4].mean == pytest.approx(1 - 2 / 6, abs=0.03)
    assert found.by_class[5].mean == 1
    assert found.accuracy.mean == pytest.approx((found.by_class[4].mean + 1) / 2)


class Sized:
    """Stands for a trained network: the features are the mean of the volume, the mask is where it is above 0."""

    def __call__(self, volumes, standardized=False):
        self.standardized = standardized
        return volumes.mean(axis=(1, 2, 3))[:, None], (volumes > 0).astype(np.float32)

    def similarity(self, targets, supports):
        return -np.abs(targets - supports[:, 0]).astype(np.float32)


def test_each_target_is_turned_to_each_support():
    targets, supports = (np.arange(count)[:, None, None, None] + np.zeros((count, 2, 2, 2)) for count in (3, 2))
    seen = []

    def align(target, support, mask):
        np.testing.assert_array_equal(mask, support > 0)
        seen.append((target.mean(), support.mean()))
        return target + 10 * support

    network = Sized()
    found = aligned_logits(network, targets, supports, align)
    np.testing.assert_array_equal(found, [[0, -9], [-1, -10], [-2, -11]])
    assert sorted(seen) == [(t, s) for t in range(3) for s in range(2)] and not network.standardized


def test_episodes_with_alignment(splits):
    data = splits["test"]
    network = Sized()
    features = network(gather(data, np.arange(len(data)))[..., 0])[0]
    measured = Measured(data, features, None, None)
    plain = answer_episodes(network, measured, 2, targets=2, episodes=30)
    left = answer_episodes(network, measured, 2, targets=2, episodes=30, align=lambda target, *_: target)
    assert left == plain
    # Turned into the support itself, every target is as much like one class as like the other: the first is taken.
    same = answer_episodes(network, measured, 2, targets=2, episodes=30, align=lambda _, support, mask: support)
    assert same.accuracy.mean == 0.5


def test_more_shots_outvote_a_bad_example(splits):
    data = splits["test"]
    oracle = Oracle(data, wrong=[0])
    measured = measure(oracle, data)
    one, five = (answer_episodes(oracle, measured, 2, shots, episodes=1000) for shots in (1, 5))
    assert five.shots == 5 and five.accuracy.mean != one.accuracy.mean


def test_too_many_ways(splits):
    data = splits["test"]
    with pytest.raises(InputError, match="needs 3 classes of 2 samples or more, and there are 2"):
        answer_episodes(Oracle(data), Measured(data, np.zeros((12, 1)), None, None), 3)


def test_batches():
    assert [part.tolist() for part in batches(5, 2)] == [[0, 1], [2, 3], [4]]
