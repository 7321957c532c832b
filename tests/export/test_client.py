"""The client against a real gRPC PredictionService and documented JSON, in front of TensorFlow's C++ loader."""

import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from serving_stand import CppModel, Stand
from small_network import SIZE, small_network

from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.export import export_savedmodel
from aitom_ssl.export.client import PredictClient
from aitom_ssl.models import ModelDescription

VOLUME = 4 * SIZE**3


@pytest.fixture(scope="module")
def stand(served, served_encoder, tmp_path_factory):
    """Version 1 has three classes, version 2 two."""
    described = ModelDescription("small", ("a", "b"), SIZE, None, None)
    newer = export_savedmodel(small_network(classes=2), tmp_path_factory.mktemp("newer"), described, version=2)
    models = {("small", 1): CppModel(served), ("small", 2): CppModel(newer), ("encoder", 7): CppModel(served_encoder)}
    stand = Stand(models)
    yield stand
    stand.close()


@pytest.fixture(params=["grpc", "rest"])
def connect(stand, request):
    """`connect(model, ...)`: a client over each interface."""
    address = stand.grpc_address if request.param == "grpc" else stand.rest_address
    made = []

    def connect(*arguments, **more):
        made.append(PredictClient(address, *arguments, **more))
        return made[-1]

    connect.address = address
    yield connect
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def wanted(classifier, volumes):
    return np.asarray(classifier(standardize(volumes.copy())[..., None], training=False))


def test_the_answers_are_those_of_keras(connect, volumes, wanted):
    client = connect("small", version=1)
    found = client.probabilities(volumes)
    assert found.dtype == np.float32 and np.abs(found - wanted).max() < 1e-6
    logits = client.logits(volumes)
    assert np.abs(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - wanted).max() < 1e-6
    assert client.features(volumes).shape == (5, 16)


def test_metadata(connect):
    served = connect("small", version=1).metadata()
    assert served.version == 1 and served.size == SIZE
    assert served.outputs == {
        "serving_default": {"probabilities": 3},
        "logits": {"logits": 3},
        "features": {"features": 16},
        "serving_bytes": {"probabilities": 3},
    }


def test_the_newest_version_unless_one_is_named(connect, volumes):
    assert connect("small").metadata().version == 2
    assert connect("small").probabilities(volumes).shape == (5, 2)
    assert connect("small", version=1).probabilities(volumes).shape == (5, 3)


def test_an_encoder_has_features_only(connect, volumes, encoder):
    client = connect("encoder")
    wanted = encoder(standardize(volumes.copy())[..., None], training=False)
    assert np.abs(client.features(volumes) - wanted).max() < 1e-5
    with pytest.raises(InputError, match=r"gives no probabilities \(it gives features\)"):
        client.probabilities(volumes)


def test_any_number_of_volumes_and_any_layout(connect, volumes, wanted):
    client = connect("small", version=1, message_bytes=2 * VOLUME)
    assert np.abs(client.probabilities(volumes) - wanted).max() < 1e-5
    assert client.probabilities(volumes[:0]).shape == (0, 3)
    for same in (volumes.astype(np.float64), volumes.astype(">f4"), np.asfortranarray(volumes)):
        assert np.abs(client.probabilities(same) - wanted).max() < 1e-5
    assert np.abs(client.probabilities(volumes.transpose(0, 3, 2, 1)) - wanted).max() > 1e-3


def test_messages_stay_below_the_limit_of_grpc(stand, volumes, wanted):
    many = np.tile(volumes, (500, 1, 1, 1))
    assert many.nbytes > 2**22  # too long for a server with gRPC's own limit, which the stand has
    stand.requests.clear()
    with PredictClient(stand.grpc_address, "small", version=1) as client:
        assert np.abs(client.probabilities(many) - np.tile(wanted, (500, 1))).max() < 1e-5
    assert len(stand.requests) == 2 and 0.9 * 2**22 < max(stand.requests) < 2**22
    client = PredictClient(stand.grpc_address, "small", version=1, message_bytes=2**23)
    with client, pytest.raises(InputError, match=r"refuses the message's size .*take a smaller message_bytes"):
        client.probabilities(many)


def test_messages_stay_below_the_limit_that_is_asked_for(connect, stand, volumes):
    client = connect("small", version=1, message_bytes=3 * VOLUME)
    client.metadata()
    stand.requests.clear()
    client.probabilities(np.concatenate([volumes, volumes[:1]]))
    # Names and shapes come on top.
    assert 2 * VOLUME < max(stand.requests) < 3 * VOLUME + 500
    assert len(stand.requests) == (3 if "://" in connect.address else 2)


# === Mistakes ===


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 9, 9, 9)), r"shape \(2, 9, 9, 9\) do not fit small on .*expected \(n, 8, 8, 8\)"),
        (np.zeros((8, 8, 8)), r"shape \(8, 8, 8\) do not fit"),
        (np.zeros((1, 8, 8, 8, 1)), "do not fit"),
        (np.zeros((1, 8, 8, 8), complex), "of type complex128"),
        (np.zeros((1, 8, 8, 8), object), "of type object"),
    ],
)
def test_what_does_not_fit_is_not_sent(connect, stand, array, said):
    client = connect("small", version=1)
    client.metadata()
    stand.requests.clear()
    with pytest.raises(InputError, match=said):
        client.probabilities(array)
    assert not stand.requests


def test_the_models_own_sentence_is_passed_on(connect, volumes):
    volumes = volumes.copy()
    volumes[3, 0, 0, 0] = np.nan
    with pytest.raises(InputError) as error:
        connect("small", version=1).probabilities(volumes)
    sentence = "[subtomogram has voxels that are NaN or infinite; positions in the batch] [3]"
    assert str(error.value) == f"small, version 1 refused the volumes: {sentence}"
    with pytest.raises(InputError, match=r"Volumes 2 to 3: small, version 1 .*positions in the batch\] \[1\]$"):
        connect("small", version=1, message_bytes=int(2.7 * VOLUME)).probabilities(volumes)


def test_a_model_or_version_that_is_not_served(connect, volumes):
    with pytest.raises(InputError, match=r"does not serve other \(Servable not found for request: Latest\(other\)\)"):
        connect("other").probabilities(volumes)
    with pytest.raises(InputError, match=r"does not serve small, version 9 .*check the name and version"):
        connect("small", version=9).metadata()


def test_no_server(connect, volumes):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = connect.address.rpartition(":")[0] + f":{port}"
    said = f"No server answers at {address} .*check host and port"
    with PredictClient(address, "small", timeout=5) as client, pytest.raises(InputError, match=said) as error:
        client.probabilities(volumes)
    assert "\n" not in str(error.value)


def test_a_server_that_takes_too_long(connect, stand, volumes):
    client = connect("small", version=1, timeout=0.3)
    client.metadata()
    stand.delay = 1.0
    try:
        with pytest.raises(InputError, match=r"did not answer in 0.3 s: wait longer \(timeout\)"):
            client.probabilities(volumes)
    finally:
        stand.delay = 0.0


def test_the_other_port(stand):
    """REST asked over gRPC, and gRPC over REST."""
    client = PredictClient(stand.rest_address.removeprefix("http://"), "small", timeout=5)
    with client, pytest.raises(InputError, match=r"No server answers|UNKNOWN|INTERNAL"):
        client.metadata()
    client = PredictClient(f"http://{stand.grpc_address}", "small", timeout=5)
    with client, pytest.raises(InputError, match=r"No server answers|does not answer as TensorFlow Serving does"):
        client.metadata()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("localhost:1", ""), "must be the name"),
        (("ftp://localhost:1", "m"), "must be http://HOST:PORT"),
        (("http://", "m"), "must be http://HOST:PORT"),
        (("localhost:1", "m", 0), "version=0 must be"),
        (("localhost:1", "m", None, 0), "timeout=0 must be above 0"),
    ],
)
def test_what_no_client_is_made_of(arguments, said):
    with pytest.raises(InputError, match=said):
        PredictClient(*arguments)


def test_another_savedmodel_is_named(stand, tmp_path):
    module = tf.Module()
    double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], name="x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": double})
    stand.models["double", 1] = CppModel(tmp_path / "1")
    for address in (stand.grpc_address, stand.rest_address):
        with (
            PredictClient(address, "double") as client,
            pytest.raises(InputError, match="not made by export_savedmodel"),
        ):
            client.probabilities(np.zeros((1, 8, 8, 8)))


def test_rest_needs_no_extra_and_no_framework(stand, volumes, wanted, tmp_path):
    np.save(tmp_path / "volumes.npy", volumes)
    code = f"""
import sys
for name in ("grpc", "tensorflow_serving", "tensorflow", "keras"):
    sys.modules[name] = None
import numpy as np
from aitom_ssl.export.client import PredictClient
client = PredictClient({stand.rest_address!r}, "small", version=1)
np.save({str(tmp_path / "found.npy")!r}, client.probabilities(np.load({str(tmp_path / "volumes.npy")!r})))
try:
    PredictClient("localhost:8500", "small")
except ValueError as error:
    print(error)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert np.abs(np.load(tmp_path / "found.npy") - wanted).max() < 1e-6
    assert "gRPC needs the extra `serving`" in shown.stdout and "aitom_ssl[serving]" in shown.stdout
