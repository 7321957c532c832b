"""Classify subtomograms: probabilities, class and confidence of any number of particles, as CSV and RELION STAR.

    aitom-ssl predict --run=runs/inception3d-sim_snr005 --data=my_dataset/ --output=predictions
    aitom-ssl predict --run=runs/mine --data=folder_of_mrc/ --invert_contrast --output=predictions
    aitom-ssl predict --run=runs/mine --data=picks.star --tomogram=tomogram.mrc --invert_contrast --output=predictions
    aitom-ssl predict --run=served/inception3d --data=Extract/job012/particles.star --output=predictions

--run takes a run of train_supervised, or a SavedModel of export_savedmodel. --data takes a dataset, a folder of MRC
files, or a STAR file: coordinates with --tomogram, or without it subtomograms that rlnImageName names.

predictions.csv has one row a particle: what it is called in the data, class, confidence, probability_NAME a class.
predictions.star has the rows, columns and optics of the STAR file that was given (or new ones), with rlnClassNumber
counted from 1, aitomConfidence, aitomProbability_NAME a class, and a block data_aitom_classes with the names of the
classes. RELION 3.1.2 and later keep columns that they do not know. Rows without a particle to classify are left out.

Interrupted, the same command goes on after the last 1,024 particles that were finished.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError
from aitom_ssl.training.precision import PRECISIONS

if TYPE_CHECKING:
    from aitom_ssl.data.sources import Reading


@dataclasses.dataclass
class Shared:
    """Flags that evaluate and embed have too."""

    run: str | None = flag(None, "Folder of a trained run, or of a SavedModel (or of its versions).")
    data: str | None = flag(None, "Dataset (name, YAML file or folder), folder of MRC subtomograms, or .star file.")
    output: str | None = flag(None, "Folder for the results.")
    split: str | None = flag(
        None,
        "Split of a dataset. Default: predict takes all of them, evaluate the test split.",
        choices=("train", "validation", "test"),
    )
    tomogram: str | None = flag(None, "Tomogram (MRC) that the coordinates of a STAR file lie in.")
    tomogram_name: str | None = flag(
        None, "The tomogram's name in a STAR file of several (rlnTomoName). Default: the name of --tomogram's file."
    )
    coordinate_voxel_size: float | None = flag(
        None, "Pixel in A that the coordinates are counted in, in place of what the STAR file says."
    )
    centre_offset: float = flag(
        -1.0, "Where rlnCenteredCoordinate is counted from: size/2 + this, in unbinned pixels. RELION -1, copick 0."
    )
    voxel_size: float | None = flag(None, "Voxel size in A, in place of the one in the MRC headers.")
    box_size: int | None = flag(
        None, "Box in voxels: crops MRC files about their centre. Of a tomogram, default: the model's."
    )
    invert_contrast: bool = flag(
        False, "Protein is dark in the files, as in most tomograms. Of a dataset, which knows: turn its sign even so."
    )
    ignore_mismatch: bool = flag(
        False, "Take data of another voxel size, box or contrast than the model's; boxes are cropped or padded."
    )
    batch_size: int = flag(64, "Volumes that go through the network at a time.")
    precision: str | None = flag(
        None,
        "Numbers to compute in; bfloat16 is quicker where the processor has it. Default: as it was trained.",
        choices=PRECISIONS,
    )


@dataclasses.dataclass
class Options(Shared):
    skip_damaged: bool = flag(
        False,
        "Leave out particles that are NaN, infinite or constant, or whose voxels cannot be read, in place of stopping "
        "there. Headers are checked first, and must all fit.",
    )


def check(options: Shared) -> None:
    """InputError for what can be told from the flags alone."""
    for name, example in (("run", "runs/mine"), ("data", "particles/"), ("output", "predictions")):
        if getattr(options, name) is None:
            raise InputError(f"--{name} is missing: give it, for example --{name}={example}.")
    if options.batch_size < 1:
        raise InputError(f"--batch_size={options.batch_size}: expected 1 or more.")
    for name in ("voxel_size", "coordinate_voxel_size"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name}={value:g}: expected a positive number of angstroms.")
    if options.box_size is not None and options.box_size < 2:
        raise InputError(f"--box_size={options.box_size}: expected at least 2 voxels.")


def command(name: str, options: Shared) -> str:
    """The command line of these options."""
    fields = [(f.name, f.default, getattr(options, f.name)) for f in dataclasses.fields(options)]
    given = [f"--{key}" if value is True else f"--{key}={value}" for key, default, value in fields if value != default]
    return shlex.join(["aitom-ssl", name, *given])


def reading(options: Shared) -> Reading:
    """How the data are to be read."""
    from aitom_ssl.data.sources import Reading

    return Reading(**{field.name: getattr(options, field.name, None) for field in dataclasses.fields(Reading)})


def print_classes(classes: Mapping[str, int]) -> None:
    """A line a class: how many particles, and their share."""
    total, width = sum(classes.values()), max(map(len, classes))
    for name, count in classes.items():
        print(f"  {name:<{width}}  {count:>9,}  {count / max(total, 1):>6.1%}")


def print_left_out(particles: Sequence[str]) -> None:
    """Say which particles could not be used, if any."""
    if particles:
        more = ", ..." if len(particles) > 5 else ""
        print(f"left out: {len(particles):,} particles ({', '.join(particles[:5])}{more})")


def run(options: Options) -> None:
    """Classify, and say what came of it."""
    check(options)

    from aitom_ssl.export.prediction import predict_files

    shared = ("batch_size", "precision", "ignore_mismatch", "skip_damaged")
    outcome = predict_files(
        options.run,
        options.data,
        options.output,
        reading(options),
        command=command("predict", options),
        **{name: getattr(options, name) for name in shared},
    )
    total = sum(outcome.classes.values())
    print_classes(outcome.classes)
    for note in outcome.notes:
        print(f"note: {note}")
    print_left_out(outcome.left_out)
    if outcome.particles:
        seconds = outcome.seconds["total"]
        print(f"{outcome.particles:,} subtomograms in {seconds:.1f} s, {outcome.particles / seconds:,.0f}/s")
    else:
        print("These predictions were finished already.")
    print(f"{outcome.folder}/predictions.csv and predictions.star: {total:,} particles")
