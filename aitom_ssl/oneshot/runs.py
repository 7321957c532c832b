"""Trained runs measured on classes that they have never seen, and the folder that this makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from aitom_ssl.data import load, prepare
from aitom_ssl.data.header import read_header
from aitom_ssl.errors import InputError
from aitom_ssl.files import refuse_unwritable, write_json
from aitom_ssl.oneshot.evaluation import (
    Align,
    Answers,
    Interval,
    Measured,
    Refine,
    answer_episodes,
    dice_by_class,
    interval,
    measure,
    measured_classes,
)
from aitom_ssl.oneshot.tables import RunResult, variant_of
from aitom_ssl.oneshot.trained import find_cosnet, load_cosnet

KIND = "one-shot evaluation"
RESULTS = "results.json"


class Request(NamedTuple):
    """A run, and the samples that it is to be measured on."""

    run: str
    data: str  # as it was asked for
    samples: Any  # Dataset, of the measured classes alone


def checked_runs(
    runs: Sequence[str],
    data: str | None,
    output: str | os.PathLike,
    split: str = "test",
    seen: bool = False,
    limit: int | None = None,
) -> list[Request]:
    """What is to be measured, checked without a framework; the data are simulated where needed.

    Args:
        runs: folders of finished runs of train_cosnet, each once.
        data: of all of them; None: each run's own.
        output: a new folder, or that of an evaluation, which will be replaced.
        split: of the data. seen: measure on classes that a run was trained on, instead of on the others.
        limit: at most this many samples of the split.

    Raises:
        InputError: for anything else, and data with too few such classes.
    """
    refuse_unwritable(output)
    folder = Path(output)
    if folder.is_dir() and any(folder.iterdir()) and not _holds_evaluation(folder):
        raise InputError(f"{folder} is there and holds no evaluation: give another --output.")
    if len(set(runs)) < len(runs):
        raise InputError(f"--run={','.join(runs)} names a run twice: give each once.")
    configs = {run: find_cosnet(run)[1] for run in runs}
    return [
        _request(run, config, data or config["settings"]["data"], split, seen, limit) for run, config in configs.items()
    ]


def _request(run: str, config: Mapping[str, Any], data: str, split: str, seen: bool, limit: int | None) -> Request:
    header = read_header(prepare(data, limit))
    if split not in header["splits"]:
        raise InputError(f"{data} has no split {split!r} (it has {', '.join(header['splits'])}): give another --split.")
    dataset = load(data, split, limit)
    labels = measured_classes(dataset, config["classes"], seen)
    return Request(run, data, dataset.subset(np.flatnonzero(np.isin(dataset.labels, labels))))


def _holds_evaluation(folder: Path) -> bool:
    path = folder / RESULTS
    return path.is_file() and f'"kind": "{KIND}"' in path.read_text(encoding="utf-8", errors="replace")


def evaluate_runs(
    requests: Sequence[Request],
    output: str | os.PathLike,
    ways: Sequence[int],
    shots: int = 1,
    targets: int = 1,
    episodes: int = 1000,
    seed: int = 0,
    refine: Callable[[str], Refine] | None = None,
    align: Callable[[str], Align] | None = None,
    precision: str | None = None,
    ignore_mismatch: bool = False,
    command: str = "",
) -> list[RunResult]:
    """Measure what `checked_runs` gave, and write results.json and report.html into `output` after each run.

    Args:
        ways, shots, targets, episodes, seed: of the episodes, see `evaluation.answer_episodes`; ways that there are too
            few classes for are left out.
        refine: of a run's folder, what makes its probabilities better masks; None leaves that out.
        align: of the data's name, what turns targets to lie as supports do; None leaves that out.
        precision: see `load_cosnet`. ignore_mismatch: measure on data of another voxel size or contrast too.
        command: what makes the tables again.

    Raises:
        InputError: for data that a run cannot be measured on.
    """
    results = []
    for number, request in enumerate(requests, 1):
        run, name, data = request
        print(f"[{number}/{len(requests)}] {run} on {name}: {len(data):,} samples", flush=True)
        trained = load_cosnet(run, precision)
        differences = trained.description.differences(data.size, data.voxel_size, data.contrast)
        if differences and not (ignore_mismatch and data.size == trained.description.size):
            raise InputError(f"{name} is unlike what {run} was trained on: {'; '.join(differences)}.")
        with tqdm(total=len(data), desc=name, unit=" samples", leave=False, disable=None) as bar:
            measured = measure(trained, data, None if refine is None else refine(run), bar.update)
        classes = len(np.unique(data.labels))
        turn = None if align is None else align(name)
        answers = [
            answer_episodes(trained, measured, way, shots, targets, episodes, seed, None, turn)
            for way in ways
            if way <= classes
        ]
        if not answers:
            raise InputError(f"{name} has {classes} classes to measure on: --ways must have one of 2 to {classes}.")
        results.append(_result(request, measured, answers))
        write_tables(output, results, ways, shots, seed, command)
    return results


def _result(request: Request, measured: Measured, answers: Sequence[Answers]) -> RunResult:
    data = request.samples

    def by_name(values: np.ndarray | None) -> dict[str, Interval] | None:
        if values is None:
            return None
        return {data.class_names[label]: value for label, value in dice_by_class(measured, values).items()}

    return RunResult(
        run=str(request.run),
        data=request.data,
        variant=variant_of(find_cosnet(request.run)[1]["settings"]),
        classes=tuple(data.class_names[label] for label in np.unique(data.labels)),
        samples=len(data),
        answers=tuple(answers),
        dice=by_name(measured.dice),
        refined=by_name(measured.refined),
        mean_dice=None if measured.dice is None else interval(measured.dice),
        mean_refined=None if measured.refined is None else interval(measured.refined),
    )


def write_tables(
    output: str | os.PathLike,
    results: Sequence[RunResult],
    ways: Sequence[int],
    shots: int,
    seed: int,
    command: str,
) -> None:
    """results.json and report.html of what has been measured so far."""
    from aitom_ssl.oneshot.report import write_evaluation_report

    folder = Path(output)
    write_evaluation_report(folder / "report.html", results, ways, shots, command)
    about = {"kind": KIND, "command": command, "shots": shots, "seed": seed}
    write_json(folder / RESULTS, {**about, "results": [result.to_dict() for result in results]})
