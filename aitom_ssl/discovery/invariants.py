"""What a volume looks like whichever way it is turned: the power of its spherical harmonics, shell by shell.

    a_lm(r) = integral over directions w of f(c + r w) Y_lm(w),     feature(r, l) = sqrt(sum over m of a_lm(r)^2)

with r = 1, 2, ... voxels, c the centre voxel (n // 2) and Y_lm real and orthonormal. A turn about c mixes the a_lm of
one (r, l) among themselves by an orthogonal matrix, so the features stay. They have no sign: f and -f share them. They
change when the particle is shifted, and when it turns inside a missing wedge, which does not turn with it.

- Kazhdan, Funkhouser and Rusinkiewicz 2003 (Symposium on Geometry Processing): the idea.
- Xu et al. 2009 (BIBM) and 2011 (Bioinformatics 27, i69): for density maps and subtomograms; Xu 2017 with an SVM.

Differs from Xu 2009, of which the shells and degrees are not known here: shells one voxel apart up to the largest that
lies in the box; degrees up to `max_degree`, and on small shells up to pi r, what voxels one apart can tell apart.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre

MAX_DEGREE = 12
# Directions for twice the degree that is asked for: trilinear interpolation puts power above it, which must not alias.
_OVERSAMPLING = 2
_TOGETHER = 64


def rotation_invariant_features(volumes: np.ndarray, max_degree: int = MAX_DEGREE) -> np.ndarray:
    """(n, features) float32 of `volumes` (n, z, y, x), cubes of 3 voxels a side or more; columns as `feature_names`.

    Exactly the same for the 24 turns of a cube, and close for any other: volumes are interpolated (trilinear). Memory
    beyond the input and the answer does not grow with n. InputError for volumes that are not cubes or not finite.
    """
    volumes = np.asarray(volumes)
    if volumes.ndim != 4 or len(set(volumes.shape[1:])) != 1 or volumes.shape[1] < 3:
        raise InputError(
            f"Volumes are (n, z, y, x), cubes of 3 voxels a side or more. Received shape {volumes.shape}."
        )
    shells = shell_operators(volumes.shape[1], max_degree)
    features = np.empty((len(volumes), sum(shell.degree + 1 for shell in shells)), np.float32)
    # Products this small: on a busy machine two BLAS threads took 30 times as long as one.
    with threadpool_limits(1):
        for start in range(0, len(volumes), _TOGETHER):
            block = np.ascontiguousarray(volumes[start : start + _TOGETHER], np.float32)
            flat = block.reshape(len(block), -1)
            rows = [shell.power(flat) for shell in shells]
            np.sqrt(np.concatenate(rows, axis=1), out=features[start : start + len(block)])
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise InputError(f"Volume {wrong[0]} has voxels that are NaN or infinite: mend or leave out that volume.")
    return features


def feature_names(size: int, max_degree: int = MAX_DEGREE) -> list[tuple[int, int]]:
    """(radius in voxels, degree) of each column of `rotation_invariant_features` for boxes of `size` voxels a side."""
    return [(radius, degree) for radius in _radii(size) for degree in range(_degree(radius, max_degree) + 1)]


@dataclasses.dataclass(frozen=True)
class ShellOperator:
    """Interpolation, quadrature and harmonics on one sphere, as one matrix on the voxels about it.

    radius: voxels. degree: the largest. voxels: (k,) positions in the flattened volume. matrix: (k, (degree + 1)^2)
    float32, columns in the order of `real_harmonics`.
    """

    radius: int
    degree: int
    voxels: np.ndarray
    matrix: np.ndarray

    def coefficients(self, flat: np.ndarray) -> np.ndarray:
        """a_lm of flattened volumes: (n, size^3) float32 to (n, (degree + 1)^2)."""
        return flat[:, self.voxels] @ self.matrix

    def power(self, flat: np.ndarray) -> np.ndarray:
        """Sum over m of a_lm^2: (n, size^3) float32 to (n, degree + 1)."""
        first = np.arange(self.degree + 1) ** 2
        return np.add.reduceat(np.square(self.coefficients(flat)), first, axis=1)


@functools.lru_cache(maxsize=4)
def shell_operators(size: int, max_degree: int = MAX_DEGREE) -> tuple[ShellOperator, ...]:
    """The spheres of radius 1, 2, ... in boxes of `size` voxels a side; 53 MB and 0.7 s for 40 voxels, then kept."""
    if max_degree < 0:
        raise InputError(f"max_degree is {max_degree}, expected 0 or more.")
    return tuple(_operator(size, radius, _degree(radius, max_degree)) for radius in _radii(size))


def _radii(size: int) -> range:
    return range(1, size - 1 - centre(size) + 1)


def _degree(radius: int, max_degree: int) -> int:
    return min(max_degree, math.floor(math.pi * radius))


def _operator(size: int, radius: int, degree: int) -> ShellOperator:
    directions, weights = sphere_quadrature(_OVERSAMPLING * max(degree, radius))
    harmonics = real_harmonics(degree, directions) * weights[:, None]
    sampling = _trilinear(size, centre(size) + radius * directions[:, ::-1])
    voxels = np.unique(sampling.indices)
    matrix = sampling[:, voxels].T @ harmonics
    return ShellOperator(radius, degree, voxels, np.ascontiguousarray(matrix, np.float32))


def _trilinear(size: int, points: np.ndarray) -> csr_matrix:
    """(points, size^3) sparse: flattened volume to its values at `points` (k, 3), (z, y, x) indices inside the box."""
    low = np.minimum(np.floor(points).astype(np.int64), size - 2)
    beyond = points - low
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
    voxels = np.ravel_multi_index(np.moveaxis(low[:, None] + corners, -1, 0), (size,) * 3)
    weights = np.where(corners, beyond[:, None], 1 - beyond[:, None]).prod(axis=-1)
    rows = np.repeat(np.arange(len(points)), 8)
    matrix = csr_matrix((weights.ravel(), (rows, voxels.ravel())), shape=(len(points), size**3))
    matrix.eliminate_zeros()
    return matrix


# === The sphere ===


def sphere_quadrature(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit (x, y, z) directions (k, 3) and weights (k,) of sum 4 pi: exact for products of two harmonics of `degree`.

    Gauss-Legendre in cos(theta) by equal steps in phi, three times with the pole along z, x and y in turn: a set that
    the turns of the cube map onto itself, which one grid is not.
    """
    cosine, weight = np.polynomial.legendre.leggauss(degree + 1)
    steps = 4 * math.ceil((2 * degree + 1) / 4)  # a multiple of 4: quarter turns about the pole
    phi = 2 * np.pi * np.arange(steps) / steps
    sine = np.sqrt(1 - cosine**2)
    grid = (sine[:, None] * np.cos(phi), sine[:, None] * np.sin(phi), np.repeat(cosine[:, None], steps, axis=1))
    one = np.stack(grid, axis=-1).reshape(-1, 3)
    directions = np.concatenate([np.roll(one, turn, axis=1) for turn in range(3)])
    return directions, np.tile(np.repeat(weight * 2 * np.pi / steps, steps) / 3, 3)


def real_harmonics(degree: int, directions: np.ndarray) -> np.ndarray:
    """Real orthonormal spherical harmonics up to `degree` at unit (x, y, z) `directions` (k, 3): (k, (degree + 1)^2).

    Column l^2 + l + m: sqrt(2) |Y_l^|m|| times cos(m phi) for m > 0 and sin(|m| phi) for m < 0, without the
    Condon-Shortley sign. By the recurrence of the normalised Legendre functions over sin(theta)^m, which has no
    trouble at the poles, and (x + i y)^m.
    """
    x, y, z = np.asarray(directions, np.float64).T
    out = np.empty((len(z), (degree + 1) ** 2))
    turning = np.ones(len(z), np.complex128)
    sectoral = math.sqrt(1 / (4 * math.pi))
    for m in range(degree + 1):
        if m:
            turning = turning * (x + 1j * y)
            sectoral *= math.sqrt((2 * m + 1) / (2 * m))
        before, legendre = np.zeros_like(z), np.full_like(z, sectoral)
        for l in range(m, degree + 1):  # noqa: E741
            if l > m:
                scale = math.sqrt((4 * l * l - 1) / (l * l - m * m))
                back = math.sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1))
                before, legendre = legendre, scale * (z * legendre - back * before)
            if m == 0:
                out[:, l * l + l] = legendre
            else:
                out[:, l * l + l + m] = math.sqrt(2) * legendre * turning.real
                out[:, l * l + l - m] = math.sqrt(2) * legendre * turning.imag
    return out
