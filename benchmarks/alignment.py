"""How many subtomograms one core aligns a second and how well, beside other ways to look through the same poses.

    python -m benchmarks.alignment [--count=32] [--peer_count=4] [--size=32] [--snr=0.5,0.05]
                                   [--structures=ribosome_70s,proteasome_26s,f1_atpase] [--angular_step=22]

Simulated subtomograms (+-60 degrees, shifts up to 4 voxels) against their noise-free structure, everything on one
thread. "naive" turns the structure in real space (scipy, order 1) to every rotation of the same grid, again for every
volume, and correlates by FFT under the wedge; "naive, kept" keeps its turned transforms; acryo is its ZNCCAlignment
with the same rotations, wedge and shifts, where acryo is installed, its templates made beforehand. None of them refines
the rotation: `align_many` does, in the time that is given. ms: processor time a volume, median over volumes for peers;
times: how often align_many's goes into it. Errors are medians in degrees, up to the structure's symmetry, and voxels;
"right" is the part within 10 degrees.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import math  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import numpy as np  # noqa: E402
import scipy.fft  # noqa: E402
import scipy.ndimage  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from aitom_ssl import geometry  # noqa: E402
from aitom_ssl.discovery.alignment import align_many, angle_between, measured  # noqa: E402
from aitom_ssl.simulation import Scene, SimulationSpec, Simulator  # noqa: E402
from aitom_ssl.simulation.simulator import spread_rotations  # noqa: E402
from aitom_ssl.structures import builtin  # noqa: E402
from benchmarks import heading  # noqa: E402

try:
    import acryo
    import dask
except ImportError:
    acryo = None

TILT = 60.0
Find = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""One volume to (quaternion, shift x y z)."""


def simulated(name: str, size: int, snr: float, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(noise-free structure without wedge, samples)."""
    spec = SimulationSpec(classes=(name,), size=size, voxel_size=320 / size, snr=snr, tilt_max=TILT)
    whole = Simulator(dataclasses.replace(spec, tilt_max=90.0))
    reference = whole.signal(Scene(0, 0, 0, np.array([1.0, 0, 0, 0]), np.zeros(3), spec.defocus_um, ()))
    return reference, Simulator(spec).batch(0, range(count))


class Naive:
    """Every rotation of the grid: turn in real space, correlate by FFT, best whole-voxel shift."""

    def __init__(self, reference: np.ndarray, quaternions: np.ndarray, max_shift: float, keep: bool):
        n = reference.shape[0]
        self.reference, self.quaternions = reference, quaternions
        self.matrices = geometry.quaternion_to_matrix(quaternions)
        self.wedge = measured(TILT, *geometry.frequencies((n,) * 3, half_axis=2), side=n).copy()
        self.wedge[0, 0, 0] = False
        offsets = np.fft.fftfreq(n, 1 / n)
        self.far = np.sqrt(sum(np.square(g) for g in np.meshgrid(offsets, offsets, offsets))) > max_shift
        self.kept = [self.transform(matrix) for matrix in self.matrices] if keep else None

    def transform(self, matrix: np.ndarray) -> np.ndarray:
        turn = geometry.reverse_axes(matrix.T)
        middle = geometry.centre(self.reference.shape[0])
        turned = scipy.ndimage.affine_transform(self.reference, turn, middle - turn @ np.full(3, middle), order=1)
        spectrum = scipy.fft.rfftn(turned) * self.wedge
        return spectrum / np.linalg.norm(spectrum)

    def __call__(self, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spectrum = scipy.fft.rfftn(volume) * self.wedge
        best = (-math.inf, 0, 0)
        for i, matrix in enumerate(self.matrices):
            turned = self.transform(matrix) if self.kept is None else self.kept[i]
            scores = scipy.fft.irfftn(spectrum * turned.conj(), s=volume.shape)
            scores[self.far] = -math.inf
            place = int(scores.argmax())
            best = max(best, (float(scores.ravel()[place]), i, place))
        n = volume.shape[0]
        shift = (np.array(np.unravel_index(best[2], volume.shape)) + n // 2) % n - n // 2
        return self.quaternions[best[1]], shift[::-1].astype(float)


def acryo_find(reference: np.ndarray, quaternions: np.ndarray, max_shift: float) -> Find:
    """acryo's search; its arrays' axes are (z, y, x) in rotations too, and it turns about (n - 1)/2."""
    from acryo.alignment import ZNCCAlignment

    matrices = geometry.quaternion_to_matrix(quaternions)
    model = ZNCCAlignment(
        reference, rotations=Rotation.from_matrix(geometry.reverse_axes(matrices)), tilt=(-TILT, TILT)
    )
    off = np.full(3, (reference.shape[0] - 1) / 2 - geometry.centre(reference.shape[0]))

    def find(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with dask.config.set(scheduler="synchronous"):
            result = model.align(volume, (max_shift,) * 3)
        matrix = geometry.reverse_axes(Rotation.from_quat(result.quat).as_matrix())
        return geometry.matrix_to_quaternion(matrix), np.asarray(result.shift)[::-1] + off - matrix @ off

    return find


def row(case: str, how: str, milliseconds: float, ours: float, found: list, batch: dict, symmetry: np.ndarray) -> None:
    """Prints one line of the table; `ours`: milliseconds of align_many."""
    quaternions, shifts = (np.stack(column) for column in zip(*found, strict=True))
    angles = angle_between(batch["quaternion"][: len(found)], quaternions, symmetry)
    voxels = np.linalg.norm(batch["shift"][: len(found)] - shifts, axis=1)
    print(
        f"{case:28s}{how:14s}{len(found):6d}{milliseconds:10.1f}{1e3 / milliseconds:9.2f}{milliseconds / ours:9.1f}"
        f"{np.median(angles):10.2f}{np.median(voxels):9.2f}{np.mean(angles < 10):8.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=32, help="volumes for align_many")
    parser.add_argument("--peer_count", type=int, default=4, help="volumes for the others")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--snr", default="0.5,0.05")
    parser.add_argument("--structures", default="ribosome_70s,proteasome_26s,f1_atpase")
    parser.add_argument("--angular_step", type=float, default=22.0, help="degrees, of the grid that all search")
    options = parser.parse_args()
    max_shift = options.size / 4
    # The grid of align_many.
    quaternions = spread_rotations(math.ceil(8 * np.pi**2 / np.radians(options.angular_step) ** 3))
    print(f"{heading('numpy', 'scipy', 'acryo')}; one thread; {len(quaternions)} rotations")
    print(f"{'case':28s}{'search':14s}{'count':>6s}{'ms':>10s}{'per s':>9s}{'times':>9s}", end="")
    print(f"{'degrees':>10s}{'voxels':>9s}{'right':>8s}")
    for name in options.structures.split(","):
        symmetry = builtin.symmetry_rotations(builtin.get(name).symmetry)
        for snr in map(float, options.snr.split(",")):
            case = f"{name}, SNR {snr:g}"
            reference, batch = simulated(name, options.size, snr, max(options.count, options.peer_count))
            volumes = batch["volume"]
            search = {"max_shift": max_shift, "angular_step": options.angular_step}
            align_many(volumes[:1], [reference], TILT, **search)  # the grid is made and kept
            start = time.process_time()
            ours = align_many(volumes[: options.count], [reference], TILT, **search)
            spent = 1e3 * (time.process_time() - start) / options.count
            found = list(zip(ours.quaternion[:, 0], ours.shift[:, 0], strict=True))
            row(case, "align_many", spent, spent, found, batch, symmetry)
            peers = {
                "naive": lambda r: Naive(r, quaternions, max_shift, keep=False),
                "naive, kept": lambda r: Naive(r, quaternions, max_shift, keep=True),
            }
            if acryo is not None:
                peers["acryo"] = lambda r: acryo_find(r, quaternions, max_shift)
            for how, make in peers.items():
                find = make(reference)
                if how == "acryo":
                    find(volumes[0])  # its templates are made on first use
                times, found = [], []
                for volume in volumes[: options.peer_count]:
                    start = time.process_time()
                    found.append(find(volume))
                    times.append(1e3 * (time.process_time() - start))
                row(case, how, float(np.median(times)), spent, found, batch, symmetry)


if __name__ == "__main__":
    main()
