"""What the commands of many runs have in common: a new study or one to go on with, and the command that makes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from aitom_ssl.cli.common import flag_words
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.settings import command_line, refuse_other_method


def asked_study(
    name: str,
    options: Any,
    new_settings: Callable[[Any], dict[str, Any]],
    resumed_settings: Callable[[Any, Mapping[str, Any], str], dict[str, Any]],
) -> tuple[dict[str, Any], str | None]:
    """Settings and folder of the study that `options` of the command `name` ask for; InputError where they cannot be.

    new_settings: of options. resumed_settings: of options, the settings in the study's config.yaml, and its folder.
    """
    if not options.resume:
        settings = new_settings(options)
        if options.output:
            RunFolder.refuse(options.output)
        return settings, options.output
    if options.output:
        folder = RunFolder.open(options.output)
    else:
        folder = RunFolder.newest(name, data=getattr(options, "data", None))
    config = folder.read_config()
    refuse_other_method(config, (name,), str(folder.path))
    return resumed_settings(options, config["settings"], str(folder.path)), str(folder.path)


def study_command(name: str, options: type, settings: Mapping[str, Any]) -> str:
    """What to type to get a study with these settings; `options` is the command's dataclass of flags."""
    flags = {field.name: settings.get(field.name) for field in dataclasses.fields(options)}
    said = {flag: flag_words(value) for flag, value in flags.items() if value is not None and value is not False}
    return command_line(name, said)
