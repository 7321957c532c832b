"""A person who answers on a web page of this machine (see label_server.py); every answer is on disk at once.

`answers.jsonl` in the cycle's folder is the journal (see answer_journal.py): a reload, a second tab, a killed process
or Ctrl-C lose nothing, and asking again goes on where it stood.
"""

from __future__ import annotations

import importlib.util
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aitom_ssl.active.answer_journal import Journal
from aitom_ssl.active.oracle import Answers, Oracle, Query, keep_query
from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.files import claimed

JOURNAL = "answers.jsonl"
_AFTERWARDS = 2.0  # seconds for every tab to hear that it is over; they ask each 1.5 s
_LOOK = 0.1


class BrowserOracle(Oracle):
    """Shows the samples on a page of 127.0.0.1 until all are answered, or the person presses Finish.

    port: 0 takes a free one. say: is told where the page is. The address, with its random token, stays the same for the
    life of this object, so that a tab left open shows the next cycle's samples.
    Raises InputError, when made, where the packages that serve the page are not installed.
    """

    def __init__(self, port: int = 0, say: Callable[[str], None] = print):
        if not 0 <= port <= 65535:
            raise InputError(f"The page's port is {port}: expected 0 (any free one) to 65535.")
        missing = [name for name in ("flask", "waitress") if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"--oracle=browser needs {' and '.join(missing)}: pip install 'aitom_ssl[browser]', or give "
                "--oracle=files."
            )
        self._ports, self._say, self._token = (port,), say, secrets.token_urlsafe(24)

    def ask(self, query: Query, dataset: Dataset, class_names: Sequence[str], folder: Path) -> Answers:
        with claimed(folder / ".answering") as mine:
            if not mine:
                raise InputError(f"Another process asks for the answers in {folder}: use its page, or end it first.")
            keep_query(folder, "browser", query, dataset, class_names)
            journal = Journal(folder / JOURNAL, query.indices, class_names)
            try:
                # Asked again, a person may answer what was skipped: the loop may need more labels than it got.
                if journal.answers().skipped:
                    self._serve(query, dataset, class_names, journal)
                return journal.answers()
            finally:
                journal.close()

    def _serve(self, query: Query, dataset: Dataset, class_names: Sequence[str], journal: Journal) -> None:
        """Return when no more answers will come."""
        from aitom_ssl.active.label_server import ADDRESS, GRACE, Questions, application, served

        questions = Questions(query, dataset, class_names, GRACE)
        with served(application(questions, journal, self._token), self._ports) as port:
            self._ports = (port, self._ports[-1])
            count, before = len(query.indices), journal.answered()
            done = f" ({before} have an answer)" if before else ""
            self._say(
                f"{count} subtomograms wait for their classes{done}. Open\n\n"
                f"    http://{ADDRESS}:{port}/{self._token}/\n\n"
                "in a browser on this machine; on another one, run this there first:\n\n"
                f"    ssh -N -L {port}:{ADDRESS}:{port} THIS_MACHINE\n\n"
                "Every answer is saved as it is given. Ctrl-C here ends the page and keeps them."
            )
            try:
                while not journal.finished:
                    if questions.closes_in(journal) == 0:
                        journal.finish()
                    time.sleep(_LOOK)
                time.sleep(_AFTERWARDS)
            except KeyboardInterrupt:
                kept = f"{journal.answered()} of {count} answers are kept in {journal.path}."
                raise KeyboardInterrupt(kept) from None
        answers = journal.answers()
        counts = f"{len(answers.labels)} labelled, {len(answers.skipped)} skipped, {len(answers.junk)} junk"
        self._say(f"{counts}: the page is closed. A tab left open shows what is asked for next.")
