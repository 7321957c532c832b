"""One cluster of particles: classified and averaged without a reference, to what resolution, written and read back.

    clusters/007/class-1.mrc               average of the largest class, not filtered
    clusters/007/class-1-half-1.mrc        of its half sets
    clusters/007/poses.npz                 particle, class, half set, pose and score of each member
    clusters/007/cluster.json              sizes, FSC, known structures; written last
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aitom_ssl.data.batches import standardize
from aitom_ssl.data.sources import Source
from aitom_ssl.discovery.alignment import Alignment
from aitom_ssl.discovery.averaging import Classification, classify_and_average, filtered, fsc_weights
from aitom_ssl.discovery.known_structures import Known, best_matches
from aitom_ssl.discovery.resolution import (
    HALF_SETS,
    ShellCorrelation,
    half_set_correlation,
    soft_sphere,
)
from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import atomic_write, write_json
from aitom_ssl.mrc import read_mrc, write_mrc

_SHOWN = 3  # known structures kept for each average


@dataclasses.dataclass(frozen=True)
class AveragingSettings:
    """How clusters are averaged; see `classify_and_average`.

    tilt_max: degrees either way about y; 90 for no missing wedge. mask_radius, max_shift: A, or None.
    """

    classes: int
    iterations: int
    gold_standard: bool
    tilt_max: float
    mask_radius: float | None
    max_shift: float | None
    seed: int

    @property
    def needed(self) -> int:
        """Members that a cluster must have."""
        return self.classes * (4 if self.gold_standard else 2)

    def mask(self, size: int, voxel_size: float) -> np.ndarray:
        """(size,) * 3, the soft sphere that averages are looked at in."""
        return soft_sphere(size, self.radius(size, voxel_size))

    def radius(self, size: int, voxel_size: float) -> float:
        """Of that sphere, voxels."""
        return size / 2 - 3 if self.mask_radius is None else self.mask_radius / voxel_size

    def check(self, size: int, voxel_size: float) -> None:
        """InputError for lengths that do not go with boxes of `size` voxels of `voxel_size` A."""
        half = size * voxel_size / 2
        if not 2 * voxel_size <= self.radius(size, voxel_size) * voxel_size <= half:
            raise InputError(
                f"--mask_radius={self.mask_radius or (size / 2 - 3) * voxel_size:g} in boxes of {size} voxels of "
                f"{voxel_size:g} A: expected {2 * voxel_size:g} to {half:g} A, or the mask holds nothing to compare."
            )
        if self.max_shift is not None and not 0 <= self.max_shift <= half:
            raise InputError(f"--max_shift={self.max_shift:g}: expected 0 to {half:g} A, half the box.")


def bright_volumes(source: Source, indices: np.ndarray) -> np.ndarray:
    """(n, z, y, x) float32 of the particles at `indices`, protein bright, each standardised; InputError names one."""
    volumes = np.array(source.read(np.asarray(indices)), np.float32)
    for i, volume in zip(indices, volumes, strict=True):
        if volume.min() == volume.max():
            raise InputError(f"{source.describe(int(i))} is constant: there is nothing to align in it, leave it out.")
    if source.contrast == "dark":
        np.negative(volumes, out=volumes)
    return volumes if source.standardized else standardize(volumes)


# === Averaging ===


def average_cluster(
    source: Source,
    indices: np.ndarray,
    settings: AveragingSettings,
    known: Sequence[Known],
    folder: Path,
    workers: int = 1,
) -> tuple[Classification, dict[str, Any]]:
    """Average the particles of `source` at `indices` and write `folder`; the second is what cluster.json says.

    known: structures to compare averages with. Raises InputError for fewer than `settings.needed` particles, particles
    that cannot be used, and half sets that are identical.
    """
    started = time.monotonic()
    voxel_size = source.voxel_size
    volumes = bright_volumes(source, indices)
    found = classify_and_average(
        list(volumes),
        settings.tilt_max,
        classes=settings.classes,
        iterations=settings.iterations,
        mask_radius=settings.radius(source.size, voxel_size),
        max_shift=None if settings.max_shift is None else settings.max_shift / voxel_size,
        gold_standard=settings.gold_standard,
        seed=settings.seed,
        workers=workers,
    )
    mask = settings.mask(source.size, voxel_size)
    rows = [class_result(found, c, voxel_size, mask, known, workers) for c in range(len(found.averages))]
    folder.mkdir(parents=True, exist_ok=True)
    for c, (average, halves) in enumerate(zip(found.averages, found.half_averages, strict=True), 1):
        write_mrc(folder / f"class-{c}.mrc", average.volume, voxel_size)
        for h, half in enumerate(halves, 1):
            if half is not None:
                write_mrc(folder / f"class-{c}-half-{h}.mrc", half.volume, voxel_size)
    with atomic_write(folder / "poses.npz") as temporary:
        np.savez(
            temporary,
            particle=np.asarray(indices),
            label=found.labels,
            half=found.half,
            quaternion=found.alignment.quaternion,
            shift=found.alignment.shift,
            score=found.alignment.score,
        )
    result = {
        "size": len(indices),
        "voxel_size": voxel_size,
        "box": source.size,
        "classes": rows,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(folder / "cluster.json", result)
    return found, result


def class_result(
    found: Classification, c: int, voxel_size: float, mask: np.ndarray, known: Sequence[Known], workers: int = 1
) -> dict[str, Any]:
    """Of one class, for JSON: size, mean score, FSC of its half sets (None where one is empty), known structures."""
    members = found.labels == c
    first, second = found.half_averages[c]
    fsc = independent = None
    if first is not None and second is not None:
        try:
            curve = half_set_correlation(first.volume, second.volume, voxel_size, mask)
        except InputError as error:
            raise InputError(f"class {c + 1}: {error}") from None
        fsc, independent = curve.correlation.tolist(), curve.independent.tolist()
    matches = best_matches(found.averages[c], known, voxel_size, mask, workers)
    return {
        "size": int(members.sum()),
        "score": float(np.asarray(found.alignment.score)[members].mean()),
        "fsc": fsc,
        "independent": independent,
        "known": [
            {"name": match.name, "score": match.score, "discrepancy": match.discrepancy} for match in matches[:_SHOWN]
        ],
    }


# === Reading back ===


@dataclasses.dataclass(frozen=True, eq=False)
class ClusterResult:
    """A finished cluster's folder. about: cluster.json; particles, labels, halves, alignment: (n,) of poses.npz."""

    folder: Path
    about: dict[str, Any]
    particles: np.ndarray
    labels: np.ndarray
    halves: np.ndarray
    alignment: Alignment

    def curve(self, c: int) -> ShellCorrelation | None:
        """FSC of the half sets of class `c` (from 0); None where there is none."""
        row, voxel_size = self.about["classes"][c], self.about["voxel_size"]
        if row["fsc"] is None:
            return None
        correlation = np.array(row["fsc"])
        frequency = np.arange(len(correlation)) / (self.about["box"] * voxel_size)
        return ShellCorrelation(frequency, correlation, np.array(row["independent"]), voxel_size)

    def resolution(self, c: int, threshold: float = HALF_SETS) -> float | None:
        """A; None where there is no FSC, or nothing agrees."""
        curve = self.curve(c)
        found = math.inf if curve is None else curve.resolution(threshold)
        return found if math.isfinite(found) else None

    def path(self, c: int) -> Path:
        """Of the average of class `c` (from 0)."""
        return self.folder / f"class-{c + 1}.mrc"

    def average(self, c: int) -> np.ndarray:
        """(n, n, n) float32."""
        return np.array(read_mrc(self.path(c))[0], np.float32)

    def shown(self, c: int) -> np.ndarray:
        """The average with each shell weighted by what its FSC says it is worth, to be looked at."""
        curve = self.curve(c)
        return self.average(c) if curve is None else trusted(self.average(c), curve)


def trusted(average: np.ndarray, curve: ShellCorrelation) -> np.ndarray:
    """An average with its shells weighted by `fsc_weights`; the coarsest three always stay."""
    weights = np.append(fsc_weights(curve.correlation[:-1]), 0.0)
    weights[:3] = 1.0
    return filtered(average, weights)


def read_cluster(folder: Path) -> ClusterResult:
    """What `average_cluster` has written; InputError where it is damaged."""
    try:
        about = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
        with np.load(folder / "poses.npz") as file:
            fields = {name: file[name] for name in file.files}
        alignment = Alignment(fields["quaternion"], fields["shift"], fields["score"])
        int(about["box"]), float(about["voxel_size"])
        for row in about["classes"]:
            int(row["size"]), float(row["score"]), row["fsc"], row["known"]
        return ClusterResult(folder, about, fields["particle"], fields["label"], fields["half"], alignment)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is damaged ({reason(error)}): delete it to average that cluster anew.") from None
