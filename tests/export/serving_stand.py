"""A stand in for TensorFlow Serving, for tests: its C++ loader through the C API, its gRPC and its REST interface.

`CppModel` loads a SavedModel with tensorflow::LoadSavedModel, as the server does, and runs signatures in that session:
no Python object of the model and no Keras is involved. `Stand` answers tensorflow.serving.PredictionService and the
documented JSON in front of it.
"""

import base64
import contextlib
import ctypes
import http.server
import json
import re
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

# === TensorFlow's C API ===

FLOAT, STRING = 1, 7


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


def _c_api():
    folder = Path(tf.__file__).parent
    framework = ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"), mode=ctypes.RTLD_GLOBAL)
    pointers = ["TF_NewStatus", "TF_NewSessionOptions", "TF_NewGraph", "TF_LoadSessionFromSavedModel"]
    pointers += ["TF_GraphOperationByName", "TF_AllocateTensor", "TF_TensorData"]
    api = {}
    names = [*pointers, "TF_GetCode", "TF_Message", "TF_SessionRun", "TF_NumDims", "TF_Dim", "TF_TensorByteSize"]
    names += ["TF_TensorType", "TF_DeleteTensor", "TF_CloseSession", "TF_DeleteSession", "TF_DeleteGraph"]
    names += ["TF_DeleteStatus", "TF_DeleteSessionOptions", "TF_StringInit", "TF_StringCopy", "TF_NewBuffer"]
    names += ["TF_DeleteBuffer"]
    for name in names:
        try:
            api[name] = getattr(library, name)
        except AttributeError:
            api[name] = getattr(framework, name)
        api[name].restype = ctypes.c_void_p if name in pointers else None
    api["TF_GetCode"].restype = api["TF_NumDims"].restype = api["TF_TensorType"].restype = ctypes.c_int
    api["TF_Message"].restype = ctypes.c_char_p
    api["TF_Dim"].restype = ctypes.c_int64
    api["TF_TensorByteSize"].restype = ctypes.c_size_t
    api["TF_NewBuffer"].restype = ctypes.POINTER(_Buffer)
    return api


class CppError(Exception):
    """A status of TensorFlow's that is not OK."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class CppModel:
    """A SavedModel in a session of TensorFlow's C++ loader: `model(signature, input array) -> {output: array}`."""

    def __init__(self, folder):
        self._api = _c_api()
        self._graph = ctypes.c_void_p(self._api["TF_NewGraph"]())
        options = ctypes.c_void_p(self._api["TF_NewSessionOptions"]())
        tags = (ctypes.c_char_p * 1)(b"serve")
        buffer = self._api["TF_NewBuffer"]()
        with self._status() as status:
            session = self._api["TF_LoadSessionFromSavedModel"](
                options, None, str(folder).encode(), tags, 1, self._graph, buffer, status
            )
        self._session = ctypes.c_void_p(session)
        self.meta_graph = meta_graph_pb2.MetaGraphDef.FromString(
            ctypes.string_at(buffer.contents.data, buffer.contents.length)
        )
        self._api["TF_DeleteBuffer"](buffer)
        self._api["TF_DeleteSessionOptions"](options)
        self.signatures = {n: s for n, s in self.meta_graph.signature_def.items() if not n.startswith("__")}

    @contextlib.contextmanager
    def _status(self):
        status = ctypes.c_void_p(self._api["TF_NewStatus"]())
        yield status
        code, message = self._api["TF_GetCode"](status), self._api["TF_Message"](status).decode()
        self._api["TF_DeleteStatus"](status)
        if code:
            raise CppError(code, message)

    def __call__(self, signature, array):
        inputs = list(self.signatures[signature].inputs.items())
        outputs = list(self.signatures[signature].outputs.items())
        fed = (ctypes.c_void_p * 1)(self._tensor(array))
        fetched = (ctypes.c_void_p * len(outputs))()
        with self._status() as status:
            self._api["TF_SessionRun"](
                *(self._session, None),
                *((_Output * 1)(self._place(inputs[0][1].name)), fed, 1),
                *((_Output * len(outputs))(*(self._place(info.name) for _, info in outputs)), fetched, len(outputs)),
                *(None, 0, None, status),
            )
        self._api["TF_DeleteTensor"](ctypes.c_void_p(fed[0]))
        return {name: self._array(ctypes.c_void_p(tensor)) for (name, _), tensor in zip(outputs, fetched, strict=True)}

    def _place(self, name):
        operation, _, index = name.partition(":")
        return _Output(self._api["TF_GraphOperationByName"](self._graph, operation.encode()), int(index))

    def _tensor(self, array):
        sides = (ctypes.c_int64 * array.ndim)(*array.shape)
        if array.dtype == object:
            tensor = self._api["TF_AllocateTensor"](STRING, sides, array.ndim, ctypes.c_size_t(24 * array.size))
            place = self._api["TF_TensorData"](ctypes.c_void_p(tensor))
            for i, value in enumerate(array.flat):
                string = ctypes.c_void_p(place + 24 * i)
                self._api["TF_StringInit"](string)
                self._api["TF_StringCopy"](string, value, ctypes.c_size_t(len(value)))
            return tensor
        array = np.ascontiguousarray(array, np.float32)
        tensor = self._api["TF_AllocateTensor"](FLOAT, sides, array.ndim, ctypes.c_size_t(array.nbytes))
        ctypes.memmove(self._api["TF_TensorData"](ctypes.c_void_p(tensor)), array.ctypes.data, array.nbytes)
        return tensor

    def _array(self, tensor):
        assert self._api["TF_TensorType"](tensor) == FLOAT
        shape = [self._api["TF_Dim"](tensor, axis) for axis in range(self._api["TF_NumDims"](tensor))]
        size = self._api["TF_TensorByteSize"](tensor)
        data = ctypes.string_at(self._api["TF_TensorData"](tensor), size) if size else b""
        self._api["TF_DeleteTensor"](tensor)
        return np.frombuffer(data, np.float32).reshape(shape)

    def close(self):
        with self._status() as status:
            self._api["TF_CloseSession"](self._session, status)
        with self._status() as status:
            self._api["TF_DeleteSession"](self._session, status)
        self._api["TF_DeleteGraph"](self._graph)


# === TensorFlow Serving's interfaces, as documented ===


class Refusal(Exception):
    """What TensorFlow Serving would answer instead: a gRPC status and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Stand(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Serves {(name, version): CppModel}; `requests` keeps the size of every request to predict."""

    def __init__(self, models):
        self.models, self.requests, self.delay = models, [], 0.0
        self._grpc = grpc.server(futures.ThreadPoolExecutor(2))  # with gRPC's own limit of 4 MB a message
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._grpc)
        self.grpc_address = f"localhost:{self._grpc.add_insecure_port('localhost:0')}"
        self._grpc.start()
        handler = type("Handler", (_Handler,), {"stand": self})
        self._http = http.server.ThreadingHTTPServer(("localhost", 0), handler)
        self.rest_address = f"http://localhost:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self):
        self._grpc.stop(0)
        self._http.shutdown()
        self._http.server_close()

    def find(self, name, version):
        versions = [v for n, v in self.models if n == name]
        if not versions or (version and version not in versions):
            wanted = f"Specific({name}, {version})" if version else f"Latest({name})"
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
        version = version or max(versions)
        return version, self.models[name, version]

    def run(self, model, signature, inputs):
        time.sleep(self.delay)
        signature = signature or "serving_default"
        if signature not in model.signatures:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f'Serving signature key "{signature}" not found.')
        expected = set(model.signatures[signature].inputs)
        if set(inputs) != expected:
            message = f"input size does not match signature: {sorted(inputs)} {sorted(expected)}"
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, message)
        try:
            return model(signature, next(iter(inputs.values())))
        except CppError as error:
            code = next(code for code in grpc.StatusCode if code.value[0] == error.code)
            raise Refusal(code, str(error)) from None

    def Predict(self, request, context):
        self.requests.append(request.ByteSize())
        response = predict_pb2.PredictResponse()
        try:
            version, model = self.find(request.model_spec.name, request.model_spec.version.value)
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            for name, array in self.run(model, request.model_spec.signature_name, inputs).items():
                # Numbers in the field of their type, which is how TensorFlow Serving answers.
                tensor = response.outputs[name]
                tensor.dtype = FLOAT
                tensor.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
                tensor.float_val.extend(array.ravel().tolist())
        except Refusal as refusal:
            context.abort(refusal.code, str(refusal))
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version
        return response

    def GetModelMetadata(self, request, context):
        try:
            return self.metadata(request.model_spec.name, request.model_spec.version.value)
        except Refusal as refusal:
            context.abort(refusal.code, str(refusal))

    def metadata(self, name, version):
        version, model = self.find(name, version)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = name, version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in model.meta_graph.signature_def.items():
            signatures.signature_def[key].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return response


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        def answer(name, version):
            response = self.stand.metadata(name, version)
            return json.loads(json_format.MessageToJson(response, preserving_proto_field_name=True))

        self._answer("/metadata", answer)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.stand.requests.append(len(body))

        def answer(name, version):
            request = json.loads(body)
            _, model = self.stand.find(name, version)
            columns = request["inputs"]
            inputs = {key: _from_json(value) for key, value in columns.items()}
            outputs = self.stand.run(model, request.get("signature_name"), inputs)
            lists = {key: value.tolist() for key, value in outputs.items()}
            return {"outputs": lists if len(lists) > 1 else next(iter(lists.values()))}

        self._answer(":predict", answer)

    def _answer(self, ending, answer):
        found = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?" + ending, self.path)
        try:
            if not found:
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"Malformed request: {self.command} {self.path}")
            code, body = 200, answer(found[1], int(found[2] or 0))
        except Refusal as refusal:
            code = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400}.get(refusal.code.name, 500)
            body = {"error": str(refusal)}
        data = json.dumps(body, indent=4).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def _from_json(value):
    if isinstance(value[0], dict):
        return strings(base64.b64decode(item["b64"]) for item in value)
    return np.asarray(value, np.float32)


def strings(items):
    """A vector of byte strings, NULs at their ends kept."""
    items = list(items)
    array = np.empty(len(items), object)
    array[:] = items
    return array
