"""The report of a self-supervised run: what went in, how training went, what the frozen features are worth."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from aitom_ssl import environment
from aitom_ssl.data.batches import gather, subsample
from aitom_ssl.data.build import describe_crop_snr
from aitom_ssl.evaluation import figures
from aitom_ssl.evaluation.collapse import COLLAPSED
from aitom_ssl.evaluation.compare import Comparison
from aitom_ssl.evaluation.embedding import tsne
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.evaluation.report import (
    Command,
    Highlights,
    Picture,
    Section,
    Table,
    duration,
    machine_facts,
    settings_section,
    write_report,
)
from aitom_ssl.geometry import centre

SHOWN = 10
SLAB = 2
EMBEDDED = 1000


def write_pretraining_report(
    run_folder: str | os.PathLike,
    encoder: Any,
    untrained_encoder: Any,
    train: Any,
    validation: Any,
    test: Any,
    augmenter: Any,
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    comparison: Comparison | None = None,
) -> Path:
    """Write `run_folder/report.html`; returns its path.

    `encoder` and `untrained_encoder` map (batch, z, y, x, 1) to (batch, features). `train`, `validation`, `test` are
    Datasets; the last two may be None, labels may be missing (-1). `augmenter(volumes, seed=int)` gives one view.
    `history` has one dict an epoch (see `figures.curves_figure`). `config` is shown whole; its entries `command`,
    `seed`, `seconds` (wall time) and `dim` (of the embedding) also go where they belong. `comparison` holds the probes
    of the encoders, where the data are labelled.
    """
    seed = int(config.get("seed") or 0)
    sets = {"train": train, "validation": validation, "test": test}
    sets = {name: data for name, data in sets.items() if data is not None and len(data)}
    # Accuracy is read off unseen samples; without labels there is none to read, and all of the data are worth seeing.
    labelled = any((np.asarray(data.labels) >= 0).any() for data in sets.values())
    looked_at = next((name for name in ("test", "validation") if labelled and name in sets), "train")
    sections = [
        _summary(sets, history, config, comparison),
        *([_results(comparison)] if comparison is not None else []),
        _curves(validation if validation is not None else train, history, config),
        _embedding(encoder, untrained_encoder, looked_at, sets[looked_at], seed),
        _data(train, seed),
        _views(train, augmenter, seed),
        settings_section(config),
    ]
    subtitle = f"{_name(config, train)} · {len(history)} epochs · aitom_ssl {environment.versions()['aitom_ssl']}"
    return write_report(Path(run_folder) / "report.html", "Self-supervised pretraining", sections, subtitle)


# === Sections ===


def _summary(
    sets: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    comparison: Comparison | None,
) -> Section:
    train = sets["train"]
    facts = [
        ["data", f"{_name(config, train)}: {_contents(train)}"],
        ["samples", ", ".join(f"{len(data):,} {name}" for name, data in sets.items())],
        ["crop SNR", describe_crop_snr(train)],
        ["epochs", f"{len(history)}"],
        ["seed", f"{config.get('seed', 'not recorded')}"],
        ["run time", "not recorded" if config.get("seconds") is None else duration(config["seconds"])],
        *machine_facts(),
    ]
    blocks: list[Any] = []
    highlights = _highlights(history, config, comparison)
    if highlights:
        blocks.append(Highlights(highlights))
    spread = figures.column(history, "feature_std")[1]
    if len(spread) and config.get("dim") and spread[-1] < COLLAPSED / math.sqrt(config["dim"]):
        blocks.append(
            "The embedding has collapsed: nearly all samples have the same features. Add noise or 3-D rotation to the "
            "views, use a projection head with BatchNorm, or lower the learning rate."
        )
    blocks.append(Table(facts, header=False))
    if config.get("command"):
        blocks += ["The command that makes this run again:", Command(str(config["command"]))]
    return Section("Summary", blocks)


def _highlights(
    history: Sequence[Mapping[str, Any]], config: Mapping[str, Any], comparison: Comparison | None
) -> list[tuple[str, str]]:
    items = []
    if comparison is not None:
        last, first = comparison.names[-1], comparison.names[0]
        what = f"linear probe, {last}"
        if first != last:
            what += f" ({first}: {comparison.probe[first].mean():.3f})"
        items.append((f"{comparison.probe[last].mean():.3f}", what))
        what = f"kNN, {last}" + (f" ({first}: {comparison.knn[first].mean():.3f})" if first != last else "")
        items.append((f"{comparison.knn[last].mean():.3f}", what))
        items.append((f"{comparison.chance():.3f}", "chance"))
    spread = figures.column(history, "feature_std")[1]
    if len(spread):
        what = "feature spread at the end (0: collapsed"
        what += f", {1 / math.sqrt(config['dim']):.3f}: even)" if config.get("dim") else ")"
        items.append((f"{spread[-1]:.3f}", what))
    return items


def _results(comparison: Comparison) -> Section:
    last = comparison.names[-1]
    picture = Picture(
        figures.confusion_figure(comparison.confusion(), comparison.class_names),
        f"Confusion matrix of the linear probe on {last} (label subset of seed {comparison.seeds[-1]}): counts of test "
        "samples, colour is the share of the true class.",
    )
    return Section("What the frozen features are worth", [Table(comparison.rows(), comparison.caption()), picture])


def _curves(monitored: Any, history: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Section:
    labels = np.asarray(monitored.labels)
    labels = labels[labels >= 0]
    chance = float(np.bincount(labels).max() / len(labels)) if len(labels) else None
    figure = figures.curves_figure(history, config.get("dim"), chance)
    caption = (
        "Judge a run by kNN and by the feature spread. A collapsed encoder (spread near 0) can have a low loss and a "
        "high pretext accuracy, and the loss rises while the queue fills."
    )
    return Section("Training", [Picture(figure, caption)])


def _embedding(encoder: Any, untrained_encoder: Any, name: str, data: Any, seed: int) -> Section:
    labels = np.asarray(data.labels)
    if len(data) < 4:
        return Section("Embedding", [f"The {name} set has {len(data)} samples: too few to draw an embedding."])
    chosen = subsample(len(data), EMBEDDED, seed)
    panels = {}
    for title, model in (("before training", untrained_encoder), ("after training", encoder)):
        panels[title] = tsne(extract_features(model, data, indices=chosen), seed, EMBEDDED)[0]
    gallery = figures.gallery_figure(panels["after training"], _projections(data, chosen))
    figure = figures.embedding_figure(panels, labels[chosen], data.class_names)
    colours = "coloured by class" if (labels >= 0).any() else "no labels"
    caption = (
        f"t-SNE of the frozen features of {len(chosen):,} samples of the {name} set, {colours}; seed {seed}. "
        "Read who is whose neighbour; distances between far groups mean little."
    )
    look = "The embedding after training as the samples themselves, one for each part of the plane: their central "
    look += f"{2 * SLAB + 1} z slices, averaged."
    return Section("Embedding", [Picture(figure, caption), Picture(gallery, look)])


def _data(train: Any, seed: int) -> Section:
    chosen, titles = _examples(train, SHOWN, seed)
    figure = figures.slices_figure(train.volumes(chosen), titles, train.voxel_size)
    caption = (
        f"Central slices of training samples. Box {train.size} voxels of {train.voxel_size:g} Å; protein is "
        f"{train.contrast}. Grey levels run from the 1st to the 99th percentile of each slice."
    )
    return Section("The data", [Picture(figure, caption)])


def _views(train: Any, augmenter: Any, seed: int) -> Section:
    chosen, titles = _examples(train, 8, seed)
    volumes = gather(train, chosen)
    views = [keras.ops.convert_to_numpy(augmenter(volumes, seed=seed + n))[..., 0] for n in (1, 2)]
    figure = figures.views_figure(volumes[..., 0], *views, titles, train.voxel_size)
    caption = "Central z slice of samples and of the two views that the encoder learned to recognise as the same."
    return Section("The two views", [Picture(figure, caption)])


# === Words and choices ===


def _projections(data: Any, indices: np.ndarray) -> np.ndarray:
    """(n, y, x) averages of the slices within SLAB of the central one: less noise than a single slice."""
    middle = centre(data.size)
    slab = slice(max(middle - SLAB, 0), middle + SLAB + 1)
    return np.stack([data.volumes([index])[0, slab].mean(axis=0) for index in indices])


def _examples(data: Any, count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Indices and titles of up to `count` samples: equally many of each class in label order; any without labels."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(data.labels)
    present = np.unique(labels[labels >= 0])
    if len(present) == 0:
        chosen = subsample(len(data), count, seed)
        return chosen, [f"sample {index}" for index in chosen]
    if len(present) > count:
        present = present[np.linspace(0, len(present) - 1, count).round().astype(int)]
    rounds = count // len(present)
    shuffled = {label: rng.permutation(np.flatnonzero(labels == label))[:rounds] for label in present}
    chosen = np.concatenate([shuffled[label] for label in present])
    return chosen, [data.class_names[labels[index]] for index in chosen]


def _name(config: Mapping[str, Any], train: Any) -> str:
    return str(config.get("data") or train.name)


def _contents(train: Any) -> str:
    labels = np.asarray(train.labels)
    classes = len(np.unique(labels[labels >= 0]))
    kind = f"{classes} classes" if classes else "no labels"
    return f"{kind}, {train.size} voxels of {train.voxel_size:g} Å a side"
