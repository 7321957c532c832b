"""Does pretraining pay? Encoders pretrained in several ways and not at all, read out with few labels (SSL 2022).

Every pretraining and every cell of the table is a run of its own, in a folder of its own:

    config.yaml                        what was asked for
    pretraining/moco-seed0/            a run of train_moco (training.pretrain)
    cells/moco-25percent-seed3/        a run of finetune (training.finetuning): probe, kNN and fine-tuning
    table.csv  report.html             what is finished so far: one row a cell; the table with its tests

A cell of seed s takes labels, order and head from s, and the encoder that was pretrained with seed s modulo the number
of pretraining seeds. All methods have the same labels for the same seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.data.batches import epochs_with, steps_per_epoch
from aitom_ssl.errors import InputError, reason
from aitom_ssl.evaluation.report import aligned
from aitom_ssl.evaluation.statistics import mean_and_spread, p_values
from aitom_ssl.files import write_csv
from aitom_ssl.ssl.semi_supervised_plan import METHODS, RANDOM, Cell, Pretraining, jobs_of, labels_name, with_more
from aitom_ssl.training.jobs import CommandOf, no_command, open_study, run_study_jobs
from aitom_ssl.training.request import asked_labels, checked_splits
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.settings import command_line

NAME = "semi_supervised_study"
# In results.json, for people.
READOUTS = {"probe_accuracy": "linear probe", "knn_accuracy": "kNN", "accuracy": "fine-tuned"}
# Between looks at the validation samples; of few labels an epoch is a fifth of it.
_LOOK_STEPS = 30
Builder = Callable[[Any, Any, Mapping[str, Any]], Any]


class Result(NamedTuple):
    """A finished cell and its results.json."""

    cell: Cell
    measured: dict[str, Any]


# === Running ===


def run_study(
    settings: Mapping[str, Any],
    builders: Mapping[str, Builder],
    output: str | None = None,
    resume: bool = False,
    command: CommandOf = no_command,
) -> RunFolder:
    """Pretrain, read out every cell, then print the table; returns the study's folder.

    Args:
        settings: data, limit, methods (of METHODS), fractions and labels_per_class (lists), seeds and pretraining_seeds
            (how many: 0, 1, ...), pretraining (method to the settings of its run, without a seed), finetuning (settings
            of every cell's run, without seed, labels and encoder), finetuning_steps (the least of each cell, whatever
            its epochs), and preset (a name, kept).
        builders: method to its `build`, see `training.pretrain.run_pretraining`.
        output: folder; default runs/semi_supervised_study-DATA, with a number when that is taken.
        resume: go on with the study in `output`; the runs that `settings` ask for join its own (see `with_more`),
            finished ones are kept, one that was interrupted goes on after its last epoch. Several processes may do
            this at once.
        command: settings to what makes such a study again, kept in its config.

    A run that fails leaves the others as they are; InputError says so at the end. KeyboardInterrupt carries how to go
    on.
    """
    study, settings = open_study(NAME, settings, with_more, command, output, resume)
    jobs = jobs_of(settings)

    def run(job: Pretraining | Cell) -> None:
        if isinstance(job, Pretraining):
            _pretrain(job, settings, builders[job.method], study.path)
        else:
            _read_out(job, settings, study.path)

    def so_far() -> str:
        # Other processes may have added runs.
        now = study.read_config()
        results = write_table(study.path, now["settings"], now["command"])
        return f"{table_text(results)}\n\n{measured_on(results, now['settings'])}"

    run_study_jobs(NAME, study.path, jobs, run, lambda job: _finished(job, study.path), so_far)
    return study


def _finished(job: Pretraining | Cell, folder: Path) -> bool:
    # The last thing that each kind of run writes.
    return (folder / job.folder / ("report.html" if isinstance(job, Pretraining) else "results.json")).is_file()


def _pretrain(job: Pretraining, settings: Mapping[str, Any], build: Builder, folder: Path) -> None:
    from aitom_ssl.training.pretrain import run_pretraining

    asked = {**settings["pretraining"][job.method], "seed": job.seed}
    path = folder / job.folder
    resume = (path / "config.yaml").is_file()
    run_pretraining(job.method, asked, build, str(path), resume, command_line(f"train_{job.method}", asked))


def _read_out(cell: Cell, settings: Mapping[str, Any], folder: Path) -> None:
    from aitom_ssl.training.finetuning import METHOD, NONE, run_finetuning

    path = folder / cell.folder
    pretrained = NONE if cell.pretraining is None else str(folder / cell.pretraining.folder)
    each = isinstance(cell.labels, int)
    asked = {
        **settings["finetuning"],
        "pretrained": pretrained,
        "field": settings["finetuning"]["field"] if cell.pretraining is None else None,
        "fraction": None if each else cell.labels,
        "labels_per_class": cell.labels if each else None,
        "seed": cell.seed,
    }
    asked |= schedule(asked, settings["finetuning_steps"])
    run_finetuning(asked, str(path), (path / "config.yaml").is_file(), command_line(METHOD, asked))


def schedule(asked: Mapping[str, Any], steps: int) -> dict[str, int]:
    """Settings epochs and validate_every of fine-tuning that is `asked` for.

    As many epochs as asked, or as make `steps` of the optimizer; the validation samples are looked at about every
    `_LOOK_STEPS` of them.
    """
    if asked["epochs"] == 0:
        return {"epochs": 0, "validate_every": 1}
    labelled, batch_size = asked_labels(checked_splits(asked, None, False), asked), asked["batch_size"]
    every = max(1, round(_LOOK_STEPS / steps_per_epoch(labelled.train, batch_size)))
    return {"epochs": epochs_with(labelled.train, batch_size, asked["epochs"], steps), "validate_every": every}


# === The table ===


def results_in(folder: Path, jobs: Sequence[Pretraining | Cell]) -> list[Result]:
    """The finished cells among `jobs`."""
    return [_read(job, folder) for job in jobs if isinstance(job, Cell) and _finished(job, folder)]


def _read(cell: Cell, folder: Path) -> Result:
    path = folder / cell.folder / "results.json"
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        for name in (*READOUTS, "train_samples", "samples"):
            float(measured[name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({reason(error)}): delete its folder to run it anew.") from None
    return Result(cell, measured)


def values(results: Sequence[Result], method: str, labels: float | int, readout: str) -> list[float]:
    """What was measured, seed by seed. Without fine-tuning there is nothing of "accuracy": it is the probe's."""
    cells = [r.measured for r in results if (r.cell.method, r.cell.labels) == (method, labels)]
    return [float(measured[readout]) for measured in cells if readout != "accuracy" or measured["epochs"] > 0]


def shown_readouts(results: Sequence[Result]) -> list[str]:
    """Those that any cell has: a study without fine-tuning has no accuracy of its own."""
    return [name for name in READOUTS if any(values(results, r.cell.method, r.cell.labels, name) for r in results)]


def table_rows(results: Sequence[Result]) -> list[tuple[float | int, list[list[str]]]]:
    """(labels, rows of cells with a header) for every amount of labels that has a result.

    Behind every read-out of a pretrained encoder stand the p values of Welch's and Student's t-test against random
    weights with as many labels.
    """
    blocks, shown = [], shown_readouts(results)
    for labels in dict.fromkeys(result.cell.labels for result in results):
        rows = [["encoder", *(word for name in shown for word in (READOUTS[name], "p Welch, Student"))]]
        for method, name in METHODS.items():
            row = [name]
            for readout in shown:
                mine = values(results, method, labels, readout)
                tested = "" if method == RANDOM else p_values(mine, values(results, RANDOM, labels, readout))
                row += [mean_and_spread(mine), tested]
            if row[1] != "-":
                rows.append(row)
        blocks.append((labels, rows))
    return blocks


def table_text(results: Sequence[Result]) -> str:
    """The table as aligned plain text."""
    if not results:
        return "No cell is finished."
    lines = []
    for labels, rows in table_rows(results):
        lines += ["", labels_name(labels), *aligned(rows, gap=3)]
    return "\n".join(lines[1:])


def measured_on(results: Sequence[Result], settings: Mapping[str, Any]) -> str:
    """Samples, seeds, and what the numbers are, in words."""
    if not results:
        return ""
    tests = " or ".join(f"{n:,}" for n in sorted({result.measured["samples"] for result in results}))
    seeds = sorted({result.cell.seed for result in results})
    each = settings["pretraining_seeds"]
    return (
        f"Accuracy on {tests} test samples of {settings['data']}, mean ± standard deviation over seeds "
        f"{', '.join(map(str, seeds))} of labels, order and head, with {each} pretraining{'s' * (each > 1)} a method; "
        "linear probe and kNN are of the frozen encoder. p: two-tailed t-tests against random weights."
    )


def write_table(folder: Path, settings: Mapping[str, Any], command: str) -> list[Result]:
    """table.csv and report.html of what is finished, which is returned."""
    results = results_in(folder, jobs_of(settings))
    if not results:
        return results
    more = ("train_samples", "samples", "epochs", "best_epoch", "validation_accuracy", "seconds")
    rows = [
        {
            "method": cell.method,
            "labels": labels_name(cell.labels),
            "seed": cell.seed,
            "pretraining_seed": "" if cell.pretraining is None else cell.pretraining.seed,
            **{name: measured[name] for name in READOUTS},
            **{name: measured.get(name, "") for name in more},
            "run": cell.folder.as_posix(),
        }
        for cell, measured in results
    ]
    write_csv(folder / "table.csv", rows)
    write_study_report(folder / "report.html", results, settings, command)
    return results


# === The report ===


def write_study_report(path: Path, results: Sequence[Result], settings: Mapping[str, Any], command: str) -> Path:
    """The table, learning curves and how they were made, as one HTML file."""
    from aitom_ssl.evaluation.report import Command, Picture, Section, Table, settings_section, write_report

    blocks = [Table(rows, f"With {labels_name(labels)}.") for labels, rows in table_rows(results)]
    caption = "Accuracy against the number of labels, mean ± standard deviation over seeds."
    pretraining = [[METHODS[method], _words(asked)] for method, asked in settings["pretraining"].items()]
    plain = {name: value for name, value in settings.items() if name != "pretraining"}
    sections = [
        Section("Accuracy", [measured_on(results, settings), *blocks, Picture(study_figure(results), caption)]),
        Section("Pretraining", [Table(pretraining, "Settings; each run has a report of its own.", header=False)]),
        *([Section("Command", [Command(command)])] if command else []),
        settings_section(plain),
    ]
    title = f"Does pretraining pay on {settings['data']}?"
    return write_report(path, title, sections, "Encoders with and without pretraining, read out with few labels")


def _words(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)


def study_figure(results: Sequence[Result]) -> Any:
    """Accuracy against the number of training labels, one panel a read-out, one line a method."""
    from matplotlib.figure import Figure

    # Number of training labels, in increasing order, and what they are called.
    amounts = sorted({(result.measured["train_samples"], result.cell.labels) for result in results})
    shown = shown_readouts(results)
    figure = Figure(figsize=(3.6 * len(shown) + 0.6, 3.6), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, readout in zip(axes, shown, strict=True):
        colours = ("#6b7280", "#1f5fa8", "#c2410c", "#4d7c0f")
        for place, (method, colour) in enumerate(zip(METHODS, colours, strict=True)):
            # Beside each other, so that no bar hides another.
            shift = 1.03 ** (place - 1.5)
            measured = [(shift * count, values(results, method, some, readout)) for count, some in amounts]
            counts = [count for count, found in measured if found]
            means = [np.mean(found) for _, found in measured if found]
            spreads = [np.std(found, ddof=min(1, len(found) - 1)) for _, found in measured if found]
            if counts:
                style = {"fmt": "o-", "color": colour, "capsize": 3, "markersize": 4}
                axis.errorbar(counts, means, spreads, label=METHODS[method], **style)
        axis.set_title(READOUTS[readout], fontsize=10)
        axis.set_xscale("log")
        counts = sorted({count for count, _ in amounts})
        axis.set_xticks(counts, labels=[f"{count:,}" for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("training labels")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("test accuracy")
    axes[0].legend(fontsize=8)
    return figure
