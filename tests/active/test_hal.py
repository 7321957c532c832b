"""HAL: class weights, parts of the budget, the discriminator from scratch, and the selection beside a slow one."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_pools import SIDE, Blind, blind, known, noise, small_network

from aitom_ssl import models
from aitom_ssl.active import hal as module
from aitom_ssl.active.hal import HAL, Discriminator, deepest_maps, parts_of, sample_weights
from aitom_ssl.active.uncertainty import entropy
from aitom_ssl.errors import InputError

PROBABILITIES = np.random.default_rng(0).dirichlet([0.5] * 3, size=30)


def test_balanced_weights_give_both_classes_the_same_say():
    in_pool = np.repeat([0, 1], [8, 92])
    weights = sample_weights(in_pool, True)
    assert weights[in_pool == 0].sum() == pytest.approx(50) and weights[in_pool == 1].sum() == pytest.approx(50)
    # The ratio that the published code means: 12.5 to 1.09.
    assert weights[0] / weights[-1] == pytest.approx(12.5 / (100 / 92))
    np.testing.assert_array_equal(sample_weights(in_pool, False), 1)


@pytest.mark.parametrize(("budget", "parts", "expected"), [
    (12, 4, [3, 3, 3, 3]), (10, 4, [3, 3, 2, 2]), (3, 4, [1, 1, 1]), (5, 1, [5]),
])  # fmt: skip
def test_parts(budget, parts, expected):
    assert parts_of(budget, parts) == expected


def test_the_deepest_map_is_averaged_down():
    network = models.RB3D((24, 24, 24, 1), classes=2, pooling="avg")
    assert deepest_maps(network).map_shape == (2, 2, 2, 32)
    volumes = keras.Input((SIDE, SIDE, SIDE, 1))
    x = layers.Dense(2)(layers.Flatten()(layers.Conv3D(2, 3, padding="same", name="only")(volumes)))
    embed = deepest_maps(keras.Model(volumes, x))
    assert embed.map_shape == (4, 4, 4, 2)
    shown = noise(2)[..., None]
    bare = keras.Model(embed.input, embed.get_layer("only").output)(shown)
    expected = np.reshape(bare, (2, 4, 2, 4, 2, 4, 2, 2)).mean(axis=(2, 4, 6))
    np.testing.assert_allclose(embed(shown), expected.reshape(2, -1), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="no 3-D feature maps"):
        deepest_maps(keras.Model(volumes, layers.Flatten()(volumes)))


def maps_of_two_kinds(count):
    maps = np.random.default_rng(1).standard_normal((count, 2, 2, 2, 3)).astype(np.float32)
    in_pool = (np.arange(count) % 8 > 0).astype(int)
    maps[in_pool == 1, ..., 0] += 3
    return maps, in_pool


def discriminator(balanced=True, seed=0, epochs=40):
    return Discriminator((2, 2, 2, 3), 8, epochs, balanced, 16, np.random.default_rng(seed))


def test_the_discriminator_tells_a_few_labelled_from_a_large_pool():
    maps, in_pool = maps_of_two_kinds(160)
    learner = discriminator()
    learner.train(maps, in_pool)
    found = learner.in_pool(maps, batch_size=64)
    assert found.shape == (160,) and (found >= 0).all() and (found <= 1).all()
    # By class: as many would be right by calling everything of the pool.
    assert (found[in_pool == 1] > 0.5).mean() > 0.9 and (found[in_pool == 0] < 0.5).mean() > 0.9
    # It ended before the last epoch.
    assert int(learner.network.optimizer.iterations.value) < 40 * 10


def test_training_again_starts_from_scratch():
    maps, in_pool = maps_of_two_kinds(64)
    learner = discriminator(epochs=2)
    start = [ops.convert_to_numpy(variable) for variable in learner.network.variables]
    learner.train(maps, in_pool)
    trained = learner.in_pool(maps)
    steps = int(learner.network.optimizer.iterations.value)
    assert steps == 8
    learner.train(-maps, in_pool)
    assert int(learner.network.optimizer.iterations.value) == steps
    # With the order of the first time, the same.
    again = discriminator(epochs=2)
    for variable, value in zip(again.network.variables, start, strict=True):
        np.testing.assert_array_equal(variable, value)
    again.train(maps, in_pool)
    np.testing.assert_allclose(again.in_pool(maps), trained, rtol=1e-4)


class Fixed:
    """A discriminator that has made up its mind: the more labelled it has seen, the less of the pool a map looks."""

    seen: list = []  # noqa: RUF012

    def __init__(self, *options):
        pass

    def train(self, maps, in_pool):
        self.labelled = maps[in_pool == 0].reshape(-1)
        self.seen.append((len(self.labelled), int(in_pool.sum())))

    def in_pool(self, maps):
        return 1 - 1 / (1 + np.abs(maps.reshape(-1)[:, None] - self.labelled).min(axis=1))


class Mapper:
    """Stands in for the task network's map: one number a sample."""

    map_shape = (1, 1, 1, 1)


def choose(monkeypatch, labelled, budget, **options):
    Fixed.seen = []
    values = np.random.default_rng(2).random(40).astype(np.float32)
    pools = {30: values[:30], 10: values[30:]}
    monkeypatch.setattr(module, "Discriminator", Fixed)
    monkeypatch.setattr(module, "deepest_maps", lambda network: Mapper)
    monkeypatch.setattr(module, "extract_features", lambda embed, data: pools[len(data)][:, None])
    given = known(None, range(labelled), range(30), seed=0, probabilities=PROBABILITIES)
    return values, HAL(**options).select(given, budget)


@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
def test_the_selection_beside_a_slow_one(monkeypatch, weight):
    values, chosen = choose(monkeypatch, 10, 10, parts=4, entropy_weight=weight)
    centres, taken, scores = list(values[30:]), [], []
    disorder = entropy(PROBABILITIES)
    for part in (3, 3, 2, 2):
        best = sorted(
            ((1 - 1 / (1 + min(abs(values[i] - c) for c in centres)) + weight * disorder[i], i)
             for i in range(30) if i not in taken),
            reverse=True,
        )[:part]  # fmt: skip
        taken += [i for _, i in best]
        scores += [score for score, _ in best]
        centres += [values[i] for _, i in best]
    np.testing.assert_array_equal(chosen.indices, taken)
    np.testing.assert_allclose(chosen.scores, scores, rtol=1e-5)
    assert Fixed.seen == [(10, 30), (13, 27), (16, 24), (18, 22)]


def test_with_nothing_labelled_the_first_part_goes_by_uncertainty(monkeypatch):
    _, chosen = choose(monkeypatch, 0, 6, parts=2)
    np.testing.assert_array_equal(chosen.indices[:3], np.argsort(-entropy(PROBABILITIES))[:3])
    np.testing.assert_allclose(chosen.scores[:3], 1 + np.sort(entropy(PROBABILITIES))[::-1][:3])
    assert Fixed.seen == [(3, 27)]


def test_candidates_are_so_many_for_one_labelled_and_never_too_few(monkeypatch):
    choose(monkeypatch, 10, 6, parts=2, candidates=2)
    assert Fixed.seen == [(10, 20), (13, 26)]
    _, chosen = choose(monkeypatch, 10, 30, parts=1, candidates=1)
    assert Fixed.seen == [(10, 30)] and len(set(chosen.indices)) == 30


def test_what_no_label_is_like_comes_first():
    volumes = 0.3 * noise(48, 4)
    volumes[36:] *= 6
    network = small_network()
    given = known(network, Blind(volumes[:24]), Blind(volumes[24:]), probabilities=np.full((24, 3), 1 / 3))
    chosen = HAL(parts=1, width=8, epochs=40).select(given, 12)
    assert (chosen.indices >= 12).mean() > 0.9


@pytest.mark.parametrize("options", [
    {"parts": 0}, {"entropy_weight": -1}, {"candidates": 0}, {"balanced": 1}, {"width": 0}, {"epochs": 0},
    {"batch_size": 2.0},
])  # fmt: skip
def test_options_are_checked(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"hal: {name}={value!r}"):
        HAL(**options)


def test_a_budget_beyond_the_pool_is_refused_before_anything_is_computed():
    with pytest.raises(InputError, match="budget of 5"):
        HAL().select(known(None, blind(3), blind(4)), 5)
