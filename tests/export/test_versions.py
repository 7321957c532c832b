"""Numbered version folders: which comes next, and which is the newest."""

import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.export.versions import GRAPH, new_version, newest_version, versions


def put(folder):
    folder.mkdir(parents=True)
    (folder / GRAPH).write_bytes(b"graph")
    return folder


def test_the_next_number_is_free(tmp_path):
    assert new_version(tmp_path / "new") == tmp_path / "new" / "1"
    for name in ("2", "10"):
        put(tmp_path / name)
    (tmp_path / "99").write_text("a file")
    put(tmp_path / "v100")
    put(tmp_path / ".11.1-abc.partial")
    assert versions(tmp_path) == [2, 10]
    assert new_version(tmp_path) == tmp_path / "11"
    assert new_version(tmp_path, 3) == tmp_path / "3"
    assert newest_version(tmp_path) == tmp_path / "10"
    assert newest_version(tmp_path / "2") == tmp_path / "2"


def test_what_cannot_be_a_new_version(tmp_path):
    put(tmp_path / "m" / "1")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="has a version 1 already: the next free one is 2"):
        new_version(tmp_path / "m", 1)
    with pytest.raises(InputError, match=r"m/1 is a SavedModel itself, expected .*m\."):
        new_version(tmp_path / "m" / "1")
    with pytest.raises(InputError, match="is a file"):
        new_version(tmp_path / "file")
    for version in (0, -1, "2", 1.0, True):
        with pytest.raises(InputError, match="must be a whole number, 1 or more"):
            new_version(tmp_path / "m", version)


def test_where_there_is_no_savedmodel(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(InputError, match=r"1 holds no SavedModel \(no saved_model.pb\)"):
        newest_version(tmp_path)
    for missing in (tmp_path / "1", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"holds no SavedModel .*no numbered folder"):
            newest_version(missing)
