"""Tables 1 to 3 of Zhou 2020: accuracy by data, ways and variant, and Dice of each unseen class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from aitom_ssl.evaluation.report import aligned
from aitom_ssl.evaluation.statistics import mean_and_spread
from aitom_ssl.oneshot.evaluation import Answers, Interval
from aitom_ssl.oneshot.trained import network_settings


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What one run is worth on one dataset."""

    run: str
    data: str
    variant: str  # see `variant_of`
    classes: tuple[str, ...]  # that were measured
    samples: int
    answers: tuple[Answers, ...]
    dice: dict[str, Interval] | None  # class name to Dice of the predicted masks
    refined: dict[str, Interval] | None  # of the refined ones
    mean_dice: Interval | None  # over all samples
    mean_refined: Interval | None

    def accuracy(self, way: int) -> Interval:
        """Of episodes of that many ways."""
        return next(answers.accuracy for answers in self.answers if answers.way == way)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""

        def plain(values: Mapping[str, Interval] | None) -> dict[str, Any] | None:
            return None if values is None else {name: value.to_dict() for name, value in values.items()}

        return {
            "run": self.run,
            "data": self.data,
            "variant": self.variant,
            "classes": list(self.classes),
            "samples": self.samples,
            "accuracy": {str(a.way): a.accuracy.to_dict() for a in self.answers},
            "accuracy_by_class": {
                str(a.way): {self.classes[i]: value.to_dict() for i, value in enumerate(a.by_class.values())}
                for a in self.answers
            },
            "dice": plain(self.dice),
            "refined_dice": plain(self.refined),
            "mean_dice": None if self.mean_dice is None else self.mean_dice.to_dict(),
            "mean_refined_dice": None if self.mean_refined is None else self.mean_refined.to_dict(),
        }


def variant_of(settings: Mapping[str, Any]) -> str:
    """A column of Table 1: `DuSE, decoder`, `DuSE`, `decoder` or `plain`.

    With `DuSE (max)` where the branches are not added, and `decoder (skips)` where it sees the encoder's larger maps.
    """
    block = {"add": "DuSE", "max": "DuSE (max)", "none": ""}[settings["fusion"]]
    decoder = ("decoder (skips)" if network_settings(settings)["skips"] else "decoder") if settings["decoder"] else ""
    return ", ".join(filter(None, [block, decoder])) or "plain"


def accuracy_rows(results: Sequence[RunResult], ways: Sequence[int]) -> list[list[str]]:
    """Table 1: a row for each of the data and ways, a column for each variant."""
    variants = list(dict.fromkeys(result.variant for result in results))
    rows = [["data", "way", *variants, "chance"]]
    for data in dict.fromkeys(result.data for result in results):
        for way in ways:
            cells = [
                _cell([r.accuracy(way) for r in _of(results, data, v) if any(a.way == way for a in r.answers)])
                for v in variants
            ]
            if any(cell != "-" for cell in cells):
                rows.append([data, str(way), *cells, f"{1 / way:.3f}"])
    return rows


def dice_rows(results: Sequence[RunResult], data: str) -> list[list[str]]:
    """Table 2 or 3: a row for each unseen class of `data`, columns for the variants that give masks."""
    shown = [r for r in results if r.data == data and r.dice is not None]
    variants = list(dict.fromkeys(r.variant for r in shown))
    refined = any(r.refined is not None for r in shown)
    header = ["class"]
    for variant in variants:
        header += [variant, f"{variant}, CRF"] if refined else [variant]
    rows = [header]
    for name in [*dict.fromkeys(n for r in shown for n in r.classes), None]:
        row = ["all samples" if name is None else name]
        for variant in variants:
            of = _of(shown, data, variant)
            row.append(_cell([r.mean_dice if name is None else r.dice[name] for r in of if name in (None, *r.dice)]))
            if refined:
                found = [r.mean_refined if name is None else r.refined.get(name) for r in of if r.refined is not None]
                row.append(_cell([value for value in found if value is not None]))
        rows.append(row)
    return rows


def _of(results: Sequence[RunResult], data: str, variant: str) -> list[RunResult]:
    return [result for result in results if (result.data, result.variant) == (data, variant)]


def _cell(values: Sequence[Interval]) -> str:
    """One run's mean and interval; of several runs mean and standard deviation of their means."""
    return str(values[0]) if len(values) == 1 else mean_and_spread([value.mean for value in values])


def tables_text(results: Sequence[RunResult], ways: Sequence[int]) -> str:
    """All tables as aligned plain text."""
    parts = ["accuracy on unseen classes", *aligned(accuracy_rows(results, ways))]
    for data in dict.fromkeys(r.data for r in results if r.dice is not None):
        parts += ["", f"Dice of the masks, {data}", *aligned(dice_rows(results, data))]
    return "\n".join(parts)
