"""Who is labelled, who is not, how many may be asked for: the state of a training split, cycle by cycle. NumPy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.active.oracle import Answers, Query
from aitom_ssl.data import Dataset
from aitom_ssl.data.header import read_header
from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import write_csv, write_json

# The cycle of labels that the dataset came with.
GIVEN = 0
# Which settings of a run are options of which strategy.
OPTIONS = {
    "ema": (
        *("regularization", "alpha", "ramp", "mean_init"),
        *("semi_supervised", "distance", "deviation", "class_balanced"),
    ),
    "mc_dropout": ("passes",),
    "bald": ("passes",),
}


# === How many ===


def amount(name: str, value: float, samples: int) -> int:
    """`value` as a number of samples: up to 1 it is a share of `samples`, rounded, from 2 on it is that number.

    Raises InputError, calling it --NAME, for anything between, a share that comes to none, and more than `samples`.
    """
    if 0 < value <= 1:
        count = int(value * samples + 0.5)
    elif value >= 2 and float(value).is_integer():
        count = int(value)
    else:
        raise InputError(f"--{name}={value:g}: expected a share, above 0 and at most 1, or a whole number from 2 on.")
    if not 1 <= count <= samples:
        what = f"is {count:,} samples" if count != value else "asks for more"
        raise InputError(f"--{name}={value:g} {what}, and the pool has {samples:,}: expected 1 to {samples:,}.")
    return count


def targets(samples: int, initial: float, step: float, final: float) -> list[int]:
    """How many samples are to be labelled by the end of each cycle: `initial`, then `step` more, until `final`.

    Each is an `amount` of `samples`. The last step is as short as it must be. Raises InputError as `amount` does, and
    where `final` is less than `initial`.
    """
    first, most = amount("initial", initial, samples), amount("final", final, samples)
    amount("step", step, samples)
    if most < first:
        raise InputError(f"--final={final:g} is {most:,} samples, fewer than the {first:,} of --initial={initial:g}.")
    counts, number = [first], 1
    while counts[-1] < most:
        # Shares of all, not sums of rounded ones.
        more = number * step * samples if step <= 1 else number * step
        begin = initial * samples if initial <= 1 else initial
        counts.append(min(int(begin + more + 0.5), most))
        number += 1
    return counts


def first_choice(candidates: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count,) of `candidates` (n,), drawn at random by `seed`: the initial labels, whatever the strategy."""
    return np.random.default_rng(seed).permutation(candidates)[:count].astype(np.int64)


# === Who ===


@dataclasses.dataclass(frozen=True)
class Pool:
    """One training split of n samples. An answer makes a new Pool.

    labels: (n,) int64 class, -1 where there is none. cycles: (n,) int64, when it was labelled (GIVEN: the dataset came
    with it; means nothing where there is none). out: (n,) bool, never to be asked for: junk, or nobody could answer.
    checksum: of the split (see `checksum`).
    """

    labels: np.ndarray
    cycles: np.ndarray
    out: np.ndarray
    checksum: str

    @classmethod
    def start(cls, dataset: Dataset, given: np.ndarray | None = None, askable: np.ndarray | None = None) -> Pool:
        """Labelled are those with a `given` (n,) label >= 0; of the rest `askable` (n,) bool may be asked, or all."""
        count = len(dataset)
        labels = np.full(count, -1, np.int64) if given is None else np.asarray(given, np.int64).copy()
        out = np.zeros(count, bool) if askable is None else ~np.asarray(askable, bool)
        return cls(labels, np.full(count, GIVEN, np.int64), out & (labels < 0), checksum(dataset))

    @property
    def labelled(self) -> np.ndarray:
        """Positions in the split, ascending."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def unlabelled(self) -> np.ndarray:
        """Positions of those that may be asked for, ascending."""
        return np.flatnonzero((self.labels < 0) & ~self.out)

    def view(self, dataset: Dataset, class_names: Sequence[str]) -> Dataset:
        """The whole split with the labels that are known so far, and no others."""
        return dataset.relabelled(self.labels, class_names)

    def answered(self, query: Query, answers: Answers, class_names: Sequence[str]) -> Pool:
        """The pool after `answers` to `query`.

        Raises InputError for an answer to what was not asked, outside the classes, or about one that is labelled.
        """
        asked, free = {int(i) for i in query.indices}, set(self.unlabelled.tolist())
        for index in (*answers.labels, *answers.skipped, *answers.junk):
            if index not in asked:
                raise InputError(
                    f"The oracle answered about sample {index}, which cycle {query.cycle} does not ask for."
                )
            if index not in free:
                raise InputError(f"The oracle answered about sample {index}, which is labelled or out already.")
        labels, cycles, out = self.labels.copy(), self.cycles.copy(), self.out.copy()
        for index, label in answers.labels.items():
            if not 0 <= label < len(class_names):
                raise InputError(
                    f"The oracle called sample {index} class {label}: expected 0 to {len(class_names) - 1} "
                    f"({', '.join(class_names)})."
                )
            labels[index], cycles[index] = label, query.cycle
        out[list(answers.junk)] = True
        return dataclasses.replace(self, labels=labels, cycles=cycles, out=out)

    # --- On disk ---

    def save(self, path: str | os.PathLike) -> None:
        """Write to `path`, JSON, whole or not at all."""
        labelled = self.labelled
        about = {
            "checksum": self.checksum,
            "samples": len(self.labels),
            "labelled": labelled.tolist(),
            "classes": self.labels[labelled].tolist(),
            "cycles": self.cycles[labelled].tolist(),
            "out": np.flatnonzero(self.out).tolist(),
        }
        write_json(path, about)

    def write_labels(self, path: str | os.PathLike, dataset: Dataset, class_names: Sequence[str]) -> None:
        """A CSV file of who is labelled, for other programs: sample (position in the split), class and cycle.

        And where each comes from, if `dataset` knows: path (in the folder that was imported), or row (from 0, of the
        file of coordinates) and x, y, z (voxels of the tomogram, from 0, as import_particles takes them).
        """
        who = self.labelled
        columns: dict[str, np.ndarray] = {
            "sample": who,
            "class": np.asarray(class_names, object)[self.labels[who]],
            "cycle": self.cycles[who],
        }
        known = dataset.column_names
        columns |= {name: dataset.columns(name)[who] for name in ("path", "row") if name in known}
        if "position" in known:
            columns |= dict(zip("xyz", dataset.columns("position")[who].T, strict=True))
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        write_csv(path, [dict(zip(columns, row, strict=True)) for row in rows], list(columns))

    @classmethod
    def load(cls, path: str | os.PathLike, dataset: Dataset) -> Pool:
        """What `save` wrote; InputError where it is damaged, or `dataset` is not the split that it was saved of."""
        try:
            about = json.loads(Path(path).read_text(encoding="utf-8"))
            count, labelled = about["samples"], np.asarray(about["labelled"], np.int64)
            labels, cycles, out = np.full(count, -1, np.int64), np.full(count, GIVEN, np.int64), np.zeros(count, bool)
            labels[labelled], cycles[labelled] = about["classes"], about["cycles"]
            out[np.asarray(about["out"], np.int64)] = True
            pool = cls(labels, cycles, out, about["checksum"])
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"{path} is damaged ({reason(error)}): delete it, and that cycle's answers are read anew."
            ) from None
        if (count, pool.checksum) != (len(dataset), checksum(dataset)):
            raise InputError(
                f"The pool has changed since {path} was written: then {count:,} samples, now {len(dataset):,} of "
                f"{dataset.folder}, {dataset.split}. Its labels belong to the samples of then: put those back, or "
                "start a new run."
            )
        return pool


def checksum(dataset: Dataset) -> str:
    """Of the split that `dataset` is of, as its header has it, and of how many samples are taken of it."""
    stated: dict[str, Any] = read_header(dataset.folder)["splits"][dataset.split]
    return hashlib.sha256(json.dumps([stated, len(dataset)], sort_keys=True).encode()).hexdigest()


# === What a run is to do ===


def strategy_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the strategy that `settings` name is made with."""
    return {name: settings[name] for name in OPTIONS.get(settings["strategy"], ())}


class Plan(NamedTuple):
    """A run before its first cycle."""

    pool: Pool
    class_names: tuple[str, ...]
    targets: list[int]  # labels by the end of each cycle
    measured: Dataset | None  # labelled samples that are never trained on; None where there are none
    measured_on: str  # "test" or "validation"; "" where there are none
    notes: tuple[str, ...]  # what the user should know, one sentence each


def make_plan(splits: Mapping[str, Dataset], settings: Mapping[str, Any]) -> Plan:
    """What can be done with the `splits` (with "train" among them).

    settings: oracle ("simulated" or a person's), classes (names with commas, or None), initial, step and final (see
    `targets`). A simulated oracle is asked for the samples that have a label. A person begins with the labels that are
    there, and is asked for the others.

    Raises InputError for classes or numbers that do not go with the data.
    """
    train, simulated = splits["train"], settings["oracle"] == "simulated"
    names = _class_names(splits, settings["classes"], simulated)
    have, notes = train.labels >= 0, []
    if not simulated:
        if have.all():
            raise InputError(
                f"All {len(train):,} training samples of {train.name} have a label: there is nothing to ask for. "
                "Train on them with train_supervised, or compare strategies on them with --oracle=simulated."
            )
        pool = Pool.start(train, given=train.labels)
        if have.any():
            notes.append(f"{have.sum():,} of {len(train):,} training samples have a label already: they are used.")
    elif have.any():
        pool = Pool.start(train, askable=have)
        if not have.all():
            notes.append(
                f"{(~have).sum():,} of {len(train):,} training samples have no label to answer with: left out."
            )
    else:
        raise InputError(
            f"No training sample of {train.name} has a label, and --oracle=simulated answers with labels: ask a "
            "person, with --oracle=files or --oracle=browser."
        )
    samples = int(have.sum()) if simulated else len(train)
    wanted = targets(samples, *(settings[name] for name in ("initial", "step", "final")))
    if wanted[0] < 2:
        raise InputError(f"--initial={settings['initial']:g} is one sample: a network needs two labels or more.")
    for split in ("test", "validation"):
        if split in splits and (splits[split].labels >= 0).any():
            some = splits[split].subset(np.flatnonzero(splits[split].labels >= 0))
            return Plan(pool, names, wanted, some.relabelled(some.labels, names), split, tuple(notes))
    notes.append("neither test nor validation samples have labels: accuracy cannot be measured.")
    return Plan(pool, names, wanted, None, "", tuple(notes))


def _class_names(splits: Mapping[str, Dataset], asked: str | None, simulated: bool) -> tuple[str, ...]:
    train = splits["train"]
    own = tuple(train.class_names)
    names = own if asked is None else tuple(name.strip() for name in asked.split(","))
    if simulated and names != own:
        raise InputError(
            f"--classes={asked} does not go with --oracle=simulated, which answers with the classes of {train.name} "
            f"({', '.join(own)}): leave it out."
        )
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"--classes={asked}: expected names that differ, with a comma between two.")
    labelled = any((dataset.labels >= 0).any() for dataset in splits.values())
    if labelled and names[: len(own)] != own:
        raise InputError(
            f"--classes={asked}: {train.name} has labels of the classes {', '.join(own)}: begin with these, in that "
            "order, and add others behind them."
        )
    if len(names) < 2:
        have = f"the class {names[0]} only" if names else "no classes"
        raise InputError(f"{train.name} has {have}: say which ones there are, for example --classes=ribosome,other.")
    return names
