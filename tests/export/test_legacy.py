"""Legacy Keras files: the same predictions, or a refusal; never an array in another layer's place."""

import itertools
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tf_keras
import yaml
from tf_keras import layers

from aitom_ssl import models
from aitom_ssl.cli import main
from aitom_ssl.errors import InputError
from aitom_ssl.export.compare_legacy import legacy_network
from aitom_ssl.export.legacy import (
    identify_legacy,
    import_legacy,
    legacy_layout,
    load_legacy_weights,
    roundest_size,
    turn_axes,
)

CLASSES = 5
LAYOUTS = {"whole model": "whole.h5", "weights": "only.h5", "numbered weights": "only.weights.h5"}
NETWORKS = [("inception3d", 16), ("dsrf3d", 16), ("dsrf3dv2", 16), ("rb3d", 16), ("inception3d", 20)]


def volumes(size):
    return np.random.default_rng(size).standard_normal((3, size, size, size, 1)).astype(np.float32)


def save(model, folder):
    """Random weights, biases too, in the three layouts; and what tf-keras predicts: no class is certain."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        scale = np.sqrt(2 / np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 0.2
        weight.assign(scale * rng.standard_normal(weight.shape, np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    model.compile("sgd", "categorical_crossentropy")
    for layout, name in LAYOUTS.items():
        (model.save if layout == "whole model" else model.save_weights)(folder / name)
    predictions = model.predict(volumes(model.input_shape[1]), verbose=0)
    assert (np.sort(predictions)[:, -2] > 1e-3).all()
    np.save(folder / "predictions.npy", predictions)
    return folder


@pytest.fixture(scope="session")
def legacy_files(tmp_path_factory):
    """(architecture, size) to a folder of files, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("legacy"), {}

    def of(architecture, size):
        if (architecture, size) not in made:
            network = legacy_network(architecture, size, CLASSES)
            made[architecture, size] = save(network, folder / f"{architecture}{size}")
        return made[architecture, size]

    yield of
    shutil.rmtree(folder)  # RB3D's files are 72 MB each


@pytest.fixture(scope="session")
def twins():
    """(architecture, size) to our network, one for the whole module: each test fills it anew."""
    made = {}

    def of(architecture, size=16):
        if (architecture, size) not in made:
            made[architecture, size] = models.get(architecture)((size,) * 3 + (1,), CLASSES)
            made[architecture, size].jit_compile = False
        return made[architecture, size]

    return of


@pytest.fixture
def inception(legacy_files):
    return legacy_files("inception3d", 16)


def emptied(model):
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    return model


def difference(model, folder):
    size = model.input_shape[1]
    return np.abs(model.predict(volumes(size), verbose=0) - np.load(folder / "predictions.npy")).max()


def refused(model, path, words):
    """That loading fails in one line with these words and leaves the model as it was."""
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(InputError, match=words) as error:
        load_legacy_weights(model, path)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def edited(source, target, edit):
    """A copy of a file after `edit(file)`."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        edit(file)
    return target


def names_in(group):
    return [name if isinstance(name, str) else name.decode() for name in group.attrs["layer_names"]]


# === The same predictions ===


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("architecture", "size"), NETWORKS)
def test_predictions_are_the_same(legacy_files, twins, architecture, size, layout):
    folder = legacy_files(architecture, size)
    path = folder / LAYOUTS[layout]
    assert identify_legacy(path) == (architecture, size, CLASSES)
    assert legacy_layout(path) == layout
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


# === Inception3D with other names, other orders of creation, other graphs ===

BRANCHES = ("direct", "small", "large", "pooled")


def variant(created=BRANCHES, joined=BRANCHES, reduce_first=False, pool=layers.MaxPooling3D, named=False, softmax=True):
    """Inception3D at 16^3 whose branches are created and joined in other orders, or with another pooling."""
    count = iter("zyxwvutsrqponmlkjihgfedcba")

    def convolution(x, filters, side, **others):
        name = f"{next(count)}_mine" if named else None
        options = {"activation": "relu", "padding": "same"} | others
        return layers.Conv3D(filters, side, name=name, **options)(x)

    start = layers.Input((16, 16, 16, 1))
    x = layers.MaxPooling3D(2, padding="same")(convolution(start, 32, 5, padding="valid"))
    reduced = convolution(x, 32, 1) if reduce_first else None
    make = {
        "direct": lambda: convolution(x, 32, 1),
        "small": lambda: convolution(convolution(x, 32, 1) if reduced is None else reduced, 64, 3),
        "large": lambda: convolution(convolution(x, 16, 1), 32, 5),
        "pooled": lambda: convolution(pool(2, strides=1, padding="same")(x), 32, 1),
    }
    made = {branch: make[branch]() for branch in created}
    x = layers.Concatenate()([made[branch] for branch in joined])
    x = layers.Dense(CLASSES)(layers.Dropout(0.7)(layers.Flatten()(layers.AveragePooling3D(2, strides=1)(x))))
    return tf_keras.Model(start, layers.Activation("softmax")(x) if softmax else x)


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


def test_the_order_of_names_in_a_whole_model_file_does_not_matter(tmp_path, twins, inception):
    def edit(file):
        group = file["model_weights"]
        group.attrs["layer_names"] = sorted(names_in(group), reverse=True)

    path = edited(inception / "whole.h5", tmp_path / "a.h5", edit)
    load_legacy_weights(emptied(twins("inception3d")), path)
    assert difference(twins("inception3d"), inception) == 0


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


# === What is refused ===


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


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_a_file_cut_short_is_refused(tmp_path, twins, inception, layout, share):
    content = (inception / LAYOUTS[layout]).read_bytes()
    path = tmp_path / LAYOUTS[layout]
    path.write_bytes(content[: int(len(content) * share)])
    refused(twins("inception3d"), path, f"{path.name} is damaged or cut short")


def other_content(path):
    with h5py.File(path, "w") as file:
        file["volumes"] = np.zeros((2, 3))


def other_layout(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = 5


def keras_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", "")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "not an HDF5 file"),
        (lambda path: path.write_text("epoch,loss\n" * 300), "not an HDF5 file"),
        (other_content, "HDF5 file without a Keras model"),
        (other_layout, "not laid out as Keras does"),
        (keras_archive, "is a .keras archive"),
    ],
)
def test_a_file_that_is_no_keras_file_is_refused(tmp_path, twins, make, words):
    make(tmp_path / "a.h5")
    refused(twins("inception3d"), tmp_path / "a.h5", f"a.h5 (is )?.*{words}")


def set_value(place, value):
    def edit(file):
        file[place.format(name=names_in(file["model_weights"])[1])][...] = value

    return edit


def remove_array(file):
    name = names_in(file["model_weights"])[1]
    del file[f"model_weights/{name}/{name}/kernel:0"]


def change_config(old, new):
    def edit(file):
        config = file.attrs["model_config"]
        assert old in config
        file.attrs["model_config"] = config.replace(old, new)

    return edit


def write_backend(file):
    file["model_weights"].attrs["backend"] = "theano"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_value("model_weights/{name}/{name}/bias:0", np.nan), "not all finite"),
        (remove_array, "damaged or cut short"),
        (change_config('"layers"', '"leyers"'), "model_config cannot be understood"),
        (change_config('{"class_name"', '{"class_name'), "model_config is not JSON"),
        (change_config('"activation": "relu"', '"activation": "tanh"'), "is tanh, expected relu"),
        (change_config('"padding": "valid", "data', '"padding": "same", "data'), "padding same.*expected"),
        (change_config("channels_last", "channels_first"), "channels first"),
        (change_config("[null, 16, 16, 16, 1]", "[null, 16, 16, 20, 1]"), "expected cubes"),
        (write_backend, "Theano"),
    ],
)
def test_a_damaged_or_foreign_model_is_refused(tmp_path, twins, inception, edit, words):
    refused(twins("inception3d"), edited(inception / "whole.h5", tmp_path / "a.h5", edit), words)


def test_a_model_inside_a_model_is_refused_with_the_way_out(tmp_path, twins):
    inner = legacy_network("inception3d", 16, CLASSES)
    outer = layers.Input((16, 16, 16, 1))
    folder = save(tf_keras.Model(outer, inner(outer)), tmp_path)
    for name in ("whole.h5", "only.h5"):
        refused(twins("inception3d"), folder / name, r"model\.get_layer\('.*'\)\.save")
    refused(twins("inception3d"), folder / "only.weights.h5", "holds none of inception3d")


def test_another_network_of_keras_is_refused(tmp_path, twins):
    start = layers.Input((16, 16, 16, 1))
    x = layers.LayerNormalization()(layers.Conv3D(4, 3)(start))
    folder = save(tf_keras.Model(start, layers.Dense(CLASSES, "softmax")(layers.Flatten()(x))), tmp_path)
    for name in LAYOUTS.values():
        refused(twins("inception3d"), folder / name, "holds none of")


# === Axes and runs ===


@pytest.mark.parametrize("architecture", ["inception3d", "dsrf3d"])
def test_a_turned_network_sees_zyx_as_it_saw_xyz(legacy_files, twins, architecture):
    model = twins(architecture)
    load_legacy_weights(model, legacy_files(architecture, 16) / "whole.h5")
    x = volumes(16)
    as_xyz, as_zyx = model.predict(x.transpose(0, 3, 2, 1, 4), verbose=0), model.predict(x, verbose=0)
    turn_axes(model)
    assert np.allclose(model.predict(x, verbose=0), as_xyz, atol=1e-5)
    assert np.abs(as_xyz - as_zyx).max() > 1e-3


def test_a_run_of_a_legacy_file(tmp_path, inception):
    run = import_legacy(inception / "only.h5", tmp_path / "run", list("abcde"), voxel_size=13.8, contrast="bright")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    description = models.ModelDescription.from_dict(config["model"], "config.yaml")
    assert description == models.ModelDescription("inception3d", tuple("abcde"), 16, 13.8, "bright")
    assert len(config["source"]["sha256"]) == 64
    model = keras.models.load_model(run.path / "model.keras")
    model.jit_compile = False
    assert difference(model, inception) == 0


def test_the_command(tmp_path, inception, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = f"--weights={inception / 'whole.h5'}"
    (tmp_path / "names.txt").write_text("a\nb\n\nc\nd\ne\n")
    assert main("import_legacy", [weights, "--class_names_file=names.txt", "--output=named"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert yaml.safe_load(Path("named/config.yaml").read_text())["model"]["class_names"] == list("abcde")
    assert main("import_legacy", [weights]) == 0
    assert "class_0 to class_4" in capsys.readouterr().out
    assert Path("runs/legacy-whole/model.keras").is_file()

    (tmp_path / "text.h5").write_text("no")
    for flags, words in (
        ([], "--weights is missing"),
        (["--weights=nowhere.h5"], "nowhere.h5 is not there"),
        (["--weights=text.h5"], "not an HDF5 file"),
        ([weights, "--class_names=a,b"], "5 classes, but 2 class names"),
        ([weights, "--class_names=a,b,c,d,a"], "'a' twice"),
        ([weights, "--class_names=a,b,c,d,e", "--class_names_file=names.txt"], "leave one out"),
        ([weights, "--class_names_file=nowhere.txt"], "nowhere.txt is not a file"),
        ([weights, "--size=20"], "not for 20^3"),
        ([weights, "--voxel_size=0"], "--voxel_size=0"),
        ([weights, "--output=named"], "already holds a run"),
    ):
        assert main("import_legacy", flags) == 2, flags
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1


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
