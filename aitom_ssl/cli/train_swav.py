"""Pretrain an encoder on subtomograms without labels (SwAV), then measure what its features are worth.

    aitom-ssl train_swav --data=sim_snr005 --preset=recommended
    aitom-ssl train_swav --data=my_particles/ --preset=recommended --prototypes=128 --output=runs/mine
    aitom-ssl train_swav --resume --output=runs/mine

The run's folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints, model.keras (the encoder) and
report.html. With labels in the data, a linear probe and kNN on frozen features are compared with the untrained encoder.

--preset=paper is SSL 2022, which takes SwAV's own settings; optimizer, batches and epochs are those it gives for MoCo,
as SwAV's LARC is for batches of hundreds, and the queue starts after SwAV's 15 epochs, of 3,000 volumes in 16s.
--preset=recommended is for batches of tens and 10 to 50 classes: 64 prototypes in place of 3,000, a queue of four times
as many embeddings, full 3-D rotation and added noise. A loss that stays at ln(prototypes) means that codes say nothing:
a smaller --epsilon (0.03) or more --freeze_steps may help. --preset=crowded is for particles that are small in their
box, among neighbours: the encoder sees the centre alone (--field), and every view gets the surroundings of another
volume, so that it is not by its neighbours that a particle is known again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aitom_ssl.cli.training_flags import pretrain, training_flags
from aitom_ssl.errors import InputError
from aitom_ssl.training.settings import ABOVE_0, AT_LEAST_0, AT_LEAST_1, RANGES, Recipe

RECIPE = Recipe(
    command="train_swav",
    methods=("swav",),
    common={
        "epochs": 200,
        "encoder": "rb3d",
        "dim": 128,
        "epsilon": 0.05,
        "iterations": 3,
        "temperature": 0.1,
        "small_crops": 0,
        "small_size": 16,
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
            "head": "swav",
            "prototypes": 3000,
            "queue_size": 3840,
            "queue_start": 15 * (3000 // 16),
            "freeze_steps": 313,
            "augmentation": "ssl2022",
            "field": 1.0,
        },
        "recommended": {
            "batch_size": 32,
            "learning_rate": 3e-4,
            "weight_decay": 1e-4,
            "head": "v2_bn",
            "prototypes": 64,
            "queue_size": 256,
            "queue_start": 500,
            "freeze_steps": 100,
            "augmentation": "recommended",
            "field": 1.0,
        },
        "crowded": {
            "batch_size": 64,
            "learning_rate": 1e-3,
            "weight_decay": 1e-4,
            "head": "v2_bn",
            "prototypes": 64,
            "queue_size": 256,
            "queue_start": 500,
            "freeze_steps": 20,
            "augmentation": "crowded",
            "field": 0.625,
        },
    },
    smoke={
        "data": "sim_demo",
        "epochs": 2,
        "batch_size": 8,
        "prototypes": 8,
        "queue_size": 16,
        "queue_start": 2,
        "freeze_steps": 2,
        "limit": 32,
    },
    ranges={
        **RANGES,
        "prototypes": (lambda v: v >= 2, "2 or more"),
        "epsilon": ABOVE_0,
        "iterations": AT_LEAST_1,
        "queue_size": AT_LEAST_0,
        "queue_start": AT_LEAST_0,
        "freeze_steps": AT_LEAST_0,
        "small_crops": AT_LEAST_0,
        "small_size": (lambda v: v >= 8, "8 or more"),
    },
)
_flag = training_flags(RECIPE, folder="swav")


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
        "head",
        "Projection: v2_bn two layers with BatchNorm between them, swav the published one (the same, 2,048 wide), v2 "
        "without BatchNorm, v1 linear.",
        ("swav", "v2_bn", "v2", "v1"),
    )
    prototypes: int | None = _flag("prototypes", "Cluster centres, a few for each class that may be there.")
    epsilon: float | None = _flag("epsilon", "Of Sinkhorn: smaller makes sharper codes.")
    iterations: int | None = _flag("iterations", "Of Sinkhorn.")
    queue_size: int | None = _flag(
        "queue_size", "Embeddings of earlier batches that are balanced with a batch; 0: none."
    )
    queue_start: int | None = _flag("queue_start", "Step at which the queue begins to fill.")
    freeze_steps: int | None = _flag("freeze_steps", "Steps before the prototypes may move.")
    small_crops: int | None = _flag(
        "small_crops", "Small views of each volume beside the two, predicted from but not coded."
    )
    small_size: int | None = _flag("small_size", "Side of the small views, voxels.")
    augmentation: str | None = _flag("augmentation")
    views: str | None = _flag("views")
    learning_rate: float | None = _flag("learning_rate")
    weight_decay: float | None = _flag("weight_decay")
    temperature: float | None = _flag("temperature", "Of the softmax over the prototypes.")
    dim: int | None = _flag("dim")
    limit: int | None = _flag("limit")
    seed: int | None = _flag("seed")
    precision: str | None = _flag("precision")
    knn_every: int | None = _flag("knn_every")
    resume: bool = _flag("resume")
    smoke: bool = _flag("smoke")


def check(settings: Mapping[str, Any], splits: Mapping[str, Any]) -> None:
    """InputError for small crops that are not small."""
    side, small = splits["train"].size, settings["small_size"]
    if settings["small_crops"] and small >= side:
        raise InputError(f"--small_size={small} must be below the {side} voxels of {settings['data']}.")


def build(encoder: Any, augmenter: Any, settings: Mapping[str, Any]) -> Any:
    """The method, untrained; InputError for an encoder that small crops do not fit."""
    from aitom_ssl import models
    from aitom_ssl.ssl import SwAV

    small_encoder = None
    if settings["small_crops"]:
        side, small = encoder.input_shape[1], settings["small_size"]
        shape = (small,) * 3 + (1,)
        small_encoder = models.get(settings["encoder"])(input_shape=shape, include_top=False, pooling="avg")
        features, fewer = encoder.output_shape[1], small_encoder.output_shape[1]
        if features != fewer:
            raise InputError(
                f"--encoder={settings['encoder']} gives {features} features at {side}^3 and {fewer} at {small}^3: "
                "small crops need as many. Take another --small_size or --encoder."
            )
    names = ("dim", "prototypes", "epsilon", "iterations", "temperature", "head", "queue_size", "queue_start")
    chosen = {name: settings[name] for name in (*names, "freeze_steps", "small_crops", "seed")}
    return SwAV(encoder, augmenter, **chosen, small_encoder=small_encoder)


def run(options: Options) -> None:
    pretrain(RECIPE, options, build, check)
