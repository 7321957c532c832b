"""Axis order, centre, rotations, affine matrices and frequency grids: the only place that fixes a convention.

- Volumes are arrays indexed (z, y, x). z is the beam, y the tilt axis.
- The centre of a side of n voxels is voxel n // 2, for even and odd n, in real space and (shifted) Fourier space.
- Rotations are right-handed and act on column vectors (x, y, z).
- A quaternion is (w, x, y, z), unit norm; q and -q are the same rotation.
- ZYZ angles (phi, theta, psi) are intrinsic, in degrees: R = Rz(phi) Ry(theta) Rz(psi).
- RELION's (rot, tilt, psi) turn the coordinate system, so the pose they mean is the inverse of those ZYZ angles.
- A pose (quaternion, shift) places a template: volume(r) = template(R^T (r - c - shift)), shift in voxels (x, y, z).
- An affine matrix is (3, 4), acts on (z, y, x) offsets from the centre and maps an OUTPUT voxel to the INPUT position
  that it shows, in voxels.
- Frequencies are in 1/A (cycles per angstrom) and grids are unshifted, as numpy.fft lays them out.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def centre(n: int) -> int:
    """Index of the centre voxel of a side of `n` voxels."""
    return n // 2


# === Rotations ===


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4) unit quaternions (w, x, y, z) to (..., 3, 3) matrices on (x, y, z) columns."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    matrix = np.empty(quaternion.shape[:-1] + (3, 3))
    matrix[..., 0, 0] = 1 - 2 * (y * y + z * z)
    matrix[..., 0, 1] = 2 * (x * y - w * z)
    matrix[..., 0, 2] = 2 * (x * z + w * y)
    matrix[..., 1, 0] = 2 * (x * y + w * z)
    matrix[..., 1, 1] = 1 - 2 * (x * x + z * z)
    matrix[..., 1, 2] = 2 * (y * z - w * x)
    matrix[..., 2, 0] = 2 * (x * z - w * y)
    matrix[..., 2, 1] = 2 * (y * z + w * x)
    matrix[..., 2, 2] = 1 - 2 * (x * x + y * y)
    return matrix


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices to (..., 4) quaternions with w >= 0."""
    matrix = np.asarray(matrix, dtype=np.float64)
    flat = Rotation.from_matrix(matrix.reshape(-1, 3, 3))
    return flat.as_quat(canonical=True, scalar_first=True).reshape(matrix.shape[:-2] + (4,))


def euler_zyz_to_quaternion(degrees: np.ndarray) -> np.ndarray:
    """(..., 3) intrinsic ZYZ angles (phi, theta, psi) in degrees to (..., 4) quaternions."""
    degrees = np.asarray(degrees, dtype=np.float64)
    flat = Rotation.from_euler("ZYZ", degrees.reshape(-1, 3), degrees=True)
    return flat.as_quat(canonical=True, scalar_first=True).reshape(degrees.shape[:-1] + (4,))


def quaternion_to_euler_zyz(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4) quaternions to (..., 3) intrinsic ZYZ degrees; theta in [0, 180]."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    away, near = np.hypot(x, y), np.hypot(w, z)  # sin and cos of theta / 2
    half_sum, half_difference = np.arctan2(z, w), np.arctan2(-x, y)  # of phi and psi
    phi, psi = half_sum + half_difference, half_sum - half_difference
    # At the poles only phi + psi or phi - psi is defined; psi is then 0.
    pole = np.minimum(away, near) < 1e-9
    phi = np.where(pole, 2 * np.where(away < near, half_sum, half_difference), phi)
    psi = np.where(pole, 0.0, psi)
    angles = np.degrees(np.stack([phi, 2 * np.arctan2(away, near), psi], axis=-1))
    return angles - 360.0 * (angles > 180.0) + 360.0 * (angles <= -180.0)


def relion_angles_to_quaternion(degrees: np.ndarray) -> np.ndarray:
    """(..., 3) rlnAngleRot, rlnAngleTilt, rlnAnglePsi to the pose that turns the reference into the particle."""
    return euler_zyz_to_quaternion(degrees) * np.array([1.0, -1.0, -1.0, -1.0])


def quaternion_to_relion_angles(quaternion: np.ndarray) -> np.ndarray:
    """Inverse of `relion_angles_to_quaternion`: (..., 4) to (..., 3) degrees."""
    return quaternion_to_euler_zyz(np.asarray(quaternion) * np.array([1.0, -1.0, -1.0, -1.0]))


def random_quaternions(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) rotations uniform on SO(3): normalised four-dimensional Gaussians."""
    q = rng.standard_normal((count, 4))
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def cube_rotations() -> np.ndarray:
    """(24, 3, 3) the rotations of the cube: signed permutation matrices of determinant +1."""
    return np.round(Rotation.create_group("O").as_matrix()).astype(np.float64)


def reverse_axes(matrix: np.ndarray) -> np.ndarray:
    """A (..., 3, 3) matrix on (x, y, z) columns as one on (z, y, x) columns, and back."""
    return np.asarray(matrix)[..., ::-1, ::-1]


# === Affine matrices: output offset -> input offset, (z, y, x) ===


def affine(linear: np.ndarray, translation: np.ndarray = (0.0, 0.0, 0.0)) -> np.ndarray:
    """(..., 3, 3) linear part and (..., 3) translation in voxels, both (z, y, x), to (..., 3, 4)."""
    linear = np.asarray(linear, dtype=np.float64)
    translation = np.broadcast_to(np.asarray(translation, dtype=np.float64), linear.shape[:-1])
    return np.concatenate([linear, translation[..., None]], axis=-1)


def compose_affine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The one matrix that equals resampling with `first`, then resampling the result with `second`."""
    first, second = np.asarray(first), np.asarray(second)
    linear = first[..., :3] @ second[..., :3]
    translation = (first[..., :3] @ second[..., 3:])[..., 0] + first[..., 3]
    return affine(linear, translation)


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    """The matrix that undoes `matrix`."""
    linear = np.linalg.inv(np.asarray(matrix)[..., :3])
    return affine(linear, -(linear @ np.asarray(matrix)[..., 3:])[..., 0])


def pose_to_affine(quaternion: np.ndarray, shift: np.ndarray = (0.0, 0.0, 0.0)) -> np.ndarray:
    """(..., 4) quaternion and (..., 3) shift in voxels (x, y, z) to the matrix that puts a template in its pose."""
    inverse = np.swapaxes(quaternion_to_matrix(quaternion), -1, -2)
    shift = np.broadcast_to(np.asarray(shift, dtype=np.float64), inverse.shape[:-1])
    translation = -(inverse @ shift[..., None])[..., 0]
    return affine(reverse_axes(inverse), translation[..., ::-1])


# === Frequency grids ===


def frequencies(
    shape: tuple[int, int, int], voxel_size: float = 1.0, half_axis: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unshifted frequencies (kz, ky, kx) in 1/A, each shaped to broadcast over a (z, y, x) volume.

    `voxel_size` in A (1.0 gives cycles per voxel); `half_axis` is the axis that an rfftn halved, if any.
    """
    grids = []
    for axis, n in enumerate(shape):
        k = np.fft.rfftfreq(n, voxel_size) if axis == half_axis else np.fft.fftfreq(n, voxel_size)
        grids.append(k.reshape([-1 if a == axis else 1 for a in range(3)]))
    return tuple(grids)
