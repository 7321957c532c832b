"""The reports of COS-Net: of a training, and of evaluations on unseen classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from aitom_ssl import environment
from aitom_ssl.data.batches import gather
from aitom_ssl.evaluation import figures
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
from aitom_ssl.geometry import centre
from aitom_ssl.oneshot.tables import RunResult, accuracy_rows, dice_rows
from aitom_ssl.oneshot.trained import TrainedCOSNet

if TYPE_CHECKING:
    from aitom_ssl.oneshot.plan import TrainingPlan
    from aitom_ssl.oneshot.validation import Validation
    from aitom_ssl.training.run import Checkpoint

_SHOWN = 8


def write_training_report(
    path: str | os.PathLike,
    trained: TrainedCOSNet,
    plan: TrainingPlan,
    done: Checkpoint,
    final: Validation | None,
    settings: Mapping[str, Any],
    command: str,
) -> Path:
    """Write the report of a run of train_cosnet to `path`; returns it."""
    kind = "classes kept out of training" if final is not None and final.unseen else "training classes"
    numbers = []
    if final is not None:
        numbers = [
            (str(a.accuracy), f"{a.way}-way-{a.shots}-shot accuracy (chance: {1 / a.way:.3f})") for a in final.answers
        ]
        numbers += [] if final.dice is None else [(str(final.dice), "Dice of the masks")]
    facts = [
        ["trained on", f"{len(plan.train):,} samples of {len(plan.classes)} classes of {settings['data']}"],
        ["classes", ", ".join(plan.classes)],
        [
            "measured on",
            "nothing: no validation split" if final is None else f"{final.samples:,} validation samples of {kind}",
        ],
        ["network", f"COS-Net of {settings['filters']} filters, {trained.network.count_params():,} weights"],
        ["seed", f"{settings['seed']}"],
        ["training time", duration(done.seconds)],
        *machine_facts(),
    ]
    blocks = [*([Highlights(numbers)] if numbers else []), Table(facts, header=False)]
    if command:
        blocks += ["The command that makes this run again:", Command(command)]
    caption = (
        "Accuracy of training episodes is with augmentation and at their number of ways. Validation is on "
        f"{kind}, without augmentation; the network of the last epoch is kept."
    )
    sections = [Section("Summary", blocks), Section("Training", [Picture(curves_figure(done.history), caption)])]
    if trained.has_masks and plan.validation is not None:
        what = f"Validation samples of {kind}: central z slices, contours of the true masks and of the predicted ones."
        sections.append(Section("Masks", [Picture(example_masks_figure(trained, plan.validation), what)]))
    sections.append(settings_section({"command": command, **settings}))
    subtitle = f"{settings['data']} · {done.epoch} epochs · aitom_ssl {environment.versions()['aitom_ssl']}"
    return write_report(path, "One-shot training of COS-Net", sections, subtitle)


def write_evaluation_report(
    path: str | os.PathLike, results: Sequence[RunResult], ways: Sequence[int], shots: int, command: str
) -> Path:
    """Write the tables of `results` to `path`; returns it."""
    best = max(results, key=lambda r: r.answers[0].accuracy.mean)
    first = best.answers[0]
    numbers = [(str(first.accuracy), f"{first.way}-way-{shots}-shot accuracy, {best.variant}, {best.data}")]
    with_masks = [r for r in results if r.mean_dice is not None]
    if with_masks:
        masks = max(with_masks, key=lambda r: r.mean_dice.mean)
        numbers.append((str(masks.mean_dice), f"Dice of the masks, {masks.variant}, {masks.data}"))
    facts = [
        ["runs", ", ".join(dict.fromkeys(r.run for r in results))],
        ["classes", ", ".join(dict.fromkeys(name for r in results for name in r.classes))],
        ["episodes", f"{first.accuracy.count:,} of each kind, support samples of a class: {shots}"],
        *machine_facts(),
    ]
    blocks = [Highlights(numbers), Table(facts, header=False)]
    if command:
        blocks += ["The command that makes these tables again:", Command(command)]
    caption = (
        "Share of the targets whose class was found; ± is the 95% confidence interval over episodes. It leaves out "
        "what another training would change: runs of one variant are averaged, ± is then their standard deviation."
    )
    sections = [
        Section("Summary", blocks),
        Section(
            "Accuracy on unseen classes",
            [
                Table(accuracy_rows(results, ways), caption),
                Picture(ways_figure(results), "Accuracy against the number of ways."),
            ],
        ),
        Section(
            "Class by class",
            [Table(class_rows(best), f"{best.run} on {best.data}: share of the targets of a class that was found.")],
        ),
    ]
    for data in dict.fromkeys(r.data for r in with_masks):
        text = "Dice similarity 2 |A and B| / (|A| + |B|) of predicted and true masks, cut at a probability of a half."
        sections.append(
            Section(
                f"Masks, {data}",
                [Table(dice_rows(results, data), f"{text} ± is the 95% confidence interval over samples.")],
            )
        )
    return write_report(path, "One-shot classification and segmentation", sections, "COS-Net on unseen classes")


def class_rows(result: RunResult) -> list[list[str]]:
    """A row a class, a column for each number of ways."""
    header = ["class", *(f"{answers.way}-way" for answers in result.answers)]
    columns = [list(answers.by_class.values()) for answers in result.answers]
    return [header, *([name, *map(str, cells)] for name, *cells in zip(result.classes, *columns, strict=True))]


# === Figures ===


def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, accuracy and Dice against the epoch, of training episodes and of validation."""
    panels = {"loss": "Loss", "accuracy": "Accuracy", "dice": "Dice"}
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        first = "episode_accuracy" if name == "accuracy" else name
        columns = [first, *sorted({key for row in history for key in row if key.startswith(f"val_{name}")})]
        for number, key in enumerate(columns):
            epochs, values = figures.column(history, key)
            label = (
                "training"
                if number == 0
                else key.replace(f"val_{name}", "validation").replace("_", ", ").replace("way", "-way")
            )
            colour = figures.FAINT if number == 0 else figures.class_colours(10)[number - 1]
            axes.plot(
                epochs,
                values,
                color=colour,
                linewidth=1.6,
                marker="o" if len(epochs) <= 30 else None,
                markersize=3,
                label=label,
            )
        axes.set_title(title, fontsize=10.5, color=figures.INK, loc="left", fontweight="bold")
        axes.set_xlabel("epoch", fontsize=9)
        if name != "loss":
            axes.set_ylim(-0.03, 1.03)
        figures.plain_axes(axes)
        axes.legend(frameon=False, fontsize=8.5, loc="best")
    return figure


def ways_figure(results: Sequence[RunResult]) -> Figure:
    """Accuracy with its interval against the number of ways, a line a run; dashes are chance."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    ways = sorted({answers.way for result in results for answers in result.answers})
    for colour, result in zip(figures.class_colours(len(results)), results, strict=True):
        shown = [(a.way, a.accuracy.mean, a.accuracy.half_width) for a in result.answers]
        at, mean, half = (np.array(column, dtype=float) for column in zip(*shown, strict=True))
        axes.errorbar(
            at,
            mean,
            np.nan_to_num(half),
            color=colour,
            marker="o",
            markersize=4,
            capsize=3,
            label=f"{result.data}: {result.variant}",
        )
    axes.plot(
        ways, [1 / way for way in ways], color=figures.WARNING, linestyle=(0, (4, 3)), linewidth=1.1, label="chance"
    )
    axes.set_xticks(ways)
    axes.set_xlabel("classes in the support set", fontsize=9)
    axes.set_ylabel("accuracy", fontsize=9)
    axes.set_ylim(0, 1.03)
    figures.plain_axes(axes)
    axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def example_masks_figure(trained: TrainedCOSNet, data: Any, count: int = _SHOWN) -> Figure:
    """One sample of each of up to `count` classes: its central z slice, with the true mask above the predicted one."""
    present = np.unique(data.labels)
    present = present[np.linspace(0, len(present) - 1, min(count, len(present))).round().astype(int)]
    rows = np.array([np.flatnonzero(data.labels == label)[0] for label in present])
    volumes, truth = gather(data, rows)[..., 0], data.masks(rows)
    predicted = trained(volumes, standardized=True)[1]
    titles = [data.class_names[label] for label in present]
    return masks_over_slices(volumes, {"true": truth, "predicted": predicted}, titles)


def masks_over_slices(volumes: np.ndarray, masks: Mapping[str, np.ndarray], titles: Sequence[str]) -> Figure:
    """Central z slices of `volumes` (n, z, y, x), a row for each of `masks`, (n, z, y, x), outlined at 0.5."""
    side = max(1.2, 10 / max(len(titles), 5))
    figure = Figure(figsize=(side * len(titles) + 0.4, side * len(masks) + 0.4), layout="constrained")
    grid = figure.subplots(len(masks), len(titles), squeeze=False)
    middle = centre(volumes.shape[1])
    for line, (name, found) in zip(grid, masks.items(), strict=True):
        line[0].set_ylabel(name, fontsize=8.5, color=figures.INK)
        for axes, volume, mask in zip(line, volumes, found, strict=True):
            low, high = np.percentile(volume[middle], (1, 99))
            axes.imshow(volume[middle], cmap="gray", vmin=low, vmax=max(high, low + 1e-12), origin="lower")
            if mask[middle].max() > 0.5 > mask[middle].min():
                axes.contour(mask[middle], levels=[0.5], colors=[figures.WARNING], linewidths=1.2)
            axes.set_xticks([])
            axes.set_yticks([])
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8.5, color=figures.INK)
    return figure
