"""How even clusters are: the sizes of one or more partitions side by side (Xu 2017, supplementary figure S1)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from aitom_ssl.discovery.clustering import TINY, size_statistics
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.figures import ACCENT, FAINT, INK, plain_axes


def cluster_sizes_figure(partitions: Mapping[str, np.ndarray]) -> Figure:
    """A panel for each of {'features': sizes (clusters,), ...}: how many clusters there are of what size.

    Panels share their axes, so that even and uneven partitions of the same samples can be compared. Bins are
    a fifth of a decade wide, or whole numbers where those are wider; the dashed line is behind `TINY`.
    """
    if not partitions:
        raise InputError("There are no cluster sizes to draw. Expected {'features': sizes, ...}.")
    figure = Figure(figsize=(4.6 * len(partitions) + 0.4, 3.5), layout="constrained")
    panels = figure.subplots(1, len(partitions), squeeze=False, sharex=True, sharey=True)[0]
    largest = max(int(np.max(sizes)) for sizes in partitions.values())
    decades = np.arange(0, np.log10(largest) + 0.2 + 1e-9, 0.2)
    edges = np.append(0.5, np.unique(np.floor(10**decades + 1e-9)) + 0.5)
    for axes, (name, sizes) in zip(panels, partitions.items(), strict=True):
        told = size_statistics(sizes)
        axes.hist(sizes, bins=edges, color=ACCENT, edgecolor="white", linewidth=0.6)
        axes.axvline(TINY + 0.5, color=FAINT, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.set_xlabel("samples in the cluster", fontsize=9, color=INK)
        axes.set_title(
            f"{name}\n{told['clusters']} clusters, as uneven as {told['effective']:.0f} equal ones;\n"
            f"{told['tiny']} of {TINY} or fewer, largest {told['largest']:,}",
            fontsize=9,
            color=INK,
            loc="left",
        )
        plain_axes(axes)
    panels[0].set_ylabel("clusters", fontsize=9, color=INK)
    return figure
