"""A picture of a simulated tomogram: central slices, the density and labels behind them, and the missing wedge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from aitom_ssl.geometry import centre

AVERAGED = 32
"""How many y slices the spectrum is averaged over."""


def wedge_spectrum(volume: np.ndarray) -> np.ndarray:
    """log10 of the mean power of y slices in the plane (kz, kx), origin at the centre: (z, x), peak 0, at least -6.

    A Hann window along both axes keeps the borders, where the volume ends, from spreading over the missing wedge.
    """
    nz, ny, nx = volume.shape
    window = np.hanning(nz + 2)[1:-1, None] * np.hanning(nx + 2)[1:-1]
    chosen = np.unique(np.linspace(0, ny - 1, min(AVERAGED, ny)).astype(int))
    slices = (np.asarray(volume[:, y], dtype=np.float64) for y in chosen)
    power = sum(np.square(np.abs(np.fft.fft2((image - image.mean()) * window))) for image in slices)
    return np.log10(np.maximum(np.fft.fftshift(power / max(power.max(), np.finfo(float).tiny)), 1e-6))


def class_colours(count: int) -> np.ndarray:
    """(count, 3) RGB, one a class."""
    return colormaps["turbo"](np.linspace(0.04, 0.96, count))[:, :3]


def tomogram_figure(
    tomogram: np.ndarray, density: np.ndarray, classes: np.ndarray, class_names: Sequence[str], title: str = ""
) -> Figure:
    """Figure of volumes (z, y, x): the central z slices of all three above their central y slices; the spectrum.

    classes: 0, or 1 + an index into class_names. Only the slices that are shown are read.
    """
    nz, ny, nx = tomogram.shape
    wide = 4.2
    heights = [wide * ny / nx, max(wide * nz / nx, 1.2)]
    figure = Figure(figsize=(3 * wide + 2.6, sum(heights) + 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    grid = figure.add_gridspec(3, 3, height_ratios=[*heights, 2.6])
    colours = ListedColormap([(1, 1, 1), *class_colours(len(class_names))])
    z, y = centre(nz), centre(ny)
    shown = []
    for row, (cut, axis) in enumerate(((np.s_[z], f"z = {z}"), (np.s_[:, y], f"y = {y}"))):
        for column, (volume, name) in enumerate(((tomogram, "tomogram"), (density, "density"), (classes, "classes"))):
            axes = figure.add_subplot(grid[row, column])
            image = np.asarray(volume[cut])
            axes.set_title(f"{name}, {axis}", fontsize=9)
            if volume is classes:
                axes.imshow(image, cmap=colours, vmin=0, vmax=len(class_names), origin="lower", interpolation="nearest")
                shown.append(np.unique(image[image > 0]))
            else:
                low, high = np.percentile(image, [0.5, 99.5])
                axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), origin="lower")
            _plain(axes)
    axes = figure.add_subplot(grid[2, 0])
    axes.imshow(wedge_spectrum(tomogram), cmap="magma", extent=(-0.5, 0.5, -0.5, 0.5), origin="lower", aspect="auto")
    axes.set_title("power spectrum of the tomogram, log10 from -6 to 0", fontsize=9)
    axes.set_xlabel("kx, cycles a voxel", fontsize=8)
    axes.set_ylabel("kz", fontsize=8)
    axes.tick_params(labelsize=7)
    legend = figure.add_subplot(grid[2, 1:])
    legend.set_axis_off()
    present = np.unique(np.concatenate(shown)).astype(int)
    patches = [Patch(color=colours(int(value)), label=class_names[value - 1]) for value in present]
    legend.legend(handles=patches, loc="center", ncols=3, fontsize=8, frameon=False, title="classes in these slices")
    return figure


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    for spine in axes.spines.values():
        spine.set_visible(False)
