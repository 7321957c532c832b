"""The graph in a Keras config of any age, and whether two of them compute the same. No framework.

An activation is a step of its own wherever it is written, dropout is none, and every setting that changes a prediction
is compared: so a config of Keras 1, one of tf-keras and ours, which say the same in other words, can be laid over one
another.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from aitom_ssl.errors import InputError


class _Layer(NamedTuple):
    name: str
    class_name: str
    config: Mapping[str, Any]
    inputs: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """One operation of a network: an activation is a step of its own, dropout is none."""

    kind: str
    settings: dict[str, Any]
    layer: str
    sources: tuple[_Step, ...]


class Graph:
    """A flat model with one input and one output, from a Keras config of any age.

    last: the step that gives the output. first_visit, created: names of the layers as the output reaches them, before
    and after their inputs. depth: of each layer, steps to the output. above: of each layer, those whose results it
    needs. Raises InputError, which names `where`, on any other model.
    """

    def __init__(self, config: Any, where: str):
        self.where = where
        try:
            self.layers, self.output = _flat(config)
            self._depths_and_visits()
            self._steps: dict[str, _Step] = {}
            self.last = self._step(self.output)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{where}: {error}") from None
            raise InputError(f"{where}: its model_config cannot be understood ({error!r}): copy it again.") from None

    def _depths_and_visits(self) -> None:
        self.first_visit: list[str] = []
        self.created: list[str] = []
        self.above: dict[str, set[str]] = {}

        def visit(name: str) -> None:
            if name in self.first_visit:
                return
            self.first_visit.append(name)
            inputs = self.layers[name].inputs
            for source in inputs:
                visit(source)
            self.created.append(name)
            self.above[name] = set(inputs).union(*(self.above[source] for source in inputs))

        visit(self.output)
        self.depth = dict.fromkeys(self.created, 0)
        for name in reversed(self.created):
            for source in self.layers[name].inputs:
                self.depth[source] = max(self.depth[source], self.depth[name] + 1)

    def written(self) -> list[str]:
        """Names in the order in which Keras writes them: the deepest first, then as first visited."""
        return sorted(self.first_visit, key=lambda name: (-self.depth[name], self.first_visit.index(name)))

    def input_shape(self) -> tuple[int | None, ...]:
        """Of one sample, for example (z, y, x, 1); () where the config does not say."""
        step = self.last
        while step.sources:
            step = step.sources[0]
        return step.settings.get("shape", ())

    def _step(self, name: str) -> _Step:
        if name not in self._steps:
            layer = self.layers[name]
            sources = tuple(self._step(source) for source in layer.inputs)
            kind, settings, activation = _operation(layer)
            step = sources[0] if kind == "nothing" else _Step(kind, settings, name, sources)
            self._steps[name] = step if activation == "linear" else _Step(str(activation), {}, name, (step,))
        return self._steps[name]


def _flat(config: Mapping[str, Any]) -> tuple[dict[str, _Layer], str]:
    """Layers by name, and the name of the output."""
    inside = config["config"]
    if config["class_name"] == "Sequential":
        entries = inside if isinstance(inside, list) else inside["layers"]
        layers = [_Layer(entry["config"]["name"], entry["class_name"], entry["config"], []) for entry in entries]
        if layers[0].class_name != "InputLayer":
            layers.insert(0, _Layer("input of the first layer", "InputLayer", layers[0].config, []))
        for before, after in itertools.pairwise(layers):
            after.inputs.append(before.name)
        output = layers[-1].name
    else:
        layers = [
            _Layer(_name(entry), entry["class_name"], entry["config"], _inbound(entry)) for entry in inside["layers"]
        ]
        outputs = inside["output_layers"]
        outputs = [outputs] if isinstance(outputs[0], str) else outputs
        if len(outputs) != 1:
            raise InputError(f"the model has {len(outputs)} outputs, expected a classifier with one.")
        output = outputs[0][0]
    nested = [layer.name for layer in layers if "layers" in layer.config or layer.class_name == "Sequential"]
    if nested:
        inner = f"model.get_layer({nested[0]!r}).save('x.h5')"
        raise InputError(f"layer {nested[0]!r} is a model inside the model, expected a flat one: save it with {inner}.")
    return {layer.name: layer for layer in layers}, output


def _name(entry: Mapping[str, Any]) -> str:
    return entry.get("name") or entry["config"]["name"]


def _inbound(entry: Mapping[str, Any]) -> list[str]:
    nodes = entry["inbound_nodes"]
    if len(nodes) > 1:
        raise InputError(f"layer {_name(entry)!r} is used {len(nodes)} times, expected once.")
    return _sources(nodes)


def _sources(value: Any) -> list[str]:
    """Names of the layers that a node takes its tensors from: [name, node, tensor] in Keras 1 and 2, a dict in 3."""
    if isinstance(value, dict):
        if "keras_history" in value:
            return [value["keras_history"][0]]
        return [name for part in value.values() for name in _sources(part)]
    if isinstance(value, (list, tuple)):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            return [value[0]]
        return [name for part in value for name in _sources(part)]
    return []


def _operation(layer: _Layer) -> tuple[str, dict[str, Any], str]:
    """Kind of operation ("nothing" for dropout), settings that change its result, and the activation after it."""
    config, class_name = layer.config, layer.class_name

    def first(*names: str, default: Any = None) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), default)

    if first("data_format", "dim_ordering") in ("channels_first", "th"):
        raise InputError(f"layer {layer.name!r} has its channels first (Theano's order), expected channels last.")
    activation = config.get("activation") or "linear"
    if class_name in ("Conv3D", "Convolution3D"):
        side = config["kernel_size"] if "kernel_size" in config else [config[f"kernel_dim{i}"] for i in (1, 2, 3)]
        settings = {
            "filters": first("filters", "nb_filter"),
            "kernel": _triple(side),
            "strides": _triple(first("strides", "subsample", default=1)),
            "padding": first("padding", "border_mode", default="valid"),
            "dilation": _triple(first("dilation_rate", default=1)),
            "groups": first("groups", default=1),
            "bias": first("use_bias", "bias", default=True),
        }
        return "convolution", settings, activation
    if class_name in ("MaxPooling3D", "AveragePooling3D"):
        size = _triple(first("pool_size", default=2))
        settings = {
            "size": size,
            "strides": _triple(first("strides", default=size)),
            "padding": first("padding", "border_mode", default="valid"),
        }
        return ("max pooling" if class_name.startswith("Max") else "average pooling"), settings, "linear"
    if class_name == "Dense":
        settings = {"units": first("units", "output_dim"), "bias": first("use_bias", "bias", default=True)}
        return "dense", settings, activation
    if class_name == "InputLayer" or (not layer.inputs and ("batch_input_shape" in config or "batch_shape" in config)):
        shape = first("batch_shape", "batch_input_shape")
        return "input", {"shape": tuple(shape[1:])}, "linear"
    if class_name == "Concatenate" or (class_name == "Merge" and config.get("mode") == "concat"):
        axis = first("axis", "concat_axis", default=-1)
        return "concatenation", {"axis": -1 if axis == 4 else axis}, "linear"
    if class_name == "Activation":
        return "nothing", {}, activation
    if class_name == "Softmax" and config.get("axis", -1) in (-1, 1):
        return "nothing", {}, "softmax"
    if class_name == "ReLU" and not any(config.get(name) for name in ("max_value", "negative_slope", "threshold")):
        return "nothing", {}, "relu"
    if class_name == "Dropout":
        return "nothing", {}, "linear"
    if class_name == "Flatten":
        return "flatten", {}, "linear"
    return class_name, {}, "linear"


def _triple(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def laid_over(ours: Graph, theirs: Graph) -> dict[str, str]:
    """Names of our layers with weights to theirs, where both compute the same; else InputError naming a difference.

    Ours may lack the softmax at the end. Both must have as many layers with weights, of the same shapes.
    """
    last, other = ours.last, theirs.last
    if other.kind != "softmax" and last.kind == "softmax":
        raise InputError(
            f"{theirs.where} ends in {_described(other)}, not in a softmax: build the model with "
            "classifier_activation=None."
        )
    # Without an activation ours gives what theirs feeds its softmax.
    if last.kind == "dense" and other.kind == "softmax":
        other = other.sources[0]
    names: dict[str, str] = {}
    # Layers with weights are as many and of the same shapes on both sides, so none stands for two of the other's.
    seen: set[tuple[_Step, _Step]] = set()
    pairs = [(last, other)]
    while pairs:
        mine, yours = pair = pairs.pop()
        if pair in seen:
            continue
        seen.add(pair)
        if (mine.kind, mine.settings, len(mine.sources)) != (yours.kind, yours.settings, len(yours.sources)):
            raise InputError(
                f"{theirs.where} computes something else than {ours.where}: its layer {yours.layer!r} is "
                f"{_described(yours)}, expected {_described(mine)}."
            )
        if mine.kind in ("convolution", "dense"):
            names[mine.layer] = yours.layer
        pairs += zip(mine.sources, yours.sources, strict=True)
    return names


def _described(step: _Step) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in step.settings.items())
    return f"{step.kind} ({settings})" if settings else step.kind
