"""How many voxels of a tomogram are simulated a second, and in how much memory, beside the plain way to do it.

    python -m benchmarks.tomogram [--shapes=64x64x32,128x128x64,256x256x128] [--workers=1] [--no_naive]

Each shape (x, y, z) is a process of its own, so that peak memory is its own too: templates and packing (22 classes,
9% of the voxels, as Zhou 2020), then 41 tilts, CTF, MTF, noise at SNR 0.5 and back-projection, which includes the
noise-free reconstruction that tells what the SNR is of. The plain way, on one thread, is given the poses, so that it
need not pack: scipy.ndimage.affine_transform at order 3 for each particle; then for each tilt the volume turned in
real space at order 1 and summed, and each filtered image smeared back and turned, once (no CTF, no noise: it is
spared those). "ratio" is the plain way's time over ours, and "same" the correlation of the two: of the densities, and
of noise-free reconstructions of one density without optics. Seconds are of the processor with one thread, of the
clock with more; MiB are beyond what the libraries take. 600x600x300 is the paper's tomogram; give --no_naive with it.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import multiprocessing  # noqa: E402
import resource  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402

import numpy as np  # noqa: E402
import scipy.ndimage  # noqa: E402

from aitom_ssl import geometry  # noqa: E402
from aitom_ssl.data import load_spec  # noqa: E402
from aitom_ssl.simulation import packing  # noqa: E402
from aitom_ssl.simulation.tomogram import TomogramImaging, TomogramSpec, pack  # noqa: E402
from benchmarks import heading  # noqa: E402

DATA, OCCUPANCY = "cosnet_snr05", 0.09


def naive_density(spec: TomogramSpec, particles) -> np.ndarray:
    """The particles' density, each turned in real space at order 3 and added."""
    simulation = spec.simulation
    maps = [one.density(simulation.voxel_size, simulation.resolution).volume for one in simulation.structures()]
    density = np.zeros(spec.array_shape, dtype=np.float32)
    middle = np.array([geometry.centre(side) for side in spec.shape])
    for label, quaternion, position in zip(particles.labels, particles.quaternions, particles.positions, strict=True):
        template, nearest = maps[label], np.floor(position + 0.5).astype(int)
        matrix = geometry.pose_to_affine(quaternion, position - nearest)
        centre = np.full(3, geometry.centre(template.shape[0]))
        offset = centre + matrix[:, 3] - matrix[:, :3] @ centre
        turned = scipy.ndimage.affine_transform(template, matrix[:, :3], offset, order=3)
        packing.paste(density, turned, nearest - middle)
    return density


def turned_about_y(volume: np.ndarray, degrees: float) -> np.ndarray:
    """The (z, y, x) volume turned right-handedly about y, at order 1."""
    matrix = geometry.quaternion_to_matrix(
        np.array([np.cos(np.radians(degrees) / 2), 0, np.sin(np.radians(degrees) / 2), 0])
    )
    inverse = geometry.reverse_axes(matrix.T)
    centre = np.array([geometry.centre(side) for side in volume.shape])
    return scipy.ndimage.affine_transform(volume, inverse, centre - inverse @ centre, order=1)


def naive_reconstruction(density: np.ndarray, tilts: np.ndarray) -> np.ndarray:
    """Weighted back-projection of noise-free projections, all by turning whole volumes."""
    margin = density.shape[2]
    wide = np.pad(density, ((margin // 4,) * 2, (0, 0), (margin // 4,) * 2))
    ramp = np.abs(np.fft.fftfreq(wide.shape[2])) * np.radians(np.diff(tilts).mean())
    total = np.zeros_like(wide)
    for tilt in tilts:
        image = turned_about_y(wide, tilt).sum(axis=0)
        image = np.fft.ifft(np.fft.fft(image, axis=1) * ramp, axis=1).real.astype(np.float32)
        total += turned_about_y(np.broadcast_to(image, wide.shape), -tilt)
    inside = tuple(slice((w - n) // 2, (w - n) // 2 + n) for w, n in zip(wide.shape, density.shape, strict=True))
    return total[inside]


def same(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def memory() -> float:
    """The most that this process has taken so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(shape: tuple[int, int, int], workers: int, naive: bool) -> dict:
    clock = time.process_time if workers == 1 else time.perf_counter
    libraries = memory()
    spec = TomogramSpec(load_spec(DATA).simulation, shape, occupancy=OCCUPANCY)
    density, instances = np.zeros(spec.array_shape, np.float32), np.zeros(spec.array_shape, np.uint16)
    marks = [clock()]
    particles = pack(spec, density, instances, workers)
    marks.append(clock())
    del instances
    camera = TomogramImaging(spec, workers)
    camera.expose(density)
    for _ in camera.slices():
        pass
    marks.append(clock())
    found = {"particles": len(particles), "packing": marks[1] - marks[0], "imaging": marks[2] - marks[1]}
    found["memory"] = memory() - libraries
    if naive:
        start = clock()
        theirs = naive_density(spec, particles)
        found["naive packing"], found["same density"] = clock() - start, same(theirs, density)
        projector = camera.projector
        planes = projector.planes(density)
        projector.back_project(projector.project(planes), planes)
        ours = np.stack(list(projector.slices(planes)))
        start = clock()
        theirs = naive_reconstruction(density, projector.tilts)
        found["naive imaging"], found["same tomogram"] = clock() - start, same(theirs, ours)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="64x64x32,128x128x64,256x256x128", help="x, y, z of each, in voxels")
    parser.add_argument("--workers", type=int, default=1, help="our threads")
    parser.add_argument("--no_naive", action="store_true", help="ours alone")
    options = parser.parse_args()
    print(f"{heading('numpy', 'scipy')}; {options.workers} thread(s), the plain way one")
    print(
        f"{'x, y, z':>14s}{'particles':>11s}{'pack s':>8s}{'image s':>9s}{'voxels/s':>11s}{'MiB':>7s}{'B/voxel':>9s}"
        f"{'scipy s':>10s}{'ratio':>7s}{'same':>7s}{'turning s':>11s}{'ratio':>7s}{'same':>7s}"
    )
    for text in options.shapes.split(","):
        shape = tuple(map(int, text.split("x")))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            found = process.submit(measure, shape, options.workers, not options.no_naive).result()
        voxels, seconds = np.prod(shape), found["packing"] + found["imaging"]
        row = f"{text:>14s}{found['particles']:11,d}{found['packing']:8.2f}{found['imaging']:9.2f}"
        row += f"{voxels / seconds:11,.0f}{found['memory']:7.0f}{found['memory'] * 2**20 / voxels:9.1f}"
        for naive, ours, alike in (("packing", "packing", "density"), ("imaging", "imaging", "tomogram")):
            if f"naive {naive}" in found:
                seconds = found[f"naive {naive}"]
                width = 10 if naive == "packing" else 11
                row += f"{seconds:{width}.2f}{seconds / found[ours]:7.1f}{found[f'same {alike}']:7.3f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
