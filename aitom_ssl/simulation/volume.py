"""One-shot physics: a posed template sampled in Fourier space, where pose, optics and wedge are multiplications.

Half spectra have the half axis on y, the tilt axis: arrays (n, n//2 + 1, n) in (kz, ky, kx), as
scipy.fft.rfftn(volume, axes=(0, 2, 1)) gives. Spectra on a `Support` are "centred": their origin is voxel n//2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from aitom_ssl import geometry
from aitom_ssl.simulation import optics
from aitom_ssl.structures import Structure

AXES = (0, 2, 1)
PADDING = 3


@dataclass(frozen=True)
class Support:
    """The voxels of a half spectrum that carry signal: below Nyquist and, when asked, outside the missing wedge.

    n          side of the volume in voxels
    index      (s,) flat positions in the (n, n//2 + 1, n) half spectrum
    k          (3, s) float32 frequencies (x, y, z) in cycles/voxel
    origin     (s,) factor that moves the origin from voxel n//2 to voxel 0; +-1 when n is even
    multiplicity (s,) how often a voxel counts in the full spectrum: 1 in the plane ky = 0, else 2
    """

    n: int
    index: np.ndarray
    k: np.ndarray
    origin: np.ndarray
    multiplicity: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """(s,) lengths of the frequencies in cycles/voxel."""
        return np.sqrt(np.square(self.k).sum(0))

    @property
    def k_perp(self) -> np.ndarray:
        """(s,) distances from the tilt axis in cycles/voxel."""
        return np.hypot(self.k[0], self.k[2])


def support(n: int, tilt_max: float | None = None) -> Support:
    """The support of a volume of side n: |k| < 1/2 cycle/voxel strictly, inside +-tilt_max degrees (None: all)."""
    kz, ky, kx = np.broadcast_arrays(*geometry.frequencies((n, n, n), half_axis=1))
    inside = kx**2 + ky**2 + kz**2 < 0.25 - 1e-9
    if tilt_max is not None:
        inside &= optics.wedge(kz, kx, tilt_max)
    index = np.flatnonzero(inside)
    k = np.stack([grid.ravel()[index] for grid in (kx, ky, kz)])
    origin = np.exp(-2j * np.pi * k.sum(0) * geometry.centre(n))
    origin = origin.real.round().astype(np.float32) if n % 2 == 0 else origin.astype(np.complex64)
    multiplicity = np.where(k[1] == 0, 1.0, 2.0).astype(np.float32)
    return Support(n, index, k.astype(np.float32), origin, multiplicity)


def to_volume(spectrum: np.ndarray, support: Support) -> np.ndarray:
    """Centred half spectrum on a support, (s,) complex64, to the (n, n, n) float32 volume."""
    n = support.n
    half = np.zeros((n, n // 2 + 1, n), dtype=np.complex64)
    half.ravel()[support.index] = spectrum * support.origin
    return scipy.fft.irfftn(half, s=(n, n, n), axes=AXES, overwrite_x=True)


def from_volume(volume: np.ndarray, support: Support) -> np.ndarray:
    """(n, n, n) volume to its centred half spectrum on a support, (s,) complex64."""
    half = scipy.fft.rfftn(volume, axes=AXES)
    return half.ravel().take(support.index) * support.origin.conj()


def shift_phase(support: Support, shift: np.ndarray) -> np.ndarray:
    """(s,) complex64 factor exp(-2 pi i k.t) that moves a volume by `shift` voxels (x, y, z)."""
    angle = np.float32(-2 * np.pi) * sum(np.float32(t) * k for t, k in zip(shift, support.k, strict=True))
    phase = np.empty(angle.shape, dtype=np.complex64)
    np.cos(angle, out=phase.real)
    np.sin(angle, out=phase.imag)
    return phase


def crop(volume: np.ndarray, size: int) -> np.ndarray:
    """The central cube of side `size`, centre voxel onto centre voxel."""
    start = geometry.centre(volume.shape[0]) - geometry.centre(size)
    inside = slice(start, start + size)
    return volume[inside, inside, inside]


class TemplateTransform:
    """The Fourier transform of a template, to be read at any frequency below Nyquist and in any orientation.

    Trilinear reading of the transform of a padded template is, in real space, a multiplication by a broad sinc^2; the
    template is divided by it beforehand. What is left are errors of 1 to 2% at `PADDING` times the template's box,
    whatever the size of the subtomogram: small tables stay in the processor's cache.
    `volume` is a cube (z, y, x) with its centre at n//2.
    """

    def __init__(self, volume: np.ndarray):
        n = volume.shape[0]
        padded = PADDING * (n + n % 2)
        offset = np.arange(n) - geometry.centre(n)
        taper = 1 / np.square(np.sinc(offset / padded))
        box = np.zeros((padded,) * 3, dtype=np.float32)
        # Centre onto voxel 0, so that the transform is smooth and can be interpolated.
        box[np.ix_(offset, offset, offset)] = volume * (taper[:, None, None] * taper[:, None] * taper)
        half = scipy.fft.rfftn(box)
        # Rows from -P/2 to P/2 inclusive, so that both taps of every frequency exist.
        rows = np.arange(-(padded // 2), padded // 2 + 1)
        self._flat = half[np.ix_(rows, rows)].ravel()
        self._padded = padded
        self._row = padded // 2 + 1
        self._plane = self._row * (padded + 1)

    def sample(self, k: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """(s,) complex64 centred spectrum at frequencies k (3, s) cycles/voxel of the template turned by `matrix`.

        F(R^T k) is the transform of template(R^T r). Frequencies must be below 1/2 in length.
        """
        scaled = (matrix * self._padded).astype(np.float32)
        # Columns of R are rows of R^T; written out, since a matrix product may round differently from run to run.
        x, y, z = (scaled[0, j] * k[0] + scaled[1, j] * k[1] + scaled[2, j] * k[2] for j in range(3))
        # Only x >= 0 is stored: elsewhere the conjugate at -k.
        sign = np.copysign(np.float32(1), x)
        np.abs(x, out=x)
        y *= sign
        z *= sign
        x0, y0, z0 = np.floor(x), np.floor(y), np.floor(z)
        x -= x0
        y -= y0
        z -= z0
        middle = self._padded // 2
        corner = z0.astype(np.intp)
        corner *= self._padded + 1
        corner += y0.astype(np.intp)
        corner *= self._row
        corner += x0.astype(np.intp)
        corner += middle * (self._plane + self._row)
        before = 1 - x
        flat = self._flat
        total = np.zeros(x.shape, dtype=np.complex64)
        for plane, in_z in ((0, 1 - z), (self._plane, z)):
            for row, in_y in ((0, 1 - y), (self._row, y)):
                line = flat.take(corner + (plane + row))
                line *= before
                after = flat.take(corner + (plane + row + 1))
                after *= x
                line += after
                line *= in_z * in_y
                total += line
        total.imag *= sign
        return total


@dataclass(frozen=True)
class Template:
    """A class ready to be rendered.

    box: side in voxels of a cube that holds it in any orientation; radius in voxels; threshold of the mask relative to
    the unit peak; mask_voxels: how many exceed it, unturned.
    """

    name: str
    box: int
    radius: float
    threshold: float
    mask_voxels: int
    transform: TemplateTransform

    @classmethod
    def of(cls, structure: Structure, voxel_size: float, resolution: float | None) -> Template:
        """The template of `structure` at `voxel_size` and `resolution` (A; None = twice the voxel size)."""
        density = structure.density(voxel_size, resolution)
        return cls(
            structure.name,
            density.volume.shape[0],
            density.radius / voxel_size,
            density.threshold,
            int((density.volume > density.threshold).sum()),
            TemplateTransform(density.volume),
        )


class NoiseSynthesis:
    """Noise of unit expected variance with a given spectrum, drawn on a support.

    `deviation` (s,) is the standard deviation of the Fourier coefficients up to a constant factor.
    """

    def __init__(self, support: Support, deviation: np.ndarray):
        self._support = support
        # The inverse transform keeps only the symmetric half of the plane ky = 0, hence sqrt 2 there.
        total = np.sum(support.multiplicity * np.square(deviation), dtype=np.float64)
        scale = support.n**3 / np.sqrt(total) / np.sqrt(2)
        self._amplitude = (deviation * scale * np.where(support.multiplicity == 1, np.sqrt(2), 1)).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One (n, n, n) float32 field."""
        normals = rng.standard_normal(2 * self._amplitude.size, dtype=np.float32).view(np.complex64)
        normals *= self._amplitude
        return to_volume(normals, self._support)
