"""SwAV (Caron 2020; SSL 2022, section 3.1): one view's cluster assignment is predicted from the other view."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.losses.contrastive import l2_normalize
from aitom_ssl.losses.swapped import sinkhorn, swapped_prediction
from aitom_ssl.models import standardized
from aitom_ssl.ssl.queue import EmbeddingQueue
from aitom_ssl.ssl.small_crops import random_box, sharing_weights
from aitom_ssl.ssl.two_views import TwoViewMethod, as_views, projection_head, sources
from aitom_ssl.training.compiled import compiled_alone


class SwAV(TwoViewMethod):
    """Swapped assignments: embeddings are compared with learned prototypes, in place of each other.

    One training step: two views of each volume (and small crops), in one pass for each size; scores are the cosines of
    embeddings and prototypes; the code of a large view is its row of a Sinkhorn balancing of the batch, and of the
    queue once that is full; the loss is the cross-entropy of each code and the prediction of every other view;
    gradient, optimizer; prototypes back to unit length, or, in the first `freeze_steps` steps, to where they were:
    neither the optimizer nor its weight decay moves them.

    `encoder` is trained in place; `.encoder` is the same encoder with its features standardised (see
    `models.standardized`), and is what probes and fine-tuning take. All state (prototypes, queue, step) is Keras
    weights.

    Differs from the original code: prototypes are normalised at the end of a step instead of the start of the next
    (the same numbers); while they are frozen the optimizer's averages of their gradient run on, so that Adam's first
    steps afterwards are no larger than its others; the defaults of `prototypes` and `queue_size` are for batches of
    tens and 10 to 50 classes, where the original's 3,000 prototypes for 1,000 classes cannot be shared out.

    Metrics: `loss` (ln(prototypes) at the start; staying there is SwAV's way to fail: a smaller `epsilon`, or a longer
    freeze), `pretext_accuracy` (best prototype of one view is that of the other's code; says nothing about quality),
    `feature_std` (of unit-length embeddings over the batch: 1 / sqrt(dim) when spread, 0 when collapsed),
    `code_entropy` (of a code, as a share of ln(prototypes): 1 when codes say nothing), `prototypes_used` (their
    effective number in the batch's predictions, exp of the entropy, as a share of all), and `queue_fill` with a queue.

    Args:
        encoder: keras.Model, (batch, z, y, x, c) to (batch, features).
        augmenter: callable as `augmenter(volumes, seed=(stream, step))`, for example a SubtomogramAugmenter.
        dim: length of an embedding.
        prototypes: how many, >= 2; a few for each class that may be in the data.
        epsilon: > 0, of Sinkhorn; smaller makes codes sharper.
        iterations: of Sinkhorn.
        temperature: of the predictions' softmax, > 0.
        head: one of `two_views.HEADS`; "swav" is the published one.
        queue_size: embeddings of earlier batches that are balanced together with a batch; 0 for none. As many as there
            are prototypes or more, when the batch is smaller than that.
        queue_start: step at which the queue begins to fill; too early it holds what an untrained encoder made.
        freeze_steps: steps in which prototypes stay as they were drawn.
        small_crops: small views of each volume, cut from a view of their own, predicted from but without a code.
        small_encoder: where there are any, the encoder built for their size; its weights are replaced by those of
            `encoder`, layer by layer, so it must be one whose weights fit any size.
        seed: of the head, the prototypes and the views.

    Raises:
        InputError: on any other value.
    """

    def __init__(
        self,
        encoder: keras.Model,
        augmenter: Callable[..., Any],
        dim: int = 128,
        prototypes: int = 64,
        epsilon: float = 0.05,
        iterations: int = 3,
        temperature: float = 0.1,
        head: str = "swav",
        queue_size: int = 256,
        queue_start: int = 500,
        freeze_steps: int = 100,
        small_crops: int = 0,
        small_encoder: keras.Model | None = None,
        seed: int = 0,
    ):
        super().__init__(encoder, augmenter, dim, seed, name="swav")
        self._whole("prototypes", prototypes, 2)
        self._whole("queue_size", queue_size, 0)
        self.epsilon = self._above_zero("epsilon", epsilon, 0.05)
        self.temperature = self._above_zero("temperature", temperature, 0.1)
        self.iterations = self._whole("iterations", iterations)
        self.queue_start = self._whole("queue_start", queue_start, 0)
        self.freeze_steps = self._whole("freeze_steps", freeze_steps, 0)
        self.small_crops = self._whole("small_crops", small_crops, 0)
        if bool(small_crops) != (small_encoder is not None):
            raise InputError(
                f"swav: small_crops={small_crops} and small_encoder={small_encoder!r}: give both, or neither."
            )

        projected = projection_head(self.encoder.output, dim, head, seed)
        self.network = keras.Model(self.encoder.input, projected, name="network")
        if small_crops:
            self._build_small(small_encoder, augmenter, head)
        self.prototypes = self.add_weight(
            name="prototypes",
            shape=(prototypes, dim),
            dtype="float32",
            initializer=keras.initializers.RandomNormal(seed=3000 + seed),
            autocast=False,
        )
        self.prototypes.assign(l2_normalize(self.prototypes))
        # A row holds the embeddings of both views of a volume: each view is balanced with its own kind.
        self.queue = EmbeddingQueue(queue_size, (2, dim)) if queue_size else None
        if queue_size:
            self.queue_fill = keras.metrics.Mean(name="queue_fill")
        self.code_entropy = keras.metrics.Mean(name="code_entropy")
        self.prototypes_used = keras.metrics.Mean(name="prototypes_used")
        self.built = True

    def _build_small(self, small_encoder: keras.Model, augmenter: Callable[..., Any], head: str) -> None:
        side, full = small_encoder.input_shape[1], self.encoder.input_shape[1]
        if not isinstance(side, int) or not isinstance(full, int) or not side < full:
            raise InputError(f"swav: small crops of {side}^3 must be smaller than the views, {full}^3.")
        small = standardized(small_encoder)
        small = keras.Model(small.input, projection_head(small.output, self.dim, head, self.seed), name="small")
        self.small_network = sharing_weights(small, self.network)
        self._augment_small = compiled_alone(
            lambda volumes, seed: random_box(augmenter(volumes, seed=seed), side, seed)
        )

    def views(self, volumes: Any) -> tuple[Any, ...]:
        """Two augmented views (see `TwoViewMethod.views`) and the small crops, as this step draws them."""
        pair, small = sources(volumes), range(2, 2 + self.small_crops)
        return (*super().views(volumes), *(self._augment_small(pair[v % 2], seed=self.view_seed(v)) for v in small))

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, dim) unit-length embeddings of plain volumes; of views (views * batch, dim), view by view."""
        views = as_views(x)
        projected = [self.network(ops.concatenate(views[:2], axis=0), training=training)]
        if views[2:]:
            projected.append(self.small_network(ops.concatenate(views[2:], axis=0), training=training))
        return l2_normalize(ops.concatenate(projected, axis=0))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Swapped prediction of the embeddings `y_pred` of the views in `x`; moves the queue when training."""
        embeddings = ops.split(y_pred, len(x), axis=0)
        prototypes = ops.transpose(self.prototypes)
        scores = [ops.matmul(z, prototypes) for z in embeddings]
        codes = [self._code(scores[view], view) for view in (0, 1)]
        loss = swapped_prediction(scores, codes, self.temperature)

        large = ops.stop_gradient(ops.stack(embeddings[:2], axis=1))
        if self.queue is not None:
            if training:
                self.queue.add(large, when=self.step >= self.queue_start)
            self.queue_fill.update_state(self.queue.fill())
        self._watch(scores, codes)
        swapped = zip(scores[:2], codes[::-1], strict=True)
        found = ops.concatenate([ops.equal(ops.argmax(s, axis=1), ops.argmax(q, axis=1)) for s, q in swapped], axis=0)
        self._finish(ops.concatenate(embeddings[:2], axis=0), found, training)
        return loss

    def _code(self, scores: Any, view: int) -> Any:
        """(batch, prototypes) codes of (batch, prototypes) scores, balanced together with a full queue's."""
        if self.queue is None:
            return sinkhorn(scores, self.epsilon, self.iterations)
        earlier = ops.matmul(self.queue.rows[:, view], ops.transpose(self.prototypes))
        full = ops.equal(self.queue.filled, self.queue.size)
        valid = ops.concatenate(
            [ops.logical_and(full, self.queue.valid()), ops.ones_like(scores[:, 0], dtype="bool")], axis=0
        )
        together = ops.concatenate([earlier, scores], axis=0)
        return sinkhorn(together, self.epsilon, self.iterations, valid)[self.queue.size :]

    def _watch(self, scores: list[Any], codes: list[Any]) -> None:
        log_prototypes = math.log(self.prototypes.shape[0])
        self.code_entropy.update_state(entropy(ops.concatenate(codes, axis=0)) / log_prototypes)
        predicted = ops.softmax(ops.stop_gradient(ops.concatenate(scores[:2], axis=0)) / self.temperature, axis=-1)
        used = ops.exp(entropy(ops.mean(predicted, axis=0))) / self.prototypes.shape[0]
        self.prototypes_used.update_state(used)

    def train_step(self, *state_and_data: Any) -> Any:
        """Keras' step; then prototypes are unit rows again, or what they were before it while they are frozen."""
        if len(state_and_data) == 1:
            before, frozen = ops.copy(self.prototypes), self.step < self.freeze_steps
            logs = super().train_step(*state_and_data)
            self.prototypes.assign(ops.where(frozen, before, l2_normalize(self.prototypes)))
            return logs
        # JAX: the variables' values are in the state.
        trainable, fixed = state_and_data[0][:2]
        place = _place(self.prototypes, self.trainable_variables)
        frozen = fixed[_place(self.step, self.non_trainable_variables)] < self.freeze_steps
        logs, (updated, *rest) = super().train_step(*state_and_data)
        updated = list(updated)
        updated[place] = ops.where(frozen, trainable[place], l2_normalize(updated[place]))
        return logs, (updated, *rest)


def _place(variable: keras.Variable, variables: list[keras.Variable]) -> int:
    return next(i for i, v in enumerate(variables) if v is variable)


def entropy(probabilities: Any) -> Any:
    """Entropy in nats along the last axis, float32; 0 ln 0 is 0."""
    p = ops.cast(probabilities, "float32")
    return -ops.sum(p * ops.log(ops.maximum(p, 1e-30)), axis=-1)
