"""A support set as a COS-Net sees it: features and masks of the examples, and what their similarities mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aitom_ssl.data.sources import Source
from aitom_ssl.export.feed import Feed
from aitom_ssl.export.masks import Segmenter
from aitom_ssl.oneshot.calibration import Calibration, calibrate, class_logits
from aitom_ssl.oneshot.crf import CrfParameters
from aitom_ssl.oneshot.trained import TrainedCOSNet


class Support(NamedTuple):
    """A support set that the network has seen."""

    class_names: list[str]
    labels: np.ndarray  # (n,)
    volumes: np.ndarray  # (n, z, y, x) float32, standardised, in the network's box and contrast
    features: np.ndarray  # (n, d)
    masks: np.ndarray | None  # (n, z, y, x) bool
    calibration: Calibration

    def scores(self, network: TrainedCOSNet, features: np.ndarray) -> np.ndarray:
        """(targets, classes) float32 scores of the features (targets, d) of other volumes."""
        logits = network.similarity(features, self.features)
        return self.calibration.curve(class_logits(logits, self.labels, len(self.class_names)))


def learn_support(network: TrainedCOSNet, examples: Source, field: CrfParameters | None) -> Support:
    """Features, masks and calibration of the examples. InputError naming one that is damaged."""
    feed = Feed(examples, network.description.size, network.description.contrast, skip_damaged=False)
    volumes = feed.batch(np.arange(len(examples))).volumes
    masks = None
    if network.has_masks:
        features, masks, _ = Segmenter(network, field, network.description.size)(volumes)
    else:
        features, _ = network(volumes, standardized=True)

    def described(views: np.ndarray) -> np.ndarray:
        return network(views, standardized=True)[0]

    calibration = calibrate(volumes, examples.labels, features, described, network.similarity)
    return Support(list(examples.class_names), examples.labels, volumes, features, masks, calibration)
