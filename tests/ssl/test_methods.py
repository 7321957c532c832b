"""What every method promises: exact resuming, one trace, finite in bfloat16, state in weights, collapse that shows."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from aitom_ssl import models
from aitom_ssl.errors import InputError
from aitom_ssl.ssl import SimCLR
from aitom_ssl.training.callbacks import CollapseWarning
from aitom_ssl.training.run import Checkpoint, RunFolder


def arrays(variables):
    return [np.array(v.numpy()) for v in variables]


def assert_equal(variables, others):
    for a, b in zip(arrays(variables), arrays(others), strict=True):
        np.testing.assert_array_equal(a, b)


def state(built):
    return [*built.variables, *built.optimizer.variables]


@pytest.fixture(scope="module")
def trained(method, volumes):
    """Each method after two epochs of three steps, the last of them ragged, and their history. Only read it."""
    keras.utils.set_random_seed(0)
    built = method({"norm": True})
    return built, built.fit(volumes[:11], batch_size=4, epochs=2, verbose=0).history


def test_a_ragged_last_batch_is_used(trained):
    built, history = trained
    assert int(built.step.value) == 6
    assert np.isfinite([value for column in history.values() for value in column]).all()


def test_evaluating_and_predicting_change_nothing(trained, volumes):
    built, _ = trained
    before = arrays(built.variables)
    built.evaluate(volumes, batch_size=5, verbose=0)
    embedding = built.predict(volumes, batch_size=5, verbose=0)
    for a, b in zip(before, arrays(built.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    assert embedding.shape == (12, 4)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)


def test_all_state_is_weights(trained, method, tmp_path):
    built, _ = trained
    fresh = method({"norm": True}, seed=1)
    built.save_weights(tmp_path / "state.weights.h5")
    fresh.load_weights(tmp_path / "state.weights.h5")
    assert_equal(fresh.weights, built.weights)


def test_the_encoder_can_be_saved_alone(trained, volumes, tmp_path):
    built, _ = trained
    built.encoder.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(volumes, verbose=0), built.encoder.predict(volumes, verbose=0))
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in built.encoder.layers]
    assert len(loaded.weights) == 10


def test_two_and_two_steps_equal_four_in_one_trace(method, volumes, tmp_path):
    def made():
        keras.utils.set_random_seed(0)
        built = method({"dropout": 0.3, "norm": True}, seed=3)  # dropout, whose seed must be kept as well
        views, traced = built.views, []
        built.views = lambda volumes: traced.append(1) or views(volumes)
        return built, traced

    def steps(built, batches):
        for batch in batches:
            built.train_on_batch(volumes[4 * (batch % 3) : 4 * (batch % 3) + 4])

    (through, traced), (resumed, _) = made(), made()
    run = RunFolder(tmp_path)
    steps(through, range(2))
    run.save_checkpoint(Checkpoint(1, [], 0.0), state(through))
    before = arrays(through.trainable_variables)
    steps(through, range(2, 4))
    # Past the end of every freeze and the filling of every queue, which are no other trace.
    assert len(traced) == 1
    assert max(np.abs(a - b).max() for a, b in zip(arrays(through.trainable_variables), before, strict=True)) > 1e-3

    for variable in resumed.trainable_variables:
        variable.assign(variable + 1)
    run.restore_checkpoint(state(resumed))
    assert int(resumed.step.value) == 2
    steps(resumed, range(2, 4))
    assert_equal(state(resumed), state(through))


def test_a_pair_of_the_same_volumes_is_the_volumes(method, volumes):
    def trained(data):
        keras.utils.set_random_seed(0)
        built = method({"norm": True})
        built.fit(((batch,) for batch in data), steps_per_epoch=3, verbose=0)
        return state(built)

    batches = [volumes[start : start + 4] for start in (0, 4, 8)]
    alone = trained(batches)
    assert_equal(alone, trained([(batch, batch) for batch in batches]))
    other = trained([(batch, batch[::-1]) for batch in batches])
    assert max(np.abs(a - b).max() for a, b in zip(arrays(alone), arrays(other), strict=True)) > 1e-3


def test_each_image_of_a_pair_gives_one_view(method, volumes):
    built = method()
    pair = volumes[:4], volumes[4:8]
    expected = [_wave_of(built, image, view) for view, image in enumerate(pair)]
    for view, found in zip(expected, built.views(pair), strict=False):
        np.testing.assert_allclose(found, view, atol=1e-5)


def _wave_of(built, image, view):
    seed = built.view_seed(view)
    stream, step = float(seed[0]), float(seed[1])
    return image + 0.3 * np.sin(5 * image * (1 + stream) + step)


def test_mixed_bfloat16_stays_finite_with_float32_state(method, volumes):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        built = method({"norm": True}, temperature=0.05)
    finally:
        keras.config.set_dtype_policy("float32")
    built.run_eagerly = True
    history = built.fit(volumes, batch_size=4, verbose=0).history
    assert built.encoder.get_layer("conv").compute_dtype == "bfloat16"
    assert np.isfinite([value for column in history.values() for value in column]).all()
    assert {v.dtype for v in built.variables} <= {"float32", "int32"}


def test_training_lowers_the_loss_without_collapsing(method):
    """Against the second epoch: in the first one MoCo's queue has yet to fill, and SwAV's prototypes are frozen."""
    rng = np.random.default_rng(1)
    volumes = rng.standard_normal((32, 1, 1, 1, 1)) + 0.3 * rng.standard_normal((32, 8, 8, 8, 1))
    built = method(dim=8)
    kernel = built.encoder.get_layer("conv").kernel
    before = kernel.numpy()
    history = built.fit(volumes.astype(np.float32), batch_size=8, epochs=20, verbose=0, shuffle=False).history
    assert history["loss"][-1] < 0.8 * history["loss"][1]
    assert history["feature_std"][-1] > 0.5 / np.sqrt(8)
    assert np.abs(kernel.numpy() - before).max() > 0.01


def test_collapse_shows(method, volumes):
    """A view that has lost its volume gives every volume the same embedding: the monitor says so, once."""
    built = method(augmenter=lambda volumes, seed: 0 * volumes + 1)
    built.run_eagerly = True
    said = []
    warning = CollapseWarning(built.dim, said.append)
    history = built.fit(volumes, batch_size=6, epochs=2, verbose=0, callbacks=[warning]).history
    assert history["feature_std"][-1] < 1e-3
    (line,) = said
    assert "collapsed" in line


@pytest.mark.parametrize("option", [{"dim": 0}, {"dim": 2.5}, {"temperature": 0}, {"seed": -1}, {"head": "v9"}])
def test_refuses(method, option):
    (name,) = option
    with pytest.raises(InputError, match=name):
        method(**option)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_architecture_is_an_encoder(name, wave):
    volumes = np.random.default_rng(2).standard_normal((2, 16, 16, 16, 1)).astype(np.float32)
    encoder = models.get(name)(input_shape=(16, 16, 16, 1), include_top=False, pooling="avg")
    assert SimCLR(encoder, wave, dim=4)(volumes).shape == (2, 4)


def test_trains_under_jax(tmp_path):
    """The same classes in another process with KERAS_BACKEND=jax; what a method keeps beside its network must move."""
    pytest.importorskip("jax", reason="needs the extra `jax`")
    script = """
        import sys
        import keras, numpy as np
        from keras import layers
        from aitom_ssl.data import Dataset, numpy_batches, write_dataset
        from aitom_ssl.ssl import MoCo, SimCLR, SwAV
        assert keras.backend.backend() == "jax"
        rng = np.random.default_rng(0)
        samples = [{"volume": rng.standard_normal((8, 8, 8)).astype("float32"), "label": -1} for _ in range(10)]
        data = Dataset(write_dataset(sys.argv[1], "noise", [], 10.0, "bright", {"train": samples}), "train")

        def encoder(side=8):
            volumes = keras.Input((side,) * 3 + (1,))
            x = layers.BatchNormalization(name="norm")(layers.Conv3D(4, 3, activation="relu", name="conv")(volumes))
            x = layers.GlobalAveragePooling3D(name="pool")(x)
            return keras.Model(volumes, layers.Dense(6, name="dense")(x))

        def values(variables):
            return [np.array(v.value) for v in variables]

        def wave(volumes, seed):
            return volumes + 0.3 * keras.ops.sin(5 * volumes + keras.ops.cast(seed[0] + seed[1], "float32"))

        def trained(kind, **options):
            method = kind(encoder(), wave, 4, **options)
            start = values(method.weights)
            method.compile(keras.optimizers.Adam(1e-2, weight_decay=1e-1))
            batches = ((batch,) for batch in numpy_batches(data, 4, seed=0))
            history = method.fit(batches, steps_per_epoch=2, epochs=3, verbose=0).history
            assert np.isfinite([value for column in history.values() for value in column]).all(), history
            assert int(method.step.value) == 6
            # A bias in front of BatchNormalization has no gradient; every kernel has.
            after = zip(method.weights, values(method.weights), start)
            moved = [np.abs(a - b).max() for v, a, b in after if "kernel" in v.path]
            assert min(moved) > 1e-4, moved
            return method, history

        options = dict(queue_size=7, momentum=0.5, head="v2_bn", symmetric=True)
        moco, history = trained(MoCo, **options)
        assert history["queue_fill"][-1] == 1
        assert int(moco.queue.pointer.value) == 48 % 7
        assert np.allclose(np.linalg.norm(np.array(moco.queue.rows.value), axis=1), 1, atol=1e-5)

        trained(SimCLR)

        options = dict(prototypes=3, queue_size=8, queue_start=1, freeze_steps=6, head="v2_bn")
        swav, history = trained(SwAV, small_crops=1, small_encoder=encoder(5), **options)
        assert history["queue_fill"][-1] == 1
        frozen = np.array(SwAV(encoder(), wave, 4, **options).prototypes.value)
        assert np.array_equal(np.array(swav.prototypes.value), frozen)
        swav.fit(next(numpy_batches(data, 4, seed=1)), batch_size=4, verbose=0)
        prototypes = np.array(swav.prototypes.value)
        assert np.allclose(np.linalg.norm(prototypes, axis=1), 1, atol=1e-5)
        assert np.abs(prototypes - frozen).max() > 1e-4
    """
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "noise")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
