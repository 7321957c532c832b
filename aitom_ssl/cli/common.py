"""What every command shares: flags from a dataclass, one line an error, exit status 0, 2 or 130.

A command module has a docstring (its help), a dataclass `Options` whose fields are made with `flag`, and
`run(options)`, which makes one library call. It imports nothing heavy at the top: `--help` and a typo answer at once.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib
import math
import os
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from aitom_ssl.errors import InputError, near
from aitom_ssl.files import is_disk_full

COMMANDS = {
    "train_moco": "pretrain an encoder without labels (MoCo)",
    "train_simclr": "pretrain an encoder without labels (SimCLR)",
    "train_swav": "pretrain an encoder without labels (SwAV)",
    "finetune": "a classifier from a pretrained encoder and few labels",
    "semi_supervised_study": "does pretraining pay? methods, labels and seeds in one table",
    "active_learning": "train, ask for the labels that help most (of you, or of a dataset), train again",
    "active_learning_study": "does it pay to choose what to label? strategies and seeds in one table",
    "train_supervised": "train a classifier on labelled subtomograms",
    "train_cosnet": "train COS-Net: classes and masks from one example a class",
    "evaluate_oneshot": "measure COS-Net on classes that it has never seen",
    "evaluate": "measure a trained classifier on labelled subtomograms",
    "predict": "classify subtomograms: a dataset, a folder of MRC files, or a STAR file",
    "segment": "masks and volumes of subtomograms, with a trained COS-Net",
    "classify_oneshot": "classify and segment subtomograms by one example a class, with a trained COS-Net",
    "tune_crf": "find the parameters of the CRF that make a COS-Net's masks best",
    "embed": "features of subtomograms: pictures, clusters, TensorBoard's projector",
    "discover": "structures that nobody labelled: clusters of features, averages, resolution",
    "reproduce_discovery": "Xu 2017, section 3.3: is a structure found that no training class holds?",
    "explain": "show where a trained classifier looks (Grad-CAM, Respond-CAM)",
    "export_savedmodel": "write a trained model as a SavedModel, for TensorFlow Serving or AITom",
    "import_legacy": "turn a Keras HDF5 file of AITom's networks into a run of ours",
    "compare_legacy": "run a Keras HDF5 file and our twin of it on the same data",
    "reproduce_xu2017": "Table 1 of Xu 2017: Inception3D, DSRF3D and RIF-SVM over noise and tilt range",
    "simulate": "build a simulated dataset, or export it in AITom's layout",
    "simulate_tomogram": "simulate a crowded tomogram with its labels, and cut subtomograms with masks out of it",
    "import_particles": "turn MRC subtomograms, AITom folders or a tomogram with coordinates into a dataset",
    "pick_particles": "find particles in a tomogram without a template (difference of Gaussians)",
    "fetch_structures": "download PDB entries into the cache",
    "check_env": "print versions, devices and folders; useful in a bug report",
}


def flag(default: Any, help: str, choices: Sequence[str] | None = None) -> Any:
    """A dataclass field that becomes an absl flag of the field's name."""
    metadata = {"help": help, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


EMPTY = "none"  # an empty list, as its flag takes it


def flag_words(value: Any) -> str:
    """`value` as its flag takes it: of a list its parts with commas, "none" of an empty one."""
    if isinstance(value, list):
        return ",".join(map(flag_words, value)) or EMPTY
    return f"{value:g}" if isinstance(value, float) else str(value)


def preset_default(presets: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """For a flag's help: `Default: 5.`, or `Default: 5 (cpu); 50 (paper).` where the presets differ."""
    by_preset = {preset: flag_words(values[name]) for preset, values in presets.items()}
    if len(set(by_preset.values())) == 1:
        return f"Default: {next(iter(by_preset.values()))}."
    return f"Default: {'; '.join(f'{words} ({preset})' for preset, words in by_preset.items())}."


_MENDING = {
    errno.EACCES: "change its permissions, or choose another",
    errno.EPERM: "change its permissions, or choose another",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path, a part of it is a file",
    errno.EISDIR: "give a file, or another name",
    errno.EEXIST: "choose another name",
}


class _WholeNumber(flags.IntegerParser):
    def convert(self, argument: Any) -> int:
        try:
            return super().convert(argument)
        except (ValueError, TypeError):
            raise ValueError("expected a whole number.") from None


class _Number(flags.FloatParser):
    """Finite: NaN passes many a range check, and no flag means anything at infinity."""

    def convert(self, argument: Any) -> float:
        try:
            value = super().convert(argument)
        except (ValueError, TypeError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError("expected a number.")
        return value


class _YesOrNo(flags.BooleanParser):
    def parse(self, argument: Any) -> bool:
        try:
            return super().parse(argument)
        except (ValueError, TypeError):
            raise ValueError("expected true or false.") from None


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def _define(values: flags.FlagValues, field: dataclasses.Field, hint: Any) -> None:
    default = _default(field)
    kinds = [t for t in typing.get_args(hint) if t is not type(None)] if _is_union(hint) else [hint]
    kind = kinds[0]
    text = field.metadata["help"]
    if field.metadata["choices"]:
        flags.DEFINE_enum(field.name, default, list(field.metadata["choices"]), text, flag_values=values)
    elif kind is bool:
        flag_ = flags.BooleanFlag(field.name, default, text)
        flag_.parser = _YesOrNo()
        flags.DEFINE_flag(flag_, flag_values=values)
    elif kind is int:
        flags.DEFINE(_WholeNumber(), field.name, default, text, values, flags.ArgumentSerializer())
    elif kind is float:
        flags.DEFINE(_Number(), field.name, default, text, values, flags.ArgumentSerializer())
    elif typing.get_origin(kind) is list:
        flags.DEFINE_list(field.name, default, text, flag_values=values)
    else:
        flags.DEFINE_string(field.name, default, text, flag_values=values)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _help(name: str, module: types.ModuleType, fields: Sequence[dataclasses.Field]) -> str:
    lines = [f"aitom-ssl {name}  (the same as bin/{name})", "", (module.__doc__ or "").strip(), "", "Flags:"]
    for field in fields:
        default = _default(field)
        shown = "" if default is None or default == [] else f" (default: {default})"
        choices = f" One of: {', '.join(field.metadata['choices'])}." if field.metadata["choices"] else ""
        lines.append(f"  --{field.name}{shown}")
        lines += textwrap.wrap(field.metadata["help"] + choices, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def parse(name: str, module: types.ModuleType, arguments: Sequence[str]) -> Any:
    """Flags of `module.Options` from `arguments`; None when help was asked for and printed."""
    hints = typing.get_type_hints(module.Options)
    fields = dataclasses.fields(module.Options)
    if any(a in ("--help", "-h", "-help", "--helpfull") for a in arguments):
        print(_help(name, module, fields))
        return None
    values = flags.FlagValues()
    for field in fields:
        _define(values, field, hints[field.name])
    try:
        rest = values([name, *arguments])[1:]
    except flags.Error as error:
        message = " ".join(str(error).split()).replace(" ?", "?")
        stop = "" if message.endswith((".", "?")) else "."
        raise InputError(f"{message}{stop} See `aitom-ssl {name} --help`.") from None
    if rest:
        raise InputError(f"Unexpected argument {rest[0]!r}: a flag is --name=value. See `aitom-ssl {name} --help`.")
    for field in fields:
        if values[field.name].present and values[field.name].value in ("", []):
            raise InputError(f"--{field.name}= is empty: give a value or leave it out. See `aitom-ssl {name} --help`.")
    return module.Options(**{field.name: values[field.name].value for field in fields})


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: aitom-ssl NAME [flags]     (aitom-ssl NAME --help lists the flags)", "", *rows])


def main(name: str, arguments: Sequence[str]) -> int:
    """Run one command; the exit status. A user's mistake is one line on stderr and 2, Ctrl-C is 130."""
    if name not in COMMANDS:
        print(f"aitom-ssl: no command {name!r}.{near(name, list(COMMANDS))}\n{_usage()}", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        module = importlib.import_module(f"aitom_ssl.cli.{name}")
        options = parse(name, module, arguments)
        if options is not None:
            module.run(options)
        sys.stdout.flush()
        return 0
    except InputError as error:
        message = str(error)
    except BrokenPipeError:
        # Whoever read what is printed has gone, as `| head` does; the interpreter must not try once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as error:
        print(f"\naitom-ssl {name}: interrupted. {error}".rstrip(), file=sys.stderr)
        return 130
    except OSError as error:
        if is_disk_full(error):
            where = f" ({error.filename})" if error.filename else ""
            message = f"The disk is full{where}: free some space and run the same command again."
        elif error.filename is not None:
            message = f"{error.strerror}: {error.filename}: {_MENDING.get(error.errno, 'check it')}."
        else:
            raise
    print(f"aitom-ssl {name}: {message}", file=sys.stderr)
    return 2


def console() -> typing.NoReturn:
    """Entry point of `aitom-ssl`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_usage())
        raise SystemExit(0 if arguments else 2)
    raise SystemExit(main(arguments[0], arguments[1:]))
