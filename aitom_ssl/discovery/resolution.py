"""To what detail two volumes agree: Fourier shell correlation, resolution, discrepancy, signal-to-noise ratio.

The Fourier shell correlation (FSC) of volumes with transforms A and B, over the frequencies k of a shell, is

    sum Re[A(k) conj(B(k))] / sqrt(sum |A(k)|^2 sum |B(k)|^2)

Shell R = 0, 1, ..., n // 2 holds the frequencies within half a Fourier pixel, 1 / (n voxel_size), of R pixels, so that
each belongs to one shell. Two averages of independent halves are compared at 0.143, an average and the truth at 0.5
(Rosenthal and Henderson 2003, J. Mol. Biol. 333, 721).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft

from aitom_ssl import geometry
from aitom_ssl.errors import InputError

HALF_SETS = 0.143
"""FSC of two half sets at which the average of both correlates with the truth at 0.5."""
REFERENCE = 0.5
"""FSC with a known structure at which signal and noise are equal."""
RECOVERED = 70.0
"""Structural discrepancy in A up to which Xu 2017 counts a structure as recovered."""
EDGE = 3.0
"""Voxels over which a soft mask falls off."""
_PHASES_FROM = 0.8  # FSC below which `mask_corrected_correlation` randomises phases, as RELION does
_ALIKE = 1e-6
_ROUNDING = 1e-14  # power of a frequency, relative to the mean over all
_SAME_SIZE = 1e-3  # relative difference of voxel sizes that moves nothing by a voxel in a thousand


@dataclasses.dataclass(frozen=True, eq=False)
class ShellCorrelation:
    """A Fourier shell correlation; all arrays (n // 2 + 1,), one entry a Fourier pixel from the origin.

    frequency: 1/A. correlation: -1 to 1; that of shell 0, the mean, is 1 by definition, and 0 where a volume has
    nothing. independent: frequencies of the shell, k and -k counted once. voxel_size: A.
    """

    frequency: np.ndarray
    correlation: np.ndarray
    independent: np.ndarray
    voxel_size: float

    @property
    def nyquist(self) -> float:
        """The finest resolution of these voxels in A."""
        return 2 * self.voxel_size

    @property
    def noise_level(self) -> np.ndarray:
        """Standard deviation of the correlation of independent white noise, 1 / sqrt(2 independent); 0 for shell 0."""
        level = np.zeros(len(self.independent))
        # Each frequency but the few that are their own mirror image has a real and an imaginary part.
        level[1:] = 1 / np.sqrt(2 * self.independent[1:])
        return level

    def crossing(self, threshold: float) -> float:
        """Frequency (1/A) where the correlation first falls below `threshold`, on straight lines between shells.

        0 where the first shell is below it already, infinity where no shell is.
        """
        if not 0 < threshold < 1:
            raise InputError(f"An FSC threshold of {threshold:g}: expected between 0 and 1, as 0.143 or 0.5.")
        below = np.flatnonzero(self.correlation[1:] < threshold) + 1
        if not len(below):
            return math.inf
        after = below[0]
        if after == 1:
            return 0.0
        high, low = self.correlation[after - 1], self.correlation[after]
        part = (high - threshold) / (high - low)
        return float(self.frequency[after - 1] + part * (self.frequency[after] - self.frequency[after - 1]))

    def resolution(self, threshold: float = HALF_SETS) -> float:
        """A at `crossing`; infinity where nothing agrees, Nyquist (2 voxels) where the curve never falls so low."""
        at = self.crossing(threshold)
        return math.inf if at == 0 else max(1 / at, self.nyquist) if math.isfinite(at) else self.nyquist

    def signal_to_noise(self) -> np.ndarray:
        """FSC / (1 - FSC): the ratio of power in each shell of either of two volumes of equal noise; NaN in shell 0."""
        with np.errstate(divide="ignore"):
            return np.append(np.nan, self.correlation[1:] / (1 - self.correlation[1:]))


def fourier_shell_correlation(
    a: np.ndarray, b: np.ndarray, voxel_size: float | tuple[float, float], mask: np.ndarray | None = None
) -> ShellCorrelation:
    """FSC of two (n, n, n) volumes, n >= 4, inside `mask` where there is one.

    voxel_size: A, or that of each volume, which must be the same. mask: (n, n, n), 0 to 1, by which both are multiplied
    after their mean outside it (weights 1 - mask) is taken out, so that neither a grey scale nor a grey level matters.
    (Their mean inside it would leave a step at the edge of the mask, the same in both, wherever there is a particle.)
    Give it a soft edge (`soft_sphere`): a sharp one correlates by itself.
    Raises InputError for volumes that are not cubes of one shape, not finite or constant, a mask that is empty or not
    of their shape, and voxel sizes that are not positive or differ.
    """
    return _correlation(a, b, voxel_size, mask, 0.5)


def half_set_correlation(
    first: np.ndarray, second: np.ndarray, voxel_size: float, mask: np.ndarray | None = None
) -> ShellCorrelation:
    """`fourier_shell_correlation` of the averages of two halves of the data; InputError where they are the same."""
    curve = fourier_shell_correlation(first, second, voxel_size, mask)
    shared = curve.correlation[1:][curve.correlation[1:] != 0]
    if np.array_equal(first, second) or (len(shared) and shared.min() > 1 - _ALIKE):
        raise InputError(
            "The two half sets are identical (up to a factor), so their FSC is 1 at every frequency and no resolution: "
            "average different particles in each."
        )
    return curve


def mask_corrected_correlation(
    first: np.ndarray, second: np.ndarray, voxel_size: float, mask: np.ndarray, seed: int = 0
) -> ShellCorrelation:
    """`half_set_correlation` without what the mask itself correlates: (FSC - random) / (1 - random).

    random is the FSC inside the mask after the phases of both halves were drawn anew beyond the frequency at which
    their FSC without a mask falls below 0.8; up to two shells beyond, the FSC stays as it is.
    Chen et al. 2013, Ultramicroscopy 135, 24.
    """
    masked = half_set_correlation(first, second, voxel_size, mask)
    loose = fourier_shell_correlation(first, second, voxel_size)
    below = np.flatnonzero(loose.correlation < _PHASES_FROM)
    if not len(below):
        return masked
    start = int(below[0])
    rng = np.random.default_rng(seed)
    drawn = [_random_phases(np.asarray(volume, np.float64), start, rng) for volume in (first, second)]
    noise = fourier_shell_correlation(*drawn, voxel_size, mask).correlation
    corrected = masked.correlation.copy()
    # At the border itself the mask mixes phases kept and phases drawn.
    beyond = slice(start + 2, None)
    corrected[beyond] = (masked.correlation[beyond] - noise[beyond]) / np.maximum(1 - noise[beyond], _ALIKE)
    return dataclasses.replace(masked, correlation=np.clip(corrected, -1, 1))


def structural_discrepancy(
    volume: np.ndarray, truth: np.ndarray, voxel_size: float, mask: np.ndarray | None = None
) -> float:
    """A: the largest features in which an average and the true structure differ (Xu 2017, section 3.3).

    n voxel_size / R for the first R = 1, 2, ... n // 2 at which the FSC is below 0.5, as AITom computes it: shells of
    the frequencies within one Fourier pixel of R (so they overlap) and no interpolation. Where there is no such R,
    Nyquist (2 voxels) is as much as can be said. A structure counts as recovered at `RECOVERED` or less.
    Both must lie in the same pose. Raises InputError as `fourier_shell_correlation` does.
    """
    curve = _correlation(volume, truth, voxel_size, mask, 1.0)
    below = np.flatnonzero(curve.correlation[1:] < REFERENCE)
    return 1 / float(curve.frequency[below[0] + 1]) if len(below) else curve.nyquist


# === Signal and noise ===


@dataclasses.dataclass(frozen=True, eq=False)
class SignalToNoise:
    """SNR of single subtomograms, estimated from pairs of them.

    of_pairs: (pairs,) cc / (1 - cc) of each pair. curve: the FSC of all pairs taken together; its `signal_to_noise` is
    the SNR shell by shell.
    """

    of_pairs: np.ndarray
    curve: ShellCorrelation

    @property
    def overall(self) -> float:
        """Mean over the pairs, as Xu 2017 reports it."""
        return float(self.of_pairs.mean())

    @property
    def spread(self) -> float:
        """Standard deviation over the pairs; NaN of a single one."""
        return float(self.of_pairs.std(ddof=1)) if len(self.of_pairs) > 1 else math.nan


def signal_to_noise(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], voxel_size: float, mask: np.ndarray | None = None
) -> SignalToNoise:
    """SNR of subtomograms from pairs of them, first[i] and second[i] of the same structure in the same pose.

    SNR = cc / (1 - cc) with the correlation coefficient cc of a pair (Frank and Al-Ali 1975, Nature 256, 376): the
    variance of what both share over that of what they do not. It is that of one subtomogram, not of the mean of two,
    inside `mask`, and for pairs that measured the same frequencies (a missing wedge that only one of them has counts as
    noise). Voxels inside the mask are taken about their mean there; `curve` stops at Nyquist.
    Raises InputError for no pairs, pairs that are identical, and what `fourier_shell_correlation` refuses.
    """
    if len(first) != len(second) or not len(first):
        raise InputError(f"SNR is estimated from pairs. Received {len(first)} and {len(second)} volumes: give as many.")
    voxel_size, shape = _one_voxel_size(voxel_size), np.shape(first[0])
    ratios, sums = np.empty(len(first)), 0
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        try:
            spectra = _spectra(a, b, mask)
        except InputError as error:
            raise InputError(f"Pair {i}: {error}") from None
        n = spectra[-1]
        if n != shape[0]:
            raise InputError(f"Pair {i} has {n} voxels a side, pair 0 has {shape[0]}: crop or pad them alike.")
        coefficient = _coefficient(a, b, mask)
        if coefficient > 1 - _ALIKE:
            raise InputError(f"Pair {i} is one subtomogram twice: its SNR is infinite. Pair different subtomograms.")
        ratios[i] = coefficient / (1 - coefficient)
        totals = _sums(*spectra)
        _, *powers = totals.sum(axis=1)
        # Every pair counts the same, whatever its grey scale.
        sums = sums + totals / np.array([math.sqrt(math.prod(powers)), *powers])[:, None]
    return SignalToNoise(ratios, _curve(_shells(sums, n, 0.5), n, voxel_size, 0.5))


def _coefficient(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None) -> float:
    """Pearson's correlation coefficient, voxels weighted by `mask`."""
    weight = np.ones(np.shape(a)) if mask is None else np.asarray(mask, np.float64)
    a, b = (v - np.average(v, weights=weight) for v in (np.asarray(a, np.float64), np.asarray(b, np.float64)))
    return float((weight * a * b).sum() / math.sqrt((weight * a * a).sum() * (weight * b * b).sum()))


# === Masks ===


def soft_sphere(
    n: int, radius: float, edge: float = EDGE, centre: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    """(n, n, n) float32 mask: 1 up to `radius` voxels from its centre, a raised cosine of `edge` voxels, then 0.

    centre: (x, y, z) in voxels from voxel n // 2. Raises InputError for a sphere without a voxel.
    """
    if n < 1 or not radius > 0 or not edge >= 0:
        raise InputError(f"A mask of n={n}, radius={radius:g}, edge={edge:g}: expected a radius above 0 in a box.")
    offsets = np.arange(n) - geometry.centre(n)
    z, y, x = (np.square(offsets - c) for c in centre[::-1])
    distance = np.sqrt(z[:, None, None] + y[:, None] + x)
    if edge == 0:
        mask = (distance <= radius).astype(np.float32)
    else:
        mask = (0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / edge, 0, 1))).astype(np.float32)
    if not mask.any():
        raise InputError(f"The sphere of {radius:g} voxels about {centre} has no voxel of a box of {n}.")
    return mask


# === Shells ===


def _checked(volume: np.ndarray, what: str) -> np.ndarray:
    volume = np.asarray(volume)
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or volume.shape[0] < 4:
        raise InputError(f"The {what} has shape {volume.shape}: expected a cube (n, n, n) of 4 voxels a side or more.")
    if volume.dtype.kind not in "fiub":
        raise InputError(f"The {what} holds {volume.dtype}: expected real numbers.")
    volume = volume.astype(np.float64)
    if not np.isfinite(volume).all():
        raise InputError(f"The {what} has voxels that are NaN or infinite: mend it or leave it out.")
    return volume


def _one_voxel_size(voxel_size: float | tuple[float, float]) -> float:
    sizes = np.atleast_1d(np.asarray(voxel_size, np.float64))
    if sizes.shape not in ((1,), (2,)) or not (np.isfinite(sizes).all() and sizes.min() > 0):
        raise InputError(
            f"voxel_size is {voxel_size!r}: expected a positive number of angstroms, or one of each volume."
        )
    if np.ptp(sizes) > _SAME_SIZE * sizes.min():
        raise InputError(f"The volumes have voxels of {sizes[0]:g} and {sizes[1]:g} A: resample one to the other's.")
    return float(sizes[0])


def _spectra(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Half spectra of both, masked, without their background; and n."""
    volumes = [_checked(a, "first volume"), _checked(b, "second volume")]
    if volumes[0].shape != volumes[1].shape:
        raise InputError(
            f"The volumes have shapes {volumes[0].shape} and {volumes[1].shape}: resample, crop or pad them alike."
        )
    n = volumes[0].shape[0]
    weight = None
    if mask is not None:
        weight = _checked(mask, "mask")
        if weight.shape != volumes[0].shape:
            raise InputError(f"The mask has shape {weight.shape}, the volumes {volumes[0].shape}: make it as large.")
        if weight.min() < 0 or weight.max() > 1:
            raise InputError(f"The mask has values from {weight.min():g} to {weight.max():g}: expected 0 to 1.")
        if not weight.any():
            raise InputError("The mask is empty, 0 everywhere: there is nothing to compare inside it.")
    spectra = []
    for volume, what in zip(volumes, ("first", "second"), strict=True):
        if volume.min() == volume.max() or (weight is not None and np.ptp(volume[weight > 0]) == 0):
            where = "" if weight is None else " inside the mask"
            raise InputError(f"The {what} volume is constant{where}: there is nothing to compare in it.")
        if weight is None:
            seen = volume - volume.mean()
        else:
            outside = 1 - weight
            level = np.average(volume, weights=outside) if outside.sum() >= 1 else volume.mean()
            seen = (volume - level) * weight
        spectra.append(scipy.fft.rfftn(seen))
    return *spectra, n


def _sums(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """(3, r) cross power and powers at each squared radius, 0, 1, 2, ... squared Fourier pixels."""
    squared, multiplicity = _radii(n)
    terms = (a.real * b.real + a.imag * b.imag, np.square(np.abs(a)), np.square(np.abs(b)))
    return np.stack([np.bincount(squared, (term * multiplicity).ravel()) for term in terms])


@functools.lru_cache(maxsize=8)
def _radii(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared radius in Fourier pixels of each frequency of a half spectrum (flat), and how often it stands for one."""
    full, half = np.rint(np.fft.fftfreq(n) * n).astype(np.int64), np.arange(n // 2 + 1)
    squared = np.square(full)[:, None, None] + np.square(full)[:, None] + np.square(half)
    # The plane 0 is whole; so is that of Nyquist, where there is one.
    multiplicity = np.where((half == 0) | (2 * half == n), 1.0, 2.0)
    return squared.ravel(), multiplicity


def _shells(values: np.ndarray, n: int, half_width: float) -> np.ndarray:
    """(..., squared radii) summed over the shells R = 0, ..., n // 2 of |r - R| <= half_width: (..., n // 2 + 1)."""
    radii = np.arange(n // 2 + 1)
    low = np.ceil(np.square(np.maximum(radii - half_width, 0)) - 1e-9).astype(int)
    high = np.floor(np.square(radii + half_width) + 1e-9).astype(int) + 1
    return np.stack([values[..., i:j].sum(axis=-1) for i, j in zip(low, high, strict=True)], axis=-1)


def _correlation(
    a: np.ndarray, b: np.ndarray, voxel_size: float | tuple[float, float], mask: np.ndarray | None, half_width: float
) -> ShellCorrelation:
    voxel_size = _one_voxel_size(voxel_size)
    spectra = _spectra(a, b, mask)
    n = spectra[-1]
    return _curve(_shells(_sums(*spectra), n, half_width), n, voxel_size, half_width)


def _curve(sums: np.ndarray, n: int, voxel_size: float, half_width: float) -> ShellCorrelation:
    """From (3, n // 2 + 1) cross power and powers of the shells."""
    squared, multiplicity = _radii(n)
    count = np.bincount(squared, np.broadcast_to(multiplicity, (n, n, n // 2 + 1)).ravel())
    count = _shells(count, n, half_width)
    cross, power_a, power_b = sums
    # Less than this is what rounding to single precision leaves, which may well correlate.
    something = [power / count > _ROUNDING * power.sum() / count.sum() for power in (power_a, power_b)]
    norm = np.where(something[0] & something[1], np.sqrt(power_a) * np.sqrt(power_b), np.inf)
    correlation = np.clip(cross / norm, -1, 1)
    correlation[0] = 1.0
    independent = np.ceil(count / 2).astype(int)
    return ShellCorrelation(np.arange(n // 2 + 1) / (n * voxel_size), correlation, independent, float(voxel_size))


def _random_phases(volume: np.ndarray, start: int, rng: np.random.Generator) -> np.ndarray:
    """The volume with the phases of all frequencies from `start` - 1/2 Fourier pixels on drawn anew."""
    n = volume.shape[0]
    spectrum = scipy.fft.rfftn(volume)
    squared, _ = _radii(n)
    beyond = (squared >= (start - 0.5) ** 2).reshape(spectrum.shape)
    # Phases of white noise: they are those of a real volume, mirror images and all.
    drawn = scipy.fft.rfftn(rng.standard_normal(volume.shape))
    spectrum[beyond] = np.abs(spectrum[beyond]) * np.exp(1j * np.angle(drawn[beyond]))
    return scipy.fft.irfftn(spectrum, s=volume.shape)
