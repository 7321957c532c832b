"""Batches of particles for results that are made part by part, with progress, and with what is kept said at a stop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from aitom_ssl.errors import InputError
from aitom_ssl.export.feed import Batch, Feed, ahead
from aitom_ssl.export.parts_folder import PartsFolder


class PartBatch(NamedTuple):
    """Particles of one part."""

    number: int  # of the part
    batch: Batch
    last: bool  # whether the part is complete with it


def part_batches(
    folder: PartsFolder,
    feed: Feed,
    batch_size: int,
    doing: str,
    waiting: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[PartBatch]:
    """The particles of every part that `folder` still lacks, read ahead, in order.

    doing: the word beside the progress. waiting: entered while the next batch is awaited. InputError says what is kept.
    Close it when stopping early (`contextlib.closing`): it has a thread.
    """
    missing = folder.missing()
    left = sum(map(folder.length, missing))

    def indices() -> Iterator[np.ndarray]:
        for number in missing:
            part = np.arange(number * folder.size, number * folder.size + folder.length(number))
            for start in range(0, len(part), batch_size):
                yield part[start : start + batch_size]

    stream = ahead(feed.batch, indices())
    initial = folder.count - left
    with (
        tqdm(total=folder.count, initial=initial, desc=doing, unit=" subtomograms", disable=None) as bar,
        contextlib.closing(stream),
    ):
        for number in missing:
            left = folder.length(number)
            while left:
                try:
                    with waiting():
                        batch = next(stream)
                except InputError as error:
                    raise InputError(
                        f"{error} {folder.kept()} --skip_damaged goes on without such particles."
                    ) from None
                for reason in batch.left_out:
                    tqdm.write(f"left out: {reason}", file=sys.stderr)
                left -= batch.asked
                yield PartBatch(number, batch, left == 0)
                bar.update(batch.asked)
