"""How many subtomograms one core simulates a second, beside the same work with the template rotated in real space.

    python -m benchmarks.simulation [--seconds=1] [--rounds=5]

Samples are drawn in batches of 64, class by class, as a dataset is built. Everything runs on one thread and counts its
processor time, all columns in turn within each round, median over rounds.
A peer does what the simulator does (same scenes, optics, noise, standardisation) except for placing the particles:
scipy.ndimage.affine_transform at order 3, and acryo's TomogramSimulator at order 3 where acryo is installed. "ratio" is
a peer's time over the simulator's, "same" the correlation of their noise-free subtomograms.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import numpy as np  # noqa: E402
import scipy.ndimage  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from aitom_ssl import geometry, structures  # noqa: E402
from aitom_ssl.simulation import Scene, SimulationSpec, Simulator, optics, packing, volume  # noqa: E402
from benchmarks import heading  # noqa: E402

try:
    import acryo
    import dask
except ImportError:
    acryo = None

BATCH = 64
CLASSES = (
    "proteasome_20s",
    "groel",
    "ribosome_70s",
    "apoferritin",
    "rubisco",
    "beta_galactosidase",
    "f1_atpase",
    "nucleosome",
    "p97",
    "glutamine_synthetase",
)
# name: (preset, parameters, whether a peer can do it: presets' optics are the simulator's own)
CASES = {
    "isolated 32^3, simulated at 32": ("default", {"n_sim": 32}, True),
    "isolated 32^3, simulated at 48": ("default", {}, True),
    "isolated 40^3, simulated at 40": ("default", {"size": 40, "n_sim": 40}, True),
    "isolated 64^3, simulated at 64": ("default", {"size": 64, "n_sim": 64}, True),
    "crowded 32^3, simulated at 40": ("default", {"n_neighbors": 4, "n_sim": 40}, True),
    "crowded 32^3, simulated at 48": ("default", {"n_neighbors": 4}, True),
    "preset liu2020 (crowded 32^3)": ("liu2020", {}, False),
    "preset xu2017 (40^3)": ("xu2017", {}, False),
    "32^3 with mask": ("default", {"mask": True}, False),
    "tilt series 32^3, simulated at 64": ("default", {"physics": "tilt"}, False),
}


def place_with_scipy(density: np.ndarray, matrix: np.ndarray, shift: np.ndarray, n: int) -> np.ndarray:
    """A template turned and moved by less than a voxel into a box just large enough, then pasted at a whole voxel."""
    whole = np.round(shift)
    turn = geometry.reverse_axes(matrix.T)
    side = density.shape[0] + 1
    offset = geometry.centre(density.shape[0]) - turn @ (geometry.centre(side) + (shift - whole)[::-1])
    turned = scipy.ndimage.affine_transform(density, turn, offset, output_shape=(side,) * 3, order=3)
    box = np.zeros((n,) * 3, dtype=np.float32)
    packing.paste(box, turned, whole)
    return box


class Peer:
    """The simulator's work for the default preset, with particles placed in real space by `place`."""

    def __init__(self, simulator: Simulator, place: Callable[[list, int], np.ndarray]):
        self.simulator, self.place = simulator, place
        spec = simulator.spec
        self.support = volume.support(spec.simulated_size, spec.tilt_max)
        q, nyquist = self.support.length / spec.voxel_size, 0.5 / spec.voxel_size
        self.transfer = (optics.ctf(q, nyquist) * optics.sinc_mtf(q, nyquist)).astype(np.float32)
        self.densities = [structures.resolve(name, None).density(spec.voxel_size).volume for name in CLASSES]
        self.views = geometry.cube_rotations()
        self.bank = geometry.quaternion_to_matrix(geometry.random_quaternions(np.random.default_rng(0), 32))

    def signal(self, scene: Scene) -> np.ndarray:
        spec = self.simulator.spec
        particles = [(self.densities[scene.label], geometry.quaternion_to_matrix(scene.quaternion), scene.shift)]
        for other in scene.neighbors:
            matrix = self.views[other.view] @ self.bank[other.pose]
            particles.append((self.densities[other.label], matrix, other.centre))
        box = self.place(particles, spec.simulated_size)
        spectrum = volume.from_volume(box, self.support) * self.transfer
        return volume.crop(volume.to_volume(spectrum, self.support), spec.size)

    def sample(self, index: int) -> np.ndarray:
        spec = self.simulator.spec
        signal = self.signal(self.simulator.scene(0, index))
        noise = self.simulator.unit_noise(np.random.default_rng(index), spec.defocus_um)
        image = signal + noise * np.float32(np.sqrt(signal.var() / spec.snr))
        return (image - image.mean()) / image.std()

    def batch(self, indices: range) -> None:
        for index in sorted(indices, key=lambda index: index % len(CLASSES)):
            self.sample(index)


def scipy_placing(particles: list, n: int) -> np.ndarray:
    return sum(place_with_scipy(density, matrix, shift, n) for density, matrix, shift in particles)


def acryo_placing(particles: list, n: int) -> np.ndarray:
    world = acryo.TomogramSimulator(order=3, scale=1.0)
    for density, matrix, shift in particles:
        # acryo's templates are centred on (side - 1)/2; odd templates make that the centre voxel.
        odd = np.pad(density, ((0, 1),) * 3)
        rotation = Rotation.from_matrix(geometry.reverse_axes(matrix)[None])
        position = np.atleast_2d(geometry.centre(n) + np.asarray(shift)[::-1])
        world.add_molecules(acryo.Molecules(position, rotation), odd)
    with dask.config.set(scheduler="synchronous"):
        return world.simulate((n, n, n))


def milliseconds(draw: Callable[[range], object], seconds: float) -> float:
    """Mean time of one sample over about `seconds`, drawn in batches that run over the classes."""
    start = time.process_time()
    count = 0
    while time.process_time() - start < seconds or count == 0:
        draw(range(count, count + BATCH))
        count += BATCH
    return 1e3 * (time.process_time() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each cell of a round")
    parser.add_argument("--rounds", type=int, default=5, help="the median over rounds is printed")
    options = parser.parse_args()
    placings = {"scipy": scipy_placing}
    if acryo is not None:
        placings["acryo"] = acryo_placing
    print(f"{heading('numpy', 'scipy', 'acryo')}; one thread")
    header = f"{'case':36s}{'ms':>8s}{'per s':>8s}"
    print(header + "".join(f"{name + ' ms':>10s}{'ratio':>8s}{'same':>7s}" for name in placings))
    for case, (preset, parameters, has_peer) in CASES.items():
        simulator = Simulator(SimulationSpec.from_preset(preset, classes=CLASSES, **parameters))
        peers = {name: Peer(simulator, place) for name, place in placings.items()} if has_peer else {}
        draws = {"ours": lambda indices, simulator=simulator: simulator.batch(0, indices)}
        draws |= {name: peer.batch for name, peer in peers.items()}
        for index in range(2 * len(CLASSES)):  # templates and pose banks are made here
            simulator.sample(0, index)
        times = {name: [] for name in draws}
        for _ in range(options.rounds):
            for name, draw in draws.items():
                times[name].append(milliseconds(draw, options.seconds))
        ours = np.median(times["ours"])
        row = f"{case:36s}{ours:8.2f}{1e3 / ours:8.0f}"
        for name, peer in peers.items():
            same = np.mean([alike(simulator, peer, index) for index in range(len(CLASSES))])
            # Paired by round, so that what else the machine does falls out.
            ratio = np.median(np.array(times[name]) / np.array(times["ours"]))
            row += f"{np.median(times[name]):10.2f}{ratio:8.1f}{same:7.3f}"
        print(row, flush=True)


def alike(simulator: Simulator, peer: Peer, index: int) -> float:
    """Correlation of the simulator's noise-free target with a peer's; neighbours left out, whose poses are banked."""
    scene = simulator.scene(0, index)
    alone = Scene(0, index, scene.label, scene.quaternion, scene.shift, scene.defocus_um, ())
    return np.corrcoef(simulator.signal(alone).ravel(), peer.signal(alone).ravel())[0, 1]


if __name__ == "__main__":
    main()
