"""What views, heads and normalisation are worth: SimCLR with one thing changed at a time, on several datasets.

    python -m benchmarks.views [--data=sim_snrinf,crop_snr05_halves] [--epochs=8] [--seeds=3] [--variants=...]
                               [--output=runs/views]

Every variant is a run of `train_simclr --preset=crowded` with the flags beside its name, read out by `finetune
--epochs=0` with a quarter of the training labels, drawn by the seeds 0, 1, ...: linear probe and kNN of the frozen
encoder on the test split (the presets were chosen on validation samples). Beside it the same encoder untrained.
Several processes with the same --output share the work; what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import heading

# Name to (flags of train_simclr, whether it needs half images).
VARIANTS: dict[str, tuple[dict[str, object], bool]] = {
    "paper's views, whole box": ({"augmentation": "ssl2022", "field": 1}, False),
    "paper's views": ({"augmentation": "ssl2022"}, False),
    "3-D rotation": ({"augmentation": "recommended,noise=0:0"}, False),
    "3-D rotation, noise": ({"augmentation": "recommended"}, False),
    "3-D rotation, noise, wedge": ({"augmentation": "recommended,wedge=60"}, False),
    "3-D rotation, noise, surroundings": ({}, False),
    "half turns, noise, surroundings": ({"augmentation": "crowded,rotation=half_turns"}, False),
    "3-D rotation, noise, surroundings, wedge": ({"augmentation": "crowded,wedge=60"}, False),
    "3-D rotation, noise, surroundings, whole box": ({"field": 1}, False),
    "3-D rotation, noise, surroundings, half images": ({"views": "halves"}, True),
    "3-D rotation, surroundings, half images": ({"views": "halves", "augmentation": "crowded,noise=0:0"}, True),
    "head v1 (linear)": ({"head": "v1"}, False),
    "head v2 (no BatchNorm)": ({"head": "v2"}, False),
    "head v2_bn (BatchNorm inside)": ({"head": "v2_bn"}, False),
    "RB3D with GroupNorm": ({"encoder": "rb3d_gn"}, False),
    "ResNet18_3D (BatchNorm)": ({"encoder": "resnet18_3d"}, False),
}


class Untrained(NamedTuple):
    """An encoder as it is initialised, which several variants start from."""

    data: str
    flags: tuple[str, ...]  # of finetune

    @property
    def folder(self) -> Path:
        return Path(self.data) / "-".join(["untrained", *(flag.partition("=")[2] for flag in self.flags)])

    @property
    def needs(self) -> tuple:
        return ()

    def __str__(self) -> str:
        return f"untrained encoder on {self.data} {' '.join(self.flags)}".rstrip()


class Variant(NamedTuple):
    """One trained encoder."""

    data: str
    name: str

    @property
    def flags(self) -> dict[str, object]:
        return VARIANTS[self.name][0]

    @property
    def folder(self) -> Path:
        return Path(self.data) / f"{list(VARIANTS).index(self.name):02d}"

    @property
    def untrained(self) -> Untrained:
        names = {"encoder": "model", "field": "field"}
        return Untrained(self.data, tuple(f"--{names[n]}={v}" for n, v in self.flags.items() if n in names))

    @property
    def needs(self) -> tuple[Untrained]:
        return (self.untrained,)

    def __str__(self) -> str:
        return f"{self.name} on {self.data}"


def command(*words: str) -> None:
    print("aitom-ssl", *words, flush=True)
    subprocess.run([sys.executable, "-m", "aitom_ssl.cli", *words], check=True)


def measure(job: Untrained | Variant, output: Path, epochs: int, seeds: int) -> None:
    """results.json in the job's folder: probe and kNN accuracies by seed."""
    from aitom_ssl.files import write_json

    folder = output / job.folder
    shared = [f"--data={job.data}", "--preset=crowded", "--precision=mixed_bfloat16"]
    if isinstance(job, Variant):
        run = folder / "run"
        if not (run / "report.html").is_file():
            asked = {**job.flags, "epochs": epochs, "knn_every": epochs, "output": run}
            again = ["--resume", f"--output={run}"] if run.is_dir() else []
            command("train_simclr", *(again or [*shared, *(f"--{name}={value}" for name, value in asked.items())]))
        start = [f"--pretrained={run}"]
    else:
        start = ["--pretrained=none", *job.flags]
    found: dict[str, list[float]] = {"probe_accuracy": [], "knn_accuracy": []}
    for seed in range(seeds):
        cell = folder / f"seed{seed}"
        if not (cell / "results.json").is_file():
            flags = ["--fraction=0.25", "--epochs=0", f"--seed={seed}", f"--output={cell}"]
            command("finetune", *shared, *start, *flags)
        results = json.loads((cell / "results.json").read_text(encoding="utf-8"))
        for name, values in found.items():
            values.append(results[name])
    write_json(folder / "results.json", found)


def table(output: Path, variants: list[Variant]) -> str:
    """What is finished, as Markdown."""
    from aitom_ssl.evaluation.statistics import mean_and_spread

    lines = ["| data | views, head, encoder | probe untrained | probe trained | kNN untrained | kNN trained |"]
    lines.append("|---|---|---|---|---|---|")
    for variant in variants:
        files = [output / job.folder / "results.json" for job in (variant.untrained, variant)]
        if all(file.is_file() for file in files):
            found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            cells = [mean_and_spread(one[name]) for name in ("probe_accuracy", "knn_accuracy") for one in found]
            lines.append(f"| {variant.data} | {variant.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sim_snrinf,crop_snr05_halves")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", default=",".join(map(str, range(len(VARIANTS)))), help="numbers, with commas")
    parser.add_argument("--output", default="runs/views")
    options = parser.parse_args()

    from aitom_ssl.data import load_spec
    from aitom_ssl.training.jobs import run_jobs

    output, names = Path(options.output), [list(VARIANTS)[int(number)] for number in options.variants.split(",")]
    variants = [
        Variant(data, name)
        for data in options.data.split(",")
        for name in names
        if not VARIANTS[name][1] or load_spec(data).has_halves
    ]
    for data in {variant.data for variant in variants}:
        (output / data).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    failed = run_jobs(
        output,
        [*dict.fromkeys(variant.untrained for variant in variants), *variants],
        lambda job: measure(job, output, options.epochs, options.seeds),
        lambda job: (output / job.folder / "results.json").is_file(),
        lambda: None,
    )
    print(heading("keras", "tensorflow"), table(output, variants), sep="\n\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
