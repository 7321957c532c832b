"""Classify and segment subtomograms by one example of each class, or a few, with a trained COS-Net.

    aitom-ssl classify_oneshot --run=runs/mine --support=examples/ --data=folder_of_mrc/ --output=out
    aitom-ssl classify_oneshot --run=runs/mine --support=examples/ --data=picks.star --tomogram=t.mrc --output=out

--support is a folder with CLASS.mrc for a class of one example, and a sub-folder CLASS/ with some MRC files for a class
of several; their voxel size and box are those of the network, as of the data. --data takes a dataset, a folder of MRC
files, or a STAR file, as predict does. The classes need not be among those that the network was trained on.

Written are predictions.csv (a row a particle: the closest class, its mask and volume_nm3, the class or "none", its
score and a score for each class), predictions.star (with rlnClassNumber, aitomScore, aitomScore_NAME; "none" is the
last class, and its score the threshold), masks/*.mrc as segment writes them, and report.html with its pictures.

A score is 0.5 where a particle is as likely of the class as of none of them, judged by the examples turned by 180
degrees about x, y and z: against all classes, and against all but their own. What looks more like a class than the
classes look like each other passes for it; of a class with one example, somewhat more particles than said are called
none. Give a second example of each class where you can. --threshold moves the line: higher is stricter.

Interrupted, the same command goes on after the last 256 particles that were finished.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli import predict, segment
from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError


@dataclasses.dataclass
class Options(segment.Shared):
    support: str | None = flag(None, "Folder with examples: CLASS.mrc, or a sub-folder a class.")
    support_contrast: str | None = flag(
        None,
        "Of the protein in the support set. Default: dark with --invert_contrast, else bright.",
        choices=("bright", "dark"),
    )
    threshold: float = flag(0.5, "Score from 0 to 1 that a particle needs to be of a class and not of none.")


def run(options: Options) -> None:
    """Classify, and say what came of it."""
    predict.check(options)
    if options.support is None:
        raise InputError("--support is missing: give it, for example --support=examples/.")
    if not 0 <= options.threshold <= 1:
        raise InputError(f"--threshold={options.threshold:g}: expected a score from 0 to 1.")

    from aitom_ssl.export.oneshot_classification import classify_oneshot
    from aitom_ssl.oneshot.calibration import calibration_words
    from aitom_ssl.oneshot.crf import choose_field

    shared = ("threshold", "probabilities", "batch_size", "precision", "ignore_mismatch", "skip_damaged")
    contrast = options.support_contrast
    outcome = classify_oneshot(
        options.run,
        options.support,
        options.data,
        options.output,
        predict.reading(options),
        support_dark=None if contrast is None else contrast == "dark",
        field=choose_field(options.run, options.crf),
        command=predict.command("classify_oneshot", options),
        **{name: getattr(options, name) for name in shared},
    )
    total = sum(outcome.classes.values())
    predict.print_classes(outcome.classes)
    print(calibration_words(outcome.calibration))
    measured = outcome.measured
    if measured is not None:
        print(
            f"of {measured['known']:,} labelled with one of these classes: right {measured['right']:.1%}, closest "
            f"{measured['closest']:.1%}, called none {measured['missed']:.1%}"
        )
        if measured["rejected"] is not None:
            print(f"of {measured['others']:,} labelled with others: called none {measured['rejected']:.1%}")
    for note in outcome.notes:
        print(f"note: {note}")
    predict.print_left_out(outcome.left_out)
    if outcome.new:
        print(f"{outcome.new:,} subtomograms in {outcome.seconds:.1f} s, {outcome.new / outcome.seconds:,.0f}/s")
    else:
        print("These predictions were finished already.")
    print(f"{outcome.folder}/predictions.csv and predictions.star: {total:,} particles")
    print(f"report  {outcome.folder}/report.html")
