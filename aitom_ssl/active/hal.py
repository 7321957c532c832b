"""HAL (Du 2021, Bioinformatics 37, 2340; arXiv 2102.12040): uncertain samples that also look unlabelled, bit by bit.

A small CNN learns to tell, from the task network's deepest 3-D feature map, the pool (1) from the labelled samples (0).
A part of the budget goes to the highest

    P(in the pool) + entropy_weight * H(p),    p the task's probabilities, H their entropy in nats

those count as labelled, the CNN is trained from scratch, and so on until the budget is spent: a part does not choose
what the last one did. The abstract of the paper describes this; the formula is that of the published code, whose text
beyond the abstract we have not seen.

The published code does not run (its query method is never built, the number of parts is a flag that does not exist).
Where we differ from what it means to do:
- Its class weights are counted on one-hot labels, which makes them 1 and 1, so that with one labelled sample in twelve
  "all unlabelled" has an accuracy of 0.92. `balanced`, our default, gives both classes the same say, in the loss and in
  the accuracy that ends the training; `balanced=False` is its effect.
- Its layer 'mark' is the last max-pool of its network, the deepest map there; networks of ours may have none so deep,
  so it is the deepest map of whichever. A map with sides above 4 is averaged down to 4 or less, for memory.
- Its CNN: convolutions of 128 and 64, three FC-256, RMSprop 3e-4, batch 32, up to 300 epochs. Ours is `width`, `width`
  / 2 and 2 `width`, with Adam (which it has for its other sizes of map): `width=128, epochs=300` is as published.
- Its CNN starts from other weights for each part, ours from the same.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

from aitom_ssl.active.strategy import (
    Known,
    Selection,
    Strategy,
    check_budget,
    feature_maps,
    highest,
    number,
    whole,
    yes_or_no,
)
from aitom_ssl.active.uncertainty import entropy
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.training.compiled import networks_on_xla

_SIDE = 4
_GOOD_ENOUGH = 0.98


# === Pure functions ===


def sample_weights(in_pool: np.ndarray, balanced: bool) -> np.ndarray:
    """(n,) float32 weights with a mean of 1 of samples that are in the pool (1) or labelled (0); both classes occur."""
    share = in_pool.mean()
    weights = np.where(in_pool == 1, 0.5 / share, 0.5 / (1 - share)) if balanced else np.ones(len(in_pool))
    return weights.astype(np.float32)


def parts_of(budget: int, parts: int) -> list[int]:
    """`budget` >= 1 in up to `parts` parts that differ by 1 at most, none of them empty."""
    return [len(part) for part in np.array_split(np.arange(budget), min(parts, budget))]


# === The discriminator ===


def deepest_maps(network: keras.Model) -> keras.Model:
    """(batch, z, y, x, 1) to the last feature map of `network`, sides averaged to 4 or less, flattened.

    `.map_shape` is (z, y, x, channels). InputError where there is no map.
    """
    maps = feature_maps(network)
    if not maps:
        raise InputError(f"hal: the network {network.name} has no 3-D feature maps, which its discriminator works on.")
    x = maps[-1].output
    windows = [math.ceil(side / _SIDE) for side in x.shape[1:4]]
    x = layers.AveragePooling3D(windows, padding="same", dtype="float32")(x)
    model = keras.Model(network.input, layers.Flatten(dtype="float32")(x))
    model.map_shape = tuple(x.shape[1:])
    return model


class Discriminator:
    """A CNN on maps that can be trained from scratch again and again without being built anew.

    Args:
        shape: of a map, (z, y, x, channels).
        width: filters of the first convolution.
        epochs: at most; training ends sooner with an accuracy above 0.98.
        balanced: see `sample_weights`.
        batch_size: at most.
        rng: draws initial weights and the order of batches.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        epochs: int,
        balanced: bool,
        batch_size: int,
        rng: np.random.Generator,
    ):
        self.epochs, self.balanced, self.batch_size, self.rng = epochs, balanced, batch_size, rng
        self.network = _network(shape, width, rng)
        self.network.compile(
            keras.optimizers.Adam(3e-4),
            keras.losses.BinaryCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
            jit_compile=networks_on_xla(),
        )
        self.network.optimizer.build(self.network.trainable_variables)
        variables = [*self.network.variables, *self.network.optimizer.variables]
        self._start = [(variable, keras.ops.convert_to_numpy(variable)) for variable in variables]

    def train(self, maps: np.ndarray, in_pool: np.ndarray) -> None:
        """From scratch on `maps` (n, ...) and `in_pool` (n,) of 0 and 1."""
        for variable, value in self._start:
            variable.assign(value)
        targets, weights = in_pool.astype(np.float32)[:, None], sample_weights(in_pool, self.balanced)
        batch = min(self.batch_size, len(maps))
        for _ in tqdm(range(self.epochs), desc="hal", unit=" epochs", leave=False, disable=None):
            right = total = 0.0
            order = self.rng.permutation(len(maps))
            # What is left over is in another batch next time.
            for start in range(0, len(maps) - batch + 1, batch):
                rows = order[start : start + batch]
                logs = self.network.train_on_batch(maps[rows], targets[rows], weights[rows], return_dict=True)
                right += logs["accuracy"] * weights[rows].sum()
                total += weights[rows].sum()
            if right > _GOOD_ENOUGH * total:
                return

    def in_pool(self, maps: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """(n,) float64 probability that a map is of the pool."""
        shown = [self.network.predict_on_batch(maps[i : i + batch_size])[:, 0] for i in range(0, len(maps), batch_size)]
        return 1 / (1 + np.exp(-np.concatenate(shown).astype(np.float64)))


def _network(shape: tuple[int, ...], width: int, rng: np.random.Generator) -> keras.Model:
    def drawn() -> dict[str, Any]:
        seed = int(rng.integers(2**31))
        return {"kernel_initializer": keras.initializers.HeUniform(seed=seed), "dtype": "float32"}

    maps = x = keras.Input(shape)
    for filters in (width, max(width // 2, 1)):
        x = layers.Conv3D(filters, 3, padding="same", activation="relu", **drawn())(x)
        x = layers.MaxPooling3D(2, strides=1, padding="same", dtype="float32")(x)
    x = layers.Flatten(dtype="float32")(x)
    for _ in range(3):
        x = layers.Dense(2 * width, activation="relu", **drawn())(x)
    return keras.Model(maps, layers.Dense(1, **drawn())(x), name="hal_discriminator")


class HAL(Strategy):
    """Highest sum of "looks unlabelled" and uncertainty, in parts; a score is that sum when the sample was chosen.

    With nothing labelled, the first part goes by uncertainty alone.

    Args:
        parts: of the budget, >= 1, between which the discriminator learns anew.
        entropy_weight: >= 0 (published 1).
        candidates: how many samples of the pool, drawn at random for each part, are considered for one labelled, >= 1
            (published 100).
        balanced: whether both classes weigh the same, see above.
        width: of the discriminator, >= 1 (published 128).
        epochs: of the discriminator, at most, >= 1 (published 300).
        batch_size: of the discriminator, at most, >= 1 (published 32).

    Raises:
        InputError: on any other value.
    """

    name = "hal"

    def __init__(
        self,
        parts: int = 4,
        entropy_weight: float = 1.0,
        candidates: int = 100,
        balanced: bool = True,
        width: int = 32,
        epochs: int = 30,
        batch_size: int = 32,
    ):
        self.parts = whole(self.name, "parts", parts)
        self.entropy_weight = number(self.name, "entropy_weight", entropy_weight, lambda v: v >= 0, "0 or more")
        self.candidates = whole(self.name, "candidates", candidates)
        self.balanced = yes_or_no(self.name, "balanced", balanced)
        self.width = whole(self.name, "width", width)
        self.epochs = whole(self.name, "epochs", epochs)
        self.batch_size = whole(self.name, "batch_size", batch_size)

    def select(self, known: Known, budget: int) -> Selection:
        check_budget(budget, known)
        rng = np.random.default_rng(known.seed)
        embed = deepest_maps(known.network)
        # The pool first: a sample's position there is its position here.
        blocks = [extract_features(embed, known.unlabelled)]
        if len(known.labelled):
            blocks.append(extract_features(embed, known.labelled))
        maps = np.concatenate(blocks).reshape(-1, *embed.map_shape)
        uncertain = self.entropy_weight * entropy(known.probabilities)
        options = (self.width, self.epochs, self.balanced, self.batch_size)
        discriminator = Discriminator(embed.map_shape, *options, rng)

        pool = np.arange(len(known.unlabelled))
        labelled = np.arange(len(pool), len(maps))
        chosen, scores = [], []
        for part in parts_of(budget, self.parts):
            count = max(part, self.candidates * len(labelled)) if len(labelled) else len(pool)
            considered = rng.permutation(pool)[:count]
            looks = np.ones(len(considered))
            if len(labelled):
                rows = np.concatenate([labelled, considered])
                discriminator.train(maps[rows], np.repeat([0, 1], [len(labelled), len(considered)]))
                looks = discriminator.in_pool(maps[considered])
            best = highest(looks + uncertain[considered], part, known.seed)
            taken = considered[best.indices]
            chosen.append(taken)
            scores.append(best.scores)
            labelled, pool = np.concatenate([labelled, taken]), np.setdiff1d(pool, taken)
        return Selection(np.concatenate(chosen).astype(np.int64), np.concatenate(scores))
