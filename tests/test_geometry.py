"""One test or more for each sentence at the top of geometry.py."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from scipy.stats import kstest

from aitom_ssl.geometry import (
    affine,
    centre,
    compose_affine,
    cube_rotations,
    euler_zyz_to_quaternion,
    frequencies,
    invert_affine,
    matrix_to_quaternion,
    pose_to_affine,
    quaternion_to_euler_zyz,
    quaternion_to_matrix,
    quaternion_to_relion_angles,
    random_quaternions,
    relion_angles_to_quaternion,
    reverse_axes,
)

X, Y, Z = np.eye(3)
HALF = np.sqrt(0.5)


def scipy_matrix(quaternion):
    return Rotation.from_quat(quaternion, scalar_first=True).as_matrix()


def random(count, seed=0):
    return random_quaternions(np.random.default_rng(seed), count)


def same_rotation(a, b, atol=1e-12):
    np.testing.assert_allclose(np.abs(np.sum(np.asarray(a) * np.asarray(b), axis=-1)), 1.0, atol=atol)


def resample(volume, matrix, order=1):
    """Slow oracle of "maps an output voxel to the input position that it shows", offsets from the centre."""
    c = np.array([centre(n) for n in volume.shape])
    linear, translation = matrix[:, :3], matrix[:, 3]
    return affine_transform(volume, linear, c + translation - linear @ c, order=order, mode="constant", cval=0.0)


# === Volumes are arrays indexed (z, y, x) ===


def test_reversing_axes_turns_a_matrix_on_xyz_into_one_on_zyx():
    matrix, vector = np.arange(9.0).reshape(3, 3), np.array([2.0, 3.0, 5.0])
    np.testing.assert_array_equal(reverse_axes(matrix) @ vector[::-1], (matrix @ vector)[::-1])
    np.testing.assert_array_equal(reverse_axes(reverse_axes(matrix)), matrix)
    stack = np.arange(36.0).reshape(4, 3, 3)
    np.testing.assert_array_equal(reverse_axes(stack)[2], reverse_axes(stack[2]))


def test_tilting_about_y_keeps_y_and_moves_the_beam_towards_x():
    tilt = quaternion_to_matrix(euler_zyz_to_quaternion([0, 90, 0]))
    np.testing.assert_allclose(tilt @ Y, Y, atol=1e-15)
    np.testing.assert_allclose(tilt @ Z, X, atol=1e-15)


# === The centre is voxel n // 2, in real and Fourier space ===


@pytest.mark.parametrize(("n", "expected"), [(32, 16), (33, 16), (1, 0), (2, 1), (5, 2)])
def test_the_centre_is_n_over_two_rounded_down(n, expected):
    assert centre(n) == expected


@pytest.mark.parametrize("n", [7, 8])
def test_the_centre_is_where_the_shifted_transform_has_its_zero_frequency(n):
    assert np.fft.fftshift(np.fft.fftfreq(n))[centre(n)] == 0


@pytest.mark.parametrize("n", [7, 8])
def test_the_centre_voxel_stays_under_every_rotation(n):
    volume = np.zeros((n, n, n))
    volume[(centre(n),) * 3] = 1
    for quaternion in random(10):
        turned = resample(volume, pose_to_affine(quaternion))
        assert turned[(centre(n),) * 3] == pytest.approx(1)


# === Rotations are right-handed and act on column vectors ===


@pytest.mark.parametrize(
    ("axis", "before", "after"),
    [(Z, X, Y), (Z, Y, -X), (Z, Z, Z), (X, Y, Z), (X, Z, -Y), (Y, Z, X), (Y, X, -Z)],
)
def test_a_quarter_turn_carries_each_axis_to_the_next(axis, before, after):
    """Rotation of x about z by +90 becomes y, and so round."""
    quaternion = np.array([HALF, *(HALF * axis)])
    np.testing.assert_allclose(quaternion_to_matrix(quaternion) @ before, after, atol=1e-15)


def test_matrices_are_rotations():
    matrices = quaternion_to_matrix(random(50))
    identity = np.broadcast_to(np.eye(3), (50, 3, 3))
    np.testing.assert_allclose(matrices @ np.swapaxes(matrices, -1, -2), identity, atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0)


# === A quaternion is (w, x, y, z), unit norm; q and -q are the same rotation ===


def test_quaternions_have_the_scalar_first():
    np.testing.assert_array_equal(quaternion_to_matrix([1, 0, 0, 0]), np.eye(3))
    np.testing.assert_array_equal(quaternion_to_matrix([0, 0, 0, 1]), np.diag([-1, -1, 1]))
    np.testing.assert_allclose(quaternion_to_matrix(random(50)), scipy_matrix(random(50)), atol=1e-14)


def test_minus_q_is_the_same_rotation():
    np.testing.assert_array_equal(quaternion_to_matrix(-random(20)), quaternion_to_matrix(random(20)))


def test_matrix_to_quaternion_and_back_with_positive_scalar():
    quaternions = random(200)
    found = matrix_to_quaternion(quaternion_to_matrix(quaternions))
    same_rotation(found, quaternions)
    assert (found[:, 0] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1.0)


def test_half_turns_have_a_quaternion():
    for axis in (X, Y, Z, np.ones(3) / np.sqrt(3)):
        same_rotation(matrix_to_quaternion(2 * np.outer(axis, axis) - np.eye(3)), [0, *axis])


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
def test_leading_axes_are_kept(shape):
    quaternions = random(int(np.prod(shape))).reshape(*shape, 4)
    matrices = quaternion_to_matrix(quaternions)
    assert matrices.shape == (*shape, 3, 3)
    assert matrix_to_quaternion(matrices).shape == (*shape, 4)
    assert quaternion_to_euler_zyz(quaternions).shape == (*shape, 3)
    assert euler_zyz_to_quaternion(quaternion_to_euler_zyz(quaternions)).shape == (*shape, 4)
    assert pose_to_affine(quaternions).shape == (*shape, 3, 4)
    same_rotation(matrix_to_quaternion(matrices), quaternions)


# === ZYZ angles are intrinsic, in degrees: R = Rz(phi) Ry(theta) Rz(psi) ===


def turn(axis, degrees):
    return Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()


def test_zyz_angles_are_a_product_of_three_turns():
    rng = np.random.default_rng(1)
    for phi, theta, psi in rng.uniform(-180, 180, (20, 3)):
        matrix = quaternion_to_matrix(euler_zyz_to_quaternion([phi, theta, psi]))
        np.testing.assert_allclose(matrix, turn(Z, phi) @ turn(Y, theta) @ turn(Z, psi), atol=1e-14)


def test_intrinsic_means_scipys_upper_case():
    angles = np.random.default_rng(2).uniform(-180, 180, (20, 3))
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    np.testing.assert_allclose(quaternion_to_matrix(euler_zyz_to_quaternion(angles)), expected, atol=1e-14)


def test_angles_come_back_within_their_ranges():
    rng = np.random.default_rng(3)
    angles = np.stack([rng.uniform(-180, 180, 500), rng.uniform(0.01, 179.99, 500), rng.uniform(-180, 180, 500)], -1)
    np.testing.assert_allclose(quaternion_to_euler_zyz(euler_zyz_to_quaternion(angles)), angles, atol=1e-9)
    theta = quaternion_to_euler_zyz(random(500))[:, 1]
    assert theta.min() >= 0 and theta.max() <= 180


@pytest.mark.parametrize("theta", [0.0, 1e-13, 1e-5, 90.0, 180.0 - 1e-5, 180.0])
@pytest.mark.parametrize("phi", [-170.0, 0.0, 33.0, 180.0])
@pytest.mark.parametrize("psi", [-90.0, 0.0, 120.0])
def test_rotations_survive_the_angles_near_and_at_the_poles(phi, theta, psi):
    quaternion = euler_zyz_to_quaternion([phi, theta, psi])
    angles = quaternion_to_euler_zyz(quaternion)
    np.testing.assert_allclose(
        quaternion_to_matrix(euler_zyz_to_quaternion(angles)), quaternion_to_matrix(quaternion), atol=3e-9
    )


def test_at_the_poles_psi_is_zero_and_phi_holds_the_turn():
    for theta, phi in ((0, 20 + 30), (180, 20 - 30)):
        angles = quaternion_to_euler_zyz(euler_zyz_to_quaternion([20, theta, 30]))
        np.testing.assert_allclose(angles, [phi, theta, 0], atol=1e-9)


# === RELION's angles turn the coordinate system: the pose is the inverse ===


def relion_matrix(rot, tilt, psi):
    """RELION's Euler_angles2matrix, written out: A = Rz'(psi) Ry'(tilt) Rz'(rot), R' turning the coordinates."""
    a, b, g = np.radians([rot, tilt, psi])

    def about_z(t):
        return np.array([[np.cos(t), np.sin(t), 0], [-np.sin(t), np.cos(t), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    return about_z(g) @ about_y @ about_z(a)


def test_relion_angles_are_the_inverse_of_zyz():
    angles = np.random.default_rng(4).uniform(-180, 180, (20, 3))
    matrices = quaternion_to_matrix(relion_angles_to_quaternion(angles))
    np.testing.assert_allclose(matrices, Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix(), atol=1e-14)
    np.testing.assert_allclose(matrices, [relion_matrix(*row) for row in angles], atol=1e-14)


def test_a_relion_rot_of_90_turns_the_template_from_y_to_x():
    np.testing.assert_allclose(quaternion_to_matrix(relion_angles_to_quaternion([90, 0, 0])) @ Y, X, atol=1e-15)


def test_relion_angles_come_back():
    quaternions = random(100, seed=5)
    same_rotation(relion_angles_to_quaternion(quaternion_to_relion_angles(quaternions)), quaternions)
    angles = np.array([[10.0, 20, 30], [-170, 90, 5]])
    np.testing.assert_allclose(quaternion_to_relion_angles(relion_angles_to_quaternion(angles)), angles, atol=1e-9)


# === A pose places a template: volume(r) = template(R^T (r - c - shift)), shift (x, y, z) ===


def blob_at(n, offset_xyz, sigma=1.6):
    z, y, x = np.mgrid[:n, :n, :n] - centre(n)
    return np.exp(-((x - offset_xyz[0]) ** 2 + (y - offset_xyz[1]) ** 2 + (z - offset_xyz[2]) ** 2) / (2 * sigma**2))


def test_a_pose_moves_a_point_by_rotation_then_shift():
    n, point, shift = 24, np.array([5.0, 1.0, -2.0]), np.array([1.0, -2.0, 0.5])
    for quaternion in random(5, seed=6):
        placed = resample(blob_at(n, point), pose_to_affine(quaternion, shift), order=3)
        expected = blob_at(n, quaternion_to_matrix(quaternion) @ point + shift)
        assert np.abs(placed - expected).max() < 0.02


def test_the_pose_matrix_is_the_formula():
    for quaternion, shift in zip(random(5, seed=7), np.random.default_rng(8).normal(size=(5, 3)), strict=True):
        matrix, rotation = pose_to_affine(quaternion, shift), quaternion_to_matrix(quaternion)
        r = np.array([3.0, -1.0, 2.0])
        np.testing.assert_allclose((matrix[:, :3] @ r[::-1] + matrix[:, 3])[::-1], rotation.T @ (r - shift), atol=1e-14)


def test_a_whole_voxel_shift_is_a_roll_along_the_named_axis():
    volume = np.zeros((9, 9, 9))
    volume[4, 4, 4] = 1
    placed = resample(volume, pose_to_affine([1, 0, 0, 0], [3, -2, 1]))
    assert placed[4 + 1, 4 - 2, 4 + 3] == 1 and placed.sum() == 1


def test_a_quarter_turn_about_z_moves_voxels_exactly():
    """A voxel on +x goes to +y: numpy.rot90 in the plane from axis 2 (x) to axis 1 (y)."""
    # The border stays empty: there scipy takes a position of -1e-16 for outside.
    volume = np.pad(np.random.default_rng(9).normal(size=(7, 7, 7)), 1)
    placed = resample(volume, pose_to_affine([HALF, 0, 0, HALF]))
    np.testing.assert_allclose(placed, np.rot90(volume, axes=(2, 1)), atol=1e-12)


# === An affine matrix is (3, 4), acts on (z, y, x) offsets and maps output to input ===


def test_a_positive_translation_shows_what_lies_further_on():
    volume = np.arange(5.0**3).reshape(5, 5, 5)
    shown = resample(volume, affine(np.eye(3), [1, 0, 0]))
    np.testing.assert_array_equal(shown[:4], volume[1:])
    np.testing.assert_array_equal(shown[4], 0)


def test_a_linear_part_below_one_enlarges():
    volume = np.zeros((9, 9, 9))
    volume[4, 4, 6] = 1
    assert resample(volume, affine(0.5 * np.eye(3)))[4, 4, 8] == 1


def test_composing_equals_resampling_twice():
    rng = np.random.default_rng(10)
    # Exact for whole-voxel moves, which interpolation does not blur.
    volume = np.zeros((11, 11, 11))
    volume[3:8, 3:8, 3:8] = rng.normal(size=(5, 5, 5))
    for first_turn, second_turn in itertools.product(cube_rotations()[::5], repeat=2):
        first, second = affine(first_turn, [1, 0, -1]), affine(second_turn, [0, 1, 1])
        twice = resample(resample(volume, first), second)
        np.testing.assert_allclose(resample(volume, compose_affine(first, second)), twice, atol=1e-12)


def test_composing_smooth_transforms_equals_resampling_twice():
    volume = blob_at(24, [3, -2, 1], sigma=2.5)
    first = pose_to_affine(random(1, seed=11)[0], [1.3, 0.2, -0.7])
    second = affine(np.diag([1.1, 0.9, 1.05]), [0.5, -0.25, 0.1])
    twice = resample(resample(volume, first, order=3), second, order=3)
    assert np.abs(resample(volume, compose_affine(first, second), order=3) - twice).max() < 5e-3
    other_way = resample(volume, compose_affine(second, first), order=3)
    assert np.abs(other_way - twice).max() > 0.05


def test_composing_is_on_homogeneous_coordinates_the_product():
    rng = np.random.default_rng(12)
    first, second = rng.normal(size=(2, 6, 3, 4))
    last = np.broadcast_to([0.0, 0, 0, 1], (6, 1, 4))
    product = np.concatenate([first, last], 1) @ np.concatenate([second, last], 1)
    np.testing.assert_allclose(compose_affine(first, second), product[:, :3], atol=1e-12)


def test_the_inverse_undoes_on_either_side():
    matrices = np.random.default_rng(13).normal(size=(6, 3, 4))
    identity = np.broadcast_to(np.eye(3, 4), (6, 3, 4))
    np.testing.assert_allclose(compose_affine(matrices, invert_affine(matrices)), identity, atol=1e-10)
    np.testing.assert_allclose(compose_affine(invert_affine(matrices), matrices), identity, atol=1e-10)


def test_the_inverse_pose_brings_a_template_back():
    volume = np.zeros((11, 11, 11))
    volume[3:8, 3:8, 3:8] = np.random.default_rng(14).normal(size=(5, 5, 5))
    pose = pose_to_affine([HALF, HALF, 0, 0], [1, 2, -1])
    np.testing.assert_allclose(resample(resample(volume, pose), invert_affine(pose)), volume, atol=1e-12)


def test_one_translation_serves_a_batch_of_linear_parts():
    matrices = affine(cube_rotations(), [1, 2, 3])
    assert matrices.shape == (24, 3, 4)
    np.testing.assert_array_equal(matrices[:, :, 3], np.tile([1, 2, 3], (24, 1)))


# === Frequencies are in 1/A, unshifted ===


@pytest.mark.parametrize("shape", [(4, 6, 8), (5, 5, 5)])
@pytest.mark.parametrize("half_axis", [None, 0, 1, 2])
def test_frequencies_are_numpys_and_broadcast_over_the_transform(shape, half_axis):
    grids = frequencies(shape, 2.5, half_axis)
    for axis, (grid, n) in enumerate(zip(grids, shape, strict=True)):
        expected = np.fft.rfftfreq(n, 2.5) if axis == half_axis else np.fft.fftfreq(n, 2.5)
        np.testing.assert_array_equal(grid.ravel(), expected)
        assert grid.shape == tuple(len(expected) if a == axis else 1 for a in range(3))
    full = [len(grid.ravel()) for grid in grids]
    assert np.broadcast_shapes(*(grid.shape for grid in grids)) == tuple(full)
    if half_axis == 2:
        assert tuple(full) == np.fft.rfftn(np.zeros(shape)).shape


def test_a_wave_of_a_known_length_peaks_at_its_frequency():
    voxel_size, period = 10.0, 80.0
    x = np.arange(32) * voxel_size
    volume = np.broadcast_to(np.cos(2 * np.pi * x / period), (32, 32, 32))
    kz, ky, kx = frequencies(volume.shape, voxel_size, half_axis=2)
    peak = np.unravel_index(np.abs(np.fft.rfftn(volume)).argmax(), (32, 32, 17))
    assert kx[0, 0, peak[2]] == pytest.approx(1 / period) and peak[:2] == (0, 0)
    assert kz[0, 0, 0] == ky[0, 0, 0] == 0


def test_a_phase_ramp_on_the_grid_shifts_by_angstrom():
    volume = np.random.default_rng(15).normal(size=(6, 7, 8))
    kz, ky, kx = frequencies(volume.shape, 10.0)
    ramp = np.exp(-2j * np.pi * (kx * 20.0 + ky * -10.0 + kz * 30.0))
    moved = np.fft.ifftn(np.fft.fftn(volume) * ramp).real
    np.testing.assert_allclose(moved, np.roll(volume, (3, -1, 2), axis=(0, 1, 2)), atol=1e-12)


def test_without_a_voxel_size_frequencies_are_cycles_per_voxel():
    assert frequencies((4, 4, 4))[2].ravel().tolist() == [0, 0.25, -0.5, -0.25]


# === Drawing rotations ===


def test_random_rotations_are_uniform():
    """Under the Haar measure R[i, j] is uniform on (-1, 1), and the turn a has density (1 - cos a) / pi."""
    quaternions = random(20_000, seed=16)
    matrices = quaternion_to_matrix(quaternions)
    for row, column in itertools.product(range(3), repeat=2):
        assert kstest(matrices[:, row, column], "uniform", args=(-1, 2)).pvalue > 1e-3
    angle = 2 * np.arccos(np.clip(np.abs(quaternions[:, 0]), 0, 1))
    assert kstest(angle, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-3


def test_a_fixed_rotation_leaves_the_distribution_as_it_is():
    fixed = quaternion_to_matrix(random(1, seed=17)[0])
    turned = fixed @ quaternion_to_matrix(random(20_000, seed=18))
    phi, theta, psi = quaternion_to_euler_zyz(matrix_to_quaternion(turned)).T
    assert kstest(phi, "uniform", args=(-180, 360)).pvalue > 1e-3
    assert kstest(np.cos(np.radians(theta)), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert kstest(psi, "uniform", args=(-180, 360)).pvalue > 1e-3


def test_random_rotations_are_unit_and_a_function_of_the_generator():
    np.testing.assert_allclose(np.linalg.norm(random(100), axis=-1), 1.0)
    np.testing.assert_array_equal(random(10, seed=3), random(10, seed=3))
    assert random(0).shape == (0, 4)


# === The rotations of the cube ===


def test_the_cube_has_24_rotations_that_are_signed_permutations():
    group = cube_rotations()
    assert group.shape == (24, 3, 3)
    assert len({matrix.astype(int).tobytes() for matrix in group}) == 24
    np.testing.assert_array_equal(np.abs(group).sum(axis=1), 1)
    np.testing.assert_array_equal(np.abs(group).sum(axis=2), 1)
    assert set(np.unique(group)) == {-1, 0, 1}
    np.testing.assert_allclose(np.linalg.det(group), 1)


def test_the_cubes_rotations_form_a_group():
    group = cube_rotations()
    members = {tuple(matrix.ravel().astype(int)) for matrix in group}
    assert tuple(np.eye(3, dtype=int).ravel()) in members
    for a, b in itertools.product(group, repeat=2):
        assert tuple((a @ b).ravel().astype(int)) in members
    for a in group:
        assert tuple(a.T.ravel().astype(int)) in members
