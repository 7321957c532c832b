"""A picture to judge picks by: the tomogram with the picks on it, and the first and last of them cut out."""

from __future__ import annotations

import matplotlib.axes
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy import ndimage

from aitom_ssl.discovery.picking import Picks
from aitom_ssl.geometry import centre

SHOWN = 24  # cut-outs from either end of the list


def picks_figure(tomogram: np.ndarray, picks: Picks, voxel_size: float, box_size: int) -> Figure:
    """Figure of a (z, y, x) tomogram: a slab about its middle with the picks in it, cut-outs of the best and the worst.

    Everything has the contrast of the file (dark particles are dark) and is smoothed: every image is the mean of a slab
    of sigma voxels either side, then convolved with a Gaussian of sigma / 3. `box_size`: voxels of a cut-out.
    """
    half = max(int(picks.sigma), 1)
    middle = centre(tomogram.shape[0])
    figure = Figure(figsize=(15, 8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=[8, 7])
    axes = left.subplots()
    _image(axes, tomogram[max(middle - half, 0) : middle + half + 1], picks.sigma / 3)
    inside = np.abs(picks.positions[:, 2] - middle) <= half
    for x, y, _ in picks.positions[inside]:
        axes.add_patch(Circle((x, y), picks.min_distance / 2, fill=False, color="tab:orange", linewidth=1))
    shown = f"{int(inside.sum())} of {len(picks.positions)} picks"
    axes.set_title(f"z = {middle - half}..{middle + half}, voxels of {voxel_size:g} A: {shown}")
    first = np.arange(min(SHOWN, len(picks.positions)))
    last = np.arange(max(len(picks.positions) - SHOWN, len(first)), len(picks.positions))
    grids = right.subfigures(2, 1)
    for panel, chosen, what in zip(grids, (first, last), ("best", "worst"), strict=True):
        panel.suptitle(f"the {len(chosen)} {what} picks, boxes of {box_size} voxels")
        for k, cell in enumerate(panel.subplots(4, SHOWN // 4).flat):
            cell.set_axis_off()
            if k < len(chosen):
                x, y, z = picks.positions[chosen[k]]
                low_y, low_x = max(y - box_size // 2, 0), max(x - box_size // 2, 0)
                box = np.s_[max(z - half, 0) : z + half + 1, low_y : low_y + box_size, low_x : low_x + box_size]
                _image(cell, tomogram[box], picks.sigma / 3)
    return figure


def _image(axes: matplotlib.axes.Axes, slab: np.ndarray, sigma: float) -> None:
    image = ndimage.gaussian_filter(slab.mean(axis=0, dtype=np.float64), sigma)
    low, high = np.percentile(image, [0.5, 99.5])
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")
