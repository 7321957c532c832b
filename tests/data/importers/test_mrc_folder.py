"""A folder of subtomograms: classes, sizes, voxel sizes."""

import gzip
import hashlib
import os

import numpy as np
import pytest

from aitom_ssl.data.importers.mrc_folder import central_crop, folder_particles
from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.mrc import write_mrc


def cube(size, seed=0):
    return np.random.default_rng(seed).standard_normal((size, size, size)).astype(np.float32)


def test_sub_folders_are_classes_and_loose_files_are_unlabelled(tmp_path):
    ignored = ["b/.hidden.mrc", "b/notes.txt", "empty/a.txt"]
    for k, name in enumerate(["b/2.mrc", "b/1.mrc", "a/x.map", "loose.rec", *ignored]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_mrc(tmp_path / name, cube(4, k), 10.0)
    packed = tmp_path / "a" / "y.mrc.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a" / "x.map").read_bytes()))
    found = folder_particles(tmp_path)
    assert found.class_names == ["a", "b"]
    assert found.labels.tolist() == [-1, 0, 0, 1, 1]
    samples = [found.read(i) for i in range(len(found))]
    assert [s["path"] for s in samples] == ["loose.rec", "a/x.map", "a/y.mrc.gz", "b/1.mrc", "b/2.mrc"]
    for sample, seed in zip(samples, (3, 2, 2, 1, 0), strict=True):
        np.testing.assert_array_equal(sample["volume"], cube(4, seed))
    assert (found.size, found.voxel_size) == (4, 10.0)
    assert found.source["files"] == 5
    names = ["loose.rec", "a/x.map", "a/y.mrc.gz", "b/1.mrc", "b/2.mrc"]
    text = "".join(f"{name} {sha256(tmp_path / name)}\n" for name in names)
    assert found.source["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_crop_keeps_the_centre_voxel():
    for n in (6, 7):
        for size in (2, 3, 4, 5):
            volume = np.zeros((n, n, n))
            volume[n // 2, n // 2, n // 2] = 1
            assert central_crop(volume, size)[size // 2, size // 2, size // 2] == 1
            assert central_crop(volume, size).shape == (size,) * 3


def test_mixed_sizes_are_listed_and_a_box_crops_them(tmp_path):
    for name, size in (("a", 6), ("b", 8), ("c", 8)):
        write_mrc(tmp_path / f"{name}.mrc", cube(size), 10.0)
    with pytest.raises(InputError, match=r"1 of 6\^3, 2 of 8\^3.*--box_size=6"):
        folder_particles(tmp_path)
    assert folder_particles(tmp_path, box_size=6).size == 6
    with pytest.raises(InputError, match=r"a.mrc is 6x6x6 voxels .*smaller than --box_size=7"):
        folder_particles(tmp_path, box_size=7)
    with pytest.raises(InputError, match="--box_size=0"):
        folder_particles(tmp_path, box_size=0)


def test_volumes_that_are_no_cubes_need_a_box(tmp_path):
    write_mrc(tmp_path / "a.mrc", np.ones((4, 6, 8)), 10.0)
    with pytest.raises(InputError, match="8x6x4 voxels"):
        folder_particles(tmp_path)
    assert folder_particles(tmp_path, box_size=4).read(0)["volume"].shape == (4, 4, 4)


def test_voxel_sizes_must_agree_or_be_given(tmp_path):
    write_mrc(tmp_path / "a.mrc", cube(4), 10.0)
    write_mrc(tmp_path / "b.mrc", cube(4), 13.0)
    with pytest.raises(InputError, match="1 of 10 A, 1 of 13 A"):
        folder_particles(tmp_path)
    assert folder_particles(tmp_path, voxel_size=11.0).voxel_size == 11.0
    write_mrc(tmp_path / "b.mrc", cube(4), 0.0)
    with pytest.raises(InputError, match=r"b.mrc has a voxel size of 0 A.*--voxel_size"):
        folder_particles(tmp_path)


def test_broken_files_are_named_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        folder_particles(tmp_path / "none")
    with pytest.raises(InputError, match="no MRC file"):
        folder_particles(tmp_path)
    write_mrc(tmp_path / "a.mrc", cube(4), 10.0)
    write_mrc(tmp_path / "z.mrc", cube(4), 10.0)
    os.truncate(tmp_path / "z.mrc", 1100)
    with pytest.raises(InputError, match=r"z.mrc is truncated"):
        folder_particles(tmp_path)
    (tmp_path / "z.mrc").write_text("not an MRC file")
    with pytest.raises(InputError, match=r"z.mrc cannot be read"):
        folder_particles(tmp_path)
