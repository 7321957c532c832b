"""The moving statistics of standardised features, measured on volumes as they are instead of on augmented ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from aitom_ssl import models
from aitom_ssl.data.batches import subsample
from aitom_ssl.evaluation.probes import extract_features

SAMPLES = 512


class FeatureStatistics(keras.callbacks.Callback):
    """Keeps the layer that standardises the features of `network` (see `models.standardized`) at those of `data`.

    In training the layer learns what augmented views look like. Features of plain volumes are elsewhere: with them a
    fine-tuned network answered at chance. `measure` sets mean and variance from up to `samples` volumes of `data`,
    drawn by `seed`; as a callback it does so at the end of the epochs (from 0) that `when` is true of.
    """

    def __init__(
        self,
        network: keras.Model,
        data: Any,
        seed: int,
        samples: int = SAMPLES,
        when: Callable[[int], bool] = lambda epoch: True,
    ):
        super().__init__()
        self.when = when
        self.layer = network.get_layer(models.STANDARDIZE_LAYER)
        self.bare = keras.Model(network.input, self.layer.input)
        self.data, self.rows = data, subsample(len(data), samples, seed)

    def measure(self) -> None:
        features = extract_features(self.bare, self.data, indices=self.rows)
        self.layer.moving_mean.assign(features.mean(axis=0))
        self.layer.moving_variance.assign(features.var(axis=0))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.when(epoch):
            self.measure()
