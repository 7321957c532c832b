"""Features of particles from any trained model, pictures and clusters of them, and what a few labels make of them.

    features.npy             (n, d) float32, a row a particle, in the order of the data, as the model gives them
    samples.csv              particle, what it is called in the data, label (-1: none), class
    features.csv             the features as text, where asked for
    tsne.png  pca.png        coloured by class, else by cluster
    clusters.csv             particle, what it is called, cluster (0: the largest)
    projector/               for TensorBoard's embedding projector: `tensorboard --logdir=FOLDER/projector`
    results.json report.html

The folder appears whole or not at all. Pictures, clusters and the projector see features standardised.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aitom_ssl.data.batches import subsample
from aitom_ssl.data.sources import Reading, Source, open_source
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import (
    BATCH_SIZE,
    FEATURES,
    RIF_SVM,
    Network,
    answers,
    find_network,
    load_network,
)
from aitom_ssl.export.features import feature_blocks
from aitom_ssl.export.feed import Feed
from aitom_ssl.export.prediction import refuse_differences
from aitom_ssl.export.prediction_tables import csv_value
from aitom_ssl.export.projector import MOST, thumbnails, write_projector
from aitom_ssl.files import build_folder, refuse_unwritable, write_json

if TYPE_CHECKING:
    from aitom_ssl.export.embedding_report import Embedding
    from aitom_ssl.models import ModelDescription

_FEWEST_DRAWN = 4
_SEED = 0


def embed(
    run: str | os.PathLike,
    data: str,
    output: str | os.PathLike,
    reading: Reading | None = None,
    batch_size: int = BATCH_SIZE,
    precision: str | None = None,
    ignore_mismatch: bool = False,
    clusters: int | None = None,
    labels_per_class: Sequence[int] | None = None,
    seeds: int = 5,
    as_csv: bool = False,
    command: str = "",
) -> Embedding:
    """Compute the features of `data` with the model at `run`, and write them and what they show into `output`.

    Args:
        run: an encoder or a classifier, see `classifier.find_network`; what is taken of a classifier, `load_network`.
        data, reading, batch_size, precision, ignore_mismatch: as `prediction.predict_files`.
        output: a new or empty folder.
        clusters: of k-means; None is one a class that occurs, and none without labels.
        labels_per_class: for `few_labels`; None is those of 5, 10 and 20 that the smallest class allows.
        seeds: draws of these labels.
        as_csv: write features.csv too.
        command: kept in the report.

    Memory holds the features, never the volumes.

    Raises:
        InputError: as `prediction.predict_files`, for an output that is not empty, more clusters than particles, and
            `labels_per_class` that the labels do not allow.
    """
    reading, output = reading or Reading(), Path(output)
    files = find_network(run)
    _refuse(output)
    source = open_source(data, reading, files.size)
    network = load_network(files, FEATURES, batch_size, precision)
    notes = [*source.notes, *refuse_differences(files, source, ignore_mismatch)]
    wanted, more = _wanted(source, clusters, labels_per_class)
    notes += more
    # The features of a RIF-SVM are computed, not learned.
    if files.about["class_names"] and files.kind != RIF_SVM and (source.labels >= 0).any():
        notes.append("the model has seen labels: on samples that it was trained on, scores are no measure of it.")
    description = files.description()
    feed = Feed(source, description.size, description.contrast, skip_damaged=False)

    from aitom_ssl.export.embedding_report import Embedding

    try:
        features, pictures = _features(feed, network, batch_size, files.path)
        found = _analyse(features, source, wanted, range(seeds))
        embedding = Embedding(
            folder=output,
            features=features,
            labels=source.labels,
            class_names=tuple(source.class_names),
            **found,
            notes=(*notes, *feed.notes()),
        )
        about = {"model": str(files.path), "data": data, "split": reading.split, "command": command}
        with build_folder(output) as folder:
            _write(folder, embedding, source, pictures, as_csv)
            _write_report(folder, embedding, pictures, about, description)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Nothing is written to {output}.") from None
    return embedding


def _refuse(output: Path) -> None:
    refuse_unwritable(output)
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} is there and is not empty: give another --output.")


# === What is computed ===


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is to be done with the features."""

    clusters: int | None
    labels_per_class: tuple[int, ...]


def _wanted(
    source: Source, clusters: int | None, labels_per_class: Sequence[int] | None
) -> tuple[_Wanted, list[str]]:
    """What these data allow, before anything is computed, and notes."""
    from aitom_ssl.evaluation.few_labels import LABELS_PER_CLASS, check_few_labels

    present, sizes = np.unique(source.labels[source.labels >= 0], return_counts=True)
    if clusters is not None and clusters > len(source):
        raise InputError(f"--clusters={clusters} and {len(source):,} particles: ask for fewer, or give more.")
    notes = []
    if labels_per_class is not None:
        check_few_labels(source.labels, source.class_names, labels_per_class)
    elif len(present) < 2:
        labels_per_class = ()
    else:
        labels_per_class = tuple(count for count in LABELS_PER_CLASS if count < sizes.min())
        left = [f"{count}" for count in LABELS_PER_CLASS if count not in labels_per_class]
        if left:
            smallest = source.class_names[present[sizes.argmin()]]
            notes.append(f"not measured with {', '.join(left)} labels a class: {smallest} has {sizes.min()} samples.")
    if clusters is None and len(present) > 1:
        clusters = len(present)
    return _Wanted(clusters, tuple(labels_per_class)), notes


def _features(feed: Feed, network: Network, batch_size: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float32 features of all particles, and the thumbnails of those that the projector shows."""
    count = len(feed.source)
    shown = np.zeros(count, bool)
    shown[_projected(count)] = True
    features, pictures = None, []

    def compute(volumes: np.ndarray) -> np.ndarray:
        return answers(network, volumes, batch_size, path)

    for batch, block in feature_blocks(feed, compute, batch_size, path):
        if not len(batch.indices):
            continue
        if features is None:
            features = np.empty((count, block.shape[1]), np.float32)
        features[batch.indices] = block
        if (seen := shown[batch.indices]).any():
            pictures.append(thumbnails(batch.volumes[seen]))
    return features, np.concatenate(pictures)


def _projected(count: int) -> np.ndarray:
    """Sorted indices of the particles in the projector."""
    return subsample(count, MOST, _SEED)


def _analyse(features: np.ndarray, source: Source, wanted: _Wanted, seeds: Sequence[int]) -> dict[str, Any]:
    """Clusters, their scores, and accuracies with a few labels, each None where there is none."""
    from aitom_ssl.evaluation.few_labels import cluster_scores, few_labels, kmeans

    labelled = source.labels >= 0
    clusters = scores = few = None
    if wanted.clusters is not None:
        clusters = kmeans(features, wanted.clusters, _SEED)
        if labelled.any():
            scores = cluster_scores(clusters[labelled], source.labels[labelled])
    if wanted.labels_per_class:
        few = few_labels(features, source.labels, source.class_names, wanted.labels_per_class, list(seeds))
    return {"clusters": clusters, "scores": scores, "few": few}


# === What is written ===


def _write(folder: Path, embedding: Embedding, source: Source, pictures: np.ndarray, as_csv: bool) -> None:
    """Features and tables, and the projector's files."""
    from aitom_ssl.evaluation.probes import standardize_features

    features, labels, clusters = embedding.features, embedding.labels, embedding.clusters
    names = [*embedding.class_names, ""]  # of label -1, the last, none
    called = ["particle", *source.columns]

    def rows(indices: Iterable[int], values: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
        for i, row in zip(indices, values, strict=True):
            yield [i, *(csv_value(column[i]) for column in source.columns.values()), *row]

    def table(name: str, columns: Sequence[str], values: Iterable[Sequence[Any]]) -> None:
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*called, *columns])
            writer.writerows(rows(range(len(features)), values))

    np.save(folder / "features.npy", features)
    table("samples.csv", ["label", "class"], ((label, names[label]) for label in labels.tolist()))
    if as_csv:
        table("features.csv", [f"feature_{k}" for k in range(features.shape[1])], (map(str, row) for row in features))
    if clusters is not None:
        table("clusters.csv", ["cluster"], ((cluster,) for cluster in clusters.tolist()))
    if _can_be_drawn(features):
        shown = _projected(len(features)).tolist()
        columns = {"class": [names[labels[i]] for i in shown]}
        if clusters is not None:
            columns["cluster"] = [clusters[i] for i in shown]
        metadata = rows(shown, zip(*columns.values(), strict=True))
        (standard,) = standardize_features(features[shown].astype(np.float64))
        write_projector(folder / "projector", standard, [*called, *columns], metadata, pictures)


def _write_report(
    folder: Path, embedding: Embedding, pictures: np.ndarray, about: dict[str, Any], description: ModelDescription
) -> None:
    """The pictures, results.json and report.html."""
    from aitom_ssl.export.embedding_report import embedding_figures, write_embedding_report

    count, width = embedding.features.shape
    figures = {}
    if _can_be_drawn(embedding.features):
        figures = embedding_figures(embedding, _projected(count), pictures)
        for name in ("tsne", "pca"):
            figures[name].savefig(folder / f"{name}.png", dpi=150, facecolor="white")
    scores, few = embedding.scores, embedding.few
    results = {
        **about,
        "samples": count,
        "labelled": embedding.labelled,
        "features": width,
        "notes": list(embedding.notes),
        "cluster_sizes": embedding.cluster_sizes.tolist(),
        "cluster_scores": None if scores is None else scores.to_dict(),
        "few_labels": None if few is None else few.to_dict(),
    }
    write_json(folder / "results.json", results)
    write_embedding_report(folder / "report.html", embedding, figures, about, description)


def _can_be_drawn(features: np.ndarray) -> bool:
    return len(features) >= _FEWEST_DRAWN and features.shape[1] > 1
