"""What every method that compares two augmented views of one volume shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from aitom_ssl.errors import InputError
from aitom_ssl.models import standardized

HEADS = ("v1", "v2", "v2_bn")


class TwoViewMethod(keras.Model):
    """Draws two views of each volume before Keras' own training step; a method adds `call` and `compute_loss`.

    In a training step `call` and `compute_loss` receive `x = (first view, second view)`. View v of step s is drawn with
    the seed (2 * seed + v, s): augmentation is a function of (seed, step), so a resumed run draws the same views. A
    method's `compute_loss` advances `self.step` once a training step.

    Keras' step computes the gradient and calls `optimizer.scale_loss`, on TensorFlow and on JAX.
    """

    def __init__(self, encoder: keras.Model, augmenter: Callable[..., Any], seed: int, name: str):
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
        self.encoder = standardized(encoder)
        self.seed = seed
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="step")
        self._augment = _compiled_alone(augmenter)
        self.feature_std = keras.metrics.Mean(name="feature_std")

    def compile(self, *args: Any, jit_compile: bool | str | None = None, **kwargs: Any) -> None:
        """As keras.Model.compile; `jit_compile=None` compiles with XLA except on TensorFlow.

        There 3-D convolutions under XLA are several times slower on the CPU than oneDNN's.
        """
        if jit_compile is None:
            jit_compile = keras.backend.backend() != "tensorflow"
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    def views(self, volumes: Any) -> tuple[Any, Any]:
        """Two augmented views of (batch, z, y, x, c) volumes, as this step draws them."""
        volumes = ops.cast(volumes, "float32")
        streams = [ops.full((), 2 * self.seed + view, dtype="int32") for view in (0, 1)]
        seeds = [ops.stack([stream, self.step.value]) for stream in streams]
        first, second = (self._augment(volumes, seed=seed) for seed in seeds)
        return first, second

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


def pair(x: Any) -> tuple[Any, Any]:
    """The two views in what `call` and `compute_loss` receive; plain volumes (inference, building) are both."""
    return tuple(x) if isinstance(x, (tuple, list)) else (x, x)


def projection_head(features: Any, dim: int, kind: str, seed: int) -> Any:
    """Symbolic (batch, features) to (batch, dim); `kind` is one of `HEADS`.

    v1: one linear layer (He 2020). v2: linear - ReLU - linear, as wide as the features (MoCo v2). v2_bn: with
    BatchNormalization before the ReLU (as SimCLR); without it, runs with 3-D rotation collapsed in our pilot.
    """
    if kind not in HEADS:
        raise InputError(f"head={kind!r} must be one of {', '.join(HEADS)}.")

    def dense(units: int, number: int, **options: Any) -> layers.Dense:
        initializer = keras.initializers.GlorotUniform(seed=1000 * number + seed)
        return layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=f"project{number}", **options)

    x = features
    if kind != "v1":
        x = dense(features.shape[-1], 1, use_bias=kind == "v2")(x)
        if kind == "v2_bn":
            x = layers.BatchNormalization(dtype="float32", name="project1_norm")(x)
        x = layers.ReLU(dtype="float32", name="project1_relu")(x)
    return dense(dim, 2)(x)


def feature_std(embeddings: Any) -> Any:
    """Mean over dimensions of the batch standard deviation of (batch, dim) unit rows.

    1 / sqrt(dim) when the embeddings spread over the sphere, 0 when all are the same (collapse).
    """
    return ops.mean(ops.std(embeddings, axis=0))


def _compiled_alone(augmenter: Callable[..., Any]) -> Callable[..., Any]:
    """On TensorFlow the augmentation is compiled with XLA by itself, where the networks are not."""
    if keras.backend.backend() != "tensorflow":
        return augmenter
    import tensorflow as tf

    return tf.function(lambda volumes, seed: augmenter(volumes, seed=seed), jit_compile=True, autograph=False)
