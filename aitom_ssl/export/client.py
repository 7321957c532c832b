"""Asking a served model: TensorFlow Serving's gRPC and REST interfaces, for models made by `export_savedmodel`.

    client = PredictClient("localhost:8500", model="mine")           # gRPC, needs the extra `serving`
    client = PredictClient("http://localhost:8501", model="mine")    # REST, needs nothing
    client.probabilities(volumes)                                     # (n, z, y, x) -> (n, classes)

The gRPC form is the faster one; REST sends the voxels of `probabilities` as base64, 4 / 3 of their size.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from aitom_ssl.errors import InputError

# What a gRPC server takes unless told otherwise (TensorFlow Serving takes 2 GB), less room for names and shapes.
MESSAGE_BYTES = 4 * 2**20 - 4096


class ServedModel(NamedTuple):
    """What a server says of a model: version, voxels a side, and the width of each signature's output.

    outputs: {"serving_default": {"probabilities": 10}, "features": {"features": 1024}, ...}.
    """

    version: int
    size: int
    outputs: dict[str, dict[str, int]]


Shapes = dict[str, list[int]]  # of tensors by name, -1 for the batch


class _Channel(Protocol):
    """One way to reach a server."""

    expansion: float  # bytes sent for a byte of voxels

    def describe(self) -> tuple[int, dict[str, tuple[Shapes, Shapes]]]:
        """Version, and inputs and outputs of each signature."""

    def predict(self, signature: str, output: str, volumes: np.ndarray, as_bytes: bool) -> np.ndarray:
        """The output of a signature for volumes (n, z, y, x, 1); `as_bytes`: serving_bytes has that output too."""

    def close(self) -> None: ...


class PredictClient:
    """A model on a server. Use it in a `with` block, or call `close`.

    Args:
        address: "host:8500" for gRPC, "http://host:8501" (or https) for REST.
        model: the name that the server gives the model.
        version: number of a version; None is the newest that is served.
        timeout: seconds to wait for one answer.
        message_bytes: volumes are split over messages so that their voxels take no more of each; one goes in any case.

    Methods raise InputError, in one line: no server, no such model or version, a box that the model does not take, or
    what the model itself found wrong (voxels that are not finite).
    """

    def __init__(
        self,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = 60.0,
        message_bytes: int = MESSAGE_BYTES,
    ):
        if not model:
            raise InputError("model='' must be the name that the server gives the model.")
        if version is not None and (not isinstance(version, int) or version < 1):
            raise InputError(f"version={version!r} must be a whole number, 1 or more, or None for the newest.")
        if message_bytes < 1 or not timeout > 0:
            raise InputError(f"message_bytes={message_bytes} and timeout={timeout} must be above 0.")
        kind = _Rest if "://" in address else _Grpc
        self._channel: _Channel = kind(address, model, version, timeout)
        self._message_bytes = message_bytes
        self._where = f"{model} on {address}"
        self._metadata: ServedModel | None = None

    def __enter__(self) -> PredictClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def metadata(self) -> ServedModel:
        """What the server says of the model, now."""
        version, signatures = self._channel.describe()
        sides = signatures.get("serving_default", ({}, {}))[0].get("subtomogram", [])
        if len(sides) != 5 or len(set(sides[1:4])) != 1 or sides[1] < 1:
            raise InputError(
                f"{self._where} was not made by export_savedmodel: it takes no `subtomogram` (n, z, y, x, 1) in "
                f"serving_default (signatures: {', '.join(sorted(signatures)) or 'none'})."
            )
        outputs = {
            name: {key: shape[-1] for key, shape in out.items()}
            for name, (_, out) in signatures.items()
            if not name.startswith("__")  # TensorFlow's own
        }
        self._metadata = ServedModel(version, sides[1], outputs)
        return self._metadata

    def probabilities(self, volumes: np.ndarray) -> np.ndarray:
        """(n, classes) float32 of volumes (n, z, y, x), standardised or not: the model does it."""
        return self._ask("serving_default", "probabilities", volumes)

    def logits(self, volumes: np.ndarray) -> np.ndarray:
        """(n, classes) float32 before the softmax, of volumes (n, z, y, x)."""
        return self._ask("logits", "logits", volumes)

    def features(self, volumes: np.ndarray) -> np.ndarray:
        """(n, features) float32 that the last layer sees, or that an encoder gives, of volumes (n, z, y, x)."""
        return self._ask("features", "features", volumes)

    def _ask(self, signature: str, output: str, volumes: np.ndarray) -> np.ndarray:
        served = self._metadata or self.metadata()
        if output not in served.outputs.get(signature, {}):
            given = ", ".join(sorted({key for outputs in served.outputs.values() for key in outputs}))
            raise InputError(f"{self._where} gives no {output} (it gives {given}).")
        side = served.size
        volumes = np.asarray(volumes)
        if volumes.ndim != 4 or volumes.shape[1:] != (side,) * 3:
            raise InputError(
                f"Volumes of shape {volumes.shape} do not fit {self._where}: expected (n, {side}, {side}, {side})."
            )
        if volumes.dtype.kind not in "fiub":
            raise InputError(f"Volumes of type {volumes.dtype} do not fit {self._where}: expected numbers.")
        as_bytes = output in served.outputs.get("serving_bytes", {})
        count = max(1, int(self._message_bytes / (4 * side**3 * self._channel.expansion)))
        answers = [np.empty((0, served.outputs[signature][output]), np.float32)]
        for start in range(0, len(volumes), count):
            sent = np.ascontiguousarray(volumes[start : start + count, ..., None], dtype="<f4")
            try:
                answers.append(self._channel.predict(signature, output, sent, as_bytes))
            except InputError as error:
                if len(volumes) <= count:
                    raise
                # Positions in the reason count from the start of this message.
                raise InputError(f"Volumes {start} to {start + len(sent) - 1}: {error}") from None
        return np.concatenate(answers)


def _reason(message: str) -> str:
    """The sentence in an error of TensorFlow's: without the node it comes from."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if "assertion failed: " in line), lines[0]).replace("assertion failed: ", "")


def _named(model: str, version: int | None) -> str:
    return model if version is None else f"{model}, version {version}"


def _away(address: str, reason: object, usual: str) -> str:
    return (
        f"No server answers at {address} ({reason}): start it, or check host and port ({usual} unless told otherwise)."
    )


def _not_served(address: str, named: str, reason: str) -> str:
    return f"{address} does not serve {named} ({reason}): check the name and version."


def _late(address: str, timeout: float) -> str:
    return f"{address} did not answer in {timeout:g} s: wait longer (timeout) or send less at once (message_bytes)."


def _refused(named: str, reason: str) -> str:
    return f"{named} refused the volumes: {reason}"


class _Grpc:
    """tensorflow.serving.PredictionService."""

    expansion = 1.0

    def __init__(self, address: str, model: str, version: int | None, timeout: float):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise InputError(
                f"gRPC needs the extra `serving` ({error}): pip install 'aitom_ssl[serving]', or use the server's REST "
                "interface, http://HOST:8501, which needs nothing more."
            ) from None
        # Answers may be long (features of a million voxels); it is the server's limit that volumes are split for.
        self._connection = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._connection)
        self._address, self._model, self._version, self._timeout = address, model, version, timeout

    def _call(self, method: str, request: Any) -> Any:
        import grpc

        request.model_spec.name = self._model
        if self._version is not None:
            request.model_spec.version.value = self._version
        try:
            return getattr(self._stub, method)(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, reason = error.code(), _reason(error.details() or "")
        named, address = _named(self._model, self._version), self._address
        messages = {
            "UNAVAILABLE": _away(address, reason, "gRPC is 8500"),
            "NOT_FOUND": _not_served(address, named, reason),
            "DEADLINE_EXCEEDED": _late(address, self._timeout),
            "RESOURCE_EXHAUSTED": f"{address} refuses the message's size ({reason}): take a smaller message_bytes.",
            "INVALID_ARGUMENT": _refused(named, reason),
        }
        raise InputError(messages.get(code.name, f"{address}, {named}: {code.name}, {reason}"))

    def describe(self) -> tuple[int, dict[str, tuple[Shapes, Shapes]]]:
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        response = self._call("GetModelMetadata", request)
        found = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)

        def shapes(tensors: Mapping[str, Any]) -> Shapes:
            return {name: [side.size for side in info.tensor_shape.dim] for name, info in tensors.items()}

        signatures = {name: (shapes(s.inputs), shapes(s.outputs)) for name, s in found.signature_def.items()}
        return response.model_spec.version.value, signatures

    def predict(self, signature: str, output: str, volumes: np.ndarray, as_bytes: bool) -> np.ndarray:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        request.inputs["subtomogram"].CopyFrom(tf.make_tensor_proto(volumes))
        return tf.make_ndarray(self._call("Predict", request).outputs[output])

    def close(self) -> None:
        self._connection.close()


class _Rest:
    """The documented JSON of TensorFlow Serving."""

    expansion = 4 / 3

    def __init__(self, address: str, model: str, version: int | None, timeout: float):
        if not re.match(r"https?://[^/]", address):
            raise InputError(f"Address {address!r} must be http://HOST:PORT or https://HOST:PORT (REST), or HOST:PORT.")
        at = f"/versions/{version}" if version is not None else ""
        self._url = f"{address.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}{at}"
        self._address, self._named, self._timeout = address, _named(model, version), timeout

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                answer, code = response.read(), 200
        except urllib.error.HTTPError as error:
            answer, code = error.read(), error.code
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            late = isinstance(reason, TimeoutError)
            raise InputError(
                _late(self._address, self._timeout) if late else _away(self._address, reason, "REST is 8501")
            ) from None
        try:
            answer = json.loads(answer)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._stranger(f"HTTP {code}")
        if code == 200:
            return answer
        reason = _reason(str(answer.get("error", "")))
        messages = {404: _not_served(self._address, self._named, reason), 400: _refused(self._named, reason)}
        raise InputError(messages.get(code, f"{self._address}, {self._named}: HTTP {code}, {reason}"))

    def _stranger(self, why: str) -> InputError:
        return InputError(f"{self._address} does not answer as TensorFlow Serving does ({why}): another port?")

    def describe(self) -> tuple[int, dict[str, tuple[Shapes, Shapes]]]:
        answer = self._call("/metadata")

        def shapes(tensors: Mapping[str, Any]) -> Shapes:
            dims = {name: info.get("tensor_shape", {}).get("dim", []) for name, info in tensors.items()}
            return {name: [int(side["size"]) for side in sides] for name, sides in dims.items()}

        try:
            found = answer["metadata"]["signature_def"]["signature_def"]
            return int(answer["model_spec"]["version"]), {
                name: (shapes(s.get("inputs", {})), shapes(s.get("outputs", {}))) for name, s in found.items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise self._stranger(f"metadata without {error}") from None

    def predict(self, signature: str, output: str, volumes: np.ndarray, as_bytes: bool) -> np.ndarray:
        inputs: dict[str, list]
        if as_bytes:
            signature = "serving_bytes"
            raw = [{"b64": base64.b64encode(volume.tobytes()).decode()} for volume in volumes]
            inputs = {"subtomogram_bytes": raw}
        else:
            inputs = {"subtomogram": volumes.tolist()}
        answer = self._call(":predict", {"signature_name": signature, "inputs": inputs})
        if "outputs" not in answer:
            raise self._stranger("a prediction without outputs")
        # A single output is not named in the answer.
        return np.asarray(answer["outputs"], np.float32)

    def close(self) -> None:
        """Nothing: each request has a connection of its own."""
