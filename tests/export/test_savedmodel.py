"""SavedModels: what is in them, that they need neither Keras nor this package, and what they refuse."""

import json
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from serving_stand import CppError, CppModel, strings
from small_network import NAMES, SIZE, small_network
from tensorflow_serving.apis import prediction_log_pb2

from aitom_ssl import models
from aitom_ssl.data import batches
from aitom_ssl.errors import InputError
from aitom_ssl.export import export_savedmodel
from aitom_ssl.export.classifier import find_model
from aitom_ssl.export.savedmodel import WARMUP, standardize
from aitom_ssl.models import ModelDescription

SIGNATURES = {
    "serving_default": "probabilities",
    "logits": "logits",
    "features": "features",
    "serving_bytes": "probabilities",
}
# In every case seen the difference is 0; another machine may fuse other operations.
SAME = 1e-6


def expected(model, volumes):
    """What Keras says of the volumes as training standardises them: output -> array."""
    x = batches.standardize(volumes.copy())[..., None]
    last = model.layers[-1]
    features = keras.Model(model.input, last.input)(x, training=False)
    logits = keras.ops.cast(features, "float32") @ last.kernel + last.bias
    outputs = {"probabilities": model(x, training=False), "logits": logits, "features": features}
    return {name: np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(v, "float32"))) for name, v in outputs.items()}


def given(signature, volumes):
    return strings(v.tobytes() for v in volumes) if signature == "serving_bytes" else volumes[..., None]


def through_cpp(folder, volumes):
    model = CppModel(folder)
    answers = {name: model(name, given(name, volumes)) for name in model.signatures}
    model.close()
    return answers


# === What is there ===


def test_a_version_folder(served, description):
    names = {path.relative_to(served).as_posix() for path in served.rglob("*") if path.is_file()}
    assert served.name == "1"
    assert names >= {"saved_model.pb", "variables/variables.index", "assets/model.json", WARMUP.as_posix()}
    assert json.loads((served / "assets/model.json").read_text())["class_names"] == list(NAMES)
    assert find_model(served).description() == description
    # The next one stands beside it, and nothing else does.
    assert [path.name for path in served.parent.iterdir()] == ["1"]


def test_weights_are_stored_once(served, classifier):
    stored = sum(path.stat().st_size for path in (served / "variables").glob("variables.data-*"))
    assert 4 * classifier.count_params() <= stored < 4 * classifier.count_params() + 2000


def test_the_interface_is_the_documented_one(served):
    signatures = CppModel(served).signatures
    assert set(signatures) == set(SIGNATURES)
    for name, signature in signatures.items():
        (key, tensor), (output, out) = *signature.inputs.items(), *signature.outputs.items()
        shape = [side.size for side in tensor.tensor_shape.dim]
        if name == "serving_bytes":
            assert (key, tensor.dtype, shape) == ("subtomogram_bytes", tf.string.as_datatype_enum, [-1])
        else:
            assert (key, tensor.dtype, shape) == ("subtomogram", tf.float32.as_datatype_enum, [-1, *[SIZE] * 3, 1])
        assert output == SIGNATURES[name] and out.dtype == tf.float32.as_datatype_enum
        assert [side.size for side in out.tensor_shape.dim] == [-1, 16 if output == "features" else len(NAMES)]
        assert signature.method_name == "tensorflow/serving/predict"


def test_warm_up_requests_are_what_the_server_reads(served):
    records = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(served / WARMUP))
    ]
    requests = [record.predict_log.request for record in records]
    assert [request.model_spec.signature_name for request in requests] == list(SIGNATURES)
    model = CppModel(served)
    for record, request in zip(records, requests, strict=True):
        assert record.WhichOneof("log_type") == "predict_log"
        assert len(record.SerializeToString()) == record.ByteSize() and not record.HasField("log_metadata")
        (key, tensor), signature = *request.inputs.items(), request.model_spec.signature_name
        assert key == next(iter(model.signatures[signature].inputs))
        assert len(next(iter(model(signature, tf.make_ndarray(tensor)).values()))) == 1


# === What it answers ===


def test_tensorflows_cpp_loader_answers_as_keras_does(served, classifier, volumes):
    wanted = expected(classifier, volumes)
    answers = through_cpp(served, volumes)
    for signature, output in SIGNATURES.items():
        assert answers[signature][output].dtype == np.float32
        assert np.abs(answers[signature][output] - wanted[output]).max() < SAME, signature
    assert np.ptp(wanted["probabilities"], axis=0).max() > 0.01


_WITHOUT_KERAS = """
import sys
for name in ("keras", "tf_keras", "aitom_ssl"):
    sys.modules[name] = None
import numpy as np, tensorflow as tf
volumes = np.load(sys.argv[2])
loaded = tf.saved_model.load(sys.argv[1])
arrays = {}
for name, function in loaded.signatures.items():
    raw = name == "serving_bytes"
    fed = tf.constant([v.tobytes() for v in volumes]) if raw else tf.constant(volumes[..., None])
    for key, value in function(**{"subtomogram_bytes" if raw else "subtomogram": fed}).items():
        arrays[f"{name}/{key}"] = value.numpy()
np.savez(sys.argv[3], about=open(loaded.description.asset_path.numpy()).read(), **arrays)
"""


def test_a_process_without_keras_and_without_this_package(served, classifier, volumes, description, tmp_path):
    np.save(tmp_path / "volumes.npy", volumes)
    arguments = [str(served), str(tmp_path / "volumes.npy"), str(tmp_path / "answers.npz")]
    subprocess.run([sys.executable, "-c", _WITHOUT_KERAS, *arguments], check=True, capture_output=True, cwd=tmp_path)
    answers, wanted = np.load(tmp_path / "answers.npz"), expected(classifier, volumes)
    assert json.loads(str(answers["about"])) == description.to_dict()
    for signature, output in SIGNATURES.items():
        assert np.abs(answers[f"{signature}/{output}"] - wanted[output]).max() < SAME


@pytest.mark.parametrize(
    "volume",
    [
        np.random.default_rng(0).normal(0, 1, (6, 6, 6)),
        np.random.default_rng(1).normal(-50, 0.1, (6, 6, 6)),
        np.random.default_rng(2).normal(3, 1e4, (6, 6, 6)),
        np.full((6, 6, 6), 0.1),
        np.zeros((6, 6, 6)),
        np.eye(36).reshape(6, 6, 6, 6)[0] * 1e-3,
    ],
)
def test_standardisation_is_the_one_of_training(volume):
    volume = volume.astype(np.float32)
    wanted = batches.standardize(volume[None].copy())[..., None]
    once = standardize(tf.constant(volume[None, ..., None]))
    assert np.abs(once - wanted).max() < 1e-4
    assert np.abs(standardize(once) - once).max() < 1e-4


def test_raw_and_standardised_volumes_get_the_same_answer(served, volumes):
    once = through_cpp(served, batches.standardize(volumes.copy()))
    raw = through_cpp(served, volumes * 7 - 3)
    assert np.abs(once["logits"]["logits"] - raw["logits"]["logits"]).max() < 1e-4


def test_each_volume_is_standardised_by_itself(served, volumes):
    together, alone = through_cpp(served, volumes), through_cpp(served, volumes[2:3])
    assert np.abs(together["logits"]["logits"][2] - alone["logits"]["logits"][0]).max() < 1e-5


def test_an_encoder_answers_features(served_encoder, encoder, volumes):
    answers = through_cpp(served_encoder, volumes)
    wanted = encoder(batches.standardize(volumes.copy())[..., None], training=False)
    assert {name: set(outputs) for name, outputs in answers.items()} == {
        name: {"features"} for name in ("serving_default", "features", "serving_bytes")
    }
    for outputs in answers.values():
        assert np.abs(outputs["features"] - wanted).max() < SAME


def test_mixed_precision_is_float32_outside(volumes, description, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_network()
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("conv").compute_dtype == "bfloat16"
    answers, wanted = (
        through_cpp(export_savedmodel(model, tmp_path / "m", description), volumes),
        expected(model, volumes),
    )
    for signature, output in SIGNATURES.items():
        assert answers[signature][output].dtype == np.float32
        # One place of bfloat16, 2^-8.
        assert np.allclose(answers[signature][output], wanted[output], rtol=0.02, atol=0.02)


def test_a_linear_classifier_gets_its_softmax(volumes, description, tmp_path):
    model = small_network(activation=None)
    answers = through_cpp(export_savedmodel(model, tmp_path / "m", description, warmup=False), volumes)
    assert not (tmp_path / "m" / "1" / WARMUP).exists()
    logits = answers["logits"]["logits"]
    assert np.abs(logits - model(batches.standardize(volumes.copy())[..., None])).max() < 1e-5
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(answers["serving_default"]["probabilities"] - softmax).max() < SAME


@pytest.mark.parametrize("name", models.NAMES)
def test_every_architecture(name, tmp_path):
    size = 16
    keras.utils.set_random_seed(3)
    model = models.get(name)((size, size, size, 1), 4, pooling="avg")
    described = ModelDescription(name, tuple("abcd"), size, 10.0, "bright")
    volumes = np.random.default_rng(1).normal(2, 3, (2, size, size, size)).astype(np.float32)
    answers, wanted = (
        through_cpp(export_savedmodel(model, tmp_path / name, described), volumes),
        expected(model, volumes),
    )
    for signature, output in SIGNATURES.items():
        assert np.abs(answers[signature][output] - wanted[output]).max() < 1e-5 * max(1, np.abs(wanted[output]).max())


# === What it refuses ===


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 10, 10, 10, 1)), r"must be \(batch, 8, 8, 8, 1\).*one channel. Received\] \[2 10 10 10 1\]"),
        (np.zeros((1, 8, 8, 8, 2)), r"Received\] \[1 8 8 8 2\]"),
        (np.zeros((8, 8, 8, 1)), r"Received\] \[8 8 8 1\]"),
        (np.zeros((0, 8, 8, 8, 1)), r"Received\] \[0 8 8 8 1\]"),
    ],
)
def test_another_shape_is_refused_by_name(served, array, said):
    model = CppModel(served)
    for signature in ("serving_default", "logits", "features"):
        with pytest.raises(CppError, match=said) as error:
            model(signature, array.astype(np.float32))
        assert error.value.code == 3  # INVALID_ARGUMENT


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_refused_with_their_volumes(served, volumes, value):
    volumes = volumes.copy()
    volumes[[1, 4], 0, 3, 2] = value
    model = CppModel(served)
    for signature in SIGNATURES:
        with pytest.raises(CppError, match=r"NaN or infinite; positions in the batch\] \[1 4\]") as error:
            model(signature, given(signature, volumes))
        assert error.value.code == 3


def test_bytes_of_another_length_are_refused(served, volumes):
    model = CppModel(served)
    for raw in ([volumes[0].tobytes()[:-4]], [volumes[0].tobytes(), b"\0" * 2052], [b""], []):
        with pytest.raises(CppError, match=r"must be 2048 bytes each \(float32, 8 voxels a side\)") as error:
            model("serving_bytes", strings(raw))
        assert error.value.code == 3


def test_models_that_do_not_fit_their_description(classifier, encoder, description, tmp_path):
    def refused(said, model, **changes):
        with pytest.raises(InputError, match=said) as error:
            export_savedmodel(model, tmp_path / "m", ModelDescription(**{**description.to_dict(), **changes}))
        assert "\n" not in str(error.value)

    refused("RIF-SVM", object(), architecture="rif_svm")
    refused(r"box of 16: expected \(None, 16, 16, 16, 1\)", classifier, size=16)
    refused("with the 2 classes", classifier, class_names=("a", "b"))
    refused("has no class names", classifier, class_names=())
    refused("ends in fc", encoder)
    refused("'sigmoid', expected softmax or none", small_network(activation="sigmoid"))
    assert not (tmp_path / "m").exists()


def test_a_version_is_never_written_over(classifier, description, served):
    with pytest.raises(InputError, match="has a version 1 already"):
        export_savedmodel(classifier, served.parent, description, version=1)
    with pytest.raises(InputError, match="is a SavedModel itself"):
        export_savedmodel(classifier, served, description)


def test_whoever_polls_the_folder_sees_whole_versions_only(classifier, description, tmp_path):
    seen, over = [], threading.Event()

    def poll():
        while not over.is_set():
            for folder in tmp_path.glob("[0-9]*"):
                parts = ["saved_model.pb", "variables/variables.index", "assets/model.json", str(WARMUP)]
                seen.append(all((folder / part).is_file() for part in parts))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        for number in (1, 2):
            assert export_savedmodel(classifier, tmp_path, description).name == str(number)
    finally:
        over.set()
        thread.join()
    assert seen and all(seen)


def test_the_room_loads_no_framework():
    code = "import sys, aitom_ssl.export as e; assert 'export_savedmodel' in dir(e); print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'tensorflow'" not in shown.stdout and "'keras'" not in shown.stdout
