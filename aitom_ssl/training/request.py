"""What was asked for, checked before TensorFlow is loaded: a mistake is answered at once and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aitom_ssl.data import Dataset, load, prepare, steps_per_epoch
from aitom_ssl.data.shards import read_header
from aitom_ssl.errors import InputError
from aitom_ssl.training.run import RunFolder


def checked_splits(settings: Mapping[str, Any], output: str | None, resume: bool) -> dict[str, Dataset]:
    """Every split of the data of a run that can start, or go on, in `output`; the data are simulated where needed.

    settings: data, limit (or None), batch_size, epochs. Raises InputError for an output that cannot be taken, data that
    are missing, damaged, too few for a batch or without a training split, and for a resumed run with other data or
    with fewer epochs than it has finished.
    """
    if resume:
        run = RunFolder.open(output)
        if run.finished_epochs() > settings["epochs"]:
            raise InputError(f"{run.path} has finished {run.finished_epochs()} epochs already: --epochs must be more.")
    elif output is not None:
        RunFolder.refuse(output)
    data, limit = settings["data"], settings["limit"]
    header = read_header(prepare(data, limit))
    if "train" not in header["splits"]:
        raise InputError(f"{data} has no split 'train' (it has {', '.join(header['splits'])}): pretraining needs one.")
    splits = {split: load(data, split, limit) for split in header["splits"]}
    steps_per_epoch(splits["train"], settings["batch_size"])
    if resume and (before := run.read_config().get("dataset")) != (now := identity(splits)):
        raise InputError(
            f"The data have changed since {run.path} was started (then {before}, now {now}): start a new run."
        )
    return splits


def identity(splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """What tells a run's data from others: name, fingerprint, and the number of samples in each split."""
    header = read_header(next(iter(splits.values())).folder)
    return {
        "name": header["name"],
        "fingerprint": header["fingerprint"],
        "samples": {split: len(dataset) for split, dataset in splits.items()},
    }
