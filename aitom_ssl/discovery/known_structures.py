"""Which known structure an average looks like most, and to what detail: aligned, scored, compared by FSC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.discovery.alignment import Alignment, align_many
from aitom_ssl.discovery.averaging import Average, average_subtomograms
from aitom_ssl.discovery.resolution import structural_discrepancy
from aitom_ssl.discovery.template_matching import ctf_template
from aitom_ssl.errors import InputError
from aitom_ssl.structures import resolve

# What `ctf_template` takes of a simulated dataset's parameters.
_OPTICS = ("voltage_kv", "defocus_um", "cs_mm", "amplitude_contrast")


class Known(NamedTuple):
    """A structure as the microscope shows it.

    template: (n, n, n), protein bright. voxels: how many the structure itself fills. radius: voxels.
    """

    name: str
    template: np.ndarray
    voxels: int
    radius: float


class Match(NamedTuple):
    """A known structure beside an average.

    score: constrained cross-correlation, at most 1. discrepancy: A, see `structural_discrepancy`. posed: (n, n, n) the
    average in the pose of the structure's template.
    """

    name: str
    score: float
    discrepancy: float
    posed: np.ndarray


def known_structures(
    names: Sequence[str],
    size: int,
    voxel_size: float,
    simulation: Mapping[str, Any] | None = None,
    references: Sequence[str] | None = None,
) -> tuple[list[Known], list[str]]:
    """Templates in boxes of `size` voxels of `voxel_size` A, and a note on each structure that does not fit.

    names: of classes; what is no name of a structure that is at hand is left out without a note. simulation:
    parameters of a simulated dataset, whose optics the templates get. references: what `structures.resolve` takes for
    each name; the names themselves by default.
    """
    optics = {name: simulation[name] for name in _OPTICS if name in (simulation or {})}
    found, notes = [], []
    for name, reference in zip(names, references or names, strict=True):
        try:
            structure = resolve(reference)
        except InputError:
            continue
        density = structure.density(voxel_size)
        try:
            template = ctf_template(density, size, **optics)
        except InputError:
            notes.append(f"{name} is larger than the box: averages are not compared with it.")
            continue
        filled = int((density.volume > density.threshold).sum())
        found.append(Known(name, template, filled, density.radius / voxel_size))
    return found, notes


def best_matches(
    average: Average, known: Sequence[Known], voxel_size: float, mask: np.ndarray, workers: int = 1
) -> list[Match]:
    """How well each of `known` fits an average, the best score first. mask: (n, n, n), what is looked at to align."""
    if not known:
        return []
    measured = average.coverage >= 1
    aligned = align_many(
        [average.volume * mask], [one.template for one in known], [measured], workers=min(workers, len(known))
    )
    found = []
    for i, one in enumerate(known):
        pose = Alignment(aligned.quaternion[0, i][None], aligned.shift[0, i][None], aligned.score[0, i][None])
        posed = average_subtomograms([average.volume], pose, [measured]).volume
        discrepancy = structural_discrepancy(posed, one.template, voxel_size)
        found.append(Match(one.name, float(aligned.score[0, i]), discrepancy, posed))
    return sorted(found, key=lambda match: -match.score)
