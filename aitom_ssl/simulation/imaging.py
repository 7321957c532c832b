"""What microscope, detector and filters do to signal and noise, for the parameters of a `SimulationSpec`.

Pure functions; f are lengths of frequencies in cycles/voxel, of any shape, which is that of the result.
"""

from __future__ import annotations

import numpy as np

from aitom_ssl.simulation import optics
from aitom_ssl.simulation.parameters import SimulationSpec


def signal_transfer(spec: SimulationSpec, f: np.ndarray, defocus_um: float) -> np.ndarray:
    """Contrast, CTF, MTF and low-pass: what a density is multiplied with, float32."""
    sign = 1 if spec.contrast == "bright" else -1
    return (sign * ctf(spec, f, defocus_um) * mtf(spec, f) * lowpass(spec, f)).astype(np.float32)


def noise_transfers(spec: SimulationSpec, f: np.ndarray, defocus_um: float) -> list[np.ndarray]:
    """What white noise of unit variance is multiplied with, float32: that from before the CTF and that from after it.

    Their fields are independent; a share of zero is left out.
    """
    shares = (
        (spec.noise_split, ctf(spec, f, defocus_um) * mtf(spec, f)),
        (1 - spec.noise_split, detector(spec, f)),
    )
    return [(np.sqrt(share) * by * lowpass(spec, f)).astype(np.float32) for share, by in shares if share]


def ctf(spec: SimulationSpec, f: np.ndarray, defocus_um: float) -> np.ndarray:
    """Contrast transfer, envelope and B-factor included."""
    return optics.ctf(
        f / spec.voxel_size,
        0.5 / spec.voxel_size,
        spec.voltage_kv,
        defocus_um,
        spec.cs_mm,
        spec.amplitude_contrast,
        spec.envelope,
        spec.bfactor,
    )


def mtf(spec: SimulationSpec, f: np.ndarray) -> np.ndarray:
    """Modulation transfer of the detector on the image."""
    return optics.sinc_mtf(f, 0.5) if spec.mtf == "sinc" else np.ones_like(f)


def detector(spec: SimulationSpec, f: np.ndarray) -> np.ndarray:
    """What the noise that arises after the CTF passes through."""
    return optics.detector_lowpass(f, spec.reconstruction_size) if spec.mtf == "detector" else mtf(spec, f)


def lowpass(spec: SimulationSpec, f: np.ndarray) -> np.ndarray:
    """The soft low-pass on signal and noise."""
    if spec.lowpass is None:
        return np.ones_like(f)
    return optics.soft_lowpass(f, spec.lowpass / 2, spec.reconstruction_size)
