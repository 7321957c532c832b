"""Trains COS-Net on episodes: which target is which support, and where in its box each particle is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from aitom_ssl.augmentation import SubtomogramAugmenter
from aitom_ssl.augmentation.random_geometry import resample
from aitom_ssl.errors import InputError
from aitom_ssl.losses import dice_loss, matching_loss
from aitom_ssl.models.building import FEATURES
from aitom_ssl.models.cosnet import MASK, SIMILARITY, pairs
from aitom_ssl.training.compiled import CompiledNormalization, compiled_alone


class OneShotModel(keras.Model):
    """Trains a COS-Net `network` with matching loss + Dice loss of both sets (Zhou 2020, section 2); never saved.

    A batch is x = (volumes, masks), (samples, z, y, x, 1) each, of `episodes` episodes one after the other, and each of
    them is its support set, class by class, then its targets, class by class: see `arranged`. All go through the
    network at once, and are matched within their episode. The shots of a class are averaged, as logits.

    Metrics: `loss`; `episode_accuracy` of the targets, with augmentation; `dice`, 1 - Dice loss, the mean of both sets.

    Args:
        network: a `models.COSNet`, with or without a decoder; trained in place.
        augmenter: applied to volumes and masks alike, or None: see `augment_pair`. Draws are a function of `seed` and
            the step, which is a Keras weight: a resumed run draws the same.
        episodes, way, shots, targets: of a batch.
        readout: of the matching loss.
        dice: what the Dice loss is taken over, see `losses.dice_loss`.
        seed: of the augmentation.

    Raises:
        InputError: for an augmenter that `augment_pair` cannot use.
    """

    def __init__(
        self,
        network: keras.Model,
        augmenter: SubtomogramAugmenter | None,
        episodes: int,
        way: int,
        shots: int = 1,
        targets: int = 1,
        readout: str = "softmax",
        dice: str = "batch",
        seed: int = 0,
    ):
        # float32: the augmentation must see the volumes as they are; the network casts for itself.
        super().__init__(name="cosnet_training", dtype="float32")
        self.network, self.episodes, self.way = network, episodes, way
        self.shots, self.targets, self.readout, self.over, self.seed = shots, targets, readout, dice, seed
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="step")
        self.accuracy = keras.metrics.Mean(name="episode_accuracy")
        self.dice = keras.metrics.Mean(name="dice") if MASK in network.output else None
        self._augment = None if augmenter is None else _joint(augmenter)
        self._normalization = CompiledNormalization(network)
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(logits (episodes, targets, way), masks, predicted masks or None), of augmented volumes when training."""
        volumes, masks = x
        if training and self._augment is not None:
            seed = ops.stack([ops.full((), self.seed, dtype="int32"), self.step.value])
            both = self._augment(ops.concatenate([volumes, ops.cast(masks, volumes.dtype)], axis=-1), seed=seed)
            volumes, masks = both[..., :1], both[..., 1:]
        with self._normalization():
            outputs = self.network(volumes, training=training)
        support, target = self._sets(outputs[FEATURES])
        logits = pairs(self.network.get_layer(SIMILARITY), target, support)
        logits = ops.mean(ops.reshape(logits, (self.episodes, -1, self.way, self.shots)), axis=-1)
        return logits, masks, outputs.get(MASK)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of what `call` gives; moves the step when training."""
        logits, masks, predicted = y_pred
        if training:
            self.step.assign(self.step + 1)
        labels = np.tile(np.repeat(np.arange(self.way), self.targets), (self.episodes, 1))
        right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels.astype(np.int32))
        self.accuracy.update_state(ops.cast(right, "float32"))
        loss = matching_loss(logits, labels, self.readout)
        if predicted is None:
            return loss
        dice = [dice_loss(*both, over=self.over) for both in zip(self._sets(masks), self._sets(predicted), strict=True)]
        self.dice.update_state(1 - (dice[0] + dice[1]) / 2)
        return loss + dice[0] + dice[1]

    def _sets(self, rows: Any) -> tuple[Any, Any]:
        """(episodes, support samples, ...) and (episodes, target samples, ...) of (samples, ...)."""
        supports = self.way * self.shots
        rows = ops.reshape(rows, (self.episodes, supports + self.way * self.targets, *rows.shape[1:]))
        # Not slices, whose gradients are two arrays of zeros to be added.
        first, second = ops.split(rows, [supports], axis=1)
        return first, second


def arranged(episodes: list[Any]) -> np.ndarray:
    """(samples,) the order in which `OneShotModel` takes the samples of `episodes.Episode`s."""
    return np.concatenate([part.ravel() for episode in episodes for part in (episode.support, episode.targets)])


def augment_pair(augmenter: SubtomogramAugmenter, both: Any, seed: Any) -> Any:
    """Volumes and masks, the two channels of (batch, n, n, n, 2), changed alike; float32 of that shape.

    The masks go through the same geometry as their volumes, and are cut at one half; noise, wedge, standardisation and
    jitter are for the volumes alone. Turning a volume in 3-D turns its missing wedge too, so that a network sees wedges
    in directions that no measurement has; the option `wedge` of the augmenter then takes out the data's own as well.
    """
    drawn = augmenter.draw(ops.shape(both)[0], both.shape[1], seed)
    volumes = augmenter.apply(both[..., :1], drawn)
    masks = both[..., 1:]
    if augmenter.geometry:
        masks = ops.cast(resample(masks, drawn["matrices"], augmenter.geometry) >= 0.5, "float32")
    return ops.concatenate([volumes, masks], axis=-1)


def _joint(augmenter: SubtomogramAugmenter) -> Callable[..., Any]:
    if augmenter.options["surroundings"] is not None:
        raise InputError(
            "An augmentation that exchanges surroundings cuts off what masks say is there: leave `surroundings` out "
            "(take recommended, not crowded)."
        )
    return compiled_alone(lambda both, seed: augment_pair(augmenter, both, seed))
