"""Explicit physics: projections of a tilt series, optics and noise on each, direct Fourier inversion.

With the half axis of the spectrum on the tilt axis every ky plane is sliced by the same sparse matrix, so that the
whole tilt series is one product of a sparse and a dense matrix.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.sparse

from aitom_ssl.simulation import optics


def slice_matrix(n: int, tilts: np.ndarray) -> scipy.sparse.csr_matrix:
    """(n_tilts n, n n) float32: row (tilt, kx') holds the bilinear weights of the four voxels (kz, kx) around it.

    Tilts in degrees; rows and columns unshifted. A specimen turned right-handedly about y by the tilt is projected
    along z, so image frequency kx' lies at kx = kx' cos, kz = kx' sin. The Nyquist row is empty.
    """
    frequency = np.fft.fftfreq(n, 1 / n)
    inside = np.abs(frequency) < n / 2
    angle = np.radians(np.asarray(tilts, dtype=np.float64))[:, None]
    x, z = frequency[inside] * np.cos(angle), frequency[inside] * np.sin(angle)
    rows = n * np.arange(len(tilts))[:, None] + np.flatnonzero(inside)
    x0, z0 = np.floor(x), np.floor(z)
    entries = []
    for dz, wz in ((0, z0 + 1 - z), (1, z - z0)):
        for dx, wx in ((0, x0 + 1 - x), (1, x - x0)):
            columns = ((z0 + dz) % n) * n + (x0 + dx) % n
            entries.append((wz * wx, rows, columns))
    weights, rows, columns = (np.concatenate([e[i].ravel() for e in entries]) for i in range(3))
    shape = (len(tilts) * n, n * n)
    matrix = scipy.sparse.csr_matrix((weights.astype(np.float32), (rows, columns.astype(np.int64))), shape=shape)
    matrix.eliminate_zeros()
    return matrix


def sampling_variance(k_perp: np.ndarray, tilts: np.ndarray, box: int) -> np.ndarray:
    """What gridding leaves of unit noise in the images, at distances `k_perp` (cycles/voxel) from the tilt axis.

    sum w^2 / (sum w)^2 over the tilts' bilinear weights in a reconstruction of `box` voxels, averaged around the axis:
    a ramp, as more tilts meet near the axis. Doubled: bilinear weights halve the noise over the whole box but not
    around its centre, where the particle is. Differs from the closed form clip(N dtheta k_perp, 1/n_tilts, 1), which
    it follows within 15% below Nyquist, by being right beyond the distance where tilts no longer touch.
    """
    slices = slice_matrix(box, tilts)
    total, squares = (np.asarray(weights.sum(0)).ravel() for weights in (slices, slices.power(2)))
    k = np.fft.fftfreq(box, 1 / box)
    radius = np.round(np.hypot(k[:, None], k).ravel()).astype(int)
    met = (total > 0) & (radius < box / 2) & optics.wedge(k[:, None], k, np.abs(tilts).max()).ravel()
    variance = np.bincount(radius[met], squares[met] / np.square(total[met])) / np.bincount(radius[met])
    return 2 * np.interp(k_perp, np.arange(variance.size) / box, variance)


class TiltSeries:
    """Slices of, and reconstruction from, a tilt series of n x n images. Spectra are centred (origin at n//2)."""

    def __init__(self, n: int, tilt_max: float, tilt_step: float):
        self.n = n
        self.tilts = optics.tilt_angles(tilt_max, tilt_step)
        self._slices = slice_matrix(n, self.tilts)
        self.coverage = np.asarray(self._slices.sum(0)).ravel()  # (n n,) summed weights of each (kz, kx)
        weight = np.divide(1, self.coverage, out=np.zeros_like(self.coverage), where=self.coverage > 0)
        self._gridding = scipy.sparse.csr_matrix(scipy.sparse.diags(weight) @ self._slices.T, dtype=np.float32)
        # Length of each image frequency (kx', ky) in cycles/voxel, and how often it counts in the full spectrum.
        ky = np.arange(n // 2 + 1) / n
        self.frequency = np.hypot(np.fft.fftfreq(n)[:, None], ky).astype(np.float32)
        self._inside = (self.frequency < 0.5 - 1e-9).astype(np.float32)
        self._multiplicity = np.where(ky == 0, 1.0, 2.0).astype(np.float32)

    def project(self, half: np.ndarray) -> np.ndarray:
        """Half spectrum (kz, ky, kx) to the images' half spectra (n_tilts, kx', ky) below Nyquist."""
        n = self.n
        planes = half.transpose(0, 2, 1).reshape(n * n, n // 2 + 1)
        return (self._slices @ planes).reshape(len(self.tilts), n, n // 2 + 1) * self._inside

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images' half spectra (n_tilts, kx', ky) to the half spectrum (kz, ky, kx): weighted mean of the slices."""
        n = self.n
        planes = self._gridding @ images.reshape(len(self.tilts) * n, n // 2 + 1)
        return planes.reshape(n, n, n // 2 + 1).transpose(0, 2, 1)

    def noise(self, rng: np.random.Generator) -> np.ndarray:
        """Half spectra (n_tilts, kx', ky) of real white images of unit variance."""
        images = rng.standard_normal((len(self.tilts), self.n, self.n), dtype=np.float32)
        return scipy.fft.rfftn(images, axes=(1, 2)) * self._inside

    def image_variance(self, images: np.ndarray) -> float:
        """Variance of the images' pixels, averaged over the tilts, from their half spectra."""
        power = np.square(images.real) + np.square(images.imag)
        power[:, 0, 0] = 0
        return float((power * self._multiplicity).sum(dtype=np.float64)) / len(self.tilts) / self.n**4
