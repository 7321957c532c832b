"""Does it pay to choose what to label? Strategies, and ablations of EMA, over several seeds (DAL 2023).

Every cell is a run of active_learning in a folder of its own:

    config.yaml                          what was asked for
    cells/margin-seed0/                  a run of a strategy (see `loop`), without the networks of its cycles
    cells/ema-distance_mse-seed0/        an ablation: ema, but for one setting
    cells/.../cell.json                  what is taken from it for the tables, written when it is finished
    table.csv  curves.csv  report.html   what is finished so far: a row a cell, a row a cell and cycle, the comparison

All cells of one seed begin with the same labels, which that seed has drawn.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.active import NAMES
from aitom_ssl.active.study_plan import (
    ABLATIONS,
    EMA,
    RANDOM,
    Cell,
    Variant,
    cells_of,
    value_words,
    variants_of,
    with_more,
)
from aitom_ssl.errors import InputError, reason
from aitom_ssl.evaluation.report import aligned
from aitom_ssl.evaluation.statistics import mean_and_spread, p_values
from aitom_ssl.files import write_csv, write_json
from aitom_ssl.training.jobs import CommandOf, no_command, open_study, run_study_jobs
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.settings import command_line

NAME = "active_learning_study"
# Of each cycle, in cell.json and curves.csv.
MEASURED = ("labelled", "accuracy", "balanced_accuracy", "select_seconds", "train_seconds")


class Result(NamedTuple):
    """A finished cell and its cell.json."""

    cell: Cell
    measured: dict[str, Any]

    @property
    def final(self) -> float:
        """Accuracy of the last cycle."""
        return float(self.measured["cycles"][-1]["accuracy"])

    @property
    def area(self) -> float:
        return float(self.measured["area_under_curve"])

    @property
    def selecting(self) -> list[float]:
        """Seconds of each selection; the first cycle draws at random."""
        return [float(cycle["select_seconds"]) for cycle in self.measured["cycles"][1:]]


# === Running ===


def run_study(
    settings: Mapping[str, Any], output: str | None = None, resume: bool = False, command: CommandOf = no_command
) -> RunFolder:
    """Run every cell, then print the tables; returns the study's folder.

    Args:
        settings: data, strategies (of `active.NAMES`), ablations (of `ABLATIONS`), seeds (how many: 0, 1, ...), run
            (settings of every cell's run, see `loop.run_active_learning`, without strategy and seed), and preset.
        output: folder; default runs/active_learning_study-DATA, with a number when that is taken.
        resume: go on with the study in `output`; the cells that `settings` ask for join its own (see `with_more`),
            finished ones are kept, one that was interrupted goes on where it stopped. Several processes may do this at
            once.
        command: settings to what makes such a study again, kept in its config.

    A cell that fails leaves the others as they are; InputError says so at the end. KeyboardInterrupt carries how to go
    on.
    """
    study, settings = open_study(NAME, settings, with_more, command, output, resume)
    cells = cells_of(settings)

    def so_far() -> str:
        # Other processes may have added cells.
        now = study.read_config()
        for cell in cells_of(now["settings"]):
            if _finished(cell, study.path):
                drop_networks(study.path / cell.folder)
        results = write_tables(study.path, now["settings"], now["command"])
        return f"{tables_text(results, now['settings'])}\n\n{measured_on(results, now['settings'])}"

    run_study_jobs(
        NAME,
        study.path,
        cells,
        lambda cell: _run(cell, settings, study.path),
        lambda cell: _finished(cell, study.path),
        so_far,
        kind="cells",
    )
    return study


def _finished(cell: Cell, folder: Path) -> bool:
    return (folder / cell.folder / "cell.json").is_file()


def _run(cell: Cell, settings: Mapping[str, Any], folder: Path) -> None:
    from aitom_ssl.active.loop import METHOD, CycleFolder, area_under_curve, run_active_learning

    path = folder / cell.folder
    asked = {**settings["run"], **cell.variant.changes, "seed": cell.seed}
    run_active_learning(asked, str(path), (path / "config.yaml").is_file(), command_line(METHOD, asked))
    count = json.loads((path / "results.json").read_text(encoding="utf-8"))["cycles"]
    cycles = [CycleFolder(path, number).results() for number in range(1, count + 1)]
    labels, accuracies = ([cycle[name] for cycle in cycles] for name in ("labelled", "accuracy"))
    about = {
        "samples": cycles[-1]["samples"],
        "measured_on": cycles[-1]["measured_on"],
        "area_under_curve": area_under_curve(labels, accuracies),
        "cycles": [{name: cycle[name] for name in MEASURED} for cycle in cycles],
    }
    write_json(path / "cell.json", about)


def drop_networks(folder: Path) -> None:
    """Delete what is large in a finished run's cycles; its model.keras is the last one's network."""
    for cycle in folder.glob("cycles/*"):
        shutil.rmtree(cycle / "checkpoints", ignore_errors=True)
        (cycle / "network.keras").unlink(missing_ok=True)


# === The tables ===


def results_in(folder: Path, cells: Sequence[Cell]) -> list[Result]:
    """The finished ones among `cells`."""
    return [_read(cell, folder) for cell in cells if _finished(cell, folder)]


def _read(cell: Cell, folder: Path) -> Result:
    path = folder / cell.folder / "cell.json"
    try:
        result = Result(cell, json.loads(path.read_text(encoding="utf-8")))
        float(result.area), int(result.measured["samples"]), str(result.measured["measured_on"])
        for cycle in result.measured["cycles"]:
            [float(cycle[name]) for name in MEASURED]
        float(result.final)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path} is damaged ({reason(error)}): delete {path.parent} to run it anew.") from None
    return result


def of(results: Sequence[Result], variant: Variant) -> list[Result]:
    """Its results, seed by seed."""
    return [result for result in results if result.cell.variant == variant]


def curve(results: Sequence[Result], variant: Variant, above: Variant | None = None) -> dict[int, list[float]]:
    """Number of labels to the accuracies of the seeds, by increasing number.

    With `above` they are the differences from its accuracies of the same seed, where that is finished.
    """
    less = {} if above is None else {(r.cell.seed, n): a for r in of(results, above) for n, a in _points(r)}
    points: dict[int, list[float]] = {}
    for result in of(results, variant):
        for labelled, accuracy in _points(result):
            place = (result.cell.seed, labelled)
            if above is None or place in less:
                points.setdefault(labelled, []).append(accuracy - less.get(place, 0.0))
    return dict(sorted(points.items()))


def _points(result: Result) -> list[tuple[int, float]]:
    return [(int(cycle["labelled"]), float(cycle["accuracy"])) for cycle in result.measured["cycles"]]


def strategy_rows(results: Sequence[Result], settings: Mapping[str, Any]) -> list[list[str]]:
    """A header and a row for each strategy with a result; the t-tests are against random."""
    variants = [variant for variant in variants_of(settings) if not variant.ablation]
    names = {variant: variant.strategy for variant in variants}
    return _rows("strategy", results, names, Variant(RANDOM))


def ablation_rows(results: Sequence[Result], settings: Mapping[str, Any], ablation: str) -> list[list[str]]:
    """A header and a row for each value of one ablation with a result; the t-tests are against ema as it is."""
    own = settings["run"][ABLATIONS[ablation][0]]
    names = {Variant(EMA): f"{value_words(own)} (ema)"}
    names |= {v: value_words(v.value) for v in variants_of(settings) if v.ablation == ablation}
    return _rows(ablation, results, names, Variant(EMA))


def _rows(first: str, results: Sequence[Result], names: Mapping[Variant, str], reference: Variant) -> list[list[str]]:
    rows = [[first, "seeds", "final accuracy", "p", "area under curve", "p", "seconds"]]
    others = of(results, reference)
    for variant, name in names.items():
        mine = of(results, variant)
        if not mine:
            continue
        row = [name, f"{len(mine)}"]
        for measure in ("final", "area"):
            values, theirs = ([getattr(result, measure) for result in side] for side in (mine, others))
            row += [mean_and_spread(values), "" if variant == reference else p_values(values, theirs)]
        rows.append([*row, _seconds([second for result in mine for second in result.selecting])])
    return rows


def _seconds(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3g}" if len(values) else "-"


def by_labels(results: Sequence[Result], settings: Mapping[str, Any], measure: str) -> list[list[str]]:
    """A header and a row for each variant: "accuracy" or "select_seconds" with each number of labels.

    The seconds are those of the selection that led to so many labels; for the first number nothing is selected.
    """
    mine = {variant: of(results, variant) for variant in variants_of(settings)}
    counts = sorted({cycle["labelled"] for result in results for cycle in result.measured["cycles"]})
    words = mean_and_spread if measure == "accuracy" else _seconds
    shown = counts if measure == "accuracy" else counts[1:]
    rows = [["labels", *(f"{count:,}" for count in shown)]]
    for variant, found in mine.items():
        cycles = [cycle for result in found for cycle in result.measured["cycles"]]
        values = [[float(c[measure]) for c in cycles if c["labelled"] == count] for count in shown]
        if found:
            rows.append([str(variant), *map(words, values)])
    return rows


def tables_text(results: Sequence[Result], settings: Mapping[str, Any]) -> str:
    """The tables as aligned plain text."""
    if not results:
        return "No cell is finished."
    tables = [by_labels(results, settings, "accuracy"), strategy_rows(results, settings)]
    tables += [ablation_rows(results, settings, ablation) for ablation in _ablated(results)]
    return "\n\n".join("\n".join(aligned(rows, gap=3)) for rows in tables if len(rows) > 1)


def _ablated(results: Sequence[Result]) -> list[str]:
    """The ablations that have a result."""
    found = {result.cell.variant.ablation for result in results}
    return [ablation for ablation in ABLATIONS if ablation in found]


def measured_on(results: Sequence[Result], settings: Mapping[str, Any]) -> str:
    """Samples, seeds, and what the numbers are, in words."""
    if not results:
        return ""
    samples, split = results[0].measured["samples"], results[0].measured["measured_on"]
    seeds = sorted({result.cell.seed for result in results})
    return (
        f"Accuracy on {samples:,} {split} samples of {settings['data']}, mean ± standard deviation over seeds "
        f"{', '.join(map(str, seeds))} (initial labels, weights, order). Area under the curve: mean accuracy between "
        "the first and the last number of labels. p: two-tailed t-tests, Welch's and Student's, of strategies against "
        "random, of ablations against ema, not corrected for how many there are. Seconds: of one selection, on a "
        "machine that may have had other work."
    )


def write_tables(folder: Path, settings: Mapping[str, Any], command: str) -> list[Result]:
    """table.csv, curves.csv and report.html of what is finished, which is returned."""
    results = results_in(folder, cells_of(settings))
    if not results:
        return results
    rows, points = [], []
    for result in results:
        (strategy, ablation, value), seed = result.cell
        name = {"strategy": strategy, "ablation": ablation, "value": value_words(value) if ablation else ""}
        cell, last = {**name, "seed": seed}, result.measured["cycles"][-1]
        row = {**cell, "labelled": last["labelled"], "accuracy": result.final}
        row |= {"balanced_accuracy": last["balanced_accuracy"], "area_under_curve": result.area}
        for of_what in ("select_seconds", "train_seconds"):
            row[of_what] = sum(cycle[of_what] for cycle in result.measured["cycles"])
        rows.append({**row, "run": result.cell.folder.as_posix()})
        points += [{**cell, "cycle": n, **cycle} for n, cycle in enumerate(result.measured["cycles"], 1)]
    write_csv(folder / "table.csv", rows)
    write_csv(folder / "curves.csv", points)
    write_study_report(folder / "report.html", results, settings, command)
    return results


# === The report ===


def write_study_report(path: Path, results: Sequence[Result], settings: Mapping[str, Any], command: str) -> Path:
    """Learning curves, tables, ablations, and how they were made, as one HTML file."""
    from aitom_ssl.evaluation.report import (
        Command,
        Picture,
        Section,
        Table,
        machine_facts,
        settings_section,
        write_report,
    )

    rows, band = strategy_rows(results, settings), "Mean over seeds; the band is the standard deviation."
    sections = []
    if len(rows) > 1:
        variants = [variant for variant in variants_of(settings) if not variant.ablation]
        blocks = [measured_on(results, settings), Picture(curves_figure(results, {"": variants}), band), Table(rows)]
        if of(results, Variant(RANDOM)) and len(rows) > 2:
            gain = curves_figure(results, {"": variants[1:]}, above=Variant(RANDOM))
            blocks.append(Picture(gain, "What each strategy adds to random with the same seed, mean and spread."))
        sections.append(Section("Strategies", blocks))
    ablated = _ablated(results)
    if ablated:
        figure = curves_figure(results, {name: _compared(settings, name) for name in ablated})
        text = "EMA with one setting changed at a time. The t-tests are against ema as it is above."
        tables = [Table(ablation_rows(results, settings, name)) for name in ablated]
        sections.append(Section("Ablations of EMA", [text, Picture(figure, band), *tables]))
    accuracy = Table(by_labels(results, settings, "accuracy"), "Accuracy with each number of labels.")
    caption = "Mean seconds of the selection that led to each number of labels."
    seconds = Table(by_labels(results, settings, "select_seconds"), caption)
    sections.append(Section("Cycle by cycle", [accuracy, seconds, Table(machine_facts(), header=False)]))
    if command:
        sections.append(Section("Command", [Command(command)]))
    sections.append(settings_section(settings))
    title = f"Does it pay to choose what to label on {settings['data']}?"
    return write_report(path, title, sections, "Strategies of active learning over several seeds")


def _compared(settings: Mapping[str, Any], ablation: str) -> list[Variant]:
    changed = [variant for variant in variants_of(settings) if variant.ablation == ablation]
    return [Variant(RANDOM), Variant(EMA), *changed]


def curves_figure(
    results: Sequence[Result], panels: Mapping[str, Sequence[Variant]], above: Variant | None = None
) -> Any:
    """Accuracy against the number of labels: a panel for each title, a line for each of its variants with results.

    `above`: as in `curve`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from aitom_ssl.evaluation.figures import INK, class_colours, plain_axes

    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    size = (7.6, 4.4) if len(panels) == 1 else (3.4 * across, 3.2 * down)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for unused in grid[len(panels) :]:
        unused.set_axis_off()
    for axes, (title, variants) in zip(grid, panels.items(), strict=False):
        for place, variant in enumerate(variants):
            points = curve(results, variant, above)
            if not points:
                continue
            labels = np.array(list(points))
            means = np.array([np.mean(found) for found in points.values()])
            spreads = np.array([np.std(found, ddof=min(1, len(found) - 1)) for found in points.values()])
            random = variant == Variant(RANDOM)
            # A strategy keeps its colour when others join it.
            number = place if variant.ablation else NAMES.index(variant.strategy)
            colour = INK if random else class_colours(len(NAMES))[number]
            style = {"linestyle": (0, (4, 2)) if random else "-", "color": colour, "marker": "o", "markersize": 3.5}
            axes.plot(labels, means, label=str(variant), linewidth=1.7, **style)
            axes.fill_between(labels, means - spreads, means + spreads, color=colour, alpha=0.13, linewidth=0)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("labelled samples", fontsize=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        plain_axes(axes)
        axes.legend(frameon=False, fontsize=8, loc="best")
    what = "accuracy" if above is None else f"accuracy above {above}"
    for axes in grid[::across]:
        axes.set_ylabel(f"{what}, {results[0].measured['measured_on']} samples", fontsize=9, color=INK)
        if above is not None:
            axes.axhline(0, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
    return figure
