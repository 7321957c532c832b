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
support vector machine: no epochs, and only --data, --limit, --seed and --output matter to it.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli.common import flag, parse
from aitom_ssl.errors import InputError
from aitom_ssl.training.settings import ARCHITECTURES, AUGMENTATIONS, Recipe

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
_default = RECIPE.default


@dataclasses.dataclass
class Options:
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    model: str | None = flag(None, f"Network, or baseline. {_default('model')}", choices=MODELS)
    output: str | None = flag(None, "Folder of the run. Default: runs/MODEL-DATA, with a number when that is taken.")
    preset: str | None = flag(None, "Which defaults to take. Default: xu2017.", choices=tuple(RECIPE.presets))
    epochs: int | None = flag(None, f"Passes over the training samples. {_default('epochs')}")
    batch_size: int | None = flag(None, f"Volumes a step. {_default('batch_size')}")
    learning_rate: float | None = flag(None, f"Of SGD at the first step. {_default('learning_rate')}")
    decay: float | None = flag(
        None, f"The learning rate of step t is divided by 1 + decay * t. {_default('decay')}"
    )
    momentum: float | None = flag(None, f"Nesterov's. {_default('momentum')}")
    class_weights: str | None = flag(
        None,
        f"balanced gives every class the same say, however rare it is. {_default('class_weights')}",
        choices=("none", "balanced"),
    )
    augmentation: str | None = flag(
        None,
        "How training volumes are changed at each step: ssl2022 crops, turns about z and shifts; recommended turns "
        f"them anyhow and adds noise. {_default('augmentation')}",
        choices=AUGMENTATIONS,
    )
    pooling: str | None = flag(
        None,
        "none is the published network; avg averages its last feature maps to 2x2x2, with no fully connected hidden "
        f"layers: far fewer weights. {_default('pooling')}",
        choices=("none", "avg"),
    )
    limit: int | None = flag(None, "At most this many samples of each split. Default: all.")
    seed: int | None = flag(None, f"Of weights, order, dropout and augmentation. {_default('seed')}")
    precision: str | None = flag(
        None,
        f"bfloat16 is faster where the hardware has it. {_default('precision')}",
        choices=("float32", "mixed_bfloat16"),
    )
    resume: bool = flag(
        False,
        "Go on with the run in --output, or the last one; its settings are kept, only --epochs may be given anew.",
    )
    smoke: bool = flag(False, "The same in seconds: 2 epochs of 48 samples of sim_demo, unless other flags say so.")


def run(options: Options) -> None:
    settings, output = RECIPE.asked(options, parse)
    command = RECIPE.command_line(settings)
    baseline = settings["model"] == RIF_SVM
    if baseline and options.resume:
        raise InputError("rif_svm has no epochs to go on with: leave --resume out, and start a new run.")

    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import checked_splits, labelled_splits

    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    splits = checked_splits(settings, output, options.resume)
    labelled_splits(splits, settings["seed"], settings["batch_size"])
    import_keras_quietly()

    if baseline:
        from aitom_ssl.discovery.rif_svm import run_rif_svm

        run_rif_svm(settings, output, command)
    else:
        from aitom_ssl.training.supervised import run_supervised

        run_supervised(settings, output, options.resume, command)
