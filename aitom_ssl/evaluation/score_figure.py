"""A figure of scores against a threshold: of what is known to be of a class or of none, and of particles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from aitom_ssl.evaluation.figures import ACCENT, FAINT, INK, WARNING, plain_axes

_BINS = np.linspace(0, 1, 41)


def scores_figure(calibrated: Mapping[str, np.ndarray], particles: np.ndarray, threshold: float) -> Figure:
    """Histograms from 0 to 1: shares of each of the `calibrated` groups of scores above, counts of `particles` below.

    Groups that are empty are left out; the line is at `threshold`.
    """
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for (name, scores), colour in zip(calibrated.items(), (ACCENT, FAINT), strict=True):
        if len(scores):
            shares = np.full(len(scores), 1 / len(scores))
            upper.hist(scores, _BINS, weights=shares, color=colour, alpha=0.75, label=name)
    upper.set_ylabel("share of the views", fontsize=9, color=INK)
    upper.legend(frameon=False, fontsize=8.5)
    lower.hist(particles, _BINS, color=ACCENT, alpha=0.85)
    lower.set_ylabel("particles", fontsize=9, color=INK)
    lower.set_xlabel("score of the closest class", fontsize=9, color=INK)
    lower.set_xlim(0, 1)
    for axes in (upper, lower):
        axes.axvline(threshold, color=WARNING, linewidth=1.1, linestyle=(0, (4, 3)))
        plain_axes(axes)
    return figure
