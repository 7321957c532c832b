"""Build a simulated dataset from a specification (data_specs/NAME.yaml, or a YAML file of your own).

Interrupted, the same command goes on where it stopped; finished, it checks the files and builds what is missing.
Commands that are given --data=NAME build the dataset themselves when they first need it.

    aitom-ssl simulate --data=sim_demo
    aitom-ssl simulate --data=sim_snr005 --limit=200 --splits=train,test --export_aitom=exported
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError
from aitom_ssl.files import refuse_unwritable

SMOKE_LIMIT = 24


@dataclasses.dataclass(frozen=True)
class Options:
    data: str | None = flag(None, "Name of a dataset specification, or the path of a .yaml file.")
    output: str | None = flag(None, "Folder of the dataset. Default: in the cache, under a name of its own.")
    limit: int | None = flag(None, "At most this many samples a split. Default: all.")
    splits: list[str] = flag([], "Which splits, as in train,test. Default: all of them.")
    seed: int | None = flag(None, "Other random numbers than the specification's.")
    workers: int | None = flag(None, "Processes. Default: one for each core.")
    export_aitom: str | None = flag(None, "Also write MRC and JSON files in AITom's layout to this folder/SPLIT.")
    smoke: bool = flag(False, f"Seconds-long run of the same path: at most {SMOKE_LIMIT} samples a split.")


def run(options: Options) -> None:
    from aitom_ssl.data.spec import load_spec, spec_names

    if not options.data:
        raise InputError(f"--data is missing: give one of {', '.join(spec_names())}, or a .yaml file.")
    spec = load_spec(options.data)
    if options.seed is not None:
        spec = spec.with_seed(options.seed)
    limit = options.limit
    if options.smoke:
        limit = SMOKE_LIMIT if limit is None else min(limit, SMOKE_LIMIT)
    splits = list(dict.fromkeys(options.splits)) or list(spec.splits)
    if options.export_aitom and Path(options.export_aitom).exists():
        raise InputError(f"--export_aitom={options.export_aitom} exists: give a new folder.")
    if options.export_aitom:
        refuse_unwritable(options.export_aitom)

    from aitom_ssl.data.build import build

    folder = build(spec, Path(options.output) if options.output else None, splits, limit, options.workers)
    if options.export_aitom:
        from aitom_ssl.data.dataset import Dataset
        from aitom_ssl.data.importers.aitom import export_aitom

        for split in splits:
            print(f"Exported {export_aitom(Dataset(folder, split), Path(options.export_aitom) / split)}")
    print(folder)
