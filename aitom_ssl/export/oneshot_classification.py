"""Classes, scores and masks of any number of particles from one example a class, from files to files.

    predictions.json     network, support set, data and settings (a call with others is refused), and what came of it
    predictions.csv      a row a particle: closest class, mask and its volume, class or "none", score, a score a class
    predictions.star     the same for RELION, without the masks
    masks/NAME.mrc       as `segmentation` writes them, of networks with a decoder
    support.png scores.png report.html
    parts/               256 particles each, while it is not finished

The features of the support set are computed once. A particle's class is the one with the highest score, or "none" where
none of them reaches the threshold: the columns of "none" hold the threshold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aitom_ssl.data.sources import Reading, Source, open_source
from aitom_ssl.data.support_set import NONE, open_support
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import find_run
from aitom_ssl.export.feed import Feed
from aitom_ssl.export.masks import Measured, Segmenter, write_mask
from aitom_ssl.export.oneshot_support import Support, learn_support
from aitom_ssl.export.part_batches import part_batches
from aitom_ssl.export.prediction import refuse_differences
from aitom_ssl.export.prediction_folder import PredictionFolder
from aitom_ssl.export.prediction_tables import Numbers
from aitom_ssl.files import refuse_unwritable
from aitom_ssl.oneshot.crf import CrfParameters, pydensecrf
from aitom_ssl.oneshot.trained import BATCH_SIZE, TrainedCOSNet, find_cosnet, load_cosnet

if TYPE_CHECKING:
    import pandas

PART = 256
SCORES = Numbers("score", "score_", "aitomScore", "aitomScore_", "aitomScoreColumn")
THRESHOLD = 0.5


class OneShot(NamedTuple):
    """What `classify_oneshot` came to."""

    folder: Path
    classes: dict[str, int]  # particles of each, "none" the last
    calibration: dict[str, Any]  # see `calibration.Calibration.to_dict`
    threshold: float
    measured: dict[str, Any] | None  # against the labels of the data, where they have any of the classes
    left_out: list[str]
    notes: list[str]
    seconds: float  # of the call that finished
    new: int  # particles classified by this call; 0 when all was done already


def classify_oneshot(
    run: str | os.PathLike,
    support: str | os.PathLike,
    data: str,
    output: str | os.PathLike,
    reading: Reading | None = None,
    support_dark: bool | None = None,
    threshold: float = THRESHOLD,
    field: CrfParameters | None = None,
    probabilities: bool = False,
    batch_size: int = BATCH_SIZE,
    precision: str | None = None,
    ignore_mismatch: bool = False,
    skip_damaged: bool = False,
    command: str = "",
) -> OneShot:
    """Classify and segment the particles of `data` by the examples in `support`, with the COS-Net at `run`.

    Args:
        run, data, output, field, probabilities, batch_size, precision, command: as `segmentation.segment_files`.
        support: a folder, see `data.support_set`.
        reading: how `data` are to be read. Its voxel_size and box_size hold for the support set too.
        support_dark: protein is dark in the support set; None: as in the data, where they are files.
        threshold: score, 0 to 1, that a particle needs to be of a class; see `oneshot.calibration`.
        ignore_mismatch, skip_damaged: as `prediction.predict_files`; no example of the support set is left out.

    Raises:
        InputError: as `segment_files`, for what `open_support` refuses, examples of another voxel size or box than the
            network's, and damaged ones.
    """
    reading, output = reading or Reading(), Path(output)
    _, config = find_cosnet(run)
    files = find_run(run)
    if not 0 <= threshold <= 1:
        raise InputError(f"--threshold={threshold:g}: expected a score from 0 to 1.")
    if field is not None:
        pydensecrf()
    refuse_unwritable(output)
    dark = reading.invert_contrast if support_dark is None else support_dark
    examples = open_support(support, dataclasses.replace(reading, invert_contrast=dark))
    source = open_source(data, reading, files.size)
    class_names = [*examples.class_names, NONE]
    masks = config.get("settings", {}).get("decoder") is not False
    settings = {"threshold": threshold, "crf": None if field is None else field.to_dict()}
    identity = {
        "network": {"description": files.about, "sha256": files.digest()},
        "support": {**examples.identity, "contrast": examples.contrast, "classes": examples.class_names},
        "data": {**source.identity, "particles": len(source)},
        "settings": {**reading.identity(), **settings, "probabilities": probabilities, "precision": precision},
    }
    further = ["closest", *(("mask", *Measured._fields) if masks else ())]
    folder = PredictionFolder(output, identity, source, class_names, SCORES, further, PART)
    folder.refuse_others()
    if folder.finished():
        return _outcome(folder)._replace(new=0)
    network = load_cosnet(run, precision, batch_size)
    notes = [*source.notes, *refuse_differences(files, source, ignore_mismatch)]
    try:
        notes += [f"support set: {note}" for note in refuse_differences(files, examples, ignore_mismatch)]
    except InputError as error:
        raise InputError(str(error).replace("The data are", "The examples of the support set are")) from None
    notes += _remarks(examples, config)
    feed = Feed(source, network.description.size, network.description.contrast, skip_damaged)
    segmenter = Segmenter(network, field, source.size) if masks else None
    started = time.perf_counter()
    known = learn_support(network, examples, field if masks else None)
    with folder.at_work(command):
        new = _write_parts(folder, feed, network, segmenter, known, threshold, probabilities)
        folder.join()
        import pandas

        from aitom_ssl.export.oneshot_report import write_oneshot_report

        table = pandas.read_csv(folder.csv, keep_default_na=False, na_values={"probability": ["nan"]})
        found = {
            "calibration": known.calibration.to_dict(),
            "threshold": threshold,
            "measured": against_labels(table, source, examples.class_names),
            "notes": [*notes, *feed.notes(), *_spread(known)],
        }
        about = {**found, "data": data, "command": command, "crf": settings["crf"]}
        write_oneshot_report(output, source, table, known, about)
        folder.finish(lambda: {**found, "seconds": time.perf_counter() - started, "new": new})
    return _outcome(folder)


def _remarks(examples: Source, config: dict[str, Any]) -> list[str]:
    """What the user should know of a support set before anything is computed with it."""
    counts = np.bincount(examples.labels)
    notes = []
    if len(counts) == 1:
        notes.append(
            "the support set has one class: none is what is more than twice as far from it as its own turned copies; "
            "give others to tell it from."
        )
    elif len(counts) == 2:
        notes.append("with two classes, how well particles of neither are told cannot be measured: give a third.")
    if (counts == 1).any() and len(counts) > 1:
        notes.append(
            f"{(counts == 1).sum()} of {len(counts)} classes have one example, whose turned copies stand in for other "
            "particles of the class: somewhat more of these are called none than said. A second example mends that."
        )
    seen = [name for name in examples.class_names if name in config.get("classes", ())]
    if seen:
        notes.append(f"the network was trained on classes of these names: {', '.join(seen)}.")
    return notes


def _spread(known: Support) -> list[str]:
    """A note where the support set's classes cannot be told apart by their own views."""
    right = known.calibration.right
    if len(known.class_names) > 1 and right < 0.9:
        return [f"only {right:.0%} of the turned examples are matched with their own class: expect mistakes."]
    return []


def _write_parts(
    folder: PredictionFolder,
    feed: Feed,
    network: TrainedCOSNet,
    segmenter: Segmenter | None,
    known: Support,
    threshold: float,
    probabilities: bool,
) -> int:
    """Classify every missing part; how many particles that were."""
    source, new = feed.source, 0
    indices, values, further = [], [], []
    with contextlib.closing(part_batches(folder, feed, network.batch_size, "classifying")) as stream:
        for number, batch, last in stream:
            if len(batch.indices):
                if segmenter is None:
                    features, masks, found = network(batch.volumes, standardized=True)[0], None, None
                else:
                    features, masks, found = segmenter(batch.volumes)
                scores = known.scores(network, features)
                values.append(np.concatenate([scores, np.full((len(scores), 1), threshold, np.float32)], axis=1))
                for k, i in enumerate(batch.indices.tolist()):
                    more: Sequence[Any] = ()
                    if masks is not None:
                        more = write_mask(folder.path, source, i, masks[k], found[k], probabilities)
                    further.append([known.class_names[int(scores[k].argmax())], *more])
                indices.append(batch.indices)
            new += len(batch.indices)
            if last:
                none = np.empty((0, len(folder.class_names)), np.float32)
                folder.write_part(
                    number, np.concatenate([[], *indices]).astype(np.int64), np.concatenate([none, *values]), further
                )
                indices, values, further = [], [], []
    return new


def against_labels(table: pandas.DataFrame, source: Source, class_names: Sequence[str]) -> dict[str, Any] | None:
    """How the classes of `table` compare with the labels of the data, matched by name; None without such labels.

    Returns:
        "known": labelled particles of the support set's classes, of which "right" have their class, "closest" have it
        as the closest one, and "missed" are called none; "others": labelled ones of other classes, of which "rejected"
        are called none. Shares are None of no particles.
    """
    labels = source.labels[table["particle"].to_numpy(int)]
    names = np.array([*source.class_names, ""], dtype=object)[labels]
    known = np.isin(names, list(class_names))
    others = (labels >= 0) & ~known
    if not known.any():
        return None
    given, closest = table["class"].to_numpy(str), table["closest"].to_numpy(str)

    def share(hits: np.ndarray, rows: np.ndarray) -> float | None:
        return float(hits[rows].mean()) if rows.any() else None

    return {
        "known": int(known.sum()),
        "right": share(given == names, known),
        "closest": share(closest == names, known),
        "missed": share(given == NONE, known),
        "others": int(others.sum()),
        "rejected": share(given == NONE, others),
    }


def _outcome(folder: PredictionFolder) -> OneShot:
    stored = folder.stored()
    return OneShot(folder.path, *(stored[key] for key in OneShot._fields[1:]))
