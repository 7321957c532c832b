"""A training step of each self-supervised method beside the same step in PyTorch with lightly's loss, in milliseconds.

    python -m benchmarks.ssl_step [--methods=moco,simclr,swav] [--batch_size=16] [--side=32] [--threads=1]
                                  [--rounds=15] [--steps=2]

RB3D pooled, standardised features, Adam with weight decay, on random volumes. MoCo: one linear projection to 128, queue
of 128, momentum 0.999, temperature 0.2. SimCLR: its head, temperature 0.2. SwAV: two layers with BatchNorm between,
64 prototypes, no queue. Ours includes drawing both views with the paper's augmentation; the PyTorch step is given its
views for nothing, and has lightly's NTXentLoss (with its memory bank for MoCo) and SwaVLoss.

Each row is a process of its own, all of a method take turns within a round, so that a busy machine is busy for all;
medians over rounds. One thread is counted in processor time, several in wall time. The ratio is of the best PyTorch row
to each row. Below stand what the two views and what the loss alone take, and their shares of our steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import heading
from benchmarks.workers import serve_steps, take_turns

METHODS = {"moco": "MoCo", "simclr": "SimCLR", "swav": "SwAV"}
OURS = {"aitom_ssl float32": "float32", "aitom_ssl bfloat16": "mixed_bfloat16"}
# name: (bfloat16 autocast, channels_last_3d)
TORCH = {
    "PyTorch float32": (False, False),
    "PyTorch float32, channels last": (False, True),
    "PyTorch bfloat16": (True, False),
    "PyTorch bfloat16, channels last": (True, True),
}
VIEWS, LOSS = "two augmented views alone", "the loss alone, with its gradient"
DIM, QUEUE, PROTOTYPES, MOMENTUM, TEMPERATURE, RATE, DECAY = 128, 128, 64, 0.999, 0.2, 1e-4, 1e-4
SWAV_TEMPERATURE = 0.1


def our_step(name: str, method: str, batch_size: int, side: int, threads: int) -> Callable[[], object]:
    import keras
    import numpy as np
    import tensorflow as tf

    from aitom_ssl.augmentation import SubtomogramAugmenter
    from aitom_ssl.models import RB3D
    from aitom_ssl.ssl import MoCo, SimCLR, SwAV

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    if name == LOSS:
        return _our_loss(method, batch_size)
    keras.config.set_dtype_policy(OURS.get(name, "float32"))
    encoder = RB3D((side, side, side, 1), include_top=False, pooling="avg")
    augmenter = SubtomogramAugmenter("ssl2022")
    if method == "moco":
        model = MoCo(encoder, augmenter, DIM, QUEUE, MOMENTUM, TEMPERATURE)
    elif method == "simclr":
        model = SimCLR(encoder, augmenter, DIM, TEMPERATURE)
    else:
        model = SwAV(encoder, augmenter, DIM, PROTOTYPES, head="v2_bn", queue_size=0, temperature=SWAV_TEMPERATURE)
    volumes = tf.constant(np.random.default_rng(0).standard_normal((batch_size, side, side, side, 1)), tf.float32)
    if name == VIEWS:
        return tf.function(lambda: [tf.reduce_sum(view) for view in model.views(volumes)], autograph=False)
    model.compile(keras.optimizers.Adam(RATE, weight_decay=DECAY))
    return tf.function(lambda: model.train_step((volumes,))["loss"], autograph=False)


def _our_loss(method: str, batch_size: int) -> Callable[[], object]:
    import tensorflow as tf

    from aitom_ssl.losses import info_nce, nt_xent, sinkhorn, swapped_prediction

    def rows(count: int) -> Any:
        return tf.math.l2_normalize(tf.random.normal((count, DIM)), axis=1)

    first, second, queue, prototypes = rows(batch_size), rows(batch_size), rows(QUEUE), rows(PROTOTYPES)

    def loss(one: Any, other: Any) -> Any:
        if method == "moco":
            return tf.reduce_mean(info_nce(one, other, queue, TEMPERATURE))
        if method == "simclr":
            return nt_xent(one, other, TEMPERATURE)
        scores = [tf.matmul(view, prototypes, transpose_b=True) for view in (one, other)]
        return swapped_prediction(scores, [sinkhorn(some) for some in scores], SWAV_TEMPERATURE)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch([first, second])
            value = loss(first, second)
        return tape.gradient(value, [first, second])[0]

    return step


def torch_step(name: str, method: str, batch_size: int, side: int, threads: int) -> Callable[[], object]:
    import copy

    import torch
    from lightly.loss import NTXentLoss, SwaVLoss
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

    heads = {
        "moco": [nn.Linear(256, DIM)],
        "simclr": [
            *(nn.Linear(256, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU()),
            *(nn.Linear(256, DIM, bias=False), nn.BatchNorm1d(DIM)),
        ],
        "swav": [nn.Linear(256, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, DIM)],
    }

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv3d(1, 32, 3, padding=1)
            self.blocks = nn.Sequential(*(Block() for _ in range(4)))
            self.norm, self.head = nn.BatchNorm1d(256, affine=False), nn.Sequential(*heads[method])

        def forward(self, x):
            x = self.blocks(F.max_pool3d(F.relu(self.stem(x)), 2))
            return self.head(self.norm(F.adaptive_avg_pool3d(x, 2).flatten(1)))

    torch.set_num_threads(threads)
    autocast, channels_last = TORCH[name]
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    network = Network().to(memory_format=layout).train()
    views = [torch.randn(batch_size, 1, side, side, side).to(memory_format=layout) for _ in range(2)]
    weights = list(network.parameters())

    def embed(model: nn.Module, view: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = model(view)
        return output.float()

    if method == "moco":
        key = copy.deepcopy(network).requires_grad_(False)
        contrast = NTXentLoss(TEMPERATURE, memory_bank_size=(QUEUE, DIM))

        def loss():
            query = embed(network, views[0])
            with torch.no_grad():
                torch._foreach_lerp_(list(key.parameters()), weights, 1 - MOMENTUM)
                keys = embed(key, views[1])
            return contrast(query, keys)

    elif method == "simclr":
        contrast = NTXentLoss(TEMPERATURE)

        def loss():
            return contrast(*embed(network, torch.cat(views)).chunk(2))

    else:
        prototypes = nn.Parameter(F.normalize(torch.randn(PROTOTYPES, DIM), dim=1))
        weights.append(prototypes)
        swapped = SwaVLoss(temperature=SWAV_TEMPERATURE, sinkhorn_epsilon=0.05)

        def loss():
            with torch.no_grad():
                prototypes.copy_(F.normalize(prototypes, dim=1))
            scores = F.normalize(embed(network, torch.cat(views)), dim=1) @ prototypes.T
            return swapped(list(scores.chunk(2)), [])

    optimizer = torch.optim.Adam(weights, lr=RATE, weight_decay=DECAY)

    def step():
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def serve(name: str, method: str, batch_size: int, side: int, threads: int) -> None:
    """A worker: for each number of steps on stdin, the seconds that a step took on stdout."""
    step = (torch_step if name in TORCH else our_step)(name, method, batch_size, side, threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    serve_steps(step, clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return serve(options.worker, options.methods, options.batch_size, options.side, options.threads)

    what = f"batch {options.batch_size} of {options.side}^3, threads: {options.threads}, rounds: {options.rounds}"
    print(f"{heading('tensorflow', 'keras', 'torch', 'lightly')}\n{what}", flush=True)
    shared = [f"--{name}={getattr(options, name)}" for name in ("batch_size", "side", "threads")]
    for method in options.methods.split(","):
        passed = [*shared, f"--methods={method}"]
        names = [*OURS, *TORCH, VIEWS, LOSS]
        seconds = take_turns("benchmarks.ssl_step", names, passed, options.threads, options.rounds, options.steps)
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        best = min(middle[name] for name in TORCH)
        print(f"\n{METHODS[method]:<36}{'ms':>8}{'fastest':>10}{'slowest':>10}{'ratio':>8}{'views':>8}{'loss':>8}")
        for name, values in seconds.items():
            cells = [_milliseconds(value) for value in (middle[name], min(values), max(values))]
            ratio = "" if name in (VIEWS, LOSS) else f"{best / middle[name]:.2f}x"
            shares = [f"{middle[part] / middle[name]:.1%}" if name in OURS else "" for part in (VIEWS, LOSS)]
            row = f"{cells[0]:>8}{cells[1]:>10}{cells[2]:>10}{ratio:>8}{shares[0]:>8}{shares[1]:>8}"
            print(f"{name:<36}{row}".rstrip(), flush=True)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.{0 if seconds >= 0.1 else 1 if seconds >= 0.001 else 2}f}"


if __name__ == "__main__":
    main()
