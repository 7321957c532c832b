"""Training episodes a second of COS-Net beside the same network in PyTorch, and what a support set costs in use.

    python -m benchmarks.cosnet [--filters=8] [--way=8] [--episodes=1] [--side=32] [--threads=2] [--rounds=9]
                                [--steps=2]

A step is `episodes` n-way-1-shot episodes on random volumes: network, matching loss with a sigmoid, Dice loss of both
sets, gradient, Adam. Ours is the step that train_cosnet makes, without augmentation; PyTorch's is the same network
(DuSE added, volume decoder) and losses, in either memory layout and precision. Each row is a process of its own; all
take turns within a round, so that a busy machine is busy for all; medians over rounds, wall time. The ratio is of the
best PyTorch row to each row.

Below: milliseconds a target in use, with support features computed once an episode, and with the support set passed
through the network again for each target, as a network that takes pairs must.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import heading
from benchmarks.workers import serve_steps, take_turns

OURS = {"aitom_ssl float32": "float32", "aitom_ssl bfloat16": "mixed_bfloat16"}
# name: (bfloat16 autocast, channels_last_3d)
TORCH = {
    "PyTorch float32": (False, False),
    "PyTorch float32, channels last": (False, True),
    "PyTorch bfloat16": (True, False),
    "PyTorch bfloat16, channels last": (True, True),
}
ONCE, AGAIN = "support features once", "support set for each target"
RATE, BETAS = 1e-3, (0.5, 0.999)


def our_step(name: str, options: argparse.Namespace) -> Callable[[], object]:
    import keras
    import numpy as np
    import tensorflow as tf

    from aitom_ssl.models import COSNet
    from aitom_ssl.oneshot.matching import OneShotModel
    from aitom_ssl.training.precision import precision

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    side = options.side
    with precision(OURS.get(name, "mixed_bfloat16")):
        network = COSNet((side,) * 3 + (1,), options.filters)
    rng = np.random.default_rng(0)
    if name in (ONCE, AGAIN):
        supports = rng.standard_normal((options.way, side, side, side, 1)).astype(np.float32)
        targets = rng.standard_normal((16, side, side, side, 1)).astype(np.float32)
        call = tf.function(lambda volumes: network(volumes, training=False)["similarity"], autograph=False)
        if name == ONCE:
            both = tf.constant(np.concatenate([supports, targets]))
            return lambda: call(both)
        pairs = [tf.constant(np.concatenate([supports, target[None]])) for target in targets]
        return lambda: [call(pair) for pair in pairs]
    model = OneShotModel(network, None, options.episodes, options.way, readout="sigmoid")
    model.compile(keras.optimizers.Adam(RATE, *BETAS), jit_compile=False)
    samples = 2 * options.episodes * options.way
    volumes = tf.constant(rng.standard_normal((samples, side, side, side, 1)), tf.float32)
    masks = tf.cast(volumes > 1, tf.float32)
    return tf.function(lambda: model.train_step(((volumes, masks),))["loss"], autograph=False)


def torch_step(name: str, options: argparse.Namespace) -> Callable[[], object]:
    import torch
    from torch import nn
    from torch.nn import functional as F

    filters, side, way, episodes = options.filters, options.side, options.way, options.episodes

    class DuSE(nn.Module):
        def __init__(self):
            super().__init__()
            self.squeeze, self.excite = nn.Linear(filters, filters // 2), nn.Linear(filters // 2, filters)
            self.voxels = nn.Conv3d(filters, 1, 1)

        def forward(self, x):
            squeezed = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3, 4))))))
            return x * squeezed[:, :, None, None, None] + x * torch.sigmoid(self.voxels(x))

    def level() -> nn.Module:
        parts: list[nn.Module] = []
        for _ in range(2):
            parts += [nn.Conv3d(filters, filters, 3, padding=1), nn.ReLU(), nn.BatchNorm3d(filters)]
        return nn.Sequential(*parts, DuSE())

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            stem = nn.Conv3d(1, filters, 3, padding=1), nn.ReLU()
            pools = nn.MaxPool3d(2), nn.MaxPool3d(2)
            self.encoder = nn.Sequential(*stem, level(), pools[0], level(), pools[1], level())
            up = (nn.Sequential(nn.ConvTranspose3d(filters, filters, 2, stride=2), nn.ReLU(), level()) for _ in "ab")
            self.decoder = nn.Sequential(*up, nn.Conv3d(filters, 1, 1))
            self.features = nn.Sequential(nn.Linear(filters * (side // 4) ** 3, 512), nn.Linear(512, 512))
            self.head = nn.Linear(512, 1)

        def forward(self, x):
            encoded = self.encoder(x)
            return self.features(encoded.flatten(1)), self.decoder(encoded)

    torch.set_num_threads(options.threads)
    autocast, channels_last = TORCH[name]
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    network = Network().to(memory_format=layout).train()
    volumes = torch.randn(2 * episodes * way, 1, side, side, side).to(memory_format=layout)
    masks = (volumes > 1).float()
    match = torch.eye(way).expand(episodes, way, way)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, betas=BETAS)

    def sets(rows: Any) -> Any:
        return rows.reshape(episodes, 2, way, *rows.shape[1:]).unbind(1)

    def dice(truth: Any, predicted: Any) -> Any:
        return 1 - (2 * (truth * predicted).sum() + 1) / (truth.sum() + predicted.sum() + 1)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            features, logits = network(volumes)
        support, target = sets(features.float())
        similar = network.head((target[:, :, None] - support[:, None]).abs()).squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(similar, match)
        for truth, predicted in zip(sets(masks), sets(torch.sigmoid(logits.float())), strict=True):
            loss = loss + dice(truth, predicted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def serve(name: str, options: argparse.Namespace) -> None:
    """A worker: for each number of steps on stdin, the seconds that a step took on stdout."""
    step = (torch_step if name in TORCH else our_step)(name, options)
    serve_steps(step, time.perf_counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--way", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return serve(options.worker, options)

    kind = f"{options.episodes} {options.way}-way-1-shot episodes a step, {options.filters} filters, {options.side}^3"
    print(f"{heading('tensorflow', 'keras', 'torch')}\n{kind}, threads: {options.threads}, rounds: {options.rounds}")
    with_torch = importlib.util.find_spec("torch") is not None
    if not with_torch:
        print("no PyTorch rows: torch is not installed (pip install aitom_ssl[parity])", flush=True)
    passed = [f"--{key}={getattr(options, key)}" for key in ("filters", "way", "episodes", "side", "threads")]
    names = [*OURS, *(TORCH if with_torch else ()), ONCE, AGAIN]
    seconds = take_turns("benchmarks.cosnet", names, passed, options.threads, options.rounds, options.steps)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((middle[name] for name in TORCH if name in middle), default=None)
    print(f"\n{'training':<36}{'episodes/s':>12}{'slowest':>10}{'fastest':>10}{'ratio':>8}")
    for name in (name for name in seconds if name in OURS or name in TORCH):
        rates = [f"{options.episodes / t:.2f}" for t in (middle[name], max(seconds[name]), min(seconds[name]))]
        ratio = "" if best is None else f"{best / middle[name]:.2f}x"
        print(f"{name:<36}{rates[0]:>12}{rates[1]:>10}{rates[2]:>10}{ratio:>8}".rstrip())
    print(f"\n{'in use, 16 targets an episode':<36}{'ms a target':>12}")
    for name in (ONCE, AGAIN):
        print(f"{name:<36}{1000 * middle[name] / 16:>12.1f}")


if __name__ == "__main__":
    main()
