"""Affine resampling of batches of volumes, and its matrices, on tensors.

Conventions are those of `aitom_ssl.geometry`: a matrix (3, 4) acts on (z, y, x) offsets from the centre voxel n // 2
and maps an OUTPUT voxel to the INPUT position that it shows, in voxels. Interpolation is trilinear; voxels outside the
volume are 0, the mean of a standardised volume, and are interpolated with (scipy's mode "grid-constant"; its "constant"
drops to 0 at once beyond the outermost centres). Products of matrices are sums, not matmul, because TensorFloat-32
would shift voxels on a GPU.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from aitom_ssl.errors import InputError

Tensor = Any


# === Matrices, (batch, 3, 4) ===


def identity(batch_size: int | Tensor) -> Tensor:
    """(batch, 3, 4) matrices that change nothing."""
    return ops.broadcast_to(ops.eye(3, 4, dtype="float32"), (batch_size, 3, 4))


def from_parts(linear: Tensor, translation: Tensor) -> Tensor:
    """(batch, 3, 3) and (batch, 3), both (z, y, x), to (batch, 3, 4)."""
    return ops.concatenate([linear, translation[..., None]], axis=-1)


def multiply(first: Tensor, second: Tensor) -> Tensor:
    """Matrix product over the last two axes, exact to float32 on every device."""
    return ops.sum(first[..., :, :, None] * second[..., None, :, :], axis=-2)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The one matrix that equals resampling with `first`, then resampling the result with `second`."""
    linear, translation = first[..., :3], first[..., 3:]
    moved = multiply(linear, second)
    return ops.concatenate([moved[..., :3], moved[..., 3:] + translation], axis=-1)


def turn_about_z(radians: Tensor) -> Tensor:
    """(batch,) angles to the (batch, 3, 3) linear parts that turn the content right-handed about z (x towards y)."""
    c, s, zero, one = ops.cos(radians), ops.sin(radians), ops.zeros_like(radians), ops.ones_like(radians)
    rows = [[one, zero, zero], [zero, c, -s], [zero, s, c]]
    return ops.stack([ops.stack(row, axis=-1) for row in rows], axis=-2)


def turn_by_quaternion(quaternion: Tensor) -> Tensor:
    """(batch, 4) unit quaternions (w, x, y, z) to the (batch, 3, 3) linear parts that turn the content by them."""
    w, x, y, z = (quaternion[..., i] for i in range(4))
    # The transpose (inverse) of the rotation matrix on (x, y, z), rows and columns reversed to act on (z, y, x).
    rows = [
        [1 - 2 * (x * x + y * y), 2 * (y * z - w * x), 2 * (x * z + w * y)],
        [2 * (y * z + w * x), 1 - 2 * (x * x + z * z), 2 * (x * y - w * z)],
        [2 * (x * z - w * y), 2 * (x * y + w * z), 1 - 2 * (y * y + z * z)],
    ]
    return ops.stack([ops.stack(row, axis=-1) for row in rows], axis=-2)


# === Resampling ===


def spatial_shape(volumes: Tensor) -> tuple[int, int, int]:
    """Static (z, y, x) of a (batch, z, y, x, channel) tensor; InputError where there is none."""
    shape = tuple(volumes.shape)
    if len(shape) != 5 or any(n is None for n in shape[1:]):
        raise InputError(f"Volumes are (batch, z, y, x, channel) with a known box size. Received: shape {shape}.")
    return shape[1:4]


def _taps(position: Tensor, n: int, stride: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two neighbours of `position` on an axis of n voxels: (flat index, weight), weight 0 for those outside."""
    position = ops.clip(position, -1.0, float(n))
    below = ops.floor(position)
    fraction = position - below
    index = ops.cast(below, "int32")

    def tap(i: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        inside = ops.logical_and(i >= 0, i < n)
        return ops.clip(i, 0, n - 1) * stride, ops.where(inside, weight, 0.0)

    return tap(index, 1.0 - fraction), tap(index + 1, fraction)


def _offsets(n: int) -> Tensor:
    return ops.arange(n, dtype="float32") - float(n // 2)


def affine_transform_3d(volumes: Tensor, matrices: Tensor) -> Tensor:
    """Resample each volume with its matrix.

    `volumes` (batch, z, y, x, channel), any box; `matrices` (batch, 3, 4), output to input. Returns float32 of the
    shape of `volumes`. Raises InputError unless `volumes` has five axes, all but the first known.
    """
    nz, ny, nx = spatial_shape(volumes)
    volumes, matrices = ops.cast(volumes, "float32"), ops.cast(matrices, "float32")
    entry = matrices[:, :, :, None, None, None]
    z, y, x = _offsets(nz)[:, None, None], _offsets(ny)[:, None], _offsets(nx)

    def position(axis: int, n: int) -> Tensor:
        constant = entry[:, axis, 3] + float(n // 2)
        return entry[:, axis, 0] * z + entry[:, axis, 1] * y + entry[:, axis, 2] * x + constant

    flat, start = _flatten(volumes, per_sample=nz * ny * nx)
    start = ops.reshape(start, (-1, 1, 1, 1))
    result = 0.0
    for index_z, weight_z in _taps(position(0, nz), nz, ny * nx):
        for index_y, weight_y in _taps(position(1, ny), ny, nx):
            row, weight = start + index_z + index_y, weight_z * weight_y
            for index_x, weight_x in _taps(position(2, nx), nx, 1):
                result = result + ops.take(flat, row + index_x, axis=0) * (weight * weight_x)[..., None]
    return result


def affine_transform_in_plane(volumes: Tensor, matrices: Tensor, along_z: bool = False) -> Tensor:
    """`affine_transform_3d` for matrices that do not mix z with y and x: the same numbers for less than half the work.

    Every z slice moves alike, so four taps and their weights are found once a (y, x) and serve all slices.
    `along_z`: whether the matrices also scale or shift z (one small matrix product); where False their z row must be
    that of the identity. Entries that mix z with y or x are not read.
    """
    nz, ny, nx = spatial_shape(volumes)
    volumes, matrices = ops.cast(volumes, "float32"), ops.cast(matrices, "float32")
    channels = volumes.shape[4]
    if along_z:
        position = matrices[:, 0, 0, None] * _offsets(nz) + (matrices[:, 0, 3, None] + float(nz // 2))
        weights = ops.maximum(1.0 - ops.abs(position[:, :, None] - ops.arange(nz, dtype="float32")), 0.0)
        volumes = ops.reshape(
            ops.matmul(weights, ops.reshape(volumes, (-1, nz, ny * nx * channels))), (-1, nz, ny, nx, channels)
        )
    entry = matrices[:, :, :, None, None]
    y, x = _offsets(ny)[:, None], _offsets(nx)
    position_y = entry[:, 1, 1] * y + entry[:, 1, 2] * x + (entry[:, 1, 3] + float(ny // 2))
    position_x = entry[:, 2, 1] * y + entry[:, 2, 2] * x + (entry[:, 2, 3] + float(nx // 2))

    flat, start = _flatten(volumes, per_sample=nz * ny * nx)
    start = ops.reshape(start, (-1, 1, 1, 1)) + ops.arange(nz, dtype="int32")[:, None, None] * (ny * nx)
    result = 0.0
    for index_y, weight_y in _taps(position_y, ny, nx):
        for index_x, weight_x in _taps(position_x, nx, 1):
            index, weight = (index_y + index_x)[:, None], (weight_y * weight_x)[:, None, ..., None]
            result = result + ops.take(flat, start + index, axis=0) * weight
    return result


def _flatten(volumes: Tensor, per_sample: int) -> tuple[Tensor, Tensor]:
    """(batch * voxels, channel) rows, and the (batch,) row at which each sample starts."""
    rows = ops.reshape(volumes, (-1, volumes.shape[4]))
    return rows, ops.arange(ops.shape(volumes)[0], dtype="int32") * per_sample
