"""A simulated tomogram on disk, with everything that is known about it, and its subtomograms as a dataset.

    tomogram.mrc            the reconstruction, float32
    tilt_series.mrcs        the images it was made of, float32, and tilt_series.rawtlt, their tilts in degrees
    density.mrc             the particles' density before any optics, peak 1 a particle, float32
    instances.mrc           0, or which particle a voxel belongs to, from 1, uint16
    classes.mrc             0, or its class, from 1: 1 + the label, as rlnClassNumber, int16
    particles.star, .csv    positions in voxels from 0, poses, classes, instances
    slices.png              central slices of tomogram, density and classes, and the tomogram's spectrum
    tomogram.json           parameters, class names, what was measured, versions
    subtomograms/           a dataset with masks, if asked for
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aitom_ssl import environment, geometry
from aitom_ssl.data.importers.coordinates import write_csv
from aitom_ssl.data.importers.particles import LABELLED_SPLITS, assign_splits, prepare_volume
from aitom_ssl.data.importers.star import ANGLES, write_star
from aitom_ssl.data.importers.tomogram import cut
from aitom_ssl.data.shards import write_dataset
from aitom_ssl.data.tomogram_figure import tomogram_figure
from aitom_ssl.errors import InputError
from aitom_ssl.files import build_folder, nearest_existing, refuse_unwritable, write_json
from aitom_ssl.mrc import read_mrc, write_slices
from aitom_ssl.simulation.crowding import Particles
from aitom_ssl.simulation.parameters import SPLIT_OF_UNSEEN
from aitom_ssl.simulation.tomogram import NOT_OF_TOMOGRAMS, Measured, TomogramImaging, TomogramSpec, pack

SEEN_SPLITS = {"train": 0.85, "validation": 0.15}
"""How samples of the seen classes are shared out where some classes are unseen, as in the sets of COS-Net."""

STEM = "tomogram"
SUBTOMOGRAMS = "subtomograms"


def simulate_tomogram(
    spec: TomogramSpec, folder: str | Path, extract: bool = False, workers: int | None = None, progress: bool = True
) -> Path:
    """Simulate a tomogram into a new `folder`, which appears, whole, at the end; returns it.

    extract: also cut a subtomogram of spec.simulation.size voxels at each particle whose box is inside, standardised,
    bright, with the particle's mask, into the dataset `subtomograms`. Splits are drawn within each class: 60:20:20; or
    85:15 into train and validation, and the unseen classes are test.
    workers: threads (default: all cores); any number gives the same bits. progress: bars and a summary.
    Memory: some 13 bytes a voxel beside what the libraries take, 1.4 GB for 600 x 600 x 300.
    Raises InputError when the folder is there, for too little memory or disk, and as `crowding.crowd` does.
    """
    folder, simulation = Path(folder), spec.simulation
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, expected 1 or more threads.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: give a new folder.")
    if extract and simulation.size > min(spec.shape):
        raise InputError(f"A box of {simulation.size} voxels does not fit in {_sides(spec)}: enlarge the tomogram.")
    refuse_unwritable(folder)
    _refuse_too_large(spec, folder)
    workers = workers or environment.usable_cores()
    try:
        with build_folder(folder) as fresh:
            particles = _pack(spec, fresh, workers, progress)
            camera = TomogramImaging(spec, workers, progress)
            measured = camera.expose(read_mrc(fresh / "density.mrc")[0])
            write_slices(fresh / f"{STEM}.mrc", camera.slices(), spec.array_shape, simulation.voxel_size)
            _write_tilts(fresh, camera)
            del camera
            _write_particles(fresh, spec, particles)
            write_json(fresh / f"{STEM}.json", _description(spec, particles, measured))
            _draw(fresh, spec, particles)
            if extract:
                _extract(fresh, spec, particles, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Nothing was written: run the same command again to start anew.") from None
    if progress:
        print(_summary(spec, particles, measured))
    return folder


def _sides(spec: TomogramSpec) -> str:
    return " x ".join(map(str, spec.shape)) + " voxels"


def _refuse_too_large(spec: TomogramSpec, folder: Path) -> None:
    voxels = math.prod(spec.shape)
    available = environment.available_memory()
    if available is not None and spec.memory > available:
        raise InputError(
            f"{_sides(spec)} need about {spec.memory / 1e9:.2g} GB of memory and {available / 1e9:.2g} GB are free: "
            "ask for fewer voxels."
        )
    needed, free = 13 * voxels, shutil.disk_usage(nearest_existing(folder)).free
    if needed > free:
        raise InputError(
            f"{_sides(spec)} need {needed / 1e9:.2g} GB under {folder} and {free / 1e9:.2g} GB are free: free some "
            "space, or ask for fewer voxels."
        )


def _pack(spec: TomogramSpec, folder: Path, workers: int, progress: bool) -> Particles:
    """Place the particles and write density, instances and classes."""
    shape, voxel_size = spec.array_shape, spec.simulation.voxel_size
    density, instances = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.uint16)
    particles = pack(spec, density, instances, workers, progress)
    class_of = np.concatenate([[0], particles.labels + 1]).astype(np.int16)
    write_slices(folder / "density.mrc", density, shape, voxel_size)
    write_slices(folder / "instances.mrc", instances, shape, voxel_size, np.uint16)
    write_slices(folder / "classes.mrc", (class_of[part] for part in instances), shape, voxel_size, np.int16)
    return particles


def _write_tilts(folder: Path, camera: TomogramImaging) -> None:
    tilts, (_, ny, nx) = camera.projector.tilts, camera.spec.array_shape
    path = folder / "tilt_series.mrcs"
    write_slices(path, camera.images(), (len(tilts), ny, nx), camera.spec.simulation.voxel_size, stack=True)
    path.with_suffix(".rawtlt").write_text("".join(f"{tilt:g}\n" for tilt in tilts), encoding="utf-8")


def _write_particles(folder: Path, spec: TomogramSpec, particles: Particles) -> None:
    names = [spec.simulation.class_names[label] for label in particles.labels]
    instances = np.arange(len(particles)) + 1
    relion = dict(zip(ANGLES, geometry.quaternion_to_relion_angles(particles.quaternions).T, strict=True))
    more = {**relion, "rlnClassNumber": particles.labels + 1, "aitomClassName": names, "aitomInstance": instances}
    write_star(folder / "particles.star", particles.positions, None, spec.simulation.voxel_size, STEM, more)
    angles = geometry.quaternion_to_euler_zyz(particles.quaternions)
    more = {
        "class": names,
        "label": particles.labels,
        "instance": instances,
        "voxels": particles.voxels,
        **dict(zip(("phi", "theta", "psi"), angles.T, strict=True)),
        **dict(zip(("qw", "qx", "qy", "qz"), particles.quaternions.T, strict=True)),
    }
    write_csv(folder / "particles.csv", particles.positions, None, more)


def _draw(folder: Path, spec: TomogramSpec, particles: Particles) -> None:
    simulation = spec.simulation
    title = f"{len(particles):,} particles in {_sides(spec)} of {simulation.voxel_size:g} A, SNR {simulation.snr:g}"
    volumes = [read_mrc(folder / f"{name}.mrc")[0] for name in (STEM, "density", "classes")]
    figure = tomogram_figure(*volumes, simulation.class_names, f"{title} ({simulation.snr_mode})")
    figure.savefig(folder / "slices.png", dpi=110)


def _description(spec: TomogramSpec, particles: Particles, measured: Measured) -> dict:
    simulation = spec.simulation
    parameters = {name: value for name, value in simulation.parameters().items() if name not in NOT_OF_TOMOGRAMS}
    parameters["snr"] = _finite(simulation.snr)
    counts = np.bincount(particles.labels, minlength=simulation.n_classes)
    return {
        "shape_xyz": list(spec.shape),
        "voxel_size": simulation.voxel_size,
        "class_names": list(simulation.class_names),
        "particles": dict(zip(simulation.class_names, counts.tolist(), strict=True)),
        "occupancy": _occupancy(spec, particles),
        "snr": _finite(simulation.snr),
        "snr_mode": simulation.snr_mode,
        "signal_variance": measured.signal_variance,
        "noise_variance": measured.noise_variance,
        "projection_variance": measured.projection_variance,
        "image_noise_variance": measured.image_noise_variance,
        "simulation": parameters,
        "fingerprint": simulation.fingerprint(),
        "versions": environment.versions("numpy", "scipy"),
    }


def _finite(snr: float) -> float | str:
    return snr if math.isfinite(snr) else "inf"


def _occupancy(spec: TomogramSpec, particles: Particles) -> float:
    return float(particles.voxels.sum() / math.prod(spec.shape))


def _summary(spec: TomogramSpec, particles: Particles, measured: Measured) -> str:
    simulation = spec.simulation
    lines = [
        f"{_sides(spec)} of {simulation.voxel_size:g} A: {len(particles):,} particles of {simulation.n_classes} "
        f"classes fill {_occupancy(spec, particles):.1%}",
        f"tilts of +-{simulation.tilt_max:g} degrees every {simulation.tilt_step:g}, SNR {simulation.snr:g} "
        f"({simulation.snr_mode})",
    ]
    if measured.noise_variance:
        lines.append(
            f"noise: variance {measured.noise_variance:.3g} a voxel"
            + (f", signal {measured.signal_variance:.3g}" if measured.signal_variance is not None else "")
            + f"; {measured.image_noise_variance:.3g} a pixel, projections {measured.projection_variance:.3g}"
        )
    return "\n".join(lines)


# === Subtomograms ===


def _extract(folder: Path, spec: TomogramSpec, particles: Particles, progress: bool) -> None:
    simulation, size = spec.simulation, spec.simulation.size
    tomogram, instances = (read_mrc(folder / name)[0] for name in (f"{STEM}.mrc", "instances.mrc"))
    nearest = np.floor(particles.positions + 0.5).astype(int)
    starts = nearest - geometry.centre(size)
    whole = np.flatnonzero(np.all((starts >= 0) & (starts + size <= np.array(spec.shape)), axis=1))
    if not len(whole):
        raise InputError(f"No particle has its box of {size} voxels inside {_sides(spec)}: enlarge the tomogram.")

    def samples(chosen: np.ndarray) -> Iterator[dict]:
        for i in tqdm(chosen.tolist(), desc=f"{'cutting out':14s}", unit=" particles", disable=not progress):
            box = tuple(slice(start, start + size) for start in starts[i, ::-1])
            image = prepare_volume(
                cut(tomogram, nearest[i], size), simulation.contrast == "dark", simulation.normalize, f"Particle {i}"
            )
            yield {
                "volume": image,
                "label": int(particles.labels[i]),
                "mask": (instances[box] == i + 1).astype(np.uint8),
                "quaternion": particles.quaternions[i],
                "euler_zyz": geometry.quaternion_to_euler_zyz(particles.quaternions[i]),
                "shift": particles.positions[i] - nearest[i],
                "position": particles.positions[i],
                "instance": i + 1,
                "index": i,
            }

    parts = _splits(spec, particles.labels[whole])
    write_dataset(
        folder / SUBTOMOGRAMS,
        SUBTOMOGRAMS,
        simulation.class_names,
        simulation.voxel_size,
        "bright",
        {split: samples(whole[part]) for split, part in parts.items() if len(part)},
        {"source": {"kind": "simulated tomogram", "shape_xyz": spec.shape}, "simulation": simulation.parameters()},
        standardized=simulation.normalize == "zscore",
    )


def _splits(spec: TomogramSpec, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Split name to indices into `labels`."""
    simulation = spec.simulation
    if not simulation.unseen_classes:
        return assign_splits(labels, LABELLED_SPLITS, simulation.seed)
    unseen = np.isin(labels, simulation.labels(SPLIT_OF_UNSEEN))
    seen = np.flatnonzero(~unseen)
    parts = assign_splits(labels[seen], SEEN_SPLITS, simulation.seed)
    return {**{split: seen[part] for split, part in parts.items()}, "test": np.flatnonzero(unseen)}
