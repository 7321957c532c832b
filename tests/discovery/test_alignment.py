"""Alignment: the simulator's own poses, exact turns and shifts, the score by its formula, wedges, and bad input."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aitom_ssl import geometry
from aitom_ssl.discovery.alignment import (
    Alignment,
    align,
    align_many,
    angle_between,
    best_reference,
    brought_to,
    compose,
    measured,
    turned_back,
)
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import Scene, SimulationSpec, Simulator
from aitom_ssl.structures.builtin import symmetry_rotations

SIZE = 24


def simulated(name, snr, count, **more):
    """(reference without wedge or noise, volumes, quaternions, shifts) of the default simulation in boxes of 24^3."""
    spec = SimulationSpec(classes=(name,), size=SIZE, voxel_size=13.5, snr=snr, max_shift=3.0, seed=2, **more)
    whole = Simulator(dataclasses.replace(spec, tilt_max=90.0))
    reference = whole.signal(Scene(0, 0, 0, np.array([1.0, 0, 0, 0]), np.zeros(3), spec.defocus_um, ()))
    samples = [Simulator(spec).sample(0, i) for i in range(count)]
    return reference, *(np.stack([sample[key] for sample in samples]) for key in ("volume", "quaternion", "shift"))


def particle(n=17, seed=0):
    """(n, n, n) a smooth, asymmetric particle that fades well inside the box."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij")
    volume = np.zeros((n, n, n))
    for a, b, c in rng.uniform(-n / 5, n / 5, (6, 3)):
        volume += rng.uniform(0.5, 1.5) * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (n / 12) ** 2 / 2)
    return volume.astype(np.float32)


def turned(volume, matrix):
    """An odd cube turned by a signed permutation on (x, y, z): voxels change places, nothing is interpolated."""
    size = len(volume)
    there = np.stack(np.meshgrid(*[np.arange(size) - size // 2] * 3, indexing="ij"), axis=-1)
    here = np.rint(there @ geometry.reverse_axes(matrix)).astype(int) + size // 2
    return volume[tuple(np.moveaxis(here, -1, 0))]


# === The simulator's poses ===


@pytest.mark.parametrize(("snr", "degrees", "voxels"), [(np.inf, 0.5, 0.1), (0.5, 2.0, 0.3), (0.05, 5.0, 0.5)])
def test_poses_of_an_asymmetric_structure(snr, degrees, voxels):
    reference, volumes, quaternions, shifts = simulated("ribosome_70s", snr, 7)
    found = align_many(volumes, [reference], 60.0)
    assert np.median(angle_between(quaternions, found.quaternion[:, 0])) < degrees
    assert np.median(np.linalg.norm(shifts - found.shift[:, 0], axis=1)) < voxels
    assert np.all(found.quaternion[..., 0] >= 0)


def test_poses_of_a_symmetric_structure_are_right_up_to_its_symmetry():
    reference, volumes, quaternions, shifts = simulated("groel", 0.5, 6)
    found = align_many(volumes, [reference], 60.0)
    assert angle_between(quaternions, found.quaternion[:, 0], symmetry_rotations("D7")).max() < 3
    assert np.linalg.norm(shifts - found.shift[:, 0], axis=1).max() < 0.5
    assert angle_between(quaternions, found.quaternion[:, 0]).max() > 20  # the test sees the difference


def test_the_right_structure_scores_best():
    first, volumes, _, _ = simulated("ribosome_70s", 0.1, 3)
    second, others, _, _ = simulated("groel", 0.1, 3)
    best, alignment = best_reference(align_many([*volumes, *others], [first, second], 60.0))
    assert best.tolist() == [0, 0, 0, 1, 1, 1] and alignment.quaternion.shape == (6, 4)


# === Wedges ===


def test_particles_align_to_each_other_and_not_to_their_wedges():
    _, volumes, quaternions, shifts = simulated("ribosome_70s", 0.5, 5, tilt_step=2.0)
    one = Alignment(quaternions[0], shifts[0], 1.0)
    inverse = geometry.quaternion_to_matrix(one.quaternion).T
    inverse = Alignment(geometry.matrix_to_quaternion(inverse), -inverse @ one.shift, 1.0)
    truth = compose(Alignment(quaternions[1:], shifts[1:], np.ones(4)), inverse)  # particle 0 in the others
    found = align_many(volumes[1:], volumes[:1], 60.0, reference_wedges=60.0, max_shift=10.0)
    assert np.median(angle_between(truth.quaternion, found.quaternion[:, 0])) < 4
    assert np.median(np.linalg.norm(truth.shift - found.shift[:, 0], axis=1)) < 0.5


def test_one_particle_seen_through_two_wedges_is_in_one_pose():
    volume = particle(16)
    axes = np.broadcast_arrays(*geometry.frequencies(volume.shape))
    about_y = measured(40.0, *axes, side=16)
    about_x = measured(40.0, axes[0], axes[2], axes[1], side=16)
    seen = [np.fft.ifftn(np.fft.fftn(volume) * wedge).real for wedge in (about_y, about_x)]
    right = align(seen[0], seen[1], about_y, reference_wedge=about_x)
    identity = np.array([1.0, 0, 0, 0])
    assert angle_between(identity, right.quaternion) < 1 and np.abs(right.shift).max() < 0.1 and right.score > 0.98
    blind = align(seen[0], seen[1])
    assert blind.score < right.score - 0.05


def test_a_wedge_is_the_same_as_degrees_and_as_an_array():
    reference, volumes, _, _ = simulated("ribosome_70s", 0.5, 2)
    array = measured(60.0, *np.broadcast_arrays(*geometry.frequencies((SIZE,) * 3)), side=SIZE)
    as_degrees, as_array = (align_many(volumes, [reference], wedge) for wedge in (60, [array, 60.0]))
    for one, other in zip(as_degrees, as_array, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_lies_in_the_wedge_is_not_looked_at():
    volume = particle(16)
    wedge = measured(50.0, *np.broadcast_arrays(*geometry.frequencies(volume.shape)), side=16)
    noise = np.random.default_rng(0).standard_normal(volume.shape)
    spoilt = volume + 5 * np.fft.ifftn(np.fft.fftn(noise) * ~wedge).real
    assert align(spoilt, volume, 50.0).score > 0.99
    assert align(spoilt, volume).score < 0.5


# === Exact ===


def test_a_volume_in_itself_scores_one_whatever_its_grey_scale():
    volume = particle()
    for image in (volume, 3 * volume - 7):
        found = align(image, volume)
        assert angle_between(np.array([1.0, 0, 0, 0]), found.quaternion) < 0.1
        assert np.abs(found.shift).max() < 0.01 and 0.999 < found.score <= 1 + 1e-6
    assert align(-volume, volume).score < 0.9


@pytest.mark.parametrize("turn", [1, 7, 12, 20])
def test_quarter_turns_and_whole_voxels_are_recovered(turn):
    volume, matrix = particle(), geometry.cube_rotations()[turn]
    moved = np.roll(turned(volume, matrix), (1, -3, 2), axis=(0, 1, 2))
    found = align(moved, volume)
    assert angle_between(geometry.matrix_to_quaternion(matrix), found.quaternion) < 0.1
    np.testing.assert_allclose(found.shift, [2, -3, 1], atol=0.01)
    assert found.score > 0.999


@pytest.mark.parametrize("turn", [1, 7, 12])
def test_what_is_turned_back_lies_as_before(turn):
    volume, matrix = particle(), geometry.cube_rotations()[turn]
    moved = np.roll(turned(volume, matrix), (-2, 0, 1), axis=(0, 1, 2))
    back = turned_back(moved, geometry.matrix_to_quaternion(matrix), np.array([1.0, 0, -2]))
    # Whole voxels are not interpolated; what was shifted beyond the box is 0.
    inside = back != 0
    np.testing.assert_allclose(back[inside], (volume - volume.mean())[inside], atol=1e-4)
    assert inside.mean() > 0.6


def test_a_target_is_brought_to_its_support_whatever_else_is_in_the_box():
    volume, matrix = particle(25), geometry.cube_rotations()[7]
    target = np.roll(turned(volume, matrix), 2, axis=0)
    support = volume.copy()
    support[:, :, :4] = 3  # a neighbour
    sphere = np.linalg.norm(np.indices(support.shape) - 12, axis=0) < 9
    found = brought_to(target, support, sphere, None)
    assert np.corrcoef(found[sphere], volume[sphere])[0, 1] > 0.99
    assert np.corrcoef(target[sphere], volume[sphere])[0, 1] < 0.9


def test_the_box_of_the_reference_may_be_another():
    volume = particle(17)
    moved = np.roll(volume, (2, 0, -1), axis=(0, 1, 2))
    for box in (np.pad(volume, 3), np.pad(volume, ((1, 0),) * 3), volume[1:-1, 1:-1, 1:-1]):
        found = align(moved, box)
        np.testing.assert_allclose(found.shift, [-1, 0, 2], atol=0.05)
        assert angle_between(np.array([1.0, 0, 0, 0]), found.quaternion) < 1


def test_the_score_is_its_formula():
    n, volume, reference = 10, particle(10, 1), particle(10, 2)
    found = align(volume, reference, 60.0, reference_wedge=50.0)
    offsets = np.stack(np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij"), -1).reshape(-1, 3)[:, ::-1]
    kz, ky, kx = (grid.ravel() for grid in np.broadcast_arrays(*geometry.frequencies((n,) * 3)))
    k = np.stack([kx, ky, kz], axis=1)
    length = np.linalg.norm(k, axis=1)
    there = k @ geometry.quaternion_to_matrix(found.quaternion)  # rows R^T k
    keep = (length > 0) & (length < 0.5 - 1e-9) & measured(60.0, kz, ky, kx, n)
    keep &= measured(50.0, there[:, 2], there[:, 1], there[:, 0], n)
    v = np.exp(-2j * np.pi * k @ offsets.T) @ volume.ravel()
    faded = reference - reference[[0, -1]].mean()  # of the background next to nothing is left here
    p = np.exp(-2j * np.pi * there @ offsets.T) @ faded.ravel() * np.exp(-2j * np.pi * k @ found.shift)
    norm = np.sum(np.abs(v[keep]) ** 2) * np.sum(np.abs(p[keep]) ** 2)
    assert found.score == pytest.approx(np.sum(v * p.conj(), where=keep).real / np.sqrt(norm), abs=0.01)


def test_nothing_beyond_the_cutoff_or_without_weight_counts():
    volume = particle(16)
    noise = np.random.default_rng(0).standard_normal(volume.shape)
    length = np.sqrt(sum(np.square(grid) for grid in geometry.frequencies(volume.shape)))
    spoilt = volume + np.fft.ifftn(np.fft.fftn(noise) * (length > 0.26)).real
    assert align(spoilt, volume).score < 0.9
    assert align(spoilt, volume, cutoff=0.25).score > 0.999
    assert align(spoilt, volume, weights=[1, 1, 1, 1, 0]).score > 0.995


def test_no_shift_is_longer_than_asked():
    volume = particle(17)
    moved = np.roll(volume, 4, axis=2)
    assert np.linalg.norm(align(moved, volume, max_shift=2).shift) <= 2 + 1e-9
    assert np.all(align(moved, volume, max_shift=0).shift == 0)
    np.testing.assert_allclose(align(moved, volume, max_shift=5).shift, [4, 0, 0], atol=0.05)


# === Batches ===


def test_a_pair_does_not_know_its_batch():
    reference, volumes, _, _ = simulated("f1_atpase", 0.2, 4)
    references = [reference, particle(20), volumes[0]]
    wedges = [60.0, 50.0, None, 60]
    together = align_many(volumes, references, wedges)
    backwards = align_many(volumes[::-1], references[::-1], wedges[::-1])
    parallel = align_many(volumes, references, wedges, workers=2)
    alone = align(volumes[1], references[2], wedges[1])
    for field, back, processes, one in zip(together, backwards, parallel, alone, strict=True):
        np.testing.assert_array_equal(field, back[::-1, ::-1])
        np.testing.assert_array_equal(field, processes)
        np.testing.assert_array_equal(field[1, 2], one)
    assert together.score.shape == (4, 3) and together.shift.shape == (4, 3, 3)


# === Poses ===


def test_poses_compose_as_placing_does():
    rng = np.random.default_rng(0)
    turns = Rotation.random(3, rng=rng)
    first, second, both = turns.as_matrix()[0], turns.as_matrix()[1], (turns[0] * turns[1]).as_matrix()
    quaternions = geometry.matrix_to_quaternion(np.stack([first, second]))
    pose, frame = Alignment(quaternions[0], rng.normal(size=3), 0.3), Alignment(quaternions[1], rng.normal(size=3), 0.9)
    found = compose(pose, frame)
    inner = rng.normal(size=3)  # an offset in A, then in B, then in the volume
    outer = first @ (second @ inner + frame.shift) + pose.shift
    np.testing.assert_allclose(both @ inner + found.shift, outer, atol=1e-12)
    np.testing.assert_allclose(geometry.quaternion_to_matrix(found.quaternion), both, atol=1e-12)
    assert found.score == 0.3


def test_angles_between_rotations():
    quaternions = geometry.euler_zyz_to_quaternion([[0, 0, 0], [30, 0, 0], [180, 180, 0], [51.0, 0, 0]])
    np.testing.assert_allclose(angle_between(quaternions[0], quaternions), [0, 30, 180, 51], atol=1e-6)
    expected = [0, 360 / 7 - 30, 0, 360 / 7 - 51]
    np.testing.assert_allclose(
        angle_between(quaternions[0], quaternions, symmetry_rotations("D7")), expected, atol=1e-4
    )
    # Copies are S to the right of the pose.
    pose = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    copies = geometry.matrix_to_quaternion(pose @ symmetry_rotations("D2"))
    assert angle_between(copies[0], copies, symmetry_rotations("D2")).max() < 1e-5


# === Bad input ===

GOOD = particle(12)
NAN = np.where(np.arange(12) == 3, np.nan, GOOD)
NOTHING = np.zeros((12, 12, 12), bool)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([GOOD, NAN], [GOOD]), {}, "Volume 1 has voxels that are NaN"),
        (([GOOD], [GOOD, NAN]), {}, "Reference 1 has voxels that are NaN"),
        (([np.ones((12, 12, 12))], [GOOD]), {}, "Volume 0 is constant"),
        (([GOOD[:10]], [GOOD]), {}, "Volume 0 has shape"),
        (([GOOD, particle(14)], [GOOD]), {}, "Volume 1 has shape"),
        ((GOOD, [GOOD]), {}, "list or"),
        (([], [GOOD]), {}, "no volume"),
        (([GOOD], []), {}, "no reference"),
        (([particle(6)], [GOOD]), {}, "too small"),
        (([GOOD], [GOOD], [60, 60]), {}, "2 wedges for 1 volumes"),
        (([GOOD], [GOOD], 100), {}, "largest tilt"),
        (([GOOD], [GOOD], NOTHING), {}, "wedge of volume 0 measures no"),
        (([GOOD], [GOOD], NOTHING[:4]), {}, "wedge has shape"),
        (([GOOD], [GOOD], np.full((12, 12, 12), np.nan)), {}, "NaN"),
        (([GOOD], [GOOD]), {"reference_wedges": NOTHING}, "wedge of reference 0 measures no"),
        (([GOOD], [GOOD]), {"max_shift": -1}, "max_shift"),
        (([GOOD], [GOOD]), {"angular_step": 1}, "angular_step"),
        (([GOOD], [GOOD]), {"cutoff": np.nan}, "cutoff"),
        (([GOOD], [GOOD]), {"weights": [1, -1]}, "weights"),
        (([GOOD], [GOOD]), {"weights": [1, 0, 0, 0, 0, 0, 1]}, "low frequencies"),
    ],
)
def test_mistakes_are_named(arguments, options, message):
    with pytest.raises(InputError, match=message) as caught:
        align_many(*arguments, **options)
    assert "\n" not in str(caught.value)
