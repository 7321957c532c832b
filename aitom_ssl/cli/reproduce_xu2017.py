"""Table 1 of Xu 2017: Inception3D, DSRF3D and RIF-SVM over signal-to-noise ratio and tilt range, beside the paper's.

    aitom-ssl reproduce_xu2017
    aitom-ssl reproduce_xu2017 --snr=0.5,0.05 --tilt=60 --methods=inception3d,rif_svm --output=runs/mine
    aitom-ssl reproduce_xu2017 --resume --output=runs/mine
    aitom-ssl reproduce_xu2017 --preset=paper --precision=mixed_bfloat16

--preset=cpu takes fewer cells and samples: under an hour on two cores. --preset=paper is all of it: 45 runs with the
paper's recipe and number of samples. Data are simulated on first use. Every run has a folder of its own in the table's;
stop at any time and go on with --resume, which may also add cells, methods and seeds. Prints the table, and writes
table.csv (one row a run) and report.html after each run.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aitom_ssl.cli.common import flag, flag_words, preset_default
from aitom_ssl.cli.studies import asked_study
from aitom_ssl.discovery.reproduce_xu2017 import METHODS, NAME, SNRS, TILTS
from aitom_ssl.errors import InputError, near
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.settings import command_line, refuse_changes, refuse_missing

PRESETS = {
    "cpu": {
        "snr": [1000.0, 0.1],
        "tilt": [60],
        "methods": list(METHODS),
        "seeds": 1,
        "train_samples": 4600,
        "validation_samples": 460,
        "test_samples": 2300,
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 0.002,
        "precision": "mixed_bfloat16",
    },
    "paper": {
        "snr": list(SNRS),
        "tilt": list(TILTS),
        "methods": list(METHODS),
        "seeds": 1,
        "train_samples": 9200,
        "validation_samples": 2300,
        "test_samples": 11500,
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 0.01,
        "precision": "float32",
    },
}
SMOKE = {"snr": [1000.0], "tilt": [60], "train_samples": 92, "validation_samples": 46, "test_samples": 46, "epochs": 1}
# What --resume may add to a table: other cells and runs by the same recipe.
ADDED = ("snr", "tilt", "methods", "seeds")
_SAMPLES = {name: value for name, value in PRESETS["paper"].items() if name.endswith("_samples")}
_FEWEST = 46


_default = functools.partial(preset_default, PRESETS)


@dataclasses.dataclass
class Options:
    preset: str | None = flag(None, "Which defaults to take. Default: cpu.", choices=tuple(PRESETS))
    output: str | None = flag(
        None, "Folder of the table. Default: runs/reproduce_xu2017-PRESET, with a number when that is taken."
    )
    snr: list[str] = flag([], f"Signal-to-noise ratios, of 1000, 0.5, 0.1, 0.05 and 0.03. {_default('snr')}")
    tilt: list[str] = flag([], f"Tilt ranges in degrees either way, of 60, 50 and 40. {_default('tilt')}")
    methods: list[str] = flag([], f"Of {', '.join(METHODS)}. {_default('methods')}")
    seeds: int | None = flag(None, f"Networks a cell, from seeds 0, 1, ... {_default('seeds')}")
    train_samples: int | None = flag(None, f"Training samples a cell, 9200 at most. {_default('train_samples')}")
    validation_samples: int | None = flag(
        None, f"They pick the epoch and the SVM's kernel, 2300 at most. {_default('validation_samples')}"
    )
    test_samples: int | None = flag(None, f"Samples that accuracy is of, 11500 at most. {_default('test_samples')}")
    epochs: int | None = flag(None, f"Passes over the training samples. {_default('epochs')}")
    batch_size: int | None = flag(None, f"Volumes a step. {_default('batch_size')}")
    learning_rate: float | None = flag(None, f"Of SGD at the first step. {_default('learning_rate')}")
    precision: str | None = flag(
        None,
        f"bfloat16 is faster where the hardware has it. {_default('precision')}",
        choices=PRECISIONS,
    )
    resume: bool = flag(
        False, "Go on with the table in --output, or the last one; --snr, --tilt, --methods and --seeds add to it."
    )
    smoke: bool = flag(False, "The same in seconds: 1 epoch of 92 samples of one cell, unless other flags say so.")


def _chosen(name: str, given: Sequence[str], allowed: Iterable[Any], convert: Callable[[str], Any]) -> list[Any]:
    """`given` in the order of `allowed`, once each; InputError for anything else."""
    found = []
    for word in given:
        try:
            value = convert(word.strip())
        except ValueError:
            value = None
        if value not in allowed:
            words = list(map(flag_words, allowed))
            raise InputError(f"--{name}={word}: the table has {', '.join(words)}.{near(word, words)}")
        found.append(value)
    return [value for value in allowed if value in found]


def given_flags(options: Options) -> dict[str, Any]:
    """The settings that the user gave, each in its range."""
    given = {name: value for name, value in dataclasses.asdict(options).items() if value not in (None, [])}
    for name in ("output", "resume", "smoke"):
        given.pop(name, None)
    for name, allowed, convert in (("snr", SNRS, float), ("tilt", TILTS, int), ("methods", METHODS, str)):
        if name in given:
            given[name] = _chosen(name, given[name], allowed, convert)
    for name, low in (("seeds", 1), ("epochs", 1), ("batch_size", 2)):
        if name in given and given[name] < low:
            raise InputError(f"--{name}={given[name]} must be {low} or more.")
    if given.get("learning_rate", 1.0) <= 0:
        raise InputError(f"--learning_rate={given['learning_rate']} must be above 0.")
    for name, high in _SAMPLES.items():
        if name in given and not _FEWEST <= given[name] <= high:
            raise InputError(f"--{name}={given[name]} must be from {_FEWEST} (2 a class) to {high} (the paper's).")
    return given


def new_settings(options: Options) -> dict[str, Any]:
    """All settings of a new table: flags before --smoke before the preset."""
    given = given_flags(options)
    preset = given.get("preset", "cpu")
    settings = {"preset": preset, **PRESETS[preset], **(SMOKE if options.smoke else {}), **given}
    if settings["batch_size"] > settings["train_samples"]:
        raise InputError(
            f"--batch_size={settings['batch_size']} is more than --train_samples={settings['train_samples']}: "
            "take a smaller batch."
        )
    return settings


def resumed_settings(options: Options, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table's own settings and what of ADDED is given beyond them; InputError when another flag differs."""
    given = given_flags(options)
    refuse_missing(PRESETS["paper"], stored, where, "table")
    kept = {name: value for name, value in given.items() if name not in ADDED}
    refuse_changes(kept, stored, where, "table", flag_words)
    settings = {**stored, "seeds": max(stored["seeds"], given.get("seeds", 1))}
    for name, allowed in (("snr", SNRS), ("tilt", TILTS), ("methods", METHODS)):
        settings[name] = [value for value in allowed if value in (*stored[name], *given.get(name, []))]
    return settings


def run(options: Options) -> None:
    settings, output = asked_study(NAME, options, new_settings, resumed_settings)
    command = command_line(NAME, {name: flag_words(value) for name, value in settings.items()})

    from aitom_ssl.discovery.reproduce_xu2017 import run_reproduction
    from aitom_ssl.training.quiet import import_keras_quietly

    import_keras_quietly()
    run_reproduction(settings, output, options.resume, command)
