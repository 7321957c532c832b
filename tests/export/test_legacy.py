"""Weights of legacy files: the same predictions, or a refusal; never an array in another layer's place."""

import itertools
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tf_keras
from small_legacy import CLASSES, LAYOUTS, difference, edited, emptied, names_in, refused, save, variant, volumes
from tf_keras import layers

from aitom_ssl import models
from aitom_ssl.errors import InputError
from aitom_ssl.export.compare_legacy import legacy_network
from aitom_ssl.export.legacy import identify_legacy, load_legacy_weights, roundest_size

NETWORKS = [("inception3d", 16), ("dsrf3d", 16), ("dsrf3dv2", 16), ("rb3d", 16), ("inception3d", 20)]


# === The same predictions ===


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("architecture", "size"), NETWORKS)
def test_predictions_are_the_same(legacy_files, twins, architecture, size, layout):
    folder = legacy_files(architecture, size)
    path = folder / LAYOUTS[layout]
    assert identify_legacy(path) == (architecture, size, CLASSES)
    model = emptied(twins(architecture, size))
    before = path.stat().st_mtime_ns
    load_legacy_weights(model, path)
    assert difference(model, folder) == 0
    assert path.stat().st_mtime_ns == before


def test_an_optimizer_state_is_left_alone(tmp_path, twins):
    network = legacy_network("inception3d", 16, CLASSES)
    network.compile(tf_keras.optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy")
    network.fit(volumes(16), np.eye(CLASSES)[:3], verbose=0)
    network.save(tmp_path / "trained.h5")
    np.save(tmp_path / "predictions.npy", network.predict(volumes(16), verbose=0))
    with h5py.File(tmp_path / "trained.h5") as file:
        assert len(file["optimizer_weights"].attrs["weight_names"]) > 10
    load_legacy_weights(emptied(twins("inception3d")), tmp_path / "trained.h5")
    assert difference(twins("inception3d"), tmp_path) == 0


def test_without_activation_the_features_are_what_the_softmax_was_given(inception):
    model = models.get("inception3d")((16, 16, 16, 1), CLASSES, classifier_activation=None)
    load_legacy_weights(model, inception / "whole.h5")
    network = tf_keras.models.load_model(inception / "whole.h5", compile=False)
    logits = tf_keras.Model(network.input, network.layers[-2].output).predict(volumes(16), verbose=0)
    assert np.array_equal(model.predict(volumes(16), verbose=0), logits)


# === Inception3D with other names, other orders of creation, other graphs ===


@pytest.mark.parametrize("created", [("pooled", "large", "small", "direct"), ("small", "pooled", "direct", "large")])
@pytest.mark.parametrize("named", [False, True])
def test_branches_created_in_another_order_or_under_other_names(tmp_path, twins, created, named):
    folder = save(variant(created, named=named), tmp_path)
    for name in LAYOUTS.values():
        load_legacy_weights(emptied(twins("inception3d")), folder / name)
        assert difference(twins("inception3d"), folder) == 0


def test_numbers_that_fit_another_assignment_are_refused(tmp_path, twins):
    """Two layers of one shape created the other way round: weights alone say two things, the graph says one."""
    folder = save(variant(reduce_first=True), tmp_path)
    refused(twins("inception3d"), folder / "only.h5", "order says another thing than their numbers.*whole-model file")
    load_legacy_weights(emptied(twins("inception3d")), folder / "whole.h5")
    assert difference(twins("inception3d"), folder) == 0


@pytest.mark.parametrize("joined", [("pooled", "small", "large", "direct"), ("small", "direct", "large", "pooled")])
@pytest.mark.parametrize("named", [False, True])
def test_branches_joined_in_another_order_are_refused(tmp_path, twins, joined, named):
    folder = save(variant(joined=joined, named=named), tmp_path)
    refused(twins("inception3d"), folder / "whole.h5", "computes something else")
    refused(twins("inception3d"), folder / "only.h5", "cannot be proven")


# === Files changed after Keras wrote them ===


def alike(file):
    """Positions in layer_names of the layers whose kernels are (1, 1, 1, 32, 32)."""
    found = []
    for position, name in enumerate(names_in(file)):
        weights = file[name].attrs["weight_names"]
        if len(weights) and file[name][weights[0]].shape == (1, 1, 1, 32, 32):
            found.append(position)
    return found


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_equal_shapes_in_another_order_of_names(tmp_path, twins, inception, order):
    def edit(file):
        names, places = names_in(file), alike(file)
        assert len(places) == 3
        for place, name in zip(places, [names[places[i]] for i in order], strict=True):
            names[place] = name
        file.attrs["layer_names"] = names

    path = edited(inception / "only.h5", tmp_path / "a.h5", edit)
    model = emptied(twins("inception3d"))
    if order == (0, 1, 2):
        load_legacy_weights(model, path)
        assert difference(model, inception) == 0
    else:
        refused(model, path, "order says another thing than their numbers.*whole-model file")


def test_names_sorted_by_number_are_not_the_order_of_keras(tmp_path, twins, inception):
    def edit(file):
        file.attrs["layer_names"] = sorted(names_in(file))

    path = edited(inception / "only.h5", tmp_path / "a.h5", edit)
    refused(twins("inception3d"), path, "not the one in which Keras writes.*whole-model file")


def test_blocks_of_rb3d_in_another_order(tmp_path, twins, legacy_files):
    folder = legacy_files("rb3d", 16)

    def edit(file):
        names = names_in(file)
        convolutions = [i for i, name in enumerate(names) if name.startswith("conv3d")]
        first, second = convolutions[2], convolutions[6]
        names[first], names[second] = names[second], names[first]
        file.attrs["layer_names"] = names

    path = edited(folder / "only.h5", tmp_path / "a.h5", edit)
    refused(twins("rb3d"), path, "order says another thing than their numbers")


def test_names_alone_prove_nothing_in_a_file_that_could_be_of_keras_1(tmp_path, twins):
    """Keras 1 could be told to write layers sorted by name: without numbers and without a version it is refused."""
    folder = save(variant(named=True), tmp_path)

    def edit(file):
        del file.attrs["keras_version"]

    path = edited(folder / "only.h5", tmp_path / "a.h5", edit)
    refused(twins("inception3d"), path, "names have no numbers.*whole-model file")


def test_a_chain_is_proven_by_its_order_alone(tmp_path, twins, legacy_files):
    folder = legacy_files("rb3d", 16)

    def edit(file):
        names = names_in(file)
        for i, name in enumerate(names):
            file.move(name, f"layer {i}")
        file.attrs["layer_names"] = [f"layer {i}" for i in range(len(names))]
        del file.attrs["keras_version"]

    path = edited(folder / "only.h5", tmp_path / "a.h5", edit)
    load_legacy_weights(emptied(twins("rb3d")), path)
    assert difference(twins("rb3d"), folder) == 0


# === Which network ===


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_network_is_refused_with_both_named(twins, inception, layout):
    path = inception / LAYOUTS[layout]
    held = "inception3d for 16\\^3 voxels and 5 classes"
    refused(models.get("inception3d")((16, 16, 16, 1), 7), path, f"{held}, but the model is.*7 classes")
    refused(twins("inception3d", 20), path, f"{held}, not for 20\\^3")
    refused(twins("dsrf3d"), path, f"{held}, but the model is dsrf3d")


@pytest.mark.parametrize("options", [{"pooling": "avg"}, {"include_top": False}])
def test_a_model_that_aitom_did_not_have_is_refused(inception, options):
    model = models.get("rb3d")((16, 16, 16, 1), CLASSES, **options)
    refused(model, inception / "whole.h5", "not one of AITom's networks")


def test_a_size_that_pooling_makes_equal_needs_the_graph(legacy_files):
    folder = legacy_files("dsrf3d", 16)
    model = models.get("dsrf3d")((18, 18, 18, 1), CLASSES)
    load_legacy_weights(model, folder / "only.h5")
    refused(model, folder / "whole.h5", "16\\^3 voxels and 5 classes, not for 18\\^3")
    assert identify_legacy(folder / "only.h5", 18).size == 18
    with pytest.raises(InputError, match="not for 20\\^3"):
        identify_legacy(folder / "only.h5", 20)


def test_another_network_of_keras_is_refused(tmp_path, twins):
    start = layers.Input((16, 16, 16, 1))
    x = layers.LayerNormalization()(layers.Conv3D(4, 3)(start))
    folder = save(tf_keras.Model(start, layers.Dense(CLASSES, "softmax")(layers.Flatten()(x))), tmp_path)
    for name in LAYOUTS.values():
        refused(twins("inception3d"), folder / name, "holds none of")


def test_identifying_a_file_loads_no_keras(inception):
    code = (
        "import sys; from aitom_ssl.export.legacy import identify_legacy; print(identify_legacy(sys.argv[1])); "
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'tf_keras')))"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(inception / "whole.h5")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "inception3d for 16^3 voxels and 5 classes" in done.stdout


@pytest.mark.parametrize(
    ("architecture", "size", "features"),
    [
        *[("inception3d", 32, 351_520), ("dsrf3d", 32, 32_768), ("dsrf3dv2", 32, 8_192), ("rb3d", 32, 131_072)],
        *[("inception3d", 40, 786_080), ("dsrf3d", 40, 64_000), ("dsrf3dv2", 40, 16_000), ("rb3d", 40, 256_000)],
    ],
)
def test_the_size_is_told_by_the_length_after_flattening(architecture, size, features):
    assert roundest_size(architecture, features) == size
    assert roundest_size(architecture, features + 1) is None
