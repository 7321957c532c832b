"""The folder that predictions are written to: what it belongs to, its parts, and the files that these become.

    predictions.json     model, data and settings (a call with others is refused), and what came of it
    predictions.csv      one row a particle
    predictions.star     the same for RELION
    parts/part-00000.csv 1,024 particles each, while it is not finished

Every file is written whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aitom_ssl.data.shards import remove_leftovers
from aitom_ssl.data.sources import Source
from aitom_ssl.errors import InputError
from aitom_ssl.export.prediction_tables import (
    Prediction,
    csv_header,
    csv_text,
    csv_value,
    extended_star,
    new_star,
    read_predictions,
)
from aitom_ssl.files import atomic_write, write_json

PART = 1024


class PredictionFolder:
    """`path` for the predictions of `source` into `class_names`.

    identity: sections of values that must be the same for a second call to go on with what a first one has written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], source: Source, class_names: Sequence[str]):
        self.path, self.source, self.class_names = path, source, list(class_names)
        self.identity = json.loads(json.dumps(identity, default=str))
        self.csv, self.star, self.about = (path / f"predictions.{suffix}" for suffix in ("csv", "star", "json"))

    def stored(self) -> dict[str, Any]:
        """predictions.json; empty where there is none."""
        if not self.about.is_file():
            return {}
        try:
            stored = json.loads(self.about.read_text(encoding="utf-8"))
            if not all(isinstance(stored[key], dict) for key in self.identity):
                raise ValueError("something is missing")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.about} is damaged ({error}): give another --output, or delete it.") from None
        return stored

    def refuse_others(self) -> None:
        """InputError where the folder is not empty and was not begun by the same call."""
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        stored = self.stored()
        if not stored:
            raise InputError(f"{self.path} is there and is not empty: give another --output.")
        for key, now in self.identity.items():
            differing = [name for name in {**now, **stored[key]} if now.get(name) != stored[key].get(name)]
            if differing:
                name = differing[0]
                raise InputError(
                    f"{self.path} holds predictions of another {key} ({name} was {_short(stored[key].get(name))}, is "
                    f"{_short(now.get(name))}): give another --output."
                )

    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.stored().get("finished") is True and self.csv.is_file() and self.star.is_file()

    def start(self) -> None:
        """Make the folder, or take it up again.

        InputError where the STAR file of the particles cannot be written back with their predictions: now, and not
        after an hour of classifying.
        """
        if self.source.star is not None:
            nothing = ["0"] * len(self.class_names)
            for _ in self._star_lines(Prediction(i, (), 0, nothing) for i in range(len(self.source))):
                pass
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        self._write_about({"finished": False})

    def _write_about(self, more: Mapping[str, Any]) -> None:
        write_json(self.about, {**self.identity, **more})

    # --- Parts ---

    def part(self, number: int) -> Path:
        """Path of part `number`."""
        return self.path / "parts" / f"part-{number:05d}.csv"

    def parts(self) -> int:
        """How many there are when all is done."""
        return -(-len(self.source) // PART)

    def missing(self) -> list[int]:
        """Numbers of the parts that are not there yet."""
        return [number for number in range(self.parts()) if not self.part(number).is_file()]

    def kept(self) -> str:
        """How much is done, in words."""
        missing = self.missing()
        left = sum(min(PART, len(self.source) - number * PART) for number in missing)
        done = len(self.source) - left
        return f"{done:,} of {len(self.source):,} particles are done and kept in {self.path / 'parts'}."

    def write_part(self, number: int, indices: np.ndarray, probabilities: np.ndarray) -> None:
        """Part `number`: of the particles at `indices` (n,) of the source, their `probabilities` (n, classes)."""
        columns = list(self.source.columns.values())
        rows = []
        for i, row in zip(indices.tolist(), probabilities, strict=True):
            written = [str(value) for value in row]
            label = int(row.argmax())
            about = [csv_value(column[i]) for column in columns]
            rows.append([i, *about, self.class_names[label], written[label], *written])
        text = csv_text([csv_header(list(self.source.columns), self.class_names), *rows])
        with atomic_write(self.part(number)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def predictions(self) -> Iterator[Prediction]:
        """All finished rows, in order."""
        for number in range(self.parts()):
            with open(self.part(number), encoding="utf-8", newline="") as file:
                yield from read_predictions(file, self.class_names)

    # --- The result ---

    def finish(self, about: Callable[[], Mapping[str, Any]]) -> None:
        """predictions.csv and predictions.star out of the parts, which are then deleted.

        about: asked at the end for what else predictions.json is to say.
        """
        with atomic_write(self.csv) as temporary, open(temporary, "wb") as whole:
            for number in range(self.parts()):
                with open(self.part(number), "rb") as part:
                    header = part.readline()
                    if number == 0:
                        whole.write(header)
                    shutil.copyfileobj(part, whole)
        count = _Count(self.predictions(), self.class_names)
        with atomic_write(self.star) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            file.writelines(self._star_lines(count))
        count.missing += range(count.expected, len(self.source))
        found = {
            "finished": True,
            "columns": csv_header(list(self.source.columns), self.class_names),
            "classes": count.classes,
            "left_out": [self.source.describe(i) for i in count.missing],
        }
        self._write_about({**found, **about()})
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def _star_lines(self, predictions: Iterable[Prediction]) -> Iterator[str]:
        source, star = self.source, self.source.star
        if star is None:
            yield from new_star(predictions, self.class_names, source.star_columns, source.voxel_size, source.size)
            return
        rows = ((int(star.rows[p.particle]), p) for p in predictions)
        with open(star.path, encoding="utf-8", newline="") as lines:
            yield from extended_star(lines, star.block, rows, self.class_names, star.path)


class _Count:
    """Predictions on their way, counted by class, and the particles that have none."""

    def __init__(self, predictions: Iterable[Prediction], class_names: Sequence[str]):
        self.predictions = predictions
        self.names = class_names
        self.classes = dict.fromkeys(class_names, 0)
        self.missing: list[int] = []
        self.expected = 0

    def __iter__(self) -> Iterator[Prediction]:
        for prediction in self.predictions:
            self.classes[self.names[prediction.label]] += 1
            self.missing += range(self.expected, prediction.particle)
            self.expected = prediction.particle + 1
            yield prediction


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
