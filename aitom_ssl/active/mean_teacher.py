"""EMA active learning (DAL 2023): a task model, its moving average, and how far the two disagree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from aitom_ssl.active.strategy import Known, Strategy, checked_option, yes_or_no
from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.training.supervised import SupervisedModel, logits

MEAN_INITS = ("independent", "copy")
DEVIATIONS = ("higher", "lower")


# === Over arrays ===


def kl_divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) float64, KL(softmax first || softmax second) >= 0 in nats, of logits (n, classes) (equation 3).

    Of logits and not of probabilities, which underflow: the divergence of sure and opposite models is finite.
    """
    first, second = (_log_softmax(np.asarray(values, dtype=np.float64)) for values in (first, second))
    return np.maximum((np.exp(first) * (first - second)).sum(axis=1), 0.0)


def mean_squared_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) float64, the mean over classes of (first - second)**2, of logits (n, classes): the ablation's distance."""
    return np.square(np.subtract(first, second, dtype=np.float64)).mean(axis=1)


def _log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "kl": kl_divergence,
    "mse": mean_squared_difference,
}


def ramped(alpha: float, step: Any) -> Any:
    """min(1 - 1 / (step + 1), alpha): the smoothing after optimizer step number `step` (1, 2, ...), with warm-up.

    Until alpha takes over, the mean is that of all weights so far (Tarvainen 2017, in the authors' code).
    """
    return ops.minimum(1 - 1 / (ops.cast(step, "float32") + 1), alpha)


# === Training ===


def follower(network: keras.Model, mean_init: str) -> keras.Model:
    """A network like `network` that no optimizer trains; `mean_init`: see `MeanTeacher`."""
    mean = keras.models.clone_model(network)
    if mean_init == "copy":
        mean.set_weights(network.get_weights())
    # One by one: mean.trainable = False would freeze the statistics as well, and on JAX an update of a variable that
    # is marked trainable is lost.
    for variable in mean.trainable_variables:
        variable.trainable = False
    return mean


def follow(mean: keras.Model, task: keras.Model, alpha: Any) -> None:
    """mean = alpha mean + (1 - alpha) task, of the weights that `task` is trained in (equation 1)."""
    share = 1 - alpha
    for theirs, own in zip(task.weights, mean.weights, strict=True):
        if theirs.trainable:
            own.assign(own + share * (theirs - own))


class MeanTeacher(SupervisedModel):
    """Trains a task model T with cross-entropy + regularization * MSE(logits of T, logits of M) (DAL 2023, equation 4).

    M, the mean model, has the architecture of T, and after each optimizer step M = alpha M + (1 - alpha) T, weight by
    weight in float32 (equation 1). The gradient goes to T alone. Both see the same augmented volumes, in training mode,
    each with its own dropout. MSE is the mean over volumes and classes. `unlabelled` volumes, a batch a step beside the
    labelled one, count in the MSE alone, as many labelled ones do; both batches share their batch statistics.

    BatchNormalization: only what the optimizer trains is averaged. M's moving statistics are those of its own passes in
    training mode, so they belong to M's weights: an average of T's would not, as activations are no linear function of
    weights, and with `mean_init="independent"` would be another network's altogether. Hence M passes over each batch
    even where `regularization` is 0. M in inference mode, as it selects, uses these statistics.

    With `mean_init="independent"`, the paper's, M is alpha**steps its own random weights: with alpha 0.999 still 37%
    after 1,000 steps, 90% after 100. Training of fewer than some thousand steps wants "copy", or `ramp`, or a smaller
    alpha: else M is noise, and the deviation from it says little.

    Metrics: `loss`; `accuracy`; `deviation`, the MSE.

    Args:
        network, augmenter, weights, seed: see `SupervisedModel`; T is `network`, trained in place.
        regularization: lambda, >= 0.
        alpha: in [0, 1).
        ramp: see `ramped`.
        mean_init: M starts "independent", at random, or as a "copy" of T.
        unlabelled: Dataset, of which training needs batches (see `training.supervised.train_classifier`), or None.

    Raises:
        InputError: on any other value.
    """

    def __init__(
        self,
        network: keras.Model,
        augmenter: Callable[..., Any] | None,
        weights: np.ndarray | None,
        seed: int,
        regularization: float = 0.03,
        alpha: float = 0.999,
        ramp: bool = False,
        mean_init: str = "independent",
        unlabelled: Dataset | None = None,
    ):
        _check_training(regularization, alpha, ramp, mean_init)
        super().__init__(network, augmenter, weights, seed)
        self.regularization, self.alpha, self.ramp, self.unlabelled = regularization, alpha, ramp, unlabelled
        self.mean = follower(network, mean_init)
        self.deviation = keras.metrics.Mean(name="deviation")

    @property
    def networks(self) -> tuple[keras.Model, ...]:
        """T and M, with statistics of the same volumes: of others, the two deviate where T and M are one."""
        return (self.network, self.mean)

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, classes) logits of T; when training the pair of T's and M's, those of unlabelled volumes below."""
        if not training:
            return super().call(x)
        volumes = ops.concatenate(x, axis=0) if isinstance(x, (tuple, list)) else x
        volumes = self.augmented(volumes)
        return logits(self.network, volumes, True), ops.stop_gradient(logits(self.mean, volumes, True))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Equation 4 of what `call` gives; of T's logits alone, when not training, the cross-entropy."""
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        task, mean = y_pred
        deviation = ops.mean(ops.square(task - mean))
        self.deviation.update_state(deviation)
        loss = super().compute_loss(x, y, task[: ops.shape(y)[0]], sample_weight, training)
        return loss + self.regularization * deviation

    def train_step(self, *state_and_data: Any) -> Any:
        """Keras' own, then the update of M."""
        done = super().train_step(*state_and_data)
        if keras.backend.backend() != "jax":
            self.update_mean()
            return done
        logs, (trainable, others, *rest) = done
        mapping = [*zip(self.trainable_variables, trainable, strict=True)]
        mapping += zip(self.non_trainable_variables, others, strict=True)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.update_mean()
        return logs, (trainable, [scope.get_current_value(v) for v in self.non_trainable_variables], *rest)

    def update_mean(self) -> None:
        """M = alpha M + (1 - alpha) T, after `self.step` optimizer steps."""
        follow(self.mean, self.network, ramped(self.alpha, self.step.value) if self.ramp else self.alpha)


# === Selecting ===


class EMA(Strategy):
    """Asks for the samples whose class probabilities T and M disagree on most (DAL 2023, equation 3).

    M is the mean model of the `MeanTeacher` that trained T; both in inference mode, two passes over the pool. Both are
    new in each cycle. Differs from algorithm 1, which initialises T alone there and leaves open what becomes of M: the
    average of weights with unrelated starts is no network.

    Args:
        regularization, alpha, ramp, mean_init: of `MeanTeacher`.
        semi_supervised: the regulariser takes in unlabelled volumes too.
        distance: "kl" between softmaxes, or "mse" between logits, the paper's ablation.
        deviation: "higher" asks for what differs most, "lower", the ablation, for what differs least.
        class_balanced: the classes that T guesses take turns, each with what differs most in it. Differs from the
            paper: where the last steps have moved T towards a class or away from it, all of that class differ from M,
            and all that is asked for may be of one class.

    Raises:
        InputError: on any other value.
    """

    name = "ema"

    def __init__(
        self,
        regularization: float = 0.03,
        alpha: float = 0.999,
        ramp: bool = False,
        mean_init: str = "independent",
        semi_supervised: bool = False,
        distance: str = "kl",
        deviation: str = "higher",
        class_balanced: bool = False,
    ):
        _check_training(regularization, alpha, ramp, mean_init)
        checked_option(self.name, "distance", distance, distance in DISTANCES, " or ".join(DISTANCES))
        checked_option(self.name, "deviation", deviation, deviation in DEVIATIONS, " or ".join(DEVIATIONS))
        yes_or_no(self.name, "semi_supervised", semi_supervised)
        yes_or_no(self.name, "class_balanced", class_balanced)
        self.training = {
            "regularization": regularization,
            "alpha": alpha,
            "ramp": ramp,
            "mean_init": mean_init,
        }
        self.semi_supervised, self.class_balanced = semi_supervised, class_balanced
        self.distance, self.deviation = distance, deviation

    def trainer(
        self,
        network: keras.Model,
        augmenter: Callable[..., Any] | None,
        weights: np.ndarray | None,
        seed: int,
        unlabelled: Dataset,
    ) -> MeanTeacher:
        beside = unlabelled if self.semi_supervised and len(unlabelled) else None
        return MeanTeacher(network, augmenter, weights, seed, **self.training, unlabelled=beside)

    def scores(self, known: Known) -> np.ndarray:
        if not isinstance(known.trainer, MeanTeacher):
            raise InputError(
                f"ema selects with the mean model of the MeanTeacher that trained the network, got "
                f"{type(known.trainer).__name__}: train with Strategy.trainer."
            )
        mean = known.trainer.mean
        features = extract_features(keras.Model(mean.input, mean.layers[-1].input), known.unlabelled)
        distances = DISTANCES[self.distance](_logits(known.network, known.features), _logits(mean, features))
        return distances if self.deviation == "higher" else -distances

    def groups(self, known: Known) -> np.ndarray | None:
        return _logits(known.network, known.features).argmax(axis=1) if self.class_balanced else None


def _logits(network: keras.Model, features: np.ndarray) -> np.ndarray:
    """(n, classes) float64 logits of the last layer, from its input (n, features)."""
    kernel, bias = (np.asarray(values, dtype=np.float64) for values in network.layers[-1].get_weights())
    return features.astype(np.float64) @ kernel + bias


# === Checks ===


def _check_training(regularization: float, alpha: float, ramp: bool, mean_init: str) -> None:
    fits = 0 <= regularization < np.inf
    checked_option(EMA.name, "regularization", regularization, fits, "0 or more (the paper's is 0.03)")
    checked_option(EMA.name, "alpha", alpha, 0 <= alpha < 1, "at least 0 and below 1 (the paper's is 0.999)")
    yes_or_no(EMA.name, "ramp", ramp)
    checked_option(EMA.name, "mean_init", mean_init, mean_init in MEAN_INITS, " or ".join(MEAN_INITS))
