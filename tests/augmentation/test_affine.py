"""Resampling: exact cases, scipy as oracle, and the two ways of computing the same thing."""

import itertools

import numpy as np
import pytest
from keras import ops
from scipy.ndimage import affine_transform

from aitom_ssl import geometry
from aitom_ssl.augmentation import affine, affine_transform_3d
from aitom_ssl.errors import InputError


def random_volumes(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def random_affine(count, seed=0):
    """Any matrices: turned, sheared, scaled, shifted by fractions of voxels."""
    rng = np.random.default_rng(seed)
    linear = geometry.reverse_axes(geometry.quaternion_to_matrix(geometry.random_quaternions(rng, count)))
    linear = linear * rng.uniform(0.6, 1.6, (count, 1, 1)) + rng.normal(0, 0.1, (count, 3, 3))
    return geometry.affine(linear, rng.uniform(-3, 3, (count, 3)))


def in_plane_affine(count, along_z, seed=0):
    matrices = random_affine(count, seed)
    matrices[:, 1:, 0] = matrices[:, 0, 1:3] = 0
    matrices[:, 0] = matrices[:, 0] if along_z else [1, 0, 0, 0]
    return matrices


def scipy_transform(volume, matrix, mode="grid-constant"):
    """The convention of geometry.py in scipy's words, in float64."""
    centre = np.array([geometry.centre(n) for n in volume.shape])
    offset = matrix[:, 3] + centre - matrix[:, :3] @ centre
    return affine_transform(volume.astype(np.float64), matrix[:, :3], offset, order=1, mode=mode)


@pytest.mark.parametrize("shape", [(9, 9, 9), (8, 8, 8), (6, 9, 11)])
def test_equals_scipy_order_1(shape):
    volumes, matrices = random_volumes(6, *shape, 1), random_affine(6)
    expected = np.stack([scipy_transform(v[..., 0], m) for v, m in zip(volumes, matrices, strict=True)])
    assert np.count_nonzero(expected == 0) > 10  # some of it shows the outside
    np.testing.assert_allclose(numpy(affine_transform_3d(volumes, matrices))[..., 0], expected, atol=2e-5)


@pytest.mark.parametrize("along_z", [False, True])
@pytest.mark.parametrize("shape", [(9, 9, 9), (8, 8, 8), (6, 9, 11)])
def test_in_plane_equals_trilinear(shape, along_z):
    volumes, matrices = random_volumes(6, *shape, 2), in_plane_affine(6, along_z)
    fast = numpy(affine.affine_transform_in_plane(volumes, matrices, along_z=along_z))
    np.testing.assert_allclose(fast, numpy(affine_transform_3d(volumes, matrices)), atol=1e-5)


@pytest.mark.parametrize("transform", [affine_transform_3d, affine.affine_transform_in_plane])
@pytest.mark.parametrize("n", [7, 8])
def test_identity_is_exact(transform, n):
    volumes = random_volumes(3, n, n, n, 2)
    assert np.array_equal(numpy(transform(volumes, affine.identity(3))), volumes)


@pytest.mark.parametrize("n", [7, 8])
def test_rotations_of_the_cube_are_exact(n):
    """All 24: a voxel moves to the rotated offset from n // 2 bit for bit; what leaves the box is lost, not wrapped."""
    volume = random_volumes(1, n, n, n, 1)
    centre = geometry.centre(n)
    rotations = geometry.reverse_axes(geometry.cube_rotations()).astype(int)
    poses = geometry.affine(np.swapaxes(rotations, 1, 2))
    turned = numpy(affine_transform_3d(np.repeat(volume, 24, axis=0), poses))
    for rotation, result in zip(rotations, turned[..., 0], strict=True):
        expected = np.zeros((n, n, n), np.float32)
        for voxel in itertools.product(range(n), repeat=3):
            to = rotation @ (np.array(voxel) - centre) + centre
            if (to >= 0).all() and (to < n).all():
                expected[tuple(to)] = volume[0, ..., 0][voxel]
        assert np.array_equal(result, expected)


def test_quarter_turn_about_z_carries_x_to_y():
    volume = np.zeros((1, 8, 8, 8, 1), np.float32)
    volume[0, 5, 4, 6, 0] = 1  # offsets z=1, y=0, x=2
    linear = affine.turn_about_z(ops.convert_to_tensor([np.pi / 2]))
    matrix = affine.from_parts(linear, ops.zeros((1, 3)))
    turned = numpy(affine.affine_transform_in_plane(volume, matrix))[0, ..., 0]
    assert turned[5, 6, 4] == pytest.approx(1, abs=1e-5)  # z=1, y=2, x=0


def test_quaternion_turns_as_a_pose_does():
    quaternions = geometry.random_quaternions(np.random.default_rng(3), 20)
    expected = geometry.pose_to_affine(quaternions)[..., :3]
    linear = numpy(affine.turn_by_quaternion(ops.convert_to_tensor(quaternions, "float32")))
    np.testing.assert_allclose(linear, expected, atol=1e-6)


def test_turn_about_z_is_a_quaternion_turn():
    angles = np.array([-2.0, 0.3, 1.1], np.float32)
    quaternions = np.stack([np.cos(angles / 2), 0 * angles, 0 * angles, np.sin(angles / 2)], axis=-1)
    np.testing.assert_allclose(
        numpy(affine.turn_about_z(ops.convert_to_tensor(angles))),
        numpy(affine.turn_by_quaternion(ops.convert_to_tensor(quaternions))),
        atol=1e-6,
    )


def test_centre_voxel_stays_for_any_rotation():
    volume = random_volumes(1, 8, 8, 8, 1)
    turns = geometry.pose_to_affine(geometry.random_quaternions(np.random.default_rng(4), 100))
    turned = numpy(affine_transform_3d(np.repeat(volume, 100, axis=0), turns))
    assert np.array_equal(turned[:, 4, 4, 4, 0], np.full(100, volume[0, 4, 4, 4, 0]))


def test_whole_shift_moves_voxels_and_fills_with_zero():
    volume = random_volumes(1, 6, 6, 6, 1)
    matrix = geometry.affine(np.eye(3), [0, 2, -1])[None]
    moved = numpy(affine_transform_3d(volume, matrix))
    expected = np.zeros_like(volume)
    expected[:, :, :4, 1:] = volume[:, :, 2:, :5]
    assert np.array_equal(moved, expected)


def test_mirror_keeps_the_centre():
    volume = random_volumes(1, 7, 7, 7, 1)
    mirrored = affine_transform_3d(volume, geometry.affine(np.diag([1.0, 1.0, -1.0]))[None])
    assert np.array_equal(numpy(mirrored), volume[:, :, :, ::-1])


def test_far_outside_is_zero():
    volumes = random_volumes(2, 6, 6, 6, 1)
    matrices = geometry.affine(np.stack([np.eye(3)] * 2), [[1e6, 0, 0], [0, 0, -1e6]])
    assert not numpy(affine_transform_3d(volumes, matrices)).any()


def test_inverse_restores_a_smooth_volume():
    """Up to what trilinear interpolation smooths; a wrong inverse leaves an error of the size of the volume."""
    n = 24
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij")
    blob = np.exp(-((z - 2) ** 2 + (y + 1.5) ** 2 + x**2) / 18).astype(np.float32)[None, ..., None]
    matrix = geometry.pose_to_affine(geometry.random_quaternions(np.random.default_rng(5), 1), [1.3, -0.4, 0.8])
    back = affine_transform_3d(affine_transform_3d(blob, matrix), geometry.invert_affine(matrix))
    assert np.abs(numpy(back) - blob).max() < 0.06


def test_compose_is_one_resampling_for_two():
    first, second = random_affine(5, 1), random_affine(5, 2)
    both = affine.compose(ops.convert_to_tensor(first, "float32"), ops.convert_to_tensor(second, "float32"))
    np.testing.assert_allclose(numpy(both), geometry.compose_affine(first, second), atol=1e-5)
    # Whole shifts interpolate nothing, so resampling twice is exact and the order shows.
    volume = random_volumes(1, 6, 6, 6, 1)
    quarter = geometry.affine([[1, 0, 0], [0, 0, -1], [0, 1, 0]])[None]
    shift = geometry.affine(np.eye(3), [0, 1, 0])[None]
    twice = affine_transform_3d(affine_transform_3d(volume, shift), quarter)
    once = affine_transform_3d(volume, affine.compose(ops.convert_to_tensor(shift), ops.convert_to_tensor(quarter)))
    inner = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    assert np.array_equal(numpy(once)[inner], numpy(twice)[inner])


@pytest.mark.parametrize("transform", [affine_transform_3d, affine.affine_transform_in_plane])
def test_channels_move_together(transform):
    volumes, matrices = random_volumes(3, 7, 7, 7, 2), in_plane_affine(3, along_z=False)
    apart = [numpy(transform(volumes[..., c : c + 1], matrices)) for c in range(2)]
    np.testing.assert_allclose(numpy(transform(volumes, matrices)), np.concatenate(apart, axis=-1), atol=1e-6)


def test_half_precision_input_gives_float32():
    result = affine_transform_3d(random_volumes(1, 6, 6, 6, 1).astype(np.float16), affine.identity(1))
    assert numpy(result).dtype == np.float32


def test_wrong_rank_is_named():
    with pytest.raises(InputError, match=r"\(batch, z, y, x, channel\).*Received: shape \(2, 6, 6, 6\)"):
        affine_transform_3d(random_volumes(2, 6, 6, 6), affine.identity(2))
