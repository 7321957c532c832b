"""Figures of volumes, training curves, embeddings and confusion: each function returns a matplotlib Figure.

Figures are made without pyplot, so nothing global is kept, no display is needed and threads do not meet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre

INK = "#1f2933"
FAINT = "#9aa5b1"
ACCENT = "#1f5fa8"
WARNING = "#c2410c"
_HEADING = {"fontsize": 10.5, "color": INK, "loc": "left", "fontweight": "bold"}


# === Volumes ===


def central_slices(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The central z, y and x slices of a (z, y, x) volume: arrays (y, x), (z, x) and (z, y)."""
    z, y, x = (centre(n) for n in volume.shape)
    return volume[z], volume[:, y], volume[:, :, x]


def slices_figure(volumes: np.ndarray, titles: Sequence[str], voxel_size: float | None = None) -> Figure:
    """One column a volume, one row for each of the central z, y and x slices.

    `volumes` (n, z, y, x), n >= 1; `titles` n names; `voxel_size` in A draws a scale bar where it is known.
    """
    volumes = checked_volumes(volumes, titles)
    grids = [[slices[row] for slices in map(central_slices, volumes)] for row in range(3)]
    return grid_figure(grids, titles, ["central z slice", "central y slice", "central x slice"], voxel_size)


def views_figure(
    originals: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    titles: Sequence[str],
    voxel_size: float | None = None,
) -> Figure:
    """The central z slice of each sample above those of its two augmented views; arrays (n, z, y, x)."""
    sets = [checked_volumes(volumes, titles) for volumes in (originals, first, second)]
    grids = [[central_slices(volume)[0] for volume in volumes] for volumes in sets]
    return grid_figure(grids, titles, ["original", "view 1", "view 2"], voxel_size)


def grid_figure(
    grids: Sequence[Sequence[np.ndarray]], titles: Sequence[str], rows: Sequence[str], voxel_size: float | None = None
) -> Figure:
    """Images side by side, (y, x) each: a row of them for each of `rows`, a column for each of `titles`.

    voxel_size: A, of the first image, draws a scale bar.
    """
    side = max(1.05, 9.6 / max(len(titles), 5))
    height = side * len(rows) + 0.35
    figure = Figure(figsize=(side * len(titles) + 0.4, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, images in enumerate(grids):
        for column, image in enumerate(images):
            _show(axes[row, column], image)
        axes[row, 0].set_ylabel(rows[row], fontsize=8.5, color=INK)
    for column, title in enumerate(titles):
        axes[0, column].set_title(_short(title, int(side * 13)), fontsize=8.5, color=INK)
    if voxel_size is not None and math.isfinite(voxel_size) and voxel_size > 0:
        _scale_bar(axes[0, 0], grids[0][0].shape[1], voxel_size)
    return figure


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, **_grey(image))
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _grey(image: np.ndarray) -> dict[str, Any]:
    """How to draw a slice. Contrast by percentiles: one bright voxel must not turn the rest black."""
    low, high = np.percentile(image, (1, 99))
    return {
        "cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-12), "interpolation": "nearest", "origin": "lower"
    }


def _scale_bar(axes: Axes, side: int, voxel_size: float) -> None:
    """A bar of a round number of angstrom, about a third of the box, in its lower left corner."""
    length = _round_below(0.45 * side * voxel_size)
    voxels = length / voxel_size
    left, low, thick = 0.06 * side, 0.06 * side, 0.035 * side
    axes.add_patch(Rectangle((left, low), voxels, thick, facecolor="white", edgecolor="black", linewidth=0.6))
    text = axes.text(left + voxels / 2, low + 1.4 * thick, f"{length:g} Å", ha="center", va="bottom", fontsize=7.5)
    text.set(color="white", bbox={"facecolor": "black", "alpha": 0.55, "pad": 1.0, "linewidth": 0})


def _round_below(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `value` (> 0)."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * (1 + 1e-12))


def checked_volumes(volumes: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """(n, z, y, x) as float32; InputError unless there are such volumes, n >= 1, and as many titles."""
    volumes = np.asarray(volumes, dtype=np.float32)
    if volumes.ndim != 4 or len(volumes) == 0:
        raise InputError(f"Volumes to draw are (n, z, y, x), n >= 1. Received shape {volumes.shape}.")
    if len(titles) != len(volumes):
        raise InputError(f"Received {len(volumes)} volumes and {len(titles)} titles: give one each.")
    return volumes


# === Curves ===


def column(history: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of one column of a history (one dict an epoch), where it was recorded and finite."""
    pairs = []
    for row in history:
        value = row.get(name)
        if value not in (None, "") and math.isfinite(float(value)):
            pairs.append((float(row["epoch"]), float(value)))
    epochs, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return epochs, values


def curves_figure(
    history: Sequence[Mapping[str, Any]], dim: int | None = None, chance: float | None = None
) -> Figure:
    """Loss, kNN accuracy, feature standard deviation and pretext accuracy against the epoch.

    `history` has one dict an epoch with `epoch` and any of `loss`, `knn`, `feature_std`, `pretext_accuracy`,
    `queue_fill`; `dim` is the embedding's dimension d (draws 1/sqrt(d)), `chance` the kNN accuracy of guessing.
    """
    panels = {
        "loss": ("Contrastive loss", "loss"),
        "knn": ("kNN on frozen features", "validation accuracy"),
        "feature_std": ("Collapse monitor", "std of normalised embeddings"),
        "pretext_accuracy": ("Pretext task (never selects a model)", "share"),
    }
    # Without labels there is no kNN, and without the others no run of ours: an empty panel would only puzzle.
    shown = [name for name in panels if len(column(history, name)[0])] or ["loss"]
    figure = Figure(figsize=(10, 2.9 * math.ceil(len(shown) / 2)), layout="constrained")
    grid = figure.subplots(math.ceil(len(shown) / 2), 2, squeeze=False).ravel()
    axes = dict(zip(shown, grid, strict=False))
    for unused in grid[len(shown) :]:
        unused.set_axis_off()
    for name in shown:
        _curve(axes[name], history, name, *panels[name])
    if chance is not None and "knn" in axes:
        _level(axes["knn"], chance, "chance")
    if dim is not None and "feature_std" in axes:
        _level(axes["feature_std"], 1 / math.sqrt(dim), f"spread evenly, 1/√{dim}")
        axes["feature_std"].set_ylim(0, 1.25 * max(1 / math.sqrt(dim), *column(history, "feature_std")[1]))
    epochs, fill = column(history, "queue_fill")
    if len(epochs) and "pretext_accuracy" in axes:
        pretext = axes["pretext_accuracy"]
        pretext.plot(epochs, fill, color=FAINT, linewidth=1.4, label="queue filled")
        pretext.lines[0].set_label("picks its own view")
        pretext.legend(frameon=False, fontsize=8.5, loc="best")
        pretext.set_ylim(-0.03, 1.05)
    return figure


def classification_curves_figure(
    history: Sequence[Mapping[str, Any]], best_epoch: int | None = None, chance: float | None = None
) -> Figure:
    """Loss and accuracy of training and validation samples against the epoch.

    `history` has one dict an epoch with `epoch` and any of `loss`, `accuracy`, `val_loss`, `val_accuracy`;
    `best_epoch` is marked, `chance` is the accuracy of guessing.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = {"loss": ("Cross-entropy", "nats"), "accuracy": ("Accuracy", "share of the samples")}
    for axes, (name, (title, label)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        _curve(axes, history, f"val_{name}", title, label)
        epochs, values = column(history, name)
        axes.plot(epochs, values, color=FAINT, linewidth=1.4)
        for line, what in zip(axes.lines, ("validation", "training"), strict=True):
            line.set_label(what)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=WARNING, linewidth=1.1, linestyle=(0, (4, 3)), label="kept (best)")
        axes.legend(frameon=False, fontsize=8.5, loc="best")
        if name == "accuracy":
            axes.set_ylim(-0.03, 1.03)
            if chance is not None:
                _level(axes, chance, "chance")
    return figure


def _curve(axes: Axes, history: Sequence[Mapping[str, Any]], name: str, title: str, label: str) -> None:
    epochs, values = column(history, name)
    marker = "o" if len(epochs) <= 30 else None
    axes.plot(epochs, values, color=ACCENT, linewidth=1.8, marker=marker, markersize=3.5)
    axes.set_title(title, **_HEADING)
    axes.set_xlabel("epoch", fontsize=9, color=INK)
    axes.set_ylabel(label, fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_axes(axes)


def _level(axes: Axes, value: float, name: str) -> None:
    axes.axhline(value, color=WARNING, linewidth=1.1, linestyle=(0, (4, 3)))
    place = {"xycoords": axes.get_yaxis_transform(), "xytext": (0, 4), "textcoords": "offset points"}
    axes.annotate(name, (0.99, value), **place, ha="right", va="bottom", fontsize=8.5, color=WARNING)


def plain_axes(axes: Axes) -> None:
    """The look of every chart: two spines and a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    axes.grid(True, color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)


# === Embedding and confusion ===


def class_colours(count: int) -> np.ndarray:
    """(count, 4) RGBA, as distinct as `count` allows."""
    if count <= 10:
        return np.asarray(colormaps["tab10"].colors)[:count]
    if count <= 20:
        return np.asarray(colormaps["tab20"].colors)[:count]
    return colormaps["turbo"](np.linspace(0.02, 0.98, count))[:, :3]


def embedding_figure(
    panels: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    axis_name: str = "t-SNE",
) -> Figure:
    """Points of one or more embeddings side by side, coloured by class.

    `panels` maps a title to (n, 2) points of the same n samples; `labels` (n,), None or all -1 where nothing is known.
    Samples without a label (-1) are grey.
    """
    if not panels:
        raise InputError("There is no embedding to draw. Expected {'title': points, ...}.")
    count = len(next(iter(panels.values())))
    labels = np.full(count, -1) if labels is None else np.asarray(labels)
    counts = [len(points) for points in panels.values()]
    if set(counts) != {len(labels)}:
        raise InputError(f"Received {len(labels)} labels and {counts} points: give one each.")
    present = [int(label) for label in np.unique(labels) if label >= 0]
    colours = class_colours(max(len(class_names), max(present, default=0) + 1))
    columns = math.ceil(len(present) / 24)
    legend = 1.7 * columns if present else 0.0
    figure = Figure(figsize=(4.6 * len(panels) + legend, 4.7), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    size = float(np.clip(6000 / max(count, 1), 5, 28))
    for panel, (title, points) in zip(axes, panels.items(), strict=True):
        unknown = labels < 0
        if unknown.any():
            panel.scatter(*points[unknown].T, s=size, color=ACCENT if not present else FAINT, alpha=0.6, linewidths=0)
        # One call, in random order: classes drawn one after another would hide each other.
        order = np.random.default_rng(0).permutation(np.flatnonzero(~unknown))
        panel.scatter(*points[order].T, s=size, c=colours[labels[order]], alpha=0.8, linewidths=0)
        panel.set_title(title, **_HEADING)
        panel.set_xlabel(f"{axis_name} 1", fontsize=9, color=INK)
        panel.set_ylabel(f"{axis_name} 2", fontsize=9, color=INK)
        plain_axes(panel)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_aspect("equal", adjustable="datalim")
    if present:
        handles = []
        for label in present:
            name = class_names[label] if label < len(class_names) else str(label)
            handles.append(axes[0].scatter([], [], s=26, color=colours[label], label=_short(name, 22)))
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8.5, ncols=columns)
    return figure


def gallery_figure(points: np.ndarray, images: np.ndarray, axis_name: str = "t-SNE", cells: int = 16) -> Figure:
    """Slices of samples where an embedding puts them: what neighbours have in common, with or without labels.

    `points` (n, 2), `images` (n, y, x). The plane is cut into `cells` x `cells` squares, and the sample nearest the
    middle of each square that holds any is drawn there.
    """
    points, images = np.asarray(points, dtype=np.float64), np.asarray(images)
    if points.shape != (len(images), 2) or images.ndim != 3 or len(images) == 0:
        raise InputError(f"Expected points (n, 2) and images (n, y, x). Received {points.shape} and {images.shape}.")
    low, span = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
    places = (points - low) / span * cells
    squares = np.minimum(places.astype(int), cells - 1)
    distance = np.square(places - squares - 0.5).sum(axis=1)
    figure = Figure(figsize=(8.6, 8.6), layout="constrained")
    axes = figure.subplots()
    taken = set()
    for index in np.argsort(distance, kind="stable"):
        x, y = (int(n) for n in squares[index])
        if (x, y) not in taken:
            taken.add((x, y))
            extent = (x + 0.03, x + 0.97, y + 0.03, y + 0.97)
            axes.imshow(images[index], extent=extent, **_grey(images[index]))
    axes.set_xlim(0, cells)
    axes.set_ylim(0, cells)
    axes.set_xlabel(f"{axis_name} 1", fontsize=9, color=INK)
    axes.set_ylabel(f"{axis_name} 2", fontsize=9, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(FAINT)
    return figure


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """(classes, classes) counts, true classes down and predicted across, coloured by the share of each row."""
    matrix = np.asarray(matrix)
    count = len(class_names)
    if matrix.shape != (count, count):
        raise InputError(f"A confusion matrix of {count} classes is {count} x {count}. Received shape {matrix.shape}.")
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.52 * count, 3.2, 9.5))
    figure = Figure(figsize=(side + 2.2, side + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    font = float(np.clip(130 / max(count, 1), 5, 9))
    names = [_short(name, 20) for name in class_names]
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=font, color=INK)
    axes.set_yticks(range(count), names, fontsize=font, color=INK)
    axes.set_xlabel("predicted class", fontsize=9.5, color=INK)
    axes.set_ylabel("true class", fontsize=9.5, color=INK)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="minor", length=0)
    for side_line in axes.spines.values():
        side_line.set_visible(False)
    if count <= 25:
        for (row, guess), number in np.ndenumerate(matrix):
            if number:
                ink = "white" if share[row, guess] > 0.55 else INK
                axes.text(guess, row, f"{number}", ha="center", va="center", fontsize=font, color=ink)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("share of the true class", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    bar.outline.set_visible(False)
    return figure


# === Calibration and mistakes ===


def reliability_figure(bins: Sequence[Any], calibration_error: float) -> Figure:
    """How often the classifier is right when it says it is that sure, above how many samples it says so for.

    `bins`: `classification.ReliabilityBin`s; `calibration_error` 0 to 1 stands in the title.
    """
    low, high = (np.array([getattr(bin_, name) for bin_ in bins]) for name in ("low", "high"))
    count, accuracy = (np.array([getattr(bin_, name) for bin_ in bins]) for name in ("count", "accuracy"))
    figure = Figure(figsize=(5.6, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = count > 0
    place = {"x": (low + high)[filled] / 2, "width": 0.92 * (high - low)[filled]}
    upper.bar(**place, height=accuracy[filled], color=ACCENT, alpha=0.85)
    points = [(bin_.confidence, bin_.accuracy) for bin_ in bins if bin_.count]
    upper.scatter(*np.transpose(points), s=18, color=INK, zorder=3, label="mean confidence in the bin")
    upper.plot((0, 1), (0, 1), color=WARNING, linewidth=1.1, linestyle=(0, (4, 3)), label="calibrated")
    upper.set_title(f"Calibration error {calibration_error:.3f}", **_HEADING)
    upper.set_ylabel("share that is right", fontsize=9, color=INK)
    upper.set_ylim(0, 1.03)
    upper.legend(frameon=False, fontsize=8.5, loc="upper left")
    lower.bar(**place, height=count[filled], color=FAINT)
    lower.set_xlim(0, 1)
    lower.set_xlabel("confidence: probability of the predicted class", fontsize=9, color=INK)
    lower.set_ylabel("samples", fontsize=9, color=INK)
    for axes in (upper, lower):
        plain_axes(axes)
    return figure


def _short(name: str, limit: int) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
