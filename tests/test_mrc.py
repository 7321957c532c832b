"""MRC volumes: axis order, voxel size, memory, and files that are not what they say."""

import gzip
import os

import mrcfile
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.mrc import choose_voxel_size, is_mrc_name, read_header, read_mrc, write_mrc, write_slices


@pytest.fixture
def volume():
    return np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)


def raw_mrc(path, data, voxel_size=10.0, **header):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        file.voxel_size = voxel_size
        for name, value in header.items():
            file.header[name] = value
    return path


def compressed(path):
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def test_what_is_written_is_read_back_exactly_with_its_voxel_size(tmp_path, volume):
    write_mrc(tmp_path / "a.mrc", volume, 13.48)
    data, header = read_mrc(tmp_path / "a.mrc")
    np.testing.assert_array_equal(data, volume)
    assert header.shape == (3, 4, 5)
    assert header.voxel_size == pytest.approx(13.48, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, np.float32])
def test_each_real_mode_is_read_in_its_own_type_gzipped_or_not(tmp_path, volume, dtype):
    data = (volume * 20).clip(0, 100).astype(dtype)
    path = raw_mrc(tmp_path / "a.mrc", data)
    for source in (path, compressed(path)):
        read, _ = read_mrc(source)
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, data)


def test_an_uncompressed_volume_is_mapped_and_no_volume_can_be_written_to(tmp_path, volume):
    path = raw_mrc(tmp_path / "a.mrc", volume)
    mapped, _ = read_mrc(path)
    assert isinstance(mapped, np.memmap)
    unpacked, _ = read_mrc(compressed(path))
    for data in (mapped, unpacked):
        with pytest.raises(ValueError):
            data[0, 0, 0] = 1


def test_columns_that_are_z_are_turned_back(tmp_path, volume):
    # MAPC, MAPR, MAPS = 3, 2, 1: the fastest axis of the file is z, the slowest x.
    path = raw_mrc(tmp_path / "a.mrc", np.ascontiguousarray(volume.transpose(2, 1, 0)), mapc=3, mapr=2, maps=1)
    data, header = read_mrc(path)
    np.testing.assert_array_equal(data, volume)
    assert header.shape == volume.shape
    cyclic = raw_mrc(tmp_path / "b.mrc", np.ascontiguousarray(volume.transpose(1, 2, 0)), mapc=3, mapr=1, maps=2)
    np.testing.assert_array_equal(read_mrc(cyclic)[0], volume)


def test_unsigned_bytes_of_old_imod_are_not_read_as_negative(tmp_path):
    data = np.arange(60, dtype=np.uint8).reshape(3, 4, 5) + 180
    path = raw_mrc(tmp_path / "a.mrc", data.view(np.int8))
    assert read_mrc(path)[0].min() < 0
    with open(path, "r+b") as file:
        file.seek(152)
        file.write(np.array([1146047817, 0], dtype="<i4").tobytes())
    np.testing.assert_array_equal(read_mrc(path)[0], data)
    with open(path, "r+b") as file:
        file.seek(156)
        file.write(np.array([1], dtype="<i4").tobytes())
    np.testing.assert_array_equal(read_mrc(path)[0], data.view(np.int8))


@pytest.mark.parametrize("bad", [0.0, np.nan, -3.0, (10.0, 10.0, 20.0)])
def test_a_voxel_size_that_cannot_be_used_asks_for_the_flag(tmp_path, volume, bad):
    path = raw_mrc(tmp_path / "a.mrc", volume, bad)
    header = read_header(path)
    assert header.voxel_size is None
    with pytest.raises(InputError, match="--voxel_size=ANGSTROMS") as caught:
        choose_voxel_size(header, None, path)
    assert str(path) in str(caught.value)
    assert choose_voxel_size(header, 12.5, path) == 12.5
    with pytest.raises(InputError, match="positive"):
        choose_voxel_size(header, 0.0, path)


def test_a_cut_off_file_is_named_compressed_or_not(tmp_path, volume):
    path = raw_mrc(tmp_path / "a.mrc", volume)
    packed = compressed(path)
    os.truncate(path, path.stat().st_size - 7)
    os.truncate(packed, packed.stat().st_size - 7)
    for broken in (path, packed):
        with pytest.raises(InputError, match="truncated") as caught:
            read_mrc(broken)
        assert str(broken) in str(caught.value)
    short = tmp_path / "short.mrc.gz"
    short.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="data end early"):
        read_mrc(short)


def test_a_damaged_gzip_is_caught_by_its_checksum(tmp_path, volume):
    packed = compressed(raw_mrc(tmp_path / "a.mrc", volume))
    content = bytearray(packed.read_bytes())
    content[-6] ^= 0xFF  # the checksum itself
    packed.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        read_mrc(packed)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"x,y,z\n" * 1000, bytes(2048), b"\x1f\x8b not gzip" * 200])
def test_what_is_no_mrc_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a.mrc"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_images_stacks_of_volumes_and_transforms_are_refused(tmp_path, volume):
    with pytest.raises(InputError, match="complex"):
        read_header(raw_mrc(tmp_path / "a.mrc", volume.astype(np.complex64)))
    with pytest.raises(InputError, match="one 3-D volume"):
        read_header(raw_mrc(tmp_path / "b.mrc", volume[0]))
    with pytest.raises(InputError, match="one 3-D volume"):
        read_header(raw_mrc(tmp_path / "c.mrc", np.stack([volume, volume])))
    with pytest.raises(InputError, match="No file"):
        read_header(tmp_path / "none.mrc")


def test_names_of_volumes():
    assert all(is_mrc_name(name) for name in ("a.mrc", "a.MRC", "a.map", "a.rec", "a.mrc.gz", "a.rec.gz"))
    assert not any(is_mrc_name(name) for name in ("a.mrcs", "._a.mrc", "a.gz", "a.txt", "mrc"))


def test_the_real_tomogram_and_averages(shared_folder):
    data, header = read_mrc(next((shared_folder / "real" / "tomogram").glob("*.mrc.gz")))
    assert data.shape == (80, 316, 326) and data.dtype == np.int8
    assert header.voxel_size == 20.0
    data, header = read_mrc(shared_folder / "real" / "averages" / "chlamy_hsp60.mrc")
    assert data.shape == (48, 48, 48) and header.voxel_size == pytest.approx(7.84)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint16])
def test_slices_make_the_volume_that_they_are_of(tmp_path, volume, dtype):
    volume = np.abs(100 * volume).astype(dtype)
    write_slices(tmp_path / "v.mrc", iter(volume), volume.shape, 7.5, dtype)
    found, header = read_mrc(tmp_path / "v.mrc")
    np.testing.assert_array_equal(found, volume)
    assert header.voxel_size == 7.5 and found.dtype == dtype
    assert mrcfile.validate(tmp_path / "v.mrc")
    with mrcfile.open(tmp_path / "v.mrc") as file:
        stated = [float(file.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        assert file.is_volume()
    np.testing.assert_allclose(stated, [volume.min(), volume.max(), volume.mean(), volume.std()], rtol=1e-5)


def test_slices_may_be_images_of_their_own(tmp_path, volume):
    write_slices(tmp_path / "s.mrcs", volume, volume.shape, 7.5, stack=True)
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        assert file.is_image_stack() and float(file.voxel_size.x) == float(file.voxel_size.z) == 7.5
        np.testing.assert_array_equal(file.data, volume)


@pytest.mark.parametrize("slices", [2, 4])
def test_too_few_or_too_many_slices_leave_no_file(tmp_path, slices):
    with pytest.raises(ValueError, match=f"{slices} slices came, expected 3"):
        write_slices(tmp_path / "v.mrc", np.zeros((slices, 4, 5)), (3, 4, 5), 1.0)
    with pytest.raises(ValueError, match="a slice is"):
        write_slices(tmp_path / "v.mrc", np.zeros((3, 5, 4)), (3, 4, 5), 1.0)
    assert list(tmp_path.iterdir()) == []
