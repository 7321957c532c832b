"""The graph of a whole-model file laid over ours: the same in the words of any Keras, or the first difference named."""

import json

import pytest
import tf_keras
from small_legacy import CLASSES, difference, edited, emptied, names_in, refused, save, variant
from tf_keras import layers

from aitom_ssl import models
from aitom_ssl.export.compare_legacy import legacy_network
from aitom_ssl.export.legacy import load_legacy_weights


def test_a_sequential_model_and_an_activation_of_its_own(tmp_path, twins):
    network = tf_keras.Sequential([layers.Conv3D(32, 3, padding="same", input_shape=(16, 16, 16, 1))])
    for layer in legacy_network("dsrf3d", 16, CLASSES).layers[2:]:
        if layer.name == "flatten" or not layer.weights or layer.name.startswith("fc"):
            network.add(type(layer).from_config(layer.get_config()))
        elif len(network.layers) == 1:
            network.add(layers.ReLU())
            network.add(layers.Conv3D(32, 3, padding="same"))
            network.add(layers.Activation("relu"))
        else:
            network.add(type(layer).from_config(layer.get_config()))
    folder = save(network, tmp_path)
    for name in ("whole.h5", "only.h5"):
        load_legacy_weights(emptied(twins("dsrf3d")), folder / name)
        assert difference(twins("dsrf3d"), folder) == 0


def test_the_order_of_names_in_a_whole_model_file_does_not_matter(tmp_path, twins, inception):
    def edit(file):
        group = file["model_weights"]
        group.attrs["layer_names"] = sorted(names_in(group), reverse=True)

    path = edited(inception / "whole.h5", tmp_path / "a.h5", edit)
    load_legacy_weights(emptied(twins("inception3d")), path)
    assert difference(twins("inception3d"), inception) == 0


def as_keras_1(file):
    """A file of tf-keras in the words of Keras 1.2: other classes, settings, names of arrays; no version by weights."""
    words = {"padding": "border_mode", "strides": "subsample", "use_bias": "bias", "data_format": "dim_ordering"}
    config = json.loads(file.attrs["model_config"])
    config["class_name"] = "Model"
    for layer in config["config"]["layers"]:
        settings = layer["config"]
        settings.pop("dtype", None)
        for node in layer["inbound_nodes"]:
            node[:] = [source[:3] for source in node]
        if layer["class_name"] == "Conv3D":
            layer["class_name"] = "Convolution3D"
            for name in ("dilation_rate", "groups"):
                del settings[name]
            settings |= {f"kernel_dim{i + 1}": side for i, side in enumerate(settings.pop("kernel_size"))}
            settings |= {"nb_filter": settings.pop("filters")}
        elif layer["class_name"] == "Dense":
            settings["output_dim"] = settings.pop("units")
        elif layer["class_name"] == "Concatenate":
            layer["class_name"] = "Merge"
            settings |= {"mode": "concat", "concat_axis": settings.pop("axis")}
        if layer["class_name"] in ("Convolution3D", "MaxPooling3D", "AveragePooling3D"):
            pooling = layer["class_name"] != "Convolution3D"
            for new, old in words.items():
                if new in settings and not (pooling and new == "strides"):
                    settings[old] = "tf" if old == "dim_ordering" else settings.pop(new)
                    settings.pop(new, None)
    file.attrs["model_config"] = json.dumps(config)
    del file["model_weights"].attrs["keras_version"]
    file.attrs["keras_version"] = "1.2.2"


def test_keras_1(tmp_path, twins, inception):
    path = edited(inception / "whole.h5", tmp_path / "a.h5", as_keras_1)
    load_legacy_weights(emptied(twins("inception3d")), path)
    assert difference(twins("inception3d"), inception) == 0

    def first(file):
        as_keras_1(file)
        config = file.attrs["model_config"].replace('"dim_ordering": "tf"', '"dim_ordering": "th"')
        file.attrs["model_config"] = config

    refused(twins("inception3d"), edited(inception / "whole.h5", tmp_path / "b.h5", first), "channels first")


def test_another_pooling_is_refused(tmp_path, twins):
    folder = save(variant(pool=layers.AveragePooling3D), tmp_path)
    refused(twins("inception3d"), folder / "whole.h5", r"is average pooling \(size.*expected max pooling")


def test_a_network_without_softmax_is_for_a_model_without_one(tmp_path, twins):
    folder = save(variant(softmax=False), tmp_path)
    refused(twins("inception3d"), folder / "whole.h5", "classifier_activation=None")
    model = models.get("inception3d")((16, 16, 16, 1), CLASSES, classifier_activation=None)
    model.jit_compile = False
    load_legacy_weights(model, folder / "whole.h5")
    assert difference(model, folder) == 0


def change_config(old, new):
    def edit(file):
        config = file.attrs["model_config"]
        assert old in config
        file.attrs["model_config"] = config.replace(old, new)

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change_config('"layers"', '"leyers"'), "model_config cannot be understood"),
        (change_config('"activation": "relu"', '"activation": "tanh"'), "is tanh, expected relu"),
        (change_config('"padding": "valid", "data', '"padding": "same", "data'), "padding same.*expected"),
        (change_config("channels_last", "channels_first"), "channels first"),
        (change_config("[null, 16, 16, 16, 1]", "[null, 16, 16, 20, 1]"), "expected cubes"),
    ],
)
def test_another_graph_is_refused(tmp_path, twins, inception, edit, words):
    refused(twins("inception3d"), edited(inception / "whole.h5", tmp_path / "a.h5", edit), words)


def test_a_model_inside_a_model_is_refused_with_the_way_out(tmp_path, twins):
    inner = legacy_network("inception3d", 16, CLASSES)
    outer = layers.Input((16, 16, 16, 1))
    folder = save(tf_keras.Model(outer, inner(outer)), tmp_path)
    for name in ("whole.h5", "only.h5"):
        refused(twins("inception3d"), folder / name, r"model\.get_layer\('.*'\)\.save")
    refused(twins("inception3d"), folder / "only.weights.h5", "holds none of inception3d")
