"""Turn a Keras HDF5 file of AITom's networks into a run that evaluate, predict and export_savedmodel take.

    aitom-ssl import_legacy --weights=model.h5 --class_names=1bxn,4v4r,3j9i --output=runs/old
    aitom-ssl import_legacy --weights=weights.h5 --class_names_file=classes.txt --voxel_size=13.8 --contrast=bright

Files of Keras 1, Keras 2 and tf-keras with inception3D, dsrff3D (DSRF3D), Cgg (DSRF3D-v2) or Cresnet (RB3D): the whole
model (model.save) or weights alone (save_weights). Predictions are the same; a file that does not prove which array
belongs to which layer is refused.

The file does not say what its classes are called, and AITom's order of them was not the same from one process to the
next: compare_legacy finds it from labelled data. AITom's arrays are (x, y, z) and ours are (z, y, x): a network that
AITom trained is turned by --axes=xyz, so that it sees our volumes as it saw AITom's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError


@dataclasses.dataclass
class Options:
    weights: str | None = flag(None, "Keras HDF5 file: of model.save('x.h5') or save_weights. Opened read-only.")
    output: str | None = flag(None, "Folder of the run. Default: runs/legacy-NAME, with a number when that is taken.")
    class_names: list[str] = flag([], "In the order of the network's outputs. Default: class_0, class_1, ...")
    class_names_file: str | None = flag(None, "The same from a text file, one a line.")
    size: int | None = flag(None, "Voxels a side, where a weights-only file fits several. Default: the roundest.")
    voxel_size: float | None = flag(None, "Of the data that it was trained on, in A. Default: not known.")
    contrast: str | None = flag(None, "Of those data. Default: not known.", choices=("bright", "dark"))
    axes: str = flag(
        "zyx",
        "Order of the axes in the arrays that it was trained on; xyz (AITom's) turns the network for ours.",
        choices=("zyx", "xyz"),
    )


def class_names_of(options: Options) -> list[str] | None:
    """The names that the user gave, without blanks around them; None when there are none."""
    names = options.class_names
    if options.class_names_file is not None:
        if names:
            raise InputError("--class_names and --class_names_file are both given: leave one out.")
        path = Path(options.class_names_file)
        if not path.is_file():
            raise InputError(f"--class_names_file={path} is not a file: check the path.")
        try:
            names = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"--class_names_file={path} is not text: give one class name a line.") from None
        names = [name for name in names if name.strip()]
        if not names:
            raise InputError(f"--class_names_file={path} is empty: give one class name a line.")
    names = [name.strip() for name in names]
    if "" in names:
        raise InputError(f"--class_names={','.join(names)} has an empty name: give every class one.")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(f"The class names have {repeated[0]!r} twice: every class needs a name of its own.")
    return names or None


def run(options: Options) -> None:
    if options.weights is None:
        raise InputError("--weights is missing: give a Keras HDF5 file, for example --weights=model.h5.")
    for name, least in (("voxel_size", 0), ("size", 7)):
        value = getattr(options, name)
        if value is not None and value <= least:
            raise InputError(f"--{name}={value} must be more than {least}.")
    names = class_names_of(options)

    from aitom_ssl.export.legacy import identify_legacy
    from aitom_ssl.export.legacy_run import check_class_names, import_legacy
    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.run import RunFolder
    from aitom_ssl.training.settings import command_line

    # A mistake is answered before TensorFlow is loaded.
    network = identify_legacy(options.weights, options.size)
    given = names is not None
    names = names if given else [f"class_{label}" for label in range(network.classes)]
    check_class_names(names, network, options.weights)
    if options.output is not None:
        RunFolder.refuse(options.output)
    import_keras_quietly()

    settings = {**dataclasses.asdict(options), "class_names": ",".join(options.class_names) or None}
    made = import_legacy(
        options.weights,
        options.output,
        names,
        options.size,
        options.voxel_size,
        options.contrast,
        options.axes,
        command_line("import_legacy", settings),
    )
    print(f"{options.weights}: {network}\nrun      {made.path}")
    if not given:
        print(f"warning: the classes are called class_0 to class_{network.classes - 1}: name them with --class_names.")
    if options.axes == "zyx":
        print("note: if AITom trained it, on its (x, y, z) arrays, import it with --axes=xyz.")
    print("note: evaluate and predict standardise each volume, AITom did not: compare_legacy measures what that does.")
