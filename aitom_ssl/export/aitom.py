"""Our classifiers under AITom's calling convention.

AITom's subdivide workflow (aitom/classify/deep/supervised/cnn/subdivide.py) keeps subtomograms as a list of dicts,
`{"v": array (x, y, z), "pdb_id": name}`, stacks them to (n, x, y, z, 1) and calls `model.predict` on that. A model of
ours takes the place of its network, and its training is left out:

    import aitom.classify.deep.supervised.cnn.subdivide as SD
    from aitom_ssl.export import aitom_model

    model = aitom_model("runs/mine/savedmodel")    # instead of SD.inception3D, SD.compile and SD.train_validation
    labels = SD.predict(model, dj)                  # dj as before; probabilities: model.predict(dj)
    names = [model.class_names[label] for label in labels]

Where AITom compares with known classes, `model.label_map` goes where `SD.pdb_id_label_map(...)` went. That function
numbers the classes in the order of a set, which differs from process to process; ours is the order of training.

subdivide.py does not import beside Keras 3 (it asks keras.layers for `merge`, which is gone). Its `predict` is
`model.predict(dj).argmax(axis=-1)`, so that can be written instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import Classifier, load_classifier

_CHUNK = 256


class AitomModel:
    """What AITom needs of a model: `predict`.

    class_names: tuple in label order. label_map: {class name: label}, what AITom calls pdb_id_map. description: box,
    voxel size and contrast that the subtomograms must have; AITom's arrays do not say theirs. Volumes need not be
    standardised.
    """

    def __init__(self, classifier: Classifier):
        self._classifier = classifier
        self.description = classifier.description
        self.class_names = classifier.description.class_names
        self.label_map = {name: label for label, name in enumerate(self.class_names)}

    def predict(self, data: Any) -> np.ndarray:
        """(n, classes) float32 probabilities.

        data: array (n, x, y, z, 1) or (n, x, y, z); list of dicts with the volume (x, y, z) as `v`; or the dict with
        an array as `data` that AITom's list_to_data makes, which its newer `predict` passes on whole. Axes are
        turned to (z, y, x) here. InputError for anything else, another box, and voxels that are not finite.
        """
        if isinstance(data, Mapping) and "data" in data:
            data = data["data"]
        if isinstance(data, np.ndarray):
            if data.ndim == 5 and data.shape[-1] == 1:
                data = data[..., 0]
            if data.ndim != 4:
                raise InputError(f"An array of shape {data.shape} is no batch: expected (n, x, y, z, 1).")
        elif isinstance(data, Sequence) and not isinstance(data, str):
            for position, entry in enumerate(data):
                if not isinstance(entry, Mapping) or np.ndim(entry.get("v")) != 3:
                    raise InputError(f"Entry {position} has no volume: expected a dict with an array (x, y, z) as 'v'.")
        else:
            raise InputError(f"A {type(data).__name__} holds no subtomograms: expected an array or a list of dicts.")
        found = [np.empty((0, len(self.class_names)), np.float32)]
        for start in range(0, len(data), _CHUNK):
            found.append(self._classifier.probabilities(_turned(data[start : start + _CHUNK])))
        return np.concatenate(found)


def _turned(data: np.ndarray | Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(n, z, y, x) float32 of AITom's (x, y, z) volumes."""
    if not isinstance(data, np.ndarray):
        volumes = [np.asarray(entry["v"], np.float32) for entry in data]
        shapes = sorted({volume.shape for volume in volumes})
        if len(shapes) > 1:
            raise InputError(f"Volumes have the shapes {', '.join(map(str, shapes))}: expected one box for all.")
        data = np.stack(volumes)
    return data.transpose(0, 3, 2, 1).astype(np.float32)


def aitom_model(path: str | os.PathLike) -> AitomModel:
    """The classifier at `path` as AITom would use it.

    path: a SavedModel, the folder of its versions (the newest is taken), or a run's folder. InputError where there is
    none, or it is an encoder.
    """
    return AitomModel(load_classifier(path))
