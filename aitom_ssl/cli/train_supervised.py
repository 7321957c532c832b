"""Train a classifier on labelled subtomograms, and measure it on unseen ones.

    aitom-ssl train_supervised --model=inception3d --data=sim_snr005
    aitom-ssl train_supervised --model=rb3d --preset=che2018 --data=my_particles/ --output=runs/mine
    aitom-ssl train_supervised --resume --output=runs/mine
    aitom-ssl train_supervised --model=rif_svm --data=sim_snr005

The run's folder gets config.yaml, metrics.csv, TensorBoard events, checkpoints, model.keras (the network that was best
on the validation split), results.json (its metrics on the test split) and report.html. Samples without a label are left
out; without a validation split a fifth of the training samples is held out.

Presets: xu2017 is Xu 2017, section 3.2. che2018 is AITom's code for the networks of Che 2018: as Xu 2017, with half the
learning rate and a tenth of the decay. --model=rif_svm is the baseline of Xu 2017, rotation-invariant features and a
support vector machine: no epochs, and only --data, --limit, --seed, --class_weights and --output matter to it.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli.common import parse
from aitom_ssl.cli.training_flags import training_flags
from aitom_ssl.errors import InputError
from aitom_ssl.training.settings import ARCHITECTURES, Recipe

RIF_SVM = "rif_svm"
MODELS = (*ARCHITECTURES, RIF_SVM)

RECIPE = Recipe(
    command="train_supervised",
    methods=MODELS,
    common={
        "model": "inception3d",
        "pooling": "none",
        "epochs": 20,
        "batch_size": 64,
        "momentum": 0.9,
        "class_weights": "none",
        "augmentation": "none",
        "limit": None,
        "seed": 0,
        "precision": "float32",
    },
    presets={
        "xu2017": {"learning_rate": 0.01, "decay": 1e-6},
        "che2018": {"learning_rate": 0.005, "decay": 1e-7},
    },
    smoke={"data": "sim_demo", "epochs": 2, "batch_size": 8, "limit": 48},
)
_flag = training_flags(RECIPE, folder="MODEL")


@dataclasses.dataclass
class Options:
    data: str | None = _flag("data")
    model: str | None = _flag("model", "Network, or baseline.", MODELS)
    output: str | None = _flag("output")
    preset: str | None = _flag("preset")
    epochs: int | None = _flag("epochs")
    batch_size: int | None = _flag("batch_size")
    learning_rate: float | None = _flag("learning_rate", "Of SGD at the first step.")
    decay: float | None = _flag("decay", "The learning rate of step t is divided by 1 + decay * t.")
    momentum: float | None = _flag("momentum", "Nesterov's.")
    class_weights: str | None = _flag(
        "class_weights",
        "balanced gives every class the same say, however rare it is.",
        ("none", "balanced"),
    )
    augmentation: str | None = _flag(
        "augmentation",
        "How training volumes are changed at each step: ssl2022 crops, turns about z and shifts; recommended turns "
        "them anyhow and adds noise.",
    )
    pooling: str | None = _flag(
        "pooling",
        "none is the published network; avg averages its last feature maps to 2x2x2, with no fully connected hidden "
        "layers: far fewer weights.",
        ("none", "avg"),
    )
    limit: int | None = _flag("limit")
    seed: int | None = _flag("seed", "Of weights, order, dropout and augmentation.")
    precision: str | None = _flag("precision")
    resume: bool = _flag("resume")
    smoke: bool = _flag("smoke")


def run(options: Options) -> None:
    settings, output = RECIPE.asked(options, parse)
    command = RECIPE.command_line(settings)
    baseline = settings["model"] == RIF_SVM
    if baseline and options.resume:
        raise InputError("rif_svm has no epochs to go on with: leave --resume out, and start a new run.")

    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import checked_splits, labelled_splits

    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    batch_size = 1 if baseline else settings["batch_size"]
    splits = checked_splits({**settings, "batch_size": batch_size}, output, options.resume)
    labelled_splits(splits, settings["seed"], batch_size)
    import_keras_quietly()

    if baseline:
        from aitom_ssl.discovery.rif_svm import run_rif_svm

        run_rif_svm(settings, output, command)
    else:
        from aitom_ssl.training.supervised import run_supervised

        run_supervised(settings, output, options.resume, command)
