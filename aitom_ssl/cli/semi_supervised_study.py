"""Does pretraining pay? MoCo, SimCLR and SwAV beside random weights, read out with few labels, over several seeds.

    aitom-ssl semi_supervised_study --data=sim_snr005
    aitom-ssl semi_supervised_study --data=sim_snr003 --methods=random,moco --fractions=0.25,1 --seeds=3
    aitom-ssl semi_supervised_study --resume --output=runs/semi_supervised_study-sim_snr005 --seeds=8

Every encoder is read out by a linear probe and kNN on frozen features and by fine-tuning, with shares of the training
labels (--fractions) or a number a class (--labels_per_class). Prints a table with means, standard deviations and
t-tests against random weights, and writes table.csv (one row a cell) and report.html (with learning curves).

--preset=cpu (random weights and SimCLR) takes about three hours of processor time, so 90 minutes on two cores with two
processes of one thread each (TF_NUM_INTRAOP_THREADS=1). Both starts are fine-tuned for over 4,000 steps. Under noise
more of either pays: --pretraining_epochs=66, --finetuning_epochs=200. recommended is the same with all methods, longer
training and more cells; paper is SSL 2022 (200 and 50 epochs, 5 seeds). Every run has a folder of its own in the
study's. Stop at any time and go on with --resume, which may also add methods, labels and seeds. Several processes with
--resume share the work. --recipe=recommended is for particles without neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from typing import Any

from aitom_ssl.cli.common import EMPTY, flag, flag_words, preset_default
from aitom_ssl.cli.studies import asked_study, study_command
from aitom_ssl.errors import InputError, near
from aitom_ssl.ssl.semi_supervised_plan import METHODS, RANDOM, with_more
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.settings import ARCHITECTURES, refuse_changes, refuse_missing

NAME = "semi_supervised_study"
RECIPES = ("paper", "recommended", "crowded")
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "recipe": "crowded",
        "methods": ["random", "simclr"],
        "encoder": "rb3d",
        "fractions": [0.25],
        "labels_per_class": [10],
        "seeds": 5,
        "pretraining_seeds": 1,
        "pretraining_epochs": 20,
        "finetuning_epochs": 100,
        "finetuning_steps": 4000,
        "validation_labels": "alike",
        "precision": "mixed_bfloat16",
    },
    "recommended": {
        "recipe": "crowded",
        "methods": list(METHODS),
        "encoder": "rb3d",
        "fractions": [0.1, 0.25, 0.5, 0.75, 1.0],
        "labels_per_class": [5, 10, 25, 50],
        "seeds": 5,
        "pretraining_seeds": 5,
        "pretraining_epochs": 100,
        "finetuning_epochs": 100,
        "finetuning_steps": 4000,
        "validation_labels": "alike",
        "precision": "mixed_bfloat16",
    },
    "paper": {
        "recipe": "paper",
        "methods": list(METHODS),
        "encoder": "rb3d",
        "fractions": [0.25, 0.5, 0.75, 1.0],
        "labels_per_class": [],
        "seeds": 5,
        "pretraining_seeds": 5,
        "pretraining_epochs": 200,
        "finetuning_epochs": 50,
        "finetuning_steps": 0,
        "validation_labels": "all",
        "precision": "float32",
    },
}
SMOKE = {
    "data": "sim_demo",
    "limit": 48,
    "fractions": [0.5],
    "labels_per_class": [],
    "seeds": 2,
    "pretraining_epochs": 1,
    "finetuning_epochs": 1,
    "finetuning_steps": 0,
}
# What --resume may add to a study: other cells by the same recipe.
ADDED = ("methods", "fractions", "labels_per_class", "seeds", "pretraining_seeds")
_STORED = ("data", "preset", "limit", "smoke", "pretraining", "finetuning", *PRESETS["paper"])
_LEAST = {
    "seeds": 1,
    "pretraining_seeds": 1,
    "pretraining_epochs": 1,
    "finetuning_epochs": 0,
    "finetuning_steps": 0,
    "limit": 1,
}


_default = functools.partial(preset_default, PRESETS)


@dataclasses.dataclass
class Options:
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    output: str | None = flag(
        None, "Folder of the study. Default: runs/semi_supervised_study-DATA, with a number when that is taken."
    )
    preset: str | None = flag(None, "Which defaults to take. Default: cpu.", choices=tuple(PRESETS))
    methods: list[str] = flag([], f"Of {', '.join(METHODS)}. {_default('methods')}")
    encoder: str | None = flag(None, f"Architecture, pooled. {_default('encoder')}", choices=ARCHITECTURES)
    recipe: str | None = flag(
        None, f"Preset of train_* and finetune that the runs take. {_default('recipe')}", choices=RECIPES
    )
    fractions: list[str] = flag([], f"Shares of the training labels of each class. {_default('fractions')}")
    labels_per_class: list[str] = flag(
        [], f"Numbers of training labels of each class; none for no such cells. {_default('labels_per_class')}"
    )
    seeds: int | None = flag(None, f"Cells of each kind, from seeds 0, 1, ... {_default('seeds')}")
    pretraining_seeds: int | None = flag(
        None, f"Pretrainings of each method; the cells take turns with them. {_default('pretraining_seeds')}"
    )
    pretraining_epochs: int | None = flag(
        None, f"Passes over the training samples without labels. {_default('pretraining_epochs')}"
    )
    finetuning_epochs: int | None = flag(
        None, f"Passes over the labels; 0 for frozen read-outs alone. {_default('finetuning_epochs')}"
    )
    finetuning_steps: int | None = flag(
        None, f"Steps of fine-tuning at least, where labels are few. {_default('finetuning_steps')}"
    )
    validation_labels: str | None = flag(
        None,
        "Labels that choose the epoch of fine-tuning: all of the validation split's, or as few as in training. "
        f"{_default('validation_labels')}",
        choices=("all", "alike"),
    )
    limit: int | None = flag(None, "At most this many samples of each split. Default: all.")
    precision: str | None = flag(
        None, f"bfloat16 is faster where the hardware has it. {_default('precision')}", choices=PRECISIONS
    )
    resume: bool = flag(False, "Go on with the study in --output, or the last one.")
    smoke: bool = flag(False, "The same in about two minutes: 48 samples of sim_demo, unless other flags say so.")


def given_flags(options: Options) -> dict[str, Any]:
    """The settings that the user gave, each in its range."""
    given = {name: value for name, value in dataclasses.asdict(options).items() if value not in (None, [])}
    for name in ("output", "resume", "smoke"):
        given.pop(name, None)
    for method in given.get("methods", ()):
        if method not in METHODS:
            raise InputError(f"--methods={method}: expected some of {', '.join(METHODS)}.{near(method, METHODS)}")
    for name, kind, fits, range_ in (
        ("fractions", float, lambda v: 0 < v <= 1, "numbers above 0 and at most 1"),
        ("labels_per_class", int, lambda v: v >= 1, "whole numbers of 1 or more"),
    ):
        if name in given:
            given[name] = [] if given[name] == [EMPTY] else _numbers(name, given[name], kind, fits, range_)
    for name, low in _LEAST.items():
        if name in given and given[name] < low:
            raise InputError(f"--{name}={given[name]} must be {low} or more.")
    return given


def _numbers(name: str, words: list[str], kind: Any, fits: Any, range_: str) -> list[Any]:
    try:
        found = sorted({kind(word) for word in words})
    except ValueError:
        found = []
    if not found or not all(map(fits, found)):
        example = flag_words(PRESETS["recommended"][name])
        raise InputError(f"--{name}={','.join(words)}: expected {range_}, for example --{name}={example}.")
    return found


def new_settings(options: Options) -> dict[str, Any]:
    """All settings of a new study: flags before --smoke before the preset."""
    given = given_flags(options)
    preset = given.get("preset", "cpu")
    smoke = SMOKE if options.smoke else {}
    settings = {"preset": preset, "limit": None, "smoke": options.smoke, **PRESETS[preset], **smoke, **given}
    if not settings.get("data"):
        raise InputError("--data is missing: give a dataset's name or folder, for example --data=sim_snr005.")
    if not settings["fractions"] and not settings["labels_per_class"]:
        raise InputError("There is no cell: give --fractions or --labels_per_class.")
    return settings


def resumed_settings(options: Options, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The study's own settings with what may be added; InputError when another flag differs from them."""
    given = given_flags(options)
    refuse_missing(_STORED, stored, where, "study")
    kept = {name: value for name, value in given.items() if name not in ADDED}
    refuse_changes(kept, stored, where, "study", flag_words)
    return with_more(stored, given)


def runs_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`pretraining`, settings by method, and `finetuning`, settings of a cell; without seed, labels and encoder."""
    shared = {name: settings[name] for name in ("data", "limit", "precision", "smoke")}

    def recipe(command: str, **changes: Any) -> dict[str, Any]:
        module = importlib.import_module(f"aitom_ssl.cli.{command}")
        return module.RECIPE.new(module.Options(preset=settings["recipe"], **shared, **changes))

    epochs, encoder = settings["pretraining_epochs"], settings["encoder"]
    methods = [method for method in settings["methods"] if method != RANDOM]
    pretraining = {method: recipe(f"train_{method}", epochs=epochs, encoder=encoder) for method in methods}
    epochs, labels = settings["finetuning_epochs"], settings["validation_labels"]
    finetuning = recipe("finetune", epochs=epochs, model=encoder, validation_labels=labels)
    return {"pretraining": pretraining, "finetuning": finetuning}


the_command = functools.partial(study_command, NAME, Options)


def _check_runs(settings: Mapping[str, Any]) -> None:
    """InputError for data that cannot be trained on, or labels that they do not have."""
    from aitom_ssl.training.request import asked_labels, checked_splits

    for asked in settings["pretraining"].values():
        checked_splits(asked, None, False)
    cell = {**settings["finetuning"], "fraction": None, "labels_per_class": None}
    splits = checked_splits(cell, None, False)
    for name, key in (("fractions", "fraction"), ("labels_per_class", "labels_per_class")):
        for labels in settings[name]:
            asked_labels(splits, {**cell, key: labels})


def run(options: Options) -> None:
    from aitom_ssl.training.quiet import import_keras_quietly

    settings, output = asked_study(NAME, options, new_settings, resumed_settings)
    made = runs_of(settings)
    settings = with_more(settings, made) if options.resume else {**settings, **made}
    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    _check_runs(settings)
    import_keras_quietly()

    from aitom_ssl.ssl.semi_supervised import run_study

    trained = [method for method in METHODS if method != RANDOM]
    builders = {method: importlib.import_module(f"aitom_ssl.cli.train_{method}").build for method in trained}
    run_study(settings, builders, output, options.resume, the_command)
