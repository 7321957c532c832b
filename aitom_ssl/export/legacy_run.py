"""A legacy Keras file as a run of ours: named classes, axes turned where need be, for evaluate, predict and export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aitom_ssl import environment
from aitom_ssl.errors import InputError
from aitom_ssl.export.legacy import LegacyNetwork, identify_legacy, load_legacy_weights
from aitom_ssl.export.legacy_file import legacy_layout
from aitom_ssl.files import sha256
from aitom_ssl.training.run import RunFolder


def import_legacy(
    path: str | Path,
    output: str | Path | None,
    class_names: Sequence[str],
    size: int | None = None,
    voxel_size: float | None = None,
    contrast: str | None = None,
    axes: str = "zyx",
    command: str = "",
) -> RunFolder:
    """A run folder (config.yaml, model.keras) with our twin of a legacy file's network, for evaluate and predict.

    Args:
        path: as `load_legacy_weights`.
        output: the run's folder; default runs/legacy-NAME, with a number when that is taken.
        class_names: in the order of the network's outputs, as many as it has.
        size: voxels a side, where a weights-only file fits several; default: as `identify_legacy`.
        voxel_size, contrast: of the data it was trained on, where known (A; "bright" or "dark").
        axes: "zyx" keeps the weights as they are; "xyz" says that it was trained on (x, y, z) arrays and turns it.
        command: what makes the run again, kept in its config.

    Raises:
        InputError: as `load_legacy_weights`, and on a wrong number of class names or an output that cannot be taken.
    """
    # It loads Keras, which `check_class_names` does not need.
    from aitom_ssl import models

    network = identify_legacy(path, size)
    check_class_names(class_names, network, path)
    shape = (network.size,) * 3 + (1,)
    model = models.get(network.architecture)(shape, network.classes)
    description = models.ModelDescription(network.architecture, tuple(class_names), network.size, voxel_size, contrast)
    load_legacy_weights(model, path)
    if axes == "xyz":
        turn_axes(model)
    run = RunFolder.create(output, "legacy", Path(path).stem)
    run.save_model(model)
    run.write_config(
        {
            "method": "legacy",
            "command": command,
            "settings": {"weights": str(path), "axes": axes},
            "model": description.to_dict(),
            "source": {"file": Path(path).name, "sha256": sha256(path), "layout": legacy_layout(path)},
            "versions": environment.versions(),
        }
    )
    return run


def check_class_names(class_names: Sequence[str], network: LegacyNetwork, path: str | Path) -> None:
    """InputError unless there is one name a class of the file's network."""
    if len(class_names) != network.classes:
        raise InputError(f"{path} holds {network}, but {len(class_names)} class names were given: give one a class.")


def turn_axes(model: Any) -> None:
    """Turn a network that was trained on (x, y, z) arrays, as AITom's are, into the one for our (z, y, x) arrays.

    Afterwards the model gives for an array what it gave before for `array.transpose(2, 1, 0)`: kernels and the layer
    behind the flattening are transposed, all else treats the axes alike. Equal up to rounding.
    """
    flattened = next(layer for layer in model.layers if type(layer).__name__ == "Flatten").input.shape[1:]
    turned = False
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, *bias = layer.get_weights()
        if kernel.ndim == 5:
            kernel = kernel.transpose(2, 1, 0, 3, 4)
        elif not turned:
            kernel = kernel.reshape(*flattened, -1).transpose(2, 1, 0, 3, 4).reshape(kernel.shape)
            turned = True
        layer.set_weights([kernel, *bias])
