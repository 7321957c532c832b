"""Pictures and the page of a segmentation: some masks on their particles, and the volumes of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aitom_ssl.data.batches import subsample
from aitom_ssl.data.sources import Source
from aitom_ssl.evaluation.mask_figure import mask_figure, volumes_figure
from aitom_ssl.evaluation.report import Command, Highlights, Picture, Section, Table, write_report
from aitom_ssl.files import atomic_write
from aitom_ssl.mrc import read_mrc

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_SHOWN = 12
_SEED = 0
_LISTED = 20


def write_segmentation_report(
    folder: Path, source: Source, table: pandas.DataFrame, found: Mapping[str, Any], about: Mapping[str, str]
) -> None:
    """masks.png, volumes.png and report.html in `folder`, whose masks `table` lists.

    found: segmentation.json. about: "data" and the "command".
    """
    volumes = by_class(source.labels, source.class_names, table)
    figures = {"masks": some_masks(folder, source, table), "volumes": volumes_figure(volumes)}
    for name, figure in figures.items():
        with atomic_write(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150, facecolor="white")
    median, crf = found["median_nm3"], found["settings"]["crf"]
    facts = [
        ["data", about["data"]],
        ["voxel size", f"{source.voxel_size:g} A"],
        ["CRF", "none" if crf is None else ", ".join(f"{key} {value:g}" for key, value in crf.items())],
        *(["note", note] for note in found["notes"]),
        *(["left out", name] for name in found["left_out"][:_LISTED]),
    ]
    rows = [["class", "particles", "median nm³", "quartiles nm³"]]
    for name, values in volumes.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        rows.append([name, f"{len(values):,}", f"{middle:,.0f}", f"{low:,.0f} to {high:,.0f}"])
    items = [
        (f"{found['particles']:,}", "particles"),
        ("-" if median is None else f"{median:,.0f} nm³", "median volume"),
    ]
    shown = "Central z, y and x slices of some particles, drawn by chance, with the outlines of their masks."
    sections = [
        Section("Result", [Highlights(items), Table(facts, header=False)]),
        Section("Masks", [Picture(figures["masks"], shown)]),
        Section("Volumes", [Table(rows), Picture(figures["volumes"], "Volumes of the masks.")]),
    ]
    if about["command"]:
        sections.append(Section("Again", [Command(about["command"])]))
    write_report(folder / "report.html", f"Masks of {about['data']}", sections)


def some_masks(
    folder: Path, source: Source, table: pandas.DataFrame, titles: Sequence[str] | None = None
) -> Figure:
    """Up to twelve particles of `table` with the outlines of their masks below `folder`.

    titles: of every row; None: the names of the masks.
    """
    rows = subsample(len(table), _SHOWN, _SEED)
    shown = table.iloc[rows]
    masks = [np.array(read_mrc(folder / name)[0]) for name in shown["mask"]]
    words = [Path(name).stem for name in table["mask"]] if titles is None else list(titles)
    named = [
        f"{words[row]}  {volume:,.0f} nm³"
        for row, volume in zip(rows, shown["volume_nm3"], strict=True)
    ]
    return mask_figure(source.read(shown["particle"].to_numpy()), np.stack(masks), named, source.voxel_size)


def by_class(labels: np.ndarray, class_names: list[str], table: pandas.DataFrame) -> dict[str, np.ndarray]:
    """Volumes in nm^3 of the rows of `table` by the class that the data give their particles; "all" without any."""
    labels = labels[table["particle"].to_numpy()]
    volumes = table["volume_nm3"].to_numpy(float)
    if (labels < 0).all():
        return {"all": volumes}
    names = [*class_names, "unlabelled"]
    return {names[label]: volumes[labels == label] for label in np.unique(labels)}
