"""Fine-tune a pretrained encoder on few labels, and measure it on unseen samples.

    aitom-ssl finetune --pretrained=runs/moco-sim_snr005 --data=sim_snr005 --fraction=0.25
    aitom-ssl finetune --pretrained=runs/mine --data=my_particles/ --labels_per_class=20 --output=runs/classifier
    aitom-ssl finetune --pretrained=none --data=sim_snr005 --fraction=0.25
    aitom-ssl finetune --pretrained=runs/mine --data=my_particles/ --epochs=0

--pretrained is the run of train_moco, train_simclr or train_swav (or of a classifier, whose encoder is taken over);
none starts from random weights, all else equal. A linear probe and kNN on the frozen encoder are measured first, with
the same labels; --epochs=0 stops there, and keeps the probe as the classifier: seconds in place of minutes.

The run's folder gets what train_supervised writes: model.keras (the network that was best on the validation samples),
results.json, report.html, ...; predict, evaluate and export_savedmodel take it.

Which labels are used is drawn by --seed: the same share of each class. --preset=paper is SSL 2022 (which does not say
its momentum). --preset=recommended starts the head as the linear probe, and gives the training volumes half turns,
which leave the missing wedge where it is; --preset=crowded also gives them the surroundings of others, and lets an
untrained network see the centre alone.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli.common import parse
from aitom_ssl.cli.training_flags import start_from, training_flags
from aitom_ssl.errors import InputError
from aitom_ssl.training.settings import ARCHITECTURES, AT_LEAST_0, AT_LEAST_1, RANGES, Recipe

NONE = "none"

RECIPE = Recipe(
    command="finetune",
    methods=("finetune",),
    common={
        "pretrained": None,
        "model": "rb3d",
        "fraction": None,
        "labels_per_class": None,
        "validation_labels": "all",
        "validate_every": 1,
        "epochs": 50,
        "batch_size": 16,
        "weight_decay": 1e-4,
        "momentum": 0.9,
        "class_weights": "none",
        "limit": None,
        "seed": 0,
        "precision": "float32",
    },
    presets={
        "paper": {"optimizer": "sgd", "learning_rate": 5e-4, "head": "random", "augmentation": "none", "field": 1.0},
        "recommended": {
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "head": "probe",
            "augmentation": "recommended,rotation=half_turns",
            "field": 1.0,
        },
        "crowded": {
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "head": "probe",
            "augmentation": "crowded,rotation=half_turns",
            "field": 0.625,
        },
    },
    smoke={"data": "sim_demo", "pretrained": NONE, "epochs": 2, "batch_size": 8, "limit": 48},
    ranges={
        **RANGES,
        "epochs": AT_LEAST_0,
        "labels_per_class": AT_LEAST_1,
        "validate_every": AT_LEAST_1,
        "fraction": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    },
    renewable=(),
)
_flag = training_flags(RECIPE, folder="finetune")


@dataclasses.dataclass
class Options:
    data: str | None = _flag("data")
    pretrained: str | None = _flag("pretrained", "Folder of a pretrained run; none for random weights.")
    model: str | None = _flag("model", "Network of --pretrained=none, pooled; else the run's own.", ARCHITECTURES)
    field: float | None = _flag(
        "field",
        "With --pretrained=none, the share of each side, about the centre, that the network sees; else the run's own.",
    )
    output: str | None = _flag("output")
    preset: str | None = _flag("preset")
    fraction: float | None = _flag("fraction", "Share of the training labels of each class to use. Default: all.")
    labels_per_class: int | None = _flag("labels_per_class", "Training labels of each class to use, instead.")
    validation_labels: str | None = _flag(
        "validation_labels",
        "Labels that choose the network: all of the validation split's, as in SSL 2022, or the same share of them as "
        "in training, as when labels are few.",
        ("all", "alike"),
    )
    validate_every: int | None = _flag(
        "validate_every", "Epochs between looks at those: where labels are few, a look takes longer than an epoch."
    )
    epochs: int | None = _flag("epochs", "Passes over the labelled samples; 0 keeps the linear probe.")
    batch_size: int | None = _flag("batch_size")
    optimizer: str | None = _flag("optimizer", "Method of descent.", ("sgd", "adam"))
    learning_rate: float | None = _flag("learning_rate", "Of the first step; falls to 0 along a cosine.")
    weight_decay: float | None = _flag("weight_decay")
    momentum: float | None = _flag("momentum", "Of sgd.")
    head: str | None = _flag("head", "How the last layer starts: as the linear probe, or random.", ("probe", "random"))
    augmentation: str | None = _flag("augmentation")
    class_weights: str | None = _flag(
        "class_weights", "balanced gives every class the same say, however rare it is.", ("none", "balanced")
    )
    limit: int | None = _flag("limit")
    seed: int | None = _flag("seed", "Of the labels, weights, order and augmentation.")
    precision: str | None = _flag("precision")
    resume: bool = _flag("resume")
    smoke: bool = _flag("smoke")


def run(options: Options) -> None:
    settings, output = RECIPE.asked(options, parse)
    if settings["pretrained"] is None:
        raise InputError(
            "--pretrained is missing: give a run's folder, for example --pretrained=runs/moco-sim_snr005, or none."
        )
    if None not in (settings["fraction"], settings["labels_per_class"]):
        raise InputError(
            f"--fraction={settings['fraction']:g} and --labels_per_class={settings['labels_per_class']} both say how "
            "many labels to use: give one of them."
        )
    if settings["epochs"] == 0 and settings["head"] != "probe":
        raise InputError(f"--epochs=0 keeps the head it starts with, and --head={settings['head']}: give --head=probe.")
    start_from("pretrained", None if settings["pretrained"] == NONE else settings["pretrained"], options, settings)

    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import asked_labels, checked_splits

    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    asked_labels(checked_splits(settings, output, options.resume), settings)
    import_keras_quietly()

    from aitom_ssl.training.finetuning import run_finetuning

    run_finetuning(settings, output, options.resume, RECIPE.command_line(settings))

