"""Pictures and the page of a classification from one example a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aitom_ssl.data.sources import Source
from aitom_ssl.data.support_set import NONE
from aitom_ssl.evaluation.mask_figure import mask_figure
from aitom_ssl.evaluation.report import Command, Highlights, Picture, Section, Table, write_report
from aitom_ssl.evaluation.score_figure import scores_figure
from aitom_ssl.export.segmentation_report import some_masks
from aitom_ssl.files import atomic_write
from aitom_ssl.oneshot.calibration import calibration_words

if TYPE_CHECKING:
    import pandas

    from aitom_ssl.export.oneshot_support import Support

_EXAMPLES = 12


def write_oneshot_report(
    folder: Path, source: Source, table: pandas.DataFrame, known: Support, found: Mapping[str, Any]
) -> None:
    """support.png, scores.png, masks.png (of networks that make masks) and report.html in `folder`.

    found: "calibration", "threshold", "measured", "notes", "crf", "data" and "command".
    """
    shown = slice(0, _EXAMPLES)
    masks = np.zeros(known.volumes.shape, bool) if known.masks is None else known.masks
    names = [known.class_names[label] for label in known.labels]
    figures = {"support": mask_figure(known.volumes[shown], masks[shown], names[shown], source.voxel_size)}
    calibration = known.calibration
    best = table[[f"score_{name}" for name in known.class_names]].max(axis=1).to_numpy(float)
    figures["scores"] = scores_figure(
        {
            "known": calibration.curve(calibration.known),
            "unknown": calibration.curve(calibration.unknown),
        },
        best,
        found["threshold"],
    )
    if known.masks is not None and len(table):
        figures["masks"] = some_masks(folder, source, table, titles=table["class"])
    for name, figure in figures.items():
        with atomic_write(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150, facecolor="white")
    sections = _sections(table, known, found, figures)
    write_report(folder / "report.html", f"One-shot classes of {found['data']}", sections)


def _sections(table: Any, known: Support, found: Mapping[str, Any], figures: Mapping[str, Any]) -> list[Section]:
    counts = table["class"].value_counts()
    names = [*known.class_names, NONE]
    rows = [["class", "examples", "particles", "share"]]
    for label, name in enumerate(names):
        examples = "" if name == NONE else str(int((known.labels == label).sum()))
        count = int(counts.get(name, 0))
        rows.append([name, examples, f"{count:,}", f"{count / max(len(table), 1):.1%}"])
    crf = found["crf"]
    facts = [
        ["data", found["data"]],
        ["threshold", f"{found['threshold']:g}"],
        ["CRF", "none" if crf is None else ", ".join(f"{key} {value:g}" for key, value in crf.items())],
        *(["note", note] for note in found["notes"]),
    ]
    items = [(f"{len(table):,}", "particles"), (f"{int(counts.get(NONE, 0)):,}", "of none of the classes")]
    measured = found["measured"]
    if measured is not None:
        items.append((f"{measured['right']:.1%}", f"right, of {measured['known']:,} labelled with one of the classes"))
        if measured["rejected"] is not None:
            items.append((f"{measured['rejected']:.1%}", f"called none, of {measured['others']:,} labelled otherwise"))
    sections = [
        Section("Result", [Highlights(items), Table(rows), Table(facts, header=False)]),
        Section("Support set", [Picture(figures["support"], "Central z, y and x slices of the examples, with masks.")]),
        Section("Scores", [calibration_words(found["calibration"]), Picture(figures["scores"], _SCORES)]),
    ]
    if "masks" in figures:
        sections.append(
            Section("Masks", [Picture(figures["masks"], "Some particles, drawn by chance, with their classes.")])
        )
    if found["command"]:
        sections.append(Section("Again", [Command(found["command"])]))
    return sections


_SCORES = (
    "Above: best scores of the examples' own turned views, with their class among the others (known) and without it "
    "(unknown). Below: those of the particles. The line is the threshold."
)
