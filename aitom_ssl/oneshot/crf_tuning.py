"""The CRF's parameters for one run: the search on samples whose masks are known, kept in the run as crf.json."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aitom_ssl.data import Dataset, load
from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write, write_json
from aitom_ssl.oneshot.crf import STORED, Search, pydensecrf, refine_mask, search, to_mask
from aitom_ssl.oneshot.trained import find_cosnet, load_cosnet

_SHOWN = 6


def tune_crf(run: str | os.PathLike, data: str | None = None, split: str = "validation", samples: int = 42) -> Search:
    """Find the CRF's parameters for the COS-Net at `run`; writes crf.json and crf.png into it.

    Args:
        run: a finished run of train_cosnet with a decoder.
        data: a dataset with masks; None: the one that the run was trained on.
        split: of it, one that the network was not trained on.
        samples: taken in turn from the classes, so that each counts alike.

    Raises:
        InputError: for a run or a dataset without masks, data that are not like the run's, and without pydensecrf.
    """
    pydensecrf()
    folder, config = find_cosnet(run)
    dataset = load(data or config["settings"]["data"], split)
    rows = in_turn(dataset.labels, samples)
    truth = dataset.masks(rows).astype(bool)
    network = load_cosnet(run)
    differing = network.description.differences(dataset.size, dataset.voxel_size, dataset.contrast)
    if differing:
        raise InputError(f"{dataset.name} is not like the data that {run} was trained on: {'; '.join(differing)}.")
    if not network.has_masks:
        raise InputError(f"{run} was trained without the volume decoder, which makes the masks: give another run.")
    volumes = standardize(dataset.volumes(rows).copy())
    _, probabilities = network(volumes, standardized=True)
    with tqdm(desc="searching", unit=" sets of parameters", disable=None) as bar:
        found = search(probabilities, volumes, truth, tell=lambda _, trial: bar.update())
    about = {"data": dataset.name, "split": split, "samples": len(rows)}
    _write_figure(folder.path / "crf.png", dataset, rows[:_SHOWN], volumes, probabilities, truth, found)
    write_json(folder.path / STORED, {**about, **found.to_dict()})
    return found


def in_turn(labels: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` rows, one of each class after the other, in the order in which they stand; none is unlabelled."""
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
    if not classes or count < 1:
        raise InputError(f"Cannot take {count} labelled samples of {len(labels)}: give labelled data, and 1 or more.")
    rounds = range(max(map(len, classes)))
    return np.array([members[k] for k in rounds for members in classes if k < len(members)][:count])


def _write_figure(
    path: Path,
    dataset: Dataset,
    rows: np.ndarray,
    volumes: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    found: Search,
) -> None:
    """Some samples with the true outline: above the network's mask, below the field's."""
    from aitom_ssl.evaluation.mask_figure import mask_figure

    names = [dataset.class_names[label] for label in dataset.labels[rows]]
    both: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    for name, volume, p, mask in zip(names, volumes, probabilities, truth, strict=False):
        both.append((f"{name}, network", volume, to_mask(p), mask))
        both.append((f"{name}, CRF", volume, refine_mask(volume, p, found.best.parameters).astype(bool), mask))
    titles, shown, masks, true = zip(*both, strict=True)
    figure = mask_figure(np.stack(shown), np.stack(masks), titles, dataset.voxel_size, np.stack(true), columns=2)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor="white")
