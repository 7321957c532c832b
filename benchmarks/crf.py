"""Milliseconds of the dense CRF on one volume, beside SimpleCRF and beside exact mean field.

    python -m benchmarks.crf [--sizes=32,48] [--repeats=5] [--exact_size=8]

A sphere in noise with uncertain probabilities, the published parameters (4 steps), one thread: processor time, median
over the repeats. SimpleCRF (denseCRF3D) is what the paper's code uses, where it is installed. It has to be built, on
NumPy 2 with CXXFLAGS and CPPFLAGS set to -DNPY_IN_ARRAY=NPY_ARRAY_IN_ARRAY. "exact" is mean field with the whole kernel
matrices in NumPy, whose cost grows with the square of the voxels: at --exact_size alone, with how far its probabilities
are from ours at gentle parameters, for at the published ones both say 0 or 1.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import numpy as np  # noqa: E402

from aitom_ssl.oneshot.crf import GENTLE, PUBLISHED, CrfParameters, intensities, refine, to_mask  # noqa: E402
from benchmarks import heading  # noqa: E402

try:
    import denseCRF3D
except ImportError as error:
    denseCRF3D, _REASON = None, str(error)


def sample(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and volume (side, side, side) of a sphere of a quarter of the box in noise."""
    offset = np.arange(side) - side // 2
    inside = sum(np.square(g) for g in np.meshgrid(offset, offset, offset)) < (side / 4) ** 2
    rng = np.random.default_rng(0)
    probabilities = np.clip(np.where(inside, 0.7, 0.3) + 0.2 * rng.normal(size=inside.shape), 0.01, 0.99)
    return probabilities, (inside + 0.7 * rng.normal(size=inside.shape)).astype(np.float32)


def simple_crf(probabilities: np.ndarray, volume: np.ndarray, parameters: CrfParameters) -> np.ndarray:
    """The mask by SimpleCRF, without what it prints."""
    settings = {
        "MaxIterations": float(parameters.iterations),
        "PosW": parameters.gaussian_weight,
        "BilateralW": parameters.bilateral_weight,
        "ModalityNum": 1,
        "BilateralModsStds": (parameters.intensity_std,),
    }
    for axis in "RCZ":
        settings[f"Pos{axis}Std"] = parameters.gaussian_std
        settings[f"Bilateral{axis}Std"] = parameters.bilateral_std
    image = intensities(volume).astype(np.uint8)[..., None]
    both = np.stack([1 - probabilities, probabilities], axis=-1).astype(np.float32)
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        return denseCRF3D.densecrf3d(image, both, settings)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def exact(probabilities: np.ndarray, volume: np.ndarray, parameters: CrfParameters) -> np.ndarray:
    """Probabilities by mean field with whole kernel matrices, normalised as `refine` has them."""
    places = np.indices(volume.shape).reshape(3, -1).astype(float)
    values = intensities(volume).reshape(1, -1) / parameters.intensity_std
    terms = [
        (parameters.gaussian_weight, places / parameters.gaussian_std),
        (parameters.bilateral_weight, np.concatenate([places / parameters.bilateral_std, values])),
    ]
    kernel = 0.0
    for weight, feature in terms:
        squares = np.square(feature).sum(axis=0)
        one = np.exp(feature.T @ feature - 0.5 * squares[:, None] - 0.5 * squares)
        sums = np.sqrt(one.sum(axis=1))
        kernel = kernel + weight * one / sums[:, None] / sums
    odds = np.log(probabilities / (1 - probabilities)).ravel()
    belief = probabilities.ravel()
    for _ in range(parameters.iterations):
        belief = 0.5 * (1 + np.tanh(0.5 * (odds + kernel @ (2 * belief - 1))))
    return belief.reshape(volume.shape)


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median processor time; the first call is not counted."""
    call()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(1000 * (time.process_time() - start))
    return float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="32,48")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--exact_size", type=int, default=8)
    options = parser.parse_args()
    print(heading("numpy", "pydensecrf2"))
    print(f"{'':>24}  {'box':>5}  {'ms a volume':>11}")
    for side in map(int, options.sizes.split(",")):
        probabilities, volume = sample(side)
        row = milliseconds(lambda p=probabilities, v=volume: refine(p, v, PUBLISHED), options.repeats)
        print(f"{'aitom_ssl (pydensecrf)':>24}  {side:>3}^3  {row:>11.1f}")
        if denseCRF3D is not None:
            row = milliseconds(lambda p=probabilities, v=volume: simple_crf(p, v, PUBLISHED), options.repeats)
            same = (simple_crf(probabilities, volume, GENTLE) == to_mask(refine(probabilities, volume, GENTLE))).mean()
            print(f"{'SimpleCRF':>24}  {side:>3}^3  {row:>11.1f}  same label for {same:.2%} of voxels (gentle)")
    if denseCRF3D is None:
        print(f"{'SimpleCRF':>24}  left out: {_REASON}")
    side = options.exact_size
    probabilities, volume = sample(side)
    for name, call in (("aitom_ssl (pydensecrf)", refine), ("exact mean field", exact)):
        row = milliseconds(lambda call=call: call(probabilities, volume, PUBLISHED), options.repeats)
        print(f"{name:>24}  {side:>3}^3  {row:>11.1f}")
    apart = np.abs(refine(probabilities, volume, GENTLE) - exact(probabilities, volume, GENTLE)).max()
    print(f"probabilities differ by up to {apart:.3f} (gentle parameters)")


if __name__ == "__main__":
    main()
