"""Figures of segmented particles: slices of each with the outline of its mask, and the volumes of the masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.figures import (
    ACCENT,
    INK,
    _scale_bar,
    _short,
    _show,
    central_slices,
    checked_volumes,
    plain_axes,
)

OUTLINE, TRUTH = "#ff9f1c", "#2ec4b6"
_SIDE, _GAP, _APART, _TITLE, _FOOT = 1.15, 0.04, 0.22, 0.25, 0.3  # inches


def mask_figure(
    volumes: np.ndarray,
    masks: np.ndarray,
    titles: Sequence[str],
    voxel_size: float | None = None,
    truth: np.ndarray | None = None,
    columns: int = 3,
) -> Figure:
    """The central z, y and x slices of each particle, with the outline of its mask, along the voxels' edges.

    Args:
        volumes: (n, z, y, x), n >= 1.
        masks: (n, z, y, x), True or 1 in the particle.
        titles: n names.
        voxel_size: in A, for a scale bar.
        truth: true masks, if known; drawn in another colour below.
        columns: of particles, three slices each.
    """
    volumes = checked_volumes(volumes, titles)
    drawn = [(OUTLINE, masks)] if truth is None else [(TRUTH, truth), (OUTLINE, masks)]
    for _, these in drawn:
        if np.shape(these) != volumes.shape:
            raise InputError(f"Masks have shape {np.shape(these)}, expected {volumes.shape}, as the volumes.")
    columns = min(columns, len(volumes))
    rows = math.ceil(len(volumes) / columns)
    wide, tall = 3 * (_SIDE + _GAP) + _APART, _SIDE + _TITLE
    foot = _FOOT if truth is not None else 0.0
    width, height = columns * wide + _APART, rows * tall + foot + 0.08
    figure = Figure(figsize=(width, height))
    for k, volume in enumerate(volumes):
        row, column = divmod(k, columns)
        low = height - (row + 1) * tall
        panels = [
            figure.add_axes(
                (
                    (_APART + column * wide + number * (_SIDE + _GAP)) / width,
                    low / height,
                    _SIDE / width,
                    _SIDE / height,
                )
            )
            for number in range(3)
        ]
        for number, axes in enumerate(panels):
            _show(axes, central_slices(volume)[number])
            for colour, these in drawn:
                outline(axes, central_slices(np.asarray(these)[k])[number], colour)
        panels[0].set_title(_short(titles[k], 50), fontsize=8.5, color=INK, loc="left", pad=2.5)
        if k == 0 and voxel_size is not None and math.isfinite(voxel_size) and voxel_size > 0:
            _scale_bar(panels[0], volume.shape[2], voxel_size)
    if truth is not None:
        for place, (colour, name) in enumerate(((OUTLINE, "predicted"), (TRUTH, "true"))):
            figure.text((_APART + 0.9 * place) / width, 0.1 / height, name, color=colour, fontsize=9, fontweight="bold")
    return figure


def outline(axes: Axes, mask: np.ndarray, colour: str) -> None:
    """Draw the edges between voxels of a (y, x) `mask` and others on an image of it; the image's rim is an edge too."""
    padded = np.pad(np.asarray(mask, bool), 1)
    lines = []
    for y, x in np.argwhere(padded[1:] != padded[:-1]):
        lines.append([(x - 1.5, y - 0.5), (x - 0.5, y - 0.5)])
    for y, x in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        lines.append([(x - 0.5, y - 1.5), (x - 0.5, y - 0.5)])
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=1.1, capstyle="round"), autolim=False)


def volumes_figure(volumes: Mapping[str, np.ndarray]) -> Figure:
    """Volumes in nm^3 (n,) by class: a histogram of one class, a row of boxes and points of more."""
    if not volumes or not all(len(values) for values in volumes.values()):
        raise InputError("There are no volumes to draw. Expected {'class': volumes, ...}, one or more each.")
    names = list(volumes)
    height = 3.2 if len(names) == 1 else 0.9 + 0.34 * len(names)
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.subplots()
    if len(names) == 1:
        axes.hist(volumes[names[0]], bins="auto" if np.ptp(volumes[names[0]]) > 0 else 1, color=ACCENT, alpha=0.85)
        axes.set_ylabel("particles", fontsize=9, color=INK)
    else:
        rng = np.random.default_rng(0)
        for row, values in enumerate(volumes.values()):
            heights = row + 0.13 * rng.uniform(-1, 1, len(values))
            axes.scatter(values, heights, s=7, color=ACCENT, alpha=0.35, linewidths=0)
        style = {"color": INK, "linewidth": 1.0}
        axes.boxplot(
            list(volumes.values()), positions=range(len(names)), orientation="horizontal", widths=0.55, sym="",
            boxprops=style, whiskerprops=style, capprops=style, medianprops={**style, "linewidth": 2.0},
        )
        axes.set_yticks(range(len(names)), [_short(name, 24) for name in names])
        axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("volume of the mask, nm³", fontsize=9, color=INK)
    plain_axes(axes)
    return figure
