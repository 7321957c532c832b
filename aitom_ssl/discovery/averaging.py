"""Averages of aligned subtomograms, each frequency over those that measured it, and classes made without a reference.

The average of volumes V_i with poses (R_i, t_i) and wedges W_i is, at frequency k,

    sum W_i(R_i k) V_i(R_i k) exp(2 pi i (R_i k).t_i)  /  sum W_i(R_i k):

every volume turned back into the reference's frame, where the missing wedges point everywhere and fill each other.
`classify_and_average` is the reference-free classification of Xu 2012 and Xu 2017 (section 3.3: three classes, five
iterations), of which one iteration is: volumes in the common frame -> fewer dimensions -> k-means -> averages, weighted
by their Fourier shell correlation -> all volumes aligned to all averages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import joblib
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from aitom_ssl import geometry
from aitom_ssl.discovery.alignment import (
    ANGULAR_STEP,
    Alignment,
    Wedge,
    align_many,
    best_reference,
    compose,
    cubes,
    each,
    measured,
)
from aitom_ssl.discovery.resolution import fourier_shell_correlation, soft_sphere
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import volume as fourier

_BLOCK = 32  # volumes summed at a time: the order of the sums, and so their rounding, is the same for any `workers`
_FEATURE_SIDE = 16  # voxels a side of what classes are told apart by: frequencies up to 8 Fourier pixels
_SEEDS, _TRIED = 4, 24  # particles tried as the first reference, and particles that each is tried on


class Average(NamedTuple):
    """volume: (n, n, n) float32. coverage: (n, n, n) float32, numpy.fft's layout, how many measured each frequency."""

    volume: np.ndarray
    coverage: np.ndarray


class Classification(NamedTuple):
    """What `classify_and_average` found; classes from the largest to the smallest.

    labels: (n,) int class of each subtomogram. alignment: (n,) poses of its class's average in each subtomogram.
    half: (n,) 0 or 1, the half set that each belongs to. averages: of each class. half_averages: of each class's
    half sets (None for an empty one): what their FSC is a resolution of, independent where gold_standard.
    """

    labels: np.ndarray
    alignment: Alignment
    half: np.ndarray
    averages: list[Average]
    half_averages: list[tuple[Average | None, Average | None]]


def average_subtomograms(
    volumes: Sequence[np.ndarray],
    alignments: Alignment,
    wedges: Wedge | Sequence[Wedge] = None,
    *,
    weights: np.ndarray | None = None,
    min_coverage: float = 1.0,
    workers: int = 1,
) -> Average:
    """Wedge-normalised Fourier average of (n, n, n) `volumes` in the frame of the reference they are aligned to.

    alignments: poses of the reference in the volumes, (count, 4) and (count, 3). wedges: one `alignment.Wedge` for all
    or one each. weights: (count,) >= 0 of the volumes, all 1 by default. min_coverage: frequencies with a smaller
    sum of weights stay 0, and so do those beyond Nyquist. workers: processes; they do not change the answer.
    Differs from tomominer, which turns volumes in real space and divides where two or more measured.
    """
    volumes = cubes(volumes, "Volume")
    n, count = volumes[0].shape[0], len(volumes)
    wedges = each(wedges, count, "volume")
    quaternions, shifts = np.asarray(alignments.quaternion), np.asarray(alignments.shift)
    if quaternions.shape != (count, 4) or shifts.shape != (count, 3):
        raise InputError(
            f"{count} volumes need quaternions ({count}, 4) and shifts ({count}, 3). Received {quaternions.shape} "
            f"and {shifts.shape}: one pose a volume."
        )
    if not (np.isfinite(quaternions).all() and np.isfinite(shifts).all()):
        raise InputError("Poses have values that are NaN or infinite: leave those volumes out.")
    weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise InputError(f"weights are {count} numbers >= 0, not all 0, one for each volume.")
    blocks = [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
    tasks = [(volumes[b], quaternions[b], shifts[b], wedges[b], weights[b]) for b in blocks]
    if workers > 1 and len(tasks) > 1:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            sums = joblib.Parallel(n_jobs=workers, batch_size=1)(joblib.delayed(_sums)(*task) for task in tasks)
    else:
        sums = [_sums(*task) for task in tasks]
    total, covered = (sum(column) for column in zip(*sums, strict=True))
    support = _support(n)
    if not covered.any():
        raise InputError("The wedges measure no frequency: give the tilts that were taken.")
    known = covered >= max(min_coverage, 1e-9)
    spectrum = np.where(known, total / np.where(known, covered, 1), 0).astype(np.complex64)
    return Average(fourier.to_volume(spectrum, support), _full(covered, support))


def fsc_weights(correlation: np.ndarray) -> np.ndarray:
    """What each shell of the average of two halves correlates with the truth: sqrt(2 FSC / (1 + FSC)), 0 after a gap.

    Rosenthal and Henderson 2003, J. Mol. Biol. 333, 721, equation 13. From the first shell (beyond the origin) of no
    positive correlation on there is no signal to be trusted.
    """
    correlation = np.asarray(correlation, np.float64).copy()
    gap = np.flatnonzero(correlation[1:] <= 0)
    if len(gap):
        correlation[gap[0] + 1 :] = 0
    correlation = np.clip(correlation, 0, 1)
    return np.sqrt(2 * correlation / (1 + correlation))


def filtered(volume: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, n, n) `volume`, its frequencies multiplied by `weights` (w,) at 0, 1, ... Fourier pixels, lines between."""
    support = _support(volume.shape[0])
    factor = np.interp(support.length * support.n, np.arange(len(weights)), weights).astype(np.float32)
    return fourier.to_volume(fourier.from_volume(volume, support) * factor, support)


def classify_and_average(
    volumes: Sequence[np.ndarray],
    wedges: Wedge | Sequence[Wedge] = None,
    *,
    classes: int = 3,
    iterations: int = 5,
    dimensions: int = 10,
    mask_radius: float | None = None,
    max_shift: float | None = None,
    angular_step: float = ANGULAR_STEP,
    gold_standard: bool = False,
    seed: int = 0,
    workers: int = 1,
) -> Classification:
    """Classes, poses and averages of a cluster of (n, n, n) subtomograms without any reference.

    The first reference is the subtomogram that a few others fit best, of a few drawn by `seed`. dimensions: principal
    components of the volumes that k-means sees. mask_radius: voxels, of the soft sphere that references and volumes are
    looked at in; n / 2 - 3 by default. max_shift, angular_step: of `align_many`. gold_standard: two halves go their own
    way from the start, and their classes are brought together at the end.
    Contrast: protein is bright (averages are centred on it). Same seed, same answer.
    Raises InputError for fewer than 2 subtomograms a class (4 when gold_standard).
    """
    volumes = cubes(volumes, "Volume")
    count, n = len(volumes), volumes[0].shape[0]
    wedges = each(wedges, count, "volume")
    if classes < 1 or iterations < 1 or dimensions < 1:
        raise InputError(
            f"classes={classes}, iterations={iterations}, dimensions={dimensions}: expected 1 or more of each."
        )
    needed = classes * (4 if gold_standard else 2)
    if count < needed:
        halves = ", in two halves" if gold_standard else ""
        raise InputError(
            f"A cluster of {count} subtomograms is too small for {classes} classes{halves}: {needed} are needed."
        )
    radius = n / 2 - 3 if mask_radius is None else mask_radius
    if not 0 < radius <= n / 2:
        raise InputError(f"mask_radius is {radius:g} voxels: expected more than 0 and at most {n / 2:g}.")
    search = {"max_shift": max_shift, "angular_step": angular_step, "workers": workers}
    rng = np.random.default_rng(seed)
    half = np.empty(count, int)
    half[rng.permutation(count)] = np.arange(count) % 2
    make = functools.partial(
        _classify,
        classes=classes,
        iterations=iterations,
        dimensions=dimensions,
        mask=soft_sphere(n, radius),
        seed=seed,
        search=search,
    )
    if gold_standard:
        labels, alignment = _joined_halves(volumes, wedges, half, make, search)
    else:
        labels, alignment = make(volumes, wedges, half)
    order = np.argsort(-np.bincount(labels, minlength=classes), kind="stable")
    labels = np.argsort(order)[labels]
    averages, half_averages = [], []
    for c in range(classes):
        averages.append(_average_of(labels == c, volumes, alignment, wedges, workers))
        sets = [(labels == c) & (half == h) for h in (0, 1)]
        half_averages.append(
            tuple(_average_of(s, volumes, alignment, wedges, workers) if s.any() else None for s in sets)
        )
    return Classification(labels, alignment, half, averages, half_averages)


# === Averages ===


@functools.lru_cache(maxsize=8)
def _support(n: int) -> fourier.Support:
    return fourier.support(n)


def _sums(
    volumes: list[np.ndarray],
    quaternions: np.ndarray,
    shifts: np.ndarray,
    wedges: list[Wedge],
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(s,) sum of turned, masked spectra and (s,) sum of turned wedges, of some volumes."""
    support = _support(volumes[0].shape[0])
    total, covered = np.zeros(support.index.size, np.complex128), np.zeros(support.index.size)
    for volume, quaternion, shift, wedge, weight in zip(volumes, quaternions, shifts, wedges, weights, strict=True):
        spectrum, seen = _turned_back(volume, quaternion, shift, wedge, support.k)
        total += weight * spectrum
        covered += weight * seen
    return total, covered


def _turned_back(
    volume: np.ndarray, quaternion: np.ndarray, shift: np.ndarray, wedge: Wedge, k: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(s,) centred spectrum of a volume in the reference's frame at k (3, s), 0 where not measured; (s,) where it was.

    V(R x + c + t) at offset x has the transform V(R k) exp(2 pi i (R k).t).
    """
    matrix = geometry.quaternion_to_matrix(quaternion).astype(np.float32)
    there = sum(matrix[:, j, None] * k[j] for j in range(3))
    seen = measured(wedge, there[2], there[1], there[0], volume.shape[0])
    spectrum = fourier.TemplateTransform(volume - volume.mean()).sample(there, np.eye(3))
    angle = np.float32(2 * np.pi) * sum(np.float32(t) * axis for t, axis in zip(shift, there, strict=True))
    return spectrum * np.exp(1j * angle) * seen, seen


def _full(half: np.ndarray, support: fourier.Support) -> np.ndarray:
    """(s,) real, even values on a support as (n, n, n) float32 in numpy.fft's layout; 0 beyond Nyquist."""
    n = support.n
    out = np.zeros((n, n, n), np.float32)
    place = np.rint(support.k * n).astype(int)
    for sign in (1, -1):
        x, y, z = sign * place % n
        out[z, y, x] = half
    return out


def _average_of(
    members: np.ndarray, volumes: list[np.ndarray], alignment: Alignment, wedges: list[Wedge], workers: int = 1
) -> Average:
    """Average of the volumes where `members` (count,) is true."""
    rows = np.flatnonzero(members)
    chosen = [volumes[i] for i in rows], Alignment(*(np.asarray(field)[rows] for field in alignment))
    return average_subtomograms(*chosen, [wedges[i] for i in rows], workers=workers)


# === Classes ===


def _classify(
    volumes: list[np.ndarray],
    wedges: list[Wedge],
    half: np.ndarray,
    *,
    classes: int,
    iterations: int,
    dimensions: int,
    mask: np.ndarray,
    seed: int,
    search: dict,
) -> tuple[np.ndarray, Alignment]:
    """Labels (count,) in 0..classes-1 and poses in a frame common to all classes."""
    alignment = _first_poses(volumes, wedges, mask, np.random.default_rng(seed), search)
    workers = search["workers"]

    def divided(alignment: Alignment) -> tuple[np.ndarray, Alignment]:
        labels = _clusters(volumes, wedges, alignment, mask, classes, dimensions, seed)
        averages = [_average_of(labels == c, volumes, alignment, wedges, workers) for c in range(classes)]
        return labels, _common_frame(labels, averages, alignment, mask, search)

    for _ in range(iterations):
        labels, alignment = divided(alignment)
        references, coverage = [], []
        for c in range(classes):
            average = _average_of(labels == c, volumes, alignment, wedges, workers)
            sets = [(labels == c) & (half == h) for h in (0, 1)]
            weights = np.ones(_FEATURE_SIDE // 2)
            if all(s.any() for s in sets):
                halves = [_average_of(s, volumes, alignment, wedges, workers).volume for s in sets]
                weights = fsc_weights(fourier_shell_correlation(*halves, 1.0, mask).correlation[: len(mask) // 2])
            weights = np.append(weights, 0.0)
            weights[:3] = 1.0  # of an average of noise alone nothing would be left
            references.append(filtered(average.volume, weights) * mask)
            coverage.append(average.coverage >= 1)
        _, alignment = best_reference(align_many(volumes, references, wedges, reference_wedges=coverage, **search))
    return divided(alignment)


def _first_poses(
    volumes: list[np.ndarray], wedges: list[Wedge], mask: np.ndarray, rng: np.random.Generator, search: dict
) -> Alignment:
    """Poses with respect to the one of a few subtomograms that some others fit best."""
    drawn = rng.permutation(len(volumes))
    seeds, others = drawn[:_SEEDS], drawn[:_TRIED]
    seen = [wedges[i] for i in seeds]
    masked = [volumes[i] * mask for i in seeds]
    tried = align_many(
        [volumes[i] for i in others], masked, [wedges[i] for i in others], reference_wedges=seen, **search
    )
    scores = tried.score.copy()
    scores[np.arange(len(seeds)), np.arange(len(seeds))] = np.nan  # a particle and itself
    best = int(np.nanmean(scores, axis=0).argmax())
    found = align_many(volumes, [masked[best]], wedges, reference_wedges=[seen[best]], **search)
    return best_reference(found)[1]


def _clusters(
    volumes: list[np.ndarray],
    wedges: list[Wedge],
    alignment: Alignment,
    mask: np.ndarray,
    classes: int,
    dimensions: int,
    seed: int,
) -> np.ndarray:
    """(count,) k-means labels of the volumes in the common frame, low frequencies, inside the mask.

    What a volume did not measure is taken from the mean of all, so that it says nothing about its class.
    """
    if classes == 1:
        return np.zeros(len(volumes), int)
    n = volumes[0].shape[0]
    side = min(_FEATURE_SIDE, n)
    small = _support(side)
    spectra, seen = (
        np.stack(column)
        for column in zip(
            *(
                _turned_back(volume, q, t, wedge, small.k * np.float32(side / n))
                for volume, q, t, wedge in zip(volumes, alignment.quaternion, alignment.shift, wedges, strict=True)
            ),
            strict=True,
        )
    )
    mean = spectra.sum(0) / np.maximum(seen.sum(0), 1)
    spectra += np.where(seen, 0, mean)
    inside = _shrunk(mask, side)
    flat = np.stack([(fourier.to_volume(spectrum, small) * inside).ravel() for spectrum in spectra])
    if len(np.unique(flat, axis=0)) < classes:
        raise InputError(f"Fewer than {classes} of a cluster's {len(flat)} subtomograms differ: ask for fewer classes.")
    with threadpool_limits(1):
        few = min(dimensions, len(volumes) - 1, flat.shape[1])
        reduced = PCA(few, svd_solver="full" if len(flat) < 500 else "randomized", random_state=seed).fit_transform(
            flat
        )
        return KMeans(classes, n_init=10, random_state=seed).fit_predict(reduced).astype(int)


def _shrunk(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask on a grid of `side` voxels over the same box, low-passed to it."""
    small, n = _support(side), mask.shape[0]
    spectrum = fourier.TemplateTransform(mask).sample(small.k * np.float32(side / n), np.eye(3))
    return np.clip(fourier.to_volume(spectrum, small) * (side / n) ** 3, 0, 1)


def _common_frame(
    labels: np.ndarray, averages: list[Average], alignment: Alignment, mask: np.ndarray, search: dict
) -> Alignment:
    """Poses after the largest class's average is centred and the others are aligned to it."""
    largest = int(np.bincount(labels).argmax())
    centred = Alignment(np.array([1.0, 0.0, 0.0, 0.0]), _centre_of_mass(averages[largest].volume * mask), 1.0)
    frames = align_many(
        [average.volume * mask for average in averages],
        [averages[largest].volume * mask],
        [average.coverage >= 1 for average in averages],
        reference_wedges=[averages[largest].coverage >= 1],
        **search,
    )
    fields = [np.array(field, np.float64) for field in alignment]
    for c in range(len(averages)):
        rows = labels == c
        pose = Alignment(*(field[rows] for field in fields))
        if c != largest:
            pose = compose(pose, Alignment(*(field[c, 0] for field in frames)))
        for field, value in zip(fields, compose(pose, centred), strict=True):
            field[rows] = value
    return Alignment(*fields)


def _centre_of_mass(volume: np.ndarray) -> np.ndarray:
    """(x, y, z) voxels from the centre, of the low-passed density above a standard deviation over its mean."""
    smooth = filtered(volume, np.append(np.ones(_FEATURE_SIDE // 4), 0.0))
    mass = np.clip(smooth - smooth.mean() - smooth.std(), 0, None).astype(np.float64)
    offsets = np.arange(volume.shape[0]) - geometry.centre(volume.shape[0])
    total = mass.sum()
    sides = [(mass.sum(axis=tuple({0, 1, 2} - {axis})) * offsets).sum() for axis in (2, 1, 0)]
    return np.array(sides) / total if total > 0 else np.zeros(3)


def _joined_halves(
    volumes: list[np.ndarray],
    wedges: list[Wedge],
    half: np.ndarray,
    make: Callable[..., tuple[np.ndarray, Alignment]],
    search: dict,
) -> tuple[np.ndarray, Alignment]:
    """Labels and poses of two halves classified apart, the second's classes and frames fitted to the first's."""
    labels = np.empty(len(volumes), int)
    fields = [np.empty((len(volumes), 4)), np.empty((len(volumes), 3)), np.empty(len(volumes))]
    averages = []
    for h in (0, 1):
        rows = np.flatnonzero(half == h)
        own = [volumes[i] for i in rows], [wedges[i] for i in rows]
        labels[rows], pose = make(*own, np.arange(len(rows)) % 2)
        for field, value in zip(fields, pose, strict=True):
            field[rows] = value
        classes = make.keywords["classes"]
        averages.append([_average_of(labels[rows] == c, own[0], pose, own[1]) for c in range(classes)])
    mask, coverage = make.keywords["mask"], [[a.coverage >= 1 for a in side] for side in averages]
    masked = [[average.volume * mask for average in side] for side in averages]
    found = align_many(masked[1], masked[0], coverage[1], reference_wedges=coverage[0], **search)
    second, first = linear_sum_assignment(-found.score)
    moved = labels.copy()
    for c, to in zip(second, first, strict=True):
        rows = (half == 1) & (labels == c)
        pose = compose(Alignment(*(field[rows] for field in fields)), Alignment(*(f[c, to] for f in found)))
        for field, value in zip(fields, pose, strict=True):
            field[rows] = value
        moved[rows] = to
    return moved, Alignment(*fields)
