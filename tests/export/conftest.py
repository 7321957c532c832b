"""One small classifier and one small encoder, exported once for all tests of this room."""

import numpy as np
import pytest
from small_network import NAMES, SIZE, small_network

from aitom_ssl.export import export_savedmodel
from aitom_ssl.models import ModelDescription


@pytest.fixture(scope="session")
def description():
    return ModelDescription("small", NAMES, SIZE, 13.48, "bright")


@pytest.fixture(scope="session")
def classifier():
    return small_network()


@pytest.fixture(scope="session")
def encoder():
    return small_network(classes=0)


@pytest.fixture(scope="session")
def served(classifier, description, tmp_path_factory):
    """The version folder of the exported classifier."""
    return export_savedmodel(classifier, tmp_path_factory.mktemp("models") / "small", description)


@pytest.fixture(scope="session")
def served_encoder(encoder, tmp_path_factory):
    described = ModelDescription("small", (), SIZE, None, None)
    return export_savedmodel(encoder, tmp_path_factory.mktemp("models") / "encoder", described)


@pytest.fixture(scope="session")
def volumes():
    """(5, z, y, x) float32: neither mean nor scale is standard, and no axis is like another."""
    return np.random.default_rng(7).normal(100, 20, (5, SIZE, SIZE, SIZE)).astype(np.float32)
