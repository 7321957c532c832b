"""Rotation-invariant features: exact turns, closed forms on the sphere, and pyshtools as someone else's harmonics."""

import math

import numpy as np
import pytest
from scipy import special
from scipy.spatial.transform import Rotation

from aitom_ssl.discovery import invariants
from aitom_ssl.discovery.invariants import (
    feature_names,
    real_harmonics,
    rotation_invariant_features,
    shell_operators,
    sphere_quadrature,
)
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import cube_rotations, reverse_axes


def offsets(size):
    """(z, y, x), each (size, size, size), from the centre voxel."""
    return np.meshgrid(*[np.arange(size) - size // 2] * 3, indexing="ij")


def blobs(size, positions, heights, width):
    """Sum of Gaussians at (x, y, z) `positions` from the centre."""
    z, y, x = offsets(size)
    volume = np.zeros((size,) * 3)
    for (a, b, c), height in zip(positions, heights, strict=True):
        volume += height * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * width**2))
    return volume.astype(np.float32)


def turned(volume, matrix):
    """An odd cube turned by a signed permutation on (x, y, z): voxels change places, nothing is interpolated."""
    size = len(volume)
    there = np.stack(np.meshgrid(*[np.arange(size) - size // 2] * 3, indexing="ij"), axis=-1)
    here = np.rint(there @ reverse_axes(matrix)).astype(int) + size // 2
    return volume[tuple(np.moveaxis(here, -1, 0))]


# === Turns ===


def test_the_turns_of_the_cube_change_nothing():
    volume = np.random.default_rng(0).standard_normal((11, 11, 11)).astype(np.float32)
    features = rotation_invariant_features(np.stack([turned(volume, matrix) for matrix in cube_rotations()]))
    assert len(np.unique(np.round(features[:, 5], 3))) == 1
    np.testing.assert_allclose(features, np.broadcast_to(features[0], features.shape), atol=2e-5)


def test_in_an_even_box_a_turn_about_the_centre_voxel_changes_nothing():
    inside = np.random.default_rng(1).standard_normal((9, 9, 9)).astype(np.float32)
    volumes = np.zeros((2, 10, 10, 10), np.float32)
    volumes[0, 1:, 1:, 1:], volumes[1, 1:, 1:, 1:] = inside, np.rot90(inside, axes=(0, 2))
    first, second = rotation_invariant_features(volumes)
    np.testing.assert_allclose(first, second, atol=2e-5)


def test_any_turn_of_a_smooth_volume_changes_little():
    rng = np.random.default_rng(2)
    features = []
    for _ in range(3):
        positions, heights = rng.normal(0, 3.5, (8, 3)), rng.random(8)
        matrices = Rotation.random(4, random_state=3).as_matrix()
        volumes = [blobs(24, positions @ matrix.T, heights, 2.0) for matrix in matrices]
        features.append(rotation_invariant_features(np.stack(volumes)))
    features = np.stack(features)
    within = np.sqrt(features.var(axis=1).sum() / np.square(features).mean(axis=1).sum())
    between = np.sqrt(features.mean(axis=1).var(axis=0).sum() / np.square(features).mean(axis=(0, 1)).sum())
    assert within < 0.01  # measured 0.0023
    assert between > 20 * within


def test_a_shift_is_not_a_turn():
    centred = blobs(16, [(0, 0, 0)], [1], 2.0)
    first, second = rotation_invariant_features(np.stack([centred, np.roll(centred, 2, axis=2)]))
    assert np.abs(first - second).max() > 0.1


# === Closed forms ===


def columns(names, degree):
    return np.array([found == degree for _, found in names])


def test_a_constant_has_degree_zero_alone():
    features = rotation_invariant_features(np.full((1, 12, 12, 12), 3.0, np.float32))[0]
    zero = columns(feature_names(12), 0)
    np.testing.assert_allclose(features[zero], 3 * math.sqrt(4 * math.pi), rtol=1e-5)
    np.testing.assert_allclose(features[~zero], 0, atol=1e-4)


def test_a_linear_ramp_has_degree_one_alone():
    # Trilinear interpolation is exact for it: x = r sqrt(4 pi / 3) Y_1,1.
    names = feature_names(13)
    features = rotation_invariant_features(offsets(13)[2][None].astype(np.float32))[0]
    one = columns(names, 1)
    radii = np.array([radius for radius, _ in names])
    np.testing.assert_allclose(features[one], radii[one] * math.sqrt(4 * math.pi / 3), rtol=1e-5)
    np.testing.assert_allclose(features[~one], 0, atol=1e-4)


@pytest.mark.parametrize(("degree", "order"), [(2, 0), (2, -2), (3, 1), (4, 4), (6, -3)])
def test_one_harmonic_has_power_at_its_degree_alone(degree, order):
    size = 31
    z, y, x = offsets(size)
    radius = np.maximum(np.sqrt(x * x + y * y + z * z), 1e-9)
    directions = np.stack([x / radius, y / radius, z / radius], axis=-1).reshape(-1, 3)
    volume = real_harmonics(degree, directions)[:, degree**2 + degree + order].reshape(radius.shape)
    names = feature_names(size)
    features = rotation_invariant_features(volume[None].astype(np.float32))[0]
    outer = np.array([shell >= 10 for shell, _ in names])
    mine = columns(names, degree)
    np.testing.assert_allclose(features[outer & mine], 1, atol=0.05)
    assert features[outer & ~mine].max() < 0.02


def test_parseval():
    # Power over all degrees is the mean square over the sphere: of a volume that the degrees can carry.
    volume = blobs(21, [(2, 1, 0), (-3, 2, 1)], [1.0, 0.7], 3.0)
    names = feature_names(21)
    features = rotation_invariant_features(volume[None])[0].astype(np.float64)
    for radius in (5, 8, 10):
        of_shell = np.array([found == radius for found, _ in names])
        directions, weights = sphere_quadrature(30)
        values = invariants._trilinear(21, 10 + radius * directions[:, ::-1]) @ volume.ravel().astype(np.float64)
        np.testing.assert_allclose(np.square(features[of_shell]).sum(), weights @ values**2, rtol=1e-2)


# === The sphere ===


@pytest.mark.parametrize("degree", [0, 1, 5, 12])
def test_harmonics_are_orthonormal_under_the_quadrature(degree):
    directions, weights = sphere_quadrature(degree)
    harmonics = real_harmonics(degree, directions)
    np.testing.assert_allclose(harmonics.T @ (harmonics * weights[:, None]), np.eye((degree + 1) ** 2), atol=1e-12)
    np.testing.assert_allclose(weights.sum(), 4 * math.pi)


def test_the_directions_are_those_of_a_turned_cube():
    directions, weights = sphere_quadrature(4)
    rows = {tuple(row) for row in np.round(np.column_stack([directions, weights]), 9) + 0.0}
    for matrix in cube_rotations():
        after = np.round(np.column_stack([directions @ matrix.T, weights]), 9) + 0.0
        assert {tuple(row) for row in after} == rows


def test_harmonics_are_those_of_scipy():
    # sph_harm_y is new in SciPy 1.15; its forerunner has the arguments in another order.
    theirs = getattr(special, "sph_harm_y", None) or (lambda n, m, theta, phi: special.sph_harm(m, n, phi, theta))
    directions = Rotation.random(40, random_state=0).as_matrix()[:, 0]
    directions[:2] = (0, 0, 1), (0, 0, -1)
    theta, phi = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    ours = real_harmonics(20, directions)
    for degree in (0, 1, 7, 20):
        for order in range(-degree, degree + 1):
            complex_one = theirs(degree, abs(order), theta, phi) * (-1) ** order
            part = complex_one.real if order >= 0 else complex_one.imag
            expected = part * (math.sqrt(2) if order else 1)
            np.testing.assert_allclose(ours[:, degree**2 + degree + order], expected, atol=1e-12)


def test_the_power_is_that_of_pyshtools():
    pyshtools = pytest.importorskip("pyshtools", reason="pyshtools comes with the extra `parity`")
    size, radius, degree = 25, 9, 12
    rng = np.random.default_rng(5)
    volume = blobs(size, rng.normal(0, 3, (6, 3)), rng.random(6), 2.5)
    # Our interpolated values on their Gauss-Legendre grid, their expansion: 4 pi-normalised, power a degree.
    fine = 40
    zeros, weights = pyshtools.expand.SHGLQ(fine)
    latitude, longitude = pyshtools.expand.GLQGridCoord(fine)
    cosine, phi = np.cos(np.radians(latitude)), np.radians(longitude)
    grid = np.stack(
        [cosine[:, None] * np.cos(phi), cosine[:, None] * np.sin(phi), np.sin(np.radians(latitude))[:, None] + 0 * phi],
        axis=-1,
    )
    values = invariants._trilinear(size, size // 2 + radius * grid.reshape(-1, 3)[:, ::-1]) @ volume.ravel()
    coefficients = pyshtools.expand.SHExpandGLQ(values.reshape(len(latitude), -1), weights, zeros)
    theirs = np.sqrt(4 * np.pi * pyshtools.spectralanalysis.spectrum(coefficients)[: degree + 1])
    names = np.array(feature_names(size, degree))
    ours = rotation_invariant_features(volume[None], degree)[0][names[:, 0] == radius]
    np.testing.assert_allclose(ours, theirs, atol=0.01 * theirs.max())


# === What it is fed ===


def test_names_and_columns_agree():
    names = feature_names(9, 3)
    assert names == [(r, degree) for r in (1, 2, 3, 4) for degree in range(4)]
    assert rotation_invariant_features(np.zeros((2, 9, 9, 9)), 3).shape == (2, 16)
    assert feature_names(8, 3)[-1] == (3, 3)
    assert max(degree for radius, degree in feature_names(40) if radius == 2) == 6
    assert [shell.degree for shell in shell_operators(9, 5)] == [3, 5, 5, 5]


def test_many_volumes_are_as_one_by_one():
    volumes = np.random.default_rng(6).standard_normal((130, 6, 6, 6))
    together = rotation_invariant_features(volumes)
    apart = np.concatenate([rotation_invariant_features(volume[None]) for volume in volumes])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert together.dtype == np.float32
    assert rotation_invariant_features(volumes[:0]).shape == (0, together.shape[1])


@pytest.mark.parametrize("shape", [(8, 8, 8), (1, 8, 8, 9), (1, 2, 2, 2), (1, 8, 8, 8, 1)])
def test_what_is_not_a_stack_of_cubes_is_named(shape):
    with pytest.raises(InputError, match="cubes of 3 voxels") as error:
        rotation_invariant_features(np.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_volume_that_is_not_finite_is_named(value):
    volumes = np.zeros((70, 8, 8, 8))
    volumes[66, 4, 4, 5] = value
    with pytest.raises(InputError, match="Volume 66 has voxels"):
        rotation_invariant_features(volumes)
