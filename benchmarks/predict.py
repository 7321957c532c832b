"""`bin/predict` from files to files beside a PyTorch program that does the same, in subtomograms a second.

    python -m benchmarks.predict [--model=inception3d] [--side=32] [--classes=10] [--count=4096] [--rounds=3]

Every row is a process of its own on the shards of one dataset (random volumes, float16) and one set of weights: ours is
the command itself, with its CSV and STAR files; the peer is the same network in PyTorch behind a DataLoader with two
workers, with its CSV file. They take turns; medians over rounds. "per s" counts from the loaded model to the last file,
"with start" from the start of the process; the shares are of the former: waiting for data, in the network, writing.
"differs" is the largest difference of a probability from our float32. The peer is written for Inception3D alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import heading

GOAL = 278  # one million in an hour
OURS = {"bin/predict": None, "bin/predict, bfloat16": "mixed_bfloat16"}
# name: (bfloat16 autocast, channels_last_3d)
TORCH = {
    "PyTorch": (False, False),
    "PyTorch, channels last": (False, True),
    "PyTorch, bfloat16": (True, False),
    "PyTorch, bfloat16, channels last": (True, True),
}
BATCH, WORKERS = 64, 2


# === What all of them are given ===


def make(folder: Path, model: str, side: int, classes: int, count: int) -> None:
    """A dataset, a run with an untrained network, and its weights as layer names and arrays."""
    from aitom_ssl.training.quiet import import_keras_quietly

    import_keras_quietly()
    import keras

    from aitom_ssl import models
    from aitom_ssl.data import write_dataset
    from aitom_ssl.data.batches import standardize
    from aitom_ssl.training import RunFolder

    names = [f"class{i}" for i in range(classes)]
    rng = np.random.default_rng(0)
    volumes = (standardize(rng.standard_normal((1, side, side, side)).astype(np.float32))[0] for _ in range(count))
    samples = ({"volume": volume, "label": i % classes} for i, volume in enumerate(volumes))
    write_dataset(folder / "data", "random", names, 10.0, "bright", {"test": samples}, None, "float16", True)
    keras.utils.set_random_seed(0)
    network = models.get(model)((side, side, side, 1), classes)
    run = RunFolder.create(folder / "run", model, "random")
    description = models.ModelDescription(model, tuple(names), side, 10.0, "bright")
    run.write_config({"method": model, "settings": {"data": "random"}, "model": description.to_dict()})
    run.save_model(network)
    weights = {f"{layer.name}/{i}": w for layer in network.layers for i, w in enumerate(layer.get_weights())}
    np.savez(folder / "weights.npz", **weights)


# === The peer ===


def torch_inception(weights: Any, side: int, classes: int) -> Any:
    """Inception3D with the weights of ours; the last layer's are reordered, as features are channels first here."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    def convolution(name: str, padding: int) -> nn.Conv3d:
        kernel, bias = weights[f"{name}/0"], weights[f"{name}/1"]
        layer = nn.Conv3d(kernel.shape[3], kernel.shape[4], kernel.shape[0], padding=padding)
        layer.weight.data = torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).copy())
        layer.bias.data = torch.from_numpy(bias)
        return layer

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = convolution("stem", 0)
            self.branch1 = convolution("branch1", 0)
            self.branch3_reduce, self.branch3 = convolution("branch3_reduce", 0), convolution("branch3", 1)
            self.branch5_reduce, self.branch5 = convolution("branch5_reduce", 0), convolution("branch5", 2)
            self.branch_pool_project = convolution("branch_pool_project", 0)
            kernel = weights["classifier/0"]
            out = (side - 4) // 2 - 1
            kernel = kernel.reshape(out, out, out, 160, classes).transpose(4, 3, 0, 1, 2).reshape(classes, -1)
            self.classifier = nn.Linear(kernel.shape[1], classes)
            self.classifier.weight.data = torch.from_numpy(kernel.copy())
            self.classifier.bias.data = torch.from_numpy(weights["classifier/1"])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.max_pool3d(F.relu(self.stem(x)), 2)
            pooled = F.max_pool3d(F.pad(x, (0, 1) * 3), 2, stride=1)  # after a ReLU no voxel is below the padding
            branches = [
                F.relu(self.branch1(x)),
                F.relu(self.branch3(F.relu(self.branch3_reduce(x)))),
                F.relu(self.branch5(F.relu(self.branch5_reduce(x)))),
                F.relu(self.branch_pool_project(pooled)),
            ]
            x = F.avg_pool3d(torch.cat(branches, dim=1), 2, stride=1)
            return self.classifier(x.flatten(1))

    return Network().eval()


def run_torch(name: str, folder: Path, side: int, classes: int) -> None:
    """The peer's process: shards to CSV, seconds as JSON on stdout."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    autocast, channels_last = TORCH[name]

    class Shards(Dataset):
        def __init__(self) -> None:
            self.files = sorted((folder / "data" / "test").glob("volumes-*.npy"))
            self.first = np.cumsum([0, *(len(np.load(file, mmap_mode="r")) for file in self.files)])

        def __len__(self) -> int:
            return int(self.first[-1])

        def __getitem__(self, index: int) -> np.ndarray:
            shard = int(np.searchsorted(self.first, index, side="right") - 1)
            rows = np.load(self.files[shard], mmap_mode="r")
            return rows[index - self.first[shard]].astype(np.float32)[None]

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    with np.load(folder / "weights.npz") as weights:
        network = torch_inception(dict(weights), side, classes).to(memory_format=layout)
    seconds = dict.fromkeys(("waiting", "computing", "writing"), 0.0)
    started = time.perf_counter()
    batches = iter(DataLoader(Shards(), BATCH, num_workers=WORKERS))
    with open(folder / "torch.csv", "w", newline="") as file, torch.inference_mode():
        writer, done = csv.writer(file), 0
        writer.writerow(["particle", "class", "confidence", *(f"class{i}" for i in range(classes))])
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            read = time.perf_counter()
            seconds["waiting"] += read - start
            if batch is None:
                break
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                logits = network(batch.to(memory_format=layout))
            found = torch.softmax(logits.float(), dim=1).numpy()
            answered = time.perf_counter()
            seconds["computing"] += answered - read
            for row in found:
                writer.writerow([done, int(row.argmax()), row.max(), *row])
                done += 1
            seconds["writing"] += time.perf_counter() - answered
    print(json.dumps({"total": time.perf_counter() - started, **seconds}))


# === Measuring ===


def measure(name: str, folder: Path, arguments: list[str]) -> dict[str, float]:
    """Seconds of one process: its own, and `process` from start to end."""
    output = Path(tempfile.mkdtemp(dir=folder)) / "out"
    if name in OURS:
        flags = [f"--run={folder / 'run'}", f"--data={folder / 'data'}", f"--output={output}", f"--batch_size={BATCH}"]
        flags += [f"--precision={OURS[name]}"] if OURS[name] else []
        command = [sys.executable, "-m", "aitom_ssl.cli", "predict", *flags]
    else:
        command = [sys.executable, "-m", "benchmarks.predict", f"--worker={name}", f"--folder={folder}", *arguments]
    time.sleep(0.5)
    start = time.perf_counter()
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    process = time.perf_counter() - start
    seconds = json.loads((output / "predictions.json").read_text())["seconds"] if name in OURS else json.loads(shown)
    found = output / "predictions.csv" if name in OURS else folder / "torch.csv"
    return {**seconds, "process": process, "probabilities": probabilities(found)}


def probabilities(path: Path) -> np.ndarray:
    """The columns after the confidence."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    first = rows[0].index("confidence") + 1
    return np.array([row[first:] for row in rows[1:]], dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="inception3d")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return run_torch(options.worker, options.folder, options.side, options.classes)

    names = [*OURS, *(TORCH if options.model.lower() == "inception3d" else ())]
    arguments = [f"--side={options.side}", f"--classes={options.classes}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.model, options.side, options.classes, options.count)
        found = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                found[name].append(measure(name, folder, arguments))

    what = f"{options.model}, {options.count:,} of {options.side}^3, {options.classes} classes, batches of {BATCH}"
    print(f"{heading('tensorflow', 'keras', 'torch')}\n{what}, rounds: {options.rounds}; goal {GOAL}/s\n")
    columns = ("per s", "with start", "waiting", "network", "writing", "ratio", "differs")
    print(f"{'':<34}" + "".join(f"{column:>12}" for column in columns))
    middle = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0] if key != "probabilities"}
        for name, rounds in found.items()
    }
    best = min((middle[name]["total"] for name in names if name in TORCH), default=None)
    reference = found[names[0]][0]["probabilities"]
    for name, seconds in middle.items():
        shares = [f"{seconds[key] / seconds['total']:.1%}" for key in ("waiting", "computing", "writing")]
        ratio = f"{best / seconds['total']:.2f}x" if best else ""
        differs = f"{np.abs(found[name][0]['probabilities'] - reference).max():.1e}"
        rates = [f"{options.count / seconds[key]:.0f}" for key in ("total", "process")]
        print(f"{name:<34}" + "".join(f"{cell:>12}" for cell in (*rates, *shares, ratio, differs)))


if __name__ == "__main__":
    main()
