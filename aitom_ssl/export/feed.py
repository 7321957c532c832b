"""Particles on their way into a classifier: read ahead, in the model's box and contrast, standardised. No framework."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.data.batches import standardize
from aitom_ssl.data.importers.particles import ContrastCheck
from aitom_ssl.data.sources import Source, fit_box
from aitom_ssl.errors import InputError

BATCHES_AHEAD = 4
# Particles that the contrast is looked at in.
_LOOKED_AT = 1000


class Batch(NamedTuple):
    """Particles ready for the network."""

    asked: int  # particles that it was made for
    indices: np.ndarray  # (n,) of the source: those that can be used
    volumes: np.ndarray  # (n, z, y, x) float32, standardised
    left_out: list[str]  # why the others could not be used


class Feed:
    """Batches of `source` as the model wants them: its box, its contrast, standardised.

    Files whose protein is said to be of the other contrast than the model's get their sign turned; where the model's is
    not known, protein is made bright. A dataset knows its own contrast and keeps it.

    size, contrast: of the model. skip_damaged: leave out what cannot be used in place of raising InputError.
    """

    def __init__(self, source: Source, size: int, contrast: str | None, skip_damaged: bool):
        self.source, self.size, self.skip_damaged = source, size, skip_damaged
        wanted = contrast or "bright"
        self.turns = not source.stored_contrast and source.contrast != wanted
        self._bright = 1.0 if wanted == "bright" else -1.0
        self._check = None if source.stored_contrast else ContrastCheck(size)
        self._looked_at = 0

    def batch(self, indices: np.ndarray) -> Batch:
        """The particles at `indices` that can be used."""
        usable, volumes, left_out = self._read(indices)
        standardized = self.source.standardized
        if volumes.shape[1:] != (self.size,) * 3:
            volumes, standardized = fit_box(volumes, self.size), False
        if self.turns:
            volumes = -volumes
        if not standardized:
            volumes = standardize(np.array(volumes))
        if self._check is not None:
            for volume in volumes[: max(_LOOKED_AT - self._looked_at, 0)]:
                self._check.add(self._bright * volume)
            self._looked_at += len(volumes)
        return Batch(len(indices), usable, volumes, left_out)

    def _read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
        try:
            return indices, self.source.read(indices), []
        except InputError:
            if not self.skip_damaged:
                raise
        good, volumes, left_out = [], [], []
        for i in indices:
            try:
                volumes.append(self.source.read(np.array([i]))[0])
                good.append(i)
            except InputError as error:
                left_out.append(str(error))
        stacked = np.stack(volumes) if volumes else np.empty((0, *[self.source.size] * 3), np.float32)
        return np.array(good, dtype=np.int64), stacked, left_out

    def notes(self) -> list[str]:
        """What the volumes themselves say against what was said of their contrast."""
        if self._check is None or not self._check.looks_dark():
            return []
        given = self.source.contrast == "dark"
        mend = "leave --invert_contrast out" if given else "give --invert_contrast"
        return [
            "the particles differ from what surrounds them the other way round than in the model's training data: if "
            f"protein is {'bright' if given else 'dark'} in the files, {mend}."
        ]


def ahead(function: Callable[[Any], Any], items: Iterable[Any], count: int = BATCHES_AHEAD) -> Iterator[Any]:
    """function(item) of every item, in order, `count` of them computed ahead in one thread."""
    pending: collections.deque = collections.deque()
    pool = ThreadPoolExecutor(1)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
