"""LL4AL: the ranking loss beside its formula, what teaches what and until when, and the selection."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_pools import blind, known, noise, small_network

from aitom_ssl import models
from aitom_ssl.active.ll4al import LL4AL, LossLearner, loss_module, ranking_loss, taps
from aitom_ssl.errors import InputError
from aitom_ssl.training.supervised import SupervisedModel

X, Y = noise(6, 5)[..., None], np.array([0, 1, 2, 0, 1, 2])


def written_out(predictions, losses, margin=1.0):
    """Equation 2 of the paper over the pairs of its published code, without pairs of equal losses."""
    terms = []
    for i in range(len(losses) // 2):
        j = len(losses) - 1 - i
        if losses[i] != losses[j]:
            sign = 1 if losses[i] > losses[j] else -1
            terms.append(max(0, -sign * (predictions[i] - predictions[j]) + margin))
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize("count", [1, 2, 7, 8, 31])
@pytest.mark.parametrize("ties", [False, True])
def test_ranking_loss_as_written_out(count, ties):
    rng = np.random.default_rng(count)
    predictions, losses = rng.standard_normal((2, count)).astype(np.float32)
    losses = np.round(losses) if ties else losses
    for margin in (1.0, 0.2):
        found = float(ranking_loss(ops.convert_to_tensor(predictions), ops.convert_to_tensor(losses), margin))
        assert found == pytest.approx(written_out(predictions, losses, margin), rel=1e-5, abs=1e-7)


def test_ranking_loss_knows_order_and_not_size():
    losses = np.array([5.0, 0.1, 0.2, 0.3], np.float32)
    assert float(ranking_loss(np.array([3, 0, 1, 2], np.float32), losses)) == 0
    assert float(ranking_loss(np.zeros(4, np.float32), losses)) == 1
    assert float(ranking_loss(np.array([3, 1, 0, 2], np.float32), np.zeros(4, np.float32))) == 0


@pytest.mark.parametrize(("builder", "options", "expected"), [
    ("rb3d", {"pooling": "avg"}, ["block1_relu", "block2_relu", "block3_relu", "block4_relu"]),
    ("rb3d_gn", {"pooling": "avg"}, ["block1_relu", "block2_relu", "block3_relu", "block4_relu"]),
    ("dsrf3d", {"pooling": "avg"}, ["block1_pool", "block2_pool"]),
    ("inception3d", {"pooling": "avg"}, ["stem", "concatenate", "average", "average_pool"]),
    ("inception3d", {"pooling": "avg", "field": 0.9}, ["stem", "concatenate", "average", "average_pool"]),
    ("resnet18_3d", {}, [f"stage{n}_block2_relu2" for n in (1, 2, 3, 4)]),
])  # fmt: skip
def test_taps_of_the_zoo(builder, options, expected):
    side = 32 if builder == "resnet18_3d" else 16
    network = models.get(builder)((side, side, side, 1), classes=2, **options)
    assert [layer.name for layer in taps(network)] == expected


def test_a_network_without_maps_has_no_taps():
    volumes = keras.Input((8, 8, 8, 1))
    with pytest.raises(InputError, match="no 3-D feature maps"):
        taps(keras.Model(volumes, layers.Dense(2)(layers.Flatten()(volumes))))


@pytest.mark.parametrize("channels", [[4], [4, 6, 5]])
def test_the_module_is_a_function_of_its_seed(channels):
    averages = [np.random.default_rng(k).random((3, count), np.float32) for k, count in enumerate(channels)]
    one, same, other = (loss_module(channels, seed).predict_on_batch(averages) for seed in (0, 0, 1))
    assert one.reshape(-1).shape == (3,)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def learner(seed=0, **options):
    model = LossLearner(small_network(), None, None, seed, **options)
    # Quicker than tracing, for a few steps.
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return model


def test_logits_predictions_and_the_loss_of_both():
    network = small_network()
    model = LossLearner(network, None, np.array([1, 2, 3.0]), 0, weight=0.5, margin=0.7)
    logits, predictions = model(X)
    np.testing.assert_allclose(ops.softmax(logits), network(X), rtol=1e-5)
    assert network.layers[-1].activation is keras.activations.softmax
    np.testing.assert_allclose(model.predictor.predict_on_batch(X)[:, 0], predictions, rtol=1e-4, atol=1e-6)
    plain = np.log(np.exp(logits).sum(axis=1)) - np.asarray(logits)[np.arange(6), Y]
    expected = (plain * np.array([1, 2, 3])[Y]).mean() + 0.5 * written_out(np.asarray(predictions), plain, 0.7)
    assert float(model.compute_loss(X, Y, (logits, predictions), training=False)) == pytest.approx(expected, rel=1e-5)
    assert float(model.ranking.result()) == pytest.approx(written_out(np.asarray(predictions), plain, 0.7), rel=1e-5)
    assert int(model.step.value) == 0


def test_the_module_teaches_the_network_for_a_share_of_the_epochs_only():
    plain = SupervisedModel(small_network(), None, None, 0)
    plain.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    joint, alone = learner(), learner()
    alone.joint_steps.assign(0)
    start = alone.module.get_weights()
    for model in (plain, joint, alone):
        model.train_on_batch(X, Y)
    weights = [model.network.get_layer("stage1_conv").get_weights()[0] for model in (plain, joint, alone)]
    np.testing.assert_allclose(weights[2], weights[0], atol=1e-6)
    assert np.abs(weights[1] - weights[0]).max() > 1e-4
    # It goes on learning itself.
    assert max(np.abs(a - b).max() for a, b in zip(start, alone.module.get_weights(), strict=True)) > 1e-4


def test_the_share_is_of_the_epochs_that_fit_is_asked_for():
    model = learner(joint=0.6)
    pairs = ((X, Y) for _ in range(100))
    model.fit(pairs, epochs=5, steps_per_epoch=2, shuffle=False, verbose=0)
    assert int(model.joint_steps.value) == 6 and int(model.step.value) == 10
    kept = [*model.variables]
    assert any(variable is model.joint_steps for variable in kept) and any(v is model.step for v in kept)


def test_it_learns_the_order_of_losses():
    """A network that does not move, and one class that it gets wrong."""
    network = small_network()
    network.layers[-1].bias.assign([4.0, 4.0, -4.0])
    for layer in network.layers:
        layer.trainable = False
    model = LossLearner(network, None, None, 0)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    rng = np.random.default_rng(0)
    volumes = noise(24, 1)[..., None]
    labels = np.arange(24) % 3
    volumes[labels == 2] *= 3
    for _ in range(60):
        order = rng.permutation(24)
        model.train_on_batch(volumes[order], labels[order])
    predicted = model.predictor.predict_on_batch(volumes)[:, 0]
    assert predicted[labels == 2].min() > predicted[labels != 2].max()


def test_the_highest_predictions_are_selected_of_a_subset_where_asked():
    model, pool = learner(), blind(20)
    given = known(None, range(5), pool, trainer=model, seed=3)
    predicted = model.predictor.predict(pool.volumes(range(20))[..., None], verbose=0)[:, 0]
    chosen = LL4AL().select(given, 6)
    np.testing.assert_array_equal(chosen.indices, np.argsort(-predicted)[:6])
    np.testing.assert_allclose(chosen.scores, np.sort(predicted)[::-1][:6], rtol=1e-4, atol=1e-6)
    few = LL4AL(subset=8).select(given, 6)
    assert set(few.indices) != set(chosen.indices) and (few.scores <= chosen.scores + 1e-6).all()
    np.testing.assert_allclose(few.scores, predicted[few.indices], rtol=1e-4, atol=1e-6)
    assert len(set(LL4AL(subset=2).select(given, 6).indices)) == 6


def test_another_trainer_is_refused():
    given = known(None, range(5), blind(4), trainer=SupervisedModel(small_network(), None, None, 0))
    with pytest.raises(InputError, match="not trained by this strategy"):
        LL4AL().select(given, 2)


@pytest.mark.parametrize("options", [{"weight": -1}, {"margin": 0}, {"joint": 1.1}, {"subset": 0}, {"joint": "all"}])
def test_options_are_checked(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"ll4al: {name}={value!r}"):
        LL4AL(**options)
