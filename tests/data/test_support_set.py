"""Support sets: what is an example of which class, and what is refused."""

import numpy as np
import pytest

from aitom_ssl.data.sources import Reading
from aitom_ssl.data.support_set import open_support
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import write_mrc


def example(seed, side=6):
    return np.random.default_rng(seed).normal(5, 2, (side,) * 3).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    write_mrc(tmp_path / "b.mrc", example(0), 10.0)
    write_mrc(tmp_path / "a c" / "1.mrc", example(1), 10.0)
    write_mrc(tmp_path / "a c" / "2.map", example(2), 10.0)
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


def test_files_and_sub_folders_are_classes(folder):
    found = open_support(folder, Reading())
    assert found.class_names == ["a c", "b"] and found.labels.tolist() == [0, 0, 1]
    assert (found.size, found.voxel_size, found.contrast) == (6, 10.0, "bright")
    assert found.columns["path"] == ["a c/1.mrc", "a c/2.map", "b.mrc"]
    volume = example(0)
    np.testing.assert_allclose(found.read(np.array([2]))[0], (volume - volume.mean()) / volume.std(), atol=1e-5)


def test_a_box_is_cropped_and_the_contrast_is_taken_over(folder):
    found = open_support(folder, Reading(box_size=4, voxel_size=12.0, invert_contrast=True))
    assert (found.size, found.voxel_size, found.contrast) == (4, 12.0, "dark")


def test_another_example_is_another_support_set(folder):
    before = open_support(folder, Reading()).identity
    write_mrc(folder / "d.mrc", example(3), 10.0)
    assert open_support(folder, Reading()).identity != before


@pytest.mark.parametrize(
    ("add", "words"),
    [
        ({"b/1.mrc": example(5)}, r"'b' is twice .*\(b/1\.mrc and b\.mrc\)|'b' is twice"),
        ({"b.map": example(5)}, r"'b' is twice"),
        ({"b.mrc.gz.map": example(0)}, "same volume"),
        ({"none.mrc": example(5)}, "rename"),
        ({"d.mrc": example(5, 8)}, "differ in size"),
        ({"copy.mrc": example(1)}, r"1\.mrc and .*copy\.mrc are the same volume"),
    ],
)
def test_what_is_no_support_set_is_refused(folder, add, words):
    for name, volume in add.items():
        write_mrc(folder / name, volume, 10.0)
    with pytest.raises(InputError, match=words):
        open_support(folder, Reading())


def test_other_voxel_sizes_empty_classes_and_folders_are_refused(folder, tmp_path):
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="empty class"):
        open_support(folder, Reading())
    (folder / "empty").rmdir()
    write_mrc(folder / "d.mrc", example(5), 11.0)
    with pytest.raises(InputError, match="differ in voxel size"):
        open_support(folder, Reading())
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no MRC file"):
        open_support(tmp_path / "bare", Reading())
    with pytest.raises(InputError, match="no such folder"):
        open_support(tmp_path / "gone", Reading())
