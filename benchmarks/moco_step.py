"""A MoCo training step beside the same step written in PyTorch, in milliseconds.

    python -m benchmarks.moco_step [--batch_size=16] [--side=32] [--threads=1] [--rounds=15] [--steps=2]

RB3D pooled, standardised features, one linear projection to 128, queue of 128, momentum 0.999, temperature 0.2, Adam
with weight decay, on random volumes. Ours includes drawing both views with the paper's augmentation; the PyTorch step
is given its views for nothing. Each row is a process of its own, all take turns within a round, so that a busy machine
is busy for all; medians over rounds. One thread is counted in processor time, several in wall time. The ratio is of the
best PyTorch row to each row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks import heading

OURS = {"aitom_ssl float32": "float32", "aitom_ssl bfloat16": "mixed_bfloat16"}
# name: (bfloat16 autocast, channels_last_3d)
TORCH = {
    "PyTorch float32": (False, False),
    "PyTorch float32, channels last": (False, True),
    "PyTorch bfloat16": (True, False),
    "PyTorch bfloat16, channels last": (True, True),
}
VIEWS = "two augmented views alone"
DIM, QUEUE, MOMENTUM, TEMPERATURE, RATE, DECAY = 128, 128, 0.999, 0.2, 1e-4, 1e-4


def our_step(policy: str, batch_size: int, side: int, threads: int, views_only: bool = False) -> Callable[[], object]:
    import keras
    import numpy as np
    import tensorflow as tf

    from aitom_ssl.augmentation import SubtomogramAugmenter
    from aitom_ssl.models import RB3D
    from aitom_ssl.ssl import MoCo

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    keras.config.set_dtype_policy(policy)
    encoder = RB3D((side, side, side, 1), include_top=False, pooling="avg")
    moco = MoCo(encoder, SubtomogramAugmenter("ssl2022"), DIM, QUEUE, MOMENTUM, TEMPERATURE)
    volumes = tf.constant(np.random.default_rng(0).standard_normal((batch_size, side, side, side, 1)), tf.float32)
    if views_only:
        return tf.function(lambda: [tf.reduce_sum(view) for view in moco.views(volumes)], autograph=False)
    moco.compile(keras.optimizers.Adam(RATE, weight_decay=DECAY))
    return tf.function(lambda: moco.train_step((volumes,))["loss"], autograph=False)


def torch_step(autocast: bool, channels_last: bool, batch_size: int, side: int, threads: int) -> Callable[[], object]:
    import copy

    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.shortcut = nn.Conv3d(32, 16, 3, padding=1)
            self.reduce, self.conv = nn.Conv3d(32, 16, 1), nn.Conv3d(16, 32, 3, padding=1)
            self.expand = nn.Conv3d(32, 16, 1)

        def forward(self, x):
            y = self.expand(F.relu(self.conv(F.relu(self.reduce(x)))))
            return F.relu(torch.cat([F.relu(self.shortcut(x)), y], dim=1))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv3d(1, 32, 3, padding=1)
            self.blocks = nn.Sequential(*(Block() for _ in range(4)))
            self.norm, self.head = nn.BatchNorm1d(256, affine=False), nn.Linear(256, DIM)

        def forward(self, x):
            x = self.blocks(F.max_pool3d(F.relu(self.stem(x)), 2))
            return self.head(self.norm(F.adaptive_avg_pool3d(x, 2).flatten(1)))

    torch.set_num_threads(threads)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    query = Network().to(memory_format=layout).train()
    key = copy.deepcopy(query).requires_grad_(False)
    weights = list(query.parameters())
    optimizer = torch.optim.Adam(weights, lr=RATE, weight_decay=DECAY)
    views = [torch.randn(batch_size, 1, side, side, side).to(memory_format=layout) for _ in range(2)]
    queue = F.normalize(torch.randn(QUEUE, DIM), dim=1)
    pointer = 0

    def embed(network, view):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = network(view)
        return F.normalize(output.float(), dim=1)

    def step():
        nonlocal pointer
        q = embed(query, views[0])
        with torch.no_grad():
            torch._foreach_lerp_(list(key.parameters()), weights, 1 - MOMENTUM)
            k = embed(key, views[1])
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.clone().T], dim=1) / TEMPERATURE
        loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
        queue[(pointer + torch.arange(len(k))) % QUEUE] = k
        pointer = (pointer + len(k)) % QUEUE
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def serve(name: str, batch_size: int, side: int, threads: int) -> None:
    """A worker: for each number of steps on stdin, the seconds that a step took on stdout."""
    if name in TORCH:
        step = torch_step(*TORCH[name], batch_size, side, threads)
    else:
        step = our_step(OURS.get(name, "float32"), batch_size, side, threads, views_only=name == VIEWS)
    clock = time.process_time if threads == 1 else time.perf_counter
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = clock()
        for _ in range(int(line)):
            step()
        print((clock() - start) / int(line), flush=True)


def measure(names: list[str], arguments: list[str], threads: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of each worker, one value a round; all workers take turns."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.moco_step", f"--worker={name}", *arguments]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        workers[name] = subprocess.Popen(command, text=True, env=environment, **pipe)
        if workers[name].stdout.readline().strip() != "ready":
            raise SystemExit(f"The worker {name!r} did not start; run it to see why: {' '.join(command)}")
    seconds = {name: [] for name in names}
    for _ in range(rounds):
        for name, worker in workers.items():
            # The threads of the worker before stop waiting busily.
            time.sleep(0.3)
            worker.stdin.write(f"{steps}\n")
            worker.stdin.flush()
            seconds[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return serve(options.worker, options.batch_size, options.side, options.threads)

    names = [*OURS, *TORCH, VIEWS]
    passed = [f"--{name}={getattr(options, name)}" for name in ("batch_size", "side", "threads")]
    seconds = measure(names, passed, options.threads, options.rounds, options.steps)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(middle[name] for name in TORCH)
    what = f"batch {options.batch_size} of {options.side}^3, threads: {options.threads}, rounds: {options.rounds}"
    print(f"{heading('tensorflow', 'keras', 'torch')}\nMoCo step, {what}\n")
    print(f"{'':<34}{'ms':>8}{'fastest':>10}{'slowest':>10}{'ratio':>8}{'views':>8}")
    for name, values in seconds.items():
        cells = [f"{1000 * v:.0f}" if v >= 0.1 else f"{1000 * v:.1f}" for v in (middle[name], min(values), max(values))]
        ratio = "" if name == VIEWS else f"{best / middle[name]:.2f}x"
        share = f"{middle[VIEWS] / middle[name]:.1%}" if name in OURS else ""
        print(f"{name:<34}{cells[0]:>8}{cells[1]:>10}{cells[2]:>10}{ratio:>8}{share:>8}")


if __name__ == "__main__":
    main()
