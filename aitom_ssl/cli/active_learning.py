"""Train a classifier, ask for the labels that would help it most, train again, until there are labels enough.

    aitom-ssl active_learning --data=sim_snr005 --strategy=ema
    aitom-ssl active_learning --data=sim_snr005 --strategy=core_set --preset=recommended --seed=1
    aitom-ssl active_learning --data=my_particles/ --oracle=browser --classes=ribosome,proteasome,other
        --initial=50 --step=50 --final=400 --preset=recommended --output=runs/mine
    aitom-ssl active_learning --resume --output=runs/mine

--oracle=simulated answers with the labels of the dataset, to compare strategies. --oracle=files writes the subtomograms
of a cycle and a table to fill in, and ends; --resume goes on with what has been filled in. --oracle=browser shows them
on a page of this machine. Training samples that have a label already are used from the start.

--initial, --step and --final count labels: up to 1 they are shares of the training samples, from 2 on numbers. The
first ones are drawn by --seed, the same for every strategy. A network is kept as it is after a cycle's last epoch.

The run's folder gets labels.csv (who has which label since which cycle, and where it comes from), cycles.csv (a row a
cycle: accuracy, recall and labels of each class, seconds), cycles/NN/ (which samples were asked for, the answers, the
network), model.keras, results.json and report.html. predict, evaluate and
export_savedmodel take it. Stop at any time and go on with --resume: the numbers are those of never stopping.

--preset=paper is DAL 2023, whose appendix, with the details of training, was not to be had: epochs, batches and rates
are those of VAAL (Sinha 2019), which it compares with. With few labels and few steps the paper's mean model is nearly
random; --preset=recommended starts it as a copy, averages over fewer steps, keeps closer to it (lambda 0.1 in place of
0.03), trains for 2,000 steps at least, and gives the training volumes half turns. It ends with a fifth of the learning
rate: where that falls to nothing the two models of ema come to be the same, and their difference says little about a
sample.
--preset=crowded is for particles that are small in their box, among neighbours, see train_moco.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.active import NAMES
from aitom_ssl.cli.common import parse
from aitom_ssl.cli.training_flags import start_from, training_flags
from aitom_ssl.errors import InputError
from aitom_ssl.training.settings import ABOVE_0, ARCHITECTURES, AT_LEAST_0, RANGES, Recipe

SCRATCH, WARM = "scratch", "warm"
ORACLES = ("simulated", "files", "browser")

RECIPE = Recipe(
    command="active_learning",
    methods=("active_learning",),
    common={
        "strategy": "ema",
        "oracle": "simulated",
        "classes": None,
        "initial": 0.1,
        "step": 0.05,
        "final": 0.4,
        "model": "resnet18_3d",
        "start": SCRATCH,
        "semi_supervised": False,
        "distance": "kl",
        "deviation": "higher",
        "passes": 50,
        "momentum": 0.9,
        "class_weights": "none",
        "port": 0,
        "limit": None,
        "seed": 0,
        "precision": "float32",
    },
    presets={
        "paper": {
            "epochs": 100,
            "steps": 0,
            "batch_size": 128,
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "final_rate": 0.0,
            "weight_decay": 5e-4,
            "augmentation": "none",
            "field": 1.0,
            "regularization": 0.03,
            "alpha": 0.999,
            "ramp": False,
            "mean_init": "independent",
            "class_balanced": False,
        },
        "recommended": {
            "epochs": 30,
            "steps": 2000,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "final_rate": 0.2,
            "weight_decay": 1e-4,
            "augmentation": "recommended,rotation=half_turns",
            "field": 1.0,
            "regularization": 0.1,
            "alpha": 0.99,
            "ramp": True,
            "mean_init": "copy",
            "class_balanced": True,
        },
        "crowded": {
            "epochs": 30,
            "steps": 2000,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "final_rate": 0.2,
            "weight_decay": 1e-4,
            "augmentation": "crowded,rotation=half_turns",
            "field": 0.625,
            "regularization": 0.1,
            "alpha": 0.99,
            "ramp": True,
            "mean_init": "copy",
            "class_balanced": True,
        },
    },
    smoke={
        "data": "sim_demo",
        "limit": 48,
        "model": "rb3d",
        "epochs": 2,
        "steps": 0,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "initial": 0.25,
        "step": 0.25,
        "final": 0.5,
    },
    ranges={
        **RANGES,
        "initial": ABOVE_0,
        "step": ABOVE_0,
        "final": ABOVE_0,
        "final_rate": (lambda v: 0 <= v <= 1, "from 0 to 1"),
        "regularization": AT_LEAST_0,
        "alpha": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
        "steps": AT_LEAST_0,
        "passes": (lambda v: v >= 2, "2 or more"),
        "port": (lambda v: 0 <= v <= 65535, "from 0 to 65535"),
    },
    renewable=("final", "port"),
)
_flag = training_flags(RECIPE, folder="active_learning")


@dataclasses.dataclass
class Options:
    data: str | None = _flag("data")
    strategy: str | None = _flag("strategy", "How to choose what to ask for.", NAMES)
    output: str | None = _flag("output")
    preset: str | None = _flag("preset")
    oracle: str | None = _flag("oracle", "Who answers: the dataset's labels, or you.", ORACLES)
    classes: str | None = _flag("classes", "Names of the classes, with commas, where the data do not say. For you.")
    port: int | None = _flag("port", "Of the page of --oracle=browser; 0 takes a free one.")
    initial: float | None = _flag("initial", "Labels in the first cycle.")
    step: float | None = _flag("step", "More labels in every other cycle.")
    final: float | None = _flag("final", "Labels at the end.")
    model: str | None = _flag("model", "Network, pooled.", ARCHITECTURES)
    field: float | None = _flag("field")
    start: str | None = _flag(
        "start",
        "What each cycle's network starts from: scratch, warm (the one before), or the folder of a run of "
        "train_moco, train_simclr, train_swav or a classifier.",
    )
    epochs: int | None = _flag("epochs", "Passes over the labelled samples in each cycle.")
    steps: int | None = _flag("steps", "Steps of each cycle at least, by more epochs where labels are few.")
    batch_size: int | None = _flag("batch_size", "Volumes a step; fewer where fewer have a label.")
    optimizer: str | None = _flag("optimizer", "Method of descent.", ("sgd", "adam"))
    learning_rate: float | None = _flag("learning_rate", "Of a cycle's first step.")
    final_rate: float | None = _flag("final_rate", "Of its last step, as a share of that; between them it is a cosine.")
    weight_decay: float | None = _flag("weight_decay")
    momentum: float | None = _flag("momentum", "Of sgd.")
    augmentation: str | None = _flag("augmentation")
    class_weights: str | None = _flag(
        "class_weights", "balanced gives every class the same say, however rare it is.", ("none", "balanced")
    )
    regularization: float | None = _flag(
        "regularization", "ema: lambda, the weight of the distance to the mean model in the loss."
    )
    alpha: float | None = _flag("alpha", "ema: share of the mean model that stays after each step.")
    ramp: bool | None = _flag("ramp", "ema: a smaller alpha in the first steps.")
    mean_init: str | None = _flag("mean_init", "ema: how the mean model starts.", ("independent", "copy"))
    semi_supervised: bool | None = _flag("semi_supervised", "ema: the distance is made small on unlabelled data too.")
    distance: str | None = _flag("distance", "ema: what selects, between softmaxes or logits.", ("kl", "mse"))
    deviation: str | None = _flag("deviation", "ema: which deviation is asked for.", ("higher", "lower"))
    class_balanced: bool | None = _flag("class_balanced", "ema: the classes that the network guesses take turns.")
    passes: int | None = _flag("passes", "mc_dropout, bald: passes with dropout.")
    limit: int | None = _flag("limit")
    seed: int | None = _flag("seed", "Of the initial labels, weights, order and augmentation.")
    precision: str | None = _flag("precision")
    resume: bool = _flag("resume")
    smoke: bool = _flag("smoke")


def start_run(start: str) -> str | None:
    """The run's folder that --start names, if it names one."""
    return None if start in (SCRATCH, WARM) else start


def run(options: Options) -> None:
    settings, output = RECIPE.asked(options, parse)

    from aitom_ssl.active.pool import OPTIONS, make_plan
    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import checked_splits

    for name in RECIPE.given(options):
        owners = [strategy for strategy, own in OPTIONS.items() if name in own]
        if owners and settings["strategy"] not in owners:
            raise InputError(
                f"--{name} is an option of --strategy={' or '.join(owners)}, and this one is {settings['strategy']}: "
                "leave it out."
            )
    start_from("start", start_run(settings["start"]), options, settings)
    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    make_plan(checked_splits({**settings, "batch_size": 1}, output, options.resume), settings)
    import_keras_quietly()

    from aitom_ssl.active.loop import run_active_learning

    run_active_learning(settings, output, options.resume, RECIPE.command_line(settings))
