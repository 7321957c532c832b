"""Views, scores and "none of these": known geometry, closed forms, and classes that are told apart by hand."""

import numpy as np
import pytest
from scipy import ndimage

from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre, pose_to_affine
from aitom_ssl.oneshot import calibration
from aitom_ssl.oneshot.calibration import calibrate, class_logits, fit_curve, summarize, views

SIDE = 16


def blob(radius, side=SIDE, noise=0.0, seed=0):
    offset = np.arange(side) - side // 2
    distance = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(offset, offset, offset, indexing="ij")))
    rng = np.random.default_rng(seed)
    return (1 / (1 + np.exp(2 * (distance - radius))) + noise * rng.normal(size=distance.shape)).astype(np.float32)


# === Views ===


@pytest.mark.parametrize("side", [6, 7])
def test_views_are_half_turns_about_the_centre_voxel(side):
    volume = np.random.default_rng(0).normal(size=(side,) * 3)
    found = views(volume)
    middle = centre(side)
    for view, turned in zip(found, ((1, 1, 0), (1, 0, 1), (0, 1, 1)), strict=True):
        for place in np.ndindex(volume.shape):
            source = [(2 * middle - i) % side if turn else i for i, turn in zip(place, turned, strict=True)]
            assert view[place] == volume[tuple(source)]
        assert view[(middle,) * 3] == volume[(middle,) * 3]


def test_views_keep_the_missing_wedge_and_turn_like_geometry():
    side = 9
    volume = np.random.default_rng(1).normal(size=(side,) * 3)
    frequency = np.abs(np.fft.fftfreq(side))
    wedge = frequency[:, None, None] > 1.5 * frequency + 0.01  # about the beam z, tilt axis y
    wedge = np.broadcast_to(wedge, (side,) * 3)
    seen = np.fft.ifftn(np.where(wedge, 0, np.fft.fftn(volume))).real
    for view in views(seen):
        np.testing.assert_allclose(np.fft.fftn(view)[wedge], 0, atol=1e-9)
    half_turns = np.array([[0, 1.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # about x, y, z
    for view, quaternion in zip(views(volume), half_turns, strict=True):
        linear = pose_to_affine(quaternion)[:, :3]
        middle = np.full(3, centre(side))
        turned = ndimage.affine_transform(volume, linear, middle - linear @ middle, order=1)
        np.testing.assert_allclose(view, turned, atol=1e-9)


# === Scores ===


def test_logits_of_a_class_are_averaged():
    found = class_logits([[1.0, 3.0, 10.0]], [0, 0, 2], 3)
    np.testing.assert_array_equal(found, [[2.0, -np.inf, 10.0]])


def test_a_curve_is_a_half_between_what_is_symmetric_and_rises():
    of = np.repeat([0, 1, 2, 3], 5)
    known, unknown = np.full(20, 3.0), np.full(20, -1.0)
    curve = fit_curve(known, unknown, of)
    assert curve.middle == pytest.approx(1.0, abs=1e-3)
    # Platt's targets of four classes are met exactly: two points, two parameters.
    np.testing.assert_allclose(curve([3.0, -1.0]), [5 / 6, 1 / 6], atol=1e-3)
    np.testing.assert_allclose(curve([1e6, -1e6]), [1.0, 0.0], atol=1e-6)
    moved = fit_curve(10 * known + 7, 10 * unknown + 7, of)
    assert moved.middle == pytest.approx(17.0, abs=1e-2) and moved.slope == pytest.approx(curve.slope / 10, rel=1e-2)


def test_more_classes_make_a_curve_surer():
    steep = [fit_curve(np.full(n, 1.0), np.full(n, 0.0), np.arange(n)).slope for n in (2, 4, 8)]
    assert steep == sorted(steep)


def test_classes_count_alike_however_many_views_they_have():
    few = fit_curve(np.array([3.0, 1.0]), np.array([0.0, -1.0]), np.array([0, 1]))
    many = fit_curve(
        np.array([3.0, *[1.0] * 9]), np.array([0.0, *[-1.0] * 9]), np.array([0, *[1] * 9])
    )
    np.testing.assert_allclose(few, many, rtol=1e-3)


def test_what_cannot_be_told_apart_scores_a_half():
    rng = np.random.default_rng(0)
    both = rng.normal(size=60)
    curve = fit_curve(both, both, np.repeat([0, 1, 2], 20))
    np.testing.assert_allclose(curve(both), 0.5, atol=0.02)


def test_a_single_class_reaches_twice_as_far_as_its_views():
    curve = calibration.lone_curve(np.array([5.0, 6.0, 5.5]), same=9.0)
    assert curve(5.5) == pytest.approx(0.95, abs=1e-6) and curve(2.0) == pytest.approx(0.5, abs=1e-6)
    assert curve(1.0) < 0.5 < curve(3.0)


def test_a_summary_by_hand():
    # Three classes, two views each: own class 4 (once 1), the nearest other 0.
    logits = np.array([[4.0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 4, 0], [0, 0, 4], [0, 2.5, 1]])
    of = np.array([0, 0, 1, 1, 2, 2])
    found = summarize(logits, of, 9.0)
    np.testing.assert_array_equal(found.known, [4, 4, 4, 4, 4, 2.5])
    np.testing.assert_array_equal(found.unknown, [0, 0, 0, 0, 0, 2.5])
    assert found.right == pytest.approx((1 + 1 + 0.5) / 3)
    # Without class 2 the curve is a half at 2: of its views, at 0 and 2.5, one passes. Of the others none does.
    assert found.rejected == pytest.approx((1 + 1 + 0.5) / 3)
    assert summarize(logits[:4, :2], of[:4], 9.0).rejected is None
    alone = summarize(logits[:2, :1], of[:2], 9.0)
    assert alone.rejected is None and alone.right == 1.0 and len(alone.unknown) == 0


# === Of volumes ===


def shells(volumes):
    offset = np.arange(SIDE) - SIDE // 2
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(offset, offset, offset, indexing="ij")))
    volumes = standardize(np.array(volumes, np.float32))
    return np.stack([volumes[:, np.round(radius) == r].mean(axis=1) for r in range(8)], axis=1)


def similarity(targets, supports):
    return -3.0 * np.abs(targets[:, None] - supports[None]).sum(axis=2)


def test_examples_that_can_be_told_apart_give_a_threshold_that_does():
    radii = [2.0, 3.5, 5.0, 6.5]
    examples = standardize(np.stack([blob(radius, noise=0.2, seed=k) for k, radius in enumerate(radii)]))
    found = calibrate(examples, np.arange(4), shells(examples), shells, similarity)
    assert found.right == 1.0 and found.accepted > 0.9 and found.rejected > 0.9
    supports = shells(examples)

    def scores(outer, inner=None):
        fresh = np.stack([blob(outer, noise=0.2, seed=100 + k) for k in range(6)])
        fresh -= 0 if inner is None else blob(inner)
        return found.curve(similarity(shells(fresh), supports).max(axis=1))

    for radius in radii:
        assert (scores(radius) >= 0.5).all()
    # As unlike the classes as these are unlike each other: larger, and hollow.
    assert (scores(8.5) < 0.5).all() and (scores(6.0, 4.0) < 0.5).all()


def test_a_second_example_is_what_views_are_compared_with():
    examples = standardize(np.stack([blob(3.0, noise=0.2), blob(4.0, noise=0.2, seed=1), blob(6.5, noise=0.2, seed=2)]))
    one = calibrate(examples[[0, 2]], np.array([0, 1]), shells(examples[[0, 2]]), shells, similarity)
    two = calibrate(examples, np.array([0, 0, 1]), shells(examples), shells, similarity)
    # Both examples differ in size, so views of each are less like the other than like itself.
    assert two.known[two.classes == 0].max() < one.known[one.classes == 0].min()


@pytest.mark.parametrize("labels", [[0, 2], []])
def test_support_sets_that_cannot_be_calibrated(labels):
    volumes = np.zeros((len(labels), 4, 4, 4), np.float32)
    with pytest.raises(InputError, match="support set"):
        calibrate(volumes, np.array(labels, int), np.zeros((len(labels), 8)), shells, similarity)
