"""Milliseconds to augment one subtomogram, beside scipy, TorchIO and MONAI: `python -m benchmarks.augmentation`.

Each thread count runs in a process of its own, on as many cores, with everything timed in turns, so that whatever else
the machine does falls on all alike; medians. Ours works on batches, the others on one volume at a time, as their users
call them. TorchIO and MONAI are skipped where they are not installed (extra `parity`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks import heading


def peers(volume: np.ndarray, threads: int) -> dict[str, Callable[[], object]]:
    """One call, one augmented volume; the matrices of scipy are fixed, the others draw theirs."""
    from scipy.ndimage import affine_transform
    from scipy.spatial.transform import Rotation

    def scipy_turn(rotation: Rotation) -> Callable[[], object]:
        linear, centre = rotation.as_matrix(), np.full(3, volume.shape[0] // 2)
        return lambda: affine_transform(volume, linear, centre - linear @ centre, order=1, mode="constant")

    found = {
        "z: scipy.ndimage.affine_transform, order 1": scipy_turn(Rotation.from_euler("x", 30, degrees=True)),
        "3-D: scipy.ndimage.affine_transform, order 1": scipy_turn(Rotation.random(random_state=0)),
    }
    if importlib.util.find_spec("torchio"):
        import SimpleITK
        import torch
        import torchio

        torch.set_num_threads(threads)
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        tensor = torch.from_numpy(volume[None])
        turn_z = torchio.RandomAffine(
            scales=(0.9, 1.1), degrees=(-45, 45, 0, 0, 0, 0), translation=(0, 0, -3, 3, -3, 3)
        )
        turn_3d = torchio.RandomAffine(scales=0, degrees=180)
        found["z: TorchIO RandomAffine"] = lambda: turn_z(tensor)
        found["3-D: TorchIO RandomAffine"] = lambda: turn_3d(tensor)
    if importlib.util.find_spec("monai"):
        import torch
        from monai.transforms import RandAffine

        torch.set_num_threads(threads)
        image, common = torch.from_numpy(volume[None]), {"prob": 1.0, "mode": "bilinear", "padding_mode": "zeros"}
        monai_z = RandAffine(
            rotate_range=(np.pi / 4, 0, 0), translate_range=(0, 3, 3), scale_range=(0, 0.1, 0.1), **common
        )
        monai_3d = RandAffine(rotate_range=(np.pi, np.pi, np.pi), **common)
        found["z: MONAI RandAffine"] = lambda: monai_z(image)
        found["3-D: MONAI RandAffine"] = lambda: monai_3d(image)
    return found


def ours(volumes: np.ndarray, threads: int) -> dict[str, Callable[[], object]]:
    """One call, one augmented batch; crop and affine change are applied to every sample, as the peers do."""
    import tensorflow as tf

    from aitom_ssl.augmentation import SubtomogramAugmenter

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    both = {"crop_probability": 1.0, "affine_probability": 1.0}
    pipelines = {
        "z: crop + turn + shift + scale": SubtomogramAugmenter("ssl2022", standardize=False, **both),
        "z: preset ssl2022 (the same, p = 1/2, standardised)": SubtomogramAugmenter("ssl2022"),
        "3-D: rotation": SubtomogramAugmenter("none", rotation="so3"),
        "3-D: preset recommended (turn, shift, noise, standardised)": SubtomogramAugmenter("recommended"),
        "3-D: preset crowded (the same, surroundings exchanged)": SubtomogramAugmenter("crowded"),
    }
    batch, found = tf.constant(volumes), {}
    step = iter(range(10**9))
    for name, augmenter in pipelines.items():
        for how in ("compiled", "not compiled"):
            view = tf.function(augmenter, jit_compile=how == "compiled")

            def call(view: Callable = view) -> object:
                return view(batch, seed=tf.constant([0, next(step)])).numpy()

            found[f"{name}, {how}"] = call
    return found


def measure(threads: int, rounds: int, batch_size: int, size: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    volumes = np.random.default_rng(0).standard_normal((batch_size, size, size, size, 1)).astype(np.float32)
    rows = {name: (call, batch_size) for name, call in ours(volumes, threads).items()}
    rows |= {name: (call, 1) for name, call in peers(volumes[0, ..., 0].copy(), threads).items()}
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for round_ in range(-2, rounds):  # two rounds to warm up: tracing, compiling, thread pools
        for name, (call, count) in rows.items():
            call()  # untimed: the one before may have left threads spinning and the caches cold
            start = time.perf_counter()
            call()
            if round_ >= 0:
                seconds[name].append((time.perf_counter() - start) / count)
    median = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}

    print(f"\n| {threads} thread{'s' * (threads > 1)} | ms a volume | TorchIO takes | scipy takes |\n|---|---|---|---|")
    for name, value in median.items():
        kind = name.split(":")[0]
        ratios = [
            f"{median[other] / value:.1f}x" if other in median else "-"
            for other in (f"{kind}: TorchIO RandomAffine", f"{kind}: scipy.ndimage.affine_transform, order 1")
        ]
        print(f"| {name} | {value:.3f} | {' | '.join(ratios)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    if len(options.threads) == 1:
        measure(options.threads[0], options.rounds, options.batch_size, options.size)
        return
    print(heading("tensorflow", "keras", "scipy", "torch", "torchio", "monai"))
    print(f"{options.batch_size} volumes of {options.size}^3, medians of {options.rounds}", flush=True)
    for threads in options.threads:
        size = ["--rounds", options.rounds, "--batch_size", options.batch_size, "--size", options.size]
        command = [sys.executable, "-m", "benchmarks.augmentation", "--threads", threads, *size]
        subprocess.run([str(word) for word in command], check=True)


if __name__ == "__main__":
    main()
