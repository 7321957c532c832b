"""Measure trained COS-Nets on classes that they have never seen: accuracy of n-way episodes, and Dice of their masks.

    aitom-ssl evaluate_oneshot --run=runs/cosnet-cosnet_snr05 --output=evaluation
    aitom-ssl evaluate_oneshot --run=runs/full,runs/no_duse,runs/no_decoder --ways=2,4,6 --output=ablation
    aitom-ssl evaluate_oneshot --run=runs/mine --data=my_particles/ --shots=5 --crf --output=five_shots
    aitom-ssl evaluate_oneshot --run=runs/mine --align --episodes=200 --ways=2,4 --output=aligned

Prints tables as those of Zhou 2020: accuracy by data, ways and variant of the network with 95% intervals over episodes,
and Dice of each class, before and with --crf after the conditional random field. Runs of one variant on the same data
are averaged, with their standard deviation. Classes that a run was trained on are left out, by name. --align turns each
target to lie as each support does before they are compared, which takes about 0.1 s a pair. The output folder gets
results.json and report.html; an evaluation in it is replaced.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from aitom_ssl.cli.common import flag, flag_words
from aitom_ssl.errors import InputError
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.settings import command_line


@dataclasses.dataclass
class Options:
    run: list[str] = flag([], "Folders of finished runs of train_cosnet, with commas.")
    data: str | None = flag(None, "Dataset to measure all of them on. Default: what each run was trained on.")
    output: str | None = flag(None, "Folder of the results.")
    ways: list[str] = flag(
        ["2", "4", "6"], "Classes of an episode, with commas; numbers above what there is are left out."
    )
    shots: int = flag(1, "Support samples of a class.")
    targets: int = flag(1, "Target samples of a class in an episode.")
    episodes: int = flag(2000, "Episodes of each number of ways.")
    split: str = flag("test", "Which samples.", choices=("train", "validation", "test"))
    seen: bool = flag(False, "Measure on the classes that the run was trained on, instead of on the others.")
    crf: bool = flag(False, "Also refine the masks with the conditional random field.")
    align: bool = flag(False, "Turn each target to lie as each support does before comparing them. Slow.")
    tilt_max: float | None = flag(
        None, "With --align: largest tilt either way, in degrees. Default: as simulated, 60 for other data."
    )
    limit: int | None = flag(None, "At most this many samples of the split. Default: all.")
    seed: int = flag(0, "Of the episodes.")
    precision: str | None = flag(None, "What to compute in. Default: as each run was trained.", choices=PRECISIONS)
    ignore_mismatch: bool = flag(False, "Measure on data of another voxel size or contrast too.")


def run(options: Options) -> None:
    if not options.run:
        raise InputError("--run is missing: give the folder of a run of train_cosnet, for example --run=runs/mine.")
    if options.output is None:
        raise InputError("--output is missing: give a folder for the results, for example --output=evaluation.")
    for name in ("shots", "targets", "episodes", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}={value} must be 1 or more.")
    if not 0 <= options.seed < 2**30:
        raise InputError(f"--seed={options.seed} must be from 0 to 2**30 - 1.")
    if options.tilt_max is not None and not 0 < options.tilt_max <= 90:
        raise InputError(f"--tilt_max={options.tilt_max:g}: expected degrees, above 0 and up to 90.")
    if options.tilt_max is not None and not options.align:
        raise InputError(f"--tilt_max={options.tilt_max:g} is for --align: leave it out, or add that.")
    ways = _ways(options.ways)

    from aitom_ssl.training.quiet import import_keras_quietly

    import_keras_quietly()

    from aitom_ssl.oneshot.runs import checked_runs, evaluate_runs
    from aitom_ssl.oneshot.tables import tables_text

    refine = _refiner if options.crf else None
    if options.crf:
        from aitom_ssl.oneshot.crf import pydensecrf

        pydensecrf()
    where = (options.split, options.seen, options.limit)
    requests = checked_runs(options.run, options.data, options.output, *where)

    names = ("shots", "targets", "episodes", "seed", "precision", "ignore_mismatch")
    results = evaluate_runs(
        requests,
        options.output,
        ways,
        refine=refine,
        align=functools.partial(_aligner, options.tilt_max) if options.align else None,
        command=_command(options),
        **{name: getattr(options, name) for name in names},
    )
    print(f"\n{tables_text(results, ways)}\n\nreport  {options.output}/report.html")


def _refiner(run: str) -> Callable[[Any, Any], Any]:
    """The CRF, with the parameters that tune_crf found for that run, else the published ones."""
    from aitom_ssl.oneshot.crf import choose_field, refine_mask

    parameters = choose_field(run, True)
    return lambda volume, probability: refine_mask(volume, probability, parameters)


def _aligner(tilt_max: float | None, data: str) -> Callable[[Any, Any, Any], Any]:
    """Turns targets of that dataset, whose missing wedges all lie the same way."""
    from aitom_ssl.discovery.alignment import brought_to
    from aitom_ssl.discovery.discover import largest_tilt, simulation_of

    return functools.partial(brought_to, wedge=largest_tilt(tilt_max, simulation_of(data)))


def _command(options: Options) -> str:
    """What to type to get these tables again."""
    given = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) not in (field.default, None)
    }
    return command_line("evaluate_oneshot", {name: flag_words(value) for name, value in given.items()})


def _ways(words: list[str]) -> list[int]:
    try:
        ways = sorted({int(word) for word in words})
    except ValueError:
        ways = [0]
    if ways[0] < 2:
        raise InputError(f"--ways={','.join(words)} must be whole numbers of 2 or more, for example --ways=2,4,6.")
    return ways
