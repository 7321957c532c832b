"""Tilt series of whole volumes: slices are exact, back-projection is their adjoint, the ramp gives unit gain."""

import numpy as np
import pytest
from scipy import ndimage

from aitom_ssl.geometry import centre
from aitom_ssl.simulation import optics
from aitom_ssl.simulation.backprojection import Projector, fast_even

SHAPE = (15, 22, 28)


@pytest.fixture(scope="module")
def volume():
    return ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 1.2).astype(np.float32)


@pytest.fixture(scope="module")
def projector():
    return Projector(SHAPE, optics.tilt_angles(60, 6))


def reconstructed(projector, images):
    planes = np.empty((len(projector.ky), SHAPE[0], SHAPE[2]), dtype=np.complex64)
    projector.back_project(images, planes)
    return np.stack(list(projector.slices(planes)))


def random_images(projector, seed=0):
    """Spectra of white images of unit variance."""
    white = np.random.default_rng(seed).standard_normal((projector.height, len(projector.tilts), projector.width))
    spectra = np.fft.fft(np.fft.rfft(white, axis=0), axis=2)
    return (spectra * projector.inside[:, None]).astype(np.complex64)


def test_images_are_the_fourier_transform_on_central_slices(volume, projector):
    planes = projector.planes(volume)
    images = projector.project(planes)
    z, x = (np.arange(n) - centre(n) for n in (SHAPE[0], SHAPE[2]))
    for tilt in (0, 7, 20):
        angle = np.radians(projector.tilts[tilt])
        # A specimen turned right-handedly about y: x' = x cos + z sin.
        away = z[:, None] * np.sin(angle) + x * np.cos(angle)
        wave = np.exp(-2j * np.pi * projector.k[:, None, None] * away)
        exact = np.einsum("yzx,kzx->yk", planes.astype(np.complex128), wave) * projector.inside
        np.testing.assert_allclose(images[:, tilt], exact, atol=2e-5 * np.abs(exact).max())


def test_planes_hold_the_volume(volume, projector):
    planes = projector.planes(volume)
    np.testing.assert_allclose(np.stack(list(projector.slices(planes))), volume, atol=1e-6)


@pytest.mark.parametrize("tilt", [-60.0, 0.0, 30.0])
def test_an_image_is_the_projection_of_the_turned_specimen(tilt):
    """A Gaussian off the axis, whose projection at any tilt is known."""
    projector = Projector(SHAPE, np.array([-60.0, 0.0, 30.0]))
    at, sigma = np.array([5.0, -4.0, 1.0]), 1.5  # x, y, z from the centre voxel
    grids = np.meshgrid(*(np.arange(n) - centre(n) for n in SHAPE), indexing="ij")
    away = sum(np.square(grid - a) for grid, a in zip(grids, at[::-1], strict=True))
    volume = np.exp(-away / (2 * sigma**2)).astype(np.float32)
    images = projector.project(projector.planes(volume))
    index = list(projector.tilts).index(tilt)
    angle = np.radians(tilt)
    x = at[0] * np.cos(angle) + at[2] * np.sin(angle)
    y, pixel = (np.arange(n) - centre(n) for n in SHAPE[1:])
    expected = np.exp(-(np.square(y - at[1])[:, None] + np.square(pixel - x)) / (2 * sigma**2))
    expected *= sigma * np.sqrt(2 * np.pi)
    np.testing.assert_allclose(projector.image(images, index), expected, atol=1e-3 * expected.max())


def test_back_projection_is_the_adjoint_of_projection(volume, projector):
    planes = projector.planes(volume)
    images = random_images(projector)
    back = np.empty_like(planes)
    projector.back_project(images, back)
    forward = np.vdot(projector.project(planes), images * projector.weight)
    assert np.vdot(planes, back) == pytest.approx(forward, rel=1e-4)


def test_a_full_turn_gives_the_volume_back(volume):
    projector = Projector(SHAPE, optics.tilt_angles(90, 2))
    found = reconstructed(projector, projector.project(projector.planes(volume)))
    # Without the corners of Fourier space beyond Nyquist, and without one mean, which every tilt measures.
    assert np.corrcoef(found.ravel(), volume.ravel())[0, 1] > 0.997
    assert np.vdot(found, volume) / np.vdot(volume, volume) == pytest.approx(1, abs=0.01)


def test_nothing_comes_in_at_the_other_border(projector):
    volume = np.zeros(SHAPE, dtype=np.float32)
    volume[:, :2, :2] = 1
    found = reconstructed(projector, projector.project(projector.planes(ndimage.gaussian_filter(volume, 1.0))))
    assert np.abs(found[:, -6:]).max() < 0.02 * np.abs(found).max()


def test_noise_variance_is_what_noise_has(projector):
    transfer = np.exp(-np.square(projector.frequency / 0.3))
    found = [reconstructed(projector, random_images(projector, s) * transfer[:, None]).var() for s in range(30)]
    assert projector.noise_variance([transfer]) == pytest.approx(np.mean(found), rel=0.05)
    assert projector.noise_variance([transfer, transfer]) == pytest.approx(2 * projector.noise_variance([transfer]))


def test_any_number_of_threads_gives_the_same_bits(volume):
    found = []
    for workers in (1, 3):
        projector = Projector(SHAPE, optics.tilt_angles(60, 6), workers)
        images = projector.project(projector.planes(volume))
        found.append((images, reconstructed(projector, images)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_progress_is_told(volume, projector):
    seen = []
    planes = projector.planes(volume, seen.append)
    assert sum(seen) == SHAPE[0]
    projector.project(planes, seen.append)
    assert sum(seen) == SHAPE[0] + len(projector.ky)


def test_fast_lengths_are_even_and_enough():
    for least in (7, 64, 97.5, 671):
        assert fast_even(least) >= least and fast_even(least) % 2 == 0 and fast_even(least) < 1.2 * least + 4
