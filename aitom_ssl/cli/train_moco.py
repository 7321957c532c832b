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
import shlex
import sys
from typing import Any

from aitom_ssl.cli.common import flag, parse
from aitom_ssl.errors import InputError

COMMON = {
    "epochs": 200,
    "encoder": "rb3d",
    "dim": 128,
    "queue_size": 128,
    "temperature": 0.2,
    "weight_decay": 1e-4,
    "limit": None,
    "seed": 0,
    "precision": "float32",
    "knn_every": 1,
}
PRESETS = {
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
}
SMOKE = {"data": "sim_demo", "epochs": 2, "batch_size": 8, "queue_size": 16, "limit": 32}


def _either(name: str) -> str:
    return f"Default: {PRESETS['paper'][name]} (paper), {PRESETS['recommended'][name]} (recommended)."


def _default(name: str) -> str:
    return f"Default: {COMMON[name]}."


@dataclasses.dataclass
class Options:
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    output: str | None = flag(None, "Folder of the run. Default: runs/moco-DATA, with a number when that is taken.")
    preset: str | None = flag(None, "Which defaults to take. Default: paper.", choices=("paper", "recommended"))
    epochs: int | None = flag(None, f"Passes over the training split. {_default('epochs')}")
    batch_size: int | None = flag(None, f"Volumes a step. {_either('batch_size')}")
    encoder: str | None = flag(None, f"Architecture, pooled. {_default('encoder')}", choices=("rb3d",))
    head: str | None = flag(
        None,
        f"Projection: v1 linear, v2 two layers, v2_bn with BatchNorm between them. {_either('head')}",
        choices=("v1", "v2", "v2_bn"),
    )
    augmentation: str | None = flag(
        None,
        f"How the two views are drawn: ssl2022 is the paper's. {_either('augmentation')}",
        choices=("ssl2022", "recommended", "none"),
    )
    learning_rate: float | None = flag(None, f"Of Adam. {_either('learning_rate')}")
    weight_decay: float | None = flag(None, f"Decoupled, kernels only. {_default('weight_decay')}")
    momentum: float | None = flag(None, f"Of the key encoder, per step. {_either('momentum')}")
    temperature: float | None = flag(None, f"Of the softmax over the queue. {_default('temperature')}")
    queue_size: int | None = flag(None, f"Keys kept as negatives; any batch size fits. {_default('queue_size')}")
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


_RANGES = {
    "epochs": (lambda v: v >= 1, "1 or more"),
    "batch_size": (lambda v: v >= 2, "2 or more"),
    "learning_rate": (lambda v: v > 0, "above 0"),
    "weight_decay": (lambda v: v >= 0, "0 or more"),
    "momentum": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
    "temperature": (lambda v: v > 0, "above 0"),
    "queue_size": (lambda v: v >= 1, "1 or more"),
    "dim": (lambda v: v >= 1, "1 or more"),
    "limit": (lambda v: v >= 1, "1 or more"),
    "seed": (lambda v: 0 <= v < 2**30, "from 0 to 2**30 - 1"),
    "knn_every": (lambda v: v >= 1, "1 or more"),
}


def given_flags(options: Options) -> dict[str, Any]:
    """The settings that the user gave, each in its range."""
    given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
    for name, (fits, range_) in _RANGES.items():
        if name in given and not fits(given[name]):
            raise InputError(f"--{name}={given[name]} must be {range_}.")
    for name in ("output", "resume", "smoke"):
        given.pop(name, None)
    return given


def new_settings(options: Options) -> dict[str, Any]:
    """All settings of a new run: flags before --smoke before the preset."""
    given = given_flags(options)
    preset = given.get("preset", "paper")
    settings = {"preset": preset, **COMMON, **PRESETS[preset], **(SMOKE if options.smoke else {}), **given}
    if not settings.get("data"):
        raise InputError("--data is missing: give a dataset's name or folder, for example --data=sim_snr005.")
    return settings


def _refuse_changed(stored: dict[str, Any], where: str) -> None:
    """InputError unless a run's stored settings are complete, and would pass as flags."""
    missing = [name for name in ("data", *COMMON, *PRESETS["paper"]) if name not in stored]
    try:
        if missing:
            raise InputError(f"{missing[0]} is missing.")
        flags = [f"--{name}={value}" for name, value in stored.items() if value is not None]
        given_flags(parse("train_moco", sys.modules[__name__], flags))
    except InputError as error:
        raise InputError(f"{where}/config.yaml is damaged: put it back, or start a new run. {error}") from None


def resumed_settings(options: Options, stored: dict[str, Any], where: str) -> dict[str, Any]:
    """The run's own settings, with --epochs if given; InputError when another flag differs from them."""
    _refuse_changed(stored, where)
    given = given_flags(options)
    differing = [name for name, value in given.items() if name != "epochs" and stored.get(name) != value]
    if differing:
        has = ", ".join(f"--{name}={stored.get(name)}" for name in differing)
        says = ", ".join(f"--{name}={given[name]}" for name in differing)
        raise InputError(f"{where} was started with {has}, not {says}: leave that out, or start a new run.")
    return {**stored, "epochs": given.get("epochs", stored["epochs"])}


def run(options: Options) -> None:
    output = options.output
    if options.resume:
        from aitom_ssl.training.run import RunFolder

        folder = RunFolder.open(output) if output else RunFolder.newest("moco", options.data)
        settings = resumed_settings(options, folder.read_config()["settings"], str(folder.path))
        output = str(folder.path)
    else:
        settings = new_settings(options)

    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import checked_splits

    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    checked_splits(settings, output, options.resume)
    import_keras_quietly()

    from aitom_ssl.ssl import MoCo
    from aitom_ssl.training.pretrain import run_pretraining

    def build(encoder: Any, augmenter: Any, settings: dict[str, Any]) -> Any:
        names = ("dim", "queue_size", "momentum", "temperature", "head", "seed")
        return MoCo(encoder, augmenter, **{name: settings[name] for name in names})

    command = shlex.join(["aitom-ssl", "train_moco", *(f"--{n}={v}" for n, v in settings.items() if v is not None)])
    run_pretraining("moco", settings, build, output, options.resume, command)
