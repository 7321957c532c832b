"""MoCo v1 and v2 (He 2020; Chen 2020; SSL 2022, section 3.1): a momentum encoder and a queue of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.losses.contrastive import info_nce_logits, info_nce_logits_loss, l2_normalize
from aitom_ssl.ssl.two_views import TwoViewMethod, feature_std, pair, projection_head


class MoCo(TwoViewMethod):
    """Momentum contrast: find a volume's other view among the keys of the last `queue_size` volumes.

    One training step, in the order of the original code: two views; query forward; key weights moved towards the query
    weights (which are those of the previous optimizer step); key forward with its own batch statistics and no gradient;
    loss against the old queue; keys into the queue; gradient and optimizer.

    `encoder` is trained in place; `.encoder` is the same encoder with its features standardised (see
    `models.standardized`), and is what probes and fine-tuning take. All state (key network, queue, pointer, number of
    rows filled, step) is Keras weights.

    Differs from the original code: rows of the queue that hold no key yet are masked instead of being random vectors
    (the loss starts at 0 and rises while the queue fills, see `queue_fill`); a batch may have any size, dividing the
    queue or not (the newest `queue_size` keys are kept); keys are not shuffled between devices, as there is one.

    Metrics: `loss`, `pretext_accuracy` (own key found first; says nothing about quality), `queue_fill` (0 to 1),
    `feature_std` (of unit-length queries over the batch: 1 / sqrt(dim) when spread, 0 when collapsed).

    Args:
        encoder: keras.Model, (batch, z, y, x, c) to (batch, features).
        augmenter: callable as `augmenter(volumes, seed=(stream, step))`, for example a SubtomogramAugmenter.
        dim: length of an embedding.
        queue_size: number of keys kept.
        momentum: m in key = m * key + (1 - m) * query, in [0, 1). Parameters only, not batch statistics.
        temperature: of the softmax, > 0.
        head: "v1", "v2" or "v2_bn", see `projection_head`.
        seed: of the head, the queue and the views.

    Raises:
        InputError: on any other value.
    """

    def __init__(
        self,
        encoder: keras.Model,
        augmenter: Callable[..., Any],
        dim: int = 128,
        queue_size: int = 128,
        momentum: float = 0.999,
        temperature: float = 0.2,
        head: str = "v1",
        seed: int = 0,
    ):
        super().__init__(encoder, augmenter, seed=seed, name="moco")
        for field, value in (("dim", dim), ("queue_size", queue_size)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"moco: {field}={value!r} must be an integer of 1 or more.")
        if not 0 <= momentum < 1:
            raise InputError(f"moco: momentum={momentum!r} must be at least 0 and below 1 (the paper's is 0.999).")
        if not temperature > 0:
            raise InputError(f"moco: temperature={temperature!r} must be above 0 (the paper's is 0.2).")
        self.dim, self.queue_size, self.momentum, self.temperature = dim, queue_size, momentum, temperature

        projected = projection_head(self.encoder.output, dim, head, seed)
        self.query_network = keras.Model(self.encoder.input, projected, name="query")
        self.key_network = keras.models.clone_model(self.query_network)
        self.key_network.set_weights(self.query_network.get_weights())
        # One by one: key_network.trainable = False would also freeze its batch statistics, and on JAX an update of a
        # variable that is marked trainable is lost.
        for variable in self.key_network.trainable_variables:
            variable.trainable = False

        self.queue = self._state("queue", (queue_size, dim), "float32")
        self.pointer = self._state("pointer", (), "int32")
        self.filled = self._state("filled", (), "int32")
        self.pretext_accuracy = keras.metrics.Mean(name="pretext_accuracy")
        self.queue_fill = keras.metrics.Mean(name="queue_fill")
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, dim) unit-length query embeddings of the first view, or of plain volumes."""
        return l2_normalize(self.query_network(pair(x)[0], training=training))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """InfoNCE of the queries `y_pred` and the keys of the second view in `x`; moves the state when training."""
        if training:
            self._update_key_network()
        keys = l2_normalize(self.key_network(pair(x)[1], training=training))
        keys = ops.stop_gradient(keys)
        holds_key = ops.arange(self.queue_size) < self.filled
        logits = info_nce_logits(y_pred, keys, self.queue, self.temperature, valid=holds_key)
        if training:
            self._enqueue(keys)
            self.step.assign(self.step + 1)

        found = ops.equal(ops.argmax(logits, axis=1), 0)
        self.pretext_accuracy.update_state(ops.cast(found, "float32"))
        self.queue_fill.update_state(ops.cast(self.filled, "float32") / self.queue_size)
        self.feature_std.update_state(feature_std(ops.stop_gradient(y_pred)))
        return ops.mean(info_nce_logits_loss(logits))

    def _update_key_network(self) -> None:
        for query, key in zip(self.query_network.weights, self.key_network.weights, strict=True):
            if query.trainable:
                key.assign(self.momentum * key + (1 - self.momentum) * query)

    def _enqueue(self, keys: Any) -> None:
        """Keys over the oldest rows, round the end of the queue; of a batch larger than the queue, the newest."""
        batch = ops.shape(keys)[0]
        kept = keys[-self.queue_size :]
        count = ops.shape(kept)[0]
        rows = (self.pointer + batch - count + ops.arange(count, dtype="int32")) % self.queue_size
        self.queue.assign(ops.scatter_update(self.queue, rows[:, None], kept))
        self.pointer.assign((self.pointer + batch) % self.queue_size)
        self.filled.assign(ops.minimum(self.filled + batch, self.queue_size))
