"""Pretrain an encoder on subtomograms without labels (MoCo), then measure what its features are worth.

    aitom-ssl train_moco --data=sim_snr005
    aitom-ssl train_moco --data=my_particles/ --preset=recommended --output=runs/mine
    aitom-ssl train_moco --resume --output=runs/mine

The run's folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints, model.keras (the encoder) and
report.html. With labels in the data, a linear probe and kNN on frozen features are compared with the untrained encoder.

--preset=paper is SSL 2022; --preset=recommended is what worked better in a pilot: full 3-D rotation and added noise,
BatchNorm in the head, larger batches and learning rate, a quicker key encoder.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from aitom_ssl.cli.common import flag, parse
from aitom_ssl.training.settings import ARCHITECTURES, AUGMENTATIONS, Recipe

RECIPE = Recipe(
    command="train_moco",
    methods=("moco",),
    common={
        "epochs": 200,
        "encoder": "rb3d",
        "dim": 128,
        "queue_size": 128,
        "temperature": 0.2,
        "weight_decay": 1e-4,
        "symmetric": False,
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
            "augmentation": "ssl2022",
        },
        "recommended": {
            "batch_size": 32,
            "learning_rate": 3e-4,
            "momentum": 0.99,
            "head": "v2_bn",
            "augmentation": "recommended",
        },
    },
    smoke={"data": "sim_demo", "epochs": 2, "batch_size": 8, "queue_size": 16, "limit": 32},
)
_default = RECIPE.default


@dataclasses.dataclass
class Options:
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    output: str | None = flag(None, "Folder of the run. Default: runs/moco-DATA, with a number when that is taken.")
    preset: str | None = flag(None, "Which defaults to take. Default: paper.", choices=tuple(RECIPE.presets))
    epochs: int | None = flag(None, f"Passes over the training split. {_default('epochs')}")
    batch_size: int | None = flag(None, f"Volumes a step. {_default('batch_size')}")
    encoder: str | None = flag(None, f"Architecture, pooled. {_default('encoder')}", choices=ARCHITECTURES)
    head: str | None = flag(
        None,
        f"Projection: v1 linear, v2 two layers, v2_bn with BatchNorm between them. {_default('head')}",
        choices=("v1", "v2", "v2_bn"),
    )
    augmentation: str | None = flag(
        None,
        f"How the two views are drawn: ssl2022 is the paper's. {_default('augmentation')}",
        choices=AUGMENTATIONS,
    )
    learning_rate: float | None = flag(None, f"Of Adam. {_default('learning_rate')}")
    weight_decay: float | None = flag(None, f"Decoupled, kernels only. {_default('weight_decay')}")
    momentum: float | None = flag(None, f"Of the key encoder, per step. {_default('momentum')}")
    temperature: float | None = flag(None, f"Of the softmax over the queue. {_default('temperature')}")
    queue_size: int | None = flag(None, f"Keys kept as negatives; any batch size fits. {_default('queue_size')}")
    symmetric: bool | None = flag(
        None, f"Each view is query and key in turn: twice the work a step. {_default('symmetric')}"
    )
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
    checked_splits(settings, output, options.resume)
    import_keras_quietly()

    from aitom_ssl.ssl import MoCo
    from aitom_ssl.training.pretrain import run_pretraining

    def build(encoder: Any, augmenter: Any, settings: dict[str, Any]) -> Any:
        names = ("dim", "queue_size", "momentum", "temperature", "head", "symmetric", "seed")
        return MoCo(encoder, augmenter, **{name: settings[name] for name in names})

    run_pretraining("moco", settings, build, output, options.resume, RECIPE.command_line(settings))
