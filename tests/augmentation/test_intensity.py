"""Changes of voxel values against closed forms and numpy.fft."""

import numpy as np
import pytest
from keras import ops

from aitom_ssl.augmentation import intensity
from aitom_ssl.augmentation.seeding import seed_key


def random_volumes(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def test_standardize():
    volumes = 5 + 3 * random_volumes(4, 6, 6, 6, 2)
    volumes[0] = 2.5
    result = numpy(intensity.standardize(volumes))
    assert not result[0].any()
    np.testing.assert_allclose(result[1:].mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(result[1:].std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_standard_deviation_stands_a_large_mean():
    volumes = 1000 + random_volumes(3, 6, 7, 8, 2)
    expected = volumes.astype(np.float64).std(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(numpy(intensity.standard_deviation(volumes)), expected, rtol=1e-3)


def test_noise_has_the_level_asked_for_and_depends_on_the_key():
    volumes, level = np.zeros((3, 16, 16, 16, 1), np.float32), np.float32([0, 0.5, 2]).reshape(3, 1, 1, 1, 1)
    noisy = numpy(intensity.add_noise(volumes, level, seed_key(1)))
    assert not noisy[0].any()
    np.testing.assert_allclose(noisy[1:].std(axis=(1, 2, 3, 4)), [0.5, 2], rtol=0.05)
    assert abs(np.corrcoef(noisy[1].ravel(), noisy[2].ravel())[0, 1]) < 0.06
    assert np.array_equal(noisy, numpy(intensity.add_noise(volumes, level, seed_key(1))))
    assert not np.array_equal(noisy, numpy(intensity.add_noise(volumes, level, seed_key(2))))


def test_change_intensity():
    volumes = random_volumes(2, 4, 4, 4, 1)
    result = numpy(intensity.change_intensity(volumes, np.float32([1, 2]), np.float32([0, -1])))
    assert np.array_equal(result[0], volumes[0])
    np.testing.assert_allclose(result[1], 2 * volumes[1] - 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 9, 9), (6, 5, 10)])
@pytest.mark.parametrize("tilt_max", [40, 45, 60])
def test_wedge_equals_masking_the_fft(shape, tilt_max):
    volumes = random_volumes(2, *shape, 2)
    kz, _, kx = np.meshgrid(*[np.fft.fftfreq(n) for n in shape], indexing="ij")
    # The projection at tilt a holds the plane kz = kx tan(a): `tilt` is the one that reaches a frequency.
    tilt = np.degrees(np.arctan2(np.abs(kz), np.abs(kx)))
    mask = (tilt <= tilt_max + 1e-6).astype(float)[None, ..., None]
    expected = np.fft.ifftn(np.fft.fftn(volumes, axes=(1, 2, 3)) * mask, axes=(1, 2, 3))
    assert np.abs(expected.imag).max() < 1e-6
    result = numpy(intensity.apply_missing_wedge(volumes, tilt_max))
    np.testing.assert_allclose(result, expected.real, atol=2e-5)


def test_wedge_removes_the_beam_direction_and_keeps_the_tilt_axis():
    n = 16
    wave = np.cos(2 * np.pi * 3 * np.arange(n) / n).astype(np.float32)
    volumes = np.zeros((3, n, n, n, 1), np.float32)
    volumes[0] = wave[:, None, None, None]
    volumes[1] = wave[:, None, None]
    volumes[2] = wave[:, None]
    z, y, x = numpy(intensity.apply_missing_wedge(volumes, 60))
    assert np.abs(z).max() < 1e-5
    np.testing.assert_allclose(y, volumes[1], atol=1e-5)
    np.testing.assert_allclose(x, volumes[2], atol=1e-5)


def test_wedge_keeps_two_thirds_of_the_plane_at_60_degrees():
    # In the disc of the (kz, kx) plane the kept sector is tilt_max / 90.
    kz, kx = np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij")
    disc = np.hypot(kz, kx) < 0.5
    assert intensity.wedge_mask(64, 64, 60)[disc].mean() == pytest.approx(60 / 90, abs=0.01)


def test_surroundings_come_from_the_partner_and_the_inside_stays():
    volumes = np.random.default_rng(3).standard_normal((3, 17, 17, 17, 1)).astype(np.float32)
    radii = np.array([4.0, 6.0, 100.0], np.float32)
    mixed = ops.convert_to_numpy(intensity.exchange_surroundings(volumes, radii, np.array([1, 2, 0])))
    grid = np.mgrid[:17, :17, :17] - 8
    distance = np.sqrt((grid**2).sum(axis=0))
    for row, (radius, partner) in enumerate(zip(radii, (1, 2, 0), strict=True)):
        inside, outside = distance <= radius - 1, distance >= radius + 1
        np.testing.assert_allclose(mixed[row][inside], volumes[row][inside], atol=1e-6)
        np.testing.assert_allclose(mixed[row][outside], volumes[partner][outside], atol=1e-6)
        on_it = distance == radius
        middle = (volumes[row] + volumes[partner])[on_it] / 2
        np.testing.assert_allclose(mixed[row][on_it], middle, atol=1e-6)


@pytest.mark.parametrize("batch", [2, 5, 8])
def test_partners_are_a_permutation_without_a_fixed_point(batch):
    numbers = (np.arange(4 * batch) + 0.5) / (4 * batch)
    found = np.array([ops.convert_to_numpy(intensity.partners(np.float32(n), batch)) for n in numbers])
    assert (np.sort(found, axis=1) == np.arange(batch)).all() and (found != np.arange(batch)).all()
    assert {tuple(row) for row in found} == {tuple((np.arange(batch) + k) % batch) for k in range(1, batch)}
    assert ops.convert_to_numpy(intensity.partners(np.float32(0.7), 1)).tolist() == [0]
