"""Run a legacy Keras file through tf-keras, and our twin of it, on the same volumes, and report how they agree.

    aitom-ssl compare_legacy --weights=model.h5 --data=my_particles/
    aitom-ssl compare_legacy --weights=model.h5 --data=sim_snr005 --split=validation --limit=500 --output=agreement.json

Volumes are shown with axes (z, y, x), ours, and (x, y, z), AITom's; standardised, as our commands do, and as stored.
With labelled data of as many classes it gives accuracies, and the order of the classes that fits the network's outputs
best: that is the --class_names of import_legacy, and the axes of the best row are its --axes.

Needs tf-keras: pip install "aitom_ssl[legacy]".
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError
from aitom_ssl.files import refuse_unwritable, write_json


@dataclasses.dataclass
class Options:
    weights: str | None = flag(None, "Keras HDF5 file: of model.save('x.h5') or save_weights. Opened read-only.")
    data: str | None = flag(None, "Name of a dataset (data_specs/NAME.yaml), a YAML file, or a dataset's folder.")
    split: str = flag("test", "Which split of it.", choices=("train", "validation", "test"))
    limit: int | None = flag(None, "At most this many volumes. Default: all.")
    output: str | None = flag(None, "JSON file to write the report to as well. Default: none.")


def run(options: Options) -> None:
    for name, example in (("weights", "model.h5"), ("data", "sim_snr005")):
        if getattr(options, name) is None:
            raise InputError(f"--{name} is missing, for example --{name}={example}.")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit={options.limit} must be 1 or more.")
    if options.output is not None:
        if Path(options.output).is_dir():
            raise InputError(f"--output={options.output} is a folder: name a file, for example agreement.json.")
        refuse_unwritable(Path(options.output).parent)
    if importlib.util.find_spec("tf_keras") is None:
        raise InputError('tf-keras is not installed, and runs the legacy file: pip install "aitom_ssl[legacy]".')

    from aitom_ssl.data import load
    from aitom_ssl.export.legacy import identify_legacy
    from aitom_ssl.training.quiet import import_keras_quietly

    # A mistake is answered before TensorFlow is loaded.
    identify_legacy(options.weights)
    dataset = load(options.data, options.split, options.limit)
    identify_legacy(options.weights, dataset.size)
    import_keras_quietly()

    from aitom_ssl.export.compare_legacy import compare_legacy, table

    report = compare_legacy(options.weights, dataset)
    print(table(report))
    if options.output is not None:
        write_json(options.output, report)
        print(f"report   {options.output}")
