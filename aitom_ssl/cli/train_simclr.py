"""Pretrain an encoder on subtomograms without labels (SimCLR), then measure what its features are worth.

    aitom-ssl train_simclr --data=sim_snr005 --preset=recommended
    aitom-ssl train_simclr --data=my_particles/ --encoder=resnet18_3d --batch_size=128 --output=runs/mine
    aitom-ssl train_simclr --resume --output=runs/mine

The run's folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints, model.keras (the encoder) and
report.html. With labels in the data, a linear probe and kNN on frozen features are compared with the untrained encoder.

--preset=paper is SSL 2022, which takes SimCLR's own temperature, head and weight decay; optimizer, batches and epochs
are those it gives for MoCo, as SimCLR's LARS is for batches of thousands. --preset=recommended: full 3-D rotation and
added noise, larger batches (the negatives are the batch) and learning rate. --preset=crowded is for particles that are
small in their box, among neighbours: the encoder sees the centre alone (--field), and every view gets the surroundings
of another volume, so that it is not by its neighbours that a particle is known again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aitom_ssl.cli.training_flags import pretrain, training_flags
from aitom_ssl.training.settings import Recipe

RECIPE = Recipe(
    command="train_simclr",
    methods=("simclr",),
    common={
        "epochs": 200,
        "encoder": "rb3d",
        "head": "simclr",
        "dim": 128,
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
            "weight_decay": 1e-6,
            "temperature": 0.1,
            "augmentation": "ssl2022",
            "field": 1.0,
        },
        "recommended": {
            "batch_size": 64,
            "learning_rate": 3e-4,
            "weight_decay": 1e-4,
            "temperature": 0.2,
            "augmentation": "recommended",
            "field": 1.0,
        },
        "crowded": {
            "batch_size": 64,
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "temperature": 0.2,
            "augmentation": "crowded",
            "field": 0.625,
        },
    },
    smoke={"data": "sim_demo", "epochs": 2, "batch_size": 8, "limit": 32},
)
_flag = training_flags(RECIPE, folder="simclr")


@dataclasses.dataclass
class Options:
    data: str | None = _flag("data")
    output: str | None = _flag("output")
    preset: str | None = _flag("preset")
    epochs: int | None = _flag("epochs")
    batch_size: int | None = _flag("batch_size", "Volumes a step; their views are the negatives.")
    encoder: str | None = _flag("encoder")
    field: float | None = _flag("field")
    head: str | None = _flag(
        "head",
        "Projection: simclr the published one (BatchNorm after both layers), v2_bn with BatchNorm between them, v2 "
        "without, v1 linear.",
        ("simclr", "v2_bn", "v2", "v1"),
    )
    augmentation: str | None = _flag("augmentation")
    views: str | None = _flag("views")
    learning_rate: float | None = _flag("learning_rate")
    weight_decay: float | None = _flag("weight_decay")
    temperature: float | None = _flag("temperature", "Of the softmax over the other views.")
    dim: int | None = _flag("dim")
    limit: int | None = _flag("limit")
    seed: int | None = _flag("seed")
    precision: str | None = _flag("precision")
    knn_every: int | None = _flag("knn_every")
    resume: bool = _flag("resume")
    smoke: bool = _flag("smoke")


def build(encoder: Any, augmenter: Any, settings: Mapping[str, Any]) -> Any:
    """The method, untrained."""
    from aitom_ssl.ssl import SimCLR

    names = ("dim", "temperature", "head", "seed")
    return SimCLR(encoder, augmenter, **{name: settings[name] for name in names})


def run(options: Options) -> None:
    pretrain(RECIPE, options, build)
