"""Densities from atomic models: PDB and mmCIF files, gzipped or not, through gemmi.

The first model of the file, without waters and hydrogens and with one of each set of alternative positions, as
biological assembly 1. Differs from AITom and Situs, which read the coordinates as they stand in the file: the file of a
crystal structure often holds a half or a quarter of the complex, or two of them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import gemmi
import numpy as np
from scipy import fft

from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import sha256
from aitom_ssl.geometry import frequencies
from aitom_ssl.structures.density import (
    VOLUME_PER_DALTON,
    Density,
    box_side,
    check_sampling,
    finish,
    gaussian_sigma,
    splat,
)

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
WEIGHTS = ("Z", "mass", "number")
KERNELS = ("gaussian", "situs")
OVERSAMPLING = 4
LARGEST_FINE_SIDE = 400


@dataclass(frozen=True)
class Atoms:
    """What is kept of a file: (n, 3) x, y, z in A, (n,) atomic masses in Da, (n,) atomic numbers, and a remark."""

    positions: np.ndarray
    masses: np.ndarray
    numbers: np.ndarray
    note: str


def read_atoms(path: str | Path, assembly: str | None = "1") -> Atoms:
    """Atoms of one assembly of a PDB or mmCIF file.

    assembly: its name in the file; None takes the coordinates as they are. A file that describes no assembly at all is
    taken as it is, and `note` says so. Raises InputError for an unreadable file, one without atoms, and an assembly
    that the file does not have while it has others.
    """
    path = Path(path)
    try:
        structure = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Detect)
    except FileNotFoundError:
        raise InputError(f"There is no structure file {path}. Check the path.") from None
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        raise InputError(f"{path} is not a readable PDB or mmCIF file ({reason(error)}). Get the file again.") from None
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path} holds no atoms; expected a PDB or mmCIF model. Get the file again.")
    structure.setup_entities()
    model, note = structure[0], ""
    if assembly is not None:
        names = [a.name for a in structure.assemblies]
        if assembly in names:
            chosen = structure.assemblies[names.index(assembly)]
            try:
                model = gemmi.make_assembly(chosen, model, gemmi.HowToNameCopiedChain.Dup)
                if model.count_atom_sites() == 0:
                    raise RuntimeError("its chains or operators are missing")
            except RuntimeError as error:
                raise InputError(f"{path}: assembly {assembly!r} cannot be built ({error}). Take None.") from None
        elif names:
            raise InputError(f"{path} has no assembly {assembly!r}; it has {', '.join(names)}. Take one, or None.")
        else:
            note = "the file describes no assembly: taken as deposited"
    # After the assembly: its description names the chains of waters too.
    model.remove_alternative_conformations()
    model.remove_waters()
    model.remove_hydrogens()
    sites = [atom for chain in model for residue in chain for atom in residue]
    positions = np.array([atom.pos.tolist() for atom in sites], dtype=np.float64).reshape(-1, 3)
    if len(positions) == 0 or not np.isfinite(positions).all():
        raise InputError(
            f"{path} holds no usable atoms besides water (expected finite coordinates). Get the file again."
        )
    elements = np.array([atom.element.atomic_number for atom in sites])
    weight_of = np.array([gemmi.Element(number).weight for number in range(elements.max() + 1)])
    masses, numbers = weight_of[elements], elements.astype(np.float64)
    if numbers.sum() <= 0:
        raise InputError(f"{path} names no chemical elements, so its atoms have no mass. Get the file again.")
    return Atoms(positions, masses, numbers, note)


def rasterise(
    positions: np.ndarray, weights: np.ndarray, side: int, voxel_size: float, resolution: float
) -> np.ndarray:
    """Weighted points as a blurred map whose sum is the sum of the weights.

    positions: (n, 3) x, y, z in A from the centre voxel. The points are spread over a grid finer by OVERSAMPLING, its
    transform is multiplied by exp(-2 pi^2 sigma^2 q^2), sigma = gaussian_sigma(resolution), and cropped to the
    frequencies of the coarse grid, its (sign-ambiguous) Nyquist planes left out. Returns (side, side, side) float64.
    """
    # Memory bounds the finer grid of very large structures; the blur hides the rest.
    fine = max(1, min(OVERSAMPLING, LARGEST_FINE_SIDE // side))
    grid = splat(positions, weights, side * fine, voxel_size / fine)
    # Both centres are at half the side, so their phases, (-1)^k, are the same and need no shift.
    half = side // 2
    spectrum = fft.rfftn(grid.astype(np.float32))
    keep = np.r_[0:half, side * fine - half : side * fine]
    spectrum = spectrum[keep][:, keep][:, :, : half + 1].astype(np.complex128)
    spectrum[half] = spectrum[:, half] = spectrum[:, :, half] = 0.0
    sigma = gaussian_sigma(resolution)
    for k in frequencies((side, side, side), voxel_size, half_axis=2):
        spectrum *= np.exp(-2.0 * (np.pi * sigma * k) ** 2)
    return fft.irfftn(spectrum, (side, side, side))


@dataclass(frozen=True)
class AtomicStructure:
    """A PDB or mmCIF file as a structure.

    path: .pdb, .ent, .cif or .mmcif, gzipped or not. assembly: biological assembly by name, None for the file as it is.
    weight: what an atom counts: "Z" its atomic number (close to its electron scattering), "mass" (as pdb2vol) or
    "number" (1). kernel: "gaussian", or "situs" for pdb2vol's rule: where 0.34 * resolution, the half-maximum radius,
    is below one voxel, the atoms are spread over the voxel grid and not blurred at all.

    The mass is that of the atoms in the file; hydrogens, dropped where the file has any, would add about 7 %.
    """

    path: Path
    assembly: str | None = "1"
    weight: str = "Z"
    kernel: str = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if self.weight not in WEIGHTS:
            raise InputError(f"weight must be one of {', '.join(WEIGHTS)}. Received: weight={self.weight!r}.")
        if self.kernel not in KERNELS:
            raise InputError(f"kernel must be one of {', '.join(KERNELS)}. Received: kernel={self.kernel!r}.")
        if not self.path.is_file():
            raise InputError(f"There is no structure file {self.path}. Check the path.")

    @property
    def name(self) -> str:
        """The file's name without its suffixes."""
        return self.path.name.split(".")[0]

    @cached_property
    def atoms(self) -> Atoms:
        """The atoms, read at the first use."""
        return read_atoms(self.path, self.assembly)

    @property
    def note(self) -> str:
        """A remark on how the file was taken, or ''."""
        return self.atoms.note

    @property
    def mass(self) -> float:
        """Da."""
        return float(self.atoms.masses.sum())

    def density(self, voxel_size: float, resolution: float | None = None) -> Density:
        """The map at `voxel_size` (A), blurred to `resolution` (A), centred on the centre of mass."""
        voxel_size, resolution = check_sampling(voxel_size, resolution)
        atoms = self.atoms
        positions = atoms.positions - np.average(atoms.positions, axis=0, weights=atoms.masses)
        weights = {"Z": atoms.numbers, "mass": atoms.masses, "number": np.ones(len(positions))}[self.weight]
        reach = math.sqrt((positions**2).sum(axis=1).max())
        if self.kernel == "situs" and 0.34 * resolution < voxel_size:
            volume = splat(positions, weights, box_side(2.0 * reach, voxel_size, self.name), voxel_size)
        else:
            # Room for the blur where it is wider than the margin, so that the periodic transform does not wrap it.
            blur = max(0.0, 3.0 * gaussian_sigma(resolution) - 2.0 * voxel_size)
            side = box_side(2.0 * (reach + blur), voxel_size, self.name)
            volume = rasterise(positions, weights, side, voxel_size, resolution)
        return finish(volume, voxel_size, self.mass, VOLUME_PER_DALTON * self.mass)

    def fingerprint(self) -> str:
        """Digest of the file's bytes and of the options; the file's name and place do not matter."""
        text = f"atomic {sha256(self.path)} {self.assembly} {self.weight} {self.kernel}"
        return hashlib.sha256(text.encode()).hexdigest()
