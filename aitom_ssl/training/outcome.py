"""How the run of a classifier ends: measured on unseen samples, results.json, a table and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aitom_ssl.evaluation.classification import ClassificationMetrics, classification_metrics
from aitom_ssl.evaluation.classification_report import write_classification_report
from aitom_ssl.training.run import RunFolder


def conclude(
    run: RunFolder,
    probabilities: np.ndarray,
    measured: Any,
    measured_on: str,
    settings: Mapping[str, Any],
    command: str,
    facts: Sequence[Sequence[str]] = (),
    history: Sequence[Mapping[str, Any]] | None = None,
    best_epoch: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> ClassificationMetrics:
    """Measure `probabilities` (n, classes), write results.json and report.html into `run`, and print the table.

    Args:
        run: the classifier's folder.
        probabilities: of the samples of `measured`, in order.
        measured: Dataset of labelled samples.
        measured_on: "test" or "validation".
        settings, command, facts, history, best_epoch: for the report, see `write_classification_report`.
        more: what results.json says beside the metrics.
    """
    metrics = classification_metrics(probabilities, measured.labels, measured.class_names)
    run.write_results({"measured_on": measured_on, **(more or {}), **metrics.to_dict()})
    report = write_classification_report(
        run.path / "report.html",
        f"{settings['model']} on {measured.name}",
        metrics,
        measured_on=measured_on,
        facts=facts,
        settings=settings,
        command=command,
        history=history,
        best_epoch=best_epoch,
        data=measured,
        probabilities=probabilities,
    )
    print(f"\n{metrics.table()}\n\nmeasured on {metrics.samples:,} {measured_on} samples\nreport  {report}", flush=True)
    return metrics
