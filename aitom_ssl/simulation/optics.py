"""What the microscope and the reconstruction do to a density in Fourier space: pure functions of frequency.

q is the length of a frequency in 1/A unless a docstring says cycles/voxel. Nyquist is 1/(2 voxel_size).
"""

from __future__ import annotations

import numpy as np


def electron_wavelength(voltage_kv: float) -> float:
    """Relativistic wavelength in A: 12.264 / sqrt(V (1 + 0.978476e-6 V)), V in volts; 0.0197 A at 300 kV."""
    volts = 1e3 * voltage_kv
    return 12.264 / np.sqrt(volts * (1 + 0.978476e-6 * volts))


def phase_shift(q: np.ndarray, voltage_kv: float, defocus_um: float, cs_mm: float) -> np.ndarray:
    """Aberration phase chi = pi l f q^2 - pi/2 Cs l^3 q^4 in radians, positive defocus = underfocus."""
    wavelength = electron_wavelength(voltage_kv)
    squared = np.square(q)
    return np.pi * wavelength * (defocus_um * 1e4) * squared - np.pi / 2 * (cs_mm * 1e7) * wavelength**3 * squared**2


def ctf(
    q: np.ndarray,
    nyquist: float,
    voltage_kv: float = 300.0,
    defocus_um: float = 5.0,
    cs_mm: float = 2.0,
    amplitude_contrast: float = 0.0,
    envelope: float | None = None,
    bfactor: float = 0.0,
) -> np.ndarray:
    """Contrast transfer sqrt(1 - A^2) sin chi + A cos chi, times exp(-(q/(envelope nyquist))^2) and exp(-B q^2/4).

    Positive at low frequency under underfocus, so that bright protein stays bright.
    Differs from AITom and TOM, whose Cs term has the sign of overfocus (0.0015 rad at 1 nm: no visible effect).
    """
    chi = phase_shift(q, voltage_kv, defocus_um, cs_mm)
    transfer = np.sqrt(1 - amplitude_contrast**2) * np.sin(chi) + amplitude_contrast * np.cos(chi)
    if envelope is not None:
        transfer = transfer * np.exp(-np.square(q / (envelope * nyquist)))
    if bfactor:
        transfer = transfer * np.exp(-bfactor / 4 * np.square(q))
    return transfer


def sinc_mtf(q: np.ndarray, nyquist: float) -> np.ndarray:
    """Modulation transfer of the detector, sin(pi w/2)/(pi w/2) with w = q/nyquist (Xu 2017, section 3.1.1)."""
    return np.sinc(np.asarray(q) / (2 * nyquist))


def detector_lowpass(f: np.ndarray, box: int) -> np.ndarray:
    """exp(-((d - 1)/(0.2 N))^2), d = f N Fourier pixels of a box of N voxels: AITom's filter of the detector noise.

    f in cycles/voxel.
    """
    return np.exp(-np.square((np.asarray(f) - 1 / box) / 0.2))


def soft_lowpass(f: np.ndarray, cutoff: float, box: int) -> np.ndarray:
    """1 up to `cutoff`, then a Gaussian edge of 2 Fourier pixels of a box of `box` voxels, 0 where it is below exp(-2).

    f and cutoff in cycles/voxel. Applied twice, as AITom does to its noisy volumes. Differs from AITom, which
    filters noise-free volumes once: here the signal of a scene does not depend on its SNR.
    """
    edge = np.exp(-np.square(np.maximum(np.asarray(f) - cutoff, 0) * box / 2))
    return np.square(np.where(edge < np.exp(-2), 0.0, edge))


def tilt_angles(tilt_max: float, tilt_step: float) -> np.ndarray:
    """Tilts in degrees, symmetric about 0 and never beyond tilt_max: -60, -57, ..., 60 for (60, 3)."""
    half = int(np.floor(tilt_max / tilt_step + 1e-9))
    return tilt_step * np.arange(-half, half + 1)


def wedge(kz: np.ndarray, kx: np.ndarray, tilt_max: float) -> np.ndarray:
    """True where tilts about y up to +-tilt_max measure: |kz| cos(tilt_max) <= |kx| sin(tilt_max)."""
    angle = np.radians(tilt_max)
    # The margin keeps the boundary itself, which rounding would split between mirror-image frequencies.
    return np.abs(kz) * np.cos(angle) <= np.abs(kx) * np.sin(angle) + 1e-9
