"""Pretrain an encoder on subtomograms without labels (SimCLR), then measure what its features are worth.

    aitom-ssl train_simclr --data=sim_snr005 --preset=recommended
    aitom-ssl train_simclr --data=my_particles/ --encoder=resnet18_3d --batch_size=128 --output=runs/mine
    aitom-ssl train_simclr --resume --output=runs/mine

The run's folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints, model.keras (the encoder) and
report.html. With labels in the data, a linear probe and kNN on frozen features are compared with the untrained encoder.

--preset=paper is SSL 2022, which takes SimCLR's own temperature, head and weight decay; optimizer, batches and epochs
are those it gives for MoCo, as SimCLR's LARS is for batches of thousands. --preset=recommended: full 3-D rotation and
added noise, larger batches (the negatives are the batch) and learning rate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from aitom_ssl.cli.common import flag, parse
from aitom_ssl.training.settings import ARCHITECTURES, AUGMENTATIONS, Recipe

RECIPE = Recipe(
    command="train_simclr",
    methods=("simclr",),
    common={
        "epochs": 200,
        "encoder": "rb3d",
        "head": "simclr",
        "dim": 128,
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
        },
        "recommended": {
            "batch_size": 64,
            "learning_rate": 3e-4,
            "weight_decay": 1e-4,
            "temperature": 0.2,
            "augmentation": "recommended",
        },
    },
    smoke={"data": "sim_demo", "epochs": 2, "batch_size": 8, "limit": 32},
)
_default = RECIPE.default


@dataclasses.dataclass
class Options:
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    output: str | None = flag(None, "Folder of the run. Default: runs/simclr-DATA, with a number when that is taken.")
    preset: str | None = flag(None, "Which defaults to take. Default: paper.", choices=tuple(RECIPE.presets))
    epochs: int | None = flag(None, f"Passes over the training split. {_default('epochs')}")
    batch_size: int | None = flag(None, f"Volumes a step; their views are the negatives. {_default('batch_size')}")
    encoder: str | None = flag(None, f"Architecture, pooled. {_default('encoder')}", choices=ARCHITECTURES)
    head: str | None = flag(
        None,
        f"Projection: simclr the published one (BatchNorm after both layers), v2_bn with BatchNorm between them, v2 "
        f"without, v1 linear. {_default('head')}",
        choices=("simclr", "v2_bn", "v2", "v1"),
    )
    augmentation: str | None = flag(
        None,
        f"How the two views are drawn: ssl2022 is the paper's. {_default('augmentation')}",
        choices=AUGMENTATIONS,
    )
    learning_rate: float | None = flag(None, f"Of Adam. {_default('learning_rate')}")
    weight_decay: float | None = flag(None, f"Decoupled, kernels only. {_default('weight_decay')}")
    temperature: float | None = flag(None, f"Of the softmax over the other views. {_default('temperature')}")
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

    from aitom_ssl.ssl import SimCLR
    from aitom_ssl.training.pretrain import run_pretraining

    def build(encoder: Any, augmenter: Any, settings: dict[str, Any]) -> Any:
        names = ("dim", "temperature", "head", "seed")
        return SimCLR(encoder, augmenter, **{name: settings[name] for name in names})

    run_pretraining("simclr", settings, build, output, options.resume, RECIPE.command_line(settings))
