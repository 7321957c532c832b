"""MC-dropout (Gal 2017, arXiv 1703.02910): what the network answers with dropout left on, many times over.

With p_t the probabilities of pass t of T and p their mean, the score is the entropy H[p], or BALD, the mutual
information of the answer and the weights: H[p] - mean_t H[p_t] (Houlsby 2011). No diversity: the highest are taken.

Common codes call the network with training=True, which also feeds BatchNorm the batch's statistics and moves its
averages; here only dropout is on. Their T full passes are one pass of what lies before the first dropout that is active
and T of the rest. Every sample has masks of its own (differs from consistent MC-dropout, whose one mask for all makes
samples comparable jointly, which the highest T do not need).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

from aitom_ssl.active.strategy import Known, Strategy, checked_option, number, whole
from aitom_ssl.active.uncertainty import entropy
from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError

SCORES = ("entropy", "bald")
# Numbers that passes computed in one call may take at the entry of the part that is random: 64 MiB.
_NUMBERS = 2**24
_BATCH = 64


# === Pure functions ===


def bald(mean: np.ndarray, mean_entropy: np.ndarray) -> np.ndarray:
    """H[mean over passes of p] - mean over passes of H[p], of `mean` (n, C) and `mean_entropy` (n,): (n,), nats, >= 0.

    Rounding may leave -1e-16.
    """
    return entropy(mean) - mean_entropy


def passes_in_a_call(passes: int, numbers: int, limit: int) -> int:
    """The largest divisor of `passes` of which each takes `numbers` without going over `limit`; at least 1.

    A divisor, so that every call has the same shape and is traced once.
    """
    return max(d for d in range(1, passes + 1) if passes % d == 0 and (d == 1 or d * numbers <= limit))


# === The network, cut in two ===


def is_active(layer: keras.layers.Layer) -> bool:
    """Whether it is a layer of dropout, spatial ones included, that drops anything."""
    return isinstance(layer, layers.Dropout) and layer.rate > 0


class _AlwaysOn(layers.Layer):
    """A layer of dropout that drops in inference too, with a seed of its own."""

    def __init__(self, dropout: keras.layers.Layer, seed: int):
        super().__init__(name=dropout.name, dtype=dropout.dtype_policy)
        self.dropout = type(dropout).from_config({**dropout.get_config(), "seed": seed})

    def call(self, x: Any) -> Any:
        return self.dropout(x, training=True)


def cut_at_dropout(network: keras.Model, seed: int) -> tuple[keras.Model, keras.Model]:
    """`trunk`, volumes to one tensor or several, and `head`, those to probabilities, with shared weights.

    The trunk is all of `network` that no active dropout reaches, so computes the same each time; the head is the rest,
    whose dropout drops in inference, drawn by `seed`. InputError where no dropout is active.
    """
    random: set[int] = set()
    border: list[Any] = []
    for layer in network.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = keras.tree.flatten(layer.input)
        if is_active(layer) or any(id(tensor) in random for tensor in inputs):
            random.update(id(tensor) for tensor in keras.tree.flatten(layer.output))
            border += [tensor for tensor in inputs if id(tensor) not in random]
    if not random:
        raise InputError(
            f"The network {network.name} has no dropout, which MC-dropout needs: build it with one, or let the "
            "strategy's `prepare` put one before its last layer."
        )
    border = list({id(tensor): tensor for tensor in border}.values())
    seeds = iter(np.random.default_rng(seed).integers(2**31, size=len(network.layers)).tolist())
    head = keras.models.clone_model(
        keras.Model(border, network.output),
        clone_function=lambda layer: _AlwaysOn(layer, next(seeds)) if is_active(layer) else layer,
    )
    trunk = keras.Model(network.input, border)
    if keras.backend.backend() == "tensorflow":
        trunk.jit_compile = head.jit_compile = False
    return trunk, head


def dropout_moments(network: keras.Model, data: Any, passes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over `passes` of the probabilities, (n, C), and of their entropies, (n,), of the samples of a Dataset.

    Memory is that of a batch of volumes and of `_NUMBERS` numbers, whatever the number of passes.
    """
    trunk, head = cut_at_dropout(network, seed)
    batch = min(_BATCH, len(data))
    numbers = batch * sum(int(np.prod(tensor.shape[1:])) for tensor in trunk.outputs)
    copies = passes_in_a_call(passes, numbers, _NUMBERS)
    means, entropies = [], []
    starts = range(0, len(data), batch)
    for start in tqdm(starts, desc="mc_dropout", unit=" batches", leave=False, disable=None):
        # The last batch is filled up, for one of another size would be traced anew.
        rows = np.minimum(np.arange(start, start + batch), len(data) - 1)
        parts = trunk.predict_on_batch(gather(data, rows))
        entry = keras.tree.map_structure(lambda part: np.concatenate([part] * copies), parts)
        total, disorder = 0.0, 0.0
        for _ in range(passes // copies):
            answers = np.asarray(head.predict_on_batch(entry), np.float64).reshape(copies, batch, -1)
            total, disorder = total + answers.sum(axis=0), disorder + entropy(answers).sum(axis=0)
        means.append(total[: len(data) - start] / passes)
        entropies.append(disorder[: len(data) - start] / passes)
    return np.concatenate(means), np.concatenate(entropies)


class MCDropout(Strategy):
    """Highest entropy, or mutual information, of the answers with dropout first.

    Args:
        passes: T, >= 2 (50, as in modAL and in baal's tests).
        score: "entropy" or "bald".
        rate: of the dropout that `prepare` puts before the last layer of a network that has none, above 0, below 1.

    Raises:
        InputError: on any other value.
    """

    name = "mc_dropout"

    def __init__(self, passes: int = 50, score: str = "entropy", rate: float = 0.5):
        self.passes = whole(self.name, "passes", passes, 2)
        self.score = checked_option(self.name, "score", score, score in SCORES, " or ".join(SCORES))
        self.rate = number(self.name, "rate", rate, lambda v: 0 < v < 1, "above 0 and below 1")

    def prepare(self, network: keras.Model) -> keras.Model:
        if any(is_active(layer) for layer in network.layers):
            return network
        old = network.layers[-1]
        new = type(old).from_config(old.get_config())
        probabilities = new(layers.Dropout(self.rate, name="mc_dropout")(old.input))
        new.set_weights(old.get_weights())
        return keras.Model(network.input, probabilities, name=network.name)

    def scores(self, known: Known) -> np.ndarray:
        mean, mean_entropy = dropout_moments(known.network, known.unlabelled, self.passes, known.seed)
        return entropy(mean) if self.score == "entropy" else bald(mean, mean_entropy)
