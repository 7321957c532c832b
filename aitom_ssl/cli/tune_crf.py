"""Find the parameters of the CRF that make a trained COS-Net's masks best, on samples whose masks are known.

    aitom-ssl tune_crf --run=runs/cosnet-cosnet_snr05
    aitom-ssl tune_crf --run=runs/mine --data=my_dataset/ --split=validation --samples=100

Weights, widths and steps are searched one after the other for the highest mean Dice similarity (DSC), from the
published ones and from gentle ones. The run keeps the best as crf.json, with everything that was tried, and crf.png
shows some masks before and after; segment and classify_oneshot then use it.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError


@dataclasses.dataclass
class Options:
    run: str | None = flag(None, "Folder of a run of train_cosnet.")
    data: str | None = flag(None, "Dataset with masks. Default: the one that the run was trained on.")
    split: str = flag(
        "validation", "Split of it: not the one that was trained on.", choices=("train", "validation", "test")
    )
    samples: int = flag(42, "Samples to search on, in turn from the classes.")


def run(options: Options) -> None:
    """Search, and say what was found."""
    if options.run is None:
        raise InputError("--run is missing: give it, for example --run=runs/mine.")
    if options.samples < 1:
        raise InputError(f"--samples={options.samples}: expected 1 or more.")

    from aitom_ssl.oneshot.crf_tuning import tune_crf

    found = tune_crf(options.run, options.data, options.split, options.samples)
    print(f"mean DSC without the CRF      {found.without:.3f}")
    print(f"published parameters          {found.published.dsc:.3f}")
    print(f"best of {len(found.trials):>4} that were tried {found.best.dsc:.3f}")
    for name, value in found.best.parameters.to_dict().items():
        print(f"  {name:<16} {value:g}")
    if not found.helps:
        print("The CRF does not make these masks better: segment leaves it out unless --crf is given.")
    print(f"{options.run}/crf.json and crf.png")
