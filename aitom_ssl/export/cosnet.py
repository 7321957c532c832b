"""COS-Net as a SavedModel: a support set and targets in, classes and masks out, without Keras or this package.

The version folder is that of `export.savedmodel`, without warm-up requests. Its signatures, all numbers float32:

    serving_default   support (m, z, y, x, 1), support_label int32 (m,) in 0..classes - 1, subtomogram (n, z, y, x, 1)
                      -> probabilities (n, classes), match (n, classes), mask (n, z, y, x, 1)
    features          subtomogram -> features (n, d)
    segment           subtomogram -> mask
    match             support_features (m, d), support_label, features (n, d) -> probabilities, match

`probabilities` is the softmax over the classes of the support set and `match` the sigmoid of each by itself, as
`oneshot.trained.class_scores` has them; the shots of a class are averaged. `features` and `match` are for support sets
that stay: they go through the network once. A network without a volume decoder has no `mask` and no `segment`. Volumes
may come as they are: each is standardised in the graph.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.export.savedmodel import checked_volumes, standardize
from aitom_ssl.export.versions import DESCRIPTION, new_version
from aitom_ssl.files import build_folder
from aitom_ssl.models.building import FEATURES, INPUT
from aitom_ssl.models.cosnet import MASK, SIMILARITY, pairs
from aitom_ssl.oneshot.trained import TrainedCOSNet

SUPPORT, LABEL = "support", "support_label"


def export_cosnet(trained: TrainedCOSNet, path: str | os.PathLike, version: int | None = None) -> Path:
    """Write a trained COS-Net as a new version under `path`, whole or not at all; returns the version's folder.

    InputError for a version that is there, and a path that cannot be written to.
    """
    folder = new_version(path, version)
    network, size = trained.network, trained.description.size
    if network.input_shape != (None, size, size, size, 1):
        raise InputError(f"{trained.path} takes {network.input_shape} and its description says a box of {size}.")
    module = tf.Module()
    module.weights = [weight.value for weight in network.weights]
    with build_folder(folder) as temporary:
        about = temporary / DESCRIPTION
        about.write_text(json.dumps(trained.description.to_dict(), indent=2) + "\n", encoding="utf-8")
        module.description = tf.saved_model.Asset(str(about))
        tf.saved_model.save(module, str(temporary), signatures=_signatures(trained, size))
        about.unlink()
    return folder


def _signatures(trained: TrainedCOSNet, size: int) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    network, masks = trained.network, trained.has_masks
    head = network.get_layer(SIMILARITY)
    shape = (None, size, size, size, 1)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)
    def stream(volumes: tf.Tensor) -> dict[str, tf.Tensor]:
        found = network(standardize(volumes), training=False)
        return {name: tf.cast(found[name], tf.float32) for name in (FEATURES, MASK) if name in found}

    def matched(targets: tf.Tensor, supports: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = _by_class(pairs(head, targets, supports), _checked_labels(labels, tf.shape(supports)[0]))
        return {"probabilities": tf.nn.softmax(logits), "match": tf.nn.sigmoid(logits)}

    def whole(support: tf.Tensor, support_label: tf.Tensor, subtomogram: tf.Tensor) -> dict[str, tf.Tensor]:
        of_targets = stream(checked_volumes(subtomogram, size))
        of_support = stream(checked_volumes(support, size, SUPPORT))
        found = matched(of_targets[FEATURES], of_support[FEATURES], support_label)
        return {**found, MASK: of_targets[MASK]} if masks else found

    def one(name: str):
        return lambda subtomogram: {name: stream(checked_volumes(subtomogram, size))[name]}

    def match(support_features: tf.Tensor, support_label: tf.Tensor, features: tf.Tensor) -> dict[str, tf.Tensor]:
        return matched(features, support_features, support_label)

    volumes = tf.TensorSpec(shape, tf.float32, INPUT)
    support, labels = tf.TensorSpec(shape, tf.float32, SUPPORT), tf.TensorSpec((None,), tf.int32, LABEL)
    width = network.output[FEATURES].shape[-1]
    rows = [tf.TensorSpec((None, width), tf.float32, name) for name in ("support_features", FEATURES)]
    functions = {
        "serving_default": (whole, [support, labels, volumes]),
        "features": (one(FEATURES), [volumes]),
        "match": (match, [rows[0], labels, rows[1]]),
        **({"segment": (one(MASK), [volumes])} if masks else {}),
    }
    return {
        name: tf.function(function, input_signature=specs, autograph=False)
        for name, (function, specs) in functions.items()
    }


def _by_class(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """(targets, classes) of (targets, supports): the mean of the shots of each class."""
    classes = tf.reduce_max(labels) + 1
    return tf.transpose(tf.math.unsorted_segment_mean(tf.transpose(logits), labels, classes))


def _checked_labels(labels: tf.Tensor, supports: tf.Tensor) -> tf.Tensor:
    """The labels, once they are asserted to be one a support, from 0 on without a gap."""
    message = f"{LABEL} must be one a support, from 0 on with every class at least once. Received"
    one_each = tf.equal(tf.size(labels), supports) & (supports > 0)
    # Of no labels the largest would be the least integer there is.
    classes = tf.reduce_max(tf.concat([labels, [0]], 0)) + 1
    present = tf.equal(tf.size(tf.unique(labels).y), classes) & tf.reduce_all(labels >= 0)
    with tf.control_dependencies([tf.debugging.Assert(one_each & present, [message, labels], summarize=32)]):
        return tf.identity(labels)
