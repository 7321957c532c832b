"""Xu 2017, section 3.3: is a structure found that no training class holds? The leave-one-out test.

    aitom-ssl reproduce_discovery
    aitom-ssl reproduce_discovery --held_out=ribosome_70s --output=runs/mine
    aitom-ssl reproduce_discovery --resume --output=runs/mine --held_out=groel_groes,rna_polymerase
    aitom-ssl reproduce_discovery --preset=paper --precision=mixed_bfloat16

For each class: a network is trained without it, the test samples of all classes go through that network and k-means,
and the cluster with the greatest share of the class is classified and averaged without a reference. The average is
compared with the true structure: recovered where they differ by 70 A or less (FSC 0.5).

--preset=cpu has 6 classes and is meant for 90 minutes on two cores at most; paper has the 22 of Xu 2017. Data are
simulated. Every test has a folder of its own. Stop at any time and go on with --resume, which may also add classes to
hold out and seeds; several processes with --resume (and --workers=1) share the tests. Prints a table, and writes
table.csv (a row a test), structures.png (true and recovered, side by side) and report.html.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from aitom_ssl.cli.common import flag, flag_words, preset_default
from aitom_ssl.cli.studies import asked_study, study_command
from aitom_ssl.environment import usable_cores
from aitom_ssl.errors import InputError, near
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.settings import ARCHITECTURES, refuse_changes, refuse_missing

NAME = "reproduce_discovery"
SIX = ["proteasome_20s", "groel_groes", "ribosome_70s", "beta_galactosidase", "glutamine_synthetase", "rna_polymerase"]
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "classes": SIX,
        "snr": 0.5,
        "tilt_max": 60.0,
        "size": 32,
        "voxel_size": 11.5,
        "model": "inception3d",
        "train_samples": 300,
        "validation_samples": 40,
        "test_samples": 300,
        "epochs": 8,
        "batch_size": 16,
        "learning_rate": 0.002,
        "precision": "mixed_bfloat16",
        "clusters": 40,
        "average_classes": 3,
        "iterations": 5,
        "seeds": 1,
    },
    "paper": {
        "classes": [
            *["proteasome_20s", "proteasome_pa28", "clpp", "hsluv", "groel", "groel_groes", "thermosome", "hsp16_5"],
            *["p97", "ribosome_70s", "ribosome_50s", "ribosome_30s", "apoferritin", "urease", "beta_galactosidase"],
            *["rubisco", "hemoglobin", "glutamine_synthetase", "pyruvate_kinase", "catalase", "atp_synthase"],
            "rna_polymerase",
        ],
        "snr": 0.5,
        "tilt_max": 60.0,
        "size": 40,
        "voxel_size": 9.2,
        "model": "inception3d",
        "train_samples": 400,
        "validation_samples": 100,
        "test_samples": 500,
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 0.01,
        "precision": "float32",
        "clusters": 100,
        "average_classes": 3,
        "iterations": 5,
        "seeds": 1,
    },
}
SMOKE = {
    "classes": ["proteasome_20s", "groel_groes", "ribosome_70s"],
    "held_out": ["ribosome_70s"],
    "size": 24,
    "voxel_size": 15.0,
    "snr": 2.0,
    "train_samples": 16,
    "validation_samples": 4,
    "test_samples": 12,
    "epochs": 1,
    "batch_size": 8,
    "clusters": 2,
    "average_classes": 2,
    "iterations": 1,
}
# What --resume may add to a study: other tests by the same recipe.
ADDED = ("held_out", "seeds")
_LEAST = {
    "train_samples": 2,
    "validation_samples": 1,
    "test_samples": 2,
    "epochs": 1,
    "batch_size": 2,
    "clusters": 1,
    "average_classes": 1,
    "iterations": 1,
    "seeds": 1,
    "workers": 1,
    "size": 16,
}
_default = functools.partial(preset_default, PRESETS)


@dataclasses.dataclass
class Options:
    preset: str | None = flag(None, "Which defaults to take. Default: cpu.", choices=tuple(PRESETS))
    output: str | None = flag(
        None, "Folder of the tests. Default: runs/reproduce_discovery-PRESET, with a number when that is taken."
    )
    classes: list[str] = flag([], "Structures, 3 or more: built-in names. Default: 6 (cpu); the paper's 22 (paper).")
    held_out: list[str] = flag([], "Those of them to leave out, one at a time. Default: all.")
    snr: float | None = flag(None, f"Signal-to-noise ratio. {_default('snr')}")
    tilt_max: float | None = flag(None, f"Tilts go so many degrees either way. {_default('tilt_max')}")
    size: int | None = flag(None, f"Box in voxels, even. {_default('size')}")
    voxel_size: float | None = flag(None, f"In A. {_default('voxel_size')}")
    model: str | None = flag(None, f"Network. {_default('model')}", choices=ARCHITECTURES)
    train_samples: int | None = flag(None, f"Of each class that is trained on. {_default('train_samples')}")
    validation_samples: int | None = flag(
        None, f"Of each such class; they pick the epoch. {_default('validation_samples')}"
    )
    test_samples: int | None = flag(
        None, f"Of each class; they are clustered and averaged. {_default('test_samples')}"
    )
    epochs: int | None = flag(None, f"Passes over the training samples. {_default('epochs')}")
    batch_size: int | None = flag(None, f"Volumes a step. {_default('batch_size')}")
    learning_rate: float | None = flag(None, f"Of SGD at the first step. {_default('learning_rate')}")
    precision: str | None = flag(
        None, f"bfloat16 is faster where the hardware has it. {_default('precision')}", choices=PRECISIONS
    )
    clusters: int | None = flag(None, f"Of k-means. {_default('clusters')}")
    average_classes: int | None = flag(
        None, f"Classes that the cluster is divided into. {_default('average_classes')}"
    )
    iterations: int | None = flag(
        None, f"Of classification, averaging and alignment. {_default('iterations')}"
    )
    seeds: int | None = flag(None, f"Tests of each class, from seeds 0, 1, ... {_default('seeds')}")
    workers: int | None = flag(None, "Processes that align. Default: one a core.")
    resume: bool = flag(False, "Go on with what is in --output, or the last one; --held_out and --seeds add to it.")
    smoke: bool = flag(False, "The same in about a minute: one of 3 classes, few samples, unless other flags say so.")


def given_flags(options: Options) -> dict[str, Any]:
    """The settings that the user gave, each in its range."""
    given = {name: value for name, value in dataclasses.asdict(options).items() if value not in (None, [])}
    for name, least in _LEAST.items():
        if name in given and given[name] < least:
            raise InputError(f"--{name}={given[name]}: expected {least} or more.")
    for name in ("snr", "voxel_size", "learning_rate"):
        if name in given and given[name] <= 0:
            raise InputError(f"--{name}={given[name]:g} must be above 0.")
    if "tilt_max" in given and not 0 < given["tilt_max"] <= 90:
        raise InputError(f"--tilt_max={given['tilt_max']:g}: expected degrees, above 0 and up to 90.")
    if given.get("size", 32) % 2:
        raise InputError(f"--size={given['size']}: expected an even number of voxels.")
    if "classes" in given:
        from aitom_ssl.structures import NAMES

        for name in given["classes"]:
            if name not in NAMES:
                raise InputError(f"--classes={name}: no built-in structure.{near(name, NAMES)}")
        given["classes"] = list(dict.fromkeys(given["classes"]))
        if len(given["classes"]) < 3:
            raise InputError(f"--classes={flag_words(given['classes'])}: expected 3 or more, 2 to train on.")
    for name in ("output", "resume", "smoke", "workers"):
        given.pop(name, None)
    return given


def _checked_held_out(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with `held_out` in the order of `classes`; InputError for one that is none of them."""
    for name in settings["held_out"]:
        if name not in settings["classes"]:
            words = ", ".join(settings["classes"])
            raise InputError(f"--held_out={name} is none of the classes ({words}).{near(name, settings['classes'])}")
    held_out = [name for name in settings["classes"] if name in settings["held_out"]]
    return {**settings, "held_out": held_out}


def new_settings(options: Options) -> dict[str, Any]:
    """All settings of a new study: flags before --smoke before the preset."""
    given = given_flags(options)
    preset = given.get("preset", "cpu")
    settings = {"preset": preset, **PRESETS[preset], **(SMOKE if options.smoke else {}), **given}
    if "held_out" not in given and ("held_out" not in settings or "classes" in given):
        settings["held_out"] = list(settings["classes"])
    trained = settings["train_samples"] * (len(settings["classes"]) - 1)
    if settings["batch_size"] > trained:
        raise InputError(f"--batch_size={settings['batch_size']} and {trained} training samples: take a smaller batch.")
    tested = settings["test_samples"] * len(settings["classes"])
    if settings["clusters"] * 2 * settings["average_classes"] > tested:
        raise InputError(
            f"--clusters={settings['clusters']} of {tested} test samples are too small on average for "
            f"{settings['average_classes']} classes of 2: ask for fewer clusters, or more --test_samples."
        )
    return _checked_held_out(settings)


def resumed_settings(options: Options, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The study's own settings and what of ADDED is given beyond them; InputError when another flag differs."""
    given = given_flags(options)
    refuse_missing(("held_out", *PRESETS["paper"]), stored, where, "study")
    kept = {name: value for name, value in given.items() if name not in ADDED}
    refuse_changes(kept, stored, where, "study", flag_words)
    seeds = max(stored["seeds"], given.get("seeds", 1))
    return _checked_held_out({**stored, "seeds": seeds, "held_out": [*stored["held_out"], *given.get("held_out", [])]})


def run(options: Options) -> None:
    settings, output = asked_study(NAME, options, new_settings, resumed_settings)
    workers = options.workers or usable_cores()

    from aitom_ssl.training.quiet import import_keras_quietly

    import_keras_quietly()

    from aitom_ssl.discovery.reproduce_discovery import run_reproduction
    from aitom_ssl.export.features import NetworkFeatures

    command = study_command(NAME, Options, settings)
    run_reproduction(settings, NetworkFeatures, output, options.resume, workers, command)
