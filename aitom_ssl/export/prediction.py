"""Classifying any number of particles from files to files, and measuring a classifier on labelled ones.

A thread reads the next batches while the network computes; memory holds a few of them. Whatever stops a prediction, its
finished parts stay, and the same call goes on after them to the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from aitom_ssl.data.sources import Reading, Source, is_dataset, open_source
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import BATCH_SIZE, Classifier, ModelFiles, find_model, load_classifier
from aitom_ssl.export.feed import Feed, ahead
from aitom_ssl.export.part_batches import part_batches
from aitom_ssl.export.prediction_folder import PredictionFolder
from aitom_ssl.files import refuse_unwritable, write_json

if TYPE_CHECKING:
    from aitom_ssl.evaluation import ClassificationMetrics


class Outcome(NamedTuple):
    """What `predict_files` came to."""

    folder: Path
    classes: dict[str, int]  # particles of each
    left_out: list[str]  # particles that could not be used
    notes: list[str]  # what the user should know
    seconds: dict[str, float]  # of the call that finished: "total", with "waiting" for data, "computing" and "writing"
    particles: int  # classified by this call; 0 when all was done already


def refuse_differences(files: ModelFiles, source: Source, ignore: bool) -> list[str]:
    """InputError that names what differs from the model's training data; with `ignore` as notes."""
    description = files.description()
    contrast = source.contrast if source.stored_contrast else None
    found = description.differences(source.size, source.voxel_size, contrast)
    if found and not ignore:
        raise InputError(
            f"The data are not like those that {files.path} was trained on: {'; '.join(found)}. Mend that, or take "
            "them as they are with --ignore_mismatch; boxes are then cropped or padded about their centre."
        )
    return [f"taken as it is: {difference}." for difference in found]


# === Files to files ===


def predict_files(
    run: str | os.PathLike,
    data: str,
    output: str | os.PathLike,
    reading: Reading | None = None,
    batch_size: int = BATCH_SIZE,
    precision: str | None = None,
    ignore_mismatch: bool = False,
    skip_damaged: bool = False,
    command: str = "",
) -> Outcome:
    """Classify the particles of `data` with the classifier at `run`; predictions.csv and predictions.star in `output`.

    Args:
        run: see `classifier.find_model`.
        data: see `sources.open_source`, with `reading`.
        output: a new folder, or one that the same call has begun (or finished: nothing is done then).
        batch_size, precision: see `load_classifier`.
        ignore_mismatch: take data of another voxel size, box or contrast than the model's as they are; boxes are
            cropped, or padded with their mean, about the centre.
        skip_damaged: leave out particles that are NaN, infinite, constant or cannot be read.
        command: how to go on, for messages.

    Raises:
        InputError: for what cannot be used, with both values where data and model differ; an `output` of another call;
            a damaged particle. KeyboardInterrupt and InputError say what is kept.
    """
    reading = reading or Reading()
    files = find_model(run)
    refuse_unwritable(output)
    source = open_source(data, reading, files.size)
    identity = _identity(files, source, reading, batch_size, precision)
    folder = PredictionFolder(Path(output), identity, source, files.about["class_names"])
    folder.refuse_others()
    if folder.finished():
        return _outcome(folder)._replace(particles=0)
    classifier = load_classifier(files, batch_size, precision)
    description = classifier.description
    notes = [*source.notes, *refuse_differences(files, source, ignore_mismatch)]
    feed = Feed(source, description.size, description.contrast, skip_damaged)
    with folder.at_work(command):
        clock = _Clock()
        _write_parts(folder, feed, classifier, clock)
        with clock("writing"):
            folder.finish(lambda: {"notes": [*notes, *feed.notes()], **clock.to_dict()})
    return _outcome(folder)


def _outcome(folder: PredictionFolder) -> Outcome:
    stored = folder.stored()
    return Outcome(folder.path, *(stored[key] for key in Outcome._fields[1:]))


def _identity(
    files: ModelFiles, source: Source, reading: Reading, batch_size: int, precision: str | None
) -> dict[str, Any]:
    """What must be the same for a second call to go on with what a first one has written."""
    return {
        "model": {"description": files.about, "sha256": files.digest()},
        "data": {**source.identity, "particles": len(source)},
        "settings": {**reading.identity(), "batch_size": batch_size, "precision": precision},
    }


class _Clock:
    """Seconds spent, by what on."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds = {"waiting": 0.0, "computing": 0.0, "writing": 0.0}
        self.particles = 0

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start

    def to_dict(self) -> dict[str, Any]:
        total = time.perf_counter() - self.started
        return {"seconds": {"total": total, **self.seconds}, "particles": self.particles}


def _write_parts(folder: PredictionFolder, feed: Feed, classifier: Classifier, clock: _Clock) -> None:
    """Predict every missing part."""
    indices, probabilities = [], []
    waiting = functools.partial(clock, "waiting")
    with contextlib.closing(part_batches(folder, feed, classifier.batch_size, "classifying", waiting)) as stream:
        for number, batch, last in stream:
            with clock("computing"):
                probabilities.append(classifier.probabilities(batch.volumes, standardized=True))
            indices.append(batch.indices)
            clock.particles += len(batch.indices)
            if last:
                with clock("writing"):
                    folder.write_part(number, np.concatenate(indices), np.concatenate(probabilities))
                indices, probabilities = [], []


# === Measuring ===


def evaluate_classifier(
    run: str | os.PathLike,
    data: str,
    output: str | os.PathLike,
    reading: Reading | None = None,
    batch_size: int = BATCH_SIZE,
    precision: str | None = None,
    ignore_mismatch: bool = False,
    ignore_unknown: bool = False,
    command: str = "",
) -> tuple[ClassificationMetrics, list[str]]:
    """Measure the classifier at `run` on the labelled particles of `data`; results.json and report.html in `output`.

    Classes are matched by name, in whatever order they stand. Unlabelled particles are left out. The arguments are
    those of `predict_files`, but that of a dataset the test split is measured unless `reading` names another;
    ignore_unknown leaves out particles of classes that the model does not know.

    Returns:
        The metrics, over the model's classes, and notes for the user.

    Raises:
        InputError: as `predict_files`, for data without labels, and for a class that the model does not know.
    """
    reading = reading or Reading()
    if reading.split is None and is_dataset(data):
        reading = dataclasses.replace(reading, split="test")
    files = find_model(run)
    _refuse_results(Path(output))
    source = open_source(data, reading, files.size)
    chosen, labels = match_labels(source, files.about["class_names"], files.path, ignore_unknown)
    classifier = load_classifier(files, batch_size, precision)
    from aitom_ssl.evaluation import classification_metrics, write_classification_report

    notes = [*source.notes, *refuse_differences(files, source, ignore_mismatch)]
    feed = Feed(source, classifier.description.size, classifier.description.contrast, skip_damaged=False)
    found = []
    starts = range(0, len(chosen), batch_size)
    stream = ahead(feed.batch, (chosen[start : start + batch_size] for start in starts))
    with (
        tqdm(total=len(chosen), desc="classifying", unit=" subtomograms", disable=None) as bar,
        contextlib.closing(stream),
    ):
        for batch in stream:
            found.append(classifier.probabilities(batch.volumes, standardized=True))
            bar.update(len(batch.indices))
    notes += feed.notes()
    if len(chosen) < len(source):
        notes.append(f"{len(source) - len(chosen):,} particles without a label that the model knows were left out.")
    probabilities = np.concatenate(found)
    metrics = classification_metrics(probabilities, labels, classifier.description.class_names)
    about = {"model": str(files.path), "data": data, "measured_on": reading.split or "labelled", "notes": notes}
    measured = types.SimpleNamespace(
        labels=labels,
        class_names=list(metrics.class_names),
        voxel_size=source.voxel_size,
        volumes=lambda rows: source.read(chosen[np.asarray(rows)]),
    )
    Path(output).mkdir(parents=True, exist_ok=True)
    write_json(Path(output) / "results.json", {**about, **metrics.to_dict()})
    write_classification_report(
        Path(output) / "report.html",
        f"{classifier.description.architecture} on {data}",
        metrics,
        measured_on=about["measured_on"],
        facts=[["model", about["model"]], ["data", data], *(["note", note] for note in notes)],
        command=command,
        data=measured,
        probabilities=probabilities,
    )
    return metrics, notes


def match_labels(
    source: Source, class_names: Sequence[str], model: Path, ignore_unknown: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the particles with a label, and these labels in the order of `class_names`.

    InputError where there is none, or for a class that occurs and is not among `class_names` (left out with
    `ignore_unknown`).
    """
    labelled = np.flatnonzero(source.labels >= 0)
    if not len(labelled):
        raise InputError("The data have no labels, nothing to measure with: give labelled data, or use predict.")
    occurring = np.unique(source.labels[labelled])
    unknown = [source.class_names[k] for k in occurring if source.class_names[k] not in class_names]
    if unknown and (not ignore_unknown or len(unknown) == len(occurring)):
        more = "" if len(unknown) == len(occurring) else ", or leave its particles out with --ignore_unknown"
        raise InputError(
            f"{model} does not know the class {unknown[0]!r} of the data (it knows {', '.join(class_names)}): give "
            f"other data{more}."
        )
    numbers = {name: i for i, name in enumerate(class_names)}
    lookup = np.array([numbers.get(name, -1) for name in source.class_names])
    labels = lookup[source.labels[labelled]]
    return labelled[labels >= 0], labels[labels >= 0]


def _refuse_results(output: Path) -> None:
    refuse_unwritable(output)
    if output.is_dir() and any(output.iterdir()) and not (output / "results.json").is_file():
        raise InputError(f"{output} is there, not empty and no evaluation: give another --output.")
    if (output / "config.yaml").is_file():
        raise InputError(f"{output} is a run, whose results would be written over: give another --output.")
