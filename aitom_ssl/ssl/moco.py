"""MoCo v1 and v2 (He 2020; Chen 2020; SSL 2022, section 3.1): a momentum encoder and a queue of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.losses.contrastive import info_nce_logits, info_nce_logits_loss, l2_normalize
from aitom_ssl.ssl.queue import EmbeddingQueue
from aitom_ssl.ssl.two_views import TwoViewMethod, as_views, projection_head


class MoCo(TwoViewMethod):
    """Momentum contrast: find a volume's other view among the keys of the last `queue_size` volumes.

    One training step, in the order of the original code: two views; query forward; key weights moved towards the query
    weights (which are those of the previous optimizer step); key forward with its own batch statistics and no gradient;
    loss against the old queue; keys into the queue; gradient and optimizer.

    `encoder` is trained in place; `.encoder` is the same encoder with its features standardised (see
    `models.standardized`), and is what probes and fine-tuning take. All state (key network, queue, step) is Keras
    weights.

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
        head: one of `two_views.HEADS`; MoCo's are "v1" and "v2", and "v2_bn" is v2 with BatchNorm.
        symmetric: each view is query and key in turn, each pass with its own batch statistics; both views' keys go into
            the queue. Twice the work a step. The loss is the mean of both directions (Differs from the authors'
            small-data notebook, which adds them).
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
        symmetric: bool = False,
        seed: int = 0,
    ):
        super().__init__(encoder, augmenter, dim, seed, name="moco")
        if not 0 <= momentum < 1:
            raise InputError(f"moco: momentum={momentum!r} must be at least 0 and below 1 (the paper's is 0.999).")
        if not isinstance(symmetric, bool):
            raise InputError(f"moco: symmetric={symmetric!r} must be True or False.")
        self.queue_size = self._whole("queue_size", queue_size)
        self.temperature = self._above_zero("temperature", temperature, 0.2)
        self.momentum, self.symmetric = momentum, symmetric

        projected = projection_head(self.encoder.output, dim, head, seed)
        self.query_network = keras.Model(self.encoder.input, projected, name="query")
        self.key_network = keras.models.clone_model(self.query_network)
        self.key_network.set_weights(self.query_network.get_weights())
        # One by one: key_network.trainable = False would also freeze its batch statistics, and on JAX an update of a
        # variable that is marked trainable is lost.
        for variable in self.key_network.trainable_variables:
            variable.trainable = False

        self.queue = EmbeddingQueue(queue_size, (dim,))
        self.queue_fill = keras.metrics.Mean(name="queue_fill")
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, dim) unit-length query embeddings of the first view, or of plain volumes.

        When symmetric, those of the first view and below them those of the second: (2 * batch, dim).
        """
        views = as_views(x)
        queries = [self.query_network(view, training=training) for view in (views if self.symmetric else views[:1])]
        return l2_normalize(ops.concatenate(queries, axis=0))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """InfoNCE of the queries `y_pred` and the keys of the other views in `x`; moves the state when training."""
        if training:
            self._update_key_network()
        first, second = x
        others = (second, first) if self.symmetric else (second,)
        keys = ops.concatenate([self.key_network(view, training=training) for view in others], axis=0)
        keys = ops.stop_gradient(l2_normalize(keys))
        logits = info_nce_logits(y_pred, keys, self.queue.rows, self.temperature, valid=self.queue.valid())
        if training:
            self.queue.add(keys)
        self.queue_fill.update_state(self.queue.fill())
        self._finish(y_pred, ops.equal(ops.argmax(logits, axis=1), 0), training)
        return ops.mean(info_nce_logits_loss(logits))

    def _update_key_network(self) -> None:
        for query, key in zip(self.query_network.weights, self.key_network.weights, strict=True):
            if query.trainable:
                key.assign(self.momentum * key + (1 - self.momentum) * query)
