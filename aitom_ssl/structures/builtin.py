"""Analytic models of macromolecules: sums of isotropic three-dimensional Gaussians under point groups.

They need no download, and their density and Fourier transform are known exactly, at any rotation. Each is designed by
hand after the size, shape, symmetry and mass of a well-known complex; none is a fit to coordinates. Some differ from
another one by their symmetry alone, or by one subunit or one moved domain: what a classifier is to be tried on.

A model is built of balls (x, y, z, r): solid spheres of protein of radius r, in A, each standing for the Gaussian of
the same mass and the same second moment (sigma = r / sqrt 5). All radii of a model are scaled by one factor so that the
balls hold VOLUME_PER_DALTON times its stated mass. The symmetry axis is z, D groups have a two-fold axis along x, and
the centre of mass is the origin.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from aitom_ssl.errors import InputError, near
from aitom_ssl.structures.density import (
    VOLUME_PER_DALTON,
    Density,
    box_side,
    check_sampling,
    finish,
    gaussian_sigma,
    offsets,
)

# === The building blocks: each returns (n, 4) rows x, y, z, r in A ===

SPACING = 4.0 / 3.0
"""Distance, in radii, of balls that hold together the volume of a cylinder of that radius."""

GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0

CORNERS = {
    "T": ((1, 1, 1), (1, 1, -1), (1, 0, 0)),  # three-fold, the other three-fold, two-fold axis
    "O": ((1, 0, 0), (1, 1, 1), (1, 1, 0)),  # four-fold, three-fold, two-fold axis
    "I": ((GOLDEN, 0, 1), (2 * GOLDEN + 1, GOLDEN, 0), (1, 0, 0)),  # five-fold, three-fold, two-fold axis
}
"""Neighbouring symmetry axes of the cubic groups, as scipy orients them: a point between them is away from all axes."""


def symmetry_rotations(group: str) -> np.ndarray:
    """(order, 3, 3) rotations of a point group: "C1", "C7", "D2", "T", "O", "I", ..."""
    return Rotation.create_group(group).as_matrix()


def ball(x: float, y: float, z: float, r: float) -> np.ndarray:
    """One ball."""
    return np.array([[x, y, z, r]], dtype=np.float64)


def cyl(rho: float, phi: float, z: float, r: float) -> np.ndarray:
    """One ball at distance `rho` from the z axis and angle `phi` in degrees."""
    return ball(rho * math.cos(math.radians(phi)), rho * math.sin(math.radians(phi)), z, r)


def on(group: str, a: float, b: float, c: float, radius: float) -> tuple[float, float, float]:
    """The point at `radius` A between the axes CORNERS[group], weighted a, b, c."""
    axes = np.array([np.array(v) / np.linalg.norm(v) for v in CORNERS[group]])
    direction = np.array([a, b, c]) @ axes
    return tuple(radius * direction / np.linalg.norm(direction))


def rod(start: tuple, end: tuple, r: float) -> np.ndarray:
    """A straight rod of balls from `start` to `end`."""
    start, end = np.array(start, dtype=np.float64), np.array(end, dtype=np.float64)
    t = np.linspace(0.0, 1.0, max(2, math.ceil(np.linalg.norm(end - start) / (SPACING * r)) + 1))[:, None]
    return np.hstack([start + t * (end - start), np.full((len(t), 1), r)])


def arc(rho: float, phi: tuple, z: tuple, r: float) -> np.ndarray:
    """A helical arc about z, from angle phi[0] to phi[1] (degrees) and height z[0] to z[1]."""
    length = math.hypot(math.radians(phi[1] - phi[0]) * rho, z[1] - z[0])
    t = np.linspace(0.0, 1.0, max(2, math.ceil(length / (SPACING * r)) + 1))
    angle = np.radians(phi[0] + t * (phi[1] - phi[0]))
    columns = [rho * np.cos(angle), rho * np.sin(angle), z[0] + t * (z[1] - z[0]), np.full(len(t), r)]
    return np.stack(columns, axis=1)


def blob(at: tuple, semiaxes: tuple, r: float = 12.0, turn: float = 0.0, tilt: float = 0.0) -> np.ndarray:
    """An ellipsoid filled with balls of uneven radii about r, tilted about y and then turned about z (degrees).

    The lattice is bent and the radii vary as fixed functions of the place in it: surface and inside have some grain.
    """
    spacing = 1.8 * r / math.sqrt(2.0)  # balls 1.8 r apart hold the ellipsoid's volume
    count = math.ceil(max(semiaxes) / spacing) + 1
    lattice = np.stack(np.meshgrid(*[np.arange(-count, count + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    lattice = lattice[lattice.sum(axis=1) % 2 == 0]  # face-centred cubic
    bend = 0.3 * np.sin(lattice @ np.array([[1.7, 2.9, 0.6], [0.8, 1.3, 2.3], [2.6, 0.7, 1.9]]))
    points = (lattice + bend + np.array([0.31, 0.17, 0.23])) * spacing
    reach = np.maximum(np.array(semiaxes) - 0.35 * r, 0.5 * r)
    inside = ((points / reach) ** 2).sum(axis=1) <= 1.0
    points, lattice = points[inside], lattice[inside]
    radii = r * (1.0 + 0.3 * np.sin(lattice @ np.array([1.9, 3.1, 4.7])))
    rotation = Rotation.from_euler("yz", [tilt, turn], degrees=True).as_matrix()
    return np.column_stack([points @ rotation.T + np.array(at), radii])


def part(group: str, *rows: np.ndarray) -> np.ndarray:
    """All copies of `rows` under a point group."""
    unit = np.concatenate(rows)
    return np.concatenate([np.column_stack([unit[:, :3] @ m.T, unit[:, 3]]) for m in symmetry_rotations(group)])


def moved(rows: np.ndarray, by: tuple = (0, 0, 0), turn: float = 0.0, tilt: float = 0.0) -> np.ndarray:
    """`rows` tilted about y, turned about z (degrees), then moved."""
    rotation = Rotation.from_euler("yz", [tilt, turn], degrees=True).as_matrix()
    return np.column_stack([rows[:, :3] @ rotation.T + np.array(by), rows[:, 3]])


def flipped(rows: np.ndarray) -> np.ndarray:
    """`rows` turned by 180 degrees about x."""
    return rows * np.array([1, -1, -1, 1])


def helix(count: int, twist: float, rise: float, *rows: np.ndarray) -> np.ndarray:
    """`count` copies of `rows`, each turned by `twist` degrees and raised by `rise` A from the one before."""
    unit = np.concatenate(rows)
    return np.concatenate([moved(unit, (0, 0, i * rise), turn=i * twist) for i in range(count)])


# === The structure ===


@dataclass(frozen=True, eq=False)
class BuiltinStructure:
    """A sum of Gaussians: density(x) = sum_i weights_i N(x; positions_i, sigmas_i^2), in Da/A^3.

    positions: (n, 3) x, y, z in A about the centre of mass. weights: (n,) Da. sigmas: (n,) A.
    symmetry: point group under which the model is invariant.
    """

    name: str
    symmetry: str
    description: str
    positions: np.ndarray
    weights: np.ndarray
    sigmas: np.ndarray

    @property
    def mass(self) -> float:
        """Da."""
        return float(self.weights.sum())

    def blurred(self, resolution: float) -> BuiltinStructure:
        """The same model at `resolution` (A): Gaussians convolved with a Gaussian are Gaussians."""
        return dataclasses.replace(self, sigmas=np.sqrt(self.sigmas**2 + gaussian_sigma(resolution) ** 2))

    def rotated(self, matrix: np.ndarray) -> BuiltinStructure:
        """The same model turned by a (3, 3) matrix on (x, y, z) columns."""
        return dataclasses.replace(self, positions=self.positions @ np.asarray(matrix, dtype=np.float64).T)

    def density_at(self, points: np.ndarray) -> np.ndarray:
        """Exact density in Da/A^3 at (..., 3) points x, y, z in A."""
        points = np.asarray(points, dtype=np.float64)
        total = np.zeros(points.shape[:-1])
        for position, weight, sigma in zip(self.positions, self.weights, self.sigmas, strict=True):
            squared = ((points - position) ** 2).sum(axis=-1)
            total += weight * (2.0 * np.pi * sigma**2) ** -1.5 * np.exp(-squared / (2.0 * sigma**2))
        return total

    def fourier_at(self, frequencies: np.ndarray) -> np.ndarray:
        """Exact transform, integral of density(x) exp(-2 pi i q.x) dx, at (..., 3) frequencies x, y, z in 1/A."""
        frequencies = np.asarray(frequencies, dtype=np.float64)
        squared = (frequencies**2).sum(axis=-1)
        total = np.zeros(frequencies.shape[:-1], dtype=np.complex128)
        for position, weight, sigma in zip(self.positions, self.weights, self.sigmas, strict=True):
            total += weight * np.exp(-2.0 * np.pi * (np.pi * sigma**2 * squared + 1j * (frequencies @ position)))
        return total

    def density(self, voxel_size: float, resolution: float | None = None) -> Density:
        """The density at the voxels' centres, scaled to unit peak.

        The cube reaches 2.5 sigma beyond the centres of the outermost Gaussians, and MARGIN voxels beyond that.
        """
        voxel_size, resolution = check_sampling(voxel_size, resolution)
        model = self.blurred(resolution)
        reach = (np.linalg.norm(model.positions, axis=1) + 2.5 * model.sigmas).max()
        grid = offsets(box_side(2.0 * reach, voxel_size, self.name), voxel_size)
        # A Gaussian is a product of three: (n, side) factors, summed over n by one matrix product.
        x, y, z = np.exp(-((grid - model.positions.T[:, :, None]) ** 2) / (2.0 * model.sigmas[:, None] ** 2))
        peaks = model.weights * (2.0 * np.pi * model.sigmas**2) ** -1.5
        planes = (y[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        volume = ((z * peaks[:, None]).T @ planes).reshape([len(grid)] * 3)
        return finish(volume, voxel_size, self.mass)

    def fingerprint(self) -> str:
        """Digest of the Gaussians, rounded to what all machines compute alike."""
        table = np.column_stack([self.positions, self.weights, self.sigmas])
        # + 0.0 makes -0 into 0
        text = "\n".join(" ".join(f"{value:.2f}" for value in row) for row in np.round(table, 2) + 0.0)
        return hashlib.sha256(f"builtin\n{text}".encode()).hexdigest()


# === The models ===


@dataclass(frozen=True, eq=False)
class Model:
    """One row of the table: point group, mass in kDa, what it is after, and its balls."""

    symmetry: str
    kilodaltons: float
    description: str
    balls: np.ndarray

    def __init__(self, symmetry: str, kilodaltons: float, description: str, *balls: np.ndarray) -> None:
        object.__setattr__(self, "symmetry", symmetry)
        object.__setattr__(self, "kilodaltons", kilodaltons)
        object.__setattr__(self, "description", description)
        object.__setattr__(self, "balls", np.concatenate(balls))


def _proteasome_20s(fold: int) -> np.ndarray:
    step = 360.0 / fold
    alpha = [cyl(38, 0, 57, 14), cyl(47, 0.25 * step, 50, 11), cyl(29, -0.2 * step, 64, 9), cyl(40, 0.1 * step, 70, 8)]
    beta = [cyl(37, 0.45 * step, 22, 14), cyl(46, 0.65 * step, 29, 11), cyl(31, 0.2 * step, 13, 10)]
    return part(f"D{fold}", *alpha, *beta)


def _glutamine_synthetase(fold: int, rho: float) -> np.ndarray:
    step = 360.0 / fold
    unit = [(0, 0, 22, 17), (-14, 0.4, 15, 12), (14, 0.2, 27, 11), (4, -0.35, 38, 9), (-24, 0.1, 32, 8)]
    return part(f"D{fold}", *[cyl(rho + out, turn * step, z, r) for out, turn, z, r in unit])


def _hemolysin(fold: int, rho: float) -> np.ndarray:
    step = 360.0 / fold
    cap = [cyl(rho + 12, 0, 25, 13), cyl(rho + 20, 0.4 * step, 8, 11), cyl(rho + 2, 0.3 * step, 42, 10)]
    stem = rod(tuple(cyl(rho - 9, 0.1 * step, -5, 1)[0, :3]), tuple(cyl(rho - 9, 0.9 * step, -50, 1)[0, :3]), 7)
    return part(f"C{fold}", *cap, stem)


def _tubulin_ring(protofilaments: int) -> np.ndarray:
    step, rho = 360.0 / protofilaments, 8.45 * protofilaments
    dimer = [
        cyl(rho, 0, 0, 20),
        cyl(rho, 4, 40, 20),
        cyl(rho + 14, 0.25 * step, 8, 12),
        cyl(rho + 14, 0.4 * step, 46, 11),
    ]
    return part(f"C{protofilaments}", *dimer)


def _cage(group: str, radius: float, r: float) -> np.ndarray:
    hub, joint = on(group, 0.06, 1, 0.1, radius), on(group, 0.12, 0.25, 1, 0.93 * radius)
    return part(group, ball(*hub, 1.15 * r), rod(hub, joint, r), ball(*on(group, 0.3, 1, 0.3, 0.78 * radius), 0.9 * r))


def _tric() -> np.ndarray:
    ring = []
    for i, grow in enumerate([0, 3, -3, 6, 1, -6, 4, -2]):
        body = [cyl(46, 0, 15, 17), cyl(60, 10, 30, 13), cyl(64 + grow, 22, 50, 12)]
        lid = [cyl(58 + grow, 12, 66 + grow, 13), cyl(50 - grow, 0, 78 + 2 * grow, 9 + grow / 3)]
        ring.append(moved(np.concatenate(body + lid), turn=11 + 45 * i))
    upper = np.concatenate(ring)
    return moved(np.concatenate([upper, flipped(upper)]), tilt=-90)  # its two-fold axis from x to z


GROEL_RING = [cyl(43, 0, 16, 17), cyl(53, 14, 26, 13), cyl(55, 24, 42, 11), cyl(49, 6, 59, 15), cyl(35, -10, 66, 10)]
GROEL_CIS = [cyl(43, 0, 16, 17), cyl(53, 14, 26, 13), cyl(54, 30, 46, 11), cyl(48, 44, 70, 15), cyl(40, 24, 86, 11)]
GROES = [cyl(35, 12, 104, 12), cyl(24, -14, 114, 10), cyl(11, 8, 121, 8)]
PA28 = [cyl(32, 6, 92, 12), cyl(37, 22, 106, 11), cyl(31, 34, 122, 11), cyl(22, 10, 112, 8)]
CAP_19S = [
    part("C6", cyl(34, 10, 94, 16), cyl(46, 30, 100, 11), cyl(25, 36, 116, 11)),
    blob((48, 14, 140), (30, 46, 24), 14, turn=20),
    arc(62, (-90, 60), (104, 150), 14),
    blob((-22, -12, 165), (42, 30, 18), 14, turn=30),
    rod((-58, -26, 96), (-76, 22, 128), 13),
    blob((-10, 40, 172), (24, 20, 22), 13),
    ball(30, -50, 168, 15),
]
LARGE_SUBUNIT = [
    blob((0, 0, -42), (100, 88, 60), 14, turn=15),
    blob((4, 80, -14), (32, 30, 32)),
    rod((-74, 44, -18), (-102, 68, 0), 14),
    ball(-108, 72, 4, 18),
    rod((78, 38, -12), (108, 58, 6), 11),
    blob((56, -62, -32), (38, 30, 36)),
    blob((-46, -56, -66), (34, 32, 30)),
]
SMALL_SUBUNIT = [
    blob((-10, -32, 52), (58, 64, 38), turn=-10, tilt=8),
    blob((8, 62, 56), (48, 34, 34), turn=10),
    blob((50, 14, 42), (28, 32, 26)),
    rod((-24, 66, 62), (-66, 56, 72), 13),
    rod((-18, -84, 54), (2, -110, 46), 11),
    ball(-2, 26, 56, 18),
]
RUBISCO_LARGE = [cyl(36, 0, 20, 18), cyl(27, 36, 10, 13), cyl(48, -18, 8, 12), cyl(42, 20, 32, 10)]
RUBISCO_SMALL = [cyl(30, 50, 44, 13), cyl(22, 72, 52, 8)]
P97_RINGS = [
    cyl(47, 0, -26, 19),
    cyl(36, 26, -20, 12),
    cyl(57, -16, -36, 10),
    cyl(44, 14, 12, 18),
    cyl(34, -14, 18, 11),
]
P97_TOWER = [blob((6, 4, 58), (26, 20, 24), 12), rod((-12, -8, 36), (-34, 12, 70), 11), ball(26, -18, 76, 14)]
CLPB_UNIT = [
    cyl(46, 0, -22, 18),
    cyl(34, 26, -16, 12),
    cyl(44, 16, 18, 18),
    cyl(33, -10, 26, 11),
    cyl(60, 28, 50, 13),
    rod((62, 10, 14), (70, 44, -4), 9),
]
CLPP = [cyl(34, 0, 17, 16), cyl(27, 26, 9, 11), cyl(28, 12, 35, 10), cyl(43, 18, 26, 8)]
CLPX = [cyl(38, 0, 68, 17), cyl(29, 30, 80, 11), cyl(46, 24, 88, 10)]
F1_HEADS = [
    part("C3", cyl(32, 0, 22, 19), cyl(34, -8, -8, 18), cyl(26, 4, 44, 12)),
    part("C3", cyl(33, 58, 24, 18), cyl(30, 66, -10, 18), cyl(24, 52, 46, 12), cyl(43, 78, 4, 9)),
]
F1_STALK = [rod((2, 0, 30), (-3, 3, -44), 9), blob((-6, 8, -50), (18, 15, 14), 10), ball(-26, 10, -46, 10)]
IGG = [
    rod((6, 0, -50), (8, 2, -12), 13),
    rod((20, 8, 14), (58, 26, 40), 14),
    ball(30, -4, 30, 12),
    ball(66, 14, 54, 13),
]
IGM_ARM = [
    cyl(28, 0, -4, 16),
    cyl(50, 6, 10, 16),
    rod((68, 18, 12), (98, 38, 24), 15),
    rod((68, 0, -8), (102, -22, -20), 15),
    cyl(80, -4, 14, 10),
]
SPIKE_STALK = [
    cyl(16, 0, -30, 15),
    cyl(24, 40, -10, 15),
    cyl(12, 20, -64, 11),
    cyl(10, 60, -84, 9),
    cyl(26, -10, 10, 15),
]
SPIKE_HEAD = [cyl(46, 50, 30, 17), cyl(58, 62, 42, 12), cyl(34, 20, 34, 12)]
SPIKE_RBD_DOWN = [cyl(22, 84, 56, 14), cyl(14, 50, 64, 9)]
SPIKE_RBD_UP = [cyl(28, 84, 82, 14), cyl(22, 62, 98, 9)]
HISTONES = [ball(12, 14, 12, 17), ball(-14, 20, 14, 15), ball(24, -8, 14, 13)]
DNA_TURN = arc(41, (8, -285), (2, 26), 10)
NUCLEOSOME = [part("C2", moved(np.concatenate([*HISTONES, DNA_TURN]), tilt=90))]
EXOSOME = [cyl(30, 0, 0, 16), cyl(28, 58, 2, 15), cyl(36, 30, 8, 11), cyl(24, 20, 32, 13), cyl(38, 44, 42, 10)]
MCM = [cyl(42, 0, 26, 18), cyl(36, 28, 34, 13), cyl(46, 12, 62, 16), cyl(58, -14, 70, 11), cyl(31, -6, 74, 9)]
NICOTINIC = [
    cyl(26, 0, 40, 14),
    cyl(33, 24, 54, 11),
    cyl(22, 30, 22, 11),
    rod((22, 4, 4), (18, 12, -34), 9),
    cyl(28, 40, -16, 9),
    cyl(16, -10, -52, 8),
]

MODELS: dict[str, Model] = {
    # --- proteases and their caps
    "proteasome_20s": Model("D7", 700, "20S proteasome: four stacked rings of seven", _proteasome_20s(7)),
    "proteasome_20s_8fold": Model(
        "D8", 700, "proteasome_20s with eight-fold rings of the same mass", _proteasome_20s(8)
    ),
    "proteasome_pa28": Model(
        "C7", 900, "20S proteasome with a heptameric PA28 cap at one end", _proteasome_20s(7), part("C7", *PA28)
    ),
    "proteasome_26s": Model("C1", 1600, "20S proteasome with a 19S cap at one end", _proteasome_20s(7), *CAP_19S),
    "clpp": Model("D7", 300, "ClpP protease: two rings of seven", part("D7", *CLPP)),
    "clpxp": Model("C1", 560, "ClpP with a ClpX hexamer at one end", part("D7", *CLPP), part("C6", *CLPX)),
    "hslv": Model("D6", 250, "HslV protease: two rings of six", part("D6", *[b * [0.92, 0.92, 1, 1] for b in CLPP])),
    "hsluv": Model(
        "D6",
        840,
        "HslV with HslU hexamers at both ends",
        part("D6", *[b * [0.92, 0.92, 1, 1] for b in CLPP], *CLPX, cyl(58, 36, 82, 12), cyl(60, 8, 100, 10)),
    ),
    "lon": Model(
        "C6",
        520,
        "Lon protease: a hexameric chamber",
        part(
            "C6",
            *[cyl(32, 0, -44, 16), cyl(46, 26, -30, 13), cyl(44, 8, -8, 15), cyl(54, 34, 8, 12)],
            *[cyl(50, 46, 30, 13), cyl(36, 60, 48, 13), cyl(22, 34, 58, 10)],
        ),
    ),
    # --- chaperonins and chaperones
    "groel": Model("D7", 800, "GroEL: two rings of seven back to back", part("D7", *GROEL_RING)),
    "groel_single_ring": Model("C7", 400, "one ring of GroEL", part("C7", *GROEL_RING)),
    "groel_groes": Model(
        "C7",
        870,
        "GroEL with GroES on one ring",
        part("C7", *[flipped(b) for b in GROEL_RING]),
        part("C7", *GROEL_CIS, *GROES),
    ),
    "groel_groes2": Model("D7", 940, "GroEL with GroES on both rings", part("D7", *GROEL_CIS, *GROES)),
    "thermosome": Model(
        "D8",
        930,
        "closed thermosome: two rings of eight with built-in lids",
        part(
            "D8",
            *[cyl(46, 0, 15, 17), cyl(59, 12, 27, 13), cyl(59, 24, 46, 12), cyl(43, 12, 61, 14), cyl(22, -6, 71, 10)],
        ),
    ),
    "tric_open": Model("C2", 960, "open TRiC/CCT: eight different subunits a ring, lids splayed", _tric()),
    "hsp90_closed": Model(
        "C2",
        170,
        "Hsp90 dimer, closed",
        part(
            "C2",
            ball(14, 8, -48, 13),
            ball(24, -2, -22, 15),
            ball(26, -10, 8, 15),
            ball(12, -4, 40, 16),
            ball(26, 6, 52, 9),
        ),
    ),
    "hsp90_open": Model(
        "C2",
        170,
        "Hsp90 dimer, open",
        part(
            "C2",
            ball(14, 8, -48, 13),
            ball(32, 0, -30, 15),
            ball(54, -8, -6, 15),
            ball(72, -2, 22, 16),
            ball(86, 10, 28, 9),
        ),
    ),
    "hsp70": Model(
        "C1",
        70,
        "Hsp70: nucleotide-binding lobes, substrate domain and lid",
        *[ball(-22, -8, -4, 15), ball(-8, 14, -10, 13), ball(-28, 14, 10, 12), ball(12, -4, 4, 10)],
        *[ball(34, -10, 8, 13), rod((30, 6, 22), (58, 4, 8), 8)],
    ),
    "hsp16_5": Model(
        "O",
        400,
        "small heat shock protein: a hollow sphere with windows, 24 subunits",
        part("O", ball(*on("O", 0.45, 0.6, 0.3, 50), 13), ball(*on("O", 0.15, 0.9, 0.35, 58), 9)),
    ),
    # --- AAA+ machines
    "p97": Model("C6", 540, "p97/VCP, N domains up", part("C6", *P97_RINGS, cyl(66, 24, 30, 15))),
    "p97_n_down": Model(
        "C6", 540, "p97/VCP, N domains level with the ring", part("C6", *P97_RINGS, cyl(74, 24, 2, 15))
    ),
    "p97_npl4": Model("C1", 660, "p97 with a Ufd1-Npl4 tower", part("C6", *P97_RINGS, cyl(66, 24, 30, 15)), *P97_TOWER),
    "clpb_ring": Model("C6", 580, "ClpB hexamer, planar ring", part("C6", *CLPB_UNIT)),
    "clpb_spiral": Model("C1", 580, "ClpB hexamer as a rising spiral", helix(6, 60, 9, *CLPB_UNIT)),
    "mcm_hexamer": Model("C6", 550, "MCM helicase, single hexamer", part("C6", *MCM)),
    "mcm_double_hexamer": Model("D6", 1100, "MCM helicase, double hexamer", part("D6", *MCM)),
    "dynein_motor": Model(
        "C1",
        400,
        "dynein motor: a ring of six unequal AAA modules, linker and stalk",
        *[
            moved(cyl(38, 0, z, r), turn=60 * i)
            for i, (z, r) in enumerate([(0, 18), (4, 17), (-3, 18), (5, 16), (0, 15), (-4, 17)])
        ],
        *[moved(cyl(30, 30, z, 11), turn=60 * i) for i, z in enumerate([8, -6, 10, -8, 6, -4])],
        rod((-34, -22, 22), (36, 14, 26), 12),
        rod((-36, 22, -4), (-104, 62, -20), 8),
        ball(-112, 68, -24, 12),
    ),
    # --- ribosomes
    "ribosome_70s": Model("C1", 2300, "bacterial ribosome", *LARGE_SUBUNIT, *SMALL_SUBUNIT),
    "ribosome_50s": Model("C1", 1450, "bacterial large subunit", *LARGE_SUBUNIT),
    "ribosome_30s": Model("C1", 850, "bacterial small subunit", *SMALL_SUBUNIT),
    "ribosome_80s": Model(
        "C1",
        3300,
        "eukaryotic ribosome: larger, with expansion segments",
        *[b * [1.07, 1.07, 1.07, 1] for b in LARGE_SUBUNIT + SMALL_SUBUNIT],
        blob((-70, -66, -40), (36, 26, 40), 15, turn=40),
        blob((76, -20, -82), (30, 34, 20), 14),
        rod((-30, -96, -50), (-60, -128, -24), 11),
        rod((8, -96, 56), (30, -126, 30), 11),
        ball(-60, -8, 86, 17),
    ),
    # --- shells of 12, 24 and 60
    "apoferritin": Model(
        "O",
        480,
        "apoferritin: 24 four-helix bundles",
        part(
            "O", rod(on("O", 0.9, 0.5, 0.05, 52), on("O", 0.25, 0.85, 0.75, 50), 11), ball(*on("O", 1, 0.2, 0.2, 44), 8)
        ),
    ),
    "dps": Model(
        "T",
        220,
        "Dps: a shell of twelve",
        part(
            "T",
            ball(*on("T", 0.7, 0.3, 0.5, 34), 15),
            ball(*on("T", 0.2, 0.5, 0.6, 31), 10),
            ball(*on("T", 1, 0.2, 0.1, 38), 9),
        ),
    ),
    "urease": Model(
        "T",
        1060,
        "H. pylori urease: four trimers of dimers in a hollow ball",
        part("T", ball(*on("T", 0.9, 0.1, 0.45, 62), 20), ball(*on("T", 0.75, 0.45, 0.55, 54), 17)),
        part("T", ball(*on("T", 1, 0.35, 0.2, 80), 16), ball(*on("T", 0.6, 0.05, 0.9, 70), 16)),
    ),
    "pdh_core_cube": Model(
        "O",
        700,
        "E2 core of pyruvate dehydrogenase, cubic: 24 subunits, trimers at the corners",
        part(
            "O",
            ball(*on("O", 0.2, 1, 0.15, 64), 16),
            ball(*on("O", 0.1, 0.5, 0.62, 56), 12),
            ball(*on("O", 0.25, 1, 0, 78), 9),
        ),
    ),
    "pdh_core_dodecahedron": Model(
        "I",
        1750,
        "E2 core of pyruvate dehydrogenase, dodecahedral: 60 subunits, trimers at the corners",
        part("I", ball(*on("I", 0.16, 1, 0.1, 98), 16), ball(*on("I", 0.05, 0.45, 0.7, 92), 12)),
        part("I", ball(*on("I", 0.2, 1, 0.02, 112), 9)),
    ),
    "lumazine_synthase": Model(
        "I",
        960,
        "lumazine synthase: 60 subunits, a small shell",
        part(
            "I",
            ball(*on("I", 0.8, 0.5, 0.4, 58), 14),
            ball(*on("I", 1, 0.25, 0.1, 68), 9),
            ball(*on("I", 0.5, 0.4, 0.9, 62), 10),
        ),
    ),
    "encapsulin": Model(
        "I",
        1950,
        "encapsulin: a thin shell of 60",
        part("I", ball(*on("I", 0.61, 0.08, 0.31, 108), 13), ball(*on("I", 0.16, 0.72, 0.13, 104), 14)),
        part("I", ball(*on("I", 0.19, 0.11, 0.7, 106), 13)),
    ),
    "virus_stnv": Model(
        "I",
        1500,
        "satellite necrosis virus: 60 subunits and its RNA",
        part("I", ball(*on("I", 0.75, 0.5, 0.35, 76), 16), ball(*on("I", 1, 0.2, 0.05, 84), 10)),
        part("I", ball(*on("I", 0.3, 0.9, 0.3, 60), 11), ball(*on("I", 0.2, 0.4, 0.9, 46), 12)),
    ),
    "virus_ms2": Model(
        "I",
        2500,
        "MS2 bacteriophage: 180 subunits",
        part("I", ball(*on("I", 0.6, 0.12, 0.28, 126), 15), ball(*on("I", 0.2, 0.68, 0.12, 122), 15)),
        part("I", ball(*on("I", 0.22, 0.1, 0.68, 120), 15), ball(*on("I", 0.4, 0.3, 0.3, 110), 9)),
    ),
    "virus_aav": Model(
        "I",
        3700,
        "adeno-associated virus: 60 subunits, spikes at the three-fold axes",
        part("I", ball(*on("I", 0.8, 0.55, 0.35, 104), 18), ball(*on("I", 0.3, 0.5, 0.75, 100), 15)),
        part("I", ball(*on("I", 0.25, 1, 0.06, 124), 13), ball(*on("I", 1, 0.12, 0.05, 116), 9)),
    ),
    "cage_tetrahedral": Model("T", 900, "coat-like cage with tetrahedral edges", _cage("T", 98, 13)),
    "cage_cubic": Model("O", 900, "coat-like cage with cubic edges, same mass", _cage("O", 98, 13)),
    "cage_dodecahedral": Model("I", 900, "coat-like cage with dodecahedral edges, same mass", _cage("I", 98, 13)),
    # --- enzymes
    "beta_galactosidase": Model(
        "D2",
        465,
        "beta-galactosidase",
        part(
            "D2",
            ball(22, 18, 16, 17),
            ball(50, 26, 10, 18),
            ball(74, 40, -6, 13),
            ball(48, 50, 14, 12),
            ball(20, 44, -16, 13),
        ),
    ),
    "rubisco": Model(
        "D4", 550, "RuBisCO: eight large and eight small subunits", part("D4", *RUBISCO_LARGE, *RUBISCO_SMALL)
    ),
    "rubisco_l8": Model("D4", 430, "RuBisCO without its small subunits", part("D4", *RUBISCO_LARGE)),
    "hemoglobin": Model(
        "C2",
        64,
        "hemoglobin",
        part("C2", ball(16, 8, 13, 14), ball(24, -4, 22, 9), ball(6, 20, 18, 8)),
        part("C2", ball(-13, 12, -13, 14), ball(-24, 6, -6, 8), ball(-10, 24, -20, 9)),
    ),
    "erythrocruorin": Model(
        "D6",
        3600,
        "erythrocruorin (giant hemoglobin): two layers of six discs",
        part(
            "D6",
            cyl(104, 0, 42, 24),
            cyl(84, 18, 54, 20),
            cyl(118, 14, 30, 18),
            cyl(78, -14, 30, 20),
            cyl(98, 26, 28, 16),
        ),
        part("D6", cyl(44, 8, 30, 15), rod((22, 4, 14), (60, 22, 16), 11)),
    ),
    "hemocyanin": Model(
        "D3",
        450,
        "arthropod hemocyanin hexamer",
        part("D3", cyl(34, 10, 24, 20), cyl(48, 40, 30, 15), cyl(50, -10, 12, 14), cyl(24, 60, 40, 11)),
    ),
    "glutamine_synthetase": Model("D6", 620, "glutamine synthetase: two rings of six", _glutamine_synthetase(6, 50)),
    "glutamine_synthetase_7fold": Model(
        "D7", 620, "glutamine_synthetase with seven-fold rings of the same mass", _glutamine_synthetase(7, 50)
    ),
    "glutamine_synthetase_decamer": Model(
        "D5", 430, "eukaryotic glutamine synthetase: two rings of five", _glutamine_synthetase(5, 42)
    ),
    "glutamate_dehydrogenase": Model(
        "D3",
        330,
        "glutamate dehydrogenase hexamer with antennae",
        part("D3", cyl(24, 0, 16, 17), cyl(36, 36, 28, 15), cyl(22, 62, 46, 10), rod((10, 16, 48), (6, 10, 74), 8)),
    ),
    "aldolase": Model(
        "D2", 157, "aldolase tetramer", part("D2", ball(24, 18, 14, 17), ball(36, 30, 4, 11), ball(14, 32, 22, 9))
    ),
    "gapdh": Model(
        "D2", 145, "glyceraldehyde-3-phosphate dehydrogenase", part("D2", ball(16, 14, 18, 15), ball(26, 30, 10, 12))
    ),
    "pyruvate_kinase": Model(
        "D2",
        237,
        "pyruvate kinase tetramer, elongated",
        part("D2", ball(18, 14, 14, 15), ball(26, 20, 42, 17), ball(40, 4, 56, 11), ball(12, 30, 24, 10)),
    ),
    "catalase": Model(
        "D2",
        240,
        "catalase tetramer with arms",
        part(
            "D2", ball(18, 26, 14, 18), ball(30, 10, 26, 13), ball(-8, 38, 24, 11), rod((30, 34, 4), (44, 12, -10), 8)
        ),
    ),
    "fatty_acid_synthase_yeast": Model(
        "D3",
        2600,
        "yeast fatty acid synthase: a barrel with a central wheel",
        part(
            "D3",
            arc(88, (6, 108), (12, 30), 18),
            arc(80, (20, 100), (48, 66), 16),
            rod((70, 30, 70), (26, 34, 100), 15),
        ),
        part("D3", rod((90, 24, 20), (84, -30, 58), 13), rod((-40, 84, 18), (-22, 78, 70), 13)),
        part("D3", rod((22, 6, 6), (84, 20, 4), 15), cyl(52, 76, 84, 15), cyl(18, 30, 112, 13), cyl(102, 40, 24, 15)),
    ),
    "fatty_acid_synthase_animal": Model(
        "C2",
        540,
        "animal fatty acid synthase: an X of two chains",
        part("C2", ball(16, 10, 0, 20), ball(32, -8, 26, 19), ball(54, 8, 50, 18), ball(26, 16, 64, 17)),
        part("C2", ball(38, 4, -28, 19), ball(68, -6, -44, 20), ball(98, 10, -52, 18), ball(82, 20, -24, 14)),
    ),
    "alpha2_macroglobulin": Model(
        "D2",
        720,
        "alpha-2-macroglobulin, native: a hollow cage of four",
        part(
            "D2",
            rod((40, 18, 12), (48, 32, 56), 18),
            rod((40, 36, 78), (10, 28, 88), 16),
            ball(26, 50, 24, 17),
            ball(18, 22, 40, 12),
        ),
    ),
    # --- rotary machines, channels, toxins, light harvesting
    "f1_atpase": Model(
        "C1", 380, "F1 of the ATP synthase: three alpha-beta pairs around a bent stalk", *F1_HEADS, *F1_STALK
    ),
    "atp_synthase": Model(
        "C1",
        590,
        "F1Fo ATP synthase: head, central and peripheral stalk, ring of ten in the membrane",
        *F1_HEADS,
        *F1_STALK,
        part("C10", rod((24, 0, -62), (26, 4, -104), 8)),
        blob((46, 6, -86), (16, 22, 22), 11),
        rod((54, 8, -66), (58, 14, 20), 8),
        rod((58, 14, 20), (24, 8, 68), 9),
    ),
    "v_atpase": Model(
        "C1",
        900,
        "V-ATPase: head, three peripheral stalks, collar, larger membrane ring",
        *[moved(b, (0, 0, 40)) for b in F1_HEADS],
        rod((2, 0, 60), (-3, 3, -40), 10),
        part("C3", rod((62, 12, 84), (54, -16, -16), 8)),
        blob((22, 30, -26), (42, 18, 13), 12, turn=40),
        part("C10", rod((32, 0, -52), (35, 5, -100), 10)),
        blob((60, 4, -76), (18, 26, 24), 12),
        ball(-40, -30, -34, 14),
    ),
    "acetylcholine_receptor": Model("C5", 290, "nicotinic acetylcholine receptor", part("C5", *NICOTINIC)),
    "trp_channel": Model(
        "C4",
        300,
        "TRP channel",
        part(
            "C4",
            rod((12, 4, 20), (18, 10, 46), 9),
            rod((34, 14, 16), (36, 22, 44), 11),
            cyl(34, 50, -10, 14),
            cyl(46, 70, -30, 13),
        ),
        part("C4", cyl(24, 10, -42, 12), cyl(12, 30, -22, 8)),
    ),
    "ryanodine_receptor": Model(
        "C4",
        2200,
        "ryanodine receptor: a mushroom with a pinwheel cap",
        part(
            "C4", blob((68, 30, 22), (50, 36, 30), 14, turn=20), blob((104, 78, 14), (30, 28, 26)), cyl(36, 72, 34, 19)
        ),
        part("C4", rod((72, -14, -4), (98, 14, 2), 17), rod((24, 8, 4), (20, 16, -66), 15), cyl(40, 40, -46, 18)),
    ),
    "alpha_hemolysin": Model("C7", 232, "alpha-hemolysin: a mushroom of seven", _hemolysin(7, 24)),
    "gamma_hemolysin": Model("C8", 265, "gamma-hemolysin: a mushroom of eight", _hemolysin(8, 27)),
    "photosystem_i": Model(
        "C3",
        1000,
        "photosystem I trimer: a flat clover leaf",
        part(
            "C3",
            blob((58, 8, 0), (52, 42, 28), turn=25),
            ball(54, 4, 36, 15),
            ball(36, 28, 36, 12),
            ball(98, 34, -4, 15),
        ),
    ),
    # --- antibodies, spikes
    "igg": Model("C2", 150, "immunoglobulin G: a Y", part("C2", *IGG)),
    "igm_hexamer": Model("C6", 1080, "immunoglobulin M, six units", part("C6", *IGM_ARM)),
    "igm_pentamer": Model(
        "C1", 920, "immunoglobulin M: five of six units and the J chain", helix(5, 60, 0, *IGM_ARM), cyl(24, 300, 2, 13)
    ),
    "spike_closed": Model(
        "C3",
        430,
        "coronavirus spike, three receptor domains down",
        part("C3", *SPIKE_STALK, *SPIKE_HEAD, *SPIKE_RBD_DOWN),
    ),
    "spike_one_up": Model(
        "C1",
        430,
        "coronavirus spike, one receptor domain up",
        part("C3", *SPIKE_STALK, *SPIKE_HEAD),
        helix(2, 120, 0, *SPIKE_RBD_DOWN),
        moved(np.concatenate(SPIKE_RBD_UP), turn=240),
    ),
    # --- nucleic acid machines
    "nucleosome": Model("C2", 206, "nucleosome: histone octamer in 1.65 left-handed turns of DNA", *NUCLEOSOME),
    "chromatosome": Model(
        "C1",
        250,
        "nucleosome with linker histone and linker DNA",
        *NUCLEOSOME,
        ball(8, 2, 58, 13),
        rod((20, 30, 52), (26, 34, 92), 9),
    ),
    "rna_polymerase": Model(
        "C1",
        400,
        "bacterial RNA polymerase: a crab claw",
        *[
            blob((-22, 0, 0), (38, 36, 38), turn=10),
            rod((0, 26, 24), (52, 32, 30), 16),
            rod((2, -30, 12), (54, -26, -2), 16),
        ],
        *[ball(66, 22, 22, 14), ball(62, -10, -10, 11), blob((-48, 6, -22), (18, 26, 16), 12), ball(6, -6, -36, 15)],
    ),
    "exosome": Model("C3", 280, "exosome: a ring of six with three cap proteins", part("C3", *EXOSOME)),
    "exosome_rrp44": Model(
        "C1",
        400,
        "exosome with Rrp44 below the ring",
        part("C3", *EXOSOME),
        ball(8, 6, -36, 22),
        ball(-22, 16, -48, 16),
        ball(22, -18, -60, 18),
    ),
    "spliceosome": Model(
        "C1",
        1700,
        "spliceosome: a flat triangle with a foot, a head and a helicase",
        blob((0, 0, 0), (66, 48, 48), 14, turn=35),
        blob((60, -36, 12), (52, 34, 36), turn=-30),
        blob((-58, -44, -8), (48, 36, 34), turn=30),
        blob((10, 68, 14), (38, 48, 34), turn=-12),
        rod((-20, 40, -24), (-72, 62, -34), 17),
        blob((-6, -70, 34), (38, 28, 30)),
        ball(96, 6, -18, 21),
        rod((24, 88, 34), (58, 112, 44), 15),
    ),
    "anaphase_promoting_complex": Model(
        "C1",
        1200,
        "anaphase-promoting complex: an arc lamp over a platform around a cavity",
        blob((0, 0, -66), (76, 52, 32), turn=20),
        arc(58, (-100, 120), (-36, 72), 21),
        arc(42, (90, 250), (40, 88), 18),
        blob((62, -24, 6), (32, 32, 42)),
        ball(-8, 14, 2, 17),
    ),
    "mediator": Model(
        "C1",
        1200,
        "Mediator: head, middle, tail",
        blob((0, 72, 20), (52, 46, 42), turn=20),
        rod((-26, 42, 4), (6, -66, -18), 21),
        rod((26, 36, -16), (42, -52, -34), 17),
        blob((6, -96, 6), (62, 40, 40), turn=-25),
        ball(64, 64, -6, 22),
        ball(-50, -68, 34, 22),
    ),
    "nuclear_pore_y_complex": Model(
        "C1",
        560,
        "Y complex of the nuclear pore",
        *[rod((0, -112, 6), (-8, -66, -10), 20), rod((-10, -44, -8), (4, -4, 4), 20)],
        *[rod((22, 16, 8), (56, 44, 22), 19), rod((66, 66, 14), (72, 96, 0), 18)],
        *[rod((-18, 22, -6), (-50, 56, -14), 20), ball(-72, 78, 0, 25), ball(24, -14, -14, 16)],
    ),
    # --- pieces of filaments, rings of many
    "microtubule_13": Model("C13", 1430, "slice of a microtubule: 13 tubulin dimers side by side", _tubulin_ring(13)),
    "microtubule_14": Model("C14", 1540, "slice of a microtubule: 14 tubulin dimers side by side", _tubulin_ring(14)),
    "gamma_tubulin_ring": Model(
        "C1",
        2000,
        "gamma-tubulin ring complex: a rising cone of 14 spokes",
        helix(14, 27.7, 5, cyl(96, 0, 0, 20), rod((88, 4, -26), (54, -4, -76), 15), cyl(104, 6, 14, 11)),
        blob((6, -8, -10), (46, 24, 20), turn=60),
    ),
    "actin_filament": Model(
        "C1",
        340,
        "eight actins of a filament",
        helix(8, -166.6, 27.6, cyl(18, 0, 0, 16), cyl(30, 34, 10, 12), cyl(34, -12, -12, 10)),
    ),
    "tmv_disc": Model(
        "C17",
        600,
        "tobacco mosaic virus coat disc",
        part("C17", rod((32, 0, -14), (76, 14, -8), 9), rod((34, 6, 14), (78, -4, 10), 9)),
    ),
    "beta_clamp": Model(
        "C2",
        81,
        "beta sliding clamp: a ring of six domains",
        part("C2", *[cyl(33, a, z, 13) for a, z in [(0, 4), (62, -2), (118, 3)]], cyl(44, 30, 8, 8)),
    ),
    "pcna": Model(
        "C3", 87, "PCNA sliding clamp", part("C3", cyl(30, 0, 3, 14), cyl(31, 56, -3, 14), cyl(42, 26, 8, 8))
    ),
}

NAMES: tuple[str, ...] = tuple(MODELS)


@functools.cache
def get(name: str) -> BuiltinStructure:
    """The model of that name, one of NAMES; InputError with near names otherwise."""
    if name not in MODELS:
        hint = near(name, NAMES) or f" There are {len(NAMES)}, such as {', '.join(NAMES[:4])}."
        raise InputError(f"No built-in structure {name!r}.{hint}")
    model = MODELS[name]
    positions, radii = model.balls[:, :3], model.balls[:, 3]
    # Balls that overlap share the space: no density far above that of protein where rods meet.
    squared = ((positions[:, None] - positions[None]) ** 2).sum(axis=-1)
    crowding = np.exp(-squared / (2.0 * (0.7 * radii) ** 2)).sum(axis=1)
    volumes = 4.0 / 3.0 * np.pi * radii**3 / crowding
    mass = 1000.0 * model.kilodaltons
    weights = volumes * (mass / volumes.sum())
    scale = np.cbrt(mass * VOLUME_PER_DALTON / volumes.sum())
    positions = positions - np.average(positions, axis=0, weights=weights)
    sigmas = scale * radii / math.sqrt(5.0)
    return BuiltinStructure(name, model.symmetry, model.description, positions, weights, sigmas)
