"""The report of a classifier: how often it is right, for which classes, how sure it is, and its worst mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation import figures
from aitom_ssl.evaluation.classification import ClassificationMetrics
from aitom_ssl.evaluation.report import (
    Command,
    Highlights,
    Picture,
    Section,
    Table,
    machine_facts,
    settings_section,
    write_report,
)

SHOWN = 8


def write_classification_report(
    path: str | os.PathLike,
    title: str,
    metrics: ClassificationMetrics,
    *,
    measured_on: str = "test",
    facts: Sequence[Sequence[str]] = (),
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    history: Sequence[Mapping[str, Any]] | None = None,
    best_epoch: int | None = None,
    data: Any = None,
    probabilities: np.ndarray | None = None,
    sections: Sequence[Section] = (),
    subtitle: str = "",
) -> Path:
    """Write the report to `path`, an .html file; returns the path.

    Args:
        path: a file that is there is replaced.
        title: what was measured.
        metrics: see `classification_metrics`.
        measured_on: the name of the samples, e.g. "test".
        facts: (name, text) rows for the summary.
        settings: shown whole.
        command: what makes the result again.
        history: of a training, one dict an epoch (see `figures.classification_curves_figure`), with `best_epoch`.
        data: the Dataset that was measured, with labels, and its `probabilities` (n, classes) in the same order: the
            surest mistakes are drawn. Give both or neither.
        sections: to stand before the settings.
        subtitle: below the title.
    """
    if (data is None) != (probabilities is None):
        raise InputError("The mistakes need `data` and `probabilities`. Received one of them: give both or neither.")
    shown = [_summary(metrics, measured_on, facts, command), _classes(metrics, measured_on), _calibration(metrics)]
    if history:
        shown.append(_curves(history, best_epoch, metrics.chance()))
    if data is not None:
        shown.append(_mistakes(data, probabilities))
    shown += sections
    if settings:
        shown.append(settings_section(settings))
    return write_report(path, title, shown, subtitle)


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` indices of wrong predictions, the least probable true class first; (n, classes) and (n,)."""
    truth = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(truth[wrong], kind="stable")][:count]


# === Sections ===


def _summary(
    metrics: ClassificationMetrics, measured_on: str, facts: Sequence[Sequence[str]], command: str
) -> Section:
    numbers = [
        (f"{metrics.accuracy:.3f}", f"accuracy (chance: {metrics.chance():.3f})"),
        (f"{metrics.balanced_accuracy:.3f}", "balanced accuracy"),
        (f"{metrics.macro_f1:.3f}", "macro F1"),
        (f"{metrics.calibration_error:.3f}", "calibration error (0: as sure as it is right)"),
    ]
    measured = [["measured on", f"{metrics.samples:,} {measured_on} samples, {len(metrics.class_names)} classes"]]
    blocks: list[Any] = [Highlights(numbers), Table([*measured, *facts, *machine_facts()], header=False)]
    if command:
        blocks += ["The command that makes this result again:", Command(command)]
    return Section("Summary", blocks)


def _classes(metrics: ClassificationMetrics, measured_on: str) -> Section:
    caption = (
        f"On {metrics.samples:,} {measured_on} samples. Precision: how much of what is called the class is right. "
        "Recall: how much of the class is found. F1: their harmonic mean. "
        f"Log-loss {metrics.log_loss:.3f} nats."
    )
    picture = Picture(
        figures.confusion_figure(metrics.confusion, metrics.class_names),
        "Confusion matrix: counts of samples, colour is the share of the true class.",
    )
    return Section("Class by class", [Table(metrics.rows(), caption), picture])


def _calibration(metrics: ClassificationMetrics) -> Section:
    caption = (
        "Can its confidence be believed? Of the samples of which it was 80% sure, 80% should be right: bars on the "
        "dashed line. Bars below it mean that it is too sure."
    )
    figure = figures.reliability_figure(metrics.reliability, metrics.calibration_error)
    return Section("Calibration", [Picture(figure, caption)])


def _curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None, chance: float) -> Section:
    figure = figures.classification_curves_figure(history, best_epoch, chance)
    kept = "" if best_epoch is None else f" The network of epoch {best_epoch}, the best on validation, was kept."
    caption = "The training curve is measured while the network learns, with dropout and augmentation."
    return Section("Training", [Picture(figure, caption + kept)])


def _mistakes(data: Any, probabilities: np.ndarray) -> Section:
    labels = np.asarray(data.labels)
    probabilities = np.asarray(probabilities)
    worst = worst_mistakes(probabilities, labels, SHOWN)
    if len(worst) == 0:
        return Section("Worst mistakes", ["There are none: every sample is right."])
    predicted = probabilities[worst].argmax(axis=1)
    rows = [["sample", "true class", "its probability", "predicted class", "its probability"]]
    for index, guess in zip(worst, predicted, strict=True):
        true = labels[index]
        names = data.class_names[true], data.class_names[guess]
        rows.append(
            [f"{index}", names[0], f"{probabilities[index, true]:.3f}", names[1], f"{probabilities[index, guess]:.3f}"]
        )
    titles = [data.class_names[labels[index]] for index in worst]
    picture = Picture(
        figures.slices_figure(data.volumes(worst), titles, data.voxel_size),
        "Central slices of the mistakes whose true class, which stands above, was the least probable.",
    )
    return Section("Worst mistakes", [picture, Table(rows, "In the same order; the sample's number in its split.")])
