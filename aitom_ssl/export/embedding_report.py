"""An embedding, its pictures and its report (see `embedding`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from aitom_ssl.data.batches import subsample
from aitom_ssl.evaluation.embedding import pca, tsne
from aitom_ssl.evaluation.few_labels import ClusterScores, FewLabels, directions
from aitom_ssl.evaluation.figures import embedding_figure, gallery_figure
from aitom_ssl.evaluation.report import Command, Highlights, Picture, Section, Table, machine_facts, write_report

if TYPE_CHECKING:
    from aitom_ssl.models import ModelDescription


# Points in a figure, at most.
DRAWN = 2000


@dataclasses.dataclass(frozen=True)
class Embedding:
    """What `embedding.embed` came to."""

    folder: Path
    features: np.ndarray  # (n, d) float32
    labels: np.ndarray  # (n,) -1 where unlabelled
    class_names: tuple[str, ...]
    clusters: np.ndarray | None  # (n,)
    scores: ClusterScores | None  # of the clusters, where there are labels
    few: FewLabels | None  # where there are labels enough
    notes: tuple[str, ...]  # what the user should know

    @property
    def labelled(self) -> int:
        """How many have a label."""
        return int((self.labels >= 0).sum())

    @property
    def cluster_sizes(self) -> np.ndarray:
        """(clusters,) samples of each; empty where there are none."""
        return np.zeros(0, np.int64) if self.clusters is None else np.bincount(self.clusters)


def embedding_figures(embedding: Embedding, shown: np.ndarray, pictures: np.ndarray) -> dict[str, Figure]:
    """Figures of up to 2,000 of the samples at `shown` (m,), four or more, whose thumbnails are `pictures` (m, y, x).

    tsne, pca: coloured by class where any has one, else by cluster. gallery: the thumbnails where t-SNE puts them.
    clusters: t-SNE coloured by cluster, where classes have taken the colours of the first.
    """
    drawn = subsample(len(shown), DRAWN, seed=0)
    chosen = shown[drawn]
    features, labels = embedding.features[chosen], embedding.labels[chosen]
    colours: Any = (labels, embedding.class_names)
    by_cluster: Any = (None, ())
    if embedding.clusters is not None:
        by_cluster = embedding.clusters[chosen], [f"cluster {k}" for k in range(len(embedding.cluster_sizes))]
    if not embedding.labelled:
        colours = by_cluster
    points, _ = tsne(features, limit=len(features))
    components, share = pca(directions(features))
    title = f"PCA: {share[0]:.0%} and {share[1]:.0%} of the variance"
    figures = {
        "tsne": embedding_figure({"t-SNE": points}, *colours),
        "pca": embedding_figure({title: components}, *colours, axis_name="component"),
        "gallery": gallery_figure(points, pictures[drawn]),
    }
    if embedding.labelled and embedding.clusters is not None:
        figures["clusters"] = embedding_figure({"t-SNE, by cluster": points}, *by_cluster)
    return figures


def write_embedding_report(
    path: Path,
    embedding: Embedding,
    figures: Mapping[str, Figure],
    about: Mapping[str, Any],
    description: ModelDescription,
) -> Path:
    """Write the report to `path`, an .html file; returns the path.

    figures: of `embedding_figures`, or none. about: model, data, split (or None) and command, texts. description: of
    the model.
    """
    sections = [_summary(embedding, about, description), _pictures(embedding, figures)]
    if embedding.clusters is not None:
        sections.append(_clusters(embedding, figures))
    if embedding.few is not None:
        sections.append(_few_labels(embedding))
    return write_report(path, f"Features of {about['data']}", sections)


def _summary(embedding: Embedding, about: Mapping[str, Any], description: ModelDescription) -> Section:
    count, width = embedding.features.shape
    numbers = [(f"{count:,}", "subtomograms"), (f"{width}", "features each")]
    if embedding.scores is not None:
        numbers.append((f"{embedding.scores.adjusted_rand:.3f}", "adjusted Rand index of clusters and classes"))
    few = embedding.few
    if few is not None:
        accuracy = few.accuracy["label spreading"][-1].mean()
        numbers.append((f"{accuracy:.3f}", f"accuracy of label spreading, {few.labels_per_class[-1]} labels a class"))
    kind = "an encoder"
    if description.class_names:
        kind = "a classifier: what its last layer sees, averaged where that is a large map"
    if description.architecture == "rif_svm":
        kind = "rotation-invariant features"
    classes = len(np.unique(embedding.labels[embedding.labels >= 0]))
    facts = [
        ["model", f"{about['model']}, {description.architecture}, {kind}"],
        ["data", f"{about['data']}, {about['split'] or 'all of it'}"],
        ["labels", f"{embedding.labelled:,} samples of {classes} classes" if classes else "none"],
        *(["note", note] for note in embedding.notes),
        *machine_facts(),
    ]
    blocks: list[Any] = [Highlights(numbers), Table(facts, header=False)]
    if about["command"]:
        blocks += ["The command that makes this again:", Command(about["command"])]
    return Section("What was embedded", blocks)


def _pictures(embedding: Embedding, figures: Mapping[str, Figure]) -> Section:
    count, width = embedding.features.shape
    if not figures:
        return Section("Pictures", [f"{count:,} samples with {width} features are too few to draw."])
    colours = "class" if embedding.labelled else "cluster"
    coloured = f", coloured by {colours}" if embedding.labelled or embedding.clusters is not None else ""
    which = f" of {DRAWN:,} samples, drawn at random" if count > DRAWN else ""
    neighbours = f"t-SNE of the features{which}{coloured}. Read who is whose neighbour: distances between far groups "
    blocks = [
        Picture(figures["tsne"], f"{neighbours}mean little."),
        Picture(figures["pca"], f"The two directions in which the same features differ most{coloured}."),
        Picture(figures["gallery"], "Some of the samples where t-SNE puts them: five central z slices, averaged."),
        "To turn and search the embedding in TensorBoard:",
        Command(f"tensorboard --logdir={embedding.folder / 'projector'}"),
    ]
    return Section("Pictures", blocks)


def _clusters(embedding: Embedding, figures: Mapping[str, Figure]) -> Section:
    scores, clusters = embedding.scores, len(embedding.cluster_sizes)
    blocks: list[Any] = [f"k-means, {clusters} clusters; clusters.csv has the cluster of each sample."]
    caption = "Samples of each cluster."
    if scores is not None:
        rows = [
            ["adjusted Rand index", f"{scores.adjusted_rand:.3f}", "1: clusters are classes; 0: chance"],
            ["normalised mutual information", f"{scores.mutual_information:.3f}", "1: one tells the other; 0: nothing"],
            ["purity", f"{scores.purity:.3f}", "share in the most frequent class of its cluster"],
            ["accuracy", f"{scores.accuracy:.3f}", "share that is right with each cluster named after another class"],
        ]
        blocks.append(Table(rows, header=False))
        caption = "Samples of each cluster, and the three most frequent classes of those with a label."
    blocks.append(Table(list(_cluster_rows(embedding)), caption))
    if "clusters" in figures:
        blocks.append(Picture(figures["clusters"], "The same t-SNE points, coloured by cluster."))
    return Section("Clusters", blocks)


def _cluster_rows(embedding: Embedding) -> Iterator[list[str]]:
    scores, names = embedding.scores, embedding.class_names
    yield ["cluster", "samples", *(["named after", "classes"] if scores is not None else [])]
    for k, size in enumerate(embedding.cluster_sizes):
        if scores is None:
            yield [f"{k}", f"{size:,}"]
        elif k >= len(scores.counts):  # the last clusters may have no sample with a label
            yield [f"{k}", f"{size:,}", "-", "-"]
        else:
            row, name = scores.counts[k], scores.names[k]
            frequent = [c for c in np.argsort(-row, kind="stable")[:3] if row[c]]
            classes = ", ".join(f"{names[c]} {row[c]:,}" for c in frequent)
            yield [f"{k}", f"{size:,}", names[name] if name >= 0 else "-", classes or "-"]


def _few_labels(embedding: Embedding) -> Section:
    few = embedding.few
    text = (
        "Some labels of each class are given, the others hidden. Label spreading hands them from neighbour to "
        "neighbour over all samples; kNN and the linear probe learn from the given ones alone."
    )
    return Section("A few labels", [text, Table(few.rows(), few.caption())])
