"""Simulate a crowded tomogram: particles packed without overlap, tilt series, CTF, MTF, noise, back-projection.

Classes, voxel size, optics and SNR are those of a dataset's specification (--data), so that what is learned from the
dataset can be tried on the tomogram; flags change single ones of them. --output is a new folder and appears, whole,
when the work is done:
  tomogram.mrc, slices.png                      the reconstruction (z is the beam, y the tilt axis), and a look at it
  tilt_series.mrcs, tilt_series.rawtlt          the images and their tilts
  density.mrc, instances.mrc, classes.mrc       the particles before any optics, and labels of voxels (0 is empty)
  particles.star, particles.csv, tomogram.json  positions, poses, classes; parameters and what was measured
  subtomograms/                                 with --extract: a dataset of single particles with masks, for --data

Examples:
  aitom-ssl simulate_tomogram --output=tomogram --shape=200,200,100 --occupancy=0.1 --extract
  aitom-ssl simulate_tomogram --data=cosnet_snr1000 --shape=600,600,300 --particles=10000 --output=cosnet  (Zhou 2020)
  aitom-ssl simulate_tomogram --classes=ribosome_80s,proteasome_26s,groel --snr=0.1 --contrast=dark --output=cell
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError

OCCUPANCY = 0.09
SMOKE = {"shape": ["64", "64", "40"], "occupancy": 0.03, "particles": None}


@dataclasses.dataclass(frozen=True)
class Options:
    data: str = flag("cosnet_snr05", "Dataset specification, by name or .yaml file, that the parameters are those of.")
    output: str | None = flag(None, "New folder to make.")
    shape: list[str] = flag(["256", "256", "128"], "Sides in voxels, x,y,z.")
    particles: int | None = flag(None, "How many particles, the same number of each class.")
    occupancy: float | None = flag(
        None, f"In place of --particles: fraction of the voxels that they are to fill. Default: {OCCUPANCY:g}."
    )
    extract: bool = flag(False, "Also cut out each particle with its mask, into the dataset OUTPUT/subtomograms.")
    box_size: int | None = flag(None, "Side in voxels of what --extract cuts out. Default: the specification's.")
    classes: list[str] = flag([], "Other structures: builtin names, pdb:ID, paths of atomic models or maps.")
    voxel_size: float | None = flag(None, "Another voxel size, A.")
    snr: str | None = flag(None, "Another signal to noise ratio (of variances); inf for no noise.")
    snr_mode: str | None = flag(
        None,
        "What the SNR is of: the tomogram, and so on average a subtomogram; or the projections before CTF and MTF.",
        ["crop", "projection"],
    )
    tilt_max: float | None = flag(None, "Another tilt range: from -tilt_max to tilt_max degrees.")
    tilt_step: float | None = flag(None, "Another angle between tilts, degrees.")
    defocus_um: float | None = flag(None, "Another defocus, micrometres, positive = underfocus.")
    contrast: str | None = flag(None, "Protein bright, or dark as in most tomograms on disk.", ["bright", "dark"])
    min_gap: float | None = flag(None, "At least this many A between any two particles' surfaces. Default: 0.")
    seed: int | None = flag(None, "Other random numbers than the specification's.")
    workers: int | None = flag(None, "Threads; any number gives the same tomogram. Default: one for each core.")
    smoke: bool = flag(False, "Seconds-long run of the same path: few particles in 64 x 64 x 40 voxels.")


def run(options: Options) -> None:
    """Simulate, and say where it is."""
    if options.output is None:
        raise InputError("--output is missing: give a new folder.")
    if options.particles is not None and options.occupancy is not None:
        raise InputError("--particles and --occupancy exclude each other: give one of the two.")
    if options.box_size is not None and not options.extract:
        raise InputError(f"--box_size={options.box_size} is of what --extract cuts out: give both, or neither.")
    if options.smoke:
        options = dataclasses.replace(options, **SMOKE)

    from aitom_ssl.data.simulated_tomogram import simulate_tomogram

    folder = simulate_tomogram(_spec(options), options.output, options.extract, options.workers)
    print(f"{folder}; look at {folder / 'slices.png'}")
    if options.extract:
        print(f"Use the subtomograms with --data={folder / 'subtomograms'}")


def _spec(options: Options):
    from aitom_ssl.data.spec import load_spec
    from aitom_ssl.simulation.tomogram import TomogramSpec

    simulation = load_spec(options.data).simulation
    changed = {"empty_class": False} | {
        name: getattr(options, name)
        for name in ("voxel_size", "tilt_max", "tilt_step", "defocus_um", "snr_mode", "contrast", "min_gap", "seed")
        if getattr(options, name) is not None
    }
    if options.classes:
        changed |= {"classes": tuple(options.classes), "unseen_classes": (), "base": str(Path.cwd())}
    if options.box_size is not None:
        changed |= {"size": options.box_size, "n_sim": None}
    if options.snr is not None:
        changed["snr"] = _number(options.snr)
    simulation = dataclasses.replace(simulation, **changed)
    simulation.structures()
    occupancy = options.occupancy
    if options.particles is None and occupancy is None:
        occupancy = OCCUPANCY
    return TomogramSpec(simulation, _shape(options.shape), options.particles, occupancy)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _shape(sides: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(side) for side in sides)
    except ValueError:
        raise InputError(f"--shape={','.join(sides)}: expected three whole numbers of voxels, x,y,z.") from None
