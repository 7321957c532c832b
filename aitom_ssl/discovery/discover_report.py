"""The report of `discover`: what the clusters are, every average with slices and surface, FSC curves, and a summary."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from aitom_ssl.data.sources import Source
from aitom_ssl.discovery.cluster_averages import ClusterResult
from aitom_ssl.discovery.clustering import size_statistics
from aitom_ssl.discovery.clustering_figure import cluster_sizes_figure
from aitom_ssl.discovery.resolution import HALF_SETS
from aitom_ssl.discovery.resolution_figure import correlation_figure
from aitom_ssl.discovery.surface_figure import structures_figure
from aitom_ssl.evaluation.embedding import tsne
from aitom_ssl.evaluation.figures import embedding_figure
from aitom_ssl.evaluation.report import (
    Command,
    Highlights,
    Picture,
    Section,
    Table,
    aligned,
    duration,
    machine_facts,
    settings_section,
    write_report,
)
from aitom_ssl.files import atomic_write

if TYPE_CHECKING:
    from aitom_ssl.discovery.discovery_folder import Cluster, Discovery

_FEWEST_DRAWN = 4
# Heading of the summary -> column of table.csv.
_SUMMARY = {
    "cluster": "cluster",
    "class": "class",
    "size": "size",
    "FSC 0.143 (Å)": "resolution_0.143",
    "most are": "label",
    "purity": "purity",
    "classified as": "predicted",
    "looks like": "nearest_known",
    "score": "nearest_score",
    "differs by (Å)": "nearest_discrepancy",
}


def summary_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Of table.csv's rows what people look at first, with a header; columns that are empty throughout are left out."""
    kept = {head: name for head, name in _SUMMARY.items() if any(row.get(name, "") != "" for row in rows)}
    lines = [list(kept)]
    for row in rows:
        cells = [_cell(head, row.get(name, "")) for head, name in kept.items()]
        if row["status"] != "averaged":
            cells[list(kept).index("class")] = f"({row['status']})" if "class" in kept else ""
        lines.append(cells)
    return lines


def _cell(head: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if "Å" in head else f"{value:.3f}"
    return str(value)


def summary_text(rows: Sequence[Mapping[str, Any]], most: int = 40) -> str:
    """The summary as aligned plain text, the first `most` lines of it."""
    if all("class" not in row or row["class"] == "" for row in rows):
        return "No cluster is averaged."
    lines = aligned(summary_rows(rows), gap=3)
    more = len(lines) - 1 - most
    return "\n".join([*lines[: most + 1], *([f"... and {more} more in table.csv"] if more > 0 else [])])


def write_discovery_report(
    found: Discovery,
    source: Source,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    notes: Sequence[str],
    command: str,
) -> Path:
    """report.html and tsne.png of what is finished in a discovery's folder."""
    about, results = found.subdivision(), found.results()
    failures = {job: text for job in found.jobs() if (text := found.failure(job))}
    averages = [row for row in rows if row["status"] == "averaged"]
    reached = [row["resolution_0.143"] for row in averages if row["resolution_0.143"] != ""]
    highlights = [
        (f"{sum(about['sizes']):,}", "subtomograms"),
        (f"{len(about['sizes'])}", "clusters"),
        (f"{len(averages)}", "averages"),
    ]
    if reached:
        highlights.append((f"{statistics.median(reached):.1f} Å", "median resolution, FSC of half sets at 0.143"))
    halves = (
        "Half sets went their own way from the start (gold standard)."
        if found.averaging.gold_standard
        else "Half sets were averaged apart but aligned to common references, so their FSC is on the optimistic side; "
        "--gold_standard keeps them apart throughout."
    )
    words = [
        *about["notes"],
        *notes,
        *[f"Left out: {text}" for text in about["left_out"][:20]],
        *([f"{len(about['left_out'])} subtomograms are left out."] if about["left_out"] else []),
        *[f"Cluster {job.number} failed: {text}" for job, text in failures.items()],
    ]
    small = found.too_small()
    if small:
        together = sum(job.size for job in small)
        words.append(
            f"{len(small)} clusters of {together} subtomograms are too small for {found.averaging.classes} classes "
            f"({found.averaging.needed} are needed): not averaged."
        )
    first = [
        Highlights(highlights),
        f"{about['what']}; k-means; every cluster averaged without a reference (classes: {found.averaging.classes}, "
        f"iterations: {found.averaging.iterations}), tilts of ±{found.averaging.tilt_max:g}°. {halves}",
        *words,
        Table(summary_rows(rows), _explained(averages)),
    ]
    sections = [
        Section("What was found", first),
        Section("Subdivision", _subdivision_blocks(found, source, about)),
        *[_cluster_section(job, result, rows, found) for job, result in results.items()],
        Section("Machine", [Table(machine_facts(), header=False)]),
        *([Section("Command", [Command(command)])] if command else []),
        settings_section(settings),
    ]
    title = f"Structures in {settings['data']}"
    subtitle = "Features, clusters, averages and their resolution, without a reference"
    return write_report(found.path / "report.html", title, sections, subtitle)


def _explained(averages: Sequence[Mapping[str, Any]]) -> str:
    text = "A row an average."
    if any(row["label"] for row in averages):
        text += " Most are, purity: the labels in the data, which took no part."
    if any(row["predicted"] for row in averages):
        text += " Classified as: the network's answer for most of them, right or not."
    if any(row["nearest_known"] for row in averages):
        text += (
            " Looks like: the known structure that the average correlates with best (score, 1 at most); differs by: "
            "the largest features in which both differ, FSC 0.5. One of the known always comes first, however unlike."
        )
    return text


# === Subdivision ===


def _subdivision_blocks(found: Discovery, source: Source, about: Mapping[str, Any]) -> list[Any]:
    partitions = {"these features": np.array(about["sizes"])}
    partitions |= {name.replace("_", " "): np.array(other["sizes"]) for name, other in about["compared"].items()}
    told = {"these features": about, **{name.replace("_", " "): other for name, other in about["compared"].items()}}
    heads = ["features", "clusters", "largest", "of 10 or fewer", "as uneven as"]
    scored = "purity" in about
    rows = [heads + (["purity", "mutual information", "adjusted Rand index"] if scored else [])]
    for name, sizes in partitions.items():
        facts = size_statistics(sizes)
        row = [name, f"{facts['clusters']}", f"{facts['largest']:,}", f"{facts['tiny']}"]
        row.append(f"{facts['effective']:.0f} equal ones")
        if scored:
            row += [f"{told[name][key]:.3f}" for key in ("purity", "mutual_information", "adjusted_rand")]
        rows.append(row)
    blocks: list[Any] = []
    figure = _tsne_figure(found, source)
    if figure is not None:
        with atomic_write(found.path / "tsne.png") as temporary:
            figure.savefig(temporary, dpi=150, facecolor="white")
        blocks.append(Picture(figure, "t-SNE of the features; what is far apart here need not be so there."))
    text = "How many clusters there are of what size (Xu 2017, supplementary figure S1)."
    return [*blocks, Picture(cluster_sizes_figure(partitions), text), Table(rows)]


def _tsne_figure(found: Discovery, source: Source) -> Figure | None:
    features = np.load(found.path / "features.npy", mmap_mode="r")
    if len(features) < _FEWEST_DRAWN or features.shape[1] < 2:
        return None
    points, shown = tsne(features)
    clusters = found.clusters()
    labels = source.labels[clusters["particle"][shown]]
    if (labels >= 0).any():
        return embedding_figure({"Coloured by class": points}, labels, source.class_names)
    cluster = clusters["cluster"][shown]
    return embedding_figure({"Coloured by cluster": points}, cluster, [f"{c}" for c in range(cluster.max() + 1)])


# === Clusters ===


def _cluster_section(
    job: Cluster, result: ClusterResult, rows: Sequence[Mapping[str, Any]], found: Discovery
) -> Section:
    mine = [row for row in rows if row["cluster"] == job.number]
    count = len(result.about["classes"])
    titles = [f"class {row['class']}: {row['size']} subtomograms" for row in mine]
    voxel_size = result.about["voxel_size"]
    pictures = structures_figure([result.shown(c) for c in range(count)], titles, voxel_size)
    blocks: list[Any] = [Picture(pictures, _caption(mine))]
    curves = {f"class {c + 1}": curve for c in range(count) if (curve := result.curve(c)) is not None}
    if curves:
        blocks.append(Picture(correlation_figure(curves, (HALF_SETS,)), "Fourier shell correlation of the half sets."))
    without = [f"{c + 1}" for c in range(count) if result.curve(c) is None]
    if without:
        blocks.append(f"Class {', '.join(without)}: one half set is empty, so there is no FSC.")
    took = duration(result.about["seconds"])
    return Section(f"Cluster {job.number}: {job.size:,} subtomograms", [*blocks, f"Averaged in {took}."])


def _caption(rows: Sequence[Mapping[str, Any]]) -> str:
    words = []
    for row in rows:
        parts = []
        if row["label"]:
            parts.append(f"{row['purity']:.0%} {row['label']}")
        if row["predicted"]:
            parts.append(f"classified as {row['predicted']} ({row['predicted_share']:.0%})")
        if row["nearest_known"]:
            differs = f", differs by {row['nearest_discrepancy']:g} Å" if row["nearest_discrepancy"] != "" else ""
            parts.append(f"looks like {row['nearest_known']} (score {row['nearest_score']:.2f}{differs})")
        words.append(f"Class {row['class']}: {'; '.join(parts)}." if parts else "")
    shells = "Averages with each shell weighted by its FSC; the surface is midway between particle and background."
    return " ".join([*filter(None, words), shells])
