"""From particles to a dataset: splits, normalisation, contrast, provenance."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.importers.particles import (
    ContrastCheck,
    Particles,
    assign_splits,
    parse_splits,
    prepare_pair,
    prepare_volume,
    write_particles,
)
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import euler_zyz_to_quaternion


def particles(volumes, labels, class_names=(), **columns):
    return Particles(
        class_names=list(class_names),
        labels=np.array(labels),
        voxel_size=10.0,
        size=volumes[0].shape[0],
        read=lambda i: {"volume": volumes[i], **{name: values[i] for name, values in columns.items()}},
        describe=lambda i: f"particle {i}",
        source={"kind": "test"},
    )


def blobs(count, sign=1.0):
    rng = np.random.default_rng(3)
    offset = np.arange(8) - 4
    r2 = offset[:, None, None] ** 2 + offset[None, :, None] ** 2 + offset[None, None, :] ** 2
    return [sign * np.exp(-r2 / 4) + 0.3 * rng.standard_normal((8, 8, 8)) + 50 for _ in range(count)]


def test_each_class_is_shared_out_in_the_given_fractions():
    labels = np.repeat([0, 1, 2, -1], [50, 10, 3, 7])
    parts = assign_splits(labels, {"train": 0.6, "validation": 0.2, "test": 0.2}, seed=4)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(70))
    assert [np.sum(labels[parts[s]] == 0) for s in parts] == [30, 10, 10]
    assert [np.sum(labels[parts[s]] == 1) for s in parts] == [6, 2, 2]
    for label, count in ((2, 3), (-1, 7)):
        for split, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
            assert abs(np.sum(labels[parts[split]] == label) - share * count) < 1


def test_the_split_is_a_function_of_the_seed_and_random():
    labels = np.zeros(40, dtype=int)
    first, again, other = (assign_splits(labels, {"train": 0.5, "test": 0.5}, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["train"], again["train"])
    assert not np.array_equal(first["train"], other["train"])
    assert not np.array_equal(first["train"], np.arange(20))


def test_a_class_keeps_its_split_when_another_class_is_added():
    alone = assign_splits(np.zeros(20, dtype=int), {"train": 0.5, "test": 0.5}, 0)
    joined = assign_splits(np.repeat([0, 1], 20), {"train": 0.5, "test": 0.5}, 0)
    np.testing.assert_array_equal(alone["train"], joined["train"][joined["train"] < 20])


@pytest.mark.parametrize("text", ["train", "train=x", "train=0.5,test=0.6", "train=-0.5,test=1.5", "trian=1"])
def test_bad_splits_are_refused(text):
    with pytest.raises(InputError, match="--splits"):
        assign_splits(np.zeros(3, dtype=int), parse_splits(text), 0)
    with pytest.raises(InputError, match="--seed=-1: expected 0 or more"):
        assign_splits(np.zeros(3, dtype=int), {"train": 1.0}, -1)


def test_standardised_and_inverted():
    volume = np.random.default_rng(0).normal(1000, 5, (8, 8, 8)).astype(np.float32)
    out = prepare_volume(volume, False, "zscore", "x")
    assert out.dtype == np.float32
    assert abs(out.mean()) < 1e-5 and out.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(prepare_volume(volume, True, "zscore", "x"), -out)
    np.testing.assert_array_equal(prepare_volume(volume, False, "none", "x"), volume)
    smooth = gaussian_filter(volume.astype(np.float32), 1.5, mode="nearest")
    np.testing.assert_array_equal(prepare_volume(volume, False, "none", "x", sigma=1.5), smooth)
    standard = prepare_volume(volume, False, "zscore", "x", sigma=1.5)
    assert abs(standard.mean()) < 1e-4 and abs(standard.std() - 1) < 1e-4
    np.testing.assert_array_equal(prepare_volume(volume.astype(np.int16), True, "none", "x"), -volume.astype(np.int16))


@pytest.mark.parametrize("normalize", ["zscore", "none"])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_a_half_goes_the_way_of_its_whole(normalize, invert, sigma):
    """So that the mean of the halves stays the whole."""
    first, second = np.random.default_rng(0).normal(20, 5, (2, 8, 8, 8))
    whole, half = prepare_pair((first + second) / 2, second, invert, normalize, "x", sigma)
    np.testing.assert_array_equal(whole, prepare_volume((first + second) / 2, invert, normalize, "x", sigma))
    smooth = [gaussian_filter(image, sigma, mode="nearest") if sigma else image for image in (first, second)]
    mean, deviation = np.mean(smooth), np.std((smooth[0] + smooth[1]) / 2)
    sign = -1 if invert else 1
    expected = sign * (smooth[1] if normalize == "none" else (smooth[1] - mean) / deviation)
    np.testing.assert_allclose(half, expected, atol=1e-4)
    other = sign * (smooth[0] if normalize == "none" else (smooth[0] - mean) / deviation)
    np.testing.assert_allclose(2 * whole - half, other, atol=1e-4)


def test_halves_are_written_where_the_importer_gives_them(tmp_path):
    images = blobs(10)
    source = particles(images, [-1] * 10, half=[image + 1 for image in images])
    write_particles(source, tmp_path / "d", normalize="none")
    train = Dataset(tmp_path / "d", "train")
    a, b = train.halves(range(len(train)))
    np.testing.assert_allclose(a - b, -2, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_name_the_particle(value):
    volume = np.arange(27.0).reshape(3, 3, 3)
    volume[1, 1, 1] = value
    with pytest.raises(InputError, match=r"tomo7.mrc has 1 voxels"):
        prepare_volume(volume, False, "zscore", "tomo7.mrc")


def test_a_constant_particle_is_named():
    with pytest.raises(InputError, match=r"tomo7.mrc is constant"):
        prepare_volume(np.full((3, 3, 3), 0.1), False, "none", "tomo7.mrc")


def test_the_dataset_has_everything_that_was_known(tmp_path):
    angles = np.array([[10.0, 20.0, 30.0]] * 10)
    source = particles(
        blobs(10), [0, 1] * 5, ["a", "b"], quaternion=euler_zyz_to_quaternion(angles), shift=np.full((10, 3), 0.25)
    )
    counts = write_particles(source, tmp_path / "d", splits={"train": 0.6, "test": 0.4}, seed=5)
    assert counts == {"train": {"a": 3, "b": 3}, "test": {"a": 2, "b": 2}}
    train = Dataset(tmp_path / "d", "train")
    assert (train.name, train.voxel_size, train.contrast, train.size) == ("d", 10.0, "bright", 8)
    assert train.standardized and train.class_names == ["a", "b"]
    for i in range(len(train)):
        sample = train[i]
        expected = prepare_volume(source.read(int(sample["index"]))["volume"], False, "zscore", "")
        np.testing.assert_array_equal(sample["volume"], expected)
        np.testing.assert_allclose(sample["euler_zyz"], [10, 20, 30], atol=1e-9)
        assert sample["label"] == sample["index"] % 2
    assert train.metadata["source"] == {"kind": "test"}
    assert train.metadata["invert_contrast"] is False and train.metadata["normalize"] == "zscore"
    assert json.loads((tmp_path / "d" / "dataset.json").read_text())["metadata"]["seed"] == 5


def test_default_splits_depend_on_labels(tmp_path):
    counts = write_particles(particles(blobs(10), [0] * 10, ["a"]), tmp_path / "a")
    assert counts == {"train": {"a": 6}, "validation": {"a": 2}, "test": {"a": 2}}
    assert write_particles(particles(blobs(10), [-1] * 10), tmp_path / "b") == {
        "train": {"unlabelled": 9},
        "validation": {"unlabelled": 1},
    }


def test_dark_particles_are_noticed_and_bright_ones_are_not(tmp_path):
    dark = particles(blobs(12, sign=-1.0), [-1] * 12)
    write_particles(dark, tmp_path / "a")
    assert "--invert_contrast" in dark.notes[-1]
    for source, invert in ((particles(blobs(12), [-1] * 12), False), (particles(blobs(12, -1.0), [-1] * 12), True)):
        write_particles(source, tmp_path / "b", invert_contrast=invert)
        assert source.notes == []


def test_noise_has_no_contrast():
    check = ContrastCheck(8)
    rng = np.random.default_rng(0)
    for _ in range(50):
        check.add(rng.standard_normal((8, 8, 8)))
    assert not check.looks_dark()


def test_a_failed_import_leaves_the_dataset_that_was_there(tmp_path):
    write_particles(particles(blobs(4), [-1] * 4), tmp_path / "d")
    broken = particles([*blobs(3), np.zeros((8, 8, 8))], [-1] * 4)
    with pytest.raises(InputError, match="particle 3 is constant"):
        write_particles(broken, tmp_path / "d", splits={"train": 1.0})
    Dataset(tmp_path / "d", "train").verify()
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    with pytest.raises(InputError, match="--normalize"):
        write_particles(particles(blobs(4), [-1] * 4), tmp_path / "e", normalize="minmax")
