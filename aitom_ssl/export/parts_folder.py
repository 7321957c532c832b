"""A folder of results that are made part by part: what it belongs to, the parts that are done, and how to go on.

Every file is written whole or not at all; parts that are there are never made again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aitom_ssl.errors import InputError
from aitom_ssl.export.prediction_tables import csv_text
from aitom_ssl.files import atomic_write, claimed, remove_leftovers, write_json


class PartsFolder:
    """`path` for the results of `count` particles, `size` of them a part.

    what: the results in words ("predictions"), and the name of the JSON file that says what they are. table: the CSV
    file that the parts become. identity: sections of values that must be the same for a second call to go on with what
    a first one has written.
    """

    def __init__(self, path: Path, what: str, table: str, identity: Mapping[str, Any], count: int, size: int):
        self.path, self.what, self.count, self.size = path, what, count, size
        self.identity = json.loads(json.dumps(identity, default=str))
        self.csv, self.about = path / table, path / f"{what}.json"

    def stored(self) -> dict[str, Any]:
        """What the JSON file says; empty where there is none."""
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
                    f"{self.path} holds {self.what} of another {key} ({name} was {_short(stored[key].get(name))}, is "
                    f"{_short(now.get(name))}): give another --output."
                )

    def finished(self) -> bool:
        """Whether all is done."""
        return self.stored().get("finished") is True and self.csv.is_file()

    def start(self) -> None:
        """Make the folder, or take it up again."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        self.write_about({"finished": False})

    @contextlib.contextmanager
    def at_work(self, command: str = "") -> Iterator[None]:
        """While this process makes what is missing. InputError where another does; Ctrl-C says what is kept.

        command: how to go on.
        """
        with claimed(self.path / ".running") as mine:
            if not mine:
                raise InputError(
                    f"{self.path}: another process is writing there: wait for it, or give another --output."
                )
            self.start()
            try:
                yield
            except KeyboardInterrupt:
                how = f" Go on with: {command}" if command else ""
                raise KeyboardInterrupt(f"{self.kept()}{how}") from None

    def write_about(self, more: Mapping[str, Any]) -> None:
        """Write the JSON file: what the folder belongs to, and `more`."""
        write_json(self.about, {**self.identity, **more})

    # --- Parts ---

    def part(self, number: int) -> Path:
        """Path of part `number`."""
        return self.path / "parts" / f"part-{number:05d}.csv"

    def parts(self) -> int:
        """How many there are when all is done."""
        return -(-self.count // self.size)

    def length(self, number: int) -> int:
        """Particles of part `number`."""
        return min(self.size, self.count - number * self.size)

    def missing(self) -> list[int]:
        """Numbers of the parts that are not there yet."""
        return [number for number in range(self.parts()) if not self.part(number).is_file()]

    def kept(self) -> str:
        """How much is done, in words."""
        done = self.count - sum(map(self.length, self.missing()))
        return f"{done:,} of {self.count:,} particles are done and kept in {self.path / 'parts'}."

    def write_rows(self, number: int, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Part `number`: a CSV file of `rows` under `header`."""
        with atomic_write(self.part(number)) as temporary:
            temporary.write_text(csv_text([header, *rows]), encoding="utf-8")

    def join(self) -> None:
        """The parts as one table, under the header of the first."""
        with atomic_write(self.csv) as temporary, open(temporary, "wb") as whole:
            for number in range(self.parts()):
                with open(self.part(number), "rb") as part:
                    header = part.readline()
                    if number == 0:
                        whole.write(header)
                    shutil.copyfileobj(part, whole)

    def remove_parts(self) -> None:
        """Delete the parts: their table is there."""
        shutil.rmtree(self.path / "parts", ignore_errors=True)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
