"""One-shot physics against the exact Fourier transforms of the built-in models."""

import numpy as np
import pytest

from aitom_ssl import geometry, structures
from aitom_ssl.simulation import optics, volume

VOXEL, RESOLUTION = 10.0, 20.0


def template(name):
    return structures.resolve(name, None).density(VOXEL, RESOLUTION)


def exact_spectrum(exact_density, name, k, matrix, shift):
    """Centred spectrum of the unit-peak template in a pose; k (3, s) cycles/voxel."""
    model = structures.resolve(name, None).blurred(RESOLUTION)
    peak = exact_density(model, template(name).volume.shape[0]).max()
    spectrum = model.rotated(matrix).fourier_at(k.T / VOXEL) / (peak * VOXEL**3)
    return spectrum * np.exp(-2j * np.pi * (np.asarray(shift) @ k))


def poses(count):
    rng = np.random.default_rng(3)
    matrices = geometry.quaternion_to_matrix(geometry.random_quaternions(rng, count))
    return zip(matrices, rng.uniform(-4, 4, (count, 3)), strict=True)


def test_support_counts_wedge_and_sphere():
    # The specification's count for 32^3 at +-60 degrees.
    measured = volume.support(32, 60)
    assert measured.index.size == pytest.approx(5948, abs=60)
    assert measured.length.max() < 0.5
    full = volume.support(32)
    assert set(measured.index) < set(full.index)


@pytest.mark.parametrize("n", [15, 16])
def test_volume_and_spectrum_are_inverses(n):
    support = volume.support(n)
    rng = np.random.default_rng(0)
    image = volume.to_volume(volume.from_volume(rng.standard_normal((n, n, n)), support), support)
    again = volume.to_volume(volume.from_volume(image, support), support)
    np.testing.assert_allclose(again, image, atol=1e-5)


@pytest.mark.parametrize("n", [15, 16])
def test_a_flat_centred_spectrum_is_a_point_at_the_centre(n):
    support = volume.support(n)
    image = volume.to_volume(np.ones(support.index.size, dtype=np.complex64), support)
    assert np.unravel_index(image.argmax(), image.shape) == (n // 2,) * 3


@pytest.mark.parametrize("name", ["ribosome_70s", "groel", "proteasome_20s", "hemoglobin"])
def test_accuracy_of_the_gather(exact_density, name):
    """Validation 6: error relative to the exact transform, weighted by CTF, MTF and wedge, below 2%."""
    support = volume.support(48, 60)
    q = support.length / VOXEL
    weight = optics.ctf(q, 0.05) * optics.sinc_mtf(q, 0.05) * np.sqrt(support.multiplicity)
    transform = volume.TemplateTransform(template(name).volume)
    for matrix, shift in poses(4):
        got = transform.sample(support.k, matrix) * volume.shift_phase(support, shift)
        expected = exact_spectrum(exact_density, name, support.k, matrix, shift)
        error = np.linalg.norm((got - expected) * weight) / np.linalg.norm(expected * weight)
        assert error < 0.02


def test_identity_pose_is_the_template():
    """Validation 8, first half."""
    density = template("ribosome_70s").volume
    support = volume.support(48)
    image = volume.to_volume(volume.TemplateTransform(density).sample(support.k, np.eye(3)), support)
    image = volume.crop(image, density.shape[0])
    assert np.linalg.norm(image - density) / np.linalg.norm(density) < 0.03


def test_an_integer_shift_rolls_the_volume():
    """Validation 8, second half: exact for the periodic box, so everywhere and not in the interior only."""
    density = template("groel").volume
    support = volume.support(48)
    matrix = next(iter(poses(1)))[0]
    spectrum = volume.TemplateTransform(density).sample(support.k, matrix)
    image = volume.to_volume(spectrum, support)
    moved = volume.to_volume(spectrum * volume.shift_phase(support, np.array([3, -2, 1])), support)
    np.testing.assert_allclose(moved, np.roll(image, (1, -2, 3), axis=(0, 1, 2)), atol=1e-4 * np.abs(image).max())


def test_the_pose_turns_the_density_as_geometry_says(exact_density):
    """A quarter turn about z moves the voxel at +x to +y, and any turn matches the exact turned model."""
    model = structures.resolve("ribosome_70s", None).blurred(RESOLUTION)
    matrix = next(iter(poses(1)))[0]
    exact = exact_density(model.rotated(matrix), 48)
    support = volume.support(48)
    transform = volume.TemplateTransform(template("ribosome_70s").volume)
    image = volume.to_volume(transform.sample(support.k, matrix), support)
    assert np.corrcoef(image.ravel(), exact.ravel())[0, 1] > 0.9995
    point = np.zeros((16, 16, 16), dtype=np.float32)
    point[8, 8, 11] = 1
    quarter = geometry.quaternion_to_matrix(geometry.euler_zyz_to_quaternion([90.0, 0, 0]))
    small = volume.support(16)
    turned = volume.to_volume(volume.TemplateTransform(point).sample(small.k, quarter), small)
    assert np.unravel_index(turned.argmax(), turned.shape) == (8, 11, 8)


def test_crop_keeps_the_centre():
    image = np.zeros((48, 48, 48))
    image[24, 24, 24] = 1
    assert volume.crop(image, 32)[16, 16, 16] == 1


def test_noise_has_unit_variance_and_the_asked_spectrum():
    support = volume.support(16, 60)
    deviation = (0.2 + support.length).astype(np.float32)
    synthesis = volume.NoiseSynthesis(support, deviation)
    rng = np.random.default_rng(5)
    power = total = 0
    for _ in range(400):
        image = synthesis.draw(rng)
        total += image.var() / 400
        power += np.square(np.abs(volume.from_volume(image, support))) / 400
    assert total == pytest.approx(1, abs=0.01)
    ratio = power / np.square(deviation)
    ratio /= ratio.mean()
    # Each coefficient is a mean of 400 exponentials, 5% each; the plane ky = 0 must not stand out.
    assert ratio[support.multiplicity == 1].mean() == pytest.approx(1, abs=0.03)
    assert ratio.min() > 0.7 and ratio.max() < 1.4
