"""A trained model from wherever it is kept: a run, its model.keras or model.joblib, or a SavedModel.

`find_model` (of a classifier) and `find_network` (of an encoder too) look without loading a framework, so that mistakes
are answered at once; `load_classifier` and `load_network` load.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError, reason
from aitom_ssl.export.versions import DESCRIPTION, GRAPH, newest_version, versions
from aitom_ssl.files import sha256
from aitom_ssl.training.precision import PRECISIONS, with_precision
from aitom_ssl.training.quiet import import_keras_quietly
from aitom_ssl.training.run import RunFolder

if TYPE_CHECKING:
    import keras

    from aitom_ssl.models import ModelDescription

BATCH_SIZE = 64
INPUT, PROBABILITIES, FEATURES, LINEAR = "subtomogram", "probabilities", "features", "linear"
# Signature of a SavedModel that answers each.
_SIGNATURES = {PROBABILITIES: "serving_default", FEATURES: "features"}
_KERAS, RIF_SVM, _SAVEDMODEL = "model.keras", "model.joblib", "SavedModel"
# More features than these are of no use to neighbours and probes, and fill the memory.
WIDE = 8192

# Volumes (batch, z, y, x) float32, standardised, to one row each.
Network = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """Where a model is, before it is loaded."""

    path: Path  # model.keras, model.joblib, or the SavedModel's folder
    kind: str  # "model.keras", "model.joblib" or "SavedModel"
    about: dict[str, Any]  # what is said of it, as ModelDescription.to_dict writes it; not checked yet
    where: Path  # the file that says so

    @property
    def size(self) -> int | None:
        """The box that it was trained on, if that can be read."""
        size = self.about.get("size")
        return size if isinstance(size, int) and size > 0 else None

    def description(self) -> ModelDescription:
        """What it was trained on; loads Keras. InputError where that is damaged."""
        from aitom_ssl.models import ModelDescription

        return ModelDescription.from_dict(self.about, str(self.where))

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the model's files."""
        if self.kind != _SAVEDMODEL:
            return sha256(self.path)
        digest = hashlib.sha256()
        for file in sorted(path for path in self.path.rglob("*") if path.is_file()):
            digest.update(f"{file.relative_to(self.path).as_posix()} {sha256(file)}\n".encode())
        return digest.hexdigest()


class Classifier:
    """Volumes to class probabilities.

    path: where it was loaded from. description: what it was trained on. batch_size: volumes that go through the
    network at a time; the last batch is filled up, so that a probability does not depend on how many came with it.
    """

    def __init__(
        self,
        path: Path,
        description: ModelDescription,
        network: Network,
        batch_size: int,
    ):
        self.path, self.description, self.batch_size = path, description, batch_size
        self._network = network

    def probabilities(self, volumes: np.ndarray, standardized: bool = False) -> np.ndarray:
        """(n, classes) float32 of (n, z, y, x) float32 volumes in the model's contrast, box and voxel size.

        Each volume is standardised as in training, unless it is already. InputError for another box, for voxels that
        are not finite, and when the network answers with NaN.
        """
        size, classes = self.description.size, len(self.description.class_names)
        volumes = np.asarray(volumes, np.float32)
        if volumes.ndim != 4 or volumes.shape[1:] != (size,) * 3:
            raise InputError(f"{self.path} takes volumes (n, {size}, {size}, {size}). Received {volumes.shape}.")
        if not standardized:
            if not np.isfinite(volumes).all():
                raise InputError("A volume has voxels that are NaN or infinite: repair it or leave it out.")
            volumes = standardize(volumes.copy())
        found = np.empty((len(volumes), classes), np.float32)
        for start in range(0, len(volumes), self.batch_size):
            batch = volumes[start : start + self.batch_size]
            found[start : start + len(batch)] = answers(self._network, batch, self.batch_size, self.path)
        return found


def answers(network: Network, batch: np.ndarray, batch_size: int, path: Path) -> np.ndarray:
    """The network's rows for a `batch` (n, z, y, x) of up to `batch_size` volumes.

    A short one is filled up: no network is traced anew, and no answer depends on how many came with it. InputError,
    naming `path`, where an answer is not finite.
    """
    count = len(batch)
    if count < batch_size:
        batch = np.concatenate([batch, np.repeat(batch[:1], batch_size - count, axis=0)])
    found = network(batch)[:count]
    if not np.isfinite(found).all():
        raise InputError(f"{path} answers with NaN: its training diverged. Train it again.")
    return found


# === Finding ===


def find_model(path: str | os.PathLike) -> ModelFiles:
    """The classifier at `path` (see `find_network`). InputError where it is an encoder."""
    found = find_network(path)
    names = found.about.get("class_names")
    if names and not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
        raise InputError(f"{found.where}: class_names is {names!r}, expected a list of names: quote them.")
    if not found.about.get("class_names"):
        raise InputError(
            f"{path} is an encoder, which knows no classes: make a classifier of it with finetune, or train one with "
            "train_supervised."
        )
    return found


def find_network(path: str | os.PathLike) -> ModelFiles:
    """The classifier or encoder at `path`: a run's folder, a model file in it, a SavedModel, or its versions' folder.

    Raises InputError where there is none, or nothing says what it is.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"No run or SavedModel {path}: give the folder of one.")
    if path.is_file():
        if path.name not in (_KERAS, RIF_SVM) or not (path.parent / "config.yaml").is_file():
            raise InputError(
                f"{path} is a file, expected the folder of a run or a SavedModel (or {_KERAS} beside a config.yaml)."
            )
        path = path.parent
    return find_run(path) if (path / "config.yaml").is_file() else _in_savedmodel(path)


def find_run(folder: str | os.PathLike) -> ModelFiles:
    """The model of a finished run, a classifier or an encoder. InputError where there is none, or it is not said."""
    folder = Path(folder)
    config = RunFolder.open(folder).read_config()
    about = config.get("model")
    if about is None:
        raise InputError(
            f"{folder}/config.yaml does not say what model it is, as a {config.get('method', 'pretraining')} run of an "
            "earlier version: train it again."
        )
    if not isinstance(about, Mapping):
        raise InputError(f"{folder}/config.yaml: model is {about!r}, expected a description: put the file back.")
    kind = RIF_SVM if about.get("architecture") == "rif_svm" else _KERAS
    if not (folder / kind).is_file():
        raise InputError(f"{folder} has no {kind}: its training has not finished. Go on with --resume, then try again.")
    return ModelFiles(folder / kind, kind, dict(about), folder / "config.yaml")


def _in_savedmodel(path: Path) -> ModelFiles:
    if not (path / GRAPH).is_file() and not versions(path):
        raise InputError(f"{path} is neither a run (no config.yaml) nor a SavedModel (no {GRAPH}): give one of them.")
    folder = newest_version(path)
    where = folder / "assets" / DESCRIPTION
    if not where.is_file():
        raise InputError(
            f"{folder} has no assets/{DESCRIPTION}, which says what its classes are: export it with export_savedmodel."
        )
    try:
        about = json.loads(where.read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise ValueError(f"it holds {type(about).__name__}")
    except ValueError as error:
        raise InputError(f"{where} cannot be read ({reason(error)}): export the model again.") from None
    return ModelFiles(folder, _SAVEDMODEL, about, where)


# === Loading ===


def load_classifier(
    path: str | os.PathLike | ModelFiles, batch_size: int = BATCH_SIZE, precision: str | None = None
) -> Classifier:
    """The classifier at `path` (see `find_model`), ready to use.

    batch_size: volumes that go through a network at a time. precision: "float32" or "mixed_bfloat16", which computes
    the same weights in bfloat16 (the last layer and its softmax stay float32); None is what it was trained in.
    Raises InputError for files that are damaged or are not what they should be.
    """
    files = path if isinstance(path, ModelFiles) else find_model(path)
    network = load_network(files, PROBABILITIES, batch_size, precision)
    return Classifier(files.path, files.description(), network, batch_size)


def load_network(
    files: ModelFiles, output: str, batch_size: int = BATCH_SIZE, precision: str | None = None
) -> Network:
    """What answers `output` for batches of exactly `batch_size` volumes (see `answers`).

    output: "probabilities" of a classifier, or "features": what an encoder gives, the rotation-invariant features of a
    RIF-SVM, or the input of a classifier's last layer. Where that is a flattened map of more than 8,192 values
    (Inception3D as published has 351,520), a run's is averaged to 2x2x2 first, as in the pooled networks. "linear":
    what the softmax at the end of a run's classifier is taken of (the structural features of Xu 2017, equation 3);
    other kinds of files do not have it. The other arguments are those of `load_classifier`.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected 1 or more.")
    _check_precision(precision)
    if precision is not None and files.kind != _KERAS:
        raise InputError(f"precision={precision} needs a run with model.keras, and {files.path} is none: leave it out.")
    if output == LINEAR and files.kind != _KERAS:
        raise InputError(f"{files.path} has no linear activations: expected a run with {_KERAS}.")
    import_keras_quietly()
    description = files.description()
    if files.kind == RIF_SVM:
        from aitom_ssl.discovery.rif_svm import load_rif_svm

        return getattr(load_rif_svm(files.path.parent), output)
    if files.kind == _SAVEDMODEL:
        return _Served(files.path, output, len(description.class_names))
    model = load_keras(files, precision)
    return _compiled(_before_classifier(model) if output == FEATURES else model, batch_size, output)


def _check_precision(precision: str | None) -> None:
    if precision not in (None, *PRECISIONS):
        raise InputError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}, or None.")


def load_keras(files: ModelFiles, precision: str | None = None) -> keras.Model:
    """The functional network in a run's model.keras, as its description says. precision: as in `load_classifier`."""
    _check_precision(precision)
    path, description = files.path, files.description()
    model = RunFolder(path.parent).load_model()
    if isinstance(model.output, dict) and FEATURES in model.output:  # COS-Net, of which only these are asked for here
        model = type(model)(model.input, model.output[FEATURES])
    # An encoder's description does not say how many features it has.
    outputs = len(description.class_names) or model.output_shape[-1]
    expected = (None, *[description.size] * 3, 1), (None, outputs)
    if (model.input_shape, model.output_shape) != expected:
        raise InputError(
            f"{path} maps {model.input_shape} to {model.output_shape}, and its description says {expected[0]} to "
            f"{expected[1]}: put the config.yaml back that belongs to it."
        )
    return model if precision is None else with_precision(model, precision)


def _before_classifier(model: keras.Model) -> keras.Model:
    """A classifier without its last layer, and with a map averaged that is WIDE flattened; an encoder as it is."""
    import keras

    from aitom_ssl.models.building import CLASSIFIER, average_to_2x2x2

    *before, last = model.layers
    if last.name != CLASSIFIER:
        return model
    flat = next((layer for layer in reversed(before) if not isinstance(layer, keras.layers.Dropout)), last)
    if last.input.shape[-1] > WIDE and isinstance(flat, keras.layers.Flatten):
        return keras.Model(model.input, keras.layers.Flatten()(average_to_2x2x2(flat.input)))
    return keras.Model(model.input, last.input)


def _compiled(model: keras.Model, batch_size: int, output: str) -> Network:
    import keras
    import tensorflow as tf

    from aitom_ssl.training.supervised import logits

    if keras.backend.backend() != "tensorflow":
        raise InputError(f"Prediction needs TensorFlow, and KERAS_BACKEND is {keras.backend.backend()}: unset it.")
    signature = [tf.TensorSpec((batch_size, *model.input_shape[1:4]), tf.float32)]
    activation = getattr(model.layers[-1], "activation", None)
    without_softmax = output == PROBABILITIES and activation is keras.activations.linear
    call = logits if output == LINEAR else keras.Model.__call__

    # XLA on the CPU makes 3-D convolutions several times slower.
    @tf.function(input_signature=signature, jit_compile=False, autograph=False)
    def network(volumes):
        found = tf.cast(call(model, volumes[..., tf.newaxis], training=False), tf.float32)
        return tf.nn.softmax(found) if without_softmax else found

    return lambda volumes: network(tf.constant(volumes)).numpy()


class _Served:
    """What a SavedModel answers. It holds the loaded object: signatures alone do not keep their variables."""

    def __init__(self, folder: Path, output: str, classes: int):
        import tensorflow as tf

        self.folder, self.output = folder, output
        try:
            self.loaded = tf.saved_model.load(str(folder))
        except (ValueError, TypeError, OSError, LookupError, RuntimeError, tf.errors.OpError) as error:
            raise InputError(f"{folder} cannot be loaded ({reason(error)}): export the model again.") from None
        name = _SIGNATURES[output]
        signatures = getattr(self.loaded, "signatures", {})
        shown = "; ".join(_shown(name, signature) for name, signature in signatures.items()) or "none"
        self.signature = signatures.get(name)
        expected = f"{name} ({INPUT} -> {output})"
        if self.signature is None or _shown(name, self.signature) != expected:
            raise InputError(
                f"{folder} has the signatures {shown}; expected {expected}: export the model with export_savedmodel."
            )
        found = self.signature.structured_outputs[output].shape[-1]
        if output == PROBABILITIES and found not in (None, classes):
            raise InputError(
                f"{folder} has {found} classes, its assets/{DESCRIPTION} {classes}: export the model again."
            )

    def __call__(self, volumes: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        try:
            return self.signature(**{INPUT: tf.constant(volumes[..., None])})[self.output].numpy()
        except tf.errors.OpError as error:
            raise InputError(f"{self.folder} refuses these volumes ({reason(error)}).") from None


def _shown(name: str, signature: Any) -> str:
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    return f"{name} ({', '.join(inputs)} -> {', '.join(outputs)})"
