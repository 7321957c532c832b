"""Predictions as text: rows of CSV, and RELION STAR files that keep what the particles came with. Standard library.

A STAR file gets, beside what was there,

    rlnClassNumber                  class, counted from 1
    aitomConfidence                 its probability
    aitomProbability_NAME           one column a class; characters of the name that RELION might trip over become _
    aitomInputClassNumber           the rlnClassNumber that was there before, where there was one

and a block data_aitom_classes with the name of every class number. RELION has no column of its own for a class's
probability. From 3.1.2 on it warns of columns that it does not know ("will ignore (but maintain) values"), keeps them
and writes them out again, which is why the class is in the column's name: blocks that it does not know it drops. 3.1.0
and 3.1.1 may crash when they write such columns (3dem/relion issues 641 and 744), 3.0 and older refuse to read them.

The rows of an input STAR file are copied as text: no number loses a digit. All of it works line by line.
"""

from __future__ import annotations

import csv
import io
import numbers
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from aitom_ssl.errors import InputError

CLASS = "rlnClassNumber"
INPUT_CLASS = "aitomInputClassNumber"
CLASSES_BLOCK = "aitom_classes"
# What a value must not begin with: a reader takes the line for a column, a text or a new block.
_RESERVED = re.compile(r"_|;|(data|loop|save|stop|global)_", re.IGNORECASE)
_TOKEN = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")


class Numbers(NamedTuple):
    """What the numbers beside a class are called: that of the class itself, and of every class its name."""

    best: str  # of a CSV file
    each: str
    star_best: str  # of a STAR file
    star_each: str
    star_column: str  # which column a class has, in the block of the classes


PROBABILITIES = Numbers(
    "confidence", "probability_", "aitomConfidence", "aitomProbability_", "aitomProbabilityColumn"
)


class Prediction(NamedTuple):
    """One row of predictions.csv."""

    particle: int  # place in the data, from 0
    about: Sequence[str]  # what tells it from the others
    label: int  # class, from 0
    values: Sequence[str]  # a number a class, as written: the fewest digits that give the same float32


# === CSV ===


def csv_header(
    columns: Sequence[str], class_names: Sequence[str], numbers: Numbers = PROBABILITIES
) -> list[str]:
    """particle, what tells it from others, class, confidence, probability_NAME a class."""
    return ["particle", *columns, "class", numbers.best, *(numbers.each + name for name in class_names)]


def csv_value(value: Any) -> str:
    """What tells a particle from others, as text: numbers that are not whole with seven digits."""
    fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    return f"{value:.7g}" if fraction else str(value)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """`rows` as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_predictions(file: TextIO, class_names: Sequence[str]) -> Iterator[Prediction]:
    """The rows of a CSV file with that header."""
    rows, first = csv.reader(file), len(class_names)
    next(rows)
    numbers = {name: i for i, name in enumerate(class_names)}
    for row in rows:
        yield Prediction(int(row[0]), row[1 : -first - 2], numbers[row[-first - 2]], row[-first:])


# === STAR ===


def star_columns(class_names: Sequence[str], numbers: Numbers = PROBABILITIES) -> list[str]:
    """Names of the columns that every STAR file of predictions has, one a class from the third on."""
    columns: list[str] = []
    for number, name in enumerate(class_names, 1):
        column = numbers.star_each + re.sub(r"[^A-Za-z0-9_]", "_", name)
        columns.append(column if column not in columns else f"{column}_{number}")
    return [CLASS, numbers.star_best, *columns]


def star_values(prediction: Prediction) -> list[str]:
    """The values of `star_columns`."""
    return [str(prediction.label + 1), prediction.values[prediction.label], *prediction.values]


def quoted(value: Any) -> str:
    """`value` as one token of a STAR file."""
    text = " ".join(str(value).split())
    plain = text and not re.search(r"[\s\"'#]", text) and not _RESERVED.match(text)
    return text if plain else "'" + text.replace("'", "_") + "'" if '"' in text else f'"{text}"'


def loop(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Lines of a block with one loop, as RELION writes them."""
    yield from ("\n", "# version 30001\n", "\n", f"data_{name}\n", "\n", "loop_\n")
    yield from (f"_{column} #{number}\n" for number, column in enumerate(columns, 1))
    for row in rows:
        yield " ".join(quoted(value) for value in row) + "\n"
    yield "\n"


def classes_block(class_names: Sequence[str], numbers: Numbers = PROBABILITIES) -> Iterator[str]:
    """The block that gives every class number its name."""
    columns = star_columns(class_names, numbers)[2:]
    rows = [(i, name, column) for i, (name, column) in enumerate(zip(class_names, columns, strict=True), 1)]
    return loop(CLASSES_BLOCK, [CLASS, "aitomClassName", numbers.star_column], rows)


def new_star(
    predictions: Iterable[Prediction],
    class_names: Sequence[str],
    columns: dict[str, Sequence[Any]],
    voxel_size: float,
    size: int,
    numbers: Numbers = PROBABILITIES,
) -> Iterator[str]:
    """Lines of a STAR file of particles that came from none: one optics group, `columns` by particle, predictions."""
    optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", "rlnImagePixelSize": f"{voxel_size:.7g}"}
    if "rlnTomoName" in columns:
        optics["rlnTomoTiltSeriesPixelSize"] = f"{voxel_size:.7g}"
    optics |= {"rlnImageSize": size, "rlnImageDimensionality": 3}
    yield from loop("optics", list(optics), [list(optics.values())])
    rows = ([*(c[p.particle] for c in columns.values()), 1, *star_values(p)] for p in predictions)
    yield from loop("particles", [*columns, "rlnOpticsGroup", *star_columns(class_names, numbers)], rows)
    yield from classes_block(class_names, numbers)


def extended_star(
    lines: Iterable[str],
    block: str,
    predictions: Iterable[tuple[int, Prediction]],
    class_names: Sequence[str],
    where: Path,
    numbers: Numbers = PROBABILITIES,
) -> Iterator[str]:
    """The lines of a STAR file with the columns of predictions added to `block`, which must have a loop.

    predictions: (row of the block from 0, its prediction), rows ascending. A row without one is left out, a column that
    is there already gets the new values, everything else stays as it is, to the letter.
    Raises InputError, naming the file `where`, for a row that has not as many values as there are columns.
    """
    adder = _Adder(predictions, star_columns(class_names, numbers), where)
    inside = heading = dropping = found = False
    for line in lines:
        text = line.strip()
        if text.startswith("data_"):
            if heading:
                raise InputError(f"{where}: data_{block} has no loop_: write it as a table.")
            inside, dropping = text == f"data_{block}" and not found, text == f"data_{CLASSES_BLOCK}"
            heading, found = inside, found or inside
        elif heading and text.startswith("_"):
            adder.column(text.split()[0][1:])
        elif heading and text and not text.startswith(("#", "loop_")):
            heading = False
            yield from adder.heading()
        if dropping:
            continue
        if not inside or heading or not text or text.startswith(("#", "data_", "loop_", "_")):
            yield line if line.endswith("\n") else line + "\n"
        elif row := adder.row(line):
            yield row
    if heading or adder.next is not None:
        raise InputError(f"{where}: data_{block} is not a table of the rows that were read: write it with a loop_.")
    yield from classes_block(class_names, numbers)


class _Adder:
    """The columns and rows of the block that is extended."""

    def __init__(self, predictions: Iterable[tuple[int, Prediction]], columns: list[str], where: Path):
        self.predictions, self.where = iter(predictions), where
        self.next = next(self.predictions, None)
        self.mine = columns
        self.columns: list[str] = []
        self.number = -1

    def column(self, name: str) -> None:
        self.columns.append(name)

    def heading(self) -> Iterator[str]:
        """Lines that name the added columns."""
        self.keeps = CLASS in self.columns and INPUT_CLASS not in self.columns
        self.added = [name for name in self.mine if name not in self.columns] + [INPUT_CLASS] * self.keeps
        self.replaced = {self.columns.index(name): i for i, name in enumerate(self.mine) if name in self.columns}
        for number, name in enumerate(self.added, len(self.columns) + 1):
            yield f"_{name} #{number}\n"

    def row(self, line: str) -> str | None:
        """The next row of the block with its prediction; None where it has none."""
        self.number += 1
        if self.next is None or self.next[0] != self.number:
            return None
        values = star_values(self.next[1])
        self.next = next(self.predictions, None)
        tokens = list(_TOKEN.finditer(line))
        if len(tokens) != len(self.columns):
            raise InputError(
                f"{self.where}: row {self.number + 1} has {len(tokens)} values, its table {len(self.columns)} columns."
            )
        added = [values[self.mine.index(name)] for name in self.added if name != INPUT_CLASS]
        if self.keeps:
            added.append(tokens[self.columns.index(CLASS)].group())
        text = line.rstrip()
        for place in sorted(self.replaced, reverse=True):
            token = tokens[place]
            text = text[: token.start()] + values[self.replaced[place]] + text[token.end() :]
        return " ".join([text, *added]) + "\n"
