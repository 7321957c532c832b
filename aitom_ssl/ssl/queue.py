"""The embeddings of the last volumes, kept as Keras weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class EmbeddingQueue(keras.layers.Layer):
    """First in, first out: `rows` (size, ...), `pointer` to the oldest (or next free) one, `filled` rows in use.

    A batch may have any size, dividing the queue or not: it goes round the end, and of a batch larger than the queue
    the newest rows are kept. `shape` is that of one row, for example (dim,).
    """

    def __init__(self, size: int, shape: tuple[int, ...], name: str = "queue"):
        super().__init__(name=name, dtype="float32")
        self.size = size
        self.rows = self._state("rows", (size, *shape), "float32")
        self.pointer = self._state("pointer", (), "int32")
        self.filled = self._state("filled", (), "int32")
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )

    def valid(self) -> Any:
        """(size,) bool, which rows hold an embedding."""
        return ops.arange(self.size) < self.filled

    def fill(self) -> Any:
        """float32 from 0 to 1, the share of rows that hold an embedding."""
        return ops.cast(self.filled, "float32") / self.size

    def add(self, embeddings: Any, when: Any = True) -> None:
        """(batch, ...) embeddings over the oldest rows; nothing happens unless `when`, a bool or bool tensor."""
        rows, pointer, filled = (ops.convert_to_tensor(state) for state in (self.rows, self.pointer, self.filled))
        batch = ops.shape(embeddings)[0]
        known = embeddings.shape[0]
        # The slice alone would do, but TensorFlow's graph optimizer complains of one that starts before the beginning.
        kept = embeddings if known is not None and known <= self.size else embeddings[-self.size :]
        count = ops.shape(kept)[0]
        places = (pointer + batch - count + ops.arange(count, dtype="int32")) % self.size
        self.rows.assign(ops.where(when, ops.scatter_update(rows, places[:, None], kept), rows))
        self.pointer.assign(ops.where(when, (pointer + batch) % self.size, pointer))
        self.filled.assign(ops.where(when, ops.minimum(filled + batch, self.size), filled))
