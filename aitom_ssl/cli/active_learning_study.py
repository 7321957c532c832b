"""Does it pay to choose what to label? Strategies of active_learning beside random, over several seeds.

    aitom-ssl active_learning_study --data=sim_snr005
    aitom-ssl active_learning_study --data=sim50_snr005 --strategies=random,ema --ablations=lambda,distance --seeds=3
    aitom-ssl active_learning_study --data=sim_snr005 --start=runs/simclr-sim_snr005 --initial=100 --step=50 --final=400
    aitom-ssl active_learning_study --resume --output=runs/active_learning_study-sim_snr005 --strategies=hal --seeds=5

All strategies begin with the same labels for the same seed. Prints tables with the accuracy after each cycle, the area
under the learning curve, t-tests of both against random, and seconds a selection; writes table.csv (a row a cell),
curves.csv (a row a cell and cycle) and report.html (with learning curves).

--ablations changes ema in one thing at a time: distance (kl or mse), lambda (0, 0.01, 0.03, 0.1), deviation (asks for
the higher or the lower), semi_supervised (or not), mean_init (an independent mean model, or a copy), class_balanced
(the classes take turns, or not). 10 against 50 classes is the same study on other --data.

--preset=cpu takes about 120 minutes of processor time, so 60 on two cores with two processes of one thread each
(TF_NUM_INTRAOP_THREADS=1). It has few labels, 100 to 300: random weights need about 2,000 steps a cycle, and many more
for the paper's shares of the pool. paper is DAL 2023.

Every cell is a run of active_learning with a folder of its own in the study's; of its networks the last is kept. Stop
at any time and go on with --resume, which may also add strategies, ablations and seeds. Several processes with --resume
share the work.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from aitom_ssl.active import NAMES
from aitom_ssl.active.study_plan import ABLATIONS, with_more
from aitom_ssl.cli import active_learning
from aitom_ssl.cli.common import EMPTY, flag, flag_words, preset_default
from aitom_ssl.cli.studies import asked_study, study_command
from aitom_ssl.cli.training_flags import start_from
from aitom_ssl.errors import InputError, near
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.settings import ARCHITECTURES, refuse_changes, refuse_missing

NAME = "active_learning_study"
RECIPES = tuple(active_learning.RECIPE.presets)
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "recipe": "crowded",
        "strategies": ["random", "ema", "margin", "core_set"],
        "ablations": [],
        "seeds": 3,
        "limit": None,
        "model": "rb3d",
        "start": active_learning.SCRATCH,
        "initial": 100.0,
        "step": 100.0,
        "final": 300.0,
        "epochs": 30,
        "steps": 2000,
        "batch_size": 16,
        "precision": "mixed_bfloat16",
    },
    "paper": {
        "recipe": "paper",
        "strategies": list(NAMES),
        "ablations": list(ABLATIONS),
        "seeds": 3,
        "limit": None,
        "model": "resnet18_3d",
        "start": active_learning.SCRATCH,
        "initial": 0.1,
        "step": 0.05,
        "final": 0.4,
        "epochs": 100,
        "steps": 0,
        "batch_size": 128,
        "precision": "float32",
    },
}
SMOKE = {
    "data": "sim_demo",
    "strategies": ["random", "ema"],
    "ablations": [],
    "seeds": 2,
    "limit": 32,
    "model": "rb3d",
    "initial": 0.25,
    "step": 0.25,
    "final": 0.5,
    "epochs": 1,
    "steps": 0,
    "batch_size": 8,
}
# What --resume may add to a study: other cells by the same recipe.
ADDED = ("strategies", "ablations", "seeds")
# Settings of every cell's run that are flags here.
PASSED = ("data", "limit", "model", "start", "initial", "step", "final", "epochs", "steps", "batch_size", "precision")

_default = functools.partial(preset_default, PRESETS)


@dataclasses.dataclass
class Options:
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    output: str | None = flag(
        None, "Folder of the study. Default: runs/active_learning_study-DATA, with a number when that is taken."
    )
    preset: str | None = flag(None, "Which defaults to take. Default: cpu.", choices=tuple(PRESETS))
    strategies: list[str] = flag([], f"Of {', '.join(NAMES)}. {_default('strategies')}")
    ablations: list[str] = flag([], f"Of {', '.join(ABLATIONS)}; or none. {_default('ablations')}")
    seeds: int | None = flag(None, f"Cells of each kind, from seeds 0, 1, ... {_default('seeds')}")
    recipe: str | None = flag(
        None, f"Preset of active_learning that the cells take. {_default('recipe')}", choices=RECIPES
    )
    model: str | None = flag(None, f"Network, pooled. {_default('model')}", choices=ARCHITECTURES)
    start: str | None = flag(
        None,
        "What each cycle's network starts from: scratch, warm (the one before), or the folder of a run of train_moco, "
        f"train_simclr, train_swav or a classifier, whose network is taken. {_default('start')}",
    )
    initial: float | None = flag(None, f"Labels in the first cycle: a share, or a number. {_default('initial')}")
    step: float | None = flag(None, f"More labels in every other cycle. {_default('step')}")
    final: float | None = flag(None, f"Labels at the end. {_default('final')}")
    epochs: int | None = flag(None, f"Passes over the labelled samples in each cycle. {_default('epochs')}")
    steps: int | None = flag(
        None, f"Steps of each cycle at least, by more epochs where labels are few. {_default('steps')}"
    )
    batch_size: int | None = flag(None, f"Volumes a step; fewer where fewer have a label. {_default('batch_size')}")
    limit: int | None = flag(
        None, f"At most this many samples of each split. Default: {PRESETS['cpu']['limit']} (cpu); all (paper)."
    )
    precision: str | None = flag(
        None, f"bfloat16 is faster where the hardware has it. {_default('precision')}", choices=PRECISIONS
    )
    resume: bool = flag(False, "Go on with the study in --output, or the last one.")
    smoke: bool = flag(False, "The same in about a minute: 32 samples of sim_demo, unless other flags say so.")


def given_flags(options: Options) -> dict[str, Any]:
    """The settings that the user gave, each in its range."""
    given = {name: value for name, value in dataclasses.asdict(options).items() if value not in (None, [])}
    for name in ("output", "resume", "smoke"):
        given.pop(name, None)
    if given.get("ablations") == [EMPTY]:
        given["ablations"] = []
    for flag_name, known in (("strategies", NAMES), ("ablations", ABLATIONS)):
        for word in given.get(flag_name, ()):
            if word not in known:
                raise InputError(
                    f"--{flag_name}={word}: expected some of {', '.join(known)}.{near(word, tuple(known))}"
                )
        if flag_name in given:
            given[flag_name] = [word for word in known if word in given[flag_name]]
    if given.get("seeds", 1) < 1:
        raise InputError(f"--seeds={given['seeds']} must be 1 or more.")
    run_settings({**PRESETS["cpu"], "data": "any", **given})
    return given


def new_settings(options: Options) -> dict[str, Any]:
    """All settings of a new study: flags before --smoke before the preset."""
    given = given_flags(options)
    preset = given.get("preset", "cpu")
    smoke = SMOKE if options.smoke else {}
    settings = {"preset": preset, "smoke": options.smoke, **PRESETS[preset], **smoke, **given}
    if not settings.get("data"):
        raise InputError("--data is missing: give a dataset's name or folder, for example --data=sim_snr005.")
    if "ema" not in settings["strategies"]:
        _refuse_ablations(given)
        settings["ablations"] = []
    return settings


def resumed_settings(options: Options, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The study's own settings with what may be added; InputError when another flag differs from them."""
    given = given_flags(options)
    refuse_missing(("data", "preset", "smoke", "run", *PRESETS["paper"]), stored, where, "study")
    of_run = {f"run.{name}" for name in stored["run"] or ()}
    needed = [f"run.{name}" for name in run_settings({**PRESETS["cpu"], "data": "any"})]
    refuse_missing(needed, of_run, where, "study")
    kept = {name: value for name, value in given.items() if name not in ADDED}
    refuse_changes(kept, stored, where, "study", flag_words)
    settings = with_more(stored, given)
    if "ema" not in settings["strategies"]:
        _refuse_ablations(given)
    return settings


def _refuse_ablations(given: Mapping[str, Any]) -> None:
    if given.get("ablations"):
        words = flag_words(given["ablations"])
        raise InputError(f"--ablations={words} are of ema, which is not among --strategies: add it, or leave them out.")


def run_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of every cell's run, without strategy and seed; InputError for one out of its range."""
    passed = {name: settings[name] for name in PASSED}
    made = active_learning.RECIPE.new(active_learning.Options(preset=settings["recipe"], **passed))
    return {name: value for name, value in made.items() if name not in ("strategy", "seed")}


the_command = functools.partial(study_command, NAME, Options)


def _check_run(asked: Mapping[str, Any]) -> None:
    """InputError for data that no strategy can be measured on, or too few of them."""
    from aitom_ssl.active.pool import make_plan
    from aitom_ssl.training.request import checked_splits

    plan = make_plan(checked_splits({**asked, "batch_size": 1}, None, False), asked)
    if plan.measured is None:
        raise InputError(
            f"Neither test nor validation samples of {asked['data']} have labels: a study needs some to measure on."
        )
    if len(plan.targets) == 1:
        raise InputError(
            f"--final={asked['final']:g} is --initial={asked['initial']:g}: there is nothing to select, give more."
        )


def run(options: Options) -> None:
    from aitom_ssl.training.quiet import import_keras_quietly

    settings, output = asked_study(NAME, options, new_settings, resumed_settings)
    if not options.resume:
        # Kept: what a resumed study adds is made by the recipe of its time.
        settings["run"] = run_settings(settings)
        given = active_learning.Options(model=options.model)
        start_from("start", active_learning.start_run(settings["start"]), given, settings["run"])
        settings["model"] = settings["run"]["model"]
    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    _check_run(settings["run"])
    import_keras_quietly()

    from aitom_ssl.active.study import run_study

    run_study(settings, output, options.resume, the_command)
