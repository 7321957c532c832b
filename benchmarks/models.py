"""Training and prediction with every architecture beside the same network in PyTorch, in samples a second.

    python -m benchmarks.models [--models=rb3d,dsrf3d] [--batch_size=16] [--side=32] [--threads=2] [--rounds=7]
                                [--steps=2] [--eager]

The networks are the published ones with 10 classes. A training step is a batch of random volumes already in memory,
cross-entropy, and SGD with Nesterov momentum; a prediction is a batch of them to probabilities (to logits in PyTorch).
PyTorch rows: float32 and bfloat16 autocast, both memory formats, and channels last through torch.compile, which for
prediction freezes the weights (`torch._inductor.config.freezing`); PyTorch's optimizer is the fused one. "bfloat16
weights" keeps a copy of the weights in bfloat16, which saves casting them for every batch; only prediction can. --eager
leaves out torch.compile, which takes minutes of compiling before the first round. Memory: about 10 GB for RB3D.

One model and one task after the other; its processes (one for each precision of ours, one for PyTorch) take turns
within a round, so that a busy machine is busy for all; medians over rounds. One thread is counted in processor time,
several in wall time. The ratios are of a row to the fastest eager PyTorch row and to the fastest of all PyTorch rows.
Peak is the machine's matrix product (2048 x 2048, TensorFlow) in the row's precision, measured in the same rounds; a
row's share of it counts the convolutions and dense layers, training as three times a prediction.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import heading

NAMES = ("inception3d", "dsrf3d", "dsrf3dv2", "cb3d", "rb3d", "resnet18_3d")
# process: Keras' dtype policy, or None for PyTorch
PROCESSES = {
    "aitom_ssl float32": "float32",
    "aitom_ssl bfloat16": "mixed_bfloat16",
    "aitom_ssl bfloat16 weights": "bfloat16",
    "PyTorch": None,
}
ONLY_PREDICTS = "aitom_ssl bfloat16 weights"
TASKS = ("training", "prediction")
MATRIX_PRODUCT = "matrix product"
CLASSES, RATE, MOMENTUM, PRODUCT = 10, 0.01, 0.9, 2048
Step = Callable[[], object]


def operations(model: Any) -> int:
    """Floating-point operations of the convolutions and dense layers for one volume; a multiply-add is two."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            outputs = math.prod(layer.output.shape[1:-1])
            total += 2 * outputs * math.prod(layer.kernel.shape)
    return total


def our_steps(task: str, name: str, policy: str, options: argparse.Namespace) -> tuple[dict[str, Step], dict]:
    import keras
    import numpy as np
    import tensorflow as tf

    from aitom_ssl import models

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    keras.config.set_dtype_policy(policy)
    shape = (options.side, options.side, options.side, 1)
    model = models.get(name)(shape, CLASSES)
    rng = np.random.default_rng(0)
    volumes = tf.constant(rng.standard_normal((options.batch_size, *shape)), tf.float32)
    labels = tf.constant(rng.integers(CLASSES, size=options.batch_size))
    factor = tf.cast(tf.random.normal((PRODUCT, PRODUCT)), model.compute_dtype)
    steps = {MATRIX_PRODUCT: tf.function(lambda: tf.matmul(factor, factor)[0, 0], autograph=False)}
    if task == "training":
        sgd = keras.optimizers.SGD(RATE, momentum=MOMENTUM, nesterov=True)
        model.compile(sgd, "sparse_categorical_crossentropy", jit_compile=False)
        sgd.build(model.trainable_variables)
        steps[""] = tf.function(lambda: model.train_step((volumes, labels))["loss"], autograph=False)
    else:
        steps[""] = tf.function(lambda: model(volumes, training=False), autograph=False)
    weights = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return steps, {"weights": weights, "operations": operations(model)}


def torch_network(name: str, side: int) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional as F

    def convolution(inputs, filters, kernel, padding=None):
        return nn.Conv3d(inputs, filters, kernel, padding=kernel // 2 if padding is None else padding)

    def top(features, units, dropout=0.0):
        hidden = []
        for _ in range(2):
            hidden += [nn.Linear(features, units), nn.ReLU(), nn.Dropout(dropout)]
            features = units
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(features, CLASSES))

    def body(plan):
        """A number is a 3x3x3 convolution with so many filters, anything else a layer."""
        layers, before = [], 1
        for item in plan:
            layers += [convolution(before, item, 3), nn.ReLU()] if isinstance(item, int) else [item]
            before = item if isinstance(item, int) else before
        return layers

    class Inception(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = convolution(1, 32, 5, 0)
            self.branch1, self.project = convolution(32, 32, 1), convolution(32, 32, 1)
            self.reduce3, self.branch3 = convolution(32, 32, 1), convolution(32, 64, 3)
            self.reduce5, self.branch5 = convolution(32, 16, 1), convolution(16, 32, 5)
            self.head = nn.Linear(160 * (math.ceil((side - 4) / 2) - 1) ** 3, CLASSES)

        def forward(self, x):
            x = F.max_pool3d(F.relu(self.stem(x)), 2, ceil_mode=True)
            # After ReLU zeros at the end pad as minus infinity would.
            pooled = F.max_pool3d(F.pad(x, (0, 1, 0, 1, 0, 1)), 2, 1)
            branches = [self.branch1(x), self.branch3(F.relu(self.reduce3(x)))]
            branches += [self.branch5(F.relu(self.reduce5(x))), self.project(pooled)]
            x = F.avg_pool3d(F.relu(torch.cat(branches, 1)), 2, 1).flatten(1)
            return self.head(F.dropout(x, 0.3, self.training))

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.shortcut = convolution(32, 16, 3)
            self.reduce, self.conv, self.expand = convolution(32, 16, 1), convolution(16, 32, 3), convolution(32, 16, 1)

        def forward(self, x):
            y = self.expand(F.relu(self.conv(F.relu(self.reduce(x)))))
            return F.relu(torch.cat([self.shortcut(x), F.dropout(y, 0.7, self.training)], 1))

    class Basic(nn.Module):
        def __init__(self, before, filters, stride):
            super().__init__()
            self.conv1 = nn.Conv3d(before, filters, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv3d(filters, filters, 3, 1, 1, bias=False)
            self.bn1, self.bn2, self.shortcut = nn.BatchNorm3d(filters), nn.BatchNorm3d(filters), nn.Identity()
            if stride != 1:
                project = nn.Conv3d(before, filters, 1, stride, bias=False)
                self.shortcut = nn.Sequential(project, nn.BatchNorm3d(filters))

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            return F.relu(y + self.shortcut(x))

    def resnet18():
        stem = [nn.Conv3d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm3d(64), nn.ReLU(), nn.MaxPool3d(3, 2, 1)]
        stages = [Basic(64, 64, 1), Basic(64, 64, 1)]
        for filters in (128, 256, 512):
            stages += [Basic(filters // 2, filters, 2), Basic(filters, filters, 1)]
        return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, CLASSES))

    pool, last = nn.MaxPool3d(2), side // 16
    c3d = [64, nn.MaxPool3d((1, 2, 2)), 128, pool, 256, 256, pool, 512, 512, pool, 512, 512]
    c3d += [nn.ZeroPad3d((1, 1, 1, 1, 0, 0)), pool]
    builders = {
        "inception3d": Inception,
        "dsrf3d": lambda: nn.Sequential(*body([32, 32, pool, 64, 64, pool]), top(64 * (side // 4) ** 3, 512)),
        "dsrf3dv2": lambda: nn.Sequential(
            *body([32, 32, pool, 64, 64, pool, 128, 128, pool]), top(128 * (side // 8) ** 3, 1024, 0.7)
        ),
        "cb3d": lambda: nn.Sequential(*body(c3d), top(512 * last * ((last + 2) // 2) ** 2, 4096, 0.5)),
        "rb3d": lambda: nn.Sequential(
            *body([32, pool]), *(Residual() for _ in range(4)), top(32 * (side // 2) ** 3, 1024, 0.5)
        ),
        "resnet18_3d": resnet18,
    }
    return builders[name]()


def torch_steps(task: str, name: str, options: argparse.Namespace) -> tuple[dict[str, Step], dict]:
    import copy

    import torch
    import torch._inductor.config
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(options.threads)
    network = torch_network(name, options.side).train(task == "training")
    count = sum(weight.numel() for weight in network.parameters())
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    # Dense layers, which have no memory format, are shared: RB3D's is half a gigabyte.
    shared = {id(weight): weight for layer in linear for weight in layer.parameters()}
    last = torch.channels_last_3d
    networks = {"": network, ", channels last": copy.deepcopy(network, shared).to(memory_format=last)}
    weights = list({id(w): w for twin in networks.values() for w in twin.parameters()}.values())
    volumes = torch.randn(options.batch_size, 1, options.side, options.side, options.side)
    labels = torch.randint(CLASSES, (options.batch_size,))

    def training(run, x, autocast):
        def step():
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = run(x)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def prediction(run, x, autocast):
        def step():
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return run(x)

        return step

    make = training if task == "training" else prediction
    if task == "training":
        optimizer = torch.optim.SGD(weights, RATE, MOMENTUM, nesterov=True, fused=True)
        # The fused form wants all of them from the first step on, and the networks begin one after the other.
        optimizer.state.update({weight: {"momentum_buffer": torch.zeros_like(weight)} for weight in weights})
    steps, left_out = {}, {}

    def add(row, step, freeze=False):
        """What PyTorch cannot do for this network is said in the table."""
        try:
            with torch._inductor.config.patch(freezing=freeze):
                step()
            steps[row] = step
        except (RuntimeError, NotImplementedError) as error:
            left_out[row] = str(error).strip().splitlines()[0]

    for layout, twin in networks.items():
        x = volumes if twin is network else volumes.to(memory_format=last)
        for number in ("float32", "bfloat16"):
            add(f"{number}{layout}", make(twin, x, number == "bfloat16"))
            if twin is not network and not options.eager:
                compiled = make(torch.compile(twin), x, number == "bfloat16")
                add(f"{number}{layout}, compiled", compiled, freeze=task == "prediction")
        if task == "prediction":
            halved = copy.deepcopy(twin).to(torch.bfloat16)
            add(f"bfloat16 weights{layout}", prediction(halved, x.to(torch.bfloat16), False))
    return steps, {"weights": count, "left_out": left_out}


def serve(process: str, options: argparse.Namespace) -> None:
    """A worker: its rows as JSON, then for each row and number of steps on stdin the seconds of one step."""
    task, name, policy = options.task, options.models, PROCESSES[process]
    steps, facts = our_steps(task, name, policy, options) if policy else torch_steps(task, name, options)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    for step in steps.values():
        for _ in range(2):
            step()
    print(json.dumps({"rows": list(steps), **facts}), flush=True)
    for line in sys.stdin:
        row, count = json.loads(line)
        start = clock()
        for _ in range(count):
            steps[row]()
        print((clock() - start) / count, flush=True)


def measure(task: str, name: str, options: argparse.Namespace) -> tuple[dict[tuple, list[float]], dict]:
    """Seconds a step of each (process, row), one value a round, and what our worker says of the network."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    passed = [f"--{key}={getattr(options, key)}" for key in ("batch_size", "side", "threads")]
    passed += ["--eager"] if options.eager else []
    workers, facts, seconds = {}, {}, {}
    for process in PROCESSES:
        if task == "training" and process == ONLY_PREDICTS:
            continue
        of_it = [f"--worker={process}", f"--task={task}", f"--models={name}"]
        command = [sys.executable, "-m", "benchmarks.models", *of_it, *passed]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        workers[process] = subprocess.Popen(command, text=True, env=environment, **pipe)
        first = workers[process].stdout.readline()
        if not first:
            raise SystemExit(f"The worker {process!r} did not start; run it to see why: {' '.join(command)}")
        facts[process] = json.loads(first)
        seconds.update({(process, row): [] for row in facts[process]["rows"]})
    if len({fact["weights"] for fact in facts.values()}) != 1:
        raise SystemExit(f"{name} is not the same network everywhere: {facts}")
    for _ in range(options.rounds):
        for process, row in seconds:
            # The threads of the worker before stop waiting busily.
            time.sleep(0.3)
            workers[process].stdin.write(json.dumps([row, options.steps]) + "\n")
            workers[process].stdin.flush()
            seconds[process, row].append(float(workers[process].stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return seconds, {**facts["aitom_ssl float32"], "left_out": facts["PyTorch"]["left_out"]}


def report(task: str, name: str, seconds: dict[tuple, list[float]], facts: dict, batch_size: int) -> None:
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    product = 2 * PRODUCT**3 / 1e9
    peak = {number: product / middle[f"aitom_ssl {number}", MATRIX_PRODUCT] for number in ("float32", "bfloat16")}
    gigaflop = facts["operations"] / 1e9 * (3 if task == "training" else 1)
    rates = {key: batch_size / value for key, value in middle.items() if key[1] != MATRIX_PRODUCT}
    torch_rates = {row: rate for (process, row), rate in rates.items() if process == "PyTorch"}
    best = max(torch_rates.values())
    best_eager = max(rate for row, rate in torch_rates.items() if "compiled" not in row)
    print(f"\n{name}, {task}: {facts['weights']:,} weights, {gigaflop:.2f} GFLOP a volume; ", end="")
    print(f"matrix product {peak['float32']:.0f} GFLOP/s in float32, {peak['bfloat16']:.0f} in bfloat16")
    print(f"{'':<42}{'per s':>8}{'slowest':>9}{'fastest':>9}{'/ eager':>9}{'/ any':>8}{'of peak':>9}")
    for (process, row), rate in rates.items():
        label, values = f"{process} {row}".strip(), seconds[process, row]
        share = gigaflop * rate / peak["bfloat16" if "bfloat16" in label else "float32"]
        cells = f"{rate:>8.1f}{batch_size / max(values):>9.1f}{batch_size / min(values):>9.1f}"
        print(f"{label:<42}{cells}{rate / best_eager:>8.2f}x{rate / best:>7.2f}x{share:>9.0%}", flush=True)
    for row, reason in facts["left_out"].items():
        print(f"PyTorch {row}: {reason}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return serve(options.worker, options)

    names = options.models.split(",")
    if not set(names) <= set(NAMES):
        parser.error(f"--models={options.models}: there are {', '.join(NAMES)}")
    what = f"batch {options.batch_size} of {options.side}^3, threads: {options.threads}, rounds: {options.rounds}"
    print(f"{heading('tensorflow', 'keras', 'torch')}\nTraining and prediction, {what}", flush=True)
    for name in names:
        for task in TASKS:
            report(task, name, *measure(task, name, options), options.batch_size)


if __name__ == "__main__":
    main()
