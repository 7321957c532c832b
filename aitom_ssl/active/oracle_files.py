"""A person who answers with a spreadsheet: subtomograms as MRC, contact sheets to look at, and a CSV file to fill in.

In the cycle's folder:

    HOW_TO_ANSWER.txt            what to do, and the words to answer with
    contact_sheet_1.png, ...     what the samples look like, and what the model takes them for
    subtomograms/sample_00812.mrc
    answers.csv                  one row a sample; its column `answer` is to be filled in

`answers.csv` is written once and never again. It may come back from any spreadsheet: with commas, semicolons or tabs, a
byte order mark, Windows' line ends, more columns, other cases, rows in another order or left out.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from aitom_ssl.active.contact_sheet import FINEST, Card, write_sheets
from aitom_ssl.active.oracle import JUNK, SKIP, Answers, Oracle, Query, keep_query
from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError, near, reason
from aitom_ssl.files import atomic_write, claimed
from aitom_ssl.mrc import write_mrc

FORM, HOW, PROBLEMS, VOLUMES = "answers.csv", "HOW_TO_ANSWER.txt", "problems.txt", "subtomograms"
WORDS = {SKIP: SKIP, JUNK: JUNK, "unknown": JUNK, "unknown/junk": JUNK}
_SHOWN = 4  # problems that stand in the error itself


# === The table ===


class Filled(NamedTuple):
    """A table that came back."""

    answers: dict[int, int | str]  # sample -> class, SKIP or JUNK
    problems: list[str]  # one a row that cannot be used, with its number (the header is row 1)


def vocabulary(class_names: Sequence[str]) -> dict[str, int | str]:
    """The words that answer: class names, and those of `WORDS` that no class is called; any case where it is clear."""
    exact: dict[str, int | str] = {name: label for label, name in enumerate(class_names)}
    taken = {name.casefold() for name in class_names}
    exact |= {word: answer for word, answer in WORDS.items() if word not in taken}
    folded: dict[str, set] = {}
    for word, answer in exact.items():
        folded.setdefault(word.casefold(), set()).add(answer)
    clear = {word: next(iter(answers)) for word, answers in folded.items() if len(answers) == 1}
    return {**clear, **exact}


def form_text(query: Query, class_names: Sequence[str]) -> str:
    """The CSV file to fill in."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample", "answer", "guess", "confidence", "score", "file"])
    for sample, score, guess, confidence in zip(*query[1:], strict=True):
        said = class_names[guess] if guess >= 0 else ""
        sure = f"{confidence:.3f}" if math.isfinite(confidence) else ""
        writer.writerow([int(sample), "", said, sure, f"{score:.6g}", f"{VOLUMES}/{volume_name(sample)}"])
    return text.getvalue()


def volume_name(sample: int) -> str:
    """Name of the MRC file of a sample."""
    return f"sample_{sample:06d}.mrc"


def read_form(content: bytes, indices: Sequence[int], class_names: Sequence[str]) -> Filled:
    """What a filled table says of the samples `indices`.

    Raises InputError where it is no table, or lacks a column. A row that cannot be used is a problem, and no answer.
    """
    rows = _rows(content)
    header = [name.strip().casefold() for name in next(rows, [])]
    for name in ("sample", "answer"):
        if header.count(name) != 1:
            found = f"{header.count(name)} columns" if name in header else "no column"
            raise InputError(
                f"it has {found} {name!r}, its first row is: {', '.join(filter(None, header)) or 'empty'}."
                f"{near(name, set(header) - {name})} Expected one column sample and one column answer"
            )
    at_sample, at_answer = header.index("sample"), header.index("answer")
    asked, words = {int(index) for index in indices}, vocabulary(class_names)
    answers: dict[int, int | str] = {}
    seen: dict[int, int] = {}
    problems = []
    for number, row in enumerate(rows, 2):
        cells = [cell.strip() for cell in row] + [""] * len(header)
        sample, answer = cells[at_sample], cells[at_answer]
        if not any(cells):
            continue
        # A spreadsheet may have made 812.0 of it.
        match = re.fullmatch(r"(\d{1,18})([.,]0*)?", sample, re.ASCII)
        index = int(match[1]) if match else -1
        where = f"row {number}, sample {sample}" if sample else f"row {number}"
        if index not in asked:
            what = "is none of those asked for" if sample else "has no sample"
            problems.append(f"{where}: {what}")
        elif index in seen:
            problems.append(f"{where}: row {seen[index]} is of the same sample; keep one of them")
            answers.pop(index, None)
        elif answer and (found := words.get(answer, words.get(" ".join(answer.split()).casefold()))) is None:
            hint = near(answer, [*class_names, *WORDS], " (did you mean {}?)")
            problems.append(f"{where}: {answer!r} is no class{hint}")
        elif answer:
            answers[index] = found
        seen.setdefault(index, number)
    return Filled(answers, problems)


def _rows(content: bytes) -> Iterator[list[str]]:
    """The rows of a CSV file from any spreadsheet; InputError where it is none."""
    if content.startswith(b"PK"):
        raise InputError("it is a workbook and not a CSV file: save it as CSV")
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # what Excel calls CSV, without UTF-8
    if not text.strip():
        raise InputError("it is empty")
    first = text.lstrip().splitlines()[0]
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    except csv.Error as error:
        raise InputError(f"it cannot be read as CSV ({reason(error)}): save it again") from None


# === The folder ===


class FilesOracle(Oracle):
    """Writes the samples and a table to fill in, and reads the table when it is asked again.

    An empty table keeps the loop waiting; of one with an answer or more, rows left empty are skipped. Any row that
    cannot be used is an InputError, so that no answer is lost unnoticed; the table stays as it is.
    """

    def ask(self, query: Query, dataset: Dataset, class_names: Sequence[str], folder: Path) -> Answers:
        with claimed(folder / ".answering") as mine:
            if not mine:
                raise InputError(f"Another process is at work in {folder}: let it end first.")
            keep_query(folder, "files", query, dataset, class_names)
            form = folder / FORM
            if not form.exists():
                _write_questions(query, dataset, class_names, folder)
            filled = _filled(form, query, class_names)
        if not filled:
            waiting = how_to_answer(folder, len(query.indices), class_names)
            return Answers({}, (), (), waiting=f"{waiting}{_workbooks(form)}")
        order = [int(index) for index in query.indices]
        return Answers(
            {index: filled[index] for index in order if isinstance(filled.get(index), int)},
            tuple(index for index in order if filled.get(index, SKIP) == SKIP),
            tuple(index for index in order if filled.get(index) == JUNK),
        )


def how_to_answer(folder: Path, count: int, class_names: Sequence[str]) -> str:
    """What the person is told."""
    names = vocabulary(class_names)
    words = {
        SKIP: "to be asked again some other time",
        JUNK: "nothing to learn from (noise, ice, gold, several particles): it is never asked for again",
    }
    # A class of that name goes first; the other word still says junk.
    spoken = {word: text for word, text in words.items() if names.get(word) == word}
    if JUNK not in spoken and names.get("unknown") == JUNK:
        spoken["unknown"] = words[JUNK]
    width = max(map(len, spoken), default=0)
    lines = [
        f"{count} subtomograms wait for their classes in {folder}",
        "",
        f"  1. Look at contact_sheet*.png, or at the volumes in {VOLUMES}/.",
        f"  2. Fill in the column `answer` of {FORM}, in any spreadsheet or editor (save it as CSV), with one of",
        "",
        *(f"       {name}" for name in class_names),
        *(f"       {word:<{width}}   {text}" for word, text in spoken.items()),
        "",
        "     A row left empty is skipped.",
        "  3. Go on with the same command and --resume.",
    ]
    return "\n".join(lines)


def _write_questions(query: Query, dataset: Dataset, class_names: Sequence[str], folder: Path) -> None:
    """Everything that is asked, the table last: what a killed process wrote of the rest is written again."""
    order = [int(index) for index in query.indices]
    volumes = folder / VOLUMES
    for index in tqdm(order, desc="subtomograms", unit="file", disable=len(order) < 100):
        write_mrc(volumes / volume_name(index), dataset.volumes([index])[0], dataset.voxel_size)
    heading = [
        f"{dataset.name}, cycle {query.cycle}, {len(order)} samples to classify",
        f"Boxes of {dataset.size} voxels, {dataset.size * dataset.voxel_size:g} Å. Slices are through the centre. "
        f"Projections are of the middle half, low-passed at {FINEST * dataset.voxel_size:g} Å. Protein is "
        f"{dataset.contrast}.",
    ]
    cards = [_card(*values, class_names) for values in zip(*query[1:], strict=True)]
    pages = write_sheets(folder, lambda k: dataset.volumes([order[k]])[0], cards, heading)
    for _ in tqdm(pages, desc="contact sheets", unit="page", disable=len(order) < 100):
        pass
    _write(folder / HOW, how_to_answer(folder, len(order), class_names) + "\n")
    _write(folder / FORM, form_text(query, class_names))


def _card(sample: int, score: float, guess: int, confidence: float, class_names: Sequence[str]) -> Card:
    said = f"model: {class_names[guess]}" if guess >= 0 else "no model yet"
    sure = [f"confidence {confidence:.0%}"] if guess >= 0 and math.isfinite(confidence) else []
    return Card(f"sample {sample}", [said, *sure, f"score {score:.3g}"])


def _filled(form: Path, query: Query, class_names: Sequence[str]) -> Mapping[int, int | str]:
    """The answers in `form`; InputError, and the whole list in a file beside it, where a row cannot be used."""
    listed = form.with_name(PROBLEMS)
    try:
        found = read_form(form.read_bytes(), np.asarray(query.indices), class_names)
    except InputError as error:
        raise InputError(f"{form}: {error}.{_workbooks(form)}") from None
    if not found.problems:
        listed.unlink(missing_ok=True)
        return found.answers
    _write(listed, "\n".join(found.problems) + "\n")
    shown = "; ".join(found.problems[:_SHOWN])
    more = f"; and {len(found.problems) - _SHOWN} more" if len(found.problems) > _SHOWN else ""
    rows = f"{len(found.problems)} row{'s' if len(found.problems) > 1 else ''}"
    raise InputError(
        f"{form} has {rows} to mend (good answers: {len(found.answers)}; nothing is lost): {shown}{more}. All of them "
        f"are in {listed}."
    )


def _workbooks(form: Path) -> str:
    """A sentence about what a spreadsheet saved beside the table in place of it; empty where there is nothing."""
    found = [path.name for path in sorted(form.parent.iterdir()) if path.suffix.lower() in (".xlsx", ".xls", ".ods")]
    return f" {found[0]} is not read: save it as CSV, as {form.name}." if found else ""


def _write(path: Path, text: str) -> None:
    # Excel takes a file without the mark for the system's own encoding.
    encoding = "utf-8" if text.isascii() else "utf-8-sig"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding=encoding)
