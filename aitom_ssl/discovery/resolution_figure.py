"""Fourier shell correlations in one picture, with the criteria by which they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from aitom_ssl.discovery.resolution import HALF_SETS, REFERENCE, ShellCorrelation
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.figures import FAINT, INK, WARNING, class_colours, plain_axes


def correlation_figure(
    curves: Mapping[str, ShellCorrelation], thresholds: tuple[float, ...] = (HALF_SETS, REFERENCE)
) -> Figure:
    """Correlation against frequency of named curves; the legend below has each one's resolution at every threshold.

    The grey band is what independent white noise gives, within two standard deviations, of the first curve's shells.
    """
    if not curves:
        raise InputError("There is no Fourier shell correlation to draw. Expected {'name': curve, ...}.")
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    first = next(iter(curves.values()))
    band = 2 * first.noise_level[1:]
    axes.fill_between(first.frequency[1:], -band, band, color=FAINT, alpha=0.25, linewidth=0, label="noise, 2 sd")
    for (name, curve), colour in zip(curves.items(), class_colours(len(curves)), strict=True):
        read = ", ".join(f"{words(curve, threshold)} at {threshold:g}" for threshold in thresholds)
        axes.plot(curve.frequency[1:], curve.correlation[1:], color=colour, linewidth=1.8, label=f"{name}: {read}")
    for threshold in thresholds:
        axes.axhline(threshold, color=WARNING, linewidth=1.0, linestyle=(0, (4, 3)))
    lowest = min(-0.1, *(float(curve.correlation.min()) for curve in curves.values()))
    axes.set_ylim(lowest - 0.02, 1.03)
    axes.set_xlim(0, max(float(curve.frequency[-1]) for curve in curves.values()))
    axes.set_xlabel("frequency (1/Å)", fontsize=9, color=INK)
    axes.set_ylabel("Fourier shell correlation", fontsize=9, color=INK)
    ticks = [tick for tick in axes.get_xticks() if 0 < tick <= axes.get_xlim()[1]]
    above = axes.secondary_xaxis("top")
    above.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    above.set_xlabel("resolution (Å)", fontsize=9, color=INK)
    above.tick_params(colors=INK, labelsize=8.5, length=3)
    plain_axes(axes)
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower left")
    return figure


def words(curve: ShellCorrelation, threshold: float) -> str:
    """The resolution at a threshold, for people: "24.1 Å", "≤ 20 Å (Nyquist)" or "none"."""
    value = curve.resolution(threshold)
    if not math.isfinite(value):
        return "none"
    if not np.isfinite(curve.crossing(threshold)):
        return f"≤ {value:.3g} Å (Nyquist)"
    return f"{value:.3g} Å"
