"""A trained COS-Net in use: features and masks of volumes, and how much targets are like the classes of a support set.

Keras is loaded by `load_cosnet`, not by this module.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.quiet import import_keras_quietly
from aitom_ssl.training.run import RunFolder

if TYPE_CHECKING:
    import keras

    from aitom_ssl.models import ModelDescription

METHOD = "cosnet"
BATCH_SIZE = 32
READOUTS = ("softmax", "sigmoid")


class TrainedCOSNet:
    """Volumes to features and masks, and pairs of features to logits.

    path: where it was loaded from. description: what it was trained on. trained_on: names of those classes.
    has_masks: whether there is a volume decoder. batch_size: volumes that go through the network at a time; the last
    batch is filled up, so that an answer does not depend on how many came with it.
    """

    def __init__(
        self,
        path: Path,
        description: ModelDescription,
        network: keras.Model,
        trained_on: tuple[str, ...],
        batch_size: int = BATCH_SIZE,
    ):
        import keras

        from aitom_ssl.models.building import FEATURES
        from aitom_ssl.models.cosnet import MASK, SIMILARITY

        self.path, self.description, self.network = path, description, network
        self.trained_on, self.batch_size = trained_on, batch_size
        # Without the head, whose work grows with the square of the batch.
        outputs = {name: network.output[name] for name in (FEATURES, MASK) if name in network.output}
        self.has_masks = MASK in outputs
        self._stream = keras.Model(network.input, outputs)
        if keras.backend.backend() == "tensorflow":
            # Keras would choose XLA, which makes 3-D convolutions on the CPU several times slower.
            self._stream.jit_compile = False
        self._head = network.get_layer(SIMILARITY)

    def __call__(self, volumes: np.ndarray, standardized: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Features (n, d) float32 and masks (n, z, y, x) float32 probabilities, None without a decoder, of volumes.

        volumes: (n, z, y, x) float32, n >= 1, in the network's box, voxel size and contrast; each is standardised as in
        training, unless it is already. InputError for another box, for voxels that are not finite, and when the network
        answers with NaN.
        """
        size = self.description.size
        volumes = np.asarray(volumes, np.float32)
        if volumes.ndim != 4 or volumes.shape[1:] != (size,) * 3 or len(volumes) == 0:
            raise InputError(
                f"{self.path} takes volumes (n, {size}, {size}, {size}), n >= 1. Received {volumes.shape}."
            )
        if not np.isfinite(volumes).all():
            raise InputError("A volume has voxels that are NaN or infinite: repair it or leave it out.")
        if not standardized:
            volumes = standardize(volumes.copy())
        features, masks = [], []
        for start in range(0, len(volumes), self.batch_size):
            batch = volumes[start : start + self.batch_size, ..., None]
            count = len(batch)
            if count < self.batch_size:
                batch = np.concatenate([batch, np.zeros((self.batch_size - count, *batch.shape[1:]), np.float32)])
            answer = self._stream.predict_on_batch(batch)
            features.append(np.asarray(answer["features"])[:count])
            if self.has_masks:
                masks.append(np.asarray(answer["mask"])[:count, ..., 0])
        found = np.concatenate(features)
        if not np.isfinite(found).all():
            raise InputError(f"{self.path} answers with NaN: its training diverged; train again.")
        return found, np.concatenate(masks) if self.has_masks else None

    def similarity(self, targets: np.ndarray, supports: np.ndarray) -> np.ndarray:
        """(targets, supports) float32 logits of features (targets, d) and (supports, d): high where of one class."""
        weight, bias = (np.asarray(values) for values in self._head.get_weights())
        return pair_logits(targets, supports, weight[:, 0], float(bias[0]))


def load_cosnet(run: str | os.PathLike, precision: str | None = None, batch_size: int = BATCH_SIZE) -> TrainedCOSNet:
    """The network of a finished run of train_cosnet; loads Keras.

    precision: "float32" or "mixed_bfloat16"; None: as it was trained. InputError, one line, for anything else.
    """
    if precision not in (None, *PRECISIONS):
        raise InputError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}, or None for the run's own.")
    folder, config = find_cosnet(run)
    import_keras_quietly()

    from aitom_ssl.models import COSNet, ModelDescription
    from aitom_ssl.training.precision import precision as computing_in

    description = ModelDescription.from_dict(config["model"], f"{folder.path}/config.yaml")
    network = folder.load_model()
    if precision is not None:
        built = network_settings(config["settings"])
        with computing_in(precision):
            again = COSNet((description.size,) * 3 + (1,), **built)
        again.set_weights(network.get_weights())
        network = again
    return TrainedCOSNet(folder.path / "model.keras", description, network, tuple(config["classes"]), batch_size)


def find_cosnet(run: str | os.PathLike) -> tuple[RunFolder, dict[str, Any]]:
    """Folder and config.yaml of a finished run of train_cosnet, without a framework; else InputError."""
    folder = RunFolder.open(run)
    config = folder.read_config()
    if config.get("method") != METHOD:
        raise InputError(f"{run} is a run of {config.get('method')}, expected one of train_cosnet.")
    classes, about = config.get("classes"), config.get("model")
    if not isinstance(about, dict) or not isinstance(classes, list) or not all(isinstance(n, str) for n in classes):
        raise InputError(
            f"{folder.path}/config.yaml is damaged (no `model` or `classes`): put it back, or train again."
        )
    if not (folder.path / "model.keras").is_file():
        raise InputError(
            f"{run} has no model.keras: it has not finished. Go on with train_cosnet --resume --output={run}."
        )
    return folder, config


def network_settings(settings: Any) -> dict[str, Any]:
    """Arguments of `models.COSNet` from the settings of a run."""
    fusion = None if settings["fusion"] == "none" else settings["fusion"]
    return {
        "filters": settings["filters"],
        "fusion": fusion,
        "decoder": settings["decoder"],
        "skips": settings.get("skips", False),
    }


# === Over arrays ===


def pair_logits(targets: np.ndarray, supports: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """(..., targets, supports) float32: |target - support| (d,) times `weight` (d,), plus `bias`."""
    targets, supports = np.asarray(targets, np.float32), np.asarray(supports, np.float32)
    out = np.empty((len(targets), len(supports)), np.float32)
    for i, target in enumerate(targets):
        out[i] = np.abs(supports - target) @ weight + bias
    return out


def class_scores(logits: np.ndarray, support_labels: np.ndarray, classes: int, readout: str = "softmax") -> np.ndarray:
    """(targets, classes) float32 scores in [0, 1] of each class of the support set, from `logits` (targets, supports).

    The logits of the shots of a class are averaged. readout: "softmax" over the classes of the support set (Zhou 2020),
    rows sum to 1; "sigmoid" of each class by itself (the authors' code), which does not depend on the others at hand.

    Args:
        support_labels: (supports,) ints in 0..classes - 1, every class at least once.

    Raises:
        InputError: on another readout, labels out of range or not one a support, and a class without a support.
    """
    logits, labels = np.asarray(logits, np.float32), np.asarray(support_labels)
    if readout not in READOUTS:
        raise InputError(f"readout={readout!r} must be one of {', '.join(READOUTS)}.")
    if labels.shape != logits.shape[1:] or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(
            f"Logits are (targets, supports) with one label a support. Received {logits.shape}, {labels.shape}."
        )
    counts = np.bincount(labels, minlength=classes) if labels.min() >= 0 else np.zeros(classes + 1)
    if len(counts) != classes or not counts.all():
        raise InputError(
            f"Support labels must be 0 to {classes - 1}, each at least once. Received {sorted(set(labels.tolist()))}."
        )
    members = (labels[:, None] == np.arange(classes)) / counts
    by_class = logits @ members.astype(np.float32)
    if readout == "sigmoid":
        return (0.5 * (1 + np.tanh(0.5 * by_class))).astype(np.float32)
    shifted = np.exp(by_class - by_class.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
