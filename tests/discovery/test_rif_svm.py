"""RIF-SVM: a run from data to folder and back, what turning does to it, and what it refuses."""

import json
import warnings

import numpy as np
import pytest
import yaml
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.discovery import rif_svm
from aitom_ssl.discovery.rif_svm import (
    class_probabilities,
    dataset_features,
    fit_rif_svm,
    load_rif_svm,
    run_rif_svm,
)
from aitom_ssl.errors import InputError

SIZE = 9
NAMES = ["shell", "rod", "absent", "ball"]
SETTINGS = {"model": "rif_svm", "limit": None, "seed": 0}


def volume(label, rng):
    """A shell, a rod or a ball in noise, turned by a random quarter turn about each axis: no voxel is interpolated."""
    z, y, x = np.meshgrid(*[np.arange(SIZE) - SIZE // 2] * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    shape = {0: np.abs(radius - 3) < 0.7, 1: (np.abs(x) < 4) & (y**2 + z**2 < 2), 3: radius < 2.2}[label]
    out = 2.0 * shape + 0.7 * rng.standard_normal(shape.shape)
    for axes in ((0, 1), (1, 2), (0, 2)):
        out = np.rot90(out, rng.integers(4), axes)
    return out.astype(np.float32)


def samples(count, seed, labels=(0, 1, 3)):
    rng = np.random.default_rng(seed)
    for i in range(count):
        label = labels[i % len(labels)]
        yield {"volume": volume(label, rng), "label": label}


def dataset(folder, **splits):
    return write_dataset(folder, "shapes", NAMES, 9.2, "bright", splits)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rif") / "shapes"
    return dataset(folder, train=samples(60, 0), validation=samples(15, 1), test=samples(30, 2))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "rif"
    return run_rif_svm({**SETTINGS, "data": str(data)}, str(output), "aitom-ssl train_supervised --model=rif_svm")


# === A run ===


def test_the_folder_of_a_run(run, data):
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "model.joblib", "results.json", "report.html"}
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["model"] == {
        "architecture": "rif_svm", "class_names": NAMES, "size": SIZE, "voxel_size": 9.2, "contrast": "bright"
    }  # fmt: skip
    assert config["dataset"]["samples"] == {"train": 60, "validation": 15, "test": 30}
    results = json.loads((run.path / "results.json").read_text())
    assert (results["measured_on"], results["samples"], results["train_samples"]) == ("test", 30, 60)
    assert results["accuracy"] > 0.9
    assert results["feature_milliseconds"] > 0


def test_a_loaded_model_gives_the_probabilities_that_were_measured(run, data):
    model, test = load_rif_svm(run.path), Dataset(data, "test")
    probabilities = model.probabilities(test.volumes(range(30)))
    assert (probabilities.shape, probabilities.dtype) == ((30, 4), np.float32)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities[:, 2] == 0).all()  # a class that training had no sample of
    right = accuracy_score(test.labels, probabilities.argmax(axis=1))
    assert right == pytest.approx(json.loads((run.path / "results.json").read_text())["accuracy"])
    alone = load_rif_svm(run.path / "model.joblib").probabilities(test.volumes([3]))
    np.testing.assert_allclose(alone, probabilities[3:4], atol=1e-6)
    assert model.description.class_names == tuple(NAMES)


def test_turning_scaling_and_an_offset_change_no_answer(run, data):
    model = load_rif_svm(run.path)
    volumes = Dataset(data, "test").volumes(range(6))
    before = volumes.copy()
    expected = model.probabilities(volumes)
    np.testing.assert_array_equal(volumes, before)
    np.testing.assert_allclose(model.probabilities(np.rot90(volumes, axes=(1, 3))), expected, atol=1e-4)
    np.testing.assert_allclose(model.probabilities(5 - 3 * -volumes), expected, atol=1e-4)
    # Power has no sign: protein may be bright or dark. A shift is another matter.
    np.testing.assert_allclose(model.probabilities(-volumes), expected, atol=1e-4)
    assert np.abs(model.probabilities(np.roll(volumes, 2, axis=3)) - expected).max() > 0.05


def test_features_of_a_dataset_are_those_of_its_volumes(run, data):
    test = Dataset(data, "test")
    np.testing.assert_allclose(dataset_features(test), load_rif_svm(run.path).features(test.volumes(range(30))))
    assert len(dataset_features(test.subset([4, 2]))) == 2


def test_the_test_split_chooses_nothing(data, tmp_path, run):
    splits = {"train": samples(60, 0), "validation": samples(15, 1), "test": samples(12, 9, labels=(3, 0, 1))}
    other = dataset(tmp_path / "other", **splits)
    second = run_rif_svm({**SETTINGS, "data": str(other)}, str(tmp_path / "run"))
    volumes = Dataset(data, "test").volumes(range(30))
    np.testing.assert_array_equal(
        load_rif_svm(second.path).probabilities(volumes), load_rif_svm(run.path).probabilities(volumes)
    )


def test_without_validation_and_test_splits(tmp_path, capsys):
    alone = dataset(tmp_path / "alone", train=samples(60, 0))
    done = run_rif_svm({**SETTINGS, "data": str(alone)}, str(tmp_path / "run"))
    results = json.loads((done.path / "results.json").read_text())
    assert (results["measured_on"], results["train_samples"], results["samples"]) == ("validation", 48, 12)
    assert "held out" in capsys.readouterr().out


def test_an_interrupted_run_leaves_nothing(data, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rif_svm, "fit_rif_svm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_rif_svm({**SETTINGS, "data": str(data)}, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_taken_folder_is_refused(run, data):
    with pytest.raises(InputError, match="already holds a run"):
        run_rif_svm({**SETTINGS, "data": str(data)}, str(run.path))


# === The machine ===


def clouds(count, seed, classes=3):
    """(features, labels) of overlapping Gaussian clouds, on scales that only standardising makes alike."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = rng.standard_normal((count, 4)) + 1.5 * np.eye(classes, 4)[labels]
    return features * [1e-3, 1, 1e3, 1] + [0, 5, 0, -1e3], labels


def test_the_chosen_pair_is_the_best_on_validation():
    (features, labels), (others, other_labels) = clouds(150, 0), clouds(90, 1)
    fitted = fit_rif_svm(features, labels, others, other_labels)
    scaler = StandardScaler().fit(features)
    scores = {}
    for penalty in rif_svm.PENALTIES:
        for exponent in rif_svm.EXPONENTS:
            svc = SVC(C=penalty, gamma=exponent / 4).fit(scaler.transform(features), labels)
            scores[penalty, exponent] = svc.score(scaler.transform(others), other_labels)
    assert len(set(scores.values())) > 1
    assert fitted.validation_accuracy == pytest.approx(max(scores.values()))
    assert scores[fitted.penalty, round(fitted.exponent, 9)] == max(scores.values())


def test_probabilities_are_honest():
    # Clouds that overlap: the mean confidence is the accuracy, which votes alone would overstate.
    (features, labels), validation = clouds(300, 0), clouds(90, 1)
    fitted = fit_rif_svm(features, labels, *validation)
    unseen, truth = clouds(600, 2)
    probabilities = class_probabilities(fitted.classifier, unseen, 3)
    right = (probabilities.argmax(axis=1) == truth).mean()
    assert 0.6 < right < 0.95
    assert abs(probabilities.max(axis=1).mean() - right) < 0.08


def test_balanced_weights_help_a_rare_class():
    features, labels = clouds(400, 0, classes=2)
    kept = np.flatnonzero((labels == 0) | (np.arange(400) < 40))
    features, labels = features[kept], labels[kept]
    unseen, truth = clouds(400, 1, classes=2)
    found = {}
    for weight in (None, "balanced"):
        fitted = fit_rif_svm(features, labels, unseen[:100], truth[:100], weight)
        machine = fitted.classifier.calibrated_classifiers_[0].estimator
        found[weight] = (machine.predict(unseen[100:])[truth[100:] == 1] == 1).mean()
    assert found["balanced"] > found[None]


@pytest.mark.parametrize("labels", [np.zeros(10, int), np.array([0] * 9 + [1])])
def test_too_few_of_a_class(labels):
    features = np.random.default_rng(0).standard_normal((10, 3))
    with pytest.raises(InputError, match="2 classes or more with 2 training samples or more"):
        fit_rif_svm(features, labels, features, labels)


# === Loading ===


def test_what_is_not_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"model\.joblib is not there"):
        load_rif_svm(tmp_path)
    with pytest.raises(InputError, match="nothing is not there"):
        load_rif_svm(tmp_path / "nothing")


def test_a_damaged_file_names_the_version_that_wrote_it(run, tmp_path):
    for name in ("config.yaml", "model.joblib"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    whole = (tmp_path / "model.joblib").read_bytes()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["versions"]["scikit-learn"] = "0.1.2"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for content in (whole[: len(whole) // 2], b"nonsense", b""):
        (tmp_path / "model.joblib").write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be loaded.*scikit-learn 0\.1\.2, here is") as error:
            load_rif_svm(tmp_path)
        assert "\n" not in str(error.value)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded.*: train again\.$"):
        load_rif_svm(tmp_path)


def test_another_joblib_file_is_refused(tmp_path):
    rif_svm.joblib.dump({"weights": [1, 2]}, tmp_path / "model.joblib")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_rif_svm(tmp_path)


def test_another_scikit_learn_that_reads_it_is_one_warning(run, monkeypatch):
    load = rif_svm.joblib.load

    def older(path):
        for name in ("SVC", "StandardScaler"):
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=name, current_sklearn_version="9", original_sklearn_version="1"
                ),
                stacklevel=1,
            )
        return load(path)

    monkeypatch.setattr(rif_svm.joblib, "load", older)
    with pytest.warns(UserWarning, match="answers may differ") as caught:
        load_rif_svm(run.path)
    assert len(caught) == 1


def test_a_wrong_box_is_named(run):
    with pytest.raises(InputError, match=r"\(n, 9, 9, 9\)\. Received shape \(2, 8, 8, 8\)"):
        load_rif_svm(run.path).probabilities(np.zeros((2, 8, 8, 8)))
    assert load_rif_svm(run.path).probabilities(np.zeros((0, 9, 9, 9))).shape == (0, 4)
