"""LL4AL, "learning loss" (Yoo and Kweon 2019, arXiv 1905.03677): a module beside the network predicts its loss.

The module sees the network's maps at several depths: each is averaged over space, goes through FC-128 and ReLU, and one
FC makes a number of them all. It trains with the network, on pairs (i, j) of a batch, i from its first half and j its
mirror image in the second: with l the cross-entropies, as constants, and m the predictions,

    loss = mean l + weight * mean over pairs of max(0, margin - sign(l_i - l_j) * (m_i - m_j))     (equations 1 and 2)

so that the order of losses is learnt, not their size, which falls all the time. After 60% of the epochs the module's
gradient stops short of the network. Chosen are the samples with the highest predictions.

Differs from the paper and its published code: two equal losses are no pair (there they count as l_i < l_j, so that two
samples learnt to a loss of exactly 0, as float32 has many, are torn apart at random); a batch may be odd (its middle
sample is in no pair); the whole pool is scored (there 10,000 of it, drawn at random: the option `subset`); network and
module start anew each cycle as the other strategies' do (there they go on from the last). The code's two optimizers
have the same settings; here one trains both. Its bound `epoch > 120` of 200, counted from 0, lets 121 epochs pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from aitom_ssl.active.strategy import Known, Selection, Strategy, check_budget, feature_maps, highest, number, whole
from aitom_ssl.data.batches import subsample
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.training.supervised import SupervisedModel

_UNITS = 128
_PART = re.compile(r"(?:stage|block)\d+(?=_)")
_NEVER = 2**31 - 1


# === Pure functions ===


def ranking_loss(predictions: Any, losses: Any, margin: float = 1.0) -> Any:
    """How badly `predictions` (n,) order `losses` (n,): mean hinge over pairs (i, n - 1 - i), equal losses left out.

    0 where each pair is in the right order by `margin` or more, `margin` where all predictions are equal, and 0 where
    there is no pair.
    """
    pairs = ops.shape(predictions)[0] // 2
    ahead = (predictions - ops.flip(predictions))[:pairs]
    order = ops.sign((losses - ops.flip(losses))[:pairs])
    wrong = ops.maximum(margin - order * ahead, 0.0) * ops.abs(order)
    return ops.sum(wrong) / ops.maximum(ops.sum(ops.abs(order)), 1.0)


# === The module and its training ===


def taps(network: keras.Model) -> list[keras.layers.Layer]:
    """The layers whose maps the loss module sees, from input to output.

    The last one of every stage or block, for a network that names its layers so: four of ResNet18_3D, the four blocks
    of RB3D. Of others the last one of every size of map: for Inception3D the stem, the module and the average.
    InputError where there is no map.
    """
    maps = feature_maps(network)
    named = {found[0]: layer for layer in maps if (found := _PART.match(layer.name))}
    chosen = named or {layer.output.shape[1:4]: layer for layer in maps}
    if not chosen:
        raise InputError(f"ll4al: the network {network.name} has no 3-D feature maps to predict the loss from.")
    return list(chosen.values())


def loss_module(channels: list[int], seed: int) -> keras.Model:
    """Averaged maps, a list of (batch, channels[k]), to the predicted loss (batch,); float32, random by `seed`."""
    inputs = [keras.Input((count,)) for count in channels]

    def dense(units: int, number: int, **options: Any) -> layers.Layer:
        random = keras.initializers.GlorotUniform(seed=1000 * number + seed)
        return layers.Dense(units, kernel_initializer=random, dtype="float32", **options)

    seen = [dense(_UNITS, number, activation="relu")(x) for number, x in enumerate(inputs, 1)]
    joined = layers.Concatenate(dtype="float32")(seen) if len(seen) > 1 else seen[0]
    return keras.Model(inputs, layers.Flatten(dtype="float32")(dense(1, 0)(joined)), name="loss_module")


class LossLearner(SupervisedModel):
    """Trains `network` as SupervisedModel does, and a module that predicts its losses; `predictor` is for selecting.

    Another metric: `ranking_loss`.

    Args:
        network, augmenter, weights, seed: see SupervisedModel. `weights` are not in the losses that are predicted.
        weight: of the ranking loss.
        margin: of the ranking loss.
        joint: share of the epochs that `fit` is asked for after which the module's gradient stops at the network.
    """

    def __init__(
        self,
        network: keras.Model,
        augmenter: Callable[..., Any] | None,
        weights: np.ndarray | None,
        seed: int,
        weight: float = 1.0,
        margin: float = 1.0,
        joint: float = 0.6,
    ):
        averages = [layers.GlobalAveragePooling3D(dtype="float32")(layer.output) for layer in taps(network)]
        # The output that comes last is of the last layer, which must be the classifier.
        super().__init__(keras.Model(network.input, [*averages, network.output]), augmenter, weights, seed)
        self.module = loss_module([average.shape[-1] for average in averages], seed)
        # (batch, z, y, x, c) to (batch, 1).
        self.predictor = keras.Model(network.input, self.module(averages))
        self.weight, self.margin, self.joint = weight, margin, joint
        options = {"shape": (), "dtype": "int32", "trainable": False}
        self.joint_steps = self.add_weight(initializer=lambda *_, **__: _NEVER, name="joint_steps", **options)
        self.ranking = keras.metrics.Mean(name="ranking_loss")

    def fit(self, *args: Any, epochs: int = 1, steps_per_epoch: int | None = None, **options: Any) -> Any:
        """As keras.Model.fit; `epochs` and `steps_per_epoch` say when the module stops teaching the network."""
        if steps_per_epoch is not None:
            self.joint_steps.assign(round(self.joint * epochs) * steps_per_epoch)
        return super().fit(*args, epochs=epochs, steps_per_epoch=steps_per_epoch, **options)

    def call(self, x: Any, training: bool = False) -> tuple[Any, Any]:
        """(batch, classes) logits and (batch,) predicted losses; of augmented volumes when training."""
        *averages, logits = super().call(x, training=training)
        alone = ops.greater_equal(self.step.value, self.joint_steps.value)
        averages = [ops.where(alone, ops.stop_gradient(average), average) for average in averages]
        return logits, ops.reshape(self.module(averages), (-1,))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean cross-entropy of a batch and `weight` times the ranking loss; moves the step when training."""
        logits, predictions = y_pred
        losses = keras.losses.sparse_categorical_crossentropy(ops.cast(y, "int32"), logits, from_logits=True)
        ranking = ranking_loss(predictions, ops.stop_gradient(losses), self.margin)
        self.ranking.update_state(ranking)
        return super().compute_loss(x, y, logits, sample_weight, training) + self.weight * ranking


class LL4AL(Strategy):
    """Highest predicted loss first. With nothing labelled nothing was learnt: random, with scores of 0.

    Selects with the network of the end of training, which is the one that the module knows, not `known.network`.

    Args:
        weight: of the ranking loss, >= 0 (paper 1).
        margin: of the ranking loss, > 0 (paper 1).
        joint: share of the epochs in which the module also teaches the network, 0 to 1 (paper 0.6).
        subset: how many samples of the pool, drawn at random, are scored, never fewer than the budget; None for all
            (paper 10,000).

    Raises:
        InputError: on any other value.
    """

    name = "ll4al"

    def __init__(self, weight: float = 1.0, margin: float = 1.0, joint: float = 0.6, subset: int | None = None):
        self.weight = number(self.name, "weight", weight, lambda v: v >= 0, "0 or more")
        self.margin = number(self.name, "margin", margin, lambda v: v > 0, "above 0")
        self.joint = number(self.name, "joint", joint, lambda v: 0 <= v <= 1, "from 0 to 1")
        self.subset = None if subset is None else whole(self.name, "subset", subset)

    def trainer(
        self,
        network: keras.Model,
        augmenter: Callable[..., Any] | None,
        weights: np.ndarray | None,
        seed: int,
        unlabelled: Dataset,
    ) -> keras.Model:
        return LossLearner(network, augmenter, weights, seed, self.weight, self.margin, self.joint)

    def select(self, known: Known, budget: int) -> Selection:
        check_budget(budget, known)
        pool = len(known.unlabelled)
        if len(known.labelled) == 0:
            return highest(np.zeros(pool), budget, known.seed)
        if not isinstance(known.trainer, LossLearner):
            raise InputError("ll4al: the network was not trained by this strategy's trainer, which learns the losses.")
        rows = np.arange(pool) if self.subset is None else subsample(pool, max(self.subset, budget), known.seed)
        predicted = extract_features(known.trainer.predictor, known.unlabelled, indices=rows)[:, 0]
        chosen = highest(predicted, budget, known.seed)
        return Selection(rows[chosen.indices], chosen.scores)
