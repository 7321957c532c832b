"""What a training command may be told, and what it comes to: flags over --smoke over a preset, or a run's own settings.

Loads neither Keras nor TensorFlow: a mistake is answered at once.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from aitom_ssl.errors import InputError, near
from aitom_ssl.training.run import RunFolder

# The names of `models.NAMES`, known without Keras.
ARCHITECTURES = ("inception3d", "dsrf3d", "dsrf3dv2", "cb3d", "rb3d", "rb3d_gn", "resnet18_3d")
# The names of `augmentation.PRESETS`, and options of SubtomogramAugmenter.
AUGMENTATIONS = ("ssl2022", "recommended", "crowded", "none")
AUGMENTATION_OPTIONS = (
    "rotation",
    "crop_probability",
    "crop_scale",
    "affine_probability",
    "angle",
    "translation",
    "scale",
    "in_plane",
    "mirror_probability",
    "surroundings",
    "noise",
    "wedge",
    "jitter",
    "standardize",
)

AT_LEAST_1 = (lambda v: v >= 1, "1 or more")
AT_LEAST_0 = (lambda v: v >= 0, "0 or more")
ABOVE_0 = (lambda v: v > 0, "above 0")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": AT_LEAST_1,
    "batch_size": (lambda v: v >= 2, "2 or more"),
    "learning_rate": ABOVE_0,
    "weight_decay": AT_LEAST_0,
    "decay": AT_LEAST_0,
    "momentum": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
    "temperature": ABOVE_0,
    "queue_size": AT_LEAST_1,
    "dim": AT_LEAST_1,
    "limit": AT_LEAST_1,
    "seed": (lambda v: 0 <= v < 2**30, "from 0 to 2**30 - 1"),
    "knn_every": AT_LEAST_1,
    "field": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
}


def command_line(command: str, settings: Mapping[str, Any]) -> str:
    """What to type for `command` with these settings; None stands for a flag that is left out."""
    flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    return shlex.join(["aitom-ssl", command, *flags])


def augmentation_words(words: str) -> tuple[str, dict[str, Any]]:
    """Preset and options of a SubtomogramAugmenter from `recommended` or `recommended,noise=0:1,wedge=60`.

    A range is written `low:high`; `none`, `true` and `false` are what they say. InputError for a name not known.
    """
    preset, *changes = words.split(",")
    if preset not in AUGMENTATIONS:
        hint = near(preset, AUGMENTATIONS)
        raise InputError(f"--augmentation={words}: expected one of {', '.join(AUGMENTATIONS)} first.{hint}")
    options = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in AUGMENTATION_OPTIONS or not value:
            hint = near(name, AUGMENTATION_OPTIONS) or f" Options: {', '.join(AUGMENTATION_OPTIONS)}."
            raise InputError(f"--augmentation={words}: expected option=value, received {change!r}.{hint}")
        parts = [_word(part) for part in value.split(":")]
        options[name] = parts[0] if len(parts) == 1 else tuple(parts)
    return preset, options


def _word(word: str) -> Any:
    named = {"none": None, "true": True, "false": False}
    if word.lower() in named:
        return named[word.lower()]
    try:
        return float(word)
    except ValueError:
        return word


def refuse_changes(
    wanted: Mapping[str, Any],
    stored: Mapping[str, Any],
    where: str,
    kind: str,
    words: Callable[[Any], str] = str,
) -> None:
    """InputError where a setting that is `wanted` is not what the run (or whatever `kind` it is) in `where` has stored.

    words: a value as its flag takes it.
    """
    differing = [name for name, value in wanted.items() if stored.get(name) != value]
    if differing:
        has = ", ".join(f"--{name}={words(stored.get(name))}" for name in differing)
        says = ", ".join(f"--{name}={words(wanted[name])}" for name in differing)
        raise InputError(f"{where} was started with {has}, not {says}: leave that out, or start a new {kind}.")


def refuse_missing(names: Iterable[str], stored: Container[str], where: str, kind: str) -> None:
    """InputError where the config.yaml of the run (or whatever `kind` it is) in `where` lacks a setting of `names`.

    An older version wrote the settings it had: its runs can go on once the user has added what has come since.
    """
    missing = [name for name in names if name not in stored]
    if missing:
        named = ", ".join(missing[:3]) + (", ..." if missing[3:] else "")
        raise InputError(
            f"{where}/config.yaml has no setting {named}: it is damaged, or of an older aitom_ssl. Put it back, add "
            f"what is missing, or start a new {kind}."
        )


def refuse_other_method(config: Mapping[str, Any], methods: Sequence[str], where: str) -> None:
    """InputError where the run in `where`, whose config.yaml is `config`, is none of `methods`."""
    method = config.get("method")
    if isinstance(method, str) and method not in methods:
        raise InputError(f"{where} is a run of {method}, expected {' or '.join(methods)}: name another --output.")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The defaults of one training command. Its flags default to None, but for `resume` and `smoke`.

    command: its name, e.g. "train_moco".
    methods: what its runs' folders begin with, e.g. ("moco",).
    common: defaults whatever the preset.
    presets: name -> defaults; the first is what runs without --preset.
    smoke: what --smoke puts over them.
    ranges: flag -> (fits, what fits); `RANGES` unless the command has flags of its own.
    renewable: flags that --resume takes anew.
    """

    command: str
    methods: tuple[str, ...]
    common: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]]
    smoke: Mapping[str, Any]
    ranges: Mapping[str, tuple[Callable[[Any], bool], str]] = dataclasses.field(default_factory=lambda: RANGES)
    renewable: tuple[str, ...] = ("epochs",)

    def default(self, name: str) -> str:
        """For a flag's help: `Default: 16 (paper), 32 (recommended).`, or `Default: 200.`; of None nothing."""
        if name in self.common:
            return "" if self.common[name] is None else f"Default: {self.common[name]}."
        return f"Default: {', '.join(f'{values[name]} ({preset})' for preset, values in self.presets.items())}."

    def given(self, options: Any) -> dict[str, Any]:
        """The settings that the user gave; InputError when one is out of its range."""
        given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
        for name, (fits, range_) in self.ranges.items():
            if name in given and not fits(given[name]):
                raise InputError(f"--{name}={given[name]} must be {range_}.")
        if "augmentation" in given:
            augmentation_words(given["augmentation"])
        for name in ("output", "resume", "smoke"):
            given.pop(name, None)
        return given

    def new(self, options: Any) -> dict[str, Any]:
        """All settings of a new run: flags before --smoke before the preset."""
        given = self.given(options)
        preset = given.get("preset", next(iter(self.presets)))
        smoke = self.smoke if options.smoke else {}
        settings = {"preset": preset, **self.common, **self.presets[preset], **smoke, **given}
        if not settings.get("data"):
            raise InputError("--data is missing: give a dataset's name or folder, for example --data=sim_snr005.")
        return settings

    def resumed(self, options: Any, stored: Mapping[str, Any], where: str, parse: Callable[..., Any]) -> dict[str, Any]:
        """The run's own settings, with what is `renewable` if given; InputError when another flag differs from them.

        `stored`: the settings in the config.yaml of `where`, refused unless they are complete and would pass as flags
        (`parse`: `cli.common.parse`, which this room cannot import).
        """
        self._refuse_damaged(options, stored, where, parse)
        given = self.given(options)
        anew = {name: given.pop(name) for name in self.renewable if name in given}
        refuse_changes(given, stored, where, "run")
        return {**stored, **anew}

    def _refuse_damaged(self, options: Any, stored: Mapping[str, Any], where: str, parse: Callable[..., Any]) -> None:
        refuse_missing(("data", *self.common, *next(iter(self.presets.values()))), stored, where, "run")
        try:
            flags = [f"--{name}={value}" for name, value in stored.items() if value is not None]
            self.given(parse(self.command, sys.modules[type(options).__module__], flags))
        except InputError as error:
            raise InputError(f"{where}/config.yaml is damaged: put it back, or start a new run. {error}") from None

    def asked(self, options: Any, parse: Callable[[str, Any, Sequence[str]], Any]) -> tuple[dict[str, Any], str | None]:
        """Settings and folder of the run that `options` ask for: a new one, or with `resume` one that is there."""
        if not options.resume:
            return self.new(options), options.output
        if options.output:
            folder = RunFolder.open(options.output)
        else:
            folder = RunFolder.newest(*self.methods, data=options.data)
        config = folder.read_config()
        refuse_other_method(config, self.methods, str(folder.path))
        settings = self.resumed(options, config["settings"], str(folder.path), parse)
        return settings, str(folder.path)

    def command_line(self, settings: Mapping[str, Any]) -> str:
        """What to type to get a run with these settings."""
        return command_line(self.command, settings)
