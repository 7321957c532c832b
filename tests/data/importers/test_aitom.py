"""AITom's layout: its axes, its angles, and a round trip that changes nothing."""

import json

import mrcfile
import numpy as np
import pytest

from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.importers.aitom import aitom_folders, aitom_particles, export_aitom
from aitom_ssl.data.importers.particles import write_particles
from aitom_ssl.data.shards import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import euler_zyz_to_quaternion, quaternion_to_matrix


def write_aitom(folder, index, array_xyz, label, voxel_size=0.0):
    """As AITom does: the array as it is, no voxel size."""
    (folder / "subtomogram_mrc").mkdir(parents=True, exist_ok=True)
    (folder / "json_label").mkdir(exist_ok=True)
    with mrcfile.new(folder / "subtomogram_mrc" / f"tomotarget{index}.mrc", overwrite=True) as file:
        file.set_data(array_xyz.astype(np.float32))
        file.voxel_size = voxel_size
    (folder / "json_label" / f"target{index}.json").write_text(json.dumps(label))


def label(name="1bxn", loc=(0, 0, 0), rotate=(0.0, 0.0, 0.0)):
    return {"loc": list(loc), "rotate": list(rotate), "name": name}


def test_arrays_loc_and_rotate_mean_what_they_mean_in_aitom(tmp_path):
    # A bar along the particle's own z axis, placed at loc and turned so that it points along x.
    loc, rotate = np.array([2, -1, 1]), np.array([0.0, np.pi / 2, 0.0])
    array = np.zeros((9, 9, 9))
    for step in range(3):
        array[tuple(4 + loc + step * np.array([1, 0, 0]))] = 1
    write_aitom(tmp_path, 0, array, label(loc=loc.tolist(), rotate=rotate.tolist()))
    sample = aitom_particles(tmp_path, voxel_size=10.0).read(0)
    np.testing.assert_array_equal(sample["shift"], loc)
    axis = quaternion_to_matrix(sample["quaternion"]) @ [0, 0, 1]
    np.testing.assert_allclose(axis, [1, 0, 0], atol=1e-12)
    for step in range(3):
        x, y, z = np.rint(4 + sample["shift"] + step * axis).astype(int)
        assert sample["volume"][z, y, x] == 1


def test_files_are_matched_and_ordered_by_number(tmp_path):
    for index in (10, 9, 2):
        write_aitom(tmp_path, index, np.full((4, 4, 4), index), label(name=f"p{index}"), voxel_size=10.0)
    found = aitom_particles(tmp_path)
    assert [found.read(i)["volume"][0, 0, 0] for i in range(3)] == [2, 9, 10]
    assert [found.class_names[k] for k in found.labels] == ["p2", "p9", "p10"]
    assert found.class_names == ["p10", "p2", "p9"]


def test_a_folder_a_class_below_one_snr_folder_and_a_choice_between_several(tmp_path):
    for snr in ("SNR003", "SNRinfinity"):
        for name in ("1bxn", "2byu"):
            write_aitom(tmp_path / snr / name, 0, np.random.default_rng(1).random((4, 4, 4)), label(name), 10.0)
    one = aitom_particles(tmp_path / "SNR003")
    assert one.class_names == ["1bxn", "2byu"] and len(one) == 2
    assert len(aitom_particles(tmp_path / "SNR003" / "1bxn")) == 1
    with pytest.raises(InputError, match=r"several sets \(SNR003, SNRinfinity\).*SNR003"):
        aitom_particles(tmp_path)
    assert aitom_folders(tmp_path / "nothing") == []


def test_the_original_sets_need_a_voxel_size(tmp_path):
    write_aitom(tmp_path, 0, np.random.default_rng(1).random((4, 4, 4)), label())
    with pytest.raises(InputError, match=r"voxel size of 0 A.*--voxel_size"):
        aitom_particles(tmp_path)


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"loc": [1, 2], "name": "a"}', '{"rotate": ["x", 0, 0], "name": "a"}', '{"loc": [0, 0, 0]}']
)
def test_a_broken_label_is_named(tmp_path, broken):
    write_aitom(tmp_path, 0, np.ones((4, 4, 4)), label(), 10.0)
    path = tmp_path / "json_label" / "target0.json"
    path.write_text(broken)
    with pytest.raises(InputError, match=r"target0.json is not a label"):
        aitom_particles(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"tomotarget0.mrc has no label"):
        aitom_particles(tmp_path)


def test_a_stray_name_and_an_empty_layout_are_refused(tmp_path):
    (tmp_path / "subtomogram_mrc").mkdir()
    with pytest.raises(InputError, match=r"no subtomogram_mrc/tomotarget"):
        aitom_particles(tmp_path)
    write_aitom(tmp_path, 0, np.ones((4, 4, 4)), label(), 10.0)
    (tmp_path / "subtomogram_mrc" / "tomotarget0.mrc").rename(tmp_path / "subtomogram_mrc" / "average.mrc")
    with pytest.raises(InputError, match=r"average.mrc: expected a name such as"):
        aitom_particles(tmp_path)


def some_samples(rng, labels):
    for i, k in enumerate(labels):
        yield {
            "volume": rng.standard_normal((6, 6, 6)).astype(np.float32),
            "label": k,
            "quaternion": euler_zyz_to_quaternion(rng.uniform([-180, 0, -180], [180, 180, 180])),
            "shift": rng.uniform(-4, 4, 3) if i % 2 else rng.integers(-4, 5, 3).astype(float),
            "index": i,
        }


def test_export_and_import_give_back_every_number(tmp_path):
    labels = [1, 0, -1, 1, 0]
    write_dataset(
        tmp_path / "d", "d", ["1bxn", "2byu"], 13.48, "bright",
        {"train": some_samples(np.random.default_rng(0), labels)}, dtype="float32",
    )  # fmt: skip
    dataset = Dataset(tmp_path / "d", "train")
    export_aitom(dataset, tmp_path / "out")
    order = [2, 1, 4, 0, 3]  # the unlabelled, then class after class
    found = aitom_particles(tmp_path / "out")
    assert found.class_names == dataset.class_names and found.voxel_size == pytest.approx(13.48)
    assert found.labels.tolist() == [labels[i] for i in order]
    for number, i in enumerate(order):
        exported, original = found.read(number), dataset[i]
        np.testing.assert_array_equal(exported["volume"], original["volume"])
        np.testing.assert_array_equal(exported["shift"], original["shift"])
        np.testing.assert_allclose(
            quaternion_to_matrix(exported["quaternion"]), quaternion_to_matrix(original["quaternion"]), atol=1e-12
        )
    written = json.loads((tmp_path / "out" / "json_label" / "target3.json").read_text())
    assert list(written) == ["loc", "rotate", "name"] and written["name"] == "2byu"
    assert written["loc"] == dataset[0]["shift"].astype(int).tolist()
    with mrcfile.open(tmp_path / "out" / "subtomogram_mrc" / "tomotarget3.mrc") as file:
        np.testing.assert_array_equal(file.data, dataset[0]["volume"].transpose(2, 1, 0))
    write_particles(found, tmp_path / "again", normalize="none", splits={"train": 1.0})
    again = Dataset(tmp_path / "again", "train")
    np.testing.assert_array_equal(again.volumes(range(5)), dataset.volumes(order))


def test_an_export_without_poses_says_only_what_is_known_and_is_refused_over_files(tmp_path):
    samples = [{"volume": np.random.default_rng(0).random((4, 4, 4)), "label": 0}]
    write_dataset(tmp_path / "d", "d", ["a"], 10.0, "bright", {"train": samples})
    export_aitom(Dataset(tmp_path / "d"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "json_label" / "target0.json").read_text()) == {"name": "a"}
    sample = aitom_particles(tmp_path / "out").read(0)
    assert "quaternion" not in sample and "shift" not in sample
    with pytest.raises(InputError, match="not empty"):
        export_aitom(Dataset(tmp_path / "d"), tmp_path / "out")
