"""Show where a trained classifier looks: Grad-CAM or Respond-CAM maps of chosen particles, as MRC files and a picture.

    aitom-ssl explain --run=runs/inception3d-sim_demo --data=sim_demo --output=maps
    aitom-ssl explain --run=runs/pretrained --compare=runs/random --data=sim_snr005 --count=5 --output=maps
    aitom-ssl explain --run=runs/mine --data=folder_of_mrc/ --indices=0,5,9 --target=ribosome_70s --output=maps
    aitom-ssl explain --run=runs/mine --data=picks.star --tomogram=tomogram.mrc --invert_contrast --output=maps

--run takes a run with a network that knows classes (train_supervised, finetune, import_legacy). --data is that of
predict; samples are numbered in it from 0.

For sample 5 the output folder gets 00005_volume.mrc (what the network was given: standardised, protein in the contrast
of its training) and 00005_map.mrc, which a viewer lays over it; 00005_map_compare.mrc is that of --compare. explain.png
shows the central slices of each sample, the models side by side. maps.csv has classes, probabilities, the map's maximum
(peak_x, peak_y, peak_z, in voxels from 0) and central_share: how much of the map lies within a third of the box of the
centre (of a map that is the same everywhere 0.15). A low one says that the network looks past the particle.

A map says where the network finds what speaks for a class, not whether it is right. --method=grad_cam keeps what speaks
for it; in respond_cam what speaks against it is negative. Take respond_cam for networks that flatten their maps
(inception3d, dsrf3d, ... without --pooling=avg): there Grad-CAM's may be empty, or lie at the border.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from aitom_ssl.cli import predict
from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError


@dataclasses.dataclass
class Options(predict.Shared):
    compare: str | None = flag(None, "A second run, whose maps of the same samples stand beside those of --run.")
    split: str | None = flag(None, "Split of a dataset. Default: test.", choices=("train", "validation", "test"))
    label_column: str | None = flag(None, "Column of a STAR file whose values are classes.")
    count: int = flag(8, "Samples to explain, equally many of each class as far as they go.")
    indices: str | None = flag(None, "Samples to explain in place of --count, as 0,5,9: numbers in the data, from 0.")
    seed: int = flag(0, "Draws the samples.")
    method: str = flag("grad_cam", "How activations and gradients make a map.", choices=("grad_cam", "respond_cam"))
    layer: str | None = flag(
        None,
        "Layer whose maps are taken, such as block4_relu of RB3D. Default: the last one before pools and fully "
        "connected layers with at least 4 voxels a side.",
    )
    target: str = flag("predicted", "Class that the maps are of: predicted, label (the true one), or a class's name.")
    batch_size: int = flag(16, "Volumes that go through the network at a time.")


def run(options: Options) -> None:
    """Explain, and print the table."""
    predict.check(options)
    indices = _indices(options.indices)
    if options.count < 1:
        raise InputError(f"--count={options.count}: expected 1 or more.")
    if options.seed < 0:
        raise InputError(f"--seed={options.seed}: expected 0 or more.")

    from aitom_ssl.export.explain import explain_classifier

    reading = predict.reading(options)
    shared = ("compare", "count", "seed", "method", "layer", "target", "batch_size", "precision", "ignore_mismatch")
    explanation = explain_classifier(
        options.run,
        options.data,
        options.output,
        reading=reading,
        indices=indices,
        command=predict.command("explain", options),
        **{name: getattr(options, name) for name in shared},
    )
    print(_table(explanation.rows))
    for note in explanation.notes:
        print(f"note: {note}")
    print(f"{explanation.folder}/explain.png, maps.csv and {len(explanation.rows)} maps as MRC files")


def _indices(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal()]
    if wrong:
        raise InputError(f"--indices={text}: {wrong[0]!r} is no number of a sample, expected some as in --indices=0,5.")
    return [int(part) for part in parts]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sample by sample as aligned plain text."""
    from aitom_ssl.evaluation.report import aligned

    columns = ("sample", "run", "label", "predicted", "probability", "target", "central_share")
    lines = [columns, *([str(row[name]) or "-" for name in columns] for row in rows)]
    return "\n".join(aligned(lines))
