"""Averages against closed forms and true poses; classes of simulated mixtures, without a reference."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

from aitom_ssl import geometry
from aitom_ssl.discovery.alignment import Alignment, align, angle_between, measured
from aitom_ssl.discovery.averaging import (
    average_subtomograms,
    classify_and_average,
    filtered,
    fsc_weights,
)
from aitom_ssl.discovery.resolution import fourier_shell_correlation, soft_sphere
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import Scene, SimulationSpec, Simulator

SIZE = 16


def shell_correlation(first, second):
    return fourier_shell_correlation(first, second, 1.0).correlation


def simulated(names, snr, count, size=SIZE):
    """(references, volumes, poses, labels) of the default simulation in boxes of `size` voxels."""
    spec = SimulationSpec(classes=names, size=size, voxel_size=320 / size, snr=snr, max_shift=2.0, seed=4)
    whole = Simulator(dataclasses.replace(spec, tilt_max=90.0))
    identity = np.array([1.0, 0, 0, 0])
    scenes = [Scene(0, 0, label, identity, np.zeros(3), spec.defocus_um, ()) for label in range(len(names))]
    batch = Simulator(spec).batch(0, range(count))
    poses = Alignment(batch["quaternion"], batch["shift"], np.ones(count))
    return [whole.signal(scene) for scene in scenes], batch["volume"], poses, batch["label"]


def still(count):
    """Poses that leave volumes as they are."""
    return Alignment(np.tile([1.0, 0, 0, 0], (count, 1)), np.zeros((count, 3)), np.ones(count))


def smooth(n, seed=0):
    """A blob-like volume of mean 0 that fades into 0 inside the box."""
    noise = np.random.default_rng(seed).standard_normal((n, n, n)) * soft_sphere(n, n / 4)
    volume = filtered(noise.astype(np.float32), [1, 1, 1, 1, 0]) * soft_sphere(n, n / 3)
    return volume - volume.mean()


def axes(n):
    return np.broadcast_arrays(*geometry.frequencies((n,) * 3))


def correlation(first, second):
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


# === Averages ===


def test_the_average_of_one_volume_is_that_volume():
    volume = smooth(16)
    average = average_subtomograms([volume], still(1))
    assert correlation(average.volume, volume) > 0.999
    assert np.std(average.volume - volume) < 0.05 * np.std(volume)
    length = np.sqrt(sum(np.square(grid) for grid in geometry.frequencies((16,) * 3)))
    np.testing.assert_array_equal(average.coverage, length < 0.5 - 1e-9)


@pytest.mark.parametrize("turn", [3, 9, 17])
def test_volumes_are_turned_and_moved_back(turn):
    volume, matrix = smooth(17), geometry.cube_rotations()[turn]
    there = np.stack(np.meshgrid(*[np.arange(17) - 8] * 3, indexing="ij"), axis=-1)
    here = np.rint(there @ geometry.reverse_axes(matrix)).astype(int) + 8
    placed = np.roll(volume[tuple(np.moveaxis(here, -1, 0))], (0, 2, -1), axis=(0, 1, 2))
    pose = Alignment(geometry.matrix_to_quaternion(matrix)[None], np.array([[-1.0, 2.0, 0.0]]), np.ones(1))
    assert correlation(average_subtomograms([placed], pose).volume, volume) > 0.998


def test_each_frequency_is_divided_by_how_many_measured_it():
    volume = smooth(16)
    first, second = measured(60.0, *axes(16), side=16), measured(60.0, *(axes(16)[i] for i in (0, 2, 1)), side=16)
    seen = [np.fft.ifftn(np.fft.fftn(volume) * wedge).real for wedge in (first, second)]
    average = average_subtomograms(seen, still(2), [60.0, second])
    length = np.sqrt(sum(np.square(grid) for grid in geometry.frequencies((16,) * 3)))
    inside = length < 0.5 - 1e-9
    np.testing.assert_array_equal(average.coverage, (first.astype(int) + second) * inside)
    expected = np.fft.ifftn(np.fft.fftn(volume) * ((first | second) & inside)).real
    assert correlation(average.volume, expected) > 0.998
    twice = average_subtomograms(seen, still(2), [60.0, second], min_coverage=2)
    expected = np.fft.ifftn(np.fft.fftn(volume) * (first & second & inside)).real
    assert correlation(twice.volume, expected) > 0.998


def test_a_wedge_turns_with_its_particle():
    quarter = Alignment(geometry.euler_zyz_to_quaternion([[90.0, 0, 0]]), np.zeros((1, 3)), np.ones(1))
    coverage = average_subtomograms([smooth(16)], quarter, 60.0).coverage
    about_x = measured(60.0, *(axes(16)[i] for i in (0, 2, 1)), side=16)
    length = np.sqrt(sum(np.square(grid) for grid in geometry.frequencies((16,) * 3)))
    np.testing.assert_array_equal(coverage, about_x & (length < 0.5 - 1e-9))


def test_particles_in_their_true_poses_average_to_the_structure():
    (reference,), volumes, poses, _ = simulated(("ribosome_70s",), 0.5, 24)
    average = average_subtomograms(volumes, poses, 60.0)
    fsc = shell_correlation(average.volume, reference)
    assert fsc[1:6].min() > 0.95
    wrong = Alignment(poses.quaternion * [1, -1, -1, -1], poses.shift, poses.score)
    assert shell_correlation(average_subtomograms(volumes, wrong, 60.0).volume, reference)[1:6].min() < 0.8


def test_weights_of_zero_leave_volumes_out_and_processes_change_nothing():
    _, volumes, poses, _ = simulated(("ribosome_70s",), 0.5, 40)
    some = Alignment(*(field[:24] for field in poses))
    average = average_subtomograms(volumes[:24], some, 60.0)
    weighted = average_subtomograms(volumes, poses, 60.0, weights=(np.arange(40) < 24).astype(float), workers=2)
    np.testing.assert_allclose(weighted.volume, average.volume, atol=1e-5)
    np.testing.assert_array_equal(weighted.coverage, average.coverage)
    again = average_subtomograms(volumes, poses, 60.0, workers=1)
    np.testing.assert_array_equal(again.volume, average_subtomograms(volumes, poses, 60.0, workers=2).volume)


# === Shells ===


def test_weights_of_a_correlation():
    np.testing.assert_allclose(fsc_weights([1, 1, 0.5, 1 / 3, 0, 0.9]), [1, 1, (2 / 3) ** 0.5, 0.5**0.5, 0, 0])
    np.testing.assert_allclose(fsc_weights([-1, 1, 1, -0.1, 1]), [0, 1, 1, 0, 0])


def test_a_filter_of_ones_changes_next_to_nothing():
    volume = smooth(16)
    np.testing.assert_allclose(filtered(volume, np.ones(8)), volume, atol=0.02 * np.abs(volume).max())


# === Classes ===


def test_a_mixture_is_divided_and_averaged():
    names = ("ribosome_70s", "proteasome_20s")
    references, volumes, poses, labels = simulated(names, 0.5, 20)
    found = classify_and_average(volumes, 60.0, classes=2, iterations=2)
    assert adjusted_rand_score(labels, found.labels) == 1
    for c in range(2):
        rows = np.flatnonzero(found.labels == c)
        reference = references[labels[rows[0]]]
        pose = align(found.averages[c].volume, reference, found.averages[c].coverage >= 1)
        assert pose.score > 0.8
        first, second = found.half_averages[c]
        assert shell_correlation(first.volume, second.volume)[1:4].min() > 0.7
    # One frame: what is left between the poses found and the true ones is one turn, for a structure of no symmetry.
    rows = np.flatnonzero(labels == 0)
    turns = geometry.quaternion_to_matrix(found.alignment.quaternion[rows])
    left = Rotation.from_matrix(np.swapaxes(geometry.quaternion_to_matrix(poses.quaternion[rows]), 1, 2) @ turns)
    frame = geometry.matrix_to_quaternion(left.mean().as_matrix())
    spread = angle_between(frame, geometry.matrix_to_quaternion(left.as_matrix()))
    assert np.median(spread) < 6
    again = classify_and_average(volumes, 60.0, classes=2, iterations=2)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_array_equal(found.averages[0].volume, again.averages[0].volume)


def test_half_sets_that_go_their_own_way_meet():
    _, volumes, _, labels = simulated(("ribosome_70s", "proteasome_20s"), 0.5, 24)
    found = classify_and_average(volumes, 60.0, classes=2, iterations=1, gold_standard=True)
    assert adjusted_rand_score(labels, found.labels) > 0.8
    assert found.half.sum() == 12
    assert np.all(np.diff(np.bincount(found.labels)) <= 0)
    first, second = found.half_averages[0]
    assert shell_correlation(first.volume, second.volume)[1:4].min() > 0.6


# === Bad input ===

GOOD = [smooth(12, seed) for seed in range(3)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_subtomograms([], still(0)), "no volume"),
        (lambda: average_subtomograms(GOOD, still(2)), "3 volumes need"),
        (lambda: average_subtomograms(GOOD, still(3), [60.0]), "1 wedges for 3"),
        (lambda: average_subtomograms([*GOOD, GOOD[0] * np.nan], still(4)), "Volume 3 has voxels"),
        (lambda: average_subtomograms(GOOD, still(3), np.zeros((12, 12, 12))), "measure no frequency"),
        (lambda: average_subtomograms(GOOD, still(3), weights=np.zeros(3)), "weights"),
        (lambda: average_subtomograms(GOOD, still(3)._replace(shift=np.full((3, 3), np.nan))), "NaN"),
        (lambda: classify_and_average(GOOD, classes=2), "cluster of 3 .* too small"),
        (lambda: classify_and_average(GOOD, classes=1, gold_standard=True), "in two halves"),
        (lambda: classify_and_average(GOOD, classes=0), "classes=0"),
        (lambda: classify_and_average(GOOD, classes=1, mask_radius=9), "mask_radius"),
        (lambda: classify_and_average([GOOD[0]] * 4, classes=2, iterations=1), "Fewer than 2 of"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
