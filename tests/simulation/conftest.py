"""Simulators shared by the tests of this folder: their set-up is paid once a session."""

import numpy as np
import pytest

from aitom_ssl.simulation import SimulationSpec, Simulator

CLASSES = ("proteasome_20s", "groel", "ribosome_70s", "apoferritin")


@pytest.fixture(scope="session")
def simulator():
    """simulator(preset="default", **parameters) -> Simulator, the same one for the same parameters."""
    made = {}

    def get(preset="default", **parameters):
        spec = SimulationSpec.from_preset(preset, **{"classes": CLASSES, "normalize": "none", **parameters})
        if spec not in made:
            made[spec] = Simulator(spec)
        return made[spec]

    return get


@pytest.fixture(scope="session")
def exact_density():
    """exact_density(model, n, shift=(0, 0, 0)) -> (n, n, n): a built-in model on 10 A voxels, moved by shift voxels."""

    def sample(model, n, shift=(0.0, 0.0, 0.0)):
        offset = np.arange(n) - n // 2
        # A Gaussian is a product of three.
        away = (offset - np.asarray(shift)[:, None, None]) * 10.0 - model.positions.T[:, :, None]
        x, y, z = np.exp(-np.square(away) / (2 * model.sigmas[:, None] ** 2))
        peaks = model.weights * (2 * np.pi * model.sigmas**2) ** -1.5
        return np.einsum("gz,gy,gx->zyx", z * peaks[:, None], y, x, optimize=True)

    return sample
