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
a smaller --epsilon (0.03) or more --freeze_steps may help.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from aitom_ssl.cli.common import flag, parse
from aitom_ssl.errors import InputError
from aitom_ssl.training.settings import ARCHITECTURES, AUGMENTATIONS, RANGES, Recipe

_AT_LEAST_0 = (lambda v: v >= 0, "0 or more")

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
        "epsilon": (lambda v: v > 0, "above 0"),
        "iterations": (lambda v: v >= 1, "1 or more"),
        "queue_size": _AT_LEAST_0,
        "queue_start": _AT_LEAST_0,
        "freeze_steps": _AT_LEAST_0,
        "small_crops": _AT_LEAST_0,
        "small_size": (lambda v: v >= 8, "8 or more"),
    },
)
_default = RECIPE.default


@dataclasses.dataclass
class Options:
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    output: str | None = flag(None, "Folder of the run. Default: runs/swav-DATA, with a number when that is taken.")
    preset: str | None = flag(None, "Which defaults to take. Default: paper.", choices=tuple(RECIPE.presets))
    epochs: int | None = flag(None, f"Passes over the training split. {_default('epochs')}")
    batch_size: int | None = flag(None, f"Volumes a step. {_default('batch_size')}")
    encoder: str | None = flag(None, f"Architecture, pooled. {_default('encoder')}", choices=ARCHITECTURES)
    head: str | None = flag(
        None,
        f"Projection: v2_bn two layers with BatchNorm between them, swav the published one (the same, 2,048 wide), v2 "
        f"without BatchNorm, v1 linear. {_default('head')}",
        choices=("swav", "v2_bn", "v2", "v1"),
    )
    prototypes: int | None = flag(
        None, f"Cluster centres, a few for each class that may be there. {_default('prototypes')}"
    )
    epsilon: float | None = flag(None, f"Of Sinkhorn: smaller makes sharper codes. {_default('epsilon')}")
    iterations: int | None = flag(None, f"Of Sinkhorn. {_default('iterations')}")
    queue_size: int | None = flag(
        None, f"Embeddings of earlier batches that are balanced with a batch; 0: none. {_default('queue_size')}"
    )
    queue_start: int | None = flag(None, f"Step at which the queue begins to fill. {_default('queue_start')}")
    freeze_steps: int | None = flag(None, f"Steps before the prototypes may move. {_default('freeze_steps')}")
    small_crops: int | None = flag(
        None, f"Small views of each volume beside the two, predicted from but not coded. {_default('small_crops')}"
    )
    small_size: int | None = flag(None, f"Side of the small views, voxels. {_default('small_size')}")
    augmentation: str | None = flag(
        None,
        f"How the views are drawn: ssl2022 is the paper's. {_default('augmentation')}",
        choices=AUGMENTATIONS,
    )
    learning_rate: float | None = flag(None, f"Of Adam. {_default('learning_rate')}")
    weight_decay: float | None = flag(None, f"Decoupled, kernels only. {_default('weight_decay')}")
    temperature: float | None = flag(None, f"Of the softmax over the prototypes. {_default('temperature')}")
    dim: int | None = flag(None, f"Length of an embedding. {_default('dim')}")
    limit: int | None = flag(None, "At most this many samples of each split. Default: all.")
    seed: int | None = flag(None, f"Of weights, order and augmentation. {_default('seed')}")
    precision: str | None = flag(
        None,
        f"bfloat16 is faster where the hardware has it. {_default('precision')}",
        choices=("float32", "mixed_bfloat16"),
    )
    knn_every: int | None = flag(None, f"Epochs between kNN measurements. {_default('knn_every')}")
    resume: bool = flag(
        False,
        "Go on with the run in --output, or the last one; its settings are kept, only --epochs may be given anew.",
    )
    smoke: bool = flag(False, "The same in seconds: 2 epochs of 32 samples of sim_demo, unless other flags say so.")


def run(options: Options) -> None:
    settings, output = RECIPE.asked(options, parse)

    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import checked_splits

    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    splits = checked_splits(settings, output, options.resume)
    side, small = splits["train"].size, settings["small_size"]
    if settings["small_crops"] and small >= side:
        raise InputError(f"--small_size={small} must be below the {side} voxels of {settings['data']}.")
    import_keras_quietly()

    from aitom_ssl import models
    from aitom_ssl.ssl import SwAV
    from aitom_ssl.training.pretrain import run_pretraining

    def encoder_of(size: int) -> Any:
        return models.get(settings["encoder"])(input_shape=(size,) * 3 + (1,), include_top=False, pooling="avg")

    if settings["small_crops"]:
        features, fewer = (encoder_of(size).output_shape[1] for size in (side, small))
        if features != fewer:
            raise InputError(
                f"--encoder={settings['encoder']} gives {features} features at {side}^3 and {fewer} at {small}^3: "
                "small crops need as many. Take another --small_size or --encoder."
            )

    def build(encoder: Any, augmenter: Any, settings: dict[str, Any]) -> Any:
        names = ("dim", "prototypes", "epsilon", "iterations", "temperature", "head", "queue_size", "queue_start")
        chosen = {name: settings[name] for name in (*names, "freeze_steps", "small_crops", "seed")}
        return SwAV(encoder, augmenter, **chosen, small_encoder=encoder_of(small) if chosen["small_crops"] else None)

    run_pretraining("swav", settings, build, output, options.resume, RECIPE.command_line(settings))
