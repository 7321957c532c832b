"""Other people's files into datasets: MRC folders, AITom's layout, tomograms with coordinates."""

from aitom_ssl.data.importers.aitom import aitom_folders, aitom_particles, export_aitom
from aitom_ssl.data.importers.mrc_folder import folder_particles
from aitom_ssl.data.importers.particles import Particles, parse_splits, write_particles
from aitom_ssl.data.importers.star import read_star, write_star
from aitom_ssl.data.importers.tomogram import tomogram_particles

__all__ = [
    "Particles",
    "aitom_folders",
    "aitom_particles",
    "export_aitom",
    "folder_particles",
    "parse_splits",
    "read_star",
    "tomogram_particles",
    "write_particles",
    "write_star",
]
