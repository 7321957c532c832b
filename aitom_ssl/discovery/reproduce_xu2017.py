"""Table 1 of Xu 2017: accuracy of Inception3D, DSRF3D and RIF-SVM over signal-to-noise ratio and tilt range.

Every cell of the table is a run of its own, in a folder of its own, so that nothing finished is ever lost:

    config.yaml                          what was asked for
    data/xu2017_snr01_tilt60.yaml        the spec of a cell's data, where they are fewer than the paper's
    snr01_tilt60/dsrf3d-seed0/           the run (training.supervised, discovery.rif_svm)
    table.csv  report.html               what is finished so far, one row a run; the table, beside the paper's

Differs from Xu 2017: analytic models stand for its PDB entries and our simulator for its own; a fifth of the training
half validates (it picks the networks' epoch and the SVM's kernel), where the paper trained on the whole half.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from aitom_ssl import environment
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write, write_csv
from aitom_ssl.training.jobs import run_study_jobs
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.settings import command_line, refuse_changes

METHODS = {"inception3d": "Inception3D", "dsrf3d": "DSRF3D", "rif_svm": "RIF-SVM"}
SNRS = {1000.0: "1000", 0.5: "05", 0.1: "01", 0.05: "005", 0.03: "003"}
TILTS = (60, 50, 40)
# Table 1: (SNR, tilt range) to accuracies in the order of METHODS.
PAPER = {
    (1000.0, 60): (0.993, 0.990, 0.992), (1000.0, 50): (0.994, 0.978, 0.983), (1000.0, 40): (0.983, 0.991, 0.967),
    (0.5, 60): (0.975, 0.972, 0.929), (0.5, 50): (0.964, 0.967, 0.885), (0.5, 40): (0.931, 0.951, 0.857),
    (0.1, 60): (0.851, 0.891, 0.762), (0.1, 50): (0.807, 0.873, 0.633), (0.1, 40): (0.809, 0.866, 0.649),
    (0.05, 60): (0.757, 0.767, 0.592), (0.05, 50): (0.682, 0.728, 0.455), (0.05, 40): (0.637, 0.684, 0.468),
    (0.03, 60): (0.608, 0.658, 0.446), (0.03, 50): (0.516, 0.604, 0.319), (0.03, 40): (0.473, 0.556, 0.341),
}  # fmt: skip
# Section 3.2.1.
RECIPE = {
    "preset": "xu2017",
    "limit": None,
    "decay": 1e-6,
    "momentum": 0.9,
    "class_weights": "none",
    "augmentation": "none",
    "pooling": "none",
}
# What every run of one table has in common; the rest says which runs.
SHARED = (
    "train_samples", "validation_samples", "test_samples", "epochs", "batch_size", "learning_rate", "precision"
)  # fmt: skip
NAME = "reproduce_xu2017"


class Job(NamedTuple):
    """One run: a method on the data of a cell, from one seed."""

    snr: float
    tilt: int  # degrees either way
    method: str
    seed: int

    @property
    def dataset(self) -> str:
        """Name of the spec."""
        return f"xu2017_snr{SNRS[self.snr]}_tilt{self.tilt}"

    @property
    def folder(self) -> Path:
        """Of the run, inside the table's."""
        return Path(self.dataset.removeprefix("xu2017_")) / f"{self.method}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Job, ...]:
        """None: a cell's data are simulated by its first run."""
        return ()

    @property
    def paper(self) -> float:
        """Accuracy in Table 1."""
        return PAPER[self.snr, self.tilt][list(METHODS).index(self.method)]

    def __str__(self) -> str:
        return f"{METHODS[self.method]}, SNR {self.snr:g}, tilt range ±{self.tilt}°, seed {self.seed}"


class Result(NamedTuple):
    """A finished run and its results.json."""

    job: Job
    measured: dict[str, Any]


# === Running ===


def run_reproduction(
    settings: Mapping[str, Any], output: str | None = None, resume: bool = False, command: str = ""
) -> RunFolder:
    """Train and measure every cell asked for, then print the table; returns the table's folder.

    Args:
        settings: snr (some of SNRS), tilt (of TILTS), methods (of METHODS), seeds (how many: 0, 1, ...), those in
            SHARED, and preset (a name, kept).
        output: folder; default runs/reproduce_xu2017-PRESET, with a number when that is taken.
        resume: go on with the table in `output`, whose runs have the settings in SHARED; finished runs are kept, a run
            that was interrupted goes on after its last epoch, and cells, methods or seeds may be new.
        command: what makes the table again, kept in its config.

    A run that fails leaves the others as they are; InputError says so at the end. KeyboardInterrupt carries how to go
    on.
    """
    if resume:
        table = RunFolder.open(output)
        refuse_other_settings(settings, table)
    else:
        table = RunFolder.create(output, NAME, settings["preset"])
    about = {"method": NAME, "command": command, "settings": dict(settings), "versions": environment.versions()}
    table.write_config(about)
    jobs = list(jobs_of(settings))

    def finished(job: Job) -> bool:
        return (table.path / job.folder / "results.json").is_file()

    def so_far() -> str:
        return table_text(write_table(table.path, settings, command), settings)

    run_study_jobs(NAME, table.path, jobs, lambda job: _run(job, settings, table), finished, so_far)
    return table


def jobs_of(settings: Mapping[str, Any]) -> Iterator[Job]:
    """The runs asked for: the quick method first in each cell, and every cell once before a second seed."""
    for seed in range(settings["seeds"]):
        for snr in settings["snr"]:
            for tilt in settings["tilt"]:
                for method in reversed(METHODS):
                    # Without noise in its training, the SVM is the same whatever the seed.
                    if method in settings["methods"] and not (method == "rif_svm" and seed):
                        yield Job(snr, tilt, method, seed)


def refuse_other_settings(settings: Mapping[str, Any], table: RunFolder) -> None:
    """InputError when the runs of `table` were made with other SHARED settings: one table, one recipe."""
    stored = table.read_config()["settings"]
    refuse_changes({name: settings[name] for name in SHARED}, stored, str(table.path), "table")


def _run(job: Job, settings: Mapping[str, Any], table: RunFolder) -> None:
    path = table.path / job.folder
    own = {name: settings[name] for name in ("epochs", "batch_size", "learning_rate", "precision")}
    asked = {**RECIPE, **own, "model": job.method, "data": _data(job, settings, table.path), "seed": job.seed}
    command = command_line("train_supervised", asked)
    if job.method == "rif_svm":
        from aitom_ssl.discovery.rif_svm import run_rif_svm

        run_rif_svm(asked, str(path), command)
    else:
        from aitom_ssl.training.supervised import run_supervised

        run_supervised(asked, str(path), (path / "config.yaml").is_file(), command)
    print(f"accuracy {_read(job, path).measured['accuracy']:.3f} (paper {job.paper:.3f})", flush=True)


def _data(job: Job, settings: Mapping[str, Any], folder: Path) -> str:
    """The spec of the cell's data: the paper's, or in `folder` one with fewer samples (the first of each split)."""
    from aitom_ssl.data import load_spec

    splits = {split: settings[f"{split}_samples"] for split in ("train", "validation", "test")}
    if splits == load_spec(job.dataset).splits:
        return job.dataset
    path = folder / "data" / f"{job.dataset}.yaml"
    description = f"The first samples of each split of {job.dataset}."
    spec = {"description": description, "extends": job.dataset, "splits": splits}
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return str(path)


# === The table ===


def results_in(folder: str | os.PathLike) -> list[Result]:
    """Every finished run in a table's folder, in the order of the paper's table."""
    found = []
    for snr, tilt in PAPER:
        for method in METHODS:
            paths = Path(folder).glob(str(Job(snr, tilt, method, 0).folder).removesuffix("0") + "[0-9]*/results.json")
            seeds = sorted(int(path.parent.name.rpartition("seed")[2]) for path in paths)
            jobs = [Job(snr, tilt, method, seed) for seed in seeds]
            found += [_read(job, Path(folder) / job.folder) for job in jobs]
    return found


def _read(job: Job, path: Path) -> Result:
    try:
        measured = json.loads((path / "results.json").read_text(encoding="utf-8"))
        float(measured["accuracy"]), int(measured["samples"]), int(measured["train_samples"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path / 'results.json'} is damaged ({error}): delete the folder {path} to run it anew."
        ) from None
    return Result(job, measured)


def cell_text(results: Sequence[Result], paper: float) -> str:
    """`0.912 (0.891)`: ours, then the paper's; of several seeds mean and standard deviation, `0.912±0.004 (0.891)`."""
    accuracies = [result.measured["accuracy"] for result in results]
    if not accuracies:
        return f"- ({paper:.3f})"
    spread = f"±{statistics.stdev(accuracies):.3f}" if len(accuracies) > 1 else ""
    return f"{statistics.mean(accuracies):.3f}{spread} ({paper:.3f})"


def table_rows(results: Sequence[Result]) -> list[tuple[int, list[list[str]]]]:
    """(tilt range, rows of cells with a header) for every tilt range and SNR that has a result."""
    blocks = []
    for tilt in TILTS:
        rows = [["SNR", *METHODS.values()]]
        for snr in SNRS:
            here = [result for result in results if (result.job.snr, result.job.tilt) == (snr, tilt)]
            if here:
                mine = [[result for result in here if result.job.method == method] for method in METHODS]
                papers = PAPER[snr, tilt]
                rows.append([f"{snr:g}", *map(cell_text, mine, papers)])
        if len(rows) > 1:
            blocks.append((tilt, rows))
    return blocks


def table_text(results: Sequence[Result], settings: Mapping[str, Any]) -> str:
    """The table as aligned plain text, with what it was measured on."""
    from aitom_ssl.evaluation.report import aligned

    if not results:
        return "No run is finished."
    lines = ["Accuracy on simulated subtomograms, ours (Xu 2017, Table 1)"]
    for tilt, rows in table_rows(results):
        lines += ["", f"tilt range ±{tilt}°", *aligned(rows, gap=3)]
    return "\n".join([*lines, "", measured_on(results, settings)])


def measured_on(results: Sequence[Result], settings: Mapping[str, Any]) -> str:
    """Samples, seeds, what the networks' training was, and the error of the sampling, in words."""
    trains = {result.measured["train_samples"] for result in results}
    tests = {result.measured["samples"] for result in results}
    seeds = sorted({result.job.seed for result in results})
    worst = max(_standard_error(result) for result in results)
    return (
        f"Trained on {_words(trains)} samples a cell (the paper: 11,500), the networks for {settings['epochs']} epochs "
        f"(20) in batches of {settings['batch_size']} (64) at a learning rate of {settings['learning_rate']:g} (0.01). "
        f"Measured on {_words(tests)} test samples (11,500), {'seeds' if len(seeds) > 1 else 'seed'} "
        f"{', '.join(map(str, seeds))}. Standard error from the number of test samples: at most {worst:.3f}."
    )


def _words(numbers: set[int]) -> str:
    return " or ".join(f"{number:,}" for number in sorted(numbers))


def _standard_error(result: Result) -> float:
    accuracy = result.measured["accuracy"]
    return math.sqrt(accuracy * (1 - accuracy) / result.measured["samples"])


def csv_rows(results: Sequence[Result], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a run."""
    measures = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error", "validation_accuracy")
    rows = []
    for job, measured in results:
        rows.append(
            {
                "snr": f"{job.snr:g}",
                "tilt_max": job.tilt,
                "method": METHODS[job.method],
                "seed": job.seed,
                "paper_accuracy": job.paper,
                **{name: measured.get(name, "") for name in measures},
                "train_samples": measured["train_samples"],
                "test_samples": measured["samples"],
                "epochs": measured.get("epochs", ""),
                "best_epoch": measured.get("best_epoch", ""),
                "batch_size": settings["batch_size"] if "epochs" in measured else "",
                "learning_rate": settings["learning_rate"] if "epochs" in measured else "",
                "precision": settings["precision"] if "epochs" in measured else "",
                "training_seconds": round(measured.get("seconds", 0)),
                "run": job.folder.as_posix(),
            }
        )
    return rows


def write_table(folder: Path, settings: Mapping[str, Any], command: str) -> list[Result]:
    """table.csv and report.html of what is finished, which is returned."""
    results = results_in(folder)
    if results:
        write_csv(folder / "table.csv", csv_rows(results, settings))
        write_table_report(folder / "report.html", results, settings, command)
    return results


# === The report ===


def write_table_report(path: Path, results: Sequence[Result], settings: Mapping[str, Any], command: str) -> Path:
    """The table, a figure and how they were made, as one HTML file."""
    from aitom_ssl.evaluation.report import Command, Picture, Section, Table, duration, write_report

    blocks = [
        Table(rows, f"Tilt range ±{tilt}°: accuracy, ours (Xu 2017).") for tilt, rows in table_rows(results)
    ]
    caption = "Accuracy against the signal-to-noise ratio. Solid: ours; dashed: Xu 2017, Table 1."
    rows = [["run", "accuracy", "paper", "on validation", "training time"]]
    for job, measured in results:
        numbers = [f"{value:.3f}" for value in (measured["accuracy"], job.paper, measured["validation_accuracy"])]
        rows.append([str(job), *numbers, duration(measured.get("seconds", 0))])
    shown = [[name.replace("_", " "), _shown(value)] for name, value in settings.items()]
    sections = [
        Section("Accuracy", [measured_on(results, settings), *blocks, Picture(table_figure(results), caption)]),
        Section("Runs", [Table(rows, "Each has a report of its own in its folder.")]),
        Section("How it was made", [_DIFFERS, Table(shown, header=False), *([Command(command)] if command else [])]),
    ]
    return write_report(path, "Xu 2017, Table 1", sections, "Inception3D, DSRF3D and RIF-SVM over noise and tilt range")


_DIFFERS = (
    "Differs from the paper: analytic models stand for its PDB entries, and the simulator is ours, so a cell may be "
    "easier or harder than the paper's of the same name. A fifth of the training half validates: it picks the epoch "
    "of the networks and the kernel of the SVM; the test samples pick nothing."
)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def table_figure(results: Sequence[Result]) -> Any:
    """Accuracy against SNR, one panel a tilt range that has results; ours solid, the paper's dashed."""
    from matplotlib.figure import Figure

    from aitom_ssl.evaluation.figures import plain_axes

    tilts = [tilt for tilt, _ in table_rows(results)]
    snrs = list(SNRS)
    figure = Figure(figsize=(max(5.2, 3.4 * len(tilts)), 3.6), layout="constrained")
    axes = figure.subplots(1, len(tilts), sharey=True, squeeze=False)[0]
    for axis, tilt in zip(axes, tilts, strict=True):
        for (method, name), colour in zip(METHODS.items(), ("#1f5fa8", "#c2410c", "#4d7c0f"), strict=True):
            papers = [PAPER[snr, tilt][list(METHODS).index(method)] for snr in snrs]
            axis.plot(range(len(snrs)), papers, "--", color=colour, alpha=0.5, linewidth=1.2)
            means = {}
            for place, snr in enumerate(snrs):
                mine = [r.measured["accuracy"] for r in results if r.job[:3] == (snr, tilt, method)]
                if mine:
                    means[place] = statistics.mean(mine)
                    axis.plot([place] * len(mine), mine, ".", color=colour, alpha=0.5)
            axis.plot(list(means), list(means.values()), "o-", color=colour, label=name)
        axis.set_title(f"tilt range ±{tilt}°", fontsize=10)
        axis.set_xticks(range(len(snrs)), [f"{snr:g}" for snr in snrs])
        axis.set_xlabel("signal-to-noise ratio")
        axis.set_ylim(0, 1.02)
        plain_axes(axis)
    axes[0].set_ylabel("accuracy")
    axes[0].legend(fontsize=8, loc="lower left")
    return figure
