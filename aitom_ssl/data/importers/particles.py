"""What every importer hands over, and how it becomes a dataset: splits, contrast, normalisation, provenance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from aitom_ssl.data.header import SPLITS
from aitom_ssl.data.shards import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import quaternion_to_euler_zyz

LABELLED_SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}
UNLABELLED_SPLITS = {"train": 0.9, "validation": 0.1}
NORMALIZATIONS = ("zscore", "none")


@dataclass(frozen=True)
class Particles:
    """Particles that an importer has found and checked; their voxels are read one at a time, when they are written."""

    class_names: list[str]
    labels: np.ndarray  # (n,) index into class_names, -1 where unlabelled
    voxel_size: float  # A
    size: int  # voxels a side
    # i -> {volume (z, y, x) in the file's grey values; half, where the volume is the mean of two half images, the other
    # being twice the volume less it; path or row; quaternion and shift where they are known}
    read: Callable[[int], dict]
    describe: Callable[[int], str]  # i -> where particle i comes from, for messages
    source: dict  # provenance, stored with the dataset
    notes: list[str] = field(default_factory=list)  # what the user should know
    rows: np.ndarray | None = None  # (n,) row of each in its file of coordinates, from 0
    positions: np.ndarray | None = None  # (n, 3) x, y, z in voxels of its tomogram, from 0

    def __len__(self) -> int:
        return len(self.labels)


def parse_splits(text: str) -> dict[str, float]:
    """"train=0.8,test=0.2" to {"train": 0.8, "test": 0.2}."""
    fractions = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            fractions[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"--splits: {part!r} is not NAME=FRACTION, as in --splits=train=0.8,test=0.2.") from None
    return fractions


def assign_splits(labels: np.ndarray, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Split name to sorted indices: a random draw within each label (the unlabelled are one), fixed by `seed`.

    Each label is shared out by largest remainder, so every split is within one particle of its fraction.
    Raises InputError for a seed below 0, an unknown split, a fraction outside [0, 1] or fractions that do not add up
    to 1.
    """
    if seed < 0:
        raise InputError(f"--seed={seed}: expected 0 or more.")
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown:
        raise InputError(f"--splits: unknown split {unknown[0]!r}; expected some of {', '.join(SPLITS)}.")
    shares = np.array(list(fractions.values()), dtype=np.float64)
    if not np.all((shares >= 0) & (shares <= 1)) or not math.isclose(shares.sum(), 1.0, abs_tol=1e-6):
        given = ", ".join(f"{name}={share:g}" for name, share in fractions.items())
        raise InputError(f"--splits={given}: expected fractions between 0 and 1 that add up to 1.")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in fractions}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rng = np.random.default_rng(np.random.SeedSequence([seed, int(label) + 1]))
        members = rng.permutation(members)
        quota = shares * len(members)
        counts = np.floor(quota + 1e-9).astype(int)
        for k in np.argsort(counts - quota, kind="stable")[: len(members) - counts.sum()]:
            counts[k] += 1
        for name, part in zip(fractions, np.split(members, np.cumsum(counts)[:-1]), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def prepare_volume(
    volume: np.ndarray, invert: bool, normalize: str, where: str, sigma: float = 0.0
) -> np.ndarray:
    """float32 voxels, with the sign turned when `invert` and to mean 0 and deviation 1 when `normalize` is zscore.

    `sigma` > 0 smooths first with a Gaussian of that many voxels; beyond the box its outermost voxels go on.
    Raises InputError, naming `where`, for NaN or infinite voxels and for a volume that is constant.
    """
    return prepare_pair(volume, None, invert, normalize, where, sigma)[0]


def prepare_pair(
    volume: np.ndarray, half: np.ndarray | None, invert: bool, normalize: str, where: str, sigma: float = 0.0
) -> tuple[np.ndarray, np.ndarray | None]:
    """`prepare_volume` of a volume, and its half image, if any, smoothed, shifted, scaled and inverted like it."""
    volume = np.array(volume, dtype=np.float32)
    if not np.all(np.isfinite(volume)):
        bad = int(np.count_nonzero(~np.isfinite(volume)))
        raise InputError(f"{where} has {bad} voxels that are NaN or infinite: repair it or leave it out.")
    mean, deviation = volume.mean(dtype=np.float64), volume.std(dtype=np.float64)
    if deviation <= 1e-6 * abs(mean):
        raise InputError(f"{where} is constant (every voxel is {mean:g}): it holds nothing to learn, leave it out.")
    images = [volume] if half is None else [volume, np.array(half, dtype=np.float32)]
    if sigma:
        images = [gaussian_filter(image, sigma, mode="nearest") for image in images]
        mean, deviation = images[0].mean(dtype=np.float64), images[0].std(dtype=np.float64)
    if normalize == "zscore":
        images = [(image - np.float32(mean)) / np.float32(deviation) for image in images]
    if invert:
        images = [-image for image in images]
    return images[0], None if half is None else images[1]


class ContrastCheck:
    """Whether particles look darker than what surrounds them: centre minus rim, particle by particle."""

    LIMIT = -5.0  # standard errors of the mean

    def __init__(self, size: int) -> None:
        offset = np.arange(size) - size // 2
        radius = np.sqrt(offset[:, None, None] ** 2 + offset[None, :, None] ** 2 + offset[None, None, :] ** 2)
        self._centre = radius <= max(size / 6, 1)
        self._rim = radius >= size / 3
        self._differences: list[float] = []

    def add(self, volume: np.ndarray) -> None:
        """Take one more (z, y, x) particle into account."""
        self._differences.append(float((volume[self._centre].mean() - volume[self._rim].mean()) / volume.std()))

    def looks_dark(self) -> bool:
        """Whether ten particles or more were seen, and the mean difference is below LIMIT."""
        differences = np.array(self._differences)
        if len(differences) < 10:
            return False
        return differences.mean() < self.LIMIT * differences.std() / math.sqrt(len(differences))


def write_particles(
    particles: Particles,
    folder: str | Path,
    name: str | None = None,
    invert_contrast: bool = False,
    normalize: str = "zscore",
    smooth: float = 0.0,
    splits: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, int]]:
    """Write the dataset that `particles` make; split name to {class name or "unlabelled": count}.

    `invert_contrast` says that protein is dark in the files; it is bright in the dataset. `smooth` is the deviation in
    A of a Gaussian that each particle is convolved with (Xu 2017, section 3.1.2: 10). `splits` maps split names
    to fractions; by default 60:20:20 where there are labels and 90:10 (no test) where there are none.
    Notes for the user are appended to `particles.notes`.
    """
    if normalize not in NORMALIZATIONS:
        raise InputError(f"--normalize={normalize}: expected one of {', '.join(NORMALIZATIONS)}.")
    if not 0 <= smooth <= particles.size * particles.voxel_size / 4:
        most = particles.size * particles.voxel_size / 4
        raise InputError(f"--smooth={smooth:g}: expected 0 to {most:g} A, a quarter of the box.")
    labelled = bool(np.any(particles.labels >= 0))
    fractions = dict(splits or (LABELLED_SPLITS if labelled else UNLABELLED_SPLITS))
    parts = {split: part for split, part in assign_splits(particles.labels, fractions, seed).items() if len(part)}
    check = ContrastCheck(particles.size)
    sigma = smooth / particles.voxel_size

    def samples(indices: np.ndarray) -> Iterator[dict]:
        for i in tqdm(indices.tolist(), desc="importing", unit="particle", disable=None):
            sample = particles.read(i)
            where = particles.describe(i)
            sample["volume"], half = prepare_pair(
                sample["volume"], sample.get("half"), invert_contrast, normalize, where, sigma
            )
            if half is not None:
                sample["half"] = half
            sample["label"] = int(particles.labels[i])
            if "quaternion" in sample:
                sample["euler_zyz"] = quaternion_to_euler_zyz(sample["quaternion"])
            sample["index"] = i
            check.add(sample["volume"])
            yield sample

    write_dataset(
        folder,
        name=name or Path(folder).name,
        class_names=particles.class_names,
        voxel_size=particles.voxel_size,
        contrast="bright",
        splits={split: samples(part) for split, part in parts.items()},
        standardized=normalize == "zscore",
        metadata={
            "source": particles.source,
            "invert_contrast": invert_contrast,
            "normalize": normalize,
            "smooth": smooth,
            "seed": seed,
            "split_fractions": fractions,
            "notes": list(particles.notes),
        },
    )
    if check.looks_dark():
        particles.notes.append(
            "the particles come out darker than what surrounds them: if protein is dark in the files, "
            + ("leave --invert_contrast out." if invert_contrast else "import again with --invert_contrast.")
        )
    return {split: _counts(particles, part) for split, part in parts.items()}


def _counts(particles: Particles, part: np.ndarray) -> dict[str, int]:
    labels = particles.labels[part]
    counts = {name: int(np.sum(labels == k)) for k, name in enumerate(particles.class_names)}
    unlabelled = int(np.sum(labels < 0))
    return {**counts, "unlabelled": unlabelled} if unlabelled else counts
