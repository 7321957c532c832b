"""A legacy Keras file run through tf-keras, and our twin of it, on the same volumes. Needs the extra `legacy`.

The only module that imports tf_keras. A whole-model file is loaded by tf-keras itself; for a weights-only file, and
for a config of Keras 1 that tf-keras no longer reads, the network is built here layer by layer as AITom has it, and
tf-keras fills it in the order of the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import tf_keras
from tf_keras import layers
from tqdm import tqdm

from aitom_ssl import models
from aitom_ssl.data import Dataset
from aitom_ssl.data.batches import standardize
from aitom_ssl.evaluation.classification import confusion_matrix
from aitom_ssl.export.legacy import identify_legacy, load_legacy_weights
from aitom_ssl.export.legacy_file import legacy_layout
from aitom_ssl.files import sha256

_BATCH = 32

# === AITom's networks in tf-keras, layer by layer as created there ===


def _inception3d(volumes: Any, classes: int) -> Any:
    def convolution(x: Any, filters: int, side: int, padding: str = "same") -> Any:
        return layers.Conv3D(filters, side, activation="relu", padding=padding)(x)

    x = layers.MaxPooling3D(2, padding="same")(convolution(volumes, 32, 5, "valid"))
    direct = convolution(x, 32, 1)
    small = convolution(convolution(x, 32, 1), 64, 3)
    large = convolution(convolution(x, 16, 1), 32, 5)
    pooled = convolution(layers.MaxPooling3D(2, strides=1, padding="same")(x), 32, 1)
    x = layers.Concatenate()([direct, small, large, pooled])
    x = layers.Flatten()(layers.AveragePooling3D(2, strides=1)(x))
    return layers.Activation("softmax")(layers.Dense(classes)(layers.Dropout(0.7)(x)))


def _stacked_convolutions(x: Any, filters: tuple[int, ...]) -> Any:
    for count in filters:
        for _ in range(2):
            x = layers.Conv3D(count, 3, activation="relu", padding="same")(x)
        x = layers.MaxPooling3D(2)(x)
    return layers.Flatten(name="flatten")(x)


def _fully_connected(x: Any, units: int, dropout: float, classes: int) -> Any:
    for name in ("fc1", "fc2"):
        x = layers.Dense(units, activation="relu", name=name)(x)
        x = layers.Dropout(dropout)(x) if dropout else x
    return layers.Dense(classes, activation="softmax")(x)


def _dsrf3d(volumes: Any, classes: int) -> Any:
    return _fully_connected(_stacked_convolutions(volumes, (32, 64)), 512, 0, classes)


def _dsrf3dv2(volumes: Any, classes: int) -> Any:
    return _fully_connected(_stacked_convolutions(volumes, (32, 64, 128)), 1024, 0.7, classes)


def _rb3d(volumes: Any, classes: int) -> Any:
    x = layers.MaxPooling3D(2)(layers.Conv3D(32, 3, activation="relu", padding="same")(volumes))
    for _ in range(4):
        shortcut = layers.Conv3D(16, 3, activation="relu", padding="same")(x)
        y = layers.Conv3D(16, 1, activation="relu", padding="same")(x)
        y = layers.Conv3D(32, 3, activation="relu", padding="same")(y)
        y = layers.Dropout(0.7)(layers.Conv3D(16, 1, padding="same")(y))
        x = layers.Activation("relu")(layers.Concatenate()([shortcut, y]))
    return _fully_connected(layers.Flatten(name="flatten")(x), 1024, 0.5, classes)


_NETWORKS: dict[str, Callable[[Any, int], Any]] = {
    "inception3d": _inception3d,
    "dsrf3d": _dsrf3d,
    "dsrf3dv2": _dsrf3dv2,
    "rb3d": _rb3d,
}


def legacy_network(architecture: str, size: int, classes: int) -> tf_keras.Model:
    """AITom's network in tf-keras, with its own names and order of creation and random weights.

    architecture: our name: inception3d (inception3D), dsrf3d (dsrff3D), dsrf3dv2 (Cgg), rb3d (Cresnet).
    """
    volumes = layers.Input((size, size, size, 1))
    return tf_keras.Model(volumes, _NETWORKS[architecture](volumes, classes))


def load_with_tf_keras(path: str | Path, size: int | None = None) -> tf_keras.Model:
    """The network of a legacy file as tf-keras has it; `size` as `identify_legacy` takes it.

    Only for a file that `load_legacy_weights` took: the model_config of any other may hold code, which tf-keras runs.
    """
    network, layout = identify_legacy(path, size), legacy_layout(path)
    # tf-keras goes by the name of the file, we by what is in it.
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / ("file.weights.h5" if layout == "numbered weights" else "file.h5")
        link.symlink_to(Path(path).resolve())
        if layout == "whole model":
            try:
                return tf_keras.models.load_model(link, compile=False)
            except (TypeError, ValueError):
                pass  # a config of Keras 1; its weights are in order
        model = legacy_network(*network)
        model.load_weights(link)
    return model


# === Comparison ===


def compare_legacy(weights: str | Path, dataset: Dataset) -> dict[str, Any]:
    """Predictions of a legacy file through tf-keras, and of our twin with its weights, on every volume of `dataset`.

    AITom fed its networks (x, y, z) arrays, as they came; ours take (z, y, x), each standardised. So the volumes are
    shown in both orders of axes, standardised, and as stored where they are not standardised on disk.

    Returns:
        weights, sha256, architecture, size, classes, data, split, samples, and `inputs`: one dict a way to show the
        volumes with axes, standardized, max_difference (of probabilities), same_class (share), and where labels and
        the number of classes allow it, accuracy_legacy and accuracy_ours (label i is class i of the dataset), and
        accuracy_matched with class_names: the order of the dataset's classes that fits the legacy network best, since
        AITom's own order was not the same from one process to the next.

    Raises:
        InputError: on a file that `load_legacy_weights` refuses, or data of another size.
    """
    network = identify_legacy(weights, dataset.size)
    ours = models.get(network.architecture)((network.size,) * 3 + (1,), network.classes)
    load_legacy_weights(ours, weights)
    ours.jit_compile = False
    legacy = load_with_tf_keras(weights, dataset.size)
    forms = [(axes, True) for axes in ("zyx", "xyz")]
    if not dataset.standardized:
        forms += [(axes, False) for axes in ("zyx", "xyz")]
    outputs = {form: ([], []) for form in forms}
    for start in tqdm(range(0, len(dataset), _BATCH), desc="comparing", unit=" batches"):
        volumes = dataset.volumes(range(start, min(start + _BATCH, len(dataset))))
        for (axes, standardized), (by_legacy, by_ours) in outputs.items():
            shown = volumes if dataset.standardized or not standardized else standardize(volumes.copy())
            batch = np.ascontiguousarray(shown if axes == "zyx" else shown.transpose(0, 3, 2, 1))[..., None]
            by_legacy.append(legacy.predict(batch, verbose=0))
            by_ours.append(ours.predict(batch, verbose=0))
    labels = dataset.labels
    fits = len(dataset.class_names) == network.classes and (labels >= 0).any()
    inputs = []
    for (axes, standardized), pair in outputs.items():
        by_legacy, by_ours = map(np.concatenate, pair)
        entry = {"axes": axes, "standardized": standardized, **agreement(by_legacy, by_ours)}
        inputs.append(entry | (accuracies(by_legacy, by_ours, labels, dataset.class_names) if fits else {}))
    return {
        "weights": str(weights),
        "sha256": sha256(weights),
        **network._asdict(),
        "data": dataset.name,
        "split": dataset.split,
        "samples": len(dataset),
        "inputs": inputs,
    }


def agreement(by_legacy: np.ndarray, by_ours: np.ndarray) -> dict[str, float]:
    """Greatest difference of two (n, classes) tables of probabilities, and the share of rows with one best class."""
    return {
        "max_difference": float(np.abs(by_legacy.astype(np.float64) - by_ours).max()),
        "same_class": float((by_legacy.argmax(axis=1) == by_ours.argmax(axis=1)).mean()),
    }


def accuracies(
    by_legacy: np.ndarray, by_ours: np.ndarray, labels: np.ndarray, class_names: list[str]
) -> dict[str, float | list[str]]:
    """Accuracy of both (n, classes), of the legacy one with its outputs matched to classes at best, and that order.

    labels: (n,), -1 where unlabelled: those rows do not count.
    """
    known = labels >= 0
    labels, predicted, ours = labels[known], by_legacy[known].argmax(axis=1), by_ours[known].argmax(axis=1)
    counts = confusion_matrix(labels, predicted, len(class_names)).T  # output, label
    outputs, matched = scipy.optimize.linear_sum_assignment(counts, maximize=True)
    return {
        "accuracy_legacy": float((predicted == labels).mean()),
        "accuracy_ours": float((ours == labels).mean()),
        "accuracy_matched": float(counts[outputs, matched].sum() / len(labels)),
        "class_names": [class_names[i] for i in matched],
    }


def table(report: dict[str, Any]) -> str:
    """What `compare_legacy` found, for people."""
    head = "{architecture}, {size}^3, {classes} classes; {samples} volumes of {data} {split}".format(**report)
    rows = [head, "", "axes  volumes       max |difference|  same class  accuracy legacy   ours  classes matched"]
    for entry in report["inputs"]:
        shown = "standardised" if entry["standardized"] else "as stored"
        row = f"{entry['axes']:<6}{shown:<14}{entry['max_difference']:16.2e}{entry['same_class']:12.4f}"
        if "accuracy_legacy" in entry:
            row += "{accuracy_legacy:17.4f}{accuracy_ours:7.4f}{accuracy_matched:17.4f}".format(**entry)
        rows.append(row)
    best = max(report["inputs"], key=lambda entry: entry.get("accuracy_matched", -1))
    if "class_names" in best:
        how = f"--axes={best['axes']}, accuracy {best['accuracy_matched']:.4f}"
        rows += ["", f"order of classes that fits best ({how}): {','.join(best['class_names'])}"]
    return "\n".join(rows)
