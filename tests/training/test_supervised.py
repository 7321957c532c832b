"""Supervised training: the step, the optimizer, exact resuming, and what a run leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.classification import log_loss
from aitom_ssl.training import RunFolder, callbacks
from aitom_ssl.training import supervised as module
from aitom_ssl.training.request import labelled_splits
from aitom_ssl.training.supervised import (
    Start,
    SupervisedModel,
    class_weights,
    from_scratch,
    run_classifier,
    run_supervised,
    sgd,
)

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "model": "rb3d",
    "pooling": "avg",
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.02,
    "decay": 1e-3,
    "momentum": 0.9,
    "class_weights": "balanced",
    "augmentation": "none",
    "limit": None,
    "seed": 3,
    "precision": "float32",
}


def wave(volumes, seed):
    """Stands in for an augmentation: quick, and different for every (seed, step)."""
    return volumes + 0.3 * ops.sin(5 * volumes + ops.cast(seed[0] + 7 * seed[1], "float32"))


def tiny_network():
    volumes = keras.Input((8, 8, 8, 1))
    x = layers.Conv3D(4, 3, strides=2, activation="relu")(volumes)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    return keras.Model(volumes, layers.Dense(2, activation="softmax", dtype="float32", name="classifier")(x))


def tiny_start(settings, labelled):
    return Start(tiny_network(), sgd(settings), [["eyes", "two"]], {"eyes": 2})


# === The step ===


def test_logits_are_trained_and_probabilities_are_saved():
    network = tiny_network()
    model = SupervisedModel(network, None, None, seed=0)
    volumes = np.random.default_rng(0).standard_normal((3, 8, 8, 8, 1)).astype(np.float32)
    probabilities = ops.convert_to_numpy(network(volumes))
    np.testing.assert_allclose(probabilities, ops.convert_to_numpy(ops.softmax(model(volumes))), atol=1e-6)
    assert network.layers[-1].activation is keras.activations.softmax
    labels = np.array([0, 1, 1])
    loss = model.compute_loss(volumes, labels, model(volumes), training=False)
    assert float(loss) == pytest.approx(log_loss(probabilities, labels), rel=1e-5)
    assert float(model.accuracy.result()) == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    assert int(model.step.value) == 0


def test_class_weights_multiply_the_loss_of_each_sample():
    model = SupervisedModel(tiny_network(), None, np.array([3.0, 0.5]), seed=0)
    logits = np.array([[2.0, 0], [0, 1], [0.3, 0]], np.float32)
    labels = np.array([0, 1, 1])
    nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), labels]
    assert float(model.compute_loss(None, labels, logits)) == pytest.approx((nll * [3, 0.5, 0.5]).mean(), rel=1e-5)


def test_balanced_weights_give_every_class_the_same_say():
    labels = np.array([0] * 6 + [1] * 2 + [3])
    weights = class_weights(labels, 4)
    np.testing.assert_allclose(np.bincount(labels, weights=weights[labels], minlength=4), [3, 3, 0, 3])
    assert weights[2] == 0 and weights[labels].mean() == pytest.approx(1)


def test_a_hopeless_sample_still_has_a_gradient():
    """Its probability, exp(-200), is 0 in float32."""
    network = tiny_network()
    network.layers[-1].bias.assign([200.0, 0.0])
    model = SupervisedModel(network, None, None, seed=0)
    model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    model.train_on_batch(np.zeros((2, 8, 8, 8, 1), np.float32), np.array([1, 1]))
    np.testing.assert_allclose(network.layers[-1].bias.numpy(), [199, 1], rtol=1e-5)


def test_training_sees_volumes_augmented_by_seed_and_step_and_inference_does_not():
    volumes = keras.Input((2, 2, 2, 1))
    network = keras.Model(volumes, layers.Dense(2, activation="softmax", use_bias=False)(layers.Flatten()(volumes)))
    network.layers[-1].kernel.assign(np.ones((8, 2)) / 8)

    def stamp(volumes, seed):
        return 0 * volumes + ops.cast(100 * seed[0] + seed[1], "float32")

    model = SupervisedModel(network, stamp, None, seed=5)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    x, y = np.ones((2, 2, 2, 2, 1), np.float32), np.zeros(2, np.int64)
    np.testing.assert_allclose(model(x), 1)
    for step in range(3):
        np.testing.assert_allclose(model(x, training=True), 500 + step)
        model.train_on_batch(x, y)
        model.test_on_batch(x, y)  # measuring moves nothing


def test_volumes_reach_the_augmentation_in_float32_under_mixed_precision():
    seen = []

    def spy(volumes, seed):
        seen.append(keras.backend.standardize_dtype(volumes.dtype))
        return volumes

    with module.numerics("mixed_bfloat16", 0):
        model = SupervisedModel(tiny_network(), spy, None, seed=0)
    logits = model(np.ones((2, 8, 8, 8, 1), np.float32), training=True)
    assert seen == ["float32"] and logits.dtype == "float32"
    assert model.network.layers[1].compute_dtype == "bfloat16"


def test_sgd_is_that_of_keras_1():
    settings = {"learning_rate": 0.05, "decay": 0.1, "momentum": 0.8}
    optimizer, variable = sgd(settings), keras.Variable([1.0, -2.0])
    expected, velocity = np.array([1.0, -2.0]), np.zeros(2)
    curvature = np.array([1.0, 3.0])
    for step in range(20):
        optimizer.apply([ops.convert_to_tensor(curvature * variable.numpy())], [variable])
        gradient = curvature * expected
        rate = 0.05 / (1 + 0.1 * step)
        velocity = 0.8 * velocity - rate * gradient
        expected = expected + 0.8 * velocity - rate * gradient
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4)


# === The loop ===


def train(splits, folder, epochs, seed=0, **changes):
    keras.utils.set_random_seed(seed)
    settings = {**SETTINGS, "augmentation": "ssl2022", **changes, "epochs": epochs}
    network = tiny_network()
    labelled = labelled_splits(splits, settings["seed"], settings["batch_size"])
    return module.train_classifier(network, sgd(settings), labelled, RunFolder(Path(folder)), settings)


def checkpoint(folder, epoch):
    with np.load(folder / "checkpoints" / f"epoch-{epoch:05d}.npz") as file:
        return {name: file[name] for name in file.files if name != "about"}


@pytest.fixture
def quick_augmentation(monkeypatch):
    monkeypatch.setattr(module, "SubtomogramAugmenter", lambda preset: wave)


def test_two_and_two_epochs_equal_four_bit_for_bit(splits, tmp_path, quick_augmentation):
    done = train(splits, tmp_path / "through", 4)
    train(splits, tmp_path / "parts", 2)
    # Another start: weights, momentum, dropout seeds and step must come from the checkpoint.
    again = train(splits, tmp_path / "parts", 4, seed=9)
    assert again.history == done.history
    assert [row["epoch"] for row in done.history] == [1, 2, 3, 4]
    one, two = checkpoint(tmp_path / "through", 4), checkpoint(tmp_path / "parts", 4)
    assert len(one) > 6
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    same = [keras.models.load_model(tmp_path / which / "model.keras").get_weights() for which in ("through", "parts")]
    for a, b in zip(*same, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_order_of_data_and_the_dropout_matter_to_the_result(splits, tmp_path, quick_augmentation):
    """What the test above compares would differ if they were not the same."""
    splits["train"] = splits["train"].subset([*range(14), 15, 17, 19, 21])
    histories = [
        train(splits, tmp_path / str(n), 1, **changes).history
        for n, changes in enumerate(({}, {"seed": 1}, {"class_weights": "none"}, {"augmentation": "none"}))
    ]
    assert len({history[0]["loss"] for history in histories}) == 4


# === A run ===


def test_a_run_interrupted_and_resumed_leaves_a_whole_folder(tiny_data, tmp_path, capsys, monkeypatch):
    folder = str(tmp_path / "run")

    def go(**options):
        settings = {**SETTINGS, "data": str(tiny_data), "precision": "mixed_bfloat16"}
        command = "aitom-ssl train_supervised --data=tiny"
        return run_classifier("tiny", settings, tiny_start, folder, command=command, **options)

    stop = callbacks.Record.on_epoch_end

    def interrupt(self, epoch, logs=None):
        stop(self, epoch, logs)
        raise KeyboardInterrupt

    how = r"1 of 2 epochs are kept.*aitom-ssl train_supervised --resume --output="
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=how):
        patch.setattr(callbacks.Record, "on_epoch_end", interrupt)
        go()
    with pytest.raises(InputError, match="already holds a run"):
        go()
    run = go(resume=True)
    assert keras.config.dtype_policy().name == "float32"
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml", "metrics.csv", "tensorboard", "checkpoints", "model.keras", "results.json", "report.html"
    }
    config = run.read_config()
    assert config["model"] == {
        "architecture": "rb3d", "class_names": ["a", "b"], "size": 8, "voxel_size": 10.0, "contrast": "bright"
    }
    assert config["settings"]["epochs"] == 2
    results = json.loads((run.path / "results.json").read_text())
    assert results["measured_on"] == "test" and results["samples"] == 10 and results["epochs"] == 2
    assert results["eyes"] == 2 and "<td>two</td>" in (run.path / "report.html").read_text()
    assert (run.path / "metrics.csv").read_text().splitlines()[0] == "epoch,loss,accuracy,val_loss,val_accuracy"
    out = capsys.readouterr().out
    assert "epochs 2 to 2" in out and f"accuracy {results['accuracy']:.3f} (chance 0.500)" in out

    # What results.json says is what model.keras gives, with Keras alone.
    code = (
        "import sys, keras, numpy as np; network = keras.models.load_model(sys.argv[1]);"
        "assert type(network).__name__ == 'Functional' and network.layers[-1].name == 'classifier';"
        "p = network.predict(np.load(sys.argv[2]), verbose=0); np.save(sys.argv[2], p);"
        "assert 'aitom_ssl' not in sys.modules"
    )
    test = module.checked_splits({**SETTINGS, "data": str(tiny_data)}, None, False)["test"]
    volumes = tmp_path / "volumes.npy"
    np.save(volumes, gather(test, np.arange(10)))
    subprocess.run([sys.executable, "-c", code, run.path / "model.keras", volumes], check=True, cwd=tmp_path)
    probabilities = np.load(volumes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-3)
    assert log_loss(probabilities, test.labels) == pytest.approx(results["log_loss"], rel=0.02)


def test_what_cannot_be_built_leaves_no_folder(tiny_data, tmp_path):
    settings = {**SETTINGS, "data": str(tiny_data), "model": "inception3d", "pooling": "none"}
    with pytest.raises(InputError):
        run_supervised({**settings, "model": "nothing"}, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pooling", ["none", "avg"])
def test_the_zoo_is_built_as_asked(pooling, splits):
    labelled = labelled_splits(splits, 0, 4)
    network, made, *_ = from_scratch({**SETTINGS, "pooling": pooling}, labelled)
    assert network.input_shape == (None, 8, 8, 8, 1) and network.output_shape == (None, 2)
    assert network.layers[-1].name == "classifier" and made.nesterov
    assert (network.count_params() > 2**20) == (pooling == "none")  # fully connected layers


def test_on_jax(tiny_data, tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "training")!r})
import keras
from test_supervised import module, train, wave
from aitom_ssl.data import Dataset
module.SubtomogramAugmenter = lambda preset: wave
splits = {{split: Dataset({str(tiny_data)!r}, split) for split in ("train", "validation")}}
print(keras.backend.backend(), len(train(splits, "run", 2).history))
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "jax 2"
    with np.load(tmp_path / "run" / "checkpoints" / "epoch-00002.npz") as file:
        steps = [file[name] for name in file.files if file[name].shape == () and file[name].dtype == np.int32]
    assert 2 * (22 // 4) in steps  # the step moves on there too
    losses = [float(row.split(",")[1]) for row in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]]
    assert np.isfinite(losses).all() and losses[1] < losses[0]


def test_a_voxel_that_is_not_finite_ends_training_in_one_line(tmp_path, quick_augmentation):
    """Through tf.data, which has an error of its own for what its readers raise."""
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.random((8, 8, 8), np.float32), "label": i % 2} for i in range(8)]
    folder = write_dataset(tmp_path / "d", "toy", ["a", "b"], 10.0, "bright", {"train": samples, "test": samples[:2]})
    path = folder / "train/volumes-00000.npy"
    volumes = np.load(path)
    volumes[3, 0, 0, 0] = np.nan
    np.save(path, volumes)
    splits = {"train": Dataset(folder, "train"), "validation": Dataset(folder, "test")}
    with pytest.raises(InputError, match=r"Sample 3 of .*has voxels that are NaN or infinite") as error:
        train(splits, tmp_path / "run", 1)
    assert "\n" not in str(error.value)
