"""Segment subtomograms: a mask of the particle in each, and its volume in nm^3, with a trained COS-Net.

    aitom-ssl segment --run=runs/cosnet-cosnet_snr1000 --data=folder_of_mrc/ --invert_contrast --output=masks
    aitom-ssl segment --run=runs/mine --data=picks.star --tomogram=tomogram.mrc --invert_contrast --output=masks
    aitom-ssl segment --run=runs/mine --data=cosnet_snr05 --split=test --crf --output=masks

--data takes a dataset, a folder of MRC files, or a STAR file, as predict does. The particles may be of classes that the
network never saw. Written are masks/*.mrc (1 in the particle, in the box and with the voxel size of the data),
volumes.csv (a row a particle: its mask, voxels, volume_nm3, in how many pieces it is, at_rim: voxels in the outermost
layer of the box, where the particle may go on; probability: mean over the mask), masks.png, volumes.png, report.html.

The CRF (a dense conditional random field, Zhou 2020) sharpens the network's masks where its parameters suit the data:
find them with tune_crf first. --crf without that takes the published ones, which empty the masks of crowded or noisy
volumes. It needs pydensecrf2, which Python 3.13 does not have yet.

Interrupted, the same command goes on after the last 256 particles that were finished.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli import predict
from aitom_ssl.cli.common import flag
from aitom_ssl.training.precision import PRECISIONS


@dataclasses.dataclass
class Shared(predict.Options):
    """Flags of commands that make masks."""

    run: str | None = flag(None, "Folder of a run of train_cosnet.")
    split: str | None = flag(
        None, "Split of a dataset. Default: all of them.", choices=("train", "validation", "test")
    )
    crf: bool | None = flag(
        None, "Sharpen the masks with the CRF (--nocrf: do not). Default: if tune_crf found that it helps this run."
    )
    probabilities: bool = flag(False, "Write probabilities/*.mrc too, what the masks are above a half of.")
    batch_size: int = flag(16, "Volumes that go through the network at a time.")
    precision: str | None = flag(None, "Numbers to compute in. Default: as it was trained.", choices=PRECISIONS)


@dataclasses.dataclass
class Options(Shared):
    pass


def run(options: Options) -> None:
    """Segment, and say what came of it."""
    predict.check(options)

    from aitom_ssl.export.segmentation import segment_files
    from aitom_ssl.oneshot.crf import choose_field

    shared = ("probabilities", "batch_size", "precision", "ignore_mismatch", "skip_damaged")
    outcome = segment_files(
        options.run,
        options.data,
        options.output,
        predict.reading(options),
        field=choose_field(options.run, options.crf),
        command=predict.command("segment", options),
        **{name: getattr(options, name) for name in shared},
    )
    for note in outcome.notes:
        print(f"note: {note}")
    predict.print_left_out(outcome.left_out)
    median = "" if outcome.median_nm3 is None else f", median volume {outcome.median_nm3:,.0f} nm^3"
    if outcome.new:
        print(f"{outcome.new:,} subtomograms in {outcome.seconds:.1f} s, {outcome.new / outcome.seconds:,.0f}/s")
    else:
        print("These masks were finished already.")
    print(f"{outcome.folder}/masks and volumes.csv: {outcome.particles:,} particles{median}")
    print(f"report  {outcome.folder}/report.html")
