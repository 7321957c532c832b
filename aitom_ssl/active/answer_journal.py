"""A journal of answers: every one is on disk before anybody is told so, and a killed process loses none.

`answers.jsonl` has one JSON object a line, in the order in which they came, and is only ever appended to:

    {"time": "2031-05-04T10:11:12", "sample": 812, "did": "label", "class": "ribosome"}
    {"time": ..., "sample": 99, "did": "skip"}         or "junk"
    {"time": ..., "sample": 99, "did": "undo"}         takes back the last answer that still stands

A line without its end was never confirmed (the process died as it wrote): it is dropped.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aitom_ssl.active.oracle import JUNK, SKIP, Answers
from aitom_ssl.errors import InputError, reason

Answer = int | str | None  # a class, SKIP, JUNK, or none yet


class State(NamedTuple):
    """How a journal stands."""

    answers: list[Answer]  # in the order of the query
    last: int | None  # the sample whose answer came last, of those that stand
    finished: bool
    version: int  # changes since this process opened it


class Disagreement(ValueError):
    """What somebody wanted to change is not as they saw it."""


class Journal:
    """The answers to one query, on disk at `path`; safe to be asked by several threads, but only one process.

    indices: the samples that are asked for, in order. Raises InputError where the file is damaged, or has a sample or a
    class that was not asked for.
    """

    def __init__(self, path: Path, indices: Sequence[int], class_names: Sequence[str]):
        self.path, self.class_names = path, list(class_names)
        self.finished = False
        self.version, self.changed = 0, time.monotonic()  # how many changes there were, and when the last one was made
        self._answers: dict[int, Answer] = {int(index): None for index in indices}
        self._done: list[tuple[int, Answer]] = []  # samples in the order of their answers, with what was there before
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _sync_folder(path.parent)
            self._length = self._read()
        except InputError:
            self.close()
            raise

    def _read(self) -> int:
        text = self.path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.ftruncate(self._file, whole)
        for number, line in enumerate(text[:whole].splitlines(), 1):
            try:
                self._play(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise InputError(
                    f"{self.path}, line {number}, is no answer to what is asked ({reason(error)}): mend that line or "
                    "move the file away."
                ) from None
        return whole

    def _play(self, entry: dict) -> None:
        """Let one line change the state."""
        did, sample = entry["did"], entry["sample"]
        if sample not in self._answers:
            raise ValueError(f"sample {sample!r} was not asked for")
        if did == "undo":
            if not self._done or self._done[-1][0] != sample:
                raise ValueError(f"sample {sample} was not the last to be answered")
            self._answers[sample] = self._done.pop()[1]
            return
        if did == "label":
            answer: Answer = self.class_names.index(entry["class"])
        elif did in (SKIP, JUNK):
            answer = did
        else:
            raise ValueError(f"{did!r} is nothing that can be done")
        self._done.append((sample, self._answers[sample]))
        self._answers[sample] = answer

    def _write(self, entry: dict) -> None:
        """Append to the file, then change the state: what fails to get there never happened."""
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **entry}
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        try:
            written = os.write(self._file, line)
            os.fsync(self._file)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be written to {self.path}")
        except OSError:
            os.ftruncate(self._file, self._length)
            raise
        self._length += written
        self._play(entry)
        self.version, self.changed = self.version + 1, time.monotonic()

    def _agree(self, sample: int, before: Answer) -> None:
        if sample not in self._answers:
            raise Disagreement(f"Sample {sample} is not asked for.")
        if self.finished:
            raise Disagreement("It is finished: no more answers are taken.")
        if self._answers[sample] != before:
            raise Disagreement(f"Sample {sample} was answered elsewhere in the meantime.")

    def answer(self, sample: int, answer: int | str, before: Answer) -> None:
        """Record a class, SKIP or JUNK for `sample`; on return it is on disk.

        before: the answer that whoever gives this one believes to stand. Raises Disagreement where another does.
        OSError (a full disk) leaves everything as it was.
        """
        with self._lock:
            self._agree(sample, before)
            if answer in (SKIP, JUNK):
                self._write({"sample": sample, "did": answer})
            else:
                self._write({"sample": sample, "did": "label", "class": self.class_names[answer]})

    def undo(self, sample: int, before: Answer) -> None:
        """Take back the last answer, which is that of `sample`: the one before it stands again."""
        with self._lock:
            self._agree(sample, before)
            if not self._done or self._done[-1][0] != sample:
                raise Disagreement(f"Sample {sample} was not the last to be answered.")
            self._write({"sample": sample, "did": "undo"})

    def finish(self) -> None:
        """Take no more answers, until the journal is opened again."""
        with self._lock:
            self.finished, self.version = True, self.version + 1

    def state(self) -> State:
        """How it stands now."""
        with self._lock:
            last = self._done[-1][0] if self._done else None
            return State(list(self._answers.values()), last, self.finished, self.version)

    def answered(self) -> int:
        """How many of the samples have an answer."""
        return sum(answer is not None for answer in self.state().answers)

    def answers(self) -> Answers:
        """What the loop is told: samples without an answer are skipped."""
        with self._lock:
            labels = {sample: a for sample, a in self._answers.items() if isinstance(a, int)}
            junk = tuple(sample for sample, a in self._answers.items() if a == JUNK)
            skipped = tuple(sample for sample, a in self._answers.items() if a in (SKIP, None))
        return Answers(labels, skipped, junk)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _sync_folder(folder: Path) -> None:
    """A file that is new is not on disk before its folder says that it is there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
