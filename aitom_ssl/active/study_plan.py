"""Which cells a study of active learning has: strategies, ablations of EMA, seeds. Loads no Keras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aitom_ssl.active import NAMES

RANDOM, EMA = "random", "ema"
# The paper's (section 3.3), how the mean model starts, and what differs from the paper. Name to the setting of a run,
# and its values.
ABLATIONS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "distance": ("distance", ("kl", "mse")),
    "lambda": ("regularization", (0.0, 0.01, 0.03, 0.1)),
    "deviation": ("deviation", ("higher", "lower")),
    "semi_supervised": ("semi_supervised", (False, True)),
    "mean_init": ("mean_init", ("independent", "copy")),
    "class_balanced": ("class_balanced", (False, True)),
}


class Variant(NamedTuple):
    """A line of the study: a strategy, or EMA with another `value` of what an ablation is about."""

    strategy: str
    ablation: str = ""
    value: Any = None

    @property
    def changes(self) -> dict[str, Any]:
        """Settings of a run that make it this variant."""
        change = {ABLATIONS[self.ablation][0]: self.value} if self.ablation else {}
        return {"strategy": self.strategy, **change}

    @property
    def folder_name(self) -> str:
        return f"{self.strategy}-{self.ablation}_{value_words(self.value)}" if self.ablation else self.strategy

    def __str__(self) -> str:
        return f"{self.strategy}, {self.ablation} {value_words(self.value)}" if self.ablation else self.strategy


class Cell(NamedTuple):
    """One run."""

    variant: Variant
    seed: int

    @property
    def folder(self) -> Path:
        return Path("cells") / f"{self.variant.folder_name}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Any, ...]:
        return ()

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"


def value_words(value: Any) -> str:
    """0.01, mse, true."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_more(stored: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The `stored` settings of a study with the strategies, ablations and seeds of `more` as well."""
    found: dict[str, Any] = {**stored, "seeds": max(stored["seeds"], more.get("seeds", 0))}
    for name, known in (("strategies", NAMES), ("ablations", ABLATIONS)):
        found[name] = [word for word in known if word in (*stored[name], *more.get(name, ()))]
    return found


def variants_of(settings: Mapping[str, Any]) -> list[Variant]:
    """The strategies, then the ablations; what differs from ema in nothing is ema."""
    plain = [Variant(name) for name in NAMES if name in settings["strategies"]]
    changed = [
        Variant(EMA, ablation, value)
        for ablation, (name, values) in ABLATIONS.items()
        for value in values
        if ablation in settings["ablations"] and value != settings["run"][name]
    ]
    return plain + changed


def cells_of(settings: Mapping[str, Any]) -> list[Cell]:
    """Every cell asked for: each strategy once before a second seed, and ablations when all strategies are done."""
    variants, seeds = variants_of(settings), range(settings["seeds"])
    plain = [Cell(variant, seed) for seed in seeds for variant in variants if not variant.ablation]
    return plain + [Cell(variant, seed) for seed in seeds for variant in variants if variant.ablation]
