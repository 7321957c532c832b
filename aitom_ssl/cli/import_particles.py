"""Turn particles into a dataset that --data=FOLDER takes: standardised, protein bright, split, with its provenance.

Four kinds of input:
  --input=FOLDER     MRC subtomograms (.mrc .map .rec, gzipped too), one sub-folder a class where they are labelled
  --input=FOLDER     AITom's simulated layout (subtomogram_mrc/, json_label/; an SNR003, SNR005 or SNRinfinity folder)
  --tomogram=FILE --coordinates=FILE --box_size=N
                     a tomogram (MRC, gzipped too) with a CSV (x,y,z: voxels from 0) or a RELION 3, 4 or 5 STAR file
  --tomogram=EVEN.mrc --tomogram_b=ODD.mrc --coordinates=FILE --box_size=N
                     two half tomograms, of even and odd tilts or frames: particles are cut from their mean, and the
                     halves are kept as two images of one particle with independent noise

Example:
  aitom-ssl pick_particles --tomogram=tomogram.mrc --invert_contrast --output=picks.star
  aitom-ssl import_particles --tomogram=tomogram.mrc --coordinates=picks.star --box_size=32 --invert_contrast \\
      --output=particles
  aitom-ssl train_moco --data=particles
"""

from __future__ import annotations

from dataclasses import dataclass

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError


@dataclass
class Options:
    input: str | None = flag(None, "Folder of MRC subtomograms, or one in AITom's layout.")
    tomogram: str | None = flag(None, "Tomogram to cut particles from (MRC, gzipped too).")
    tomogram_b: str | None = flag(None, "Other half, where --tomogram is of the even or odd tilts or frames only.")
    coordinates: str | None = flag(None, "CSV or STAR file with the particles' coordinates in the tomogram.")
    output: str | None = flag(None, "Dataset folder to make; a dataset that is there is replaced.")
    box_size: int | None = flag(None, "Box in voxels; crops whole subtomograms about their centre.")
    voxel_size: float | None = flag(None, "Voxel size in A, in place of the one in the MRC header.")
    invert_contrast: bool = flag(False, "Protein is dark in the files: turn the sign, it is bright in the dataset.")
    normalize: str = flag("zscore", "Each subtomogram to mean 0 and deviation 1, or left as it is.", ["zscore", "none"])
    smooth: float = flag(
        0.0, "Deviation in A of a Gaussian to smooth each particle with, for noisy data. Xu 2017 took 10."
    )
    edge: str = flag("drop", "A box that leaves the tomogram: drop it, or fill it with its mean.", ["drop", "pad"])
    tomogram_name: str | None = flag(
        None, "The tomogram's name in a STAR file of several (rlnTomoName or rlnMicrographName)."
    )
    coordinate_voxel_size: float | None = flag(
        None,
        "Pixel in A that the coordinates are counted in. By default a STAR file's rlnTomoTiltSeriesPixelSize or "
        "rlnDetectorPixelSize, else the tomogram's voxel size.",
    )
    centre_offset: float = flag(
        -1.0, "Where rlnCenteredCoordinate is counted from: size/2 + this, in unbinned pixels. RELION -1, copick 0."
    )
    label_column: str | None = flag(None, "Column of the coordinates whose values are classes, as rlnClassNumber.")
    splits: str | None = flag(
        None,
        "Fractions, as train=0.8,validation=0.1,test=0.1; drawn within each class. By default 60:20:20 of labelled "
        "particles, 90:10 into train and validation of unlabelled ones.",
    )
    name: str | None = flag(None, "Name of the dataset; by default the folder's.")
    seed: int = flag(0, "Seed of the split.")


def run(options: Options) -> None:
    """Import and say what came of it."""
    if options.output is None:
        raise InputError("--output is missing: give the dataset folder to make.")

    from aitom_ssl.data import importers

    splits = None if options.splits is None else importers.parse_splits(options.splits)
    if options.input is not None and (options.tomogram or options.coordinates):
        raise InputError("--input excludes --tomogram and --coordinates: import whole subtomograms, or cut them.")
    if options.tomogram_b is not None and not (options.tomogram and options.coordinates):
        raise InputError(
            f"--tomogram_b={options.tomogram_b} needs the other half as --tomogram, and --coordinates: give all three."
        )
    if options.input is not None:
        read = importers.aitom_particles if importers.aitom_folders(options.input) else importers.folder_particles
        particles = read(options.input, options.box_size, options.voxel_size)
    else:
        needed = {name: getattr(options, name) for name in ("tomogram", "coordinates", "box_size")}
        missing = [f"--{name}" for name, value in needed.items() if value is None]
        if missing:
            raise InputError(f"{' and '.join(missing)} missing: give --input, or --tomogram --coordinates --box_size.")
        particles = importers.tomogram_particles(
            **needed,
            voxel_size=options.voxel_size,
            edge=options.edge,
            tomogram_name=options.tomogram_name,
            coordinate_voxel_size=options.coordinate_voxel_size,
            centre_offset=options.centre_offset,
            label_column=options.label_column,
            tomogram_b=options.tomogram_b,
        )
    counts = importers.write_particles(
        particles,
        options.output,
        name=options.name,
        invert_contrast=options.invert_contrast,
        normalize=options.normalize,
        smooth=options.smooth,
        splits=splits,
        seed=options.seed,
    )
    print(f"{options.output}: {len(particles)} particles of {particles.size}^3 voxels of {particles.voxel_size:g} A")
    for split, classes in counts.items():
        print(f"  {split}: {sum(classes.values())} (" + ", ".join(f"{n} {name}" for name, n in classes.items()) + ")")
    for note in particles.notes:
        print(f"  note: {note}")
    print(f"Use it with --data={options.output}")
