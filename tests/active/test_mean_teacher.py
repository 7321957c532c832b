"""The mean model: its average, its statistics, what the loss teaches and whom; what EMA asks for."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import special, stats

from aitom_ssl import active
from aitom_ssl.active.mean_teacher import EMA, MeanTeacher, kl_divergence, mean_squared_difference, ramped
from aitom_ssl.active.strategy import Known
from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.training.supervised import SupervisedModel

ROOT = Path(__file__).parents[2]
SIDE = 4


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def tiny_network(norm=False, dropout=0.0, classes=3, policy=None):
    volumes = keras.Input((SIDE, SIDE, SIDE, 1))
    x = layers.Conv3D(4, 3, name="conv", dtype=policy)(volumes)
    x = layers.BatchNormalization(name="norm", momentum=0.8)(x) if norm else x
    x = layers.Flatten()(layers.ReLU(dtype=policy)(x))
    x = layers.Dropout(dropout)(x) if dropout else x
    return keras.Model(volumes, layers.Dense(classes, activation="softmax", dtype="float32", name="classifier")(x))


def teacher(network=None, augmenter=None, weights=None, rate=0.1, eager=True, **options):
    """Eager where a few steps take less time than tracing them."""
    model = MeanTeacher(network or tiny_network(), augmenter, weights, 0, **options)
    model.compile(keras.optimizers.SGD(rate), jit_compile=False, run_eagerly=eager)
    return model


def value(variable):
    return np.array(ops.convert_to_numpy(variable))


def batch(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, SIDE, SIDE, SIDE, 1)).astype(np.float32), rng.integers(0, 3, count)


def arrays(network):
    return [np.array(w) for w in network.get_weights()]


# === Distances ===


def test_divergence_is_scipys_and_finite_where_probabilities_are_not():
    rng = np.random.default_rng(0)
    first, second = 3 * rng.standard_normal((2, 20, 5))
    p, q = special.softmax(first, axis=1), special.softmax(second, axis=1)
    np.testing.assert_allclose(kl_divergence(first, second), stats.entropy(p, q, axis=1), rtol=1e-10)
    np.testing.assert_allclose(kl_divergence(first, first + 7), 0, atol=1e-14)
    far = kl_divergence(np.array([[2000.0, 0]]), np.array([[0, 2000.0]]))
    np.testing.assert_allclose(far, [2000])
    # Not symmetric: T comes first.
    one, other = np.array([[4.0, 0, 0]]), np.array([[0.0, 0, 0]])
    p = special.softmax(one)
    np.testing.assert_allclose(kl_divergence(one, other), np.log(3) + (p * np.log(p)).sum())
    assert abs(kl_divergence(one, other) - kl_divergence(other, one)) > 0.1


def test_squared_difference():
    first, second = np.array([[1.0, 2], [0, 0]], np.float32), np.array([[1.0, 4], [3, 1]], np.float32)
    np.testing.assert_allclose(mean_squared_difference(first, second), [2, 5])


# === The average ===


def test_after_n_steps_of_still_weights_the_start_is_alpha_to_the_n():
    model = teacher(alpha=0.9, rate=0.0)
    task, start = arrays(model.network), arrays(model.mean)
    assert max(np.abs(a - b).max() for a, b in zip(task, start, strict=True)) > 0.1  # independent
    x, y = batch()
    for _ in range(5):
        model.train_on_batch(x, y)
    for t, m, s in zip(task, arrays(model.mean), start, strict=True):
        np.testing.assert_allclose(m, 0.9**5 * s + (1 - 0.9**5) * t, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ramp", [False, True])
def test_the_average_is_taken_of_the_weights_after_each_step(ramp):
    model = teacher(alpha=0.7, ramp=ramp, rate=0.5, eager=False)
    x, y = batch()
    expected = arrays(model.mean)
    for step in range(1, 6):
        model.train_on_batch(x, y)
        alpha = min(1 - 1 / (step + 1), 0.7) if ramp else 0.7
        expected = [alpha * m + (1 - alpha) * t for m, t in zip(expected, arrays(model.network), strict=True)]
        for m, e in zip(arrays(model.mean), expected, strict=True):
            np.testing.assert_allclose(m, e, rtol=1e-4, atol=1e-6)


def test_the_ramp_begins_at_a_half_and_ends_at_alpha():
    assert [float(ramped(0.9, step)) for step in (1, 2, 8, 9, 100)] == pytest.approx([1 / 2, 2 / 3, 8 / 9, 0.9, 0.9])


def test_a_mean_that_is_a_copy_of_still_weights_stays_the_same_bit_for_bit():
    model = teacher(mean_init="copy", rate=0.0, alpha=0.37)
    before = arrays(model.network)
    for _ in range(3):
        model.train_on_batch(*batch())
    for m, b in zip(arrays(model.mean), before, strict=True):
        np.testing.assert_array_equal(m, b)


def test_evaluating_moves_nothing():
    model = teacher(tiny_network(norm=True))
    before = [value(v) for v in model.variables if "accuracy" not in v.path]
    loss = model.test_on_batch(*batch(), return_dict=True)["loss"]
    x, y = batch()
    p = ops.convert_to_numpy(model.network(x))
    assert float(loss) == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), rel=1e-5)
    after = [value(v) for v in model.variables if "accuracy" not in v.path]
    moved = [a for a, b in zip(before, after, strict=True) if not np.array_equal(a, b)]
    assert len(moved) <= 2  # the loss tracker
    assert int(model.step.value) == 0


# === Statistics ===


def test_moving_statistics_are_of_the_means_own_passes_and_are_not_averaged():
    model = teacher(tiny_network(norm=True), alpha=0.9, rate=0.3)
    x, y = batch(8)
    norm = model.mean.get_layer("norm")
    mean, variance = np.zeros(4), np.ones(4)
    for _ in range(4):
        maps = ops.convert_to_numpy(model.mean.get_layer("conv")(x))
        mean = 0.8 * mean + 0.2 * maps.mean(axis=(0, 1, 2, 3))
        variance = 0.8 * variance + 0.2 * maps.var(axis=(0, 1, 2, 3))
        model.train_on_batch(x, y)
    np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-3)
    task = model.network.get_layer("norm")
    assert np.abs(value(task.moving_mean) - mean).max() > 1e-2  # T's are others


def test_statistics_are_kept_without_a_regularizer_too():
    model = teacher(tiny_network(norm=True), regularization=0.0)
    model.train_on_batch(*batch())
    assert np.abs(value(model.mean.get_layer("norm").moving_mean)).max() > 1e-4


# === The loss ===


def test_the_loss_is_cross_entropy_and_lambda_times_the_squared_difference():
    model = teacher(weights=np.array([1.0, 2.0, 0.5]), regularization=0.4)
    rng = np.random.default_rng(1)
    task, mean = rng.standard_normal((2, 4, 3)).astype(np.float32)
    y = np.array([0, 1, 2, 1])
    nll = -special.log_softmax(task, axis=1)[np.arange(4), y] * [1, 2, 0.5, 2]
    expected = nll.mean() + 0.4 * ((task - mean) ** 2).mean()
    assert float(model.compute_loss(None, y, (task, mean))) == pytest.approx(expected, rel=1e-5)
    assert float(model.deviation.result()) == pytest.approx(((task - mean) ** 2).mean(), rel=1e-5)


def test_the_gradient_of_the_deviation_goes_to_the_task_model_alone():
    """One SGD step on the last bias against the closed form, with M out of the way of the gradient."""
    model = teacher(regularization=2.0, alpha=0.0, rate=1.0)
    x, y = batch()
    biases = [value(n.layers[-1].bias) for n in (model.network, model.mean)]
    features = keras.Model(model.network.input, model.network.layers[-1].input)(x)
    task = ops.convert_to_numpy(features) @ value(model.network.layers[-1].kernel) + biases[0]
    features = keras.Model(model.mean.input, model.mean.layers[-1].input)(x)
    mean = ops.convert_to_numpy(features) @ value(model.mean.layers[-1].kernel) + biases[1]
    one_hot = np.eye(3)[y]
    gradient = (special.softmax(task, axis=1) - one_hot).mean(axis=0) + 2.0 * 2 * (task - mean).sum(axis=0) / task.size
    assert not model.mean.trainable_variables
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in model.network.trainable_variables}
    model.train_on_batch(x, y)
    np.testing.assert_allclose(model.network.layers[-1].bias, biases[0] - gradient, rtol=1e-3, atol=1e-5)
    # alpha 0: M is T after the step.
    for m, t in zip(arrays(model.mean), arrays(model.network), strict=True):
        np.testing.assert_allclose(m, t, atol=1e-6)


def test_without_a_regularizer_training_is_supervised_training():
    def trained(make):
        keras.utils.set_random_seed(4)
        network = tiny_network(norm=True)
        model = make(network, None, None, 0)
        model.compile(keras.optimizers.Adam(0.01), jit_compile=False, run_eagerly=True)
        for step in range(3):
            model.train_on_batch(*batch(seed=step))
        return arrays(network)

    alone = trained(SupervisedModel)
    beside = trained(lambda *parts: MeanTeacher(*parts, regularization=0.0))
    for a, b in zip(alone, beside, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    other = trained(lambda *parts: MeanTeacher(*parts, regularization=1.0))
    assert max(np.abs(a - b).max() for a, b in zip(alone, other, strict=True)) > 1e-3


def test_both_models_see_the_same_augmented_volumes():
    def stamp(volumes, seed):
        return 0 * volumes + ops.cast(1 + seed[1], "float32")

    model = teacher(tiny_network(), stamp, mean_init="copy")
    task, mean = model(batch()[0], training=True)
    np.testing.assert_array_equal(task, mean)
    expected = model(np.ones((6, SIDE, SIDE, SIDE, 1), np.float32))
    np.testing.assert_allclose(task, expected, atol=1e-6)


def test_unlabelled_volumes_count_in_the_deviation_alone():
    """And by as much as labelled ones: the loss against NumPy, and a step that they alone make differ."""
    model = teacher(regularization=0.5, unlabelled=object())
    rng = np.random.default_rng(1)
    task, mean = rng.standard_normal((2, 7, 3)).astype(np.float32)
    y = np.array([2, 0, 1])
    nll = -special.log_softmax(task[:3], axis=1)[np.arange(3), y]
    expected = nll.mean() + 0.5 * ((task - mean) ** 2).mean()
    assert float(model.compute_loss(None, y, (task, mean))) == pytest.approx(expected, rel=1e-5)

    def bias(unlabelled):
        keras.utils.set_random_seed(0)
        made = teacher(regularization=0.5)
        x, y = batch()
        made.train_on_batch((x, unlabelled), y)
        return value(made.network.layers[-1].bias)

    one, other = (bias(batch(4, seed)[0]) for seed in (1, 2))
    assert np.abs(one - other).max() > 1e-4


# === Numbers ===


def test_a_scaled_loss_gives_the_same_step():
    """Keras' step scales the loss of mixed_float16's optimizer; the update of M comes after the unscaled step."""

    def trained(optimizer):
        keras.utils.set_random_seed(0)
        model = MeanTeacher(tiny_network(), None, None, 0, alpha=0.5)
        model.compile(optimizer, jit_compile=False, run_eagerly=True)
        for step in range(3):
            model.train_on_batch(*batch(seed=step))
        return arrays(model.network) + arrays(model.mean)

    plain = trained(keras.optimizers.SGD(0.1))
    scaled = trained(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**10))
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_mixed_precision_keeps_the_mean_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = teacher(tiny_network(norm=True), alpha=0.999)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.mean.get_layer("conv").compute_dtype == "bfloat16"
    before = arrays(model.mean)
    model.train_on_batch(*batch())
    assert {v.dtype for v in model.mean.weights} == {"float32"}
    expected = [0.999 * m + 0.001 * t for m, t in zip(before, arrays(model.network), strict=True)]
    kernel = value(model.mean.get_layer("conv").kernel)
    np.testing.assert_allclose(kernel, expected[0], rtol=1e-5, atol=1e-7)
    assert np.abs(kernel - before[0]).max() > 0  # bfloat16 would not see a thousandth


def test_all_state_is_weights(tmp_path):
    def made(seed):
        keras.utils.set_random_seed(seed)
        return teacher(tiny_network(norm=True, dropout=0.3), ramp=True, eager=False)

    through = made(0)
    for step in range(2):
        through.train_on_batch(*batch(seed=step))
    resumed = made(1)
    for theirs, mine in zip(through.variables, resumed.variables, strict=True):
        mine.assign(theirs)
    for model in (through, resumed):
        for step in range(2, 4):
            model.train_on_batch(*batch(seed=step))
    for a, b in zip(through.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(value(a), value(b))


# === Selecting ===


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    rng = np.random.default_rng(0)
    shape = (SIDE,) * 3
    samples = [{"volume": rng.standard_normal(shape).astype(np.float32), "label": i % 3} for i in range(20)]
    folder = write_dataset(tmp_path_factory.mktemp("pool") / "d", "d", list("abc"), 10.0, "bright", {"train": samples})
    return Dataset(folder, "train")


def known(pool, model):
    return Known(pool.subset(range(4)), pool.subset(range(4, 20)), model.network, model, 0)


@pytest.mark.parametrize("deviation", ["higher", "lower"])
@pytest.mark.parametrize("distance", ["kl", "mse"])
def test_selects_what_the_models_disagree_on(pool, distance, deviation):
    model = teacher(tiny_network(norm=True))
    model.train_on_batch(*batch())
    found = EMA(distance=distance, deviation=deviation).select(known(pool, model), 5)
    volumes = pool.volumes(range(4, 20))
    volumes = (volumes - volumes.mean((1, 2, 3), keepdims=True)) / volumes.std((1, 2, 3), keepdims=True)
    heads = [keras.Model(n.input, n.layers[-1].input) for n in (model.network, model.mean)]
    logits = []
    for network, head in zip((model.network, model.mean), heads, strict=True):
        last = network.layers[-1]
        logits.append(ops.convert_to_numpy(head(volumes[..., None])) @ value(last.kernel) + value(last.bias))
    if distance == "kl":
        p, q = (ops.convert_to_numpy(n(volumes[..., None])).astype(float) for n in (model.network, model.mean))
        expected = stats.entropy(p, q, axis=1)
    else:
        expected = ((logits[0] - logits[1]) ** 2).mean(axis=1)
    expected = expected if deviation == "higher" else -expected
    np.testing.assert_array_equal(found.indices, np.argsort(-expected)[:5])
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1][:5], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("deviation", ["higher", "lower"])
def test_class_balanced_the_guessed_classes_take_turns(pool, deviation):
    model = teacher(tiny_network(norm=True))
    model.train_on_batch(*batch())
    whole = EMA(deviation=deviation).select(known(pool, model), 16)
    guesses = known(pool, model).probabilities.argmax(axis=1)
    assert len(set(guesses)) > 1
    for budget in (1, 5, 16):
        found = EMA(deviation=deviation, class_balanced=True).select(known(pool, model), budget)
        expected, rows = [], [[i for i in whole.indices if guesses[i] == c] for c in range(3)]
        while len(expected) < budget:
            heads = [mine.pop(0) for mine in rows if mine]
            expected += sorted(heads, key=whole.indices.tolist().index)
        assert found.indices.tolist() == expected[:budget]
        assert found.scores.tolist() == [whole.scores[whole.indices.tolist().index(i)] for i in found.indices]
    with pytest.raises(InputError, match="A budget of 17 samples was asked for and the pool has 16"):
        EMA(class_balanced=True).select(known(pool, model), 17)


@pytest.mark.parametrize("class_balanced", [False, True])
def test_two_passes_over_the_pool(pool, monkeypatch, class_balanced):
    model = teacher()
    passed = []
    predict = keras.Model.predict_on_batch

    def counted(self, x):
        passed.append(len(x))
        return predict(self, x)

    monkeypatch.setattr(keras.Model, "predict_on_batch", counted)
    EMA(class_balanced=class_balanced).select(known(pool, model), 5)
    assert sum(passed) == 2 * 16


def test_the_trainer_is_a_mean_teacher_with_the_strategys_options(pool):
    strategy = active.get("ema", alpha=0.5, ramp=True, mean_init="copy", regularization=0.2, semi_supervised=True)
    made = strategy.trainer(tiny_network(), None, None, 3, pool)
    assert (made.alpha, made.ramp, made.regularization, made.seed) == (0.5, True, 0.2, 3)
    assert made.unlabelled is pool
    assert strategy.trainer(tiny_network(), None, None, 3, pool.subset([])).unlabelled is None
    assert EMA().trainer(tiny_network(), None, None, 3, pool).unlabelled is None
    with pytest.raises(InputError, match="got SupervisedModel"):
        EMA().select(known(pool, SupervisedModel(tiny_network(), None, None, 0)), 2)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("alpha", 1.0),
        ("alpha", -0.1),
        ("regularization", -1),
        ("regularization", float("nan")),
        ("ramp", "yes"),
        ("mean_init", "zeros"),
        ("semi_supervised", 1),
        ("distance", "cosine"),
        ("deviation", "highest"),
        ("class_balanced", "yes"),
    ],
)
def test_refuses(option, value):
    with pytest.raises(InputError, match=f"{option}={value!r} must be"):
        EMA(**{option: value})
    if option in ("alpha", "regularization", "ramp", "mean_init"):
        with pytest.raises(InputError, match=f"{option}="):
            MeanTeacher(tiny_network(), None, None, 0, **{option: value})


# === Another backend ===


def test_on_jax(tmp_path):
    pytest.importorskip("jax", reason="needs the extra `jax`")
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "active")!r})
import keras, numpy as np
from test_mean_teacher import arrays, batch, teacher, tiny_network, value
assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
model = teacher(tiny_network(norm=True), alpha=0.7, ramp=True, rate=0.5, eager=False)
x, y = batch()
kept = [i for i, w in enumerate(model.network.weights) if w.trainable]
expected = arrays(model.mean)
for step in range(1, 4):
    model.train_on_batch((x, batch(4, step)[0]), y)
    alpha = min(1 - 1 / (step + 1), 0.7)
    expected = [alpha * m + (1 - alpha) * t for m, t in zip(expected, arrays(model.network))]
    for i in kept:
        np.testing.assert_allclose(arrays(model.mean)[i], expected[i], rtol=1e-4, atol=1e-6)
assert np.abs(value(model.mean.get_layer("norm").moving_mean)).max() > 1e-4
assert int(model.step.value) == 3
print("done")
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert shown.stdout.splitlines()[-1] == "done"
