"""Where and how a reference lies in a subtomogram: the pose of the greatest constrained cross-correlation.

A pose (quaternion, shift) is the simulator's: volume(r) = reference(R^T (r - c - shift)), and files' poses mean the
same (`aitom_ssl.geometry`). The score of a pose (Foerster 2008, PNAS 105, 17480) counts only the frequencies k that
both sides measured, those with wedge(k) and reference_wedge(R^T k), without the mean (k = 0):

    sum Re[V(k) conj(P(k))] / sqrt(sum |V(k)|^2 sum |P(k)|^2),     P(k) = F(R^T k) exp(-2 pi i k.shift)

with F the reference's transform. It is 1 for a copy, whatever its grey scale, and does not reward a particle for lying
along its own wedge.

The search over all rotations and shifts goes from coarse to fine:

1. Rotations `angular_step` apart by shifts in a ball, at frequencies up to COARSE: one matrix product a volume, with
   the rotated samples of the reference, made once, on one side and the shifted spectrum on the other. For 32^3 voxels
   1,400 x 524 by 524 x 123 numbers, 0.2 GFlop: less than fast rotational matching by spherical harmonics needs for
   one inverse transform over SO(3), and it finds the shifts too.
2. The best distinct candidates climb by Levenberg-Marquardt, rotation and sub-voxel shift together, at more and more
   frequencies, fewer candidates at a time.

Differs from Xu 2012 (fast rotational matching of magnitudes, then translation): phases count from the start.
"""

from __future__ import annotations

import functools
import itertools
import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import joblib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from aitom_ssl import geometry
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import optics
from aitom_ssl.simulation import volume as fourier
from aitom_ssl.simulation.simulator import spread_rotations

Wedge = float | np.ndarray | None
"""What was measured: None everything; a number, tilts about y up to so many degrees either way; or an (n, n, n) array,
true where measured, laid out as numpy.fft's."""

ANGULAR_STEP = 22.0
COARSE = 5.0
"""Radius in Fourier pixels (1/n cycles/voxel) of the frequencies that the search over all rotations looks at."""


class _Stage(NamedTuple):
    """One stage of refinement: radius in units of COARSE, candidates, Levenberg-Marquardt steps."""

    radius: float
    candidates: int
    steps: int


_STAGES = (_Stage(1, 32, 2), _Stage(1.5, 16, 2), _Stage(2.25, 6, 2), _Stage(math.inf, 2, 1), _Stage(math.inf, 1, 3))
_APART, _SAME = 24.0, 4.0  # degrees between candidates of the coarse search, and between those that have climbed
_TURN = 0.004  # radians: finite differences
_POINTS = 1 << 15  # frequencies sampled at a time: their temporary arrays stay in the processor's cache
_BLOCK = 64  # volumes of one task


class Alignment(NamedTuple):
    """The pose of the reference in the volume, and how alike they are there; of one pair, or arrays of many.

    quaternion: (..., 4) w, x, y, z with w >= 0. shift: (..., 3) voxels x, y, z. score: (...) at most 1.
    """

    quaternion: np.ndarray
    shift: np.ndarray
    score: np.ndarray | float


def align(
    volume: np.ndarray,
    reference: np.ndarray,
    wedge: Wedge = None,
    *,
    reference_wedge: Wedge = None,
    max_shift: float | None = None,
    angular_step: float = ANGULAR_STEP,
    cutoff: float = 0.5,
    weights: np.ndarray | None = None,
) -> Alignment:
    """Pose of `reference` in `volume`: as `align_many` of the one with the other."""
    found = align_many(
        [volume],
        [reference],
        [wedge],
        reference_wedges=[reference_wedge],
        max_shift=max_shift,
        angular_step=angular_step,
        cutoff=cutoff,
        weights=weights,
    )
    return Alignment(found.quaternion[0, 0], found.shift[0, 0], float(found.score[0, 0]))


def align_many(
    volumes: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    wedges: Wedge | Sequence[Wedge] = None,
    *,
    reference_wedges: Wedge | Sequence[Wedge] = None,
    max_shift: float | None = None,
    angular_step: float = ANGULAR_STEP,
    cutoff: float = 0.5,
    weights: np.ndarray | None = None,
    workers: int = 1,
) -> Alignment:
    """Poses of every one of `references` in every one of `volumes`: arrays (volumes, references, ...).

    volumes: (n, n, n) each, (z, y, x), of one side n >= 8. references: cubes of any side, centre voxel side // 2,
    of the volumes' voxel size, contrast and transfer function. wedges: one `Wedge` for all volumes or a list of one
    each; reference_wedges likewise, in the reference's own frame. max_shift: voxels, n / 4 by default; longer shifts
    are not looked for. angular_step: degrees between the rotations tried first, 5 to 60. cutoff: cycles/voxel, what
    lies beyond is not looked at. weights: (w,) of the frequencies 0, 1, 2, ... Fourier pixels from 0, as estimated by
    an FSC, with straight lines between; all 1 by default. workers: processes.
    A pair's answer does not depend on what else is in the batch, nor on `workers`.
    Raises InputError for volumes that are not such cubes, not finite or constant, and for wedges that measure nothing.
    """
    volumes, references = cubes(volumes, "Volume"), cubes(references, "Reference", alike=False)
    n = volumes[0].shape[0]
    if n < 8:
        raise InputError(f"Volumes of {n} voxels a side are too small to align: 8 or more are needed.")
    wedges = each(wedges, len(volumes), "volume")
    reference_wedges = each(reference_wedges, len(references), "reference")
    search = _Search(
        n,
        _in_range("max_shift", n / 4 if max_shift is None else max_shift, 0, n / 2),
        _in_range("angular_step", angular_step, 5, 60),
        _in_range("cutoff", cutoff, 2 / n, 0.5),
        None if weights is None else tuple(_checked_weights(weights)),
    )
    for i, (wedge, reference) in enumerate(zip(reference_wedges, references, strict=True)):
        if not measured(wedge, *geometry.frequencies(reference.shape), side=reference.shape[0]).any():
            raise InputError(f"The wedge of reference {i} measures no frequency: give the tilts that were taken.")
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(volumes), _BLOCK)]
    if workers > 1 and len(blocks) < 2 * workers:
        edges = np.linspace(0, len(volumes), min(workers, len(volumes)) + 1).astype(int)
        blocks = [slice(*pair) for pair in itertools.pairwise(edges.tolist())]
    tasks = [(search, volumes[block], wedges[block], block.start, references, reference_wedges) for block in blocks]
    if workers > 1 and len(tasks) > 1:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            parts = joblib.Parallel(n_jobs=workers, batch_size=1)(joblib.delayed(_align_block)(*t) for t in tasks)
    else:
        parts = [_align_block(*task) for task in tasks]
    return Alignment(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def best_reference(alignments: Alignment) -> tuple[np.ndarray, Alignment]:
    """(volumes,) index of the reference that scores best with each volume, and the poses to it: (volumes, ...)."""
    best = np.asarray(alignments.score).argmax(axis=1)
    rows = np.arange(len(best))
    return best, Alignment(*(field[rows, best] for field in alignments))


def compose(pose: Alignment, frame: Alignment) -> Alignment:
    """Poses with respect to A of what has `pose` with respect to B, where B lies in A's frame as `frame`; score kept.

    x - t - R s = R Q y for offsets x in the volume and y in A, poses (R, t) and (Q, s).
    """
    turn = geometry.quaternion_to_matrix(pose.quaternion)
    quaternion = geometry.matrix_to_quaternion(turn @ geometry.quaternion_to_matrix(frame.quaternion))
    return Alignment(quaternion, pose.shift + (turn @ np.asarray(frame.shift)[..., None])[..., 0], pose.score)


def turned_back(volume: np.ndarray, quaternion: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(n, n, n) float32: `volume` without its mean, turned and shifted back from that pose (trilinear, 0 beyond it)."""
    volume = np.asarray(volume, np.float32)
    matrix = geometry.invert_affine(geometry.pose_to_affine(quaternion, shift))
    middle = np.array([geometry.centre(side) for side in volume.shape])
    offset = middle + matrix[:, 3] - matrix[:, :3] @ middle
    return ndimage.affine_transform(volume - volume.mean(), matrix[:, :3], offset, order=1, mode="constant")


def brought_to(volume: np.ndarray, reference: np.ndarray, mask: np.ndarray | None, wedge: Wedge) -> np.ndarray:
    """(n, n, n) float32: `volume` turned and shifted to lie as `reference` does, as far as they can be aligned.

    mask: (n, n, n), 1 on the particle of the reference and 0 on what else is in its box, soft or not; None: everything
    counts. wedge: of both.
    """
    if mask is not None:
        # The median: neighbours fill less than half of what is around.
        around = reference[mask < 0.5]
        reference = (reference - np.median(around if around.size else reference)) * mask
    pose = align(volume, reference, wedge, reference_wedge=wedge)
    return turned_back(volume, pose.quaternion, pose.shift)


def angle_between(first: np.ndarray, second: np.ndarray, symmetry: np.ndarray | None = None) -> np.ndarray:
    """(...) degrees of the turn between rotations (..., 4); the least over first S, S in `symmetry` (g, 3, 3)."""
    between = np.swapaxes(geometry.quaternion_to_matrix(first), -1, -2) @ geometry.quaternion_to_matrix(second)
    group = np.eye(3)[None] if symmetry is None else symmetry
    # Trace of S^T (first^T second); the sine keeps small angles exact.
    turned = np.swapaxes(group, -1, -2) @ between[..., None, :, :]
    axis = np.stack([turned[..., i, j] - turned[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], axis=-1)
    angle = np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(turned, axis1=-2, axis2=-1) - 1)
    return np.degrees(angle.min(axis=-1))


# === What was given ===


def cubes(volumes: Sequence[np.ndarray], what: str, alike: bool = True) -> list[np.ndarray]:
    """Finite cubes that are not constant as float32 arrays; `what` names them in messages. InputError otherwise."""
    if isinstance(volumes, np.ndarray) and volumes.ndim == 3:
        raise InputError(f"{what}s are a list or (count, n, n, n). Received one array of shape {volumes.shape}.")
    if not len(volumes):
        raise InputError(f"There is no {what.lower()}: give at least one.")
    out = []
    for i, one in enumerate(volumes):
        one = np.asarray(one)
        if one.ndim != 3 or len(set(one.shape)) != 1:
            raise InputError(f"{what} {i} has shape {one.shape}: expected a cube (n, n, n).")
        if alike and one.shape != out[0].shape if out else False:
            raise InputError(
                f"{what} {i} has shape {one.shape}, {what.lower()} 0 {out[0].shape}: crop or pad them alike."
            )
        one = np.ascontiguousarray(one, np.float32)
        if not np.isfinite(one).all():
            raise InputError(f"{what} {i} has voxels that are NaN or infinite: mend or leave it out.")
        if one.min() == one.max():
            raise InputError(f"{what} {i} is constant: there is nothing to align in it, leave it out.")
        out.append(one)
    return out


def border_mean(volume: np.ndarray) -> float:
    """Mean of the voxels on the faces of a cube: the level of the background."""
    inner = volume[1:-1, 1:-1, 1:-1]
    total = volume.sum(dtype=np.float64) - inner.sum(dtype=np.float64)
    return float(total / (volume.size - inner.size))


def each(wedges: Wedge | Sequence[Wedge], count: int, what: str) -> list[Wedge]:
    """One `Wedge` for each of `count` volumes, from a list of them or one for all."""
    single = wedges is None or isinstance(wedges, numbers.Real)
    if single or (isinstance(wedges, np.ndarray) and wedges.ndim == 3):
        wedges = [wedges] * count
    if len(wedges) != count:
        raise InputError(f"{len(wedges)} wedges for {count} {what}s: give one for all or one for each.")
    return list(wedges)


def measured(wedge: Wedge, kz: np.ndarray, ky: np.ndarray, kx: np.ndarray, side: int) -> np.ndarray:
    """Whether `wedge` measured frequencies in cycles/voxel (any shapes that broadcast); arrays are read at the nearest.

    side: of the volume in voxels, for arrays.
    """
    shape = np.broadcast_shapes(kz.shape, ky.shape, kx.shape)
    if wedge is None:
        return np.ones(shape, bool)
    if isinstance(wedge, numbers.Real):
        tilt = float(wedge)
        if not 0 < tilt <= 90:
            raise InputError(f"A wedge of {tilt:g} degrees: expected the largest tilt, above 0 and up to 90.")
        return np.broadcast_to(optics.wedge(kz, kx, tilt), shape)
    wedge = np.asarray(wedge)
    if wedge.shape != (side,) * 3:
        raise InputError(f"A wedge has shape {wedge.shape}: expected {(side,) * 3}, as its volume, or degrees.")
    if wedge.dtype != bool:
        if not np.isfinite(wedge).all():
            raise InputError("A wedge has values that are NaN or infinite: expected true where measured.")
        wedge = wedge > 0
    place = [np.rint(k * side).astype(np.intp) % side for k in (kz, ky, kx)]
    return np.broadcast_to(wedge[tuple(place)], shape)


def _in_range(name: str, value: float, low: float, high: float) -> float:
    if not (isinstance(value, numbers.Real) and low <= value <= high):
        raise InputError(f"{name} is {value!r}: expected {low:g} to {high:g}.")
    return float(value)


def _checked_weights(weights: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or not len(weights) or not np.isfinite(weights).all() or weights.min() < 0:
        raise InputError("weights are one number >= 0 for each Fourier pixel 0, 1, 2, ... from the origin.")
    if not np.interp(np.arange(1, COARSE + 1), np.arange(len(weights)), weights).any():
        raise InputError(f"weights are 0 up to {COARSE:g} Fourier pixels: the search needs low frequencies.")
    return weights


# === The search ===


class _Search(NamedTuple):
    """What is looked through; the key under which grids are kept."""

    n: int
    max_shift: float
    angular_step: float
    cutoff: float
    weights: tuple[float, ...] | None


class _Grid(NamedTuple):
    """Frequencies by length, rotations and shifts of a search.

    support: without k = 0, nearest first; s points. weight: (s,) of each in sums over the full spectrum.
    coarse: how many points the first stage looks at; stages: how many each refinement looks at.
    quaternions (r, 4), matrices (r, 3, 3); shifts (t, 3); phases (coarse, t) exp(+2 pi i k.t).
    """

    support: fourier.Support
    weight: np.ndarray
    coarse: int
    stages: tuple[int, ...]
    quaternions: np.ndarray
    matrices: np.ndarray
    shifts: np.ndarray
    phases: np.ndarray


@functools.lru_cache(maxsize=4)
def _grid(search: _Search) -> _Grid:
    n = search.n
    whole = fourier.support(n)
    length = whole.length
    order = np.argsort(length, kind="stable")
    order = order[(length[order] > 0) & (length[order] <= search.cutoff + 1e-6)]
    length = length[order]
    support = fourier.Support(n, whole.index[order], whole.k[:, order], whole.origin[order], whole.multiplicity[order])
    weight = support.multiplicity
    if search.weights is not None:
        weight = weight * np.interp(length * n, np.arange(len(search.weights)), search.weights).astype(np.float32)
    radii = [min(COARSE * stage.radius / n, search.cutoff) for stage in _STAGES]
    stages = tuple(int(np.searchsorted(length, radius + 1e-6, side="right")) for radius in radii)
    quaternions = spread_rotations(math.ceil(8 * np.pi**2 / np.radians(search.angular_step) ** 3))
    # A correlation of frequencies up to COARSE is a peak of about n / (2 COARSE) voxels.
    spacing = n / (2.5 * COARSE)
    reach = math.floor(search.max_shift / spacing)
    steps = spacing * np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    shifts = steps[np.linalg.norm(steps, axis=1) <= search.max_shift]
    coarse = stages[0]
    phases = np.exp(2j * np.pi * (support.k[:, :coarse].T.astype(np.float64) @ shifts.T)).astype(np.complex64)
    matrices = geometry.quaternion_to_matrix(quaternions)
    return _Grid(support, weight.astype(np.float32), coarse, stages, quaternions, matrices, shifts, phases)


class _Reference:
    """A reference ready for many volumes: its transform, and its samples at every rotation of the coarse search."""

    def __init__(self, reference: np.ndarray, wedge: Wedge, grid: _Grid):
        self._side = reference.shape[0]
        self._wedge = wedge
        # What it fades into; a constant other than 0 would show its box as edges, at frequencies off the box's own.
        self._transform = fourier.TemplateTransform(reference - border_mean(reference))
        k = grid.support.k[:, : grid.coarse]
        samples, common = self.sample(k, grid.matrices)
        if common is not None:
            samples *= common
        self.power = np.square(samples.real) + np.square(samples.imag)  # (r, coarse)
        self.common = None if common is None else common.astype(np.float32)
        self.samples = samples.view(np.float32)  # (r, 2 coarse)

    def sample(self, k: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(m, s) complex64 F(R^T k), and whether the reference's wedge measured it (None: all), for (m, 3, 3)."""
        values = np.empty((len(matrices), k.shape[1]), np.complex64)
        common = None if self._wedge is None else np.empty(values.shape, bool)
        together = max(1, _POINTS // k.shape[1])
        turned = np.swapaxes(matrices, -1, -2).astype(np.float32)
        for start in range(0, len(matrices), together):
            rows = slice(start, start + together)
            # (m, 3, s) written out: a matrix product may round differently with the number of rotations.
            there = sum(turned[rows, :, j, None] * k[j] for j in range(3)).transpose(1, 0, 2).reshape(3, -1)
            values[rows] = self._transform.sample(there, np.eye(3)).reshape(-1, k.shape[1])
            if common is not None:
                inside = measured(self._wedge, there[2], there[1], there[0], self._side)
                common[rows] = inside.reshape(-1, k.shape[1])
        return values, common


def _align_block(
    search: _Search,
    volumes: list[np.ndarray],
    wedges: list[Wedge],
    first: int,
    references: list[np.ndarray],
    reference_wedges: list[Wedge],
) -> Alignment:
    """Some volumes, of which the first is number `first`, against all references."""
    grid = _grid(search)
    shape = (len(volumes), len(references))
    found = Alignment(np.empty((*shape, 4)), np.empty((*shape, 3)), np.empty(shape))
    kx, ky, kz = grid.support.k
    seen = [measured(wedge, kz, ky, kx, search.n) for wedge in wedges]
    spectra = [fourier.from_volume(volume, grid.support) * inside for volume, inside in zip(volumes, seen, strict=True)]
    for i, (spectrum, inside) in enumerate(zip(spectra, seen, strict=True)):
        if not inside[: grid.coarse].any():
            raise InputError(f"The wedge of volume {first + i} measures no low frequency: give the tilts taken.")
        if not np.abs(spectrum[: grid.coarse]).any():
            raise InputError(
                f"Volume {first + i} has nothing in the frequencies that its wedge measured: leave it out."
            )
    with threadpool_limits(1, user_api="blas"):
        for j, (reference, wedge) in enumerate(zip(references, reference_wedges, strict=True)):
            prepared = _Reference(reference, wedge, grid)
            for i, (spectrum, inside) in enumerate(zip(spectra, seen, strict=True)):
                pose = _align_one(prepared, spectrum, inside, grid, search.max_shift)
                for field, value in zip(found, pose, strict=True):
                    field[i, j] = value
    return found


def _align_one(
    reference: _Reference, spectrum: np.ndarray, inside: np.ndarray, grid: _Grid, max_shift: float
) -> Alignment:
    """The pose of one reference in one volume, given by its spectrum and what its wedge measured on the support."""
    scores, places = _coarse_scores(reference, spectrum, inside, grid)
    # A broad peak covers many rotations of the grid; without a few far ones the true, narrow one may be missed.
    chosen = _distinct(scores, grid.quaternions, _STAGES[0].candidates, _APART)
    matrices, shifts = grid.matrices[chosen], grid.shifts[places[chosen]]
    for i, (stage, points) in enumerate(zip(_STAGES, grid.stages, strict=True)):
        rows = np.flatnonzero(inside[:points])
        problem = _Problem(reference, grid.support.k[:, rows], spectrum[rows], grid.weight[rows], max_shift)
        matrices, shifts, scores = problem.climb(matrices, shifts, stage.steps)
        left = _STAGES[i + 1].candidates if i + 1 < len(_STAGES) else 1
        best = _distinct(scores, geometry.matrix_to_quaternion(matrices), left, _SAME)
        matrices, shifts, scores = matrices[best], shifts[best], scores[best]
    return Alignment(geometry.matrix_to_quaternion(matrices[0]), shifts[0], scores[0])


def _coarse_scores(
    reference: _Reference, spectrum: np.ndarray, inside: np.ndarray, grid: _Grid
) -> tuple[np.ndarray, np.ndarray]:
    """(r,) greatest score over the shifts for each rotation, and (r,) which shift it was."""
    low = spectrum[: grid.coarse]
    weight = grid.weight[: grid.coarse] * inside[: grid.coarse]
    shifted = (low * weight)[:, None] * grid.phases
    # Rows (real, imaginary) in turn, as the samples have them: Re[V conj(F)] is their product.
    moved = np.stack([shifted.real, shifted.imag], axis=1).reshape(-1, len(grid.shifts))
    products = reference.samples @ moved
    places = products.argmax(axis=1)
    best = products[np.arange(len(places)), places]
    norm = reference.power @ weight
    own = weight * (np.square(low.real) + np.square(low.imag))
    norm = norm * (own.sum() if reference.common is None else reference.common @ own)
    return best / np.sqrt(np.maximum(norm, np.finfo(np.float32).tiny)), places


def _distinct(scores: np.ndarray, quaternions: np.ndarray, count: int, apart: float) -> np.ndarray:
    """Indices, best first, of up to `count` rotations of which none is within `apart` degrees of a better one."""
    order = np.argsort(-scores, kind="stable")
    closest = math.cos(math.radians(apart) / 2)
    free = np.ones(len(order), bool)
    kept: list[int] = []
    while len(kept) < count and free.any():
        kept.append(order[free.argmax()])
        free &= np.abs(quaternions[order] @ quaternions[kept[-1]]) < closest
    return np.array(kept)


class _Problem:
    """One volume's measured frequencies (3, s), spectrum and weights (s,) against a reference: score and its ascent."""

    def __init__(
        self, reference: _Reference, k: np.ndarray, spectrum: np.ndarray, weight: np.ndarray, max_shift: float
    ):
        self._reference, self._k, self._spectrum, self._weight = reference, k, spectrum, weight
        self._max_shift = max_shift
        self._power = weight * (np.square(spectrum.real) + np.square(spectrum.imag))

    def climb(self, matrices: np.ndarray, shifts: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Candidates (m, 3, 3) and (m, 3) after so many Levenberg-Marquardt steps, and their scores (m,)."""
        damping = np.full(len(matrices), 0.03)
        scores, hessian, gradient = self._linearised(matrices, shifts)
        for _ in range(steps):
            diagonal = np.einsum("mii->mi", hessian)
            damped = (
                hessian + np.eye(7) * (damping[:, None] * diagonal + 1e-12 * diagonal.max(1, keepdims=True))[:, None]
            )
            step = np.linalg.solve(damped, gradient[..., None])[..., 0]
            turn = Rotation.from_rotvec(_no_longer_than(step[:, :3], 0.5)).as_matrix()
            tried = turn @ matrices, _no_longer_than(shifts + step[:, 3:6], self._max_shift)
            new = self._linearised(*tried)
            better = new[0] > scores
            damping *= np.where(better, 0.2, 10.0)
            matrices = np.where(better[:, None, None], tried[0], matrices)
            shifts = np.where(better[:, None], tried[1], shifts)
            scores = np.where(better, new[0], scores)
            hessian = np.where(better[:, None, None], new[1], hessian)
            gradient = np.where(better[:, None], new[2], gradient)
        return matrices, shifts, scores

    def _linearised(self, matrices: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (m,), and of the least-squares fit of the reference: J^T J (m, 7, 7) and J^T residual (m, 7).

        Unknowns: turn about x, y, z of the volume (radians), shift x, y, z (voxels), amplitude over amplitude.
        """
        count, k = len(matrices), self._k
        turns = Rotation.from_rotvec(np.concatenate([np.zeros((1, 3)), _TURN * np.eye(3)])).as_matrix()
        values, common = self._reference.sample(k, (turns @ matrices[:, None]).reshape(-1, 3, 3))
        values = values.reshape(count, 4, -1)
        angle = (shifts.astype(np.float32) * np.float32(-2 * np.pi)) @ k
        phase = np.empty(angle.shape, np.complex64)
        np.cos(angle, out=phase.real)
        np.sin(angle, out=phase.imag)
        values *= phase[:, None]
        here = values[:, 0]
        weight, power = np.broadcast_to(self._weight, here.shape), self._power.sum()
        if common is not None:
            common = common.reshape(count, 4, -1)[:, 0]
            weight, power = weight * common, (common * self._power).sum(-1)
        slopes = np.empty((count, 7, k.shape[1]), np.complex64)
        slopes[:, :3] = (values[:, 1:] - here[:, None]) * np.float32(1 / _TURN)
        slopes[:, 3:6] = np.complex64(-2j * np.pi) * k * here[:, None]
        slopes[:, 6] = here
        weighted = slopes * weight[:, None]
        pairs = weighted.view(np.float32), slopes.view(np.float32)
        norms = np.matmul(pairs[0], pairs[1].transpose(0, 2, 1)).astype(np.float64)
        towards = np.matmul(pairs[0], self._spectrum.view(np.float32)).astype(np.float64)
        tiny = np.finfo(np.float32).tiny
        own, product = np.maximum(norms[:, 6, 6], tiny), towards[:, 6]
        amplitude = product / own
        # The fit is amplitude * slopes; dividing by amplitude^2 leaves steps in radians and voxels. Where the
        # reference does not fit at all, there is no way up to be seen.
        gradient = towards / np.where(amplitude > 1e-9, amplitude, np.inf)[:, None] - norms[:, :, 6]
        return product / np.sqrt(own * np.maximum(power, tiny)), norms, gradient


def _no_longer_than(vectors: np.ndarray, length: float) -> np.ndarray:
    """(m, 3) vectors, shortened where they exceed `length`."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * (length / np.maximum(norms, max(length, 1e-30)))
