"""What every method that compares augmented views of one volume shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from aitom_ssl.errors import InputError
from aitom_ssl.models import standardized
from aitom_ssl.training.compiled import compiled_alone, networks_on_xla

HEADS = ("v1", "v2", "v2_bn", "simclr", "swav")
_SWAV_WIDTH = 2048


class TwoViewMethod(keras.Model):
    """Draws two views of each volume before Keras' own training step; a method adds `call` and `compute_loss`.

    Trains on batches of volumes (batch, z, y, x, c), or of pairs of them, x = (first, second): images of the same
    particles with independent noise, of which each gives one view.

    In a training step `call` and `compute_loss` receive `x = (first view, second view)`. View v of step s is drawn with
    the seed (2 * seed + v, s): augmentation is a function of (seed, step), so a resumed run draws the same views. A
    method's `compute_loss` calls `_finish`, which keeps the metrics and advances `self.step` once a training step.

    `encoder` is trained in place; `.encoder` is the same encoder with its features standardised (see
    `models.standardized`), and is what probes and fine-tuning take. All state is Keras weights.

    Metrics of every method: `loss`; `pretext_accuracy`, which says nothing about quality; `feature_std` (see
    `feature_std`), which sees a collapse.

    Keras' step computes the gradient and calls `optimizer.scale_loss`, on TensorFlow and on JAX.
    """

    def __init__(self, encoder: keras.Model, augmenter: Callable[..., Any], dim: int, seed: int, name: str):
        """`encoder` (batch, z, y, x, c) to (batch, features); `augmenter(volumes, seed=(stream, step))`; seed >= 0."""
        super().__init__(name=name)
        if not isinstance(encoder, keras.Model) or len(encoder.output_shape) != 2:
            shape = getattr(encoder, "output_shape", type(encoder).__name__)
            raise InputError(
                f"{name}: encoder must be a keras.Model giving (batch, features), got {shape}: "
                "build it with include_top=False."
            )
        if not callable(augmenter):
            raise InputError(f"{name}: augmenter={augmenter!r} must be callable as augmenter(volumes, seed=...).")
        if not isinstance(seed, int) or not 0 <= seed < 2**30:
            raise InputError(f"{name}: seed={seed!r} must be an integer from 0 to 2**30 - 1.")
        self.dim = self._whole("dim", dim)
        self.encoder = standardized(encoder)
        self.seed = seed
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="step")
        self._augment = compiled_alone(augmenter)
        self.pretext_accuracy = keras.metrics.Mean(name="pretext_accuracy")
        self.feature_std = keras.metrics.Mean(name="feature_std")

    def compile(self, *args: Any, jit_compile: bool | str | None = None, **kwargs: Any) -> None:
        """As keras.Model.compile; `jit_compile=None` is what `training.compiled.networks_on_xla` says."""
        jit_compile = networks_on_xla() if jit_compile is None else jit_compile
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    def views(self, volumes: Any) -> tuple[Any, ...]:
        """Two augmented views, as this step draws them: of (batch, z, y, x, c) volumes, or one of each half image."""
        return tuple(self._augment(source, seed=self.view_seed(view)) for view, source in enumerate(sources(volumes)))

    def view_seed(self, view: int) -> Any:
        """(2,) int32, the seed that this step draws view number `view` with."""
        stream = (2 * self.seed + view) % 2**31
        return ops.stack([ops.full((), stream, dtype="int32"), self.step.value])

    def train_step(self, *state_and_data: Any) -> Any:
        return super().train_step(*self._with_views(state_and_data))

    def test_step(self, *state_and_data: Any) -> Any:
        return super().test_step(*self._with_views(state_and_data))

    def _with_views(self, state_and_data: tuple) -> tuple:
        """TensorFlow passes (data,); JAX passes (state, data), where the step is read from the state."""
        *state, data = state_and_data
        volumes = keras.utils.unpack_x_y_sample_weight(data)[0]
        mapping = list(zip(self.non_trainable_variables, state[0][1], strict=True)) if state else None
        if mapping is None:
            views = self.views(volumes)
        else:
            with keras.StatelessScope(state_mapping=mapping):
                views = self.views(volumes)
        return (*state, (views,))

    def _finish(self, embeddings: Any, found: Any, training: bool) -> None:
        """Metrics of (n, dim) unit rows and of (n,) bool, whether each found its own; on to the next step."""
        self.pretext_accuracy.update_state(ops.cast(found, "float32"))
        self.feature_std.update_state(feature_std(ops.stop_gradient(embeddings)))
        if training:
            self.step.assign(self.step + 1)

    def _whole(self, field: str, value: Any, least: int = 1) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{self.name}: {field}={value!r} must be an integer of {least} or more.")
        return value

    def _above_zero(self, field: str, value: float, usual: float) -> float:
        if not value > 0:
            raise InputError(f"{self.name}: {field}={value!r} must be above 0 (the paper's is {usual:g}).")
        return value


def sources(volumes: Any) -> tuple[Any, Any]:
    """What the first and the second view are drawn from, float32: a pair as it is, or the same volumes twice."""
    pair = volumes if isinstance(volumes, (tuple, list)) else (volumes, volumes)
    return tuple(ops.cast(one, "float32") for one in pair)


def as_views(x: Any) -> tuple[Any, ...]:
    """The views in what `call` and `compute_loss` receive; plain volumes (inference, building) are one view."""
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def projection_head(features: Any, dim: int, kind: str, seed: int) -> Any:
    """Symbolic (batch, features) to (batch, dim), float32; `kind` is one of `HEADS`.

    v1: one linear layer (MoCo, He 2020). v2: linear - ReLU - linear, as wide as the features (MoCo v2). v2_bn: with
    BatchNormalization before the ReLU; without it, runs with 3-D rotation collapsed in our pilot. simclr: v2_bn with
    another BatchNormalization (no centre) at the end, no biases, and weights drawn from N(0, 0.01) (Chen 2020, two
    layers). swav: v2_bn, 2,048 wide (Caron 2020). A bias in front of a BatchNormalization is left out: it does nothing.
    """
    if kind not in HEADS:
        raise InputError(f"head={kind!r} must be one of {', '.join(HEADS)}.")

    def dense(units: int, number: int, use_bias: bool) -> layers.Dense:
        random = 1000 * number + seed
        normal = keras.initializers.RandomNormal(stddev=0.01, seed=random)
        initializer = normal if kind == "simclr" else keras.initializers.GlorotUniform(seed=random)
        name = f"project{number}"
        return layers.Dense(units, use_bias=use_bias, kernel_initializer=initializer, dtype="float32", name=name)

    x = features
    if kind != "v1":
        x = dense(_SWAV_WIDTH if kind == "swav" else features.shape[-1], 1, use_bias=kind == "v2")(x)
        if kind != "v2":
            x = layers.BatchNormalization(dtype="float32", name="project1_norm")(x)
        x = layers.ReLU(dtype="float32", name="project1_relu")(x)
    x = dense(dim, 2, use_bias=kind != "simclr")(x)
    if kind == "simclr":
        x = layers.BatchNormalization(center=False, dtype="float32", name="project2_norm")(x)
    return x


def feature_std(embeddings: Any) -> Any:
    """Mean over dimensions of the batch standard deviation of (batch, dim) unit rows.

    1 / sqrt(dim) when the embeddings spread over the sphere, 0 when all are the same (collapse).
    """
    return ops.mean(ops.std(embeddings, axis=0))
