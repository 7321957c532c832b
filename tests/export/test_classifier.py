"""A classifier from a run, a model file, a SavedModel or a RIF-SVM: the network's own numbers, or one clear line."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from small_network import NAMES, SIZE, small_network
from small_run import small_run

from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import find_model, load_classifier, with_precision
from aitom_ssl.training import RunFolder


@pytest.fixture(scope="session")
def run(classifier, description, tmp_path_factory):
    """Folder of a run of the small classifier."""
    return small_run(tmp_path_factory.mktemp("runs") / "small", description, classifier)


def copied(run, tmp_path, **model):
    """A copy of the run whose description differs."""
    path = shutil.copytree(run, tmp_path / "copy")
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["model"] = {**config["model"], **model}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def direct(model, volumes, batch_size=4):
    """The model's own answer, batch by batch, the last one filled up."""
    filled = np.concatenate([volumes, np.repeat(volumes[:1], -len(volumes) % batch_size, axis=0)])
    call = tf.function(lambda x: model(x, training=False), jit_compile=False)
    starts = range(0, len(filled), batch_size)
    answers = [call(tf.constant(filled[s : s + batch_size, ..., None])).numpy() for s in starts]
    return np.concatenate(answers)[: len(volumes)]


# === The network's own numbers ===


def test_a_runs_probabilities_are_the_networks_to_the_last_bit(run, classifier, description, volumes):
    loaded = load_classifier(run, batch_size=4)
    expected = direct(classifier, standardize(volumes.copy()))
    np.testing.assert_array_equal(loaded.probabilities(volumes), expected)
    np.testing.assert_array_equal(loaded.probabilities(standardize(volumes.copy()), standardized=True), expected)
    assert loaded.description == description and loaded.path == run / "model.keras"
    assert loaded.probabilities(volumes[:0]).shape == (0, 3)


def test_a_probability_does_not_depend_on_what_came_with_it(run, volumes):
    loaded = load_classifier(run / "model.keras", batch_size=4)
    together = loaded.probabilities(volumes)
    np.testing.assert_array_equal(np.concatenate([loaded.probabilities(v[None]) for v in volumes]), together)
    given = volumes.copy()
    loaded.probabilities(given)
    np.testing.assert_array_equal(given, volumes)


def test_a_saved_model_answers_as_the_run_it_is_of(served, classifier, description, volumes):
    for path in (served, served.parent):
        loaded = load_classifier(path)
        np.testing.assert_allclose(
            loaded.probabilities(volumes), direct(classifier, standardize(volumes.copy())), atol=1e-6
        )
        assert loaded.description == description and loaded.path == served


def test_a_network_without_softmax_answers_with_probabilities(description, volumes, tmp_path):
    path = small_run(tmp_path / "linear", description, small_network(activation=None))
    found = load_classifier(path).probabilities(volumes)
    np.testing.assert_allclose(found, direct(small_network(), standardize(volumes.copy())), atol=1e-6)


def test_bfloat16_computes_the_same_weights_more_coarsely(run, classifier, volumes):
    expected = load_classifier(run).probabilities(volumes)
    found = load_classifier(run, precision="mixed_bfloat16").probabilities(volumes)
    assert 0 < np.abs(found - expected).max() < 0.03
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    coarse = with_precision(classifier, "mixed_bfloat16")
    assert {layer.compute_dtype for layer in coarse.layers[1:-1]} == {"bfloat16"}
    assert coarse.layers[-1].compute_dtype == "float32"
    again = with_precision(coarse, "float32")
    np.testing.assert_array_equal(direct(again, volumes), direct(classifier, volumes))


def test_a_rif_svm_run_is_loaded_by_its_own_reader(run, description, volumes, tmp_path, monkeypatch):
    from aitom_ssl.discovery import rif_svm

    class Machine:
        def probabilities(self, volumes):
            return np.repeat([[0.5, 0.25, 0.25]], len(volumes), axis=0)

    read = []
    monkeypatch.setattr(rif_svm, "load_rif_svm", lambda path: read.append(path) or Machine())
    path = copied(run, tmp_path, architecture="rif_svm")
    with pytest.raises(InputError, match=r"has no model\.joblib"):
        load_classifier(path)
    (path / "model.joblib").write_bytes(b"")
    assert load_classifier(path).probabilities(volumes)[:, 0].tolist() == [0.5] * 5
    assert read == [path]


# === One clear line ===


def test_volumes_that_do_not_fit_are_refused(run, volumes):
    loaded = load_classifier(run)
    with pytest.raises(InputError, match=r"takes volumes \(n, 8, 8, 8\). Received \(5, 6, 6, 6\)"):
        loaded.probabilities(volumes[:, 1:7, 1:7, 1:7])
    volumes = volumes.copy()
    volumes[2, 0, 0, 0] = np.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        loaded.probabilities(volumes)


def test_a_network_that_answers_nan_is_refused(description, volumes, tmp_path):
    model = small_network()
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, np.nan))
    path = small_run(tmp_path / "run", description, model)
    with pytest.raises(InputError, match="answers with NaN"):
        load_classifier(path).probabilities(volumes)


def test_what_is_no_model_is_refused_before_keras_is_needed(run, tmp_path):
    for name, write in (("empty", None), ("file.txt", "x"), ("file.keras", "x")):
        path = tmp_path / name
        path.mkdir() if write is None else path.write_text(write)
        with pytest.raises(InputError, match=r"neither a run|is a file"):
            find_model(path)
    with pytest.raises(InputError, match="No run or SavedModel"):
        find_model(tmp_path / "nothing")


def test_runs_that_know_no_classes_are_refused(run, served_encoder, tmp_path):
    with pytest.raises(InputError, match="is an encoder"):
        find_model(copied(run, tmp_path, class_names=[]))
    with pytest.raises(InputError, match="is an encoder"):
        find_model(served_encoder)
    other = RunFolder.create(tmp_path / "moco", "moco", "tiny")
    other.write_config({"method": "moco", "settings": {"data": "tiny"}})
    with pytest.raises(InputError, match="as a moco run of an earlier version: train it again"):
        find_model(other.path)


def test_an_unfinished_run_is_refused(run, tmp_path):
    path = copied(run, tmp_path)
    (path / "model.keras").unlink()
    with pytest.raises(InputError, match=r"has no model\.keras: its training has not finished"):
        find_model(path)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"class_names": ["a", "b"]}, "its description says"),
        ({"size": SIZE + 1}, "its description says"),
        ({"contrast": "grey"}, "does not describe a model"),
        ({"voxel_size": "wide"}, "does not describe a model"),
    ],
)
def test_a_description_of_another_model_is_refused(run, tmp_path, model, said):
    with pytest.raises(InputError, match=said):
        load_classifier(copied(run, tmp_path, **model))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"nothing", lambda data: b""])
def test_a_corrupt_model_file_is_named(run, tmp_path, damage):
    path = copied(run, tmp_path)
    (path / "model.keras").write_bytes(damage((path / "model.keras").read_bytes()))
    with pytest.raises(InputError, match=r"model\.keras cannot be loaded"):
        load_classifier(path)


def test_a_saved_model_of_others_is_refused_with_its_signatures(served, tmp_path):
    module = tf.Module()
    module.call = tf.function(lambda x: {"scores": 2 * x}, input_signature=[tf.TensorSpec((None, 3), name="x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"classify": module.call})
    with pytest.raises(InputError, match=r"has no assets/model\.json"):
        find_model(tmp_path)
    (tmp_path / "1" / "assets").mkdir(exist_ok=True)
    shutil.copy(served / "assets" / "model.json", tmp_path / "1" / "assets")
    with pytest.raises(InputError, match=r"has the signatures classify \(x -> scores\); expected serving_default"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["saved_model.pb", "assets/model.json"])
def test_a_corrupt_saved_model_is_named(served, tmp_path, name):
    path = shutil.copytree(served, tmp_path / "1")
    (path / name).write_bytes(b"\xff\xfenothing")
    with pytest.raises(InputError, match=r"export the model again|does not describe"):
        load_classifier(path)


def test_classes_that_do_not_fit_the_signature_are_refused(served, tmp_path):
    path = shutil.copytree(served, tmp_path / "1")
    about = json.loads((path / "assets" / "model.json").read_text())
    (path / "assets" / "model.json").write_text(json.dumps({**about, "class_names": list(NAMES[:2])}))
    with pytest.raises(InputError, match=r"has 3 classes, its assets/model\.json 2"):
        load_classifier(path)


def test_flags_are_checked(run, served):
    with pytest.raises(InputError, match="batch_size is 0"):
        load_classifier(run, batch_size=0)
    with pytest.raises(InputError, match="precision='half'"):
        load_classifier(run, precision="half")
    with pytest.raises(InputError, match=r"needs a run with model\.keras"):
        load_classifier(served, precision="float32")


def test_the_digest_tells_models_apart(run, served, tmp_path):
    assert find_model(run).digest() == find_model(run / "model.keras").digest() != find_model(served).digest()
    path = copied(run, tmp_path)
    keras.models.clone_model(small_network()).save(path / "model.keras")
    assert find_model(path).digest() != find_model(run).digest()
