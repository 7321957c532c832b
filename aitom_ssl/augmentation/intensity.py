"""Changes of voxel values of (batch, z, y, x, channel): standardisation, noise, gain and offset, a missing wedge."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from aitom_ssl import geometry
from aitom_ssl.augmentation.affine import spatial_shape
from aitom_ssl.augmentation.seeding import normal
from aitom_ssl.simulation.optics import wedge

Tensor = Any

# Below this standard deviation a volume counts as constant and standardises to zeros.
_SMALLEST_STD = 1e-6
# Voxels over which one volume passes into another.
_EDGE = 2.0


def _per_sample(values: Tensor) -> Tensor:
    return ops.reshape(values, (-1, 1, 1, 1, 1))


def _mean(volumes: Tensor) -> Tensor:
    """Mean of each volume and channel, (batch, 1, 1, 1, channel)."""
    nz, ny, nx = spatial_shape(volumes)
    # Over z first: that adds rows to rows, which XLA vectorises on the CPU; one sum over all axes it does not.
    rows = ops.reshape(volumes, (-1, nz, ny * nx, volumes.shape[4]))
    return ops.mean(ops.mean(rows, axis=1), axis=1)[:, None, None, None]


def standard_deviation(volumes: Tensor) -> Tensor:
    """Standard deviation of each volume and channel, (batch, 1, 1, 1, channel)."""
    return ops.sqrt(_mean(ops.square(volumes - _mean(volumes))))


def standardize(volumes: Tensor) -> Tensor:
    """Each volume and channel to mean 0 and standard deviation 1; a constant one to zeros."""
    return (volumes - _mean(volumes)) / ops.maximum(standard_deviation(volumes), _SMALLEST_STD)


def add_noise(volumes: Tensor, deviation: Tensor, key: Tensor) -> Tensor:
    """Add white Gaussian noise drawn from the (2,) `key`; `deviation` broadcasts over the volumes."""
    return volumes + deviation * normal(key, "noise", ops.shape(volumes))


def partners(number: Tensor, batch_size: int | Tensor) -> Tensor:
    """(batch,) int32: for each of a batch another one, all the same number of places on, by a `number` in [0, 1)."""
    others = ops.cast(batch_size, "float32") - 1
    places = 1 + ops.cast(ops.floor(number * others), "int32")
    return (ops.arange(batch_size, dtype="int32") + places) % ops.cast(batch_size, "int32")


def exchange_surroundings(volumes: Tensor, radii: Tensor, partner: Tensor) -> Tensor:
    """Each volume inside a sphere of its radius about the centre, its partner outside; a linear edge of two voxels.

    radii (batch,) in voxels; partner (batch,) indices into the batch, each once.
    """
    axes = np.ogrid[tuple(slice(-geometry.centre(n), n - geometry.centre(n)) for n in spatial_shape(volumes))]
    distance = np.sqrt(sum(axis**2 for axis in axes)).astype(np.float32)[None, ..., None]
    inside = ops.clip((_per_sample(radii) - distance) / _EDGE + 0.5, 0.0, 1.0)
    # Not ops.take: XLA would compute the volumes anew, resampling and all, for every voxel taken. 5 times the time.
    others = ops.scatter(ops.argsort(partner)[:, None], volumes, ops.shape(volumes))
    return others + inside * (volumes - others)


def change_intensity(volumes: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """gain * volume + offset, with a gain and an offset (batch,) for each volume."""
    return _per_sample(gain) * volumes + _per_sample(offset)


def wedge_mask(n_z: int, n_x: int, tilt_max: float) -> np.ndarray:
    """(n_z, n_x) float32 mask, 1 where a tilt series of +-`tilt_max` degrees about y measures; unshifted frequencies.

    A frequency is measured where |kz| cos(tilt_max) <= |kx| sin(tilt_max); ky does not matter.
    """
    kz, _, kx = geometry.frequencies((n_z, 1, n_x))
    return wedge(kz, kx, tilt_max)[:, 0].astype(np.float32)


def _hartley(n: int) -> np.ndarray:
    """(n, n) matrix of the discrete Hartley transform: real, symmetric, its own inverse."""
    angle = 2 * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n
    return ((np.cos(angle) + np.sin(angle)) / np.sqrt(n)).astype(np.float32)


def apply_missing_wedge(volumes: Tensor, tilt_max: float) -> Tensor:
    """Remove what a tilt series of +-`tilt_max` degrees (tilt axis y, beam z) does not measure.

    The same as multiplying the 3-D FFT with `wedge_mask`, by real matrix products that every backend compiles: a mask
    that is even in kz and in kx is a scalar on the span of cosine and sine of each axis, hence diagonal between
    Hartley transforms of z and of x, and y needs none.
    """
    nz, ny, nx = spatial_shape(volumes)
    channels = volumes.shape[4]
    mask = wedge_mask(nz, nx, tilt_max)[:, None, :]
    hartley_z, hartley_x = _hartley(nz), _hartley(nx)
    stack = ops.reshape(ops.transpose(volumes, (0, 4, 1, 2, 3)), (-1, nz, ny, nx))

    def transform(values: Tensor) -> Tensor:
        along_x = ops.reshape(ops.matmul(ops.reshape(values, (-1, nx)), hartley_x), (-1, nz, ny * nx))
        # One matrix a volume: with a single shared one, XLA rearranges the volumes around the product, twice the time.
        every = ops.broadcast_to(hartley_z, (ops.shape(along_x)[0], nz, nz))
        return ops.reshape(ops.matmul(every, along_x), (-1, nz, ny, nx))

    stack = transform(transform(stack) * mask)
    return ops.transpose(ops.reshape(stack, (-1, channels, nz, ny, nx)), (0, 2, 3, 4, 1))
