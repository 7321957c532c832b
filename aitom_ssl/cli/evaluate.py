"""Measure a trained classifier on labelled subtomograms: accuracy, class by class, confusion, calibration.

    aitom-ssl evaluate --run=runs/inception3d-sim_snr005 --data=sim_snr003 --split=test --output=evaluation
    aitom-ssl evaluate --run=runs/mine --data=folder_of_mrc/ --output=evaluation
    aitom-ssl evaluate --run=runs/mine --data=particles.star --tomogram=tomogram.mrc --label_column=rlnClassNumber \\
        --output=evaluation

--run and --data are those of predict; in a folder of MRC files every sub-folder is a class. Classes are matched by
name, whatever their order. The output folder gets results.json and report.html; an evaluation in it is replaced.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli import predict
from aitom_ssl.cli.common import flag


@dataclasses.dataclass
class Options(predict.Shared):
    label_column: str | None = flag(None, "Column of a STAR file whose values are classes.")
    ignore_unknown: bool = flag(False, "Leave out particles of classes that the model does not know.")


def run(options: Options) -> None:
    """Measure, and print the table."""
    predict.check(options)

    from aitom_ssl.export.prediction import evaluate_classifier

    reading = predict.reading(options)
    shared = ("batch_size", "precision", "ignore_mismatch", "ignore_unknown")
    metrics, notes = evaluate_classifier(
        options.run,
        options.data,
        options.output,
        reading,
        command=predict.command("evaluate", options),
        **{name: getattr(options, name) for name in shared},
    )
    print(metrics.table())
    for note in notes:
        print(f"note: {note}")
    print(f"report  {options.output}/report.html")
