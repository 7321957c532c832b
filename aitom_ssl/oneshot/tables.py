"""Tables 1 to 3 of Zhou 2020 from trained runs: accuracy by data, ways and variant, and Dice of each unseen class."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from aitom_ssl.data import load, prepare
from aitom_ssl.data.shards import read_header
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.report import aligned
from aitom_ssl.evaluation.statistics import mean_and_spread
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
from aitom_ssl.oneshot.trained import find_cosnet, load_cosnet, network_settings

KIND = "one-shot evaluation"
RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What one run is worth on one dataset."""

    run: str
    data: str
    variant: str  # see `variant_of`
    classes: tuple[str, ...]  # that were measured
    samples: int
    answers: tuple[Answers, ...]
    dice: dict[str, Interval] | None  # class name to Dice of the predicted masks
    refined: dict[str, Interval] | None  # of the refined ones
    mean_dice: Interval | None  # over all samples
    mean_refined: Interval | None

    def accuracy(self, way: int) -> Interval:
        """Of episodes of that many ways."""
        return next(answers.accuracy for answers in self.answers if answers.way == way)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""

        def plain(values: Mapping[str, Interval] | None) -> dict[str, Any] | None:
            return None if values is None else {name: value.to_dict() for name, value in values.items()}

        return {
            "run": self.run,
            "data": self.data,
            "variant": self.variant,
            "classes": list(self.classes),
            "samples": self.samples,
            "accuracy": {str(a.way): a.accuracy.to_dict() for a in self.answers},
            "accuracy_by_class": {
                str(a.way): {self.classes[i]: value.to_dict() for i, value in enumerate(a.by_class.values())}
                for a in self.answers
            },
            "dice": plain(self.dice),
            "refined_dice": plain(self.refined),
            "mean_dice": None if self.mean_dice is None else self.mean_dice.to_dict(),
            "mean_refined_dice": None if self.mean_refined is None else self.mean_refined.to_dict(),
        }


def variant_of(settings: Mapping[str, Any]) -> str:
    """A column of Table 1: `DuSE, decoder`, `DuSE`, `decoder` or `plain`.

    With `DuSE (max)` where the branches are not added, and `decoder (skips)` where it sees the encoder's larger maps.
    """
    block = {"add": "DuSE", "max": "DuSE (max)", "none": ""}[settings["fusion"]]
    decoder = ("decoder (skips)" if network_settings(settings)["skips"] else "decoder") if settings["decoder"] else ""
    return ", ".join(filter(None, [block, decoder])) or "plain"


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


# === Tables ===


def accuracy_rows(results: Sequence[RunResult], ways: Sequence[int]) -> list[list[str]]:
    """Table 1: a row for each of the data and ways, a column for each variant."""
    variants = list(dict.fromkeys(result.variant for result in results))
    rows = [["data", "way", *variants, "chance"]]
    for data in dict.fromkeys(result.data for result in results):
        for way in ways:
            cells = [
                _cell([r.accuracy(way) for r in _of(results, data, v) if any(a.way == way for a in r.answers)])
                for v in variants
            ]
            if any(cell != "-" for cell in cells):
                rows.append([data, str(way), *cells, f"{1 / way:.3f}"])
    return rows


def dice_rows(results: Sequence[RunResult], data: str) -> list[list[str]]:
    """Table 2 or 3: a row for each unseen class of `data`, columns for the variants that give masks."""
    shown = [r for r in results if r.data == data and r.dice is not None]
    variants = list(dict.fromkeys(r.variant for r in shown))
    refined = any(r.refined is not None for r in shown)
    header = ["class"]
    for variant in variants:
        header += [variant, f"{variant}, CRF"] if refined else [variant]
    rows = [header]
    for name in [*dict.fromkeys(n for r in shown for n in r.classes), None]:
        row = ["all samples" if name is None else name]
        for variant in variants:
            of = _of(shown, data, variant)
            row.append(_cell([r.mean_dice if name is None else r.dice[name] for r in of if name in (None, *r.dice)]))
            if refined:
                found = [r.mean_refined if name is None else r.refined.get(name) for r in of if r.refined is not None]
                row.append(_cell([value for value in found if value is not None]))
        rows.append(row)
    return rows


def _of(results: Sequence[RunResult], data: str, variant: str) -> list[RunResult]:
    return [result for result in results if (result.data, result.variant) == (data, variant)]


def _cell(values: Sequence[Interval]) -> str:
    """One run's mean and interval; of several runs mean and standard deviation of their means."""
    return str(values[0]) if len(values) == 1 else mean_and_spread([value.mean for value in values])


def tables_text(results: Sequence[RunResult], ways: Sequence[int]) -> str:
    """All tables as aligned plain text."""
    parts = ["accuracy on unseen classes", *aligned(accuracy_rows(results, ways))]
    for data in dict.fromkeys(r.data for r in results if r.dice is not None):
        parts += ["", f"Dice of the masks, {data}", *aligned(dice_rows(results, data))]
    return "\n".join(parts)


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
