"""The journal of answers: what stands after any order of answers, and after a process died at any byte of the file."""

import json
import os
import threading

import numpy as np
import pytest

from aitom_ssl.active.answer_journal import Disagreement, Journal
from aitom_ssl.active.oracle import Answers
from aitom_ssl.errors import InputError

NAMES = ["a", "b", "größe"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


@pytest.fixture
def journal(path):
    opened = Journal(path, [7, 2, 5, 9], NAMES)
    yield opened
    opened.close()


def again(path, indices=(7, 2, 5, 9), names=NAMES):
    """What another process finds."""
    other = Journal(path, indices, names)
    other.close()
    return other


def test_every_answer_is_on_disk_when_the_call_returns(journal, path):
    steps = [(7, 2), (2, "skip"), (9, "junk"), (5, 0)]
    for count, (sample, answer) in enumerate(steps, 1):
        journal.answer(sample, answer, None)
        assert again(path).answers() == journal.answers()
        assert again(path).answered() == count
    assert journal.answers() == Answers({7: 2, 5: 0}, (2,), (9,))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["did"] for line in lines] == ["label", "skip", "junk", "label"]
    assert lines[0]["class"] == "größe"


def test_it_is_fsynced_before_the_call_returns(journal, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal.answer(7, 1, None)
    journal.undo(7, 1)
    assert len(synced) == 2 and 0 < synced[0] < synced[1] == journal.path.stat().st_size


def test_samples_without_an_answer_are_skipped(journal):
    journal.answer(5, 1, None)
    assert journal.answers() == Answers({5: 1}, (7, 2, 9), ())


def test_undo_brings_back_what_stood_before(journal, path):
    journal.answer(7, 0, None)
    journal.answer(2, 1, None)
    journal.answer(7, "junk", 0)
    assert journal.state().last == 7
    for expected, last in (([0, 1, None, None], 2), ([0, None, None, None], 7), ([None] * 4, None)):
        state = journal.state()
        place = [7, 2, 5, 9].index(state.last)
        journal.undo(state.last, state.answers[place])
        assert journal.state()[:2] == (expected, last) == again(path).state()[:2]
    with pytest.raises(Disagreement, match="not the last"):
        journal.undo(7, None)


def test_who_saw_something_else_changes_nothing(journal, path):
    journal.answer(7, 0, None)
    before = path.read_bytes()
    for attempt in (
        lambda: journal.answer(7, 1, None),  # a second tab, which has not seen the answer
        lambda: journal.answer(7, 1, "skip"),
        lambda: journal.answer(8, 1, None),
        lambda: journal.undo(7, 1),
        lambda: journal.undo(2, None),
    ):
        with pytest.raises(Disagreement):
            attempt()
    assert path.read_bytes() == before and journal.state().answers == [0, None, None, None]
    journal.answer(7, 1, 0)
    assert journal.state().answers == [1, None, None, None]


def test_after_the_end_no_answer_is_taken_until_it_is_opened_again(journal, path):
    journal.answer(7, 0, None)
    journal.finish()
    with pytest.raises(Disagreement, match="finished"):
        journal.answer(2, 0, None)
    with pytest.raises(Disagreement, match="finished"):
        journal.undo(7, 0)
    reopened = Journal(path, [7, 2, 5, 9], NAMES)
    reopened.answer(2, 0, None)
    reopened.close()
    assert again(path).answers().labels == {7: 0, 2: 0}


def test_a_process_that_died_while_it_wrote_loses_only_what_it_never_confirmed(path):
    journal = Journal(path, [7, 2, 5], NAMES)
    sizes = [0]
    for sample in (7, 2, 5):
        journal.answer(sample, 2, None)
        sizes.append(path.stat().st_size)
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        confirmed = sum(size <= cut for size in sizes[1:])
        assert again(path, [7, 2, 5]).answered() == confirmed
        assert path.read_bytes() == whole[: sizes[confirmed]]
    opened = Journal(path, [7, 2, 5], NAMES)  # and it goes on
    opened.answer(7, 0, 2)
    opened.close()
    assert again(path, [7, 2, 5]).answers().labels == {7: 0, 2: 2, 5: 2}


def test_a_full_disk_leaves_file_and_state_as_they_were(journal, path, monkeypatch):
    journal.answer(7, 0, None)
    before = path.read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: write(file, line[:9]))
        with pytest.raises(OSError, match="only 9 of"):
            journal.answer(2, 1, None)
    assert path.read_bytes() == before and journal.state().answers == [0, None, None, None]
    journal.answer(2, 1, None)
    assert again(path).answers().labels == {7: 0, 2: 1}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "line 2"),
        ('{"sample": 8, "did": "skip"}', "sample 8 was not asked for"),
        ('{"sample": 2, "did": "label", "class": "d"}', "'d' is not in list"),
        ('{"sample": 2, "did": "sing"}', "'sing' is nothing that can be done"),
        ('{"sample": 2, "did": "undo"}', "sample 2 was not the last"),
        ('{"did": "label"}', "sample"),
        ("[]", "line 2"),
    ],
)
def test_a_damaged_line_is_named_and_kept(path, line, says):
    text = '{"sample": 7, "did": "skip"}\n' + line + "\n"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        again(path)
    assert "line 2" in str(error.value) and path.read_text() == text


def test_many_threads_write_whole_lines(path):
    journal = Journal(path, range(64), NAMES)
    crowd = [threading.Thread(target=journal.answer, args=(k, k % 3, None)) for k in range(64)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    journal.close()
    assert again(path, range(64)).answers().labels == {k: k % 3 for k in range(64)}


def test_any_history_is_read_back_as_it_stands(path):
    rng = np.random.default_rng(0)
    journal, plain, history = Journal(path, range(5), NAMES), dict.fromkeys(range(5)), []
    for _ in range(200):
        if history and rng.random() < 0.4:
            sample, before = history.pop()
            journal.undo(sample, plain[sample])
            plain[sample] = before
        else:
            sample, answer = int(rng.integers(5)), [0, 1, 2, "skip", "junk"][rng.integers(5)]
            journal.answer(sample, answer, plain[sample])
            history.append((sample, plain[sample]))
            plain[sample] = answer
    journal.close()
    assert journal.state().answers == list(plain.values()) == again(path, range(5)).state().answers
