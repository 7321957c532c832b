"""Masks of any number of particles from files to files, with a trained COS-Net and, where wanted, the CRF.

    segmentation.json     network, data and settings (a call with others is refused), and what came of it
    masks/NAME.mrc        int8, 1 in the particle, in the box and with the voxel size of the data
    probabilities/        the same as float32, where asked for
    volumes.csv           a row a particle: its mask's file, voxels, volume in nm^3, ...
    masks.png volumes.png report.html
    parts/                256 particles each, while it is not finished

Every file is written whole or not at all, and the same call goes on after an interruption.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aitom_ssl.data.sources import Reading, Source, open_source
from aitom_ssl.export.classifier import ModelFiles
from aitom_ssl.export.feed import Feed
from aitom_ssl.export.masks import Segmenter, find_segmenter, mask_header, write_mask
from aitom_ssl.export.part_batches import part_batches
from aitom_ssl.export.parts_folder import PartsFolder
from aitom_ssl.export.prediction import refuse_differences
from aitom_ssl.export.prediction_tables import csv_value
from aitom_ssl.files import refuse_unwritable
from aitom_ssl.oneshot.crf import CrfParameters, pydensecrf
from aitom_ssl.oneshot.trained import BATCH_SIZE, load_cosnet

if TYPE_CHECKING:
    import pandas

PART = 256


class Segmentation(NamedTuple):
    """What `segment_files` came to."""

    folder: Path
    particles: int
    empty: int  # masks without a voxel
    median_nm3: float | None  # of the volumes that are not 0
    left_out: list[str]  # particles that could not be used
    notes: list[str]  # what the user should know
    seconds: float  # of the call that finished
    new: int  # particles segmented by this call; 0 when all was done already


def segment_files(
    run: str | os.PathLike,
    data: str,
    output: str | os.PathLike,
    reading: Reading | None = None,
    field: CrfParameters | None = None,
    probabilities: bool = False,
    batch_size: int = BATCH_SIZE,
    precision: str | None = None,
    ignore_mismatch: bool = False,
    skip_damaged: bool = False,
    command: str = "",
) -> Segmentation:
    """Segment the particles of `data` with the COS-Net at `run`; masks, volumes and pictures in `output`.

    Args:
        run: a finished run of train_cosnet.
        data, reading, ignore_mismatch, skip_damaged: as `prediction.predict_files` takes them.
        output: a new folder, or one that the same call has begun (or finished: nothing is done then).
        field: parameters of the CRF; None leaves it out.
        probabilities: write probability volumes beside the masks.
        batch_size: volumes that go through the network at a time.
        precision: "float32" or "mixed_bfloat16"; None: as it was trained.
        command: how to go on, for messages, and for the report.

    Raises:
        InputError: as `predict_files`, for a run that makes no masks, and for a CRF without pydensecrf.
    """
    reading, output = reading or Reading(), Path(output)
    files = find_segmenter(run)
    refuse_unwritable(output)
    if field is not None:
        pydensecrf()
    source = open_source(data, reading, files.size)
    identity = segmentation_identity(files, source, reading, field, probabilities, precision)
    folder = PartsFolder(output, "segmentation", "volumes.csv", identity, len(source), PART)
    folder.refuse_others()
    if folder.finished():
        return _outcome(folder)._replace(new=0)
    network = load_cosnet(files.path.parent, precision, batch_size)
    notes = [*source.notes, *refuse_differences(files, source, ignore_mismatch)]
    feed = Feed(source, network.description.size, network.description.contrast, skip_damaged)
    started = time.perf_counter()
    with folder.at_work(command):
        new = _write_parts(folder, feed, Segmenter(network, field, source.size), probabilities)
        _finish(folder, feed, notes, {"data": data, "command": command})
        folder.write_about({**folder.stored(), "seconds": time.perf_counter() - started, "new": new, "finished": True})
        folder.remove_parts()
    return _outcome(folder)


def segmentation_identity(
    files: ModelFiles,
    source: Source,
    reading: Reading,
    field: CrfParameters | None,
    probabilities: bool,
    precision: str | None,
) -> dict[str, Any]:
    """What must be the same for a second call to go on with what a first one has written."""
    crf = None if field is None else field.to_dict()
    return {
        "network": {"description": files.about, "sha256": files.digest()},
        "data": {**source.identity, "particles": len(source)},
        "settings": {**reading.identity(), "crf": crf, "probabilities": probabilities, "precision": precision},
    }


def _write_parts(folder: PartsFolder, feed: Feed, segmenter: Segmenter, probabilities: bool) -> int:
    """Segment every missing part; how many particles that were."""
    source, rows, new = feed.source, [], 0
    with contextlib.closing(part_batches(folder, feed, segmenter.network.batch_size, "segmenting")) as stream:
        for number, batch, last in stream:
            if len(batch.indices):
                _, masks, found = segmenter(batch.volumes)
                for i, mask, volume in zip(batch.indices.tolist(), masks, found, strict=True):
                    about = [column[i] for column in source.columns.values()]
                    row = [*about, *write_mask(folder.path, source, i, mask, volume, probabilities)]
                    rows.append([i, *map(csv_value, row)])
            new += len(batch.indices)
            if last:
                # The rows of a part come after its masks: a part that is there is whole.
                folder.write_rows(number, mask_header(source), rows)
                rows = []
    return new


def _finish(folder: PartsFolder, feed: Feed, notes: list[str], about: dict[str, str]) -> None:
    """The table of all parts, the pictures and the report, and what they say in the JSON file."""
    import pandas

    from aitom_ssl.export.segmentation_report import write_segmentation_report

    folder.join()
    table = pandas.read_csv(folder.csv)
    source, kept = feed.source, set(table["particle"].tolist())
    volumes = table["volume_nm3"].to_numpy(float)
    found = {
        "particles": len(table),
        "empty": int((volumes == 0).sum()),
        "median_nm3": float(np.median(volumes[volumes > 0])) if (volumes > 0).any() else None,
        "left_out": [source.describe(i) for i in range(len(source)) if i not in kept],
        "notes": [*notes, *feed.notes(), *remarks(table)],
    }
    folder.write_about(found)
    if len(table):
        write_segmentation_report(folder.path, source, table, folder.stored(), about)


def remarks(table: pandas.DataFrame) -> list[str]:
    """What masks say of themselves: notes for the user, of a table with the columns of `masks.Measured`."""
    unusual = {
        "have an empty mask": table["voxels"] == 0,
        "have a mask in several pieces": table["pieces"] > 1,
        "have a mask that reaches the rim of the box: their volume may be larger": table["at_rim"] > 0,
    }
    return [f"{rows.sum():,} of {len(table):,} particles {words}." for words, rows in unusual.items() if rows.any()]


def _outcome(folder: PartsFolder) -> Segmentation:
    stored = folder.stored()
    return Segmentation(folder.path, *(stored[key] for key in Segmentation._fields[1:]))
