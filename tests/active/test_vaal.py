"""VAAL: the loss and its two reductions, boxes of any size, who moves whom, and that the odd ones out are found."""

import itertools

import keras
import numpy as np
import pytest
from small_pools import Blind, blind, known, noise

from aitom_ssl.active.vaal import (
    VAAL,
    AdversarialAutoencoder,
    critic,
    critic_logits,
    endless,
    kl_to_normal,
    vae_decoder,
    vae_encoder,
    vae_loss,
)
from aitom_ssl.errors import InputError


def seeds():
    return itertools.count(1)


# === Pure functions ===


def test_kl_beside_its_integral():
    mean, log_variance = 0.7, -0.9
    x = np.linspace(-12, 12, 200001)
    density = np.exp(-((x - mean) ** 2) / (2 * np.exp(log_variance))) / np.sqrt(2 * np.pi * np.exp(log_variance))
    logs = -((x - mean) ** 2) / (2 * np.exp(log_variance)) - log_variance / 2 + x**2 / 2
    one = float((density * logs).sum() * (x[1] - x[0]))
    found = kl_to_normal(np.full((2, 3), mean, np.float32), np.full((2, 3), log_variance, np.float32))
    np.testing.assert_allclose(found, [3 * one] * 2, rtol=1e-5)
    np.testing.assert_allclose(kl_to_normal(np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32)), 0)


def test_reductions():
    rng = np.random.default_rng(0)
    volumes, rebuilt = rng.standard_normal((2, 3, 4, 4, 4, 1)).astype(np.float32)
    mean, log_variance = rng.standard_normal((2, 3, 5)).astype(np.float32)
    kl = np.asarray(kl_to_normal(mean, log_variance))
    error = ((volumes - rebuilt) ** 2).mean()
    found = {kind: float(vae_loss(volumes, rebuilt, mean, log_variance, 0.5, kind)) for kind in ("sum", "bound")}
    assert found["sum"] == pytest.approx(error + 0.5 * kl.sum(), rel=1e-5)
    assert found["bound"] == pytest.approx(error + 0.5 * 2 / 64 * kl.mean(), rel=1e-5)
    # With beta 1, 32 of that is a sample's negative bound: half the squared error of its 64 voxels, and its KL.
    bound = np.mean([((a - b) ** 2).sum() / 2 + k for a, b, k in zip(volumes, rebuilt, kl, strict=True)])
    assert 32 * float(vae_loss(volumes, rebuilt, mean, log_variance, 1.0, "bound")) == pytest.approx(bound, rel=1e-5)
    # A batch twice as long is the same batch to the one, and not to the other.
    twice = [np.concatenate([x, x]) for x in (volumes, rebuilt, mean, log_variance)]
    assert float(vae_loss(*twice, 0.5, "bound")) == pytest.approx(found["bound"], rel=1e-5)
    assert float(vae_loss(*twice, 0.5, "sum")) == pytest.approx(error + kl.sum(), rel=1e-5)


def test_the_critic_by_its_weights():
    judge = critic(4, 16, seeds())
    codes = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(
        critic_logits(codes, judge.get_weights()), judge.predict_on_batch(codes)[:, 0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("count", "batch"), [(5, 2), (3, 3), (2, 7)])
def test_endless_shows_every_sample_as_often(count, batch):
    drawn = list(itertools.islice(endless(count, batch, np.random.default_rng(0)), count * 4))
    assert {len(rows) for rows in drawn} == {batch}
    rounds = np.concatenate(drawn).reshape(-1, count)
    np.testing.assert_array_equal(np.sort(rounds), np.tile(np.arange(count), (len(rounds), 1)))
    assert len({tuple(row) for row in rounds}) > 1


# === The networks ===


@pytest.mark.parametrize("side", [3, 8, 12, 28])
def test_any_box(side):
    encoder, decoder = vae_encoder(side, 1, 3, seeds()), vae_decoder(side, 1, 3, seeds())
    mean, log_variance = encoder(noise(2, side=side)[..., None])
    assert mean.shape == log_variance.shape == (2, 3)
    assert decoder(mean).shape == (2, side, side, side, 1)


def test_widths_double_as_published():
    encoder, decoder = vae_encoder(16, 2, 3, seeds()), vae_decoder(16, 2, 3, seeds())
    assert [layer.filters for layer in encoder.layers if hasattr(layer, "filters")] == [2, 4, 8, 16]
    assert [layer.filters for layer in decoder.layers if hasattr(layer, "filters")] == [8, 4, 2, 1]


def autoencoder(**options):
    encoder, decoder = vae_encoder(8, 2, 3, seeds()), vae_decoder(8, 2, 3, seeds())
    model = AdversarialAutoencoder(encoder, decoder, **options)
    # Quicker than tracing, for a few steps.
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    return model


def test_the_step_is_the_formula_and_leaves_the_critic_alone():
    model, judge = autoencoder(beta=0.5, adversary=0.3, reduction="sum"), critic(3, 8, seeds())
    weights = judge.get_weights()
    kinds = noise(4, 1)[..., None], noise(4, 2)[..., None]
    answers = model((*kinds, weights))
    expected = 0.0
    for volumes, (rebuilt, mean, log_variance) in zip(kinds, answers, strict=True):
        labelled = 1 / (1 + np.exp(-np.asarray(critic_logits(mean, weights))))
        expected += float(vae_loss(volumes, rebuilt, mean, log_variance, 0.5, "sum")) - 0.3 * np.log(labelled).mean()
    found = model.compute_loss((*kinds, weights), None, answers)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    losses = [float(model.train_on_batch((*kinds, weights), return_dict=True)["loss"]) for _ in range(8)]
    assert losses[-1] < losses[0]
    for before, after in zip(weights, judge.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_autoencoder_makes_all_codes_look_labelled():
    """The adversarial term alone moves the encoder, through a critic that stands still."""
    model, judge = autoencoder(beta=0.0, adversary=10.0), critic(3, 8, seeds())
    kinds = noise(4, 1)[..., None], noise(4, 2)[..., None]

    def labelled():
        codes = [model.encoder(volumes, training=True)[0] for volumes in kinds]
        return [float(np.mean(critic_logits(code, judge.get_weights()))) for code in codes]

    before = labelled()
    for _ in range(10):
        model.train_on_batch((*kinds, judge.get_weights()))
    assert all(after > start + 0.5 for after, start in zip(labelled(), before, strict=True))


# === The strategy ===


def odd_ones_out():
    """Labelled: a bright corner. The pool: 12 like them, then 12 with another corner bright."""
    volumes = 0.3 * noise(48, 4)
    volumes[:36, :4, :4, :4] += 2
    volumes[36:, 4:, 4:, 4:] += 2
    return Blind(volumes[:24]), Blind(volumes[24:])


def test_what_no_label_is_like_comes_first_and_a_score_is_a_samples_own(monkeypatch):
    labelled, pool = odd_ones_out()
    # With an adversary the encoder soon hides the difference: the two chase each other, and who leads is the seed's.
    strategy = VAAL(epochs=8, batch_size=12, width=2, latents=4, learning_rate=2e-3, adversary=0.0)
    learned = strategy.learn(labelled, pool, 0)
    monkeypatch.setattr(strategy, "learn", lambda *given: learned)
    scores = strategy.scores(known(None, labelled, pool))
    assert np.mean(scores[12:, None] > scores[None, :12]) > 0.9
    part = strategy.scores(known(None, labelled, Blind(pool.volumes(range(10, 13)))))
    np.testing.assert_allclose(part, scores[10:13], rtol=1e-4, atol=1e-4)


def test_with_nothing_labelled_everything_is_as_unlabelled():
    np.testing.assert_array_equal(VAAL().scores(known(None, [], blind(4))), np.zeros(4))


@pytest.mark.parametrize("options", [
    {"epochs": 0}, {"batch_size": 1}, {"width": 0.5}, {"latents": 0}, {"beta": -1}, {"adversary": float("nan")},
    {"reduction": "mean"}, {"vae_steps": 0}, {"learning_rate": "fast"},
])  # fmt: skip
def test_options_are_checked(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"vaal: {name}={value!r}"):
        VAAL(**options)
