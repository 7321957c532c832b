"""Features of particles: what a trained network makes of them, and two baselines that learn nothing.

    network             of a run's classifier its linear activations (Xu 2017, equation 3), a number a class; of an
                        encoder, a SavedModel or a RIF-SVM its features
    rotation_invariant  power of spherical harmonics, shell by shell (`discovery.invariants`)
    pose_normalized     voxels after every particle was turned to its own axes (`discovery.pose_normalization`)

Clusters are to be looked for in linear activations and voxels as they are, in the others by direction, standardised.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aitom_ssl.data.sources import Source
from aitom_ssl.discovery.invariants import rotation_invariant_features
from aitom_ssl.discovery.pose_normalization import pose_normalized_features
from aitom_ssl.discovery.subdivision import BASELINES, Features
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import (
    BATCH_SIZE,
    FEATURES,
    LINEAR,
    WIDE,
    Network,
    answers,
    find_network,
    load_network,
)
from aitom_ssl.export.feed import Batch, Feed, ahead
from aitom_ssl.export.prediction import refuse_differences

_TOGETHER = 64


def feature_blocks(
    feed: Feed, compute: Callable[[np.ndarray], np.ndarray], batch_size: int, path: str | os.PathLike
) -> Iterator[tuple[Batch, np.ndarray]]:
    """All particles of `feed` in batches, and what `compute` of volumes (n, z, y, x) makes of them, (n, d).

    InputError, which names `path`, where those are more than WIDE numbers each.
    """
    count = len(feed.source)
    stream = ahead(feed.batch, (np.arange(s, min(s + batch_size, count)) for s in range(0, count, batch_size)))
    with (
        tqdm(total=count, desc="features", unit=" subtomograms", disable=None) as bar,
        contextlib.closing(stream),
    ):
        for batch in stream:
            if len(batch.indices):
                block = compute(batch.volumes)
                if block.shape[1] > WIDE:
                    raise InputError(
                        f"{path} answers with {block.shape[1]:,} features, expected {WIDE:,} at most: give the run "
                        "that it is of, whose map is averaged, or a network trained with --pooling=avg."
                    )
                yield batch, block
            else:
                yield batch, np.empty((0, 0), np.float32)
            bar.update(batch.asked)


class NetworkFeatures:
    """Features by the model at `run`; see `classifier.find_network`, `load_network` and `prediction.predict_files`.

    size: voxels a side that it was trained on, if that is known. class_names: of a classifier.
    """

    def __init__(
        self,
        run: str | os.PathLike,
        batch_size: int = BATCH_SIZE,
        precision: str | None = None,
        ignore_mismatch: bool = False,
        skip_damaged: bool = False,
    ):
        self._files = find_network(run)
        self._batch_size, self._precision = batch_size, precision
        self._ignore, self._skip = ignore_mismatch, skip_damaged
        self.size = self._files.size
        self.class_names: tuple[str, ...] = tuple(self._files.about.get("class_names") or ())

    def check(self, source: Source) -> None:
        """InputError for data unlike the model's."""
        refuse_differences(self._files, source, self._ignore)

    def __call__(self, source: Source) -> Features:
        """Of all particles of `source`. InputError for data unlike the model's, and for particles that are damaged."""
        files = self._files
        notes = refuse_differences(files, source, self._ignore)
        linear = bool(self.class_names) and files.kind == "model.keras"
        network = load_network(files, LINEAR if linear else FEATURES, self._batch_size, self._precision)
        description = files.description()
        feed = Feed(source, description.size, description.contrast, self._skip)
        values, indices, left_out = _collected(feed, network, self._batch_size, files.path)
        what = "linear activations" if linear else "features"
        return Features(
            values,
            indices,
            left_out,
            f"{values.shape[1]} {what} of {files.path}",
            self.class_names if linear else (),
            by_direction=not linear,
            notes=[*notes, *feed.notes()],
        )


class BaselineFeatures:
    """`rotation_invariant` or `pose_normalized` features, of particles of any size."""

    size = None
    class_names: tuple[str, ...] = ()

    def __init__(self, kind: str, skip_damaged: bool = False):
        if kind not in BASELINES:
            raise InputError(f"features={kind!r}: expected {' or '.join(BASELINES)}.")
        self._kind, self._skip = kind, skip_damaged

    def check(self, source: Source) -> None:
        """All data will do."""

    def __call__(self, source: Source) -> Features:
        """Of all particles of `source`; protein is made bright. InputError for particles that are damaged."""
        feed = Feed(source, source.size, "bright", self._skip)
        turned = source.stored_contrast and source.contrast == "dark"
        notes: list[str] = []
        if self._kind == "rotation_invariant":
            values, indices, left_out = _collected(feed, rotation_invariant_features, _TOGETHER, self._kind)
        else:
            blocks, kept, left_out, displaced = [], [], [], 0
            for start in range(0, len(source), _TOGETHER):
                batch = feed.batch(np.arange(start, min(start + _TOGETHER, len(source))))
                left_out += batch.left_out
                if len(batch.indices):
                    block, off = pose_normalized_features(-batch.volumes if turned else batch.volumes)
                    blocks.append(block)
                    kept.append(batch.indices)
                    displaced += int(off.sum())
            values, indices = _joined(blocks, kept)
            if displaced:
                notes.append(f"{displaced:,} particles lie too far off their boxes' centres: not shifted.")
        return Features(
            values,
            indices,
            left_out,
            f"{values.shape[1]} {self._kind.replace('_', ' ')} features",
            (),
            by_direction=self._kind == "rotation_invariant",
            notes=[*notes, *feed.notes()],
        )


def _collected(
    feed: Feed, compute: Network, batch_size: int, path: str | Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(n, d) float32 features, (n,) the particles that they are of, and why others were left out."""

    def checked(volumes: np.ndarray) -> np.ndarray:
        return answers(compute, volumes, batch_size, Path(path))

    blocks, kept, left_out = [], [], []
    for batch, block in feature_blocks(feed, checked, batch_size, path):
        left_out += batch.left_out
        if len(block):
            blocks.append(block)
            kept.append(batch.indices)
    return *_joined(blocks, kept), left_out


def _joined(blocks: Sequence[np.ndarray], kept: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if not blocks:
        raise InputError("No particle can be used: all are damaged.")
    return np.concatenate(blocks).astype(np.float32, copy=False), np.concatenate(kept)
