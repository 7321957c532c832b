"""Work spread over threads that share memory: whatever their number, the same results in the same order."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`function(item)` of each item, in their order, at most a few items ahead of whoever takes the results.

    Left early, by an error or Ctrl-C, it waits for the items that have been begun and leaves the rest.
    """
    if workers == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    items = iter(items)
    try:
        waiting = collections.deque(pool.submit(function, item) for item in itertools.islice(items, 4 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
