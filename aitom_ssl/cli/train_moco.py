"""Pretrain an encoder on subtomograms without labels (MoCo), then measure what its features are worth.

    aitom-ssl train_moco --data=sim_snr005
    aitom-ssl train_moco --data=my_particles/ --preset=recommended --output=runs/mine
    aitom-ssl train_moco --resume --output=runs/mine

The run's folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints, model.keras (the encoder) and
report.html. With labels in the data, a linear probe and kNN on frozen features are compared with the untrained encoder.

--preset=paper is SSL 2022; --preset=recommended is what worked better in a pilot: full 3-D rotation and added noise,
BatchNorm in the head, larger batches and learning rate, a quicker key encoder. --preset=crowded is for particles that
are small in their box, among neighbours: the encoder sees the centre alone (--field), and every view gets the
surroundings of another volume, so that it is not by its neighbours that a particle is known again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aitom_ssl.cli.training_flags import pretrain, training_flags
from aitom_ssl.training.settings import Recipe

RECIPE = Recipe(
    command="train_moco",
    methods=("moco",),
    common={
        "epochs": 200,
        "encoder": "rb3d",
        "dim": 128,
        "temperature": 0.2,
        "weight_decay": 1e-4,
        "symmetric": False,
        "views": "augmented",
        "limit": None,
        "seed": 0,
        "precision": "float32",
        "knn_every": 1,
    },
    presets={
        "paper": {
            "batch_size": 16,
            "learning_rate": 1e-4,
            "momentum": 0.999,
            "head": "v1",
            "queue_size": 128,
            "augmentation": "ssl2022",
            "field": 1.0,
        },
        "recommended": {
            "batch_size": 32,
            "learning_rate": 3e-4,
            "momentum": 0.99,
            "head": "v2_bn",
            "queue_size": 128,
            "augmentation": "recommended",
            "field": 1.0,
        },
        "crowded": {
            "batch_size": 64,
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "head": "v2_bn",
            "queue_size": 256,
            "augmentation": "crowded",
            "field": 0.625,
        },
    },
    smoke={"data": "sim_demo", "epochs": 2, "batch_size": 8, "queue_size": 16, "limit": 32},
)
_flag = training_flags(RECIPE, folder="moco")


@dataclasses.dataclass
class Options:
    data: str | None = _flag("data")
    output: str | None = _flag("output")
    preset: str | None = _flag("preset")
    epochs: int | None = _flag("epochs")
    batch_size: int | None = _flag("batch_size")
    encoder: str | None = _flag("encoder")
    field: float | None = _flag("field")
    head: str | None = _flag(
        "head", "Projection: v1 linear, v2 two layers, v2_bn with BatchNorm between them.", ("v1", "v2", "v2_bn")
    )
    augmentation: str | None = _flag("augmentation")
    views: str | None = _flag("views")
    learning_rate: float | None = _flag("learning_rate")
    weight_decay: float | None = _flag("weight_decay")
    momentum: float | None = _flag("momentum", "Of the key encoder, per step.")
    temperature: float | None = _flag("temperature", "Of the softmax over the queue.")
    queue_size: int | None = _flag("queue_size", "Keys kept as negatives; any batch size fits.")
    symmetric: bool | None = _flag("symmetric", "Each view is query and key in turn: twice the work a step.")
    dim: int | None = _flag("dim")
    limit: int | None = _flag("limit")
    seed: int | None = _flag("seed")
    precision: str | None = _flag("precision")
    knn_every: int | None = _flag("knn_every")
    resume: bool = _flag("resume")
    smoke: bool = _flag("smoke")


def build(encoder: Any, augmenter: Any, settings: Mapping[str, Any]) -> Any:
    """The method, untrained."""
    from aitom_ssl.ssl import MoCo

    names = ("dim", "queue_size", "momentum", "temperature", "head", "symmetric", "seed")
    return MoCo(encoder, augmenter, **{name: settings[name] for name in names})


def run(options: Options) -> None:
    pretrain(RECIPE, options, build)
