"""Explaining files to files: the maps are the network's own, the samples those asked for, and refusals are clear."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from small_network import NAMES, SIZE, small_network
from small_run import small_run

from aitom_ssl.data import write_dataset
from aitom_ssl.data.batches import standardize
from aitom_ssl.data.sources import Reading
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.gradcam import central_share, class_activation_map, class_scores, peak
from aitom_ssl.export import explain
from aitom_ssl.export.explain import explain_classifier, spread_over_classes
from aitom_ssl.mrc import read_mrc, write_mrc

COUNT = 30


@pytest.fixture(scope="module")
def run(description, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("runs") / "small", description)


@pytest.fixture(scope="module")
def turned_run(description, tmp_path_factory):
    """The same network with other weights and its classes in another order."""
    model = small_network()
    model.set_weights([np.roll(weight, 1, axis=-1) for weight in model.get_weights()])
    other = dataclasses.replace(description, class_names=NAMES[::-1])
    return small_run(tmp_path_factory.mktemp("runs") / "turned", other, model)


def dataset(path, names=NAMES, voxel_size=13.48, contrast="bright", labelled=True):
    rng = np.random.default_rng(0)
    label = (lambda i: i % len(names)) if labelled else (lambda i: -1)
    samples = ({"volume": rng.normal(3, 2, (SIZE,) * 3).astype(np.float32), "label": label(i)} for i in range(COUNT))
    return write_dataset(path, "tiny", names if labelled else [], voxel_size, contrast, {"test": samples})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data") / "tiny")


def volumes(indices):
    rng = np.random.default_rng(0)
    every = np.stack([rng.normal(3, 2, (SIZE,) * 3).astype(np.float32) for _ in range(COUNT)])
    return standardize(every[list(indices)])


def table(output):
    with open(output / "maps.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# === What is written ===


@pytest.mark.parametrize("method", ["grad_cam", "respond_cam"])
def test_files_and_table_are_the_networks_own_maps(run, data, tmp_path, method):
    chosen, output = [4, 29, 0], tmp_path / "out"
    explanation = explain_classifier(run, str(data), output, indices=chosen, method=method)
    given, network = volumes(chosen), small_network()
    scores = class_scores(network, given)
    expected = class_activation_map(network, given, method=method)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(network(given[..., None])), probabilities, rtol=1e-5)
    rows = table(output)
    assert [row["sample"] for row in rows] == ["4", "29", "0"] and explanation.folder == output
    for k, row in enumerate(rows):
        assert (row["map"], row["volume"]) == (f"{chosen[k]:05d}_map.mrc", f"{chosen[k]:05d}_volume.mrc")
        cam, header = read_mrc(output / row["map"])
        np.testing.assert_allclose(cam, expected[k], atol=1e-5 * np.abs(expected[k]).max())
        assert header.voxel_size == pytest.approx(13.48)
        np.testing.assert_allclose(read_mrc(output / row["volume"])[0], given[k], atol=1e-6)
        assert row["label"] == NAMES[chosen[k] % 3] and row["run"] == "small"
        assert row["predicted"] == row["target"] == NAMES[scores[k].argmax()]
        assert float(row["probability"]) == pytest.approx(probabilities[k].max(), abs=6e-5)
        assert (row["split"], row["index"]) == ("test", row["sample"])
        place = peak(expected[k])
        assert [row["peak_z"], row["peak_y"], row["peak_x"]] == ["" if place is None else str(n) for n in place]
        assert float(row["central_share"]) == pytest.approx(central_share(expected[k]), abs=1e-4)
    made = {path.name for path in output.iterdir()}
    maps = {name for row in rows for name in (row["map"], row["volume"])}
    assert made == maps | {"explain.png", "maps.csv", "explanation.json"}
    assert (output / "explain.png").read_bytes().startswith(b"\x89PNG")


def test_how_it_was_made_is_kept(run, data, tmp_path):
    explain_classifier(run, str(data), tmp_path / "out", count=2, seed=3, layer="conv", command="aitom-ssl explain ...")
    about = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert about["layers"] == {"small": "conv"} and about["seed"] == 3 and about["split"] == "test"
    assert about["command"] == "aitom-ssl explain ..." and about["run"] == str(run) and about["method"] == "grad_cam"


def test_two_models_stand_side_by_side_by_the_names_of_their_classes(run, turned_run, data, tmp_path):
    explain_classifier(run, str(data), tmp_path / "out", turned_run, indices=[7, 8], target="GroEL")
    rows = table(tmp_path / "out")
    assert [row["sample"] for row in rows] == ["7", "7", "8", "8"]
    assert [row["run"] for row in rows] == ["small", "turned"] * 2
    assert {row["target"] for row in rows} == {"GroEL"}
    other = small_network()
    other.set_weights([np.roll(weight, 1, axis=-1) for weight in other.get_weights()])
    expected = class_activation_map(other, volumes([7, 8]), NAMES[::-1].index("GroEL"))
    for k, row in enumerate(rows[1::2]):
        assert row["map"] == f"{7 + k:05d}_map_compare.mrc"
        found = read_mrc(tmp_path / "out" / row["map"])[0]
        np.testing.assert_allclose(found, expected[k], atol=1e-5 * np.abs(expected[k]).max())


def test_maps_of_the_true_class(run, data, tmp_path):
    explain_classifier(run, str(data), tmp_path / "out", target="label", count=6)
    rows = table(tmp_path / "out")
    assert len(rows) == 6 and all(row["target"] == row["label"] for row in rows)
    assert any(row["target"] != row["predicted"] for row in rows)


def test_a_folder_of_mrc_files_of_dark_protein(run, data, tmp_path):
    """The names of the files are in the table; the sign is turned to the model's."""
    for k, volume in enumerate(volumes(range(3))):
        write_mrc(tmp_path / "mrc" / f"p{k}.mrc", -volume, 13.48)
    explain_classifier(run, str(tmp_path / "mrc"), tmp_path / "out", reading=Reading(invert_contrast=True))
    rows = table(tmp_path / "out")
    assert [row["path"] for row in rows] == ["p0.mrc", "p1.mrc", "p2.mrc"] and {row["label"] for row in rows} == {""}
    given = read_mrc(tmp_path / "out" / "00002_volume.mrc")[0]
    np.testing.assert_allclose(given, volumes([2])[0], atol=1e-5)


def test_a_picture_of_many_samples_shows_the_first(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(explain, "DRAWN", 1)
    explanation = explain_classifier(run, str(data), tmp_path / "out", count=3)
    assert len(explanation.rows) == 3
    assert explanation.notes == ["explain.png shows the first 1 of 3 samples."]


def test_nothing_is_left_of_one_that_failed(run, data, tmp_path, monkeypatch):
    from aitom_ssl.evaluation import cam_figure

    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cam_figure, "cam_figure", pressed)
    with pytest.raises(KeyboardInterrupt):
        explain_classifier(run, str(data), tmp_path / "out", count=1)
    assert list(tmp_path.iterdir()) == []


# === Which samples ===


def test_samples_are_spread_over_the_classes():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 40 + [-1] * 20)
    chosen = spread_over_classes(labels, 30, seed=0)
    values, counts = np.unique(labels[chosen], return_counts=True)
    assert dict(zip(values, counts, strict=True)) == {-1: 9, 0: 9, 1: 3, 2: 9}
    assert (np.diff(labels[chosen]) >= 0).all() and len(set(chosen)) == 30
    np.testing.assert_array_equal(chosen, spread_over_classes(labels, 30, seed=0))
    assert set(chosen) != set(spread_over_classes(labels, 30, seed=1))
    assert len(spread_over_classes(labels, 1000, seed=0)) == len(labels)
    assert len(spread_over_classes(labels, 2, seed=0)) == 2


# === Refusals ===


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"indices": [3, 30]}, "There is no sample 30: the data have 30, numbered from 0"),
        ({"indices": [3, 4, 3]}, "named twice among 3, 4, 3"),
        ({"target": "GroE"}, r"neither predicted nor label nor a class.*\(ribosome, GroEL, empty\)\. Did you mean G"),
        ({"layer": "features"}, "'features' of small has no spatial maps; layers that have: conv"),
        ({"method": "gradcam"}, "method='gradcam' must be one of"),
        ({"reading": Reading(split="train")}, "no split 'train'"),
        ({"precision": "half"}, "precision='half' must be one of float32"),
    ],
)
def test_what_cannot_be_used_is_said(run, data, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        explain_classifier(run, str(data), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"voxel_size": 10.0}, r"voxel size 10 A \(trained on 13.48 A\)"),
        ({"contrast": "dark"}, r"dark protein \(trained on bright\)"),
    ],
)
def test_data_unlike_the_models_are_refused_with_both_values(run, tmp_path, changes, said):
    data = dataset(tmp_path / "data", **changes)
    with pytest.raises(InputError, match=said):
        explain_classifier(run, str(data), tmp_path / "out")
    explanation = explain_classifier(run, str(data), tmp_path / "out", count=1, ignore_mismatch=True)
    assert any("taken as it is" in note for note in explanation.notes)


def test_labels_that_the_model_does_not_know(run, tmp_path):
    data = dataset(tmp_path / "data", names=("ribosome", "proteasome"))
    with pytest.raises(InputError, match=r"Sample 1 of .* has no label that the model knows"):
        explain_classifier(run, str(data), tmp_path / "out", indices=[0, 1], target="label")
    explain_classifier(run, str(data), tmp_path / "out", count=4, target="label")
    assert {row["label"] for row in table(tmp_path / "out")} == {"ribosome"}
    unlabelled = dataset(tmp_path / "unlabelled", labelled=False)
    with pytest.raises(InputError, match="the data have none: take target=predicted"):
        explain_classifier(run, str(unlabelled), tmp_path / "other", target="label")


def test_models_without_gradients_or_classes_are_told_apart(description, encoder, served, data, tmp_path):
    with pytest.raises(InputError, match="is a SavedModel, which gives no gradients: give the run"):
        explain_classifier(served, str(data), tmp_path / "out")
    nameless = dataclasses.replace(description, class_names=())
    pretrained = small_run(tmp_path / "moco", nameless, encoder)
    with pytest.raises(InputError, match=r"is an encoder.*finetune.*train_supervised"):
        explain_classifier(pretrained, str(data), tmp_path / "out")
    vector_machine = small_run(tmp_path / "rif", dataclasses.replace(description, architecture="rif_svm"))
    (vector_machine / "model.keras").rename(vector_machine / "model.joblib")
    with pytest.raises(InputError, match="is a RIF-SVM, which has no feature maps"):
        explain_classifier(vector_machine, str(data), tmp_path / "out")


def test_models_that_cannot_be_compared(run, description, data, tmp_path):
    others = dataclasses.replace(description, class_names=("ribosome", "GroEL", "proteasome"))
    with pytest.raises(InputError, match="know different classes"):
        explain_classifier(run, str(data), tmp_path / "out", small_run(tmp_path / "others", others))
    wide = small_run(tmp_path / "wide", dataclasses.replace(description, size=10), small_network(size=10))
    with pytest.raises(InputError, match=r"different boxes: .* 8\^3, .* 10\^3"):
        explain_classifier(run, str(data), tmp_path / "out", wide)
    coarse = small_run(tmp_path / "coarse", dataclasses.replace(description, voxel_size=20.0))
    with pytest.raises(InputError, match=r"coarse.*voxel size 13.48 A \(trained on 20 A\)"):
        explain_classifier(run, str(data), tmp_path / "out", coarse)


def test_a_folder_that_holds_something_is_left_alone(run, data, tmp_path):
    (tmp_path / "out").mkdir()
    explain_classifier(run, str(data), tmp_path / "out", count=1)
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="is there and is not empty"):
        explain_classifier(run, str(data), tmp_path / "out", count=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
