"""SavedModels that carry their own standardisation, checks and description, and load without Keras or this package.

One version folder is

    saved_model.pb  variables/                    the graph; every weight once
    assets/model.json                             ModelDescription: class names, box, voxel size, contrast
    assets.extra/tf_serving_warmup_requests       one request a signature, run by TensorFlow Serving as it loads

with the signatures

    serving_default   subtomogram float32 (n, z, y, x, 1)              -> probabilities float32 (n, classes)
    logits            subtomogram                                      -> logits float32 (n, classes)
    features          subtomogram                                      -> features float32 (n, features)
    serving_bytes     subtomogram_bytes string (n), raw little-endian  -> probabilities
                      float32 of z, y, x in C order

An encoder, which has no classes, answers `features` in `serving_default`, `features` and `serving_bytes`. Features of a
classifier are what its last layer sees.

Each volume is standardised in the graph as in training (`data.batches.standardize`), so volumes may come as they are or
standardised already. A volume of another box, or with a voxel that is not finite, is refused with a sentence that says
so: loaders do not hold requests to the declared shape by themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.export.versions import DESCRIPTION, new_version
from aitom_ssl.files import build_folder
from aitom_ssl.models import ModelDescription
from aitom_ssl.models.building import CLASSIFIER, INPUT

BYTES_INPUT = f"{INPUT}_bytes"
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")

Heads = dict[str, Callable[[tf.Tensor], tf.Tensor]]


def export_savedmodel(
    model: keras.Model,
    path: str | os.PathLike,
    description: ModelDescription,
    version: int | None = None,
    warmup: bool = True,
) -> Path:
    """Write `model` as a new version under `path` and return the version's folder.

    The folder appears whole or not at all: TensorFlow Serving may be polling `path`.

    Args:
        model: functional, (n, z, y, x, 1) to (n, classes) with a last layer "classifier" (softmax, or none: then the
            softmax is added), or an encoder to (n, features) where `description` has no class names. Trained under
            mixed_bfloat16 it computes so when served; inputs and outputs are float32.
        path: folder of the versions, which need not be there.
        description: goes to assets/model.json.
        version: number of the version, one more than the highest when None.
        warmup: write the warm-up requests too.

    Raises:
        InputError: for a model that is not such a network or that `description` does not fit, a version that is there,
            and a path that cannot be written to.
    """
    folder = new_version(path, version)
    heads = _heads(model, description)
    signatures = _signatures(heads, description.size)
    module = tf.Module()
    # The plain variables: without them TensorFlow's C++ loader finds none, and through Keras they are stored twice.
    module.weights = [weight.value for weight in model.weights]
    with build_folder(folder) as temporary:
        about = temporary / DESCRIPTION
        about.write_text(json.dumps(description.to_dict(), indent=2) + "\n", encoding="utf-8")
        # As an asset it stays with the model when that is loaded and saved again.
        module.description = tf.saved_model.Asset(str(about))
        tf.saved_model.save(module, str(temporary), signatures=signatures)
        about.unlink()
        if warmup:
            _write_warmup(temporary / WARMUP, signatures, description.size)
    return folder


# === The network ===


def _heads(model: keras.Model, description: ModelDescription) -> Heads:
    """What is asked of a model: name of an output to a function of standardised volumes (n, z, y, x, 1)."""
    if not isinstance(model, keras.Model) or not hasattr(model, "input_shape"):
        raise InputError(
            f"A model of type {type(model).__name__} ({description.architecture}) cannot be a SavedModel: expected a "
            "functional keras.Model. The RIF-SVM, which is scikit-learn's, is used with `aitom-ssl predict`."
        )
    size = description.size
    if model.input_shape != (None, size, size, size, 1):
        raise InputError(
            f"{model.name} takes {model.input_shape} and its description says a box of {size}: expected "
            f"(None, {size}, {size}, {size}, 1)."
        )
    last, classes = model.layers[-1], len(description.class_names)
    if not classes:
        if last.name == CLASSIFIER:
            raise InputError(f"{model.name} has a classifier, but its description has no class names: give them.")
        return {"features": _traced_once(model)}
    if last.name != CLASSIFIER or not isinstance(last, keras.layers.Dense) or last.units != classes:
        raise InputError(
            f"{model.name} ends in {last.name} {last.output.shape}, expected a Dense layer {CLASSIFIER!r} with the "
            f"{classes} classes that its description names."
        )
    if last.activation not in (keras.activations.softmax, keras.activations.linear):
        raise InputError(
            f"{model.name}: the classifier's activation is {keras.activations.serialize(last.activation)!r}, expected "
            "softmax or none."
        )
    features = _traced_once(keras.Model(model.input, last.input))

    def logits(x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(features(x), last.kernel.value) + last.bias.value

    return {"probabilities": lambda x: tf.nn.softmax(logits(x)), "logits": logits, "features": features}


def _traced_once(network: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The network as one function that all signatures call: the graph holds it once."""

    @tf.function(input_signature=[tf.TensorSpec(network.input_shape, tf.float32)])
    def features(volumes: tf.Tensor) -> tf.Tensor:
        return tf.cast(network(volumes, training=False), tf.float32)

    return features


def standardize(volumes: tf.Tensor) -> tf.Tensor:
    """`data.batches.standardize` as TensorFlow operations: (n, z, y, x, 1) float32, a constant volume to zeros."""
    axes = (1, 2, 3, 4)
    mean = tf.reduce_mean(volumes, axes, keepdims=True)
    centred = volumes - mean
    deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axes, keepdims=True))
    varies = deviation > 1e-6 * tf.abs(mean)
    return tf.where(varies, centred / tf.where(varies, deviation, 1.0), 0.0)


# === The signatures ===


def _signatures(heads: Heads, size: int) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    main = next(iter(heads))
    volumes = tf.TensorSpec((None, size, size, size, 1), tf.float32, INPUT)
    raw = tf.TensorSpec((None,), tf.string, BYTES_INPUT)

    def on_volumes(name: str) -> Callable[[tf.Tensor], Mapping[str, tf.Tensor]]:
        def answer(subtomogram: tf.Tensor) -> Mapping[str, tf.Tensor]:
            return {name: heads[name](standardize(checked_volumes(subtomogram, size)))}

        return answer

    def on_bytes(subtomogram_bytes: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return on_volumes(main)(_decoded(subtomogram_bytes, size))

    functions = {"serving_default": on_volumes(main), **{name: on_volumes(name) for name in heads if name != main}}
    if main == "features":
        functions["features"] = on_volumes(main)
    signatures = {name: tf.function(function, input_signature=[volumes]) for name, function in functions.items()}
    return {**signatures, "serving_bytes": tf.function(on_bytes, input_signature=[raw])}


def checked_volumes(volumes: tf.Tensor, size: int, name: str = INPUT) -> tf.Tensor:
    """The volumes (n, z, y, x, 1), once their shape and finiteness are asserted; `name`: what to call them."""
    shape = tf.shape(volumes)
    # Without the error on ranks that differ: a request may have any. An empty batch fails deep inside a fused
    # convolution, with a sentence about something else.
    same = tf.raw_ops.Equal(x=shape[1:], y=[size, size, size, 1], incompatible_shape_error=False)
    fits = tf.reduce_all(tf.concat([tf.reshape(same, [-1]), shape[:1] > 0], 0))
    message = f"{name} must be (batch, {size}, {size}, {size}, 1): {size} voxels a side, one channel. Received"
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, shape], summarize=8)]):
        volumes = tf.identity(volumes)
    finite = tf.reduce_all(tf.math.is_finite(volumes), axis=(1, 2, 3, 4))
    wrong = tf.where(tf.logical_not(finite))[:, 0]
    message = f"{name} has voxels that are NaN or infinite; positions in the batch"
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(finite), [message, wrong], summarize=8)]):
        return tf.identity(volumes)


def _decoded(raw: tf.Tensor, size: int) -> tf.Tensor:
    """(n, z, y, x, 1) from n strings of raw little-endian float32."""
    lengths = tf.strings.length(raw)
    expected = 4 * size**3
    message = f"{BYTES_INPUT} must be {expected} bytes each (float32, {size} voxels a side). Received lengths"
    fits = tf.reduce_all(tf.equal(lengths, expected)) & (tf.size(raw) > 0)
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, lengths], summarize=8)]):
        raw = tf.identity(raw)
    voxels = tf.io.decode_raw(raw, tf.float32, little_endian=True)
    return tf.reshape(voxels, [tf.size(raw), size, size, size, 1])


# === Warm-up ===


def _write_warmup(path: Path, signatures: Mapping[str, object], size: int) -> None:
    """One TFRecord of tensorflow.serving.PredictionLog a signature, with a batch of one volume of noise.

    The messages are three deep and have no field but these, so they are put together here: TensorFlow has TensorProto,
    the rest would need tensorflow-serving-api.
    """
    volume = np.random.default_rng(0).standard_normal((1, size, size, size, 1), dtype=np.float32)
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in signatures:
            if name == "serving_bytes":
                key, value = BYTES_INPUT, tf.make_tensor_proto([volume.astype("<f4").tobytes()])
            else:
                key, value = INPUT, tf.make_tensor_proto(volume)
            model_spec = _field(3, name.encode())
            entry = _field(1, key.encode()) + _field(2, value.SerializeToString())
            request = _field(1, model_spec) + _field(2, entry)
            writer.write(_field(6, _field(1, request)))


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    length, digits = len(payload), bytearray()
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *digits, length]) + payload
