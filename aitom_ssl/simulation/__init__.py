"""Simulated subtomograms: (parameters, split, index) -> one labelled sample. NumPy and SciPy only."""

from aitom_ssl.simulation.parameters import PRESETS, SNR_MODES, SimulationSpec
from aitom_ssl.simulation.simulator import Neighbor, Scene, Simulator, simulate
from aitom_ssl.simulation.tomogram import TomogramSpec

__all__ = ["PRESETS", "SNR_MODES", "Neighbor", "Scene", "SimulationSpec", "Simulator", "TomogramSpec", "simulate"]
