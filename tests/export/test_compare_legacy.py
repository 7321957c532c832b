"""Legacy file against our twin: what tf-keras loads is AITom's network, and the report counts right."""

import importlib.util
import json

import h5py
import numpy as np
import pytest

from aitom_ssl.cli import main
from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.export.compare_legacy import accuracies, agreement, compare_legacy, legacy_network, table

SIZE, CLASSES = 16, ["a", "b", "c"]

# Weights at 16^3 and 10 classes, and convolutions in the order in which Keras writes them less the first one's number.
FACTS = {
    "inception3d": (327_130, [0, 2, 4, 1, 3, 5, 6]),
    "dsrf3d": (2_560_042, [0, 1, 2, 3]),
    "dsrf3dv2": (2_967_850, [0, 1, 2, 3, 4, 5]),
    "rb3d": (17_953_994, [0, 2, 3, 4, 1, 6, 7, 8, 5, 10, 11, 12, 9, 14, 15, 16, 13]),
}


@pytest.mark.parametrize("architecture", FACTS)
def test_the_legacy_networks(architecture):
    network = legacy_network(architecture, 16, 10)
    names = [layer.name for layer in network.layers if layer.name.startswith("conv3d")]
    numbers = [int(name.partition("_")[2] or 0) for name in names]
    assert (network.count_params(), [number - numbers[0] for number in numbers]) == FACTS[architecture]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    network = legacy_network("inception3d", SIZE, len(CLASSES))
    network.save(folder / "whole.h5")
    network.save_weights(folder / "only.h5")
    network.save_weights(folder / "only.weights.h5")
    return folder


def volumes(count, size):
    rng = np.random.default_rng(size)
    return [{"volume": rng.normal(3, 2, (size,) * 3).astype(np.float32), "label": i % 3} for i in range(count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_dataset(folder / "d", "d", CLASSES, 10.0, "bright", {"test": volumes(10, SIZE)})


@pytest.mark.parametrize("name", ["whole.h5", "only.h5", "only.weights.h5"])
def test_both_agree_on_every_way_to_show_the_volumes(weights, data, name):
    report = compare_legacy(weights / name, Dataset(data, "test"))
    assert (report["architecture"], report["size"], report["classes"]) == ("inception3d", SIZE, 3)
    assert report["samples"] == 10
    shown = [(entry["axes"], entry["standardized"]) for entry in report["inputs"]]
    assert shown == [("zyx", True), ("xyz", True), ("zyx", False), ("xyz", False)]
    for entry in report["inputs"]:
        assert entry["max_difference"] == 0
        assert entry["same_class"] == 1
        assert entry["accuracy_legacy"] == entry["accuracy_ours"] <= entry["accuracy_matched"]
        assert sorted(entry["class_names"]) == CLASSES
    assert "0.00e+00" in table(report)


def test_standardised_data_of_other_classes_are_shown_twice_without_accuracies(weights, tmp_path):
    folder = write_dataset(
        tmp_path / "d", "d", [*CLASSES, "d"], 10.0, "bright", {"test": volumes(3, SIZE)}, standardized=True
    )
    report = compare_legacy(weights / "whole.h5", Dataset(folder, "test"))
    assert [entry["axes"] for entry in report["inputs"]] == ["zyx", "xyz"]
    assert all(set(entry) == {"axes", "standardized", "max_difference", "same_class"} for entry in report["inputs"])
    assert "fits best" not in table(report)


def test_a_config_that_tf_keras_does_not_read_any_more(weights, data, tmp_path):
    """Keras 1 called the layer Convolution3D and its settings otherwise: the network is built here instead."""
    (tmp_path / "old.h5").write_bytes((weights / "whole.h5").read_bytes())
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        config = file.attrs["model_config"].replace('"filters"', '"nb_filter"').replace('"padding"', '"border_mode"')
        file.attrs["model_config"] = config
    report = compare_legacy(tmp_path / "old.h5", Dataset(data, "test"))
    assert report["inputs"][0]["max_difference"] == 0


def test_data_of_another_size_are_refused(weights, tmp_path):
    folder = write_dataset(tmp_path / "d", "d", CLASSES, 10.0, "bright", {"test": volumes(3, 20)})
    with pytest.raises(InputError, match=r"for 16\^3 voxels and 3 classes, not for 20\^3"):
        compare_legacy(weights / "whole.h5", Dataset(folder, "test"))


def test_weights_that_fit_several_sizes_are_run_at_that_of_the_data(tmp_path):
    """DSRF3D pools 10^3 and 11^3 to the same features."""
    network = legacy_network("dsrf3d", 10, len(CLASSES))
    network.save_weights(tmp_path / "only.h5")
    folder = write_dataset(tmp_path / "d", "d", CLASSES, 10.0, "bright", {"test": volumes(3, 11)}, standardized=True)
    report = compare_legacy(tmp_path / "only.h5", Dataset(folder, "test"))
    assert report["size"] == 11
    assert report["inputs"][0]["max_difference"] == 0


def test_agreement_counts():
    a = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]], np.float32)
    b = np.array([[0.7, 0.3], [0.6, 0.4], [0.5, 0.5]], np.float32)
    assert agreement(a, a) == {"max_difference": 0, "same_class": 1}
    found = agreement(a, b)
    assert found["max_difference"] == pytest.approx(0.2)
    assert found["same_class"] == pytest.approx(2 / 3)


def test_the_order_of_classes_is_found():
    """Outputs 0, 1, 2 mean c, a, b; one of six labelled rows is wrong and an unlabelled one does not count."""
    labels = np.array([0, 1, 2, 0, 1, 2, -1])
    output = np.array([1, 2, 0, 1, 2, 1, 0])
    probabilities = np.eye(3)[output]
    found = accuracies(probabilities, np.eye(3)[[0, 1, 2, 0, 1, 2, 0]], labels, CLASSES)
    assert found["class_names"] == ["c", "a", "b"]
    assert found["accuracy_legacy"] == 0
    assert found["accuracy_ours"] == 1
    assert found["accuracy_matched"] == pytest.approx(5 / 6)


def test_the_command(weights, data, tmp_path, capsys, monkeypatch):
    flags = [f"--weights={weights / 'only.h5'}", f"--data={data}"]
    assert main("compare_legacy", [*flags, "--limit=4", f"--output={tmp_path / 'r.json'}"]) == 0
    assert "inception3d, 16^3, 3 classes; 4 volumes of d test" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["samples"] == 4
    assert len(report["inputs"]) == 4
    for given, words in (
        (flags[1:], "--weights is missing"),
        (flags[:1], "--data is missing"),
        ([*flags, "--limit=0"], "--limit=0 must be"),
        ([*flags, f"--output={tmp_path}"], "is a folder"),
        ([*flags, "--split=train"], "no split 'train'"),
        ([f"--weights={data / 'dataset.json'}", flags[1]], "not an HDF5 file"),
    ):
        assert main("compare_legacy", given) == 2, given
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main("compare_legacy", flags) == 2
    assert 'pip install "aitom_ssl[legacy]"' in capsys.readouterr().err
