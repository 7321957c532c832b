"""What the training commands have in common: flags in the same words, and the way from them to a pretraining run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aitom_ssl.cli.common import flag, parse
from aitom_ssl.errors import InputError
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.settings import ARCHITECTURES, AUGMENTATIONS, Recipe

# Followed by the recipe's default.
_TEXTS = {
    "epochs": "Passes over the training samples.",
    "batch_size": "Volumes a step.",
    "encoder": "Architecture, pooled.",
    "learning_rate": "Of Adam.",
    "weight_decay": "Decoupled, kernels only.",
    "dim": "Length of an embedding.",
    "seed": "Of weights, order and augmentation.",
    "precision": "bfloat16 is faster where the hardware has it.",
    "knn_every": "Epochs between kNN measurements.",
    "field": "Share of each side, about the centre, that the network sees: less than 1 where neighbours fill the rest.",
    "augmentation": f"How volumes are changed at each step: {', '.join(AUGMENTATIONS)}, with options of "
    "SubtomogramAugmenter behind commas if wanted (recommended,noise=0:1,wedge=60).",
    "views": "What the two views are drawn from: the same volume, or its two half images (independent noise).",
}
_CHOICES = {
    "encoder": ARCHITECTURES,
    "precision": PRECISIONS,
    "views": ("augmented", "halves"),
}


def training_flags(recipe: Recipe, folder: str) -> Callable[..., Any]:
    """`make(name, text, choices)` gives the field of a command's Options for that flag, with the default in its help.

    recipe: of the command. folder: what its runs' folders begin with, for people. `text` and `choices` may be left out
    where the flag is one that others have too.
    """
    smoke = recipe.smoke
    whole = {
        "data": "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.",
        "output": f"Folder of the run. Default: runs/{folder}-DATA, with a number when that is taken.",
        "preset": f"Which defaults to take. Default: {next(iter(recipe.presets))}.",
        "limit": "At most this many samples of each split. Default: all.",
    }
    switches = {
        "resume": "Go on with the run in --output, or the last one; its settings are kept"
        + "".join(f", only --{name} may be given anew" for name in recipe.renewable)
        + ".",
        "smoke": f"The same in seconds: {smoke['epochs']} epochs of {smoke['limit']} samples of {smoke['data']}, "
        "unless other flags say so.",
    }

    def make(name: str, text: str | None = None, choices: Sequence[str] | None = None) -> Any:
        if name in switches:
            return flag(False, switches[name])
        if name in whole:
            return flag(None, whole[name], tuple(recipe.presets) if name == "preset" else None)
        return flag(None, f"{text or _TEXTS[name]} {recipe.default(name)}".rstrip(), choices or _CHOICES.get(name))

    return make


def pretrain(
    recipe: Recipe,
    options: Any,
    build: Callable[[Any, Any, Mapping[str, Any]], Any],
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], None] = lambda settings, splits: None,
) -> None:
    """The run that `options` of a pretraining command ask for; `build` as in `run_pretraining`.

    A mistake is answered, and missing data are simulated, before TensorFlow is loaded: `check` of (settings, splits)
    raises InputError for what only this command refuses.
    """
    settings, output = recipe.asked(options, parse)

    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import checked_splits

    splits = checked_splits(settings, output, options.resume)
    if settings["views"] == "halves":
        splits["train"].require_halves()
    check(settings, splits)
    import_keras_quietly()

    from aitom_ssl.training.pretrain import run_pretraining

    run_pretraining(recipe.methods[0], settings, build, output, options.resume, recipe.command_line(settings))


def start_from(flag_name: str, run: str | None, options: Any, settings: dict[str, Any]) -> None:
    """Set `model` and `field` of `settings` for a network that begins as the encoder of `run`; None changes nothing.

    InputError where --`flag_name`=`run` holds no encoder, or `options` ask for another network than it has.
    """
    if run is None:
        return
    about = RunFolder.open(run).read_config().get("model")
    found = about.get("architecture") if isinstance(about, dict) else None
    if found not in ARCHITECTURES:
        raise InputError(
            f"--{flag_name}={run} holds no encoder (its model is {found}): expected a run of train_moco, train_simclr, "
            "train_swav or train_supervised."
        )
    if options.model not in (None, found):
        raise InputError(f"--model={options.model}, and --{flag_name}={run} is {found}: leave --model out.")
    if options.field is not None:
        raise InputError(f"--field={options.field:g}, and --{flag_name}={run} has its own: leave --field out.")
    settings["model"], settings["field"] = found, None
