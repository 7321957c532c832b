"""From (spec, split, index) to one labelled subtomogram: scenes, templates, optics, noise level, wired together."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aitom_ssl import geometry
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import imaging, optics, packing, volume
from aitom_ssl.simulation.parameters import EMPTY, SPLIT_OF_UNSEEN, SimulationSpec
from aitom_ssl.simulation.tilt import TiltSeries, sampling_variance

# Streams of random numbers: SeedSequence([seed, split, index, stream]).
POSE, NEIGHBORS, NOISE, OPTICS, BANK, CALIBRATION, HALVES = range(7)

BANK_POSES = 32
CALIBRATION_POSES = 32
NOISE_DRAWS = 16

# AITom's scenes measure their signal's variance over boxes of 300^3 voxels, and its chain of filters leaves 0.65 of
# the SNR that was asked for (measured, mean over box sizes and contents).
AITOM_BOX_VOXELS = 300**3
AITOM_EFFECTIVE = 0.65


@dataclass(frozen=True)
class Neighbor:
    """One particle beside the target: class, centre in whole voxels from the box's centre (x, y, z), bank pose."""

    label: int
    centre: np.ndarray
    pose: int
    view: int


@dataclass(frozen=True)
class Scene:
    """What is in a subtomogram, before any noise. Depends on seed, split and index, never on the SNR."""

    split: int
    index: int
    label: int
    quaternion: np.ndarray
    shift: np.ndarray
    defocus_um: float
    neighbors: tuple[Neighbor, ...]


def random_stream(seed: int, split: int, index: int, stream: int) -> np.random.Generator:
    """The generator of one stream of one sample."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, split, index, stream])))


def spread_rotations(count: int) -> np.ndarray:
    """(count, 4) quaternions spread evenly over all rotations: super-Fibonacci spirals (Alexa 2022, CVPR)."""
    turn = np.arange(count) + 0.5
    inner, outer = np.sqrt(turn / count), np.sqrt(1 - turn / count)
    # The square root of 2 and the root of x^4 = x + 4.
    alpha, beta = 2 * np.pi * turn / np.sqrt(2), 2 * np.pi * turn / 1.533751168755204288
    return np.stack([inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], axis=1)


class Simulator:
    """Draws the samples of a `SimulationSpec`. Templates, pose banks and noise levels are made on first use.

    Raises InputError when a structure is missing or does not fit into the simulated box.
    """

    def __init__(self, spec: SimulationSpec):
        self.spec = spec
        self._structures = spec.structures()
        self._names = tuple(structure.name for structure in self._structures) + (EMPTY,) * spec.empty_class
        self._templates: dict[int, volume.Template] = {}
        self._banks: dict[int, np.ndarray] = {}
        self._energies: dict[int, float] = {}

    def __reduce__(self):
        return Simulator, (self.spec,)

    # === Public ===

    def sample(self, split: int, index: int) -> dict[str, Any]:
        """One subtomogram and its labels.

        volume (size,)*3 float32 (z, y, x); label, name; quaternion (4,), euler_zyz (3,) degrees, shift (3,) voxels
        (x, y, z); snr as asked, crop_snr = var(signal)/var(noise) in the subtomogram; v_ref, the variance that snr
        refers to: noise variance = v_ref/snr; index, split; mask (size,)*3 uint8 when the spec asks for it; so does
        half, the half image B in the scale of volume = (A + B)/2, so that A = 2 volume - B. SNRs are the volume's.
        """
        spec = self.spec
        signal, noise, extras = self.clean_and_noise(split, index)
        scale = np.sqrt(extras["v_ref"] / spec.snr)
        image, crop_snr = signal, np.inf
        if noise is not None and scale > 0:
            noise *= np.float32(scale)
            image = signal + noise
            crop_snr = extras["variance"] / variance(noise)
        scene = extras["scene"]
        half = None if spec.halves == "none" else self._second_half(scene, image, scale)
        if spec.normalize == "zscore":
            image, half = standardized(image, half)
        sample = {
            "volume": np.ascontiguousarray(image, dtype=np.float32),
            "label": scene.label,
            "name": self._names[scene.label],
            "quaternion": scene.quaternion,
            "euler_zyz": geometry.quaternion_to_euler_zyz(scene.quaternion),
            "shift": scene.shift,
            "snr": spec.snr,
            "crop_snr": crop_snr,
            "v_ref": extras["v_ref"],
            "index": scene.index,
            "split": scene.split,
        }
        if spec.mask:
            sample["mask"] = self.mask(scene)
        if half is not None:
            sample["half"] = np.ascontiguousarray(half, dtype=np.float32)
        return sample

    def clean_and_noise(self, split: int, index: int) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
        """(signal, unit noise, extras): a subtomogram is signal + noise sqrt(v_ref/snr).

        Both (size,)*3 float32; the noise has unit expected variance and is None when snr is inf. `extras` holds
        `scene`, `v_ref` and the signal's `variance`.
        """
        scene = self.scene(split, index)
        signal, projected = self._render(scene)
        own = variance(signal)
        noise = None
        if np.isfinite(self.spec.snr):
            noise = self.unit_noise(random_stream(self.spec.seed, split, index, NOISE), scene.defocus_um)
        return signal, noise, {"scene": scene, "v_ref": self._reference(scene, own, projected), "variance": own}

    def batch(self, split: int, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Samples of several indices, each key stacked along a new first axis.

        Drawn class by class, so that a template stays in the processor's cache: about a tenth faster than one by one.
        """
        if not len(indices):
            raise InputError("indices is empty: expected at least one index")
        samples: list[Any] = [None] * len(indices)
        for place in np.argsort(np.asarray(indices) % len(self.spec.labels(split)), kind="stable"):
            samples[place] = self.sample(split, int(indices[place]))
        return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}

    def scene(self, split: int, index: int) -> Scene:
        """What sample `index` of `split` (0 train, 1 validation, 2 test) shows. Classes take turns."""
        for name, value in (("split", split), ("index", index)):
            if not isinstance(value, numbers.Integral) or value < 0:
                raise InputError(f"{name} is {value!r}: expected an integer of at least 0")
        spec = self.spec
        labels = spec.labels(split)
        label = labels[index % len(labels)]
        rng = random_stream(spec.seed, split, index, POSE)
        quaternion = geometry.random_quaternions(rng, 1)[0]
        shift = rng.uniform(-spec.max_shift, spec.max_shift, 3)
        if spec.integer_shift:
            shift = np.trunc(shift)
        defocus = spec.defocus_um
        if spec.defocus_jitter_um:
            jitter = random_stream(spec.seed, split, index, OPTICS).uniform(-1, 1)
            defocus += spec.defocus_jitter_um * jitter
        if label == len(self._structures):
            return Scene(split, index, label, quaternion, np.zeros(3), defocus, ())
        neighbors = ()
        if spec.n_neighbors:
            rng = random_stream(spec.seed, split, index, NEIGHBORS)
            neighbors = self._neighbors(rng, label, shift, self._neighbor_labels(split))
        return Scene(split, index, label, quaternion, shift, defocus, neighbors)

    def signal(self, scene: Scene) -> np.ndarray:
        """The noise-free subtomogram of a scene, (size,)*3 float32."""
        return self._render(scene)[0]

    def mask(self, scene: Scene) -> np.ndarray:
        """(size,)*3 uint8, 1 where the target's density, no optics applied, exceeds the structure's threshold."""
        size = self.spec.size
        if scene.label == len(self._structures):
            return np.zeros((size,) * 3, dtype=np.uint8)
        density = volume.to_volume(self._target(scene, self._whole), self._whole)
        return (volume.crop(density, size) > self._template(scene.label).threshold).astype(np.uint8)

    def unit_noise(self, rng: np.random.Generator, defocus_um: float) -> np.ndarray:
        """(size,)*3 float32 noise of unit expected variance, drawn from `rng`."""
        if self.spec.physics == "tilt":
            field = self._tilt_noise(rng, defocus_um)
            return field * np.float32(self._tilt_noise_scale)
        if self.spec.defocus_jitter_um:
            return self._noise_synthesis(defocus_um).draw(rng)
        return self._nominal_noise.draw(rng)

    # === Half images ===

    def _second_half(self, scene: Scene, image: np.ndarray, scale: float) -> np.ndarray:
        """Half image B, (size,)*3 float32, of a scene whose whole image is `image`, with noise of deviation `scale`.

        For n and d independent Gaussian fields of one spectrum, n + d and n - d are independent too: they are the noise
        of the halves, n, their mean, that of the whole image.
        """
        if self.spec.halves == "tilts":
            return self._odd_tilts(scene, scale)
        if not scale > 0:
            return image.copy()
        rng = random_stream(self.spec.seed, scene.split, scene.index, HALVES)
        return image - self.unit_noise(rng, scene.defocus_um) * np.float32(scale)

    def _odd_tilts(self, scene: Scene, scale: float) -> np.ndarray:
        """Twice what tilts 1, 3, 5, ... contribute to the reconstruction of the series, noise included."""
        spectrum = np.zeros(self._whole.index.size, dtype=np.complex64)
        if scene.label != len(self._structures):
            spectrum = self._spectrum(scene, self._whole)
        images, _ = self._tilt_images(spectrum, scene.defocus_um)
        if scale > 0:
            rng = random_stream(self.spec.seed, scene.split, scene.index, NOISE)
            images += self._noise_images(rng, scene.defocus_um) * np.float32(scale * self._tilt_noise_scale)
        images[::2] = 0
        return 2 * self._inverted(images)

    # === Scenes and templates ===

    def _template(self, label: int) -> volume.Template:
        if label not in self._templates:
            spec, structure = self.spec, self._structures[label]
            template = volume.Template.of(structure, spec.voxel_size, spec.resolution)
            if 2 * template.radius > spec.simulated_size:
                raise InputError(
                    f"{structure.name} is {2 * template.radius * spec.voxel_size:.0f} A across and the simulated box "
                    f"{spec.simulated_size * spec.voxel_size:.0f} A (n_sim {spec.simulated_size}): "
                    "raise n_sim, size or voxel_size, or leave the structure out"
                )
            self._templates[label] = template
        return self._templates[label]

    def _bank(self, label: int) -> np.ndarray:
        """(BANK_POSES, m, m, m) float16 random poses of a class, m odd, so that cube rotations keep the centre."""
        if label not in self._banks:
            template = self._template(label)
            side = template.box + 1 - template.box % 2
            whole = volume.support(side)
            quaternions = geometry.random_quaternions(
                random_stream(self.spec.seed, 0, label, BANK), BANK_POSES
            )
            self._banks[label] = np.stack(
                [
                    volume.to_volume(template.transform.sample(whole.k, matrix), whole).astype(np.float16)
                    for matrix in geometry.quaternion_to_matrix(quaternions)
                ]
            )
        return self._banks[label]

    def _neighbor_labels(self, split: int) -> Sequence[int]:
        """What may lie beside a target of `split`: any structure, unless some are not to be seen there."""
        if self.spec.unseen_classes and split != SPLIT_OF_UNSEEN:
            return self.spec.labels(split)
        return range(len(self._structures))

    def _neighbors(
        self, rng: np.random.Generator, label: int, shift: np.ndarray, among: Sequence[int]
    ) -> tuple[Neighbor, ...]:
        spec = self.spec
        count = spec.n_neighbors
        labels = [among[place] for place in rng.integers(len(among), size=count)]
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        poses, views = rng.integers(BANK_POSES, size=count), rng.integers(24, size=count)
        radii = np.array([self._template(int(one)).radius for one in (label, *labels)])
        centres = packing.pack(shift, radii, directions, spec.min_gap / spec.voxel_size)
        drawn = zip(labels, centres, poses, views, strict=True)
        return tuple(Neighbor(int(one), centre, int(pose), int(view)) for one, centre, pose, view in drawn)

    # === Rendering ===

    @functools.cached_property
    def _whole(self) -> volume.Support:
        return volume.support(self.spec.simulated_size)

    @functools.cached_property
    def _measured(self) -> volume.Support:
        return volume.support(self.spec.simulated_size, self.spec.tilt_max)

    def _target(self, scene: Scene, support: volume.Support) -> np.ndarray:
        """Centred spectrum of the target in its pose, before the optics."""
        spectrum = self._template(scene.label).transform.sample(
            support.k, geometry.quaternion_to_matrix(scene.quaternion)
        )
        return spectrum * volume.shift_phase(support, scene.shift)

    def _spectrum(self, scene: Scene, support: volume.Support) -> np.ndarray:
        """Centred spectrum of the whole scene, before the optics."""
        spectrum = self._target(scene, support)
        box = None
        for neighbor in scene.neighbors:
            reach = self._template(neighbor.label).box / 2 + support.n / 2
            if np.abs(neighbor.centre).max() < reach:
                if box is None:
                    box = np.zeros((support.n,) * 3, dtype=np.float32)
                copy = packing.turn(self._bank(neighbor.label)[neighbor.pose], neighbor.view)
                packing.paste(box, copy, neighbor.centre)
        if box is not None:
            spectrum += volume.from_volume(box, support)
        return spectrum

    def _render(self, scene: Scene) -> tuple[np.ndarray, float | None]:
        """Noise-free subtomogram, and the variance of its projections where the SNR refers to that."""
        spec = self.spec
        if scene.label == len(self._structures):
            return np.zeros((spec.size,) * 3, dtype=np.float32), None
        if spec.physics == "tilt":
            return self._render_tilts(self._spectrum(scene, self._whole), scene.defocus_um)
        spectrum = self._spectrum(scene, self._measured)
        projected = self._projected_variance(spectrum) if spec.snr_mode == "projection" else None
        return self._image(spectrum, scene.defocus_um), projected

    def _reference(self, scene: Scene, own: float, projected: float | None) -> float:
        """The variance that the SNR refers to; `own` is that of the noise-free subtomogram."""
        mode = self.spec.snr_mode
        if scene.label == len(self._structures) or mode == "dataset":
            return self._typical_variance
        if mode == "crop":
            return own
        if mode == "target":
            return variance(self._target_image(scene)) if scene.neighbors else own
        if mode == "projection":
            return projected * self._projection_gain
        energy = sum(self._energy(one) for one in (scene.label, *(n.label for n in scene.neighbors)))
        return energy / (AITOM_EFFECTIVE * AITOM_BOX_VOXELS)

    def _target_image(self, scene: Scene) -> np.ndarray:
        """Noise-free subtomogram of the target without its neighbours."""
        if self.spec.physics == "tilt":
            return self._render_tilts(self._target(scene, self._whole), scene.defocus_um)[0]
        return self._image(self._target(scene, self._measured), scene.defocus_um)

    def _image(self, spectrum: np.ndarray, defocus_um: float) -> np.ndarray:
        """One-shot physics: a spectrum on the measured support to the cropped, noise-free subtomogram."""
        return volume.crop(volume.to_volume(spectrum * self._transfer(defocus_um), self._measured), self.spec.size)

    def _transfer(self, defocus_um: float) -> np.ndarray:
        """Contrast, CTF, MTF and low-pass on the measured support, (s,) float32."""
        if defocus_um == self.spec.defocus_um:
            return self._nominal_transfer
        return imaging.signal_transfer(self.spec, self._measured.length, defocus_um)

    @functools.cached_property
    def _nominal_transfer(self) -> np.ndarray:
        return imaging.signal_transfer(self.spec, self._measured.length, self.spec.defocus_um)

    # === Optics; f in cycles/voxel ===

    def _noise_power(self, defocus_um: float) -> np.ndarray:
        """(s,) on the output support: what unit white noise in the images has become in the reconstruction."""
        spec, f = self.spec, self._output.length
        before = np.square(imaging.ctf(spec, f, defocus_um) * imaging.mtf(spec, f))
        after = np.square(imaging.detector(spec, f))
        power = (spec.noise_split * before + (1 - spec.noise_split) * after) * np.square(imaging.lowpass(spec, f))
        if spec.noise_spectrum == "dfi":
            power = power * self._sampling_variance
        return power

    @functools.cached_property
    def _sampling_variance(self) -> np.ndarray:
        tilts = optics.tilt_angles(self.spec.tilt_max, self.spec.tilt_step)
        return sampling_variance(self._output.k_perp, tilts, self.spec.reconstruction_size)

    def _noise_synthesis(self, defocus_um: float) -> volume.NoiseSynthesis:
        return volume.NoiseSynthesis(self._output, np.sqrt(self._noise_power(defocus_um)))

    @functools.cached_property
    def _output(self) -> volume.Support:
        return volume.support(self.spec.size, self.spec.tilt_max)

    @functools.cached_property
    def _nominal_noise(self) -> volume.NoiseSynthesis:
        return self._noise_synthesis(self.spec.defocus_um)

    # === Explicit tilt series ===

    @functools.cached_property
    def _series(self) -> TiltSeries:
        return TiltSeries(self.spec.simulated_size, self.spec.tilt_max, self.spec.tilt_step)

    def _render_tilts(self, spectrum: np.ndarray, defocus_um: float) -> tuple[np.ndarray, float]:
        """Spectrum on the whole support to (noise-free subtomogram, variance of its projections before the optics)."""
        images, variance = self._tilt_images(spectrum, defocus_um)
        return self._inverted(images), variance

    def _tilt_images(self, spectrum: np.ndarray, defocus_um: float) -> tuple[np.ndarray, float]:
        """The same for the images' half spectra, (n_tilts, kx', ky) after the optics, in place of the subtomogram."""
        series = self._series
        half = np.zeros((series.n, series.n // 2 + 1, series.n), dtype=np.complex64)
        half.ravel()[self._whole.index] = spectrum
        images = series.project(half)
        variance = series.image_variance(images)
        images *= imaging.signal_transfer(self.spec, series.frequency, defocus_um)
        return images, variance

    def _inverted(self, images: np.ndarray) -> np.ndarray:
        """Images' half spectra to the cropped volume, nothing left in the missing wedge."""
        half = self._series.reconstruct(images)
        measured = self._measured
        return volume.crop(volume.to_volume(half.ravel().take(measured.index), measured), self.spec.size)

    def _tilt_noise(self, rng: np.random.Generator, defocus_um: float) -> np.ndarray:
        """Cropped reconstruction of noise images of unit variance."""
        return self._inverted(self._noise_images(rng, defocus_um))

    def _noise_images(self, rng: np.random.Generator, defocus_um: float) -> np.ndarray:
        """Half spectra (n_tilts, kx', ky) of noise images: of unit variance, then through the optics."""
        series, images = self._series, 0
        for transfer in imaging.noise_transfers(self.spec, series.frequency, defocus_um):
            images = images + series.noise(rng) * transfer
        return images

    @functools.cached_property
    def _tilt_noise_scale(self) -> float:
        """What brings `_tilt_noise` to unit variance in the subtomogram: measured, as gridding fades at the borders."""
        power = [
            np.square(self._tilt_noise(random_stream(0, 0, i, CALIBRATION), self.spec.defocus_um)).mean()
            for i in range(NOISE_DRAWS)
        ]
        return float(1 / np.sqrt(np.mean(power)))

    # === Noise levels ===

    @functools.cached_property
    def _projection_gain(self) -> float:
        """Variance of the reconstructed noise in the subtomogram per unit variance of the projections' noise.

        An image's DFT is the volume's on a slice, so white noise of variance v has power v/L per voxel in a
        reconstruction of L voxels, times the optics and the share that averaging over tilts leaves.
        """
        if self.spec.physics == "tilt":
            return 1 / self._tilt_noise_scale**2
        output = self._output
        power = self._noise_power(self.spec.defocus_um) * output.multiplicity
        return float(power.sum(dtype=np.float64)) / output.n**3 / self.spec.reconstruction_size

    @functools.cached_property
    def _slice_density(self) -> np.ndarray:
        """(s,) how many samples of a tilt fall on each measured voxel, on average; 0 at zero frequency."""
        series, support = self._series, self._measured
        z, x = (np.round(support.k[axis] * support.n).astype(int) % support.n for axis in (2, 0))
        density = series.coverage[z * support.n + x] * support.multiplicity / len(series.tilts)
        density[support.length == 0] = 0
        return density

    def _projected_variance(self, spectrum: np.ndarray) -> float:
        """Variance of the noise-free projections before the optics, over the simulated field, mean over tilts."""
        return weighted_power(spectrum, self._slice_density) / self.spec.simulated_size**4

    def _calibration_scenes(self, label: int, crowded: bool = False) -> list[Scene]:
        """Particles in poses that are the same for every seed; alone unless `crowded`."""
        rng = random_stream(0, 0, label, CALIBRATION)
        among = range(len(self._structures))
        quaternions = spread_rotations(CALIBRATION_POSES)
        shifts = rng.uniform(-self.spec.max_shift, self.spec.max_shift, (CALIBRATION_POSES, 3))
        return [
            Scene(
                *(0, 0, label, turn, shift, self.spec.defocus_um),
                self._neighbors(rng, label, shift, among) if crowded else (),
            )
            for turn, shift in zip(quaternions, shifts, strict=True)
        ]

    def _energy(self, label: int) -> float:
        """Sum of the squared voxels of a noise-free particle in an unbounded box, mean over poses."""
        if label not in self._energies:
            support = self._measured
            weight = np.square(self._nominal_transfer) * support.multiplicity
            total = 0.0
            for scene in self._calibration_scenes(label):
                total += weighted_power(self._target(scene, support), weight)
            self._energies[label] = total / CALIBRATION_POSES / support.n**3
        return self._energies[label]

    @functools.cached_property
    def _typical_variance(self) -> float:
        """Reference variance where a scene gives none: the median over the classes of an isolated target's.

        For snr_mode "aitom_box" of target and neighbours, for "projection" of the noise it would put in the volume.
        """
        labels = range(len(self._structures))
        mode = self.spec.snr_mode
        if mode == "aitom_box":
            energy = np.median([self._energy(label) for label in labels]) * (1 + self.spec.n_neighbors)
            return float(energy) / (AITOM_EFFECTIVE * AITOM_BOX_VOXELS)
        values = []
        for label in labels:
            if mode == "projection":
                projected = [self._render(scene)[1] for scene in self._calibration_scenes(label, True)]
                values.append(self._projection_gain * np.mean(projected))
            else:
                scenes = self._calibration_scenes(label)
                values.append(np.mean([variance(self._target_image(scene)) for scene in scenes]))
        return float(np.median(values))


# Sums by einsum: BLAS adds in an order that depends on its number of threads.


def weighted_power(spectrum: np.ndarray, weight: np.ndarray) -> float:
    """Sum of weight |spectrum|^2."""
    return float(np.einsum("i,i,i->", spectrum.real, spectrum.real, weight)) + float(
        np.einsum("i,i,i->", spectrum.imag, spectrum.imag, weight)
    )


def variance(image: np.ndarray) -> float:
    """Mean square less squared mean: exact enough, as the optics leave next to nothing at zero frequency."""
    flat = image.ravel()
    return float(np.einsum("i,i->", flat, flat)) / flat.size - (float(np.einsum("i->", flat)) / flat.size) ** 2


def standardized(image: np.ndarray, half: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """The volume with zero mean and unit standard deviation (zeros when it is constant), and its half in that scale."""
    mean = image.mean()
    image = image - mean
    flat = image.ravel()
    power = float(np.einsum("i,i->", flat, flat)) / flat.size
    factor = np.float32(power**-0.5) if power > 0 else np.float32(1)
    image *= factor
    return image, None if half is None else (half - mean) * factor


@functools.lru_cache(maxsize=2)
def _simulator(spec: SimulationSpec) -> Simulator:
    return Simulator(spec)


def simulate(spec: SimulationSpec, index: int, split: int = 0) -> dict[str, Any]:
    """Sample `index` of `split` (0 train, 1 validation, 2 test) of a spec; see `Simulator.sample`.

    What `aitom_ssl.data.load_spec` returns will do as well: its `.simulation` is taken.
    """
    spec = getattr(spec, "simulation", spec)
    if not isinstance(spec, SimulationSpec):
        raise InputError(f"spec is {spec!r}: expected a SimulationSpec, or load_spec of a dataset's name.")
    return _simulator(spec).sample(split, index)
