"""The dense 3-D conditional random field that sharpens a predicted mask (Zhou 2020, section 2; Krähenbühl 2011).

Every voxel i is particle or background, and every pair of voxels pays for having different labels:

    E(x) = sum_i -log p_i(x_i) + sum_{i<j} [x_i != x_j] (w1 k1(i, j) + w2 k2(i, j))
    k1 = exp(-|r_i - r_j|^2 / (2 sg^2))                                          Gaussian: small pieces go
    k2 = exp(-|r_i - r_j|^2 / (2 sa^2) - (I_i - I_j)^2 / (2 sb^2))               bilateral: edges follow the density

r in voxels, I the voxel's value stretched to 0..255 over its volume. A few steps of mean-field inference give every
voxel's probability; the mask is where it is above a half.

The steps are pydensecrf's, through its interface for any number of dimensions (package pydensecrf2, a binding of the
library behind Krähenbühl 2011 and 2013; the paper's code uses another binding of it, SimpleCRF). What it computes, and
what its options mean here:

- Potts compatibility: the weights w1 and w2.
- NORMALIZE_SYMMETRIC, its default and SimpleCRF's: each kernel K becomes D^-1/2 K D^-1/2, D its row sums, voxel i
  itself among them. A weight is then about how many votes all the neighbours have together, whatever the stds. Row
  (NORMALIZE_AFTER) or column (NORMALIZE_BEFORE) normalisation differ from it by less than the lattice does;
  NO_NORMALIZATION leaves the lattice's own scale in the weights, which no one means.
- DIAG_KERNEL and the other kernel types only say what could be learned of the stds: inference is the same.
- Filtering on the permutohedral lattice: an approximation. On volumes of 6^3 its probabilities differ from exact mean
  field by up to 0.06, and no voxel that exact mean field gives a probability further than that from a half changes
  sides; the tests hold it to that, and to being exact in all but the lattice.

The published parameters are strong: 40 votes of wide neighbourhoods against a network's own 14 at most (1e-6 is the
smallest probability it is allowed). Where most voxels that are as bright as the particle are not its own, which is
so in crowded or noisy volumes, they empty every mask, a perfect one too. `search` finds what suits the data.

Differs from the paper's code: voxel values keep their fractions, where SimpleCRF cuts them to whole numbers.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.errors import InputError, reason

# A network that is certain must not make an energy infinite.
_SMALLEST = 1e-6
_TOP = 255.0


@dataclasses.dataclass(frozen=True)
class CrfParameters:
    """What the field is made of; the defaults are the published code's.

    Weights are 0 or more (0 leaves a term out), stds positive. InputError for others.
    """

    iterations: int = 4
    gaussian_weight: float = 10.0
    gaussian_std: float = 10.0  # voxels
    bilateral_weight: float = 30.0
    bilateral_std: float = 100.0  # voxels
    intensity_std: float = 50.0  # of 0..255

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{name} of the CRF is {value!r}, expected a number.")
            if name == "iterations" and (value != int(value) or value < 0):
                raise InputError(f"iterations of the CRF is {value:g}, expected a whole number, 0 or more.")
            if value < 0 or (name.endswith("_std") and value == 0):
                raise InputError(f"{name} of the CRF is {value:g}, expected {'more than' if 'std' in name else ''} 0.")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Any, where: str) -> CrfParameters:
        """The parameters that `to_dict` gave; InputError, naming `where` they stand, for anything else."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(stored, Mapping) or sorted(stored) != sorted(names):
            raise InputError(f"{where}: expected the parameters {', '.join(names)} of a CRF. Make it again.")
        try:
            return cls(**stored)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


PUBLISHED = CrfParameters()


def pydensecrf() -> ModuleType:
    """The library; InputError where it is not installed."""
    try:
        from pydensecrf import densecrf
    except ImportError:
        raise InputError(
            "The CRF needs pydensecrf2, which is not installed (it does not build on Python 3.13): use Python 3.10 to "
            "3.12 and `pip install pydensecrf2`, or go without it (--nocrf)."
        ) from None
    return densecrf


def refine(
    probabilities: np.ndarray, volume: np.ndarray, parameters: CrfParameters = PUBLISHED
) -> np.ndarray:
    """The field's probabilities (z, y, x) float32 of being particle, from a network's and the voxel values.

    `probabilities` (z, y, x) in 0..1; `volume` (z, y, x), any scale and offset, protein bright or dark: only its
    differences count. InputError for other shapes or ranges, voxels that are not finite, and without pydensecrf.
    """
    library = pydensecrf()
    probabilities, volume = np.asarray(probabilities), np.asarray(volume)
    if probabilities.ndim != 3 or probabilities.shape != volume.shape or not probabilities.size:
        raise InputError(
            f"The CRF takes probabilities and a volume (z, y, x). Received {probabilities.shape} and {volume.shape}."
        )
    if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
        raise InputError("The CRF takes probabilities from 0 to 1. Received some that are not.")
    if not np.isfinite(volume).all():
        raise InputError("The volume has voxels that are NaN or infinite: repair it or leave it out.")
    certain = np.clip(probabilities.reshape(-1).astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    field = library.DenseCRF(certain.size, 2)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log([1 - certain, certain]), np.float32))
    for weight, features in _terms(volume, parameters):
        if weight > 0:
            field.addPairwiseEnergy(
                features, compat=weight, kernel=library.DIAG_KERNEL, normalization=library.NORMALIZE_SYMMETRIC
            )
    return np.array(field.inference(int(parameters.iterations)), np.float32)[1].reshape(probabilities.shape)


def _terms(volume: np.ndarray, parameters: CrfParameters) -> list[tuple[float, np.ndarray]]:
    """Weight and features (dimensions, voxels) float32 of each term, in units of its stds."""
    places = np.indices(volume.shape, dtype=np.float32).reshape(3, -1)
    values = intensities(volume).reshape(1, -1) / np.float32(parameters.intensity_std)
    bilateral = np.concatenate([places / np.float32(parameters.bilateral_std), values])
    gaussian = places / np.float32(parameters.gaussian_std)
    return [(parameters.gaussian_weight, gaussian), (parameters.bilateral_weight, bilateral)]


def intensities(volume: np.ndarray) -> np.ndarray:
    """`volume` stretched to 0..255 float32, its lowest voxel to its highest; a constant one is 0."""
    low, high = float(volume.min()), float(volume.max())
    if high <= low:
        return np.zeros(volume.shape, np.float32)
    return ((volume.astype(np.float64) - low) * (_TOP / (high - low))).astype(np.float32)


def refine_mask(volume: np.ndarray, probabilities: np.ndarray, parameters: CrfParameters = PUBLISHED) -> np.ndarray:
    """The mask (z, y, x) uint8, 1 the particle, of `refine`."""
    return to_mask(refine(probabilities, volume, parameters)).astype(np.uint8)


def to_mask(probabilities: np.ndarray) -> np.ndarray:
    """Where a voxel is rather particle than not: probability above a half; bool, of the same shape."""
    return np.asarray(probabilities) > 0.5


# === Parameters of a run ===

STORED = "crf.json"  # in a run's folder


def read_parameters(run: str | os.PathLike) -> tuple[CrfParameters, bool] | None:
    """The parameters that `tune_crf` found for a run, and whether they made its masks better; None before it ran.

    InputError where the file that says so is damaged.
    """
    where = Path(run) / STORED
    if not where.is_file():
        return None
    try:
        stored = json.loads(where.read_text(encoding="utf-8"))
        parameters, helps = stored["parameters"], stored["helps"]
        if not isinstance(helps, bool):
            raise ValueError(f"helps is {helps!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} is damaged ({reason(error)}): run tune_crf again, or delete it.") from None
    return CrfParameters.from_dict(parameters, str(where)), helps


def choose_field(run: str | os.PathLike, wanted: bool | None) -> CrfParameters | None:
    """Parameters of the field to use with a run, or None for none.

    wanted: True takes those that `tune_crf` found, else the published ones; False none; None those that were found,
    if they made masks better.
    """
    if wanted is False:
        return None
    stored = read_parameters(run)
    if stored is None:
        return PUBLISHED if wanted else None
    parameters, helps = stored
    return parameters if wanted or helps else None


# === Search ===

# Values that each parameter may take, beside the one it starts from.
_CHOICES: dict[str, tuple[float, ...]] = {
    "gaussian_weight": (0.0, 0.5, 1.0, 2.0, 5.0, 10.0),
    "gaussian_std": (0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
    "bilateral_weight": (0.0, 0.5, 1.0, 3.0, 10.0, 30.0),
    "bilateral_std": (1.0, 2.0, 4.0, 10.0, 30.0, 100.0),
    "intensity_std": (10.0, 20.0, 35.0, 50.0, 80.0),
    "iterations": (1, 2, 4, 8),
}
_WEIGHT_OF = {
    "gaussian_std": "gaussian_weight",
    "bilateral_std": "bilateral_weight",
    "intensity_std": "bilateral_weight",
}
# Where weights are small and kernels narrow: from the published ones, a mask that is lost stays lost whatever changes.
GENTLE = CrfParameters(4, 1.0, 1.5, 1.0, 2.0, 50.0)


class Trial(NamedTuple):
    """One set of parameters and what it came to."""

    parameters: CrfParameters
    each: tuple[float, ...]  # DSC of every sample

    @property
    def dsc(self) -> float:
        """The mean."""
        return float(np.mean(self.each))


class Search(NamedTuple):
    """What `search` found."""

    best: Trial
    published: Trial
    bare: tuple[float, ...]  # DSC of the network's own masks, of every sample
    trials: list[Trial]  # all, in order

    @property
    def without(self) -> float:
        """Mean DSC of the network's own masks."""
        return float(np.mean(self.bare))

    @property
    def helps(self) -> bool:
        """Whether the best field is better than none by more than two standard errors of the gain.

        The best of many trials on few samples is a little better than none by chance alone.
        """
        gains = np.subtract(self.best.each, self.bare)
        error = gains.std(ddof=1) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
        return bool(gains.mean() > 2 * error)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "parameters": self.best.parameters.to_dict(),
            "dsc": {"without": self.without, "published": self.published.dsc, "found": self.best.dsc},
            "helps": self.helps,
            "trials": [{**trial.parameters.to_dict(), "dsc": trial.dsc} for trial in self.trials],
        }


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Dice similarity 2 |A and B| / (|A| + |B|) of two masks (Zhou 2020, section 3.3); 1 where both are empty."""
    mask, truth = np.asarray(mask, bool), np.asarray(truth, bool)
    if mask.shape != truth.shape:
        raise InputError(f"Masks to compare have shapes {mask.shape} and {truth.shape}: give two of one shape.")
    total = int(mask.sum()) + int(truth.sum())
    return 2 * int((mask & truth).sum()) / total if total else 1.0


def search(
    probabilities: Sequence[np.ndarray],
    volumes: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    rounds: int = 2,
    tell: Callable[[int, Trial], None] | None = None,
) -> Search:
    """Parameters with the highest mean DSC on samples whose masks are known: coordinate search.

    One parameter after the other takes the value that is best with the others as they are, `rounds` times over, from
    the published ones and from gentle ones; the better end counts. Deterministic. Sets that were tried are not tried
    again, and a parameter without effect (its term's weight is 0) is left alone.

    probabilities, volumes, masks: n each, (z, y, x), of samples that the network was not trained on: on others its
    probabilities are better than they will be. tell: called with the number and the result of every trial.
    """
    if not len(probabilities) or not len(probabilities) == len(volumes) == len(masks):
        raise InputError(
            f"A search takes as many probabilities, volumes and masks. Received {len(probabilities)}, {len(volumes)} "
            f"and {len(masks)}."
        )
    tried: dict[CrfParameters, Trial] = {}

    def trial(parameters: CrfParameters) -> Trial:
        if parameters not in tried:
            found = [
                dice(to_mask(refine(p, volume, parameters)), mask)
                for p, volume, mask in zip(probabilities, volumes, masks, strict=True)
            ]
            tried[parameters] = Trial(parameters, tuple(found))
            if tell is not None:
                tell(len(tried), tried[parameters])
        return tried[parameters]

    bare = tuple(dice(to_mask(p), mask) for p, mask in zip(probabilities, masks, strict=True))
    published = trial(PUBLISHED)
    ends = [_climb(trial, start, rounds) for start in (PUBLISHED, GENTLE)]
    return Search(max(ends, key=lambda end: end.dsc), published, bare, list(tried.values()))


def _climb(trial: Callable[[CrfParameters], Trial], start: CrfParameters, rounds: int) -> Trial:
    best = trial(start)
    for _ in range(rounds):
        before = best
        for name, values in _CHOICES.items():
            if getattr(best.parameters, _WEIGHT_OF.get(name, name)) == 0 and name in _WEIGHT_OF:
                continue
            others = [trial(dataclasses.replace(best.parameters, **{name: value})) for value in values]
            best = max([best, *others], key=lambda one: one.dsc)  # the first of equals: what was there stays
        if best is before:
            break
    return best
