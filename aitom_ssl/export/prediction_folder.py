"""The folder that predictions are written to: what it belongs to, its parts, and the files that these become.

    predictions.json     model, data and settings (a call with others is refused), and what came of it
    predictions.csv      one row a particle
    predictions.star     the same for RELION
    parts/part-00000.csv 1,024 particles each, while it is not finished

Every file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aitom_ssl.data.sources import Source
from aitom_ssl.export.parts_folder import PartsFolder
from aitom_ssl.export.prediction_tables import (
    PROBABILITIES,
    Numbers,
    Prediction,
    csv_header,
    csv_value,
    extended_star,
    new_star,
    read_predictions,
)
from aitom_ssl.files import atomic_write

PART = 1024


class PredictionFolder(PartsFolder):
    """`path` for the predictions of `source` into `class_names`.

    identity: sections of values that must be the same for a second call to go on with what a first one has written.
    numbers: what the numbers beside a class are. further: names of columns beside those that `source` has, for which
    `write_part` gets values. size: particles a part.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        source: Source,
        class_names: Sequence[str],
        numbers: Numbers = PROBABILITIES,
        further: Sequence[str] = (),
        size: int = PART,
    ):
        super().__init__(path, "predictions", "predictions.csv", identity, len(source), size)
        self.source, self.class_names, self.numbers, self.further = source, list(class_names), numbers, list(further)
        self.star = path / "predictions.star"

    def finished(self) -> bool:
        """Whether all is done."""
        return super().finished() and self.star.is_file()

    def start(self) -> None:
        """Make the folder, or take it up again.

        InputError where the STAR file of the particles cannot be written back with their predictions: now, and not
        after an hour of classifying.
        """
        if self.source.star is not None:
            nothing = ["0"] * len(self.class_names)
            for _ in self._star_lines(Prediction(i, (), 0, nothing) for i in range(len(self.source))):
                pass
        super().start()

    def _header(self) -> list[str]:
        return csv_header([*self.source.columns, *self.further], self.class_names, self.numbers)

    def write_part(
        self, number: int, indices: np.ndarray, values: np.ndarray, further: Sequence[Sequence[Any]] | None = None
    ) -> None:
        """Part `number`: of the particles at `indices` (n,) of the source, their `values` (n, classes).

        further: n rows of what the further columns hold.
        """
        columns = list(self.source.columns.values())
        rows = []
        for i, row, more in zip(indices.tolist(), values, further or [()] * len(indices), strict=True):
            written = [str(value) for value in row]
            label = int(row.argmax())
            about = [csv_value(value) for value in (*(column[i] for column in columns), *more)]
            rows.append([i, *about, self.class_names[label], written[label], *written])
        self.write_rows(number, self._header(), rows)

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
        self.join()
        count = _Count(self.predictions(), self.class_names)
        with atomic_write(self.star) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            file.writelines(self._star_lines(count))
        count.missing += range(count.expected, len(self.source))
        found = {
            "finished": True,
            "columns": self._header(),
            "classes": count.classes,
            "left_out": [self.source.describe(i) for i in count.missing],
        }
        self.write_about({**found, **about()})
        self.remove_parts()

    def _star_lines(self, predictions: Iterable[Prediction]) -> Iterator[str]:
        source, star, names, numbers = self.source, self.source.star, self.class_names, self.numbers
        if star is None:
            yield from new_star(predictions, names, source.star_columns, source.voxel_size, source.size, numbers)
            return
        rows = ((int(star.rows[p.particle]), p) for p in predictions)
        with open(star.path, encoding="utf-8", newline="") as lines:
            yield from extended_star(lines, star.block, rows, names, star.path, numbers)


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
