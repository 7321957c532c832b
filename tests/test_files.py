import errno
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

from aitom_ssl import files
from aitom_ssl.errors import InputError
from aitom_ssl.files import (
    atomic_write,
    build_folder,
    claimed,
    is_disk_full,
    refuse_unwritable,
    remove_leftovers,
    sha256,
    write_csv,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_whole_under_its_name_alone(tmp_path):
    path = tmp_path / "data.json"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole" and names(tmp_path) == ["data.json"]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    values = {"name": "Å", "numbers": [1, 0.5, None]}
    path = write_json(tmp_path / "a.json", values)
    assert json.loads(path.read_text(encoding="utf-8")) == values and "Å" in path.read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        write_json(path, {"name": {1, 2}})
    assert json.loads(path.read_text(encoding="utf-8")) == values and names(tmp_path) == ["a.json"]


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = write_csv(tmp_path / "a.csv", [{"name": "Å, β", "loss": 0.1}, {"name": "b", "accuracy": 1}])
    table = 'name,loss,accuracy\n"Å, β",0.1,\nb,,1\n'
    assert path.read_bytes() == table.encode()
    with pytest.raises(ValueError, match="other"):
        write_csv(path, [{"name": "c"}, {"other": 1}], ["name"])
    assert path.read_bytes() == table.encode() and names(tmp_path) == ["a.csv"]
    assert write_csv(path, [], ["name", "loss"]).read_bytes() == b"name,loss\n"


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "data.txt"
    with atomic_write(str(path)) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_content_and_no_partial_file(tmp_path, error):
    path = tmp_path / "data.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("new")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["data.txt"]


def test_an_exception_before_anything_was_written_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "data.txt"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_text() == "old" and names(tmp_path) == ["data.txt"]


def test_the_bytes_are_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    order = []
    fsync, replace = files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda d: order.append("fsync") or fsync(d))
    monkeypatch.setattr(files.os, "replace", lambda a, b: order.append("replace") or replace(a, b))
    with atomic_write(tmp_path / "data.txt") as temporary:
        temporary.write_text("x")
    assert order == ["fsync", "replace"]


def test_a_disk_that_fills_at_the_end_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "data.txt"
    path.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"), atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old" and names(tmp_path) == ["data.txt"]


def test_the_temporary_name_is_hidden_unique_beside_the_file_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "volumes-00000.npy"
    with atomic_write(path) as first, atomic_write(path) as second:
        assert first != second
        for temporary in (first, second):
            assert temporary.parent == tmp_path and temporary.suffix == ".npy" and temporary.name.startswith(".")
        # numpy.save appends .npy to any other name.
        np.save(first, np.arange(3))
        np.save(second, np.arange(4))
    np.testing.assert_array_equal(np.load(path), np.arange(3))
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_sha256_is_the_digest_of_the_bytes(tmp_path, size):
    content = np.random.default_rng(0).bytes(size)
    path = tmp_path / "data"
    path.write_bytes(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as caught, atomic_write(tmp_path / "taken") as temporary:
        temporary.write_text("x")
    assert caught.value.filename == str(tmp_path / "taken") and names(tmp_path) == ["taken"]


def test_places_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    refuse_unwritable(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(InputError, match=r"file is a file, expected a folder"):
            refuse_unwritable(place)
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written to"):
        refuse_unwritable(tmp_path / "a")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError("Can't write data (error message = 'No space left on device')"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    assert is_disk_full(error) is full


# === Folders ===


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with build_folder(tmp_path / "new" / "1") as temporary:
        (temporary / "part").write_text("half")
        assert not (tmp_path / "new" / "1").exists()
        assert not temporary.name.isdigit() and temporary.parent == tmp_path / "new"
        inode = temporary.stat().st_ino
    assert names(tmp_path / "new") == ["1"] and names(tmp_path / "new" / "1") == ["part"]
    assert (tmp_path / "new" / "1").stat().st_ino == inode  # renamed, not copied


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_folder_that_failed(tmp_path, error):
    with pytest.raises(error), build_folder(tmp_path / "1") as temporary:
        (temporary / "part").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_an_empty_folder_gives_way_and_a_full_one_is_kept(tmp_path):
    (tmp_path / "1").mkdir()
    with build_folder(tmp_path / "1") as temporary:
        (temporary / "mine").write_text("")
    assert names(tmp_path / "1") == ["mine"]
    with pytest.raises(InputError, match="written by someone else"), build_folder(tmp_path / "1") as temporary:
        (temporary / "other").write_text("")
    assert names(tmp_path) == ["1"] and names(tmp_path / "1") == ["mine"]


def test_a_claim_is_one_processs_own(tmp_path):
    with claimed(tmp_path / "x" / "claim") as first, claimed(tmp_path / "x" / "claim") as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path / "x" / "claim") as again:
        assert again


def count_up(folder):
    for _ in range(50):
        with claimed(folder / "claim", wait=True) as mine:
            assert mine
            number = int((folder / "number").read_text())
            (folder / "number").write_text(str(number + 1))


def test_processes_that_wait_for_a_claim_have_it_one_after_another(tmp_path):
    (tmp_path / "number").write_text("0")
    processes = [multiprocessing.get_context("fork").Process(target=count_up, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert (tmp_path / "number").read_text() == "200" and names(tmp_path) == ["number"]


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    dead = folder / ".volumes-00009.999999999-abc.partial.npy"
    alive = folder / f".volumes-00009.{os.getpid()}-abc.partial.npy"
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # over, and not yet collected
    zombie = folder / f".volumes-00009.{process.pid}-abc.partial.npy"
    for path in (dead, alive, zombie):
        path.write_bytes(b"half")
    remove_leftovers(tmp_path)
    process.wait()
    assert (dead.exists(), alive.exists(), zombie.exists()) == (False, True, False)
