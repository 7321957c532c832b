"""A figure of class activation maps: each sample's central slices, in grey and under the maps of models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.figures import (
    ACCENT,
    INK,
    WARNING,
    _scale_bar,
    _short,
    _show,
    central_slices,
    checked_volumes,
)
from aitom_ssl.evaluation.gradcam import central_share

_SIDE, _GAP, _APART = 1.2, 0.04, 0.24  # inches: a slice, between slices, between samples and models
_TITLE, _HEADING, _FOOT, _BAR = 0.27, 0.36, 0.52, 0.8
_OPAQUE = 0.75  # how much of the grey the strongest colour hides
_STRONGEST = 99  # per cent of a map's voxels are weaker than that: a single high voxel must not pale the rest


@dataclasses.dataclass(frozen=True)
class ModelMaps:
    """What one model made of n samples."""

    name: str
    maps: np.ndarray  # (n, z, y, x)
    predicted: Sequence[str]  # class
    probability: Sequence[float]  # of that class
    targets: Sequence[str]  # the class that each map is of


def cam_figure(
    volumes: np.ndarray,
    names: Sequence[str],
    labels: Sequence[str | None],
    models: Sequence[ModelMaps],
    voxel_size: float | None = None,
) -> Figure:
    """One row a sample: its central z, y and x slices, then for every model the same slices under its map.

    Slices through the centre, for there the particle is, whatever a map says. Colours are parts of the value that 99%
    of the map's voxels stay below: they compare places within a map and not maps. The line is at half of it. A map that
    lies elsewhere shows little here: the title says how much of it is in the centre (see `gradcam.central_share`).

    Args:
        volumes: (n, z, y, x), n >= 1.
        names: of the samples.
        labels: their classes; None where unknown.
        models: one or more, of the same samples.
        voxel_size: in A, for a scale bar.
    """
    volumes = checked_volumes(volumes, names)
    if not models or len(labels) != len(volumes):
        raise InputError(f"Received {len(models)} models and {len(labels)} labels: give one model or more, all labels.")
    for model in models:
        if np.shape(model.maps) != volumes.shape:
            raise InputError(f"The maps of {model.name} have shape {np.shape(model.maps)}, expected {volumes.shape}.")
    scaled = [[scaled_map(cam) for cam in model.maps] for model in models]
    page = _Page(len(volumes), 1 + len(models))
    colours = _heat(signed=any(cam.min() < 0 for maps in scaled for cam in maps))
    for row, volume in enumerate(volumes):
        grey = page.axes(row, 0)
        _slices(grey, volume)
        title = names[row] if labels[row] is None else f"{names[row]}: {labels[row]}"
        page.title(grey, _short(title, 42), INK)
        for column, (model, maps) in enumerate(zip(models, scaled, strict=True), 1):
            panels = page.axes(row, column)
            _slices(panels, volume)
            for axes, part in zip(panels, central_slices(maps[row]), strict=True):
                _overlay(axes, part, colours)
            page.title(panels, *_verdict(model, row, labels[row]))
        if row == 0 and voxel_size is not None and math.isfinite(voxel_size) and voxel_size > 0:
            _scale_bar(grey[0], volume.shape[2], voxel_size)
    for column, heading in enumerate(["central slices", *(model.name for model in models)]):
        page.heading(column, _short(heading, 40))
    page.bar(colours)
    page.foot(
        "Above a map: the predicted class and its probability, blue where right and orange where wrong; how much of "
        "the map lies\nwithin a third of the box of its centre (of a map that is the same everywhere 15%). The line is "
        "at half of the strongest colour."
    )
    return page.figure


def scaled_map(cam: np.ndarray) -> np.ndarray:
    """A map divided by the absolute value that 99% of its voxels stay below, cut at -1 and 1; zeros stay zeros.

    By its largest absolute value where all but 1% of the voxels are 0.
    """
    size = np.abs(cam)
    strongest = np.percentile(size, _STRONGEST) or size.max()
    return np.clip(cam / strongest, -1, 1) if strongest > 0 else np.zeros_like(cam)


# === Panels ===


def _slices(panels: Sequence[Axes], volume: np.ndarray) -> None:
    for axes, image, name in zip(panels, central_slices(volume), "zyx", strict=True):
        _show(axes, image)
        text = axes.text(0.97, 0.03, name, transform=axes.transAxes, ha="right", va="bottom")
        text.set(fontsize=7, color="white", bbox={"facecolor": "black", "alpha": 0.5, "pad": 0.8, "linewidth": 0})


def _overlay(axes: Axes, part: np.ndarray, colours: ScalarMappable) -> None:
    axes.imshow(part, cmap=colours.cmap, norm=colours.norm, interpolation="nearest", origin="lower")
    if part.max() > 0.5:
        axes.contour(part, levels=[0.5], colors="white", linewidths=0.7)


def _heat(signed: bool) -> ScalarMappable:
    """Red to yellow above 0, blue to cyan below, the more opaque the farther from 0."""
    value = np.linspace(-1 if signed else 0, 1, 257)
    strength = np.abs(value)
    cold = np.stack([np.zeros_like(value), 0.3 + 0.6 * strength, np.ones_like(value), np.ones_like(value)], axis=1)
    colours = np.where(value[:, None] >= 0, colormaps["autumn"](strength), cold)
    colours[:, 3] = _OPAQUE * strength
    return ScalarMappable(Normalize(value[0], 1), ListedColormap(colours))


def _verdict(model: ModelMaps, row: int, label: str | None) -> tuple[str, str]:
    """What the model says of a sample, and the colour of that: right, wrong or unknown."""
    predicted, target = model.predicted[row], model.targets[row]
    said = f"{predicted} {model.probability[row]:.2f}"
    if target != predicted:
        said = f"{said}, map of {target}"
    share = central_share(model.maps[row])
    said = f"{said}: nothing" if share is None else f"{said}: {share:.0%} central"
    colour = INK if label is None else ACCENT if predicted == label else WARNING
    return _short(said, 58), colour


class _Page:
    """Rows of triples of square panels at fixed places: a layout engine would move them apart for their titles."""

    def __init__(self, rows: int, triples: int):
        self._triple = 3 * _SIDE + 2 * _GAP
        self._row = _TITLE + _SIDE + _GAP
        self.width = _APART + triples * (self._triple + _APART) + _BAR
        self.height = _HEADING + rows * self._row + _FOOT
        self.figure = Figure(figsize=(self.width, self.height))

    def axes(self, row: int, triple: int) -> list[Axes]:
        bottom = self.height - _HEADING - row * self._row - _TITLE - _SIDE
        lefts = [self._left(triple) + k * (_SIDE + _GAP) for k in range(3)]
        return [self._add(left, bottom, _SIDE, _SIDE) for left in lefts]

    def _left(self, triple: int) -> float:
        return _APART + triple * (self._triple + _APART)

    def _add(self, left: float, bottom: float, width: float, height: float) -> Axes:
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def title(self, panels: Sequence[Axes], text: str, colour: str) -> None:
        panels[0].set_title(text, fontsize=8.5, color=colour, loc="left", pad=3)

    def heading(self, triple: int, text: str) -> None:
        place = self._left(triple) / self.width, 1 - 0.12 / self.height
        self.figure.text(*place, text, fontsize=10.5, color=INK, fontweight="bold", va="top")

    def bar(self, colours: ScalarMappable) -> None:
        height = min(2.4, self.height - _HEADING - _TITLE - _FOOT)
        axes = self._add(self.width - _BAR + 0.02, self.height - _HEADING - _TITLE - height, 0.12, height)
        # As in the panels: the colours lie on grey.
        axes.set_facecolor("0.5")
        bar = self.figure.colorbar(colours, cax=axes)
        says = "against or for the class" if colours.norm.vmin < 0 else "for the class"
        bar.set_label(says, fontsize=8, color=INK)
        bar.ax.tick_params(labelsize=7.5, colors=INK, length=2)
        bar.outline.set_visible(False)

    def foot(self, text: str) -> None:
        self.figure.text(_APART / self.width, 0.1 / self.height, text, fontsize=8, color=INK, va="bottom")
