"""The report of active learning: the learning curve, which classes it helps, what was asked for, how long it took."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aitom_ssl.active.oracle import Query
from aitom_ssl.data import Dataset
from aitom_ssl.evaluation.figures import ACCENT, INK, WARNING, plain_axes, slices_figure
from aitom_ssl.evaluation.report import (
    Command,
    Highlights,
    Picture,
    Section,
    Table,
    duration,
    machine_facts,
    settings_section,
    write_report,
)

SHOWN = 8


def write_active_report(
    path: str | os.PathLike,
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    settings: Mapping[str, Any],
    command: str,
    train: Dataset,
    hardest: Query | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report of the cycles that are finished to `path`; returns the path.

    Args:
        path: an .html file; one that is there is replaced.
        results: of each cycle, its results.json (see `loop`); one or more.
        class_names: in label order.
        settings: shown whole. command: what makes the run again.
        train: the training split that `hardest` counts in.
        hardest: the last query, whose first samples are drawn; or None.
        notes: sentences for the summary.
    """
    last = results[-1]
    sections = [_summary(results, settings, command, notes)]
    if "accuracy" in last:
        caption = (
            f"On {last['samples']:,} {last['measured_on']} samples, none of which is ever trained on. Balanced "
            "accuracy is the mean recall of the classes."
        )
        sections.append(Section("Learning curve", [Picture(curve_figure(results), caption), _cycles(results)]))
        recall = np.array([[result["classes"][name]["recall"] for name in class_names] for result in results])
        figure = classes_figure(recall, results, class_names, "recall")
        sections.append(Section("Class by class", [Picture(figure, "How much of each class is found.")]))
    else:
        unmeasured = (
            "No test or validation sample has a label, so accuracy cannot be measured. How many of the new answers the "
            "network guessed beforehand tends to be less than its accuracy, as it asks about what is hard for it."
        )
        sections.append(Section("Cycles", [unmeasured, _cycles(results)]))
    sections.append(_asked_for(results, class_names))
    if hardest is not None:
        sections.append(_hardest(hardest, train, class_names))
    sections.append(settings_section(settings))
    return write_report(path, f"Active learning on {settings['data']}", sections, f"strategy: {settings['strategy']}")


# === Sections ===


def _summary(
    results: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], command: str, notes: Sequence[str]
) -> Section:
    first, last = results[0], results[-1]
    numbers = [(f"{last['labelled']:,}", f"labels after {len(results)} cycle{'s' * (len(results) > 1)}")]
    if "accuracy" in last:
        numbers.append(
            (f"{last['accuracy']:.3f}", f"accuracy (with {first['labelled']:,} labels {first['accuracy']:.3f})")
        )
        numbers.append((f"{last['balanced_accuracy']:.3f}", "balanced accuracy"))
    elif "pool_confidence" in last:
        numbers.append((f"{last['pool_confidence']:.3f}", "mean confidence on the pool"))
    if last["guessed_right"] is not None:
        numbers.append((f"{last['guessed_right']:.0%}", "of the last answers were guessed"))
    missing = last["classes_without_labels"]
    spent = {name: sum(result[f"{name}_seconds"] for result in results) for name in ("train", "select")}
    facts = [
        ["network", f"{settings['model']}, {settings['start']}"],
        ["answers", settings["oracle"]],
        ["seed", f"{settings['seed']}"],
        ["time", f"training {duration(spent['train'])}, selecting {duration(spent['select'])}"],
        *([["classes without a label", ", ".join(missing)]] if missing else []),
        *([["notes", " ".join(notes)]] if notes else []),
        *machine_facts(),
    ]
    blocks: list[Any] = [Highlights(numbers), Table(facts, header=False)]
    if command:
        blocks += ["The command that makes this result again:", Command(command)]
    return Section("Summary", blocks)


def _cycles(results: Sequence[Mapping[str, Any]]) -> Table:
    columns = {
        "labels": lambda r: f"{r['labelled']:,}",
        "asked": lambda r: f"{r['asked']:,}",
        "junk": lambda r: f"{r['junk']:,}",
        "accuracy": lambda r: f"{r['accuracy']:.3f}",
        "balanced": lambda r: f"{r['balanced_accuracy']:.3f}",
        "confidence on the pool": lambda r: f"{r['pool_confidence']:.3f}",
        "guessed": lambda r: "-" if r["guessed_right"] is None else f"{r['guessed_right']:.0%}",
        "selecting": lambda r: duration(r["select_seconds"]),
        "training": lambda r: duration(r["train_seconds"]),
    }
    needs = {"accuracy": "accuracy", "balanced": "accuracy", "confidence on the pool": "pool_confidence"}
    shown = {name: cell for name, cell in columns.items() if needs.get(name, "cycle") in results[-1]}
    if not any(result["junk"] for result in results):
        del shown["junk"]
    rows = [["cycle", *shown]]
    rows += [[f"{r['cycle']}", *(cell(r) for cell in shown.values())] for r in results]
    return Table(rows, "Guessed: how many of a cycle's answers were what the network before would have said.")


def _asked_for(results: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> Section:
    counts = np.array([[result["answered_classes"][name] for name in class_names] for result in results], float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = classes_figure(share, results, class_names, "share of the cycle's answers")
    caption = "What the queries were: the share of each class among a cycle's answers. The first cycle's are random."
    return Section("What was asked for", [Picture(figure, caption)])


def _hardest(query: Query, train: Dataset, class_names: Sequence[str]) -> Section:
    first = query.indices[:SHOWN]
    titles = [f"{index}: {class_names[guess]}" for index, guess in zip(first, query.guesses, strict=False)]
    figure = slices_figure(train.volumes(first), titles, train.voxel_size)
    caption = "Central slices of the samples that the last cycle wanted most: number, and what the network took it for."
    return Section("Most wanted", [Picture(figure, caption)])


# === Figures ===


def curve_figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy and balanced accuracy against the number of labels."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    labels = [result["labelled"] for result in results]
    for name, what, colour in (
        ("accuracy", "accuracy", ACCENT),
        ("balanced_accuracy", "balanced accuracy", WARNING),
    ):
        axes.plot(labels, [result[name] for result in results], "o-", color=colour, markersize=4, label=what)
    axes.set_xlabel("labelled samples", fontsize=9, color=INK)
    axes.set_ylabel(f"{results[-1]['measured_on']} samples", fontsize=9, color=INK)
    axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    plain_axes(axes)
    return figure


def classes_figure(
    values: np.ndarray, results: Sequence[Mapping[str, Any]], class_names: Sequence[str], what: str
) -> Figure:
    """(cycles, classes) numbers from 0 to 1 as colours: classes down, cycles across."""
    cycles, classes = values.shape
    figure = Figure(figsize=(3.4 + 0.62 * cycles, 1.3 + max(0.26 * classes, 1.0)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values.T, cmap="Blues", vmin=0, vmax=max(float(values.max()), 1e-9), aspect="auto")
    font = float(np.clip(130 / classes, 5, 9))
    axes.set_xticks(range(cycles), [f"{result['labelled']:,}" for result in results], fontsize=8.5, color=INK)
    axes.set_yticks(range(classes), class_names, fontsize=font, color=INK)
    axes.set_xlabel("labelled samples", fontsize=9, color=INK)
    for (cycle, class_), value in np.ndenumerate(values):
        ink = "white" if value > 0.55 * values.max() else INK
        axes.text(cycle, class_, f"{value:.2f}", ha="center", va="center", fontsize=min(font, 8), color=ink)
    plain_axes(axes)
    axes.grid(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label(what, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    bar.outline.set_visible(False)
    return figure
