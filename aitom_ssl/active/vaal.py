"""VAAL (Sinha 2019, arXiv 1904.00370): samples that a discriminator, in the code of an autoencoder, calls unlabelled.

A variational autoencoder learns to rebuild labelled and unlabelled volumes and to make its codes look labelled; a
discriminator learns to tell from the mean mu of a code which is which. With BCE the binary cross-entropy, per step:

    autoencoder:    sum over both kinds of [squared error + beta * KL + adversary * BCE(D(mu), labelled)]
    discriminator:  BCE(D(mu of labelled), labelled) + BCE(D(mu of unlabelled), unlabelled)

Chosen are the samples that D is surest are unlabelled. Neither network sees the task's, nor it them: the published code
trains all three in one loop, here the two train when it is time to choose, with the same result and the default
trainer.

What the published code does otherwise:
- It adds KL over batch and latents but averages the squared error over voxels, so KL weighs batch x voxels / 2 times
  what the variational bound says, and codes collapse to the prior: `reduction="sum"`. Our default "bound" averages KL
  over the batch and scales it to the bound in units of mean squared error: 2 KL / voxels.
- One of its versions asks the autoencoder that unlabelled codes look unlabelled, so there is no adversary; the paper
  and we ask for labelled.
- It never leaves training mode: the scores of a sample depend on its batch. Here codes are scored, and shown to the
  discriminator, in inference mode.
- Widths 128-256-512-1024, discriminator 512: `width=128`. The default 16-32-64-128 is for CPUs. 100 epochs: `epochs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from tqdm import tqdm

from aitom_ssl.active.strategy import Known, Strategy, checked_option, number, whole
from aitom_ssl.data.batches import gather
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.training.compiled import networks_on_xla

REDUCTIONS = ("bound", "sum")
_CRITIC_UNITS = 512


# === Pure functions ===


def kl_to_normal(mean: Any, log_variance: Any) -> Any:
    """KL of the normal with that mean and diagonal variance, (batch, latents), to the standard one: (batch,), nats."""
    return -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), axis=1)


def vae_loss(volumes: Any, rebuilt: Any, mean: Any, log_variance: Any, beta: float, reduction: str) -> Any:
    """Mean squared error of `rebuilt` (batch, z, y, x, 1) plus beta times KL, a scalar; `reduction` is how KL enters.

    "bound": mean over the batch of 2 KL / voxels. With beta 1 it is 2 / voxels times the (negative) variational bound,
    but for a constant, of a decoder whose noise has a standard deviation of 1 (Kingma and Welling 2013, equation 10).
    "sum": added over the batch, as published.
    """
    error = ops.mean(ops.square(rebuilt - volumes))
    divergence = kl_to_normal(mean, log_variance)
    if reduction == "sum":
        return error + beta * ops.sum(divergence)
    voxels = int(np.prod(volumes.shape[1:]))
    return error + beta * 2 / voxels * ops.mean(divergence)


def critic_logits(codes: Any, weights: Any) -> Any:
    """(batch,) logit that codes (batch, latents) are of labelled samples; `weights`: kernel and bias of each layer."""
    x = codes
    for place in range(0, len(weights), 2):
        x = ops.matmul(ops.relu(x) if place else x, weights[place]) + weights[place + 1]
    return x[:, 0]


def endless(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """(batch_size,) positions of `count` samples, permutation after permutation, across their borders, for ever."""
    rest = np.zeros(0, np.int64)
    while True:
        while len(rest) < batch_size:
            rest = np.concatenate([rest, rng.permutation(count)])
        yield rest[:batch_size]
        rest = rest[batch_size:]


# === The networks ===


def vae_encoder(side: int, width: int, latents: int, seeds: Iterator[int]) -> keras.Model:
    """(batch, side, side, side, 1) to mean and log variance, (batch, latents) float32 each.

    Four convolutions of 4^3 with stride 2 and `width` x 1, 2, 4, 8 filters, each with BatchNorm and ReLU. Any side.
    """
    volumes = x = keras.Input((side, side, side, 1))
    for factor in (1, 2, 4, 8):
        x = layers.Conv3D(factor * width, 4, strides=2, padding="same", use_bias=False, **_he(seeds))(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Flatten()(x)
    code = [layers.Dense(latents, dtype="float32", **_he(seeds))(x) for _ in range(2)]
    return keras.Model(volumes, code, name="vae_encoder")


def vae_decoder(side: int, width: int, latents: int, seeds: Iterator[int]) -> keras.Model:
    """(batch, latents) to (batch, side, side, side, 1) float32: the way back from an eighth of the side.

    A side that 8 does not divide is built too large and cut.
    """
    start = -(-side // 8)
    codes = x = keras.Input((latents,))
    x = layers.Reshape((start, start, start, 8 * width))(layers.Dense(start**3 * 8 * width, **_he(seeds))(x))
    for factor in (4, 2, 1):
        x = layers.Conv3DTranspose(factor * width, 4, strides=2, padding="same", use_bias=False, **_he(seeds))(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Conv3D(1, 1, dtype="float32", **_he(seeds))(x)
    if 8 * start > side:
        x = layers.Cropping3D(((0, 8 * start - side),) * 3, dtype="float32")(x)
    return keras.Model(codes, x, name="vae_decoder")


def critic(latents: int, units: int, seeds: Iterator[int]) -> keras.Model:
    """The discriminator: codes (batch, latents) to the logit (batch, 1) that a sample is labelled; float32."""
    codes = x = keras.Input((latents,))
    for _ in range(2):
        x = layers.Dense(units, activation="relu", dtype="float32", **_he(seeds))(x)
    return keras.Model(codes, layers.Dense(1, dtype="float32", **_he(seeds))(x), name="critic")


def _he(seeds: Iterator[int]) -> dict[str, Any]:
    return {"kernel_initializer": keras.initializers.HeNormal(seed=next(seeds))}


class AdversarialAutoencoder(keras.Model):
    """Trains encoder and decoder; x is (labelled volumes, unlabelled volumes, [weights of the discriminator]).

    The discriminator's weights come with each batch because it learns elsewhere.
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        beta: float = 1.0,
        adversary: float = 1.0,
        reduction: str = "bound",
        seed: int = 0,
    ):
        super().__init__(dtype="float32")
        self.encoder, self.decoder = encoder, decoder
        self.beta, self.adversary, self.reduction = beta, adversary, reduction
        self.noise = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, x: Any, training: bool = False) -> list[Any]:
        """(rebuilt, mean, log variance) of the labelled and of the unlabelled volumes, each with its own statistics."""
        answers = []
        for volumes in x[:2]:
            mean, log_variance = self.encoder(volumes, training=training)
            draw = keras.random.normal(ops.shape(mean), seed=self.noise)
            rebuilt = self.decoder(mean + ops.exp(0.5 * log_variance) * draw, training=training)
            answers.append((rebuilt, mean, log_variance))
        return answers

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The autoencoder's line of the module's formula."""
        loss = 0.0
        for volumes, (rebuilt, mean, log_variance) in zip(x[:2], y_pred, strict=True):
            loss += vae_loss(volumes, rebuilt, mean, log_variance, self.beta, self.reduction)
            # BCE with the answer "labelled".
            loss += self.adversary * ops.mean(ops.softplus(-critic_logits(mean, x[2])))
        return loss


class VAAL(Strategy):
    """The likeliest to be unlabelled first; a score is minus the discriminator's logit. Nothing labelled: random, 0.

    Args:
        epochs: how often as many labelled and unlabelled volumes are shown as there are volumes, > 0 (published 100).
        batch_size: of each kind, >= 2.
        width: filters of the first convolution, >= 1 (published 128).
        latents: length of a code, >= 1.
        beta: weight of KL, >= 0.
        adversary: weight of the adversarial term, >= 0.
        reduction: "bound" or "sum" (published), see `vae_loss`.
        vae_steps: of the autoencoder, on a batch each, to one of the discriminator, >= 1.
        learning_rate: of Adam, for both, > 0.

    Raises:
        InputError: on any other value.
    """

    name = "vaal"

    def __init__(
        self,
        epochs: float = 20.0,
        batch_size: int = 32,
        width: int = 16,
        latents: int = 32,
        beta: float = 1.0,
        adversary: float = 1.0,
        reduction: str = "bound",
        vae_steps: int = 2,
        learning_rate: float = 5e-4,
    ):
        self.epochs = number(self.name, "epochs", epochs, lambda v: v > 0, "above 0")
        self.batch_size = whole(self.name, "batch_size", batch_size, 2)
        self.width = whole(self.name, "width", width)
        self.latents = whole(self.name, "latents", latents)
        self.beta = number(self.name, "beta", beta, lambda v: v >= 0, "0 or more")
        self.adversary = number(self.name, "adversary", adversary, lambda v: v >= 0, "0 or more")
        named = reduction in REDUCTIONS
        self.reduction = checked_option(self.name, "reduction", reduction, named, " or ".join(REDUCTIONS))
        self.vae_steps = whole(self.name, "vae_steps", vae_steps)
        self.learning_rate = number(self.name, "learning_rate", learning_rate, lambda v: v > 0, "above 0")

    def scores(self, known: Known) -> np.ndarray:
        if len(known.labelled) == 0:
            return np.zeros(len(known.unlabelled))
        encoder, judge = self.learn(known.labelled, known.unlabelled, known.seed)
        return -extract_features(keras.Model(encoder.input, judge(encoder.output[0])), known.unlabelled)[:, 0]

    def learn(self, labelled: Dataset, unlabelled: Dataset, seed: int) -> tuple[keras.Model, keras.Model]:
        """Encoder and discriminator, trained on these volumes; everything random is drawn by `seed`."""
        rng = np.random.default_rng(seed)
        seeds = iter(lambda: int(rng.integers(2**31)), None)
        encoder = vae_encoder(labelled.size, self.width, self.latents, seeds)
        decoder = vae_decoder(labelled.size, self.width, self.latents, seeds)
        judge = critic(self.latents, _CRITIC_UNITS, seeds)
        options = (self.beta, self.adversary, self.reduction, next(seeds))
        autoencoder = AdversarialAutoencoder(encoder, decoder, *options)
        autoencoder.compile(keras.optimizers.Adam(self.learning_rate), jit_compile=networks_on_xla())
        judged = keras.losses.BinaryCrossentropy(from_logits=True)
        judge.compile(keras.optimizers.Adam(self.learning_rate), judged, jit_compile=networks_on_xla())
        encoder.jit_compile = networks_on_xla()

        batch = self.batch_size
        kinds = [(kind, endless(len(kind), batch, rng)) for kind in (labelled, unlabelled)]
        answers = np.repeat([[1.0], [0.0]], batch, axis=0).astype(np.float32)
        steps = max(1, round(self.epochs * (len(labelled) + len(unlabelled)) / batch))
        for _ in tqdm(range(steps), desc="vaal", unit=" steps", leave=False, disable=None):
            for _ in range(self.vae_steps):
                volumes = [gather(kind, next(rows)) for kind, rows in kinds]
                autoencoder.train_on_batch((*volumes, judge.get_weights()))
            codes = encoder.predict_on_batch(np.concatenate(volumes))[0]
            judge.train_on_batch(codes, answers)
        return encoder, judge
