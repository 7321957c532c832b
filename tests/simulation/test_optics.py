"""Optics: closed forms."""

import numpy as np
import pytest

from aitom_ssl.simulation import optics


def test_wavelength():
    # 1.9687 pm at 300 kV and 2.5079 pm at 200 kV: tables of electron optics.
    assert optics.electron_wavelength(300) == pytest.approx(0.019687, rel=1e-4)
    assert optics.electron_wavelength(200) == pytest.approx(0.025079, rel=1e-4)


def test_ctf_vanishes_where_the_phase_is_a_multiple_of_pi():
    q = np.linspace(0, 0.05, 50001)
    transfer = optics.ctf(q, nyquist=0.05)
    roots = q[1:][np.diff(np.sign(transfer)) != 0]
    roots = roots[roots > 0.001]
    # 300 kV, 5 um, Cs 2 mm: .3187 and .4508 per nm.
    np.testing.assert_allclose(roots, [0.03187, 0.04508], atol=2e-5)


def test_underfocus_keeps_bright_bright_and_overfocus_inverts():
    low = np.array([0.005, 0.01])
    assert (optics.ctf(low, 0.05, defocus_um=5.0) > 0).all()
    assert (optics.ctf(low, 0.05, defocus_um=-5.0) < 0).all()


def test_amplitude_contrast_at_zero_frequency():
    assert optics.ctf(np.zeros(1), 0.05, amplitude_contrast=0.07)[0] == pytest.approx(0.07)


def test_envelope_and_bfactor():
    q = np.array([0.025])
    bare = optics.ctf(q, 0.05)
    # AITom's envelope leaves 0.21 at half Nyquist.
    assert optics.ctf(q, 0.05, envelope=0.4)[0] / bare[0] == pytest.approx(np.exp(-(0.5 / 0.4) ** 2))
    assert optics.ctf(q, 0.05, bfactor=400)[0] / bare[0] == pytest.approx(np.exp(-100 * 0.025**2))


def test_sinc_mtf():
    np.testing.assert_allclose(optics.sinc_mtf(np.array([0, 0.025, 0.05]), 0.05), [1, 0.90032, 2 / np.pi], atol=1e-5)


def test_wedge_borders_belong_to_it():
    kx = np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    kz = np.array([np.tan(np.radians(59.9)), np.tan(np.radians(60.1)), 0.0, 1.0, -1.0])
    np.testing.assert_array_equal(optics.wedge(kz, kx, 60), [True, False, True, False, True])
    assert optics.wedge(np.array([5.0]), np.array([0.0]), 90).all()


@pytest.mark.parametrize(("tilt_max", "count", "last"), [(60, 41, 60), (50, 33, 48), (40, 27, 39)])
def test_tilts_are_symmetric_and_stay_inside(tilt_max, count, last):
    tilts = optics.tilt_angles(tilt_max, 3)
    assert len(tilts) == count and tilts[-1] == last and 0 in tilts
    np.testing.assert_array_equal(tilts, -tilts[::-1])


def test_low_passes():
    f = np.array([0.0, 0.25, 0.25 + 2 / 300, 0.3])
    np.testing.assert_allclose(optics.soft_lowpass(f, 0.25, 300), [1, 1, np.exp(-2), 0], atol=1e-6)
    np.testing.assert_allclose(optics.detector_lowpass(np.array([1 / 300, 0.2 + 1 / 300]), 300), [1, np.exp(-1)])
