"""The training loop: resuming is exact, errors are clear, the folder holds what it should."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder, callbacks
from aitom_ssl.training import pretrain as module
from aitom_ssl.training.pretrain import optimizer, pretrain


def train(moco, splits, folder, epochs, **options):
    settings = {"batch_size": 4, "seed": 3, "validation": splits["validation"], **options}
    return pretrain(moco, splits["train"], RunFolder(folder), epochs, **settings)


def state(moco):
    return [variable.numpy() for variable in [*moco.variables, *moco.optimizer.variables]]


def assert_same_run(a, b, folder_a, folder_b):
    for x, y in zip(state(a), state(b), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (folder_a / "metrics.csv").read_text() == (folder_b / "metrics.csv").read_text()


def test_two_and_two_epochs_equal_four(splits, tiny_moco, tmp_path):
    through = tiny_moco()
    _, history, seconds = train(through, splits, tmp_path / "through", 4)
    train(tiny_moco(), splits, tmp_path / "parts", 2)
    # Another start: everything must come from the checkpoint. (The seed is part of a run's settings.)
    resumed = tiny_moco()
    resumed.query_network.set_weights([w + 1 for w in resumed.query_network.get_weights()])
    _, again, more = train(resumed, splits, tmp_path / "parts", 4)
    assert again == history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert more > 0 and seconds > 0
    assert int(through.step.value) == 4 * (22 // 4)
    assert_same_run(through, resumed, tmp_path / "through", tmp_path / "parts")


def test_interrupted_within_an_epoch_and_resumed_equals_through(splits, tiny_moco, tmp_path, monkeypatch):
    through = tiny_moco()
    train(through, splits, tmp_path / "through", 3)
    stop = callbacks.StopWhenNotFinite.on_train_batch_end
    steps = []

    def interrupt(self, batch, logs=None):
        stop(self, batch, logs)
        steps.append(batch)
        if len(steps) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.StopWhenNotFinite, "on_train_batch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_moco(), splits, tmp_path / "parts", 3)
    resumed = tiny_moco()
    train(resumed, splits, tmp_path / "parts", 3)
    assert_same_run(through, resumed, tmp_path / "through", tmp_path / "parts")


def test_a_finished_run_is_restored_and_left_alone(splits, tiny_moco, tmp_path, capsys):
    first, second = tiny_moco(), tiny_moco()
    epoch, history, seconds = train(first, splits, tmp_path, 1)
    assert train(second, splits, tmp_path, 1) == (epoch, history, pytest.approx(seconds, abs=5))
    assert "has finished its 1 epochs" in capsys.readouterr().out
    for x, y in zip(state(first), state(second), strict=True):
        np.testing.assert_array_equal(x, y)


def test_records_monitors_in_csv_and_tensorboard(splits, tiny_moco, tmp_path, capsys):
    history = train(tiny_moco(), splits, tmp_path, 2).history
    names = {"epoch", "loss", "pretext_accuracy", "queue_fill", "feature_std", "knn"}
    assert all(set(row) == names for row in history)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(lines) == 3
    scalars = {}
    for path in (tmp_path / "tensorboard").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                scalars[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert scalars == {
        (name, row["epoch"]): pytest.approx(row[name]) for row in history for name in names - {"epoch"}
    }
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("moco on tiny: 22 volumes of 8^3, 5 steps an epoch, epochs 1 to 2")
    assert [line[:9] for line in out[1:]] == ["epoch 1/2", "epoch 2/2"]


def test_a_loss_that_is_not_finite_ends_the_run_clearly(splits, tiny_moco, tmp_path):
    moco = tiny_moco()
    moco.query_network.layers[-1].kernel.assign(np.full((6, 4), np.nan))
    with pytest.raises(InputError, match=r"loss became nan .*--learning_rate"):
        train(moco, splits, tmp_path, 1)


def test_warns_of_a_queue_that_is_too_long_and_says_when_knn_is_off(splits, tiny_moco, tmp_path, capsys):
    train(tiny_moco(queue_size=12), splits, tmp_path, 1, validation=None)
    errors = capsys.readouterr().err
    assert "warning: a queue of 12 keys over 22 volumes" in errors
    assert "--queue_size=11" in errors
    assert "no kNN accuracy" in errors


def test_weight_decay_leaves_biases_and_normalisation_alone(tiny_moco):
    adam = optimizer(0.1, 0.5)
    moco = tiny_moco()
    adam.build(moco.trainable_variables)
    before = [v.numpy() for v in moco.trainable_variables]
    adam.apply([np.zeros(v.shape, np.float32) for v in moco.trainable_variables], moco.trainable_variables)
    for variable, value in zip(moco.trainable_variables, before, strict=True):
        factor = 1 - 0.1 * 0.5 if variable.path.endswith("kernel") else 1
        np.testing.assert_allclose(variable.numpy(), factor * value, rtol=1e-6)
    assert optimizer(0.1, 0.0).weight_decay is None


def _interrupt(self, batch, logs=None):
    raise KeyboardInterrupt


def _fill_up(self, model):
    raise OSError("Can't synchronously write data (error message = 'No space left on device')")


def test_run_pretraining_interrupted_and_resumed_leaves_a_whole_run(tiny_data, tmp_path, capsys, monkeypatch):
    from aitom_ssl.ssl import MoCo

    settings = {
        "data": str(tiny_data),
        "epochs": 1,
        "batch_size": 4,
        "encoder": "rb3d",
        "augmentation": "ssl2022",
        "field": 1.0,
        "views": "augmented",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "seed": 0,
        "precision": "mixed_bfloat16",
        "limit": None,
        "knn_every": 1,
    }

    def build(encoder, augmenter, settings):
        return MoCo(encoder, augmenter, dim=8, queue_size=8, head="v2_bn", seed=settings["seed"])

    def go(epochs, **options):
        folder = str(tmp_path / "run")
        command = "aitom-ssl train_moco --data=tiny"
        return module.run_pretraining("moco", {**settings, "epochs": epochs}, build, folder, command=command, **options)

    how = r"0 of 1 epochs .*aitom-ssl train_moco --resume --output="
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=how):
        patch.setattr(callbacks.StopWhenNotFinite, "on_train_batch_end", _interrupt)
        go(1)
    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"disk is full.*1 of 1 epochs .*--resume"):
        patch.setattr(module.RunFolder, "save_model", _fill_up)
        go(1, resume=True)
    with pytest.raises(InputError, match="already holds a run"):
        go(1)
    run = go(1, resume=True)
    assert keras.config.dtype_policy().name == "float32"
    present = {path.name for path in run.path.iterdir()}
    assert present == {"config.yaml", "metrics.csv", "tensorboard", "checkpoints", "model.keras", "report.html"}
    encoder = keras.models.load_model(run.path / "model.keras")
    assert encoder.output_shape == (None, 256)
    assert run.read_config()["settings"] == settings
    model = {"architecture": "rb3d", "class_names": [], "size": 8, "voxel_size": 10.0, "contrast": "bright"}
    assert run.read_config()["model"] == model
    out = capsys.readouterr().out
    assert "untrained" in out and "chance" in out

    with pytest.raises(InputError, match="has finished 1 epochs already"):
        go(0, resume=True)
    config = run.read_config()
    run.write_config({**config, "dataset": {**config["dataset"], "samples": {"train": 9}}})
    with pytest.raises(InputError, match="data have changed"):
        go(2, resume=True)
