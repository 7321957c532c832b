"""Write a finished run's network as a SavedModel, for TensorFlow Serving or AITom.

    aitom-ssl export_savedmodel --run=runs/inception3d-sim_snr005
    aitom-ssl export_savedmodel --run=runs/legacy --output=/srv/models/ribosomes --voxel_size=13.48 --contrast=bright

Each export is a new numbered folder, which appears whole: TensorFlow Serving may be watching. It takes subtomograms as
they are (standardisation is inside), refuses another box and voxels that are not finite, and carries class names, box,
voxel size and contrast in assets/model.json. Neither Keras nor this package is needed to use it. A COS-Net takes a
support set beside the subtomograms, and answers classes and masks.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError


@dataclasses.dataclass
class Options:
    run: str | None = flag(None, "Folder of a finished run: a classifier, or an encoder, which answers features.")
    output: str | None = flag(None, "Folder of the versions. Default: RUN/savedmodel.")
    version: int | None = flag(None, "Number of the version. Default: one more than the highest there is.")
    voxel_size: float | None = flag(None, "Voxel size in A that it was trained on, where the run does not know it.")
    contrast: str | None = flag(
        None, "How it was trained to see protein, where the run does not know it.", choices=("bright", "dark")
    )


def run(options: Options) -> None:
    if options.run is None:
        raise InputError("--run is missing: give the folder of a finished run, for example --run=runs/mine.")
    if options.version is not None and options.version < 1:
        raise InputError(f"--version={options.version} must be 1 or more.")
    if options.voxel_size is not None and options.voxel_size <= 0:
        raise InputError(f"--voxel_size={options.voxel_size} must be above 0.")

    from aitom_ssl.export.run_export import checked_export, docker_line, export_run, model_config
    from aitom_ssl.training.quiet import import_keras_quietly

    request = checked_export(options.run, options.output, options.version, options.voxel_size, options.contrast)
    import_keras_quietly()
    description = export_run(request)

    folder, name = request.folder, request.name
    classes = len(description.class_names)
    voxels = "voxel size unknown" if description.voxel_size is None else f"voxels of {description.voxel_size:g} A"
    contrast = "contrast unknown" if description.contrast is None else f"{description.contrast} protein"
    kind = f"{classes} classes" if classes else "an encoder"
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(
        f"{folder}  {description.architecture}, {kind}, {description.size}^3, {voxels}, {contrast}, {megabytes:.1f} MB"
    )
    if None in (description.voxel_size, description.contrast):
        print("What is unknown cannot be checked against data: --voxel_size and --contrast say it in the next version.")
    answer = "probabilities" if classes else "features"
    print(f"\nTensorFlow Serving:\n  {docker_line(folder.parent, name)}")
    print(f"or, in a file for --model_config_file:\n  {model_config(name)}")
    print(f'and from Python (aitom_ssl.export.client):\n  PredictClient("localhost:8500", "{name}").{answer}(volumes)')
