"""A whole tomogram: particles packed into a volume, its tilt series, noise, and the reconstruction.

Everything is a function of the spec, whatever the number of threads: each particle, each tilt's noise and each plane of
Fourier space is worked out by itself, with random numbers of its own, and put in its place.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from tqdm import tqdm

from aitom_ssl.errors import InputError
from aitom_ssl.simulation import imaging, optics, volume
from aitom_ssl.simulation.backprojection import Projector
from aitom_ssl.simulation.crowding import Particles, crowd
from aitom_ssl.simulation.parameters import SimulationSpec
from aitom_ssl.simulation.simulator import random_stream
from aitom_ssl.simulation.threads import in_threads

# Streams of random numbers beside those of the simulator: SeedSequence([seed, particle or tilt, attempt, stream]).
CLASSES, PLACES, TILTS = range(100, 103)

SNR_MODES = ("crop", "projection")
NOT_OF_TOMOGRAMS = ("max_shift", "integer_shift", "n_neighbors", "n_sim", "physics", "noise_spectrum", "mask", "halves")
MOST_PARTICLES = 2**16 - 1  # an instance label is 16 bits wide
SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
BYTES_PER_VOXEL = 16
"""Peak memory at most: planes of Fourier space, with their margin (about 9), beside the clean density (4)."""


@dataclass(frozen=True)
class TomogramSpec:
    """Everything that decides a tomogram. Every field is checked when it is made.

    simulation  classes, in equal numbers; voxel size, resolution; tilts; CTF, MTF, contrast and noise; min_gap between
                particles; seed; size, unseen_classes and normalize of subtomograms that are cut out. What concerns
                simulated subtomograms alone has no meaning here: NOT_OF_TOMOGRAMS.
                snr is of the tomogram, and snr_mode says how: "crop", the variance of the noise-free tomogram over that
                of the noise in it: subtomograms have that SNR on average, those of large particles a greater one;
                "projection", the variance of the noise-free projections before the optics over that of the white noise
                that is added to them (Xu 2017).
    shape       sides of the volume in voxels, (x, y, z): 600, 600, 300 in Zhou 2020
    particles   how many: 10,000 in Zhou 2020; None = as `occupancy` says
    occupancy   fraction of the voxels that particles are to fill (Zhou 2020's, with the builtin models: 0.09)
    """

    simulation: SimulationSpec
    shape: tuple[int, int, int]
    particles: int | None = None
    occupancy: float | None = None

    def __post_init__(self):
        sides = tuple(self.shape)
        for side in sides:
            if not isinstance(side, numbers.Integral) or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
                raise _refused("shape", side, f"sides of {SMALLEST_SIDE} to {LARGEST_SIDE} voxels")
        if len(sides) != 3:
            raise _refused("shape", sides, "three sides in voxels (x, y, z)")
        object.__setattr__(self, "shape", tuple(int(side) for side in sides))
        if (self.particles is None) == (self.occupancy is None):
            raise InputError("A tomogram has either a number of particles or an occupancy: give one of the two.")
        if self.particles is not None and not 1 <= self.particles <= MOST_PARTICLES:
            raise _refused("particles", self.particles, f"1 to {MOST_PARTICLES:,}")
        if self.occupancy is not None and not 0 < self.occupancy < 1:
            raise _refused("occupancy", self.occupancy, "a fraction of the volume above 0 and below 1")
        if self.simulation.snr_mode not in SNR_MODES:
            raise _refused("snr_mode", self.simulation.snr_mode, f"one of {', '.join(SNR_MODES)} for a tomogram")
        if self.simulation.empty_class:
            raise _refused("empty_class", True, "false for a tomogram: what is between its particles is empty")

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """The same as an array's, (z, y, x)."""
        return self.shape[::-1]

    @property
    def memory(self) -> int:
        """About how many bytes of memory the simulation needs."""
        return BYTES_PER_VOXEL * math.prod(self.shape)


def _refused(name: str, value: object, allowed: str) -> InputError:
    return InputError(f"{name} is {value!r}: expected {allowed}.")


def templates(spec: TomogramSpec) -> list[volume.Template]:
    """The classes in label order, ready to be rendered."""
    simulation = spec.simulation
    return [
        volume.Template.of(structure, simulation.voxel_size, simulation.resolution)
        for structure in simulation.structures()
    ]


def drawn_labels(spec: TomogramSpec, sizes: np.ndarray) -> np.ndarray:
    """(n,) class of each particle, in random order: as many of each as can be, whose `sizes` (voxels) fill `occupancy`.

    Raises InputError where that is no particle, or more than MOST_PARTICLES.
    """
    count = spec.particles
    if count is None:
        count = round(spec.occupancy * math.prod(spec.shape) / np.mean(sizes))
        if not 1 <= count <= MOST_PARTICLES:
            sides = " x ".join(map(str, spec.shape))
            raise InputError(
                f"occupancy {spec.occupancy:g} of {sides} voxels is {count:,} particles of {np.mean(sizes):.0f} voxels "
                f"on average, expected 1 to {MOST_PARTICLES:,}: change it or the shape."
            )
    rng = random_stream(spec.simulation.seed, 0, 0, CLASSES)
    return rng.permutation(np.arange(count) % len(sizes))


def pack(
    spec: TomogramSpec, density: np.ndarray, instances: np.ndarray, workers: int = 1, progress: bool = False
) -> Particles:
    """Fill zeroed density (z, y, x) float32 and instances (z, y, x) uint16 with particles; see `crowding.crowd`."""
    classes = templates(spec)
    labels = drawn_labels(spec, np.array([template.mask_voxels for template in classes]))
    simulation = spec.simulation
    with _bar(len(labels), "packing", "particle", progress) as bar:
        return crowd(
            classes,
            labels,
            density,
            instances,
            lambda particle, attempt: random_stream(simulation.seed, int(particle), attempt, PLACES),
            simulation.min_gap / simulation.voxel_size,
            workers,
            bar.update,
        )


@dataclass(frozen=True)
class Measured:
    """What a tomogram turned out to be: variances of its noise-free part and of its noise, per voxel; of the noise-free
    projections before the optics, and of the white noise added to them, per pixel; 0 where there is no noise."""

    signal_variance: float | None
    noise_variance: float
    projection_variance: float
    image_noise_variance: float


class TomogramImaging:
    """Takes the tilt series of a density and reconstructs it.

    After `expose`, `slices` gives the tomogram, and `images` the tilt series.
    """

    def __init__(self, spec: TomogramSpec, workers: int = 1, progress: bool = False):
        self.spec, self._workers, self._progress = spec, workers, progress
        simulation = spec.simulation
        tilts = optics.tilt_angles(simulation.tilt_max, simulation.tilt_step)
        self.projector = Projector(spec.array_shape, tilts, workers)

    def expose(self, density: np.ndarray) -> Measured:
        """Project a clean (z, y, x) density, apply the optics, add noise, and back-project."""
        simulation, projector = self.spec.simulation, self.projector
        frequency, defocus = projector.frequency, simulation.defocus_um
        with self._bar(self.spec.array_shape[0], "transforming", "slice") as bar:
            self._planes = projector.planes(density, bar.update)
        with self._bar(len(projector.ky), "projecting", "plane") as bar:
            self._images = projector.project(self._planes, bar.update)
        projected = _mean_variance(self.images())
        self._images *= imaging.signal_transfer(simulation, frequency, defocus)[:, None]
        signal, noise, pixel = None, 0.0, 0.0
        if math.isfinite(simulation.snr):
            transfers = imaging.noise_transfers(simulation, frequency, defocus)
            gain = projector.noise_variance(transfers)
            if simulation.snr_mode == "projection":
                pixel = projected / simulation.snr
            else:
                self._back_project("measuring")
                signal = _mean_variance(self.slices(), around_each=False)
                pixel = signal / simulation.snr / gain
            self._add_noise(transfers, math.sqrt(pixel))
            noise = pixel * gain
        self._back_project("reconstructing")
        return Measured(signal, noise, projected, pixel)

    def images(self) -> Iterator[np.ndarray]:
        """The images (y, x) float32 of the tilt series as it is now, in the order of the tilts."""
        tilts = range(len(self.projector.tilts))
        return in_threads(lambda tilt: self.projector.image(self._images, tilt), tilts, self._workers)

    def slices(self) -> Iterator[np.ndarray]:
        """The z slices (y, x) float32 of the reconstruction."""
        return self.projector.slices(self._planes)

    def _back_project(self, what: str) -> None:
        with self._bar(len(self.projector.ky), what, "plane") as bar:
            self.projector.back_project(self._images, self._planes, bar.update)

    def _add_noise(self, transfers: list[np.ndarray], deviation: float) -> None:
        projector, seed = self.projector, self.spec.simulation.seed

        def add(tilt: int) -> None:
            rng = random_stream(seed, tilt, 0, TILTS)
            for transfer in transfers:
                white = rng.standard_normal((projector.height, projector.width), dtype=np.float32)
                spectrum = scipy.fft.fft(scipy.fft.rfft(white, axis=0), axis=1)
                self._images[:, tilt] += spectrum * (transfer * projector.inside * np.float32(deviation))

        with self._bar(len(projector.tilts), "adding noise", "tilt") as bar:
            for _ in in_threads(add, range(len(projector.tilts)), self._workers):
                bar.update(1)

    def _bar(self, total: int, what: str, unit: str) -> tqdm:
        return _bar(total, what, unit, self._progress)


def _bar(total: int, what: str, unit: str, shown: bool) -> tqdm:
    return tqdm(total=total, desc=f"{what:14s}", unit=f" {unit}s", disable=not shown, mininterval=0.5)


def _mean_variance(images: Iterator[np.ndarray], around_each: bool = True) -> float:
    """Variance of arrays of one shape: around each one's mean, averaged, or around the mean of all; float64 sums."""
    moments = np.array([(np.mean(a, dtype=np.float64), np.mean(np.square(a, dtype=np.float64))) for a in images])
    means, squares = moments.T
    return float(np.mean(squares - np.square(means)) if around_each else np.mean(squares) - np.square(np.mean(means)))


def simulated(spec: TomogramSpec, workers: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, Particles, Measured]:
    """Tomogram, clean density and instance labels, (z, y, x) float32, float32 and uint16, with their particles."""
    density = np.zeros(spec.array_shape, dtype=np.float32)
    instances = np.zeros(spec.array_shape, dtype=np.uint16)
    particles = pack(spec, density, instances, workers)
    camera = TomogramImaging(spec, workers)
    measured = camera.expose(density)
    return np.stack(list(camera.slices())), density, instances, particles, measured
