"""One small classifier and one small encoder, exported once for all tests of this room; AITom's networks as files."""

import shutil

import numpy as np
import pytest
from small_network import NAMES, SIZE, small_network

from aitom_ssl import models
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


# === AITom's networks; tf-keras is loaded when they are asked for ===


@pytest.fixture(scope="session")
def legacy_files(tmp_path_factory):
    """(architecture, size) to a folder of files, made when first asked for."""
    from small_legacy import CLASSES, save

    from aitom_ssl.export.compare_legacy import legacy_network

    folder, made = tmp_path_factory.mktemp("legacy"), {}

    def of(architecture, size):
        if (architecture, size) not in made:
            network = legacy_network(architecture, size, CLASSES)
            made[architecture, size] = save(network, folder / f"{architecture}{size}")
        return made[architecture, size]

    yield of
    shutil.rmtree(folder)  # RB3D's files are 72 MB each


@pytest.fixture(scope="session")
def twins():
    """(architecture, size) to our network, one for all tests: each fills it anew."""
    from small_legacy import CLASSES

    made = {}

    def of(architecture, size=16):
        if (architecture, size) not in made:
            made[architecture, size] = models.get(architecture)((size,) * 3 + (1,), CLASSES)
            made[architecture, size].jit_compile = False
        return made[architecture, size]

    return of


@pytest.fixture
def inception(legacy_files):
    """The folder of Inception3D's files at 16^3."""
    return legacy_files("inception3d", 16)
