"""Tilt series of a whole tomogram, and its reconstruction by weighted back-projection.

A projection along the beam of a specimen turned about y is a central slice of its Fourier transform, and
back-projecting it is the adjoint. After a Fourier transform along y, the tilt axis, every plane (z, x) is by itself: it
is read at, or spread from, its polar grid of frequencies by a non-uniform FFT with a Kaiser-Bessel kernel (Beatty 2005,
IEEE Trans. Med. Imaging 24, 799). Nothing is interpolated in real space, and each thread works on one plane at a time.

Differs from `tilt.TiltSeries`, which grids small boxes by the mean of the slices that meet in a voxel: across a
tomogram slices meet near the tilt axis alone, and each is weighted by the area of Fourier space that it stands for, the
ramp of weighted back-projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.fft
import scipy.sparse

from aitom_ssl import geometry
from aitom_ssl.simulation.threads import in_threads

KERNEL, OVERSAMPLING = 6, 2.0  # grid points that a frequency is read from along each axis: errors below 1e-4
BETA = np.pi * np.sqrt((KERNEL / OVERSAMPLING) ** 2 * (OVERSAMPLING - 0.5) ** 2 - 0.8)  # Beatty 2005, equation 5
MARGIN = 32
"""Empty voxels along x and y: what the contrast transfer spreads over one border does not come in at the other."""

Progress = Callable[[int], object]


def kernel(t: np.ndarray) -> np.ndarray:
    """Kaiser-Bessel window of `KERNEL` grid points at distances `t` in grid points."""
    return np.i0(BETA * np.sqrt(np.maximum(1 - np.square(2 * t / KERNEL), 0))) / KERNEL


def apodization(offset: np.ndarray, side: int) -> np.ndarray:
    """What the kernel's convolution on `side` grid points multiplies a voxel at `offset` from the centre with."""
    root = np.sqrt(BETA**2 - np.square(np.pi * KERNEL * offset / side))
    return np.sinh(root) / root


def fast_even(least: float) -> int:
    """The smallest even length of at least `least` that transforms quickly."""
    return 2 * scipy.fft.next_fast_len(int(np.ceil(least / 2)), real=False)


class Projector:
    """The tilt series of a (z, y, x) volume of `shape`, tilts in degrees ascending, all as spectra.

    Planes: (ky, z, x) complex64, the transform of a volume along y, padded to `height` voxels.
    Images: (ky, tilt, kx') complex64 half spectra of images of `height` x `width` pixels, wide enough for every tilt,
    with the centre of x at pixel width//2 and y from pixel 0.
    """

    def __init__(self, shape: tuple[int, int, int], tilts: np.ndarray, workers: int = 1):
        self.shape, self.tilts, self.workers = shape, np.asarray(tilts, dtype=np.float64), workers
        nz, ny, nx = shape
        angle = np.radians(self.tilts)
        self.width = fast_even(np.max(nx * np.abs(np.cos(angle)) + nz * np.abs(np.sin(angle))) + MARGIN)
        self.height = fast_even(ny + MARGIN)
        self.ky = np.arange(self.height // 2 + 1) / self.height
        self.k = np.fft.fftfreq(self.width)
        self._sides = fast_even(OVERSAMPLING * nz), fast_even(OVERSAMPLING * nx)
        self._offsets = [np.arange(n) - geometry.centre(n) for n in (nz, nx)]
        # Each plane is divided by what the kernel will multiply it with.
        z, x = (1 / apodization(o, side) for o, side in zip(self._offsets, self._sides, strict=True))
        self._taper = (z[:, None] * x).astype(np.float32)
        self._read = self._kernel_matrix()
        self._spread = self._read.T.tocsr()
        # Of the images' (ky, kx') those below Nyquist.
        self.frequency = np.hypot(self.ky[:, None], self.k).astype(np.float32)
        self.inside = self.frequency < 0.5 - 1e-6
        self.weight = self._weights()

    def _kernel_matrix(self) -> scipy.sparse.csr_matrix:
        """(tilts width, z side x side) float32: rows (tilt, kx') hold the kernel around frequency kx' (cos, sin)."""
        angle = np.radians(self.tilts)[:, None]
        position = [(np.sin(angle) * self.k).ravel(), (np.cos(angle) * self.k).ravel()]
        places, weights = [], []
        for k, side in zip(position, self._sides, strict=True):
            at = k[:, None] * side
            points = np.floor(at).astype(np.int64) + np.arange(1 - KERNEL // 2, 1 + KERNEL // 2)
            places.append(points % side)
            weights.append(kernel(points - at))
        columns = places[0][:, :, None] * self._sides[1] + places[1][:, None, :]
        values = (weights[0][:, :, None] * weights[1][:, None, :]).astype(np.float32)
        rows = np.arange(len(values) + 1) * KERNEL**2
        shape = (len(values), self._sides[0] * self._sides[1])
        return scipy.sparse.csr_matrix((values.ravel(), columns.ravel(), rows), shape=shape)

    def _weights(self) -> np.ndarray:
        """(tilts, kx') area of the (kz, kx) plane in cycles/voxel squared that a sample stands for.

        |kx'| times the angle between tilts, 1/width long; at zero, where all tilts measure the same, a disc among them.
        """
        step = np.radians(np.diff(self.tilts).mean())
        share = np.ones(len(self.tilts))
        if self.tilts[-1] - self.tilts[0] > 180 - 1e-6:  # the first and the last are one
            share[[0, -1]] = 0.5
        weight = share[:, None] * np.abs(self.k) * step / self.width
        weight[:, 0] = np.pi / 4 / self.width**2 / len(self.tilts)
        return weight.astype(np.float32)

    # === From a volume to images ===

    def planes(self, volume: np.ndarray, progress: Progress = int) -> np.ndarray:
        """(z, y, x) float volume to its planes; `progress(1)` is called after each of the z slices."""
        nz, _, nx = self.shape
        out = np.empty((len(self.ky), nz, nx), dtype=np.complex64)

        def transform(z: int) -> None:
            out[:, z] = scipy.fft.rfft(np.asarray(volume[z], dtype=np.float32), n=self.height, axis=0)

        for _ in in_threads(transform, range(nz), self.workers):
            progress(1)
        return out

    def project(self, planes: np.ndarray, progress: Progress = int) -> np.ndarray:
        """Planes to the images' half spectra below Nyquist; `progress(1)` is called after each plane."""
        images = np.empty((len(self.ky), len(self.tilts), self.width), dtype=np.complex64)
        (nz, nx), (side_z, side_x) = self._taper.shape, self._sides
        cz, cx = geometry.centre(nz), geometry.centre(nx)

        def project(index: int) -> None:
            plane = planes[index] * self._taper
            rows = np.zeros((nz, side_x), dtype=np.complex64)
            rows[:, : nx - cx], rows[:, side_x - cx :] = plane[:, cx:], plane[:, :cx]
            rows = scipy.fft.fft(rows, axis=1, overwrite_x=True)
            grid = np.zeros((side_z, side_x), dtype=np.complex64)
            grid[: nz - cz], grid[side_z - cz :] = rows[cz:], rows[:cz]
            grid = scipy.fft.fft(grid, axis=0, overwrite_x=True)
            read = self._read @ grid.reshape(-1, 1).view(np.float32)
            images[index] = read.view(np.complex64).reshape(images.shape[1:]) * self.inside[index]

        for _ in in_threads(project, range(len(self.ky)), self.workers):
            progress(1)
        return images

    def image(self, images: np.ndarray, tilt: int) -> np.ndarray:
        """One image (y, x) float32, cropped to the sides y and x of the volume."""
        _, ny, nx = self.shape
        spectrum = images[:, tilt] * np.exp(-2j * np.pi * self.k * geometry.centre(self.width)).astype(np.complex64)
        start = geometry.centre(self.width) - geometry.centre(nx)
        whole = scipy.fft.irfft(scipy.fft.ifft(spectrum, axis=1), n=self.height, axis=0)
        return whole[:ny, start : start + nx]

    # === From images to a volume ===

    def back_project(self, images: np.ndarray, planes: np.ndarray, progress: Progress = int) -> None:
        """Images' half spectra to the planes of their reconstruction, written over `planes`."""
        (nz, nx), (side_z, side_x) = self._taper.shape, self._sides
        cz, cx = geometry.centre(nz), geometry.centre(nx)

        def back_project(index: int) -> None:
            weighted = (images[index] * self.weight).reshape(-1, 1)
            grid = (self._spread @ weighted.view(np.float32)).view(np.complex64).reshape(side_z, side_x)
            grid = scipy.fft.ifft(grid, axis=0, norm="forward", overwrite_x=True)
            rows = np.concatenate([grid[side_z - cz :], grid[: nz - cz]])
            rows = scipy.fft.ifft(rows, axis=1, norm="forward", overwrite_x=True)
            planes[index] = np.concatenate([rows[:, side_x - cx :], rows[:, : nx - cx]], axis=1) * self._taper

        for _ in in_threads(back_project, range(len(self.ky)), self.workers):
            progress(1)

    def slices(self, planes: np.ndarray) -> Iterator[np.ndarray]:
        """The z slices (y, x) float32 of the volume that planes are the transform of, in order."""
        ny = self.shape[1]

        def transform(z: int) -> np.ndarray:
            return scipy.fft.irfft(planes[:, z], n=self.height, axis=0)[:ny]

        return in_threads(transform, range(self.shape[0]), self.workers)

    def noise_variance(self, transfers: list[np.ndarray]) -> float:
        """Variance of a reconstruction's voxels from white images of unit variance.

        transfers: (ky, kx') what the spectra of independent images were multiplied with. The reconstruction is the sum
        over tilts of images weighted with `weight` width height, whose noise is independent and stationary.
        """
        doubled = np.where((self.ky == 0) | (self.ky == 0.5), 1.0, 2.0)
        power = sum(np.square(transfer, dtype=np.float64) for transfer in transfers) * self.inside
        weight = np.square(self.weight, dtype=np.float64).sum(axis=0)
        return float((doubled[:, None] * power * weight).sum() * self.width / self.height)
