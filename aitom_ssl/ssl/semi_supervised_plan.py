"""Which runs a semi-supervised study has: pretrainings, and cells of the table. Loads no Keras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

RANDOM = "random"
METHODS = {RANDOM: "random weights", "moco": "MoCo", "simclr": "SimCLR", "swav": "SwAV"}


class Pretraining(NamedTuple):
    """One encoder."""

    method: str
    seed: int

    @property
    def folder(self) -> Path:
        return Path("pretraining") / f"{self.method}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Any, ...]:
        return ()

    def __str__(self) -> str:
        return f"pretraining with {METHODS[self.method]}, seed {self.seed}"


class Cell(NamedTuple):
    """One encoder read out with some of the labels."""

    method: str
    labels: float | int  # a share of each class, or a number of each class
    seed: int
    pretraining: Pretraining | None

    @property
    def folder(self) -> Path:
        labels = self.labels
        words = f"{labels}each" if isinstance(labels, int) else f"{100 * labels:g}percent"
        return Path("cells") / f"{self.method}-{words}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Any, ...]:
        return () if self.pretraining is None else (self.pretraining,)

    def __str__(self) -> str:
        return f"{METHODS[self.method]}, {labels_name(self.labels)}, seed {self.seed}"


def labels_name(labels: float | int) -> str:
    """`25% of the labels`, `5 labels a class`."""
    return f"{labels} labels a class" if isinstance(labels, int) else f"{100 * labels:g}% of the labels"


def with_more(stored: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The `stored` settings of a study with the methods, labels, seeds and pretrainings of `more` as well."""
    found = dict(stored)
    for name in ("seeds", "pretraining_seeds"):
        found[name] = max(stored[name], more.get(name, 1))
    for name in ("fractions", "labels_per_class"):
        found[name] = sorted({*stored[name], *more.get(name, ())})
    found["methods"] = [name for name in METHODS if name in (*stored["methods"], *more.get("methods", ()))]
    # What is in the study already was made by the recipes of its time.
    found["pretraining"] = {**more.get("pretraining", {}), **stored["pretraining"]}
    return found


def jobs_of(settings: Mapping[str, Any]) -> list[Pretraining | Cell]:
    """Every run asked for. Each method once before a second seed; random weights first, which need no pretraining."""
    methods = [method for method in METHODS if method in settings["methods"]]
    labels = [*map(float, settings["fractions"]), *map(int, settings["labels_per_class"])]
    jobs: list[Pretraining | Cell] = []
    for seed in range(settings["seeds"]):
        for method in methods:
            pretraining = None if method == RANDOM else Pretraining(method, seed % settings["pretraining_seeds"])
            if pretraining is not None and pretraining not in jobs:
                jobs.append(pretraining)
            jobs += [Cell(method, some, seed, pretraining) for some in labels]
    return jobs
