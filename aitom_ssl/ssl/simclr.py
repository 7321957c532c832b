"""SimCLR (Chen 2020; SSL 2022, section 3.1): each view finds the other view of its volume in the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.losses.contrastive import (
    l2_normalize,
    nt_xent_logits,
    nt_xent_logits_loss,
    nt_xent_positives,
)
from aitom_ssl.ssl.two_views import TwoViewMethod, as_views, projection_head


class SimCLR(TwoViewMethod):
    """Contrast within the batch: of the 2 * batch - 1 other views, find the one of the same volume (NT-Xent).

    One training step: two views of each volume, in one pass of one network (so that its batch statistics are over
    both), loss, gradient, optimizer. The negatives are the batch, so a larger one teaches more.

    `encoder` is trained in place; `.encoder` is the same encoder with its features standardised (see
    `models.standardized`), and is what probes and fine-tuning take.

    Differs from the original code: the loss is averaged over all views (its value is half, see `losses.nt_xent`); the
    optimizer is yours to choose, where the original's LARS is meant for batches of thousands; one device.

    Metrics: `loss`, `pretext_accuracy` (other view most similar; says nothing about quality), `feature_std` (of
    unit-length embeddings over the batch: 1 / sqrt(dim) when spread, 0 when collapsed).

    Args:
        encoder: keras.Model, (batch, z, y, x, c) to (batch, features).
        augmenter: callable as `augmenter(volumes, seed=(stream, step))`, for example a SubtomogramAugmenter.
        dim: length of an embedding.
        temperature: of the softmax, > 0.
        head: one of `two_views.HEADS`; "simclr" is the published one.
        seed: of the head and the views.

    Raises:
        InputError: on any other value; in training, on batches of one volume, which have no negatives.
    """

    def __init__(
        self,
        encoder: keras.Model,
        augmenter: Callable[..., Any],
        dim: int = 128,
        temperature: float = 0.1,
        head: str = "simclr",
        seed: int = 0,
    ):
        super().__init__(encoder, augmenter, dim, seed, name="simclr")
        self.temperature = self._above_zero("temperature", temperature, 0.1)
        projected = projection_head(self.encoder.output, dim, head, seed)
        self.network = keras.Model(self.encoder.input, projected, name="network")
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, dim) unit-length embeddings of plain volumes; of two views (2 * batch, dim), view by view."""
        return l2_normalize(self.network(ops.concatenate(as_views(x), axis=0), training=training))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """NT-Xent of the embeddings `y_pred` of the two views in `x`."""
        if training and x[0].shape[0] == 1:
            raise InputError("simclr: a batch of 1 volume has no negatives: give batches of 2 or more.")
        first, second = ops.split(y_pred, 2, axis=0)
        logits = nt_xent_logits(first, second, self.temperature)
        found = ops.equal(ops.argmax(logits, axis=1), nt_xent_positives(logits))
        self._finish(y_pred, found, training)
        return ops.mean(nt_xent_logits_loss(logits))
