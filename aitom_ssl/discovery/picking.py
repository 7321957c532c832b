"""Finding particles in a tomogram without a template: difference of Gaussians (Xu 2017 section 3.1.2, Pei 2016).

The response is G(s1) - G(K s1), convolved with the tomogram; its local maxima are candidates, kept when they exceed
m + 3 (M - m) / 20 for the least and greatest candidate m and M, and thinned best first so that no two are close.
Noise has no sign, particles have: how many picks the opposite contrast yields estimates how many are noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre

SMALLEST_SIGMA = 2.0  # voxels: a narrower Gaussian is not sampled well enough to be subtracted from another


@dataclass(frozen=True)
class Picks:
    """Particles found in a tomogram, best first."""

    positions: np.ndarray  # (n, 3) int, x, y, z in voxels from 0
    scores: np.ndarray  # (n,) response, in standard deviations of the tomogram
    threshold: float  # what every score exceeds
    sigma: float  # voxels
    min_distance: float  # voxels
    candidates: int  # local maxima before the threshold
    opposite: int  # picks that the same threshold and distance find in the tomogram of opposite contrast


def difference_of_gaussians(volume: np.ndarray, sigma: float, ratio: float = 1.1) -> np.ndarray:
    """float32 G(sigma) - G(ratio sigma) of a (z, y, x) volume of any real type; `sigma` in voxels.

    A Gaussian blob of height a and deviation b answers with a b^3 [(b^2 + s^2)^-3/2 - (b^2 + K^2 s^2)^-3/2] at its
    centre. Memory: two float32 copies of the volume. Beyond the faces the volume is mirrored.
    """
    response = ndimage.gaussian_filter(volume, sigma, output=np.float32, mode="reflect")
    response -= ndimage.gaussian_filter(volume, sigma * ratio, output=np.float32, mode="reflect")
    return response


def local_maxima(response: np.ndarray, margin: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) (z, y, x) voxels greater than or equal to all 26 neighbours, and their (n,) values.

    `margin` voxels at the low and high end of each axis hold none.
    """
    low, high = margin
    inner = tuple(slice(low, side - high) for side in response.shape)
    peaks = np.argwhere(response[inner] == ndimage.maximum_filter(response, size=3)[inner]) + low
    return peaks, response[tuple(peaks.T)]


def suppress(positions: np.ndarray, scores: np.ndarray, distance: float) -> np.ndarray:
    """Indices, best score first, of the positions left when each one kept removes all others closer than `distance`."""
    order = np.argsort(-scores, kind="stable")
    neighbours = cKDTree(positions[order]).query_ball_point(positions[order], r=np.nextafter(distance, 0))
    alive = np.ones(len(order), dtype=bool)
    for i, close in enumerate(neighbours):
        if alive[i]:
            alive[close] = False
            alive[i] = True
    return order[alive]


def pick(
    tomogram: np.ndarray,
    voxel_size: float,
    sigma: float = 70.0,
    ratio: float = 1.1,
    invert_contrast: bool = False,
    box_size: int = 0,
    min_distance: float | None = None,
    top: int | None = None,
) -> Picks:
    """Particles of about `sigma` in a (z, y, x) tomogram.

    voxel_size: A. sigma: A; at least 2 voxels are used. ratio: K > 1. invert_contrast: particles are dark.
    box_size: voxels; a particle whose box leaves the tomogram is not picked. min_distance: A between picks, by default
    2 sigma. top: the best so many, in place of the threshold.
    Raises InputError for arguments out of range, a box that does not fit, a tomogram that is constant or has NaN.
    Differs from AITom, which truncates sigma to whole voxels (at 20 A: 3 where 3.5 is meant).
    """
    _positive(sigma, "sigma")
    _positive(voxel_size, "voxel_size")
    if not ratio > 1:
        raise InputError(f"--ratio={ratio:g}: expected more than 1.")
    if top is not None and top < 1:
        raise InputError(f"--top={top}: expected at least 1.")
    if box_size < 0 or min(tomogram.shape) <= box_size:
        sides = "x".join(map(str, tomogram.shape[::-1]))
        raise InputError(f"--box_size={box_size} does not fit in a tomogram of {sides} voxels (x, y, z): give less.")
    deviation = _deviation(tomogram)
    if not math.isfinite(deviation) or deviation == 0:
        raise InputError("The tomogram is constant or has NaN voxels: there is nothing to pick in it.")
    s1 = max(sigma / voxel_size, SMALLEST_SIGMA)
    if not s1 * ratio <= max(tomogram.shape):
        raise InputError(
            f"--sigma={sigma:g} and --ratio={ratio:g} make a Gaussian of deviation {s1 * ratio:g} voxels, more than "
            f"the {max(tomogram.shape)} of the tomogram's longest side: give less."
        )
    if min_distance is None:
        distance = 2 * s1
    else:
        _positive(min_distance, "min_distance")
        distance = min_distance / voxel_size
    response = difference_of_gaussians(tomogram, s1, ratio)
    if invert_contrast:
        np.negative(response, out=response)
    response /= np.float32(deviation)
    margin = (centre(box_size), max(box_size - centre(box_size) - 1, 0))
    peaks, scores = local_maxima(response, margin)
    if not len(peaks):
        raise InputError("The tomogram has no local maximum where a box fits: give a smaller --box_size or --sigma.")
    candidates = len(peaks)
    least, greatest = float(scores.min()), float(scores.max())
    threshold = -math.inf if top is not None else least + 3 * (greatest - least) / 20
    # A lone candidate is least and greatest at once, and still exceeds the threshold.
    threshold = min(threshold, _just_below(greatest))
    peaks, scores = _thin(peaks, scores, threshold, distance)
    peaks, scores = peaks[:top], scores[:top]
    if top is not None:
        threshold = _just_below(scores[-1])
    np.negative(response, out=response)
    opposite, _ = _thin(*local_maxima(response, margin), threshold, distance)
    return Picks(
        positions=peaks[:, ::-1].copy(),
        scores=scores.astype(np.float64),
        threshold=threshold,
        sigma=s1,
        min_distance=distance,
        candidates=candidates,
        opposite=len(opposite),
    )


def _thin(
    peaks: np.ndarray, scores: np.ndarray, threshold: float, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The peaks above `threshold` that `suppress` leaves, best first, and their scores."""
    above = np.flatnonzero(scores > threshold)
    if len(above):
        above = above[suppress(peaks[above], scores[above], distance)]
    return peaks[above], scores[above]


def _just_below(score: float) -> float:
    """The greatest float32 less than `score`."""
    return float(np.nextafter(np.float32(score), np.float32(-np.inf)))


def _deviation(volume: np.ndarray) -> float:
    """Standard deviation in double precision, a slice at a time: no second copy of the volume."""
    mean = float(np.mean([part.mean(dtype=np.float64) for part in volume]))
    return math.sqrt(np.mean([np.square(part - mean, dtype=np.float64).mean() for part in volume]))


def _positive(value: float, name: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"--{name}={value:g}: expected a positive number of angstroms.")
