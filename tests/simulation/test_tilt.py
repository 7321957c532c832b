"""Explicit tilt series: slices are projections, gridding inverts them, and one-shot physics agrees."""

import numpy as np
import pytest
import scipy.fft

from aitom_ssl import geometry, structures
from aitom_ssl.simulation import volume
from aitom_ssl.simulation.tilt import TiltSeries, sampling_variance

VOXEL = 10.0


def exact_projection(model, n):
    """(x, y) image of a sum of Gaussians projected along z, on 10 A pixels."""
    offset = (np.arange(n) - n // 2) * VOXEL
    x, y = np.exp(-np.square(offset - model.positions.T[:2, :, None]) / (2 * model.sigmas[:, None] ** 2))
    return np.einsum("gx,gy,g->xy", x, y, model.weights / (2 * np.pi * model.sigmas**2), optimize=True)


def images_in_real_space(series, half_images):
    """(n_tilts, kx', ky) centred half spectra to (n_tilts, x', y) images."""
    n = series.n
    k = np.arange(n)
    sign = (-1.0) ** (k[:, None] + k[: n // 2 + 1])
    return scipy.fft.irfftn(half_images * sign, s=(n, n), axes=(1, 2))


def test_untilted_slice_is_the_transform_of_the_projection():
    """Validation 5, first half."""
    n = 16
    image = np.random.default_rng(0).standard_normal((n, n, n))
    support = volume.support(n)
    image = volume.to_volume(volume.from_volume(image, support), support).astype(np.float64)
    half = np.zeros((n, n // 2 + 1, n), dtype=np.complex128)
    half.ravel()[support.index] = volume.from_volume(image, support)
    series = TiltSeries(n, 60, 20)
    projected = images_in_real_space(series, series.project(half))[3]
    expected = image.sum(axis=0).T
    # What lies in the corners beyond Nyquist is cut from both.
    assert np.abs(projected - expected).max() / np.abs(expected).max() < 1e-6


def test_slices_are_the_tilted_projections(exact_density):
    """Validation 5, second half: correlation above .999 with two-fold padding, for every tilt."""
    model = structures.resolve("groel", None).blurred(20.0).rotated(
        geometry.quaternion_to_matrix(geometry.random_quaternions(np.random.default_rng(1), 1)[0])
    )
    n = 64
    series, support = TiltSeries(n, 60, 10), volume.support(n)
    half = np.zeros((n, n // 2 + 1, n), dtype=np.complex64)
    half.ravel()[support.index] = volume.from_volume(exact_density(model, n), support)
    images = images_in_real_space(series, series.project(half))
    inner = slice(n // 4, 3 * n // 4)
    for tilt, image in zip(series.tilts, images, strict=True):
        turn = geometry.quaternion_to_matrix([np.cos(np.radians(tilt) / 2), 0, np.sin(np.radians(tilt) / 2), 0])
        expected = exact_projection(model.rotated(turn), n)
        assert np.corrcoef(image[inner, inner].ravel(), expected[inner, inner].ravel())[0, 1] > 0.999


def test_gridding_a_constant_gives_it_back():
    series = TiltSeries(16, 60, 3)
    images = np.ones((len(series.tilts), 16, 9), dtype=np.complex64)
    half = series.reconstruct(images)
    np.testing.assert_allclose(half[np.abs(half) > 0], 1, atol=1e-5)
    assert 0.3 < np.mean(np.abs(half) > 0) < 0.9


def test_image_variance_is_the_pixels():
    series = TiltSeries(16, 60, 20)
    images = series.noise(np.random.default_rng(2))
    pixels = images_in_real_space(series, images)
    assert series.image_variance(images) == pytest.approx(pixels.var(axis=(1, 2)).mean(), rel=1e-4)


def test_one_shot_agrees_with_the_tilt_series(simulator):
    """Validation 7: noise-free correlation above .995 at n_sim = 2 size, same labels, poses and shifts."""
    one_shot, explicit = simulator(n_sim=64), simulator(physics="tilt")
    for index in range(8):
        a, b = one_shot.clean_and_noise(0, index), explicit.clean_and_noise(0, index)
        assert a[2]["scene"].label == b[2]["scene"].label
        np.testing.assert_array_equal(a[2]["scene"].quaternion, b[2]["scene"].quaternion)
        assert np.corrcoef(a[0].ravel(), b[0].ravel())[0, 1] > 0.995


def test_one_shot_noise_has_the_spectrum_of_the_tilt_series():
    """Validation 7: ratio of the radial power at equal variance within 10%, 200 draws over the whole box."""
    n, draws = 64, 200
    series, support = TiltSeries(n, 60, 3), volume.support(n, 60)
    one_shot = volume.NoiseSynthesis(support, np.sqrt(sampling_variance(support.k_perp, series.tilts, n)))
    rng = np.random.default_rng(4)
    shell = np.round(support.length * n).astype(int)
    radial = np.zeros((2, n // 2 + 1))
    for _ in range(draws):
        gridded = series.reconstruct(series.noise(rng)).ravel()[support.index]
        drawn = volume.from_volume(one_shot.draw(rng), support)
        for sums, spectrum in zip(radial, (gridded, drawn), strict=True):
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            sums += np.bincount(shell, power * support.multiplicity, minlength=sums.size)
    explicit, ours = (sums[1 : n // 2] / sums.sum() for sums in radial)
    # The two innermost shells hold a handful of voxels, whose weights differ one by one.
    np.testing.assert_allclose(explicit[:2] / ours[:2], 1, atol=0.15)
    np.testing.assert_allclose(explicit[2:] / ours[2:], 1, atol=0.1)


def test_sampling_variance_is_near_its_closed_form():
    """clip(N dtheta k_perp, 1/n_tilts, 1), and an average over all 41 tilts on the axis."""
    k_perp = np.arange(2, 16) / 32
    closed = np.clip(32 * np.radians(3) * k_perp, 1 / 41, 1)
    np.testing.assert_allclose(sampling_variance(k_perp, np.arange(-60, 61, 3), 32), closed, rtol=0.2)
    assert sampling_variance(np.zeros(1), np.arange(-60, 61, 3), 32)[0] < 2 / 41


def test_projection_noise_has_the_same_level_either_way(simulator):
    """What one-shot physics derives from the explicit path, against the explicit path itself."""
    parameters = {"snr_mode": "projection", "n_sim": 64, "recon_box": 64, "snr": 0.05}
    one_shot, explicit = simulator(**parameters), simulator(physics="tilt", **parameters)
    for index in range(4):
        a, b = one_shot.sample(0, index), explicit.sample(0, index)
        assert a["v_ref"] == pytest.approx(b["v_ref"], rel=0.25)
