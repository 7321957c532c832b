"""Who answers a query of active learning: the interface, and the oracle that reads the dataset's own labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.files import write_json

SKIP, JUNK = "skip", "junk"


class Query(NamedTuple):
    """What a cycle asks: k samples, the most wanted first."""

    cycle: int  # from 1 on
    indices: np.ndarray  # (k,) positions in the training split: a sample's lasting name
    scores: np.ndarray  # (k,)
    guesses: np.ndarray  # (k,) class the model would say, -1 where there is no model yet
    confidences: np.ndarray  # (k,) its probability, nan where there is none


class Answers(NamedTuple):
    """What an oracle said. Samples of the query that stand nowhere here stay in the pool, as skipped ones do."""

    labels: dict[int, int]  # index -> class
    skipped: tuple[int, ...]  # stay in the pool
    junk: tuple[int, ...]  # leave the pool for good
    waiting: str = ""  # not empty: what the person must do before the loop can go on


class Oracle:
    """Answers queries."""

    def ask(self, query: Query, dataset: Dataset, class_names: Sequence[str], folder: Path) -> Answers:
        """Answers to `query`.

        dataset: the whole training split, which the query's indices count in. folder: this cycle's own, which survives
        restarts: asking again with the same query goes on where it stood.
        Raises InputError for a query that does not fit the dataset, or where `folder` holds another one.
        """
        raise NotImplementedError


class SimulatedOracle(Oracle):
    """Answers every query at once with the dataset's labels, for experiments."""

    def ask(self, query: Query, dataset: Dataset, class_names: Sequence[str], folder: Path) -> Answers:
        check_query(query, dataset, class_names)
        indices = np.asarray(query.indices, dtype=np.int64)
        labels = dataset.labels[indices]
        if (labels < 0).any():
            raise InputError(
                f"Sample {indices[labels < 0][0]} of {dataset.name} has no label to answer with: ask a person, with "
                "--oracle=files or --oracle=browser."
            )
        return Answers({int(i): int(label) for i, label in zip(indices, labels, strict=True)}, (), ())


def check_query(query: Query, dataset: Dataset, class_names: Sequence[str]) -> None:
    """InputError unless the query's arrays belong together and to the dataset, without repeats."""
    indices = np.asarray(query.indices)
    count = len(indices)
    if any(np.shape(values) != (count,) for values in query[1:]):
        shapes = ", ".join(str(np.shape(values)) for values in query[1:])
        raise InputError(f"A query's indices, scores, guesses and confidences have shapes {shapes}: expected one.")
    if count == 0:
        raise InputError("The query is empty: ask for one sample or more.")
    if indices.min() < 0 or indices.max() >= len(dataset):
        raise InputError(
            f"Sample {indices[(indices < 0) | (indices >= len(dataset))][0]} is asked for, and "
            f"{dataset.name} has {len(dataset)}: expected 0 to {len(dataset) - 1}."
        )
    if len(np.unique(indices)) != count:
        values, counts = np.unique(indices, return_counts=True)
        raise InputError(f"Sample {values[counts > 1][0]} is asked for twice in one query.")
    guesses = np.asarray(query.guesses)
    if guesses.min() < -1 or guesses.max() >= len(class_names):
        raise InputError(f"A guess is class {guesses.max()}: expected -1 (none) to {len(class_names) - 1}.")


def keep_query(folder: Path, oracle: str, query: Query, dataset: Dataset, class_names: Sequence[str]) -> None:
    """Write into `folder` what is asked there; InputError where it holds another question already.

    oracle: the name of who is asked. Answers to one query must never be taken for answers to another.
    """
    check_query(query, dataset, class_names)
    asked = {
        "oracle": oracle,
        "dataset": dataset.name,
        "samples": len(dataset),
        "cycle": int(query.cycle),
        "class_names": list(class_names),
        "indices": [int(index) for index in query.indices],
    }
    path = folder / "query.json"
    if not path.exists():
        write_json(path, asked)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name, value in asked.items() if found[name] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}): move {folder} away.") from None
    if differing:
        raise InputError(
            f"{folder} holds the answers to another query (its {' and '.join(differing)} differ): go on as it was "
            "begun, or move that folder away to ask anew."
        )
