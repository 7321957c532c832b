"""What a simulated dataset is made of: every parameter, its default, its allowed values, and the presets of the papers.

Units: angstrom for lengths, 1/A for frequencies, micrometres for defocus (positive = underfocus), degrees for tilts,
voxels for shifts and box sides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import numbers
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitom_ssl import structures
from aitom_ssl.errors import InputError, near

# Part of every fingerprint. Raise it when the same parameters start to give other samples.
ALGORITHM = 1

EMPTY = "none"
SPLIT_OF_UNSEEN = 2
SNR_MODES = ("crop", "target", "dataset", "projection", "aitom_box")

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "clean": {"snr": math.inf},
    # Xu 2017, section 3.1.1: 40^3 voxels at 0.92 nm spacing and resolution, noise added to the micrographs and then
    # convolved with CTF and MTF. The paper's tilt ranges are 60, 50 and 40 degrees.
    "xu2017": {"size": 40, "voxel_size": 9.2, "resolution": 9.2, "snr_mode": "projection", "noise_split": 1.0},
    # The data of COS-Net (Zhou 2020) and SSL 2022: AITom's few-packing scenes and its three-dimensional optics.
    # Its boxes were 300 voxels wide, which is what its "Fourier pixels" and its SNR refer to. Differs from AITom in the
    # shift, +-4 voxels (its own: max_shift 8, integer_shift): there the neighbours often lie far away, here they touch,
    # and a target 8 voxels off the centre of such a scene could be any of its particles.
    "liu2020": {
        "size": 32,
        "voxel_size": 10.0,
        "resolution": 10.0,
        "n_neighbors": 4,
        "envelope": 0.4,
        "lowpass": 0.5,
        "mtf": "detector",
        "contrast": "bright",
        "noise_split": 0.5,
        "noise_spectrum": "white",
        "recon_box": 300,
        "snr_mode": "aitom_box",
    },
}


@dataclass(frozen=True)
class SimulationSpec:
    """Everything that decides a sample, beside its split and index. Every field is checked when it is made.

    classes           structure references in label order: builtin names, paths of atomic models or maps, "pdb:3DY4"
    empty_class       a last class "none" that holds noise only
    unseen_classes    some of `classes`, for learning from one example per class: they make up split 2 (test), the
                      others splits 0 and 1, where these are not seen even as neighbours. Empty = all in every split
    seed              of all random draws
    size              side of a subtomogram in voxels, even
    voxel_size        A
    resolution        of the templates, A; None = twice the voxel size
    n_sim             side of the box that is simulated before cropping to `size`, even; None = 1.5 size (2 size when
                      physics is "tilt"). n_sim = size is the fast way for isolated particles
    physics           "volume": optics applied once in three dimensions; "tilt": explicit tilt series and gridding
    tilt_max          tilts run from -tilt_max to tilt_max, degrees; what lies beyond is the missing wedge
    tilt_step         degrees
    voltage_kv, cs_mm, defocus_um, amplitude_contrast, bfactor (A^2)   the contrast transfer function
    defocus_jitter_um half-width of a uniform change of the defocus from sample to sample
    envelope          exp(-(q / (envelope q_Nyquist))^2) on the CTF; None = no envelope
    mtf               "sinc": sin(pi w/2)/(pi w/2), w = q/q_Nyquist, on the image (Xu 2017); "detector": AITom's
                      low-pass on the noise that arises after the CTF; "none"
    contrast          "bright": protein positive; "dark": negative
    max_shift         the target's centre is uniform in +-max_shift voxels along each axis
    integer_shift     shifts cut to whole voxels towards zero, as AITom
    n_neighbors       particles packed against the target
    min_gap           A, between bounding spheres
    snr               signal to noise ratio, variance over variance; inf (or "inf") = no noise
    snr_mode          whose variance the signal's is:
                      "crop" the noise-free subtomogram's, neighbours included; "target" the target's alone;
                      "dataset" one constant, the median over the classes of the target's mean variance;
                      "projection" the noise-free projections' before the optics, noise added to them (Xu 2017);
                      "aitom_box" AITom's: particle energies averaged over its 300^3 box, so the crop is far cleaner
    noise_split       fraction of the noise that arises before the CTF
    noise_spectrum    "dfi": as direct Fourier inversion of a tilt series leaves it; "white"
    recon_box         side in voxels of the reconstruction that the crop is taken from, which sets how densely tilts
                      sample Fourier space; None = size
    lowpass           soft low-pass, fraction of Nyquist, on signal and noise; None = none
    normalize         "zscore": zero mean and unit standard deviation; "none"
    mask              also give the target's segmentation
    halves            also give two half images A and B, whose mean is the subtomogram and whose noise is independent:
                      "none"; "noise" two exposures of every tilt at half the dose (even and odd frames): one signal,
                      in each half noise of twice the variance; "tilts" the even and the odd tilts (physics "tilt"), so
                      that the signal is sampled differently too. The subtomogram is the same, bit for bit, with and
                      without halves. Each tilt keeps the weight that it has in the whole reconstruction, twice, as
                      in weighted back-projection. Differs from gridding each half by itself: the mean of those is not
                      the reconstruction of the series, and frequencies that only one half measures come out halved
    base              folder that relative structure paths start from ("" = the current one); not part of the identity
    """

    classes: tuple[str, ...]
    empty_class: bool = False
    unseen_classes: tuple[str, ...] = ()
    seed: int = 0
    size: int = 32
    voxel_size: float = 10.0
    resolution: float | None = None
    n_sim: int | None = None
    physics: str = "volume"
    tilt_max: float = 60.0
    tilt_step: float = 3.0
    voltage_kv: float = 300.0
    cs_mm: float = 2.0
    defocus_um: float = 5.0
    defocus_jitter_um: float = 0.0
    amplitude_contrast: float = 0.0
    envelope: float | None = None
    bfactor: float = 0.0
    mtf: str = "sinc"
    contrast: str = "bright"
    max_shift: float = 4.0
    integer_shift: bool = False
    n_neighbors: int = 0
    min_gap: float = 0.0
    snr: float = 0.05
    snr_mode: str = "crop"
    noise_split: float = 1.0
    noise_spectrum: str = "dfi"
    recon_box: int | None = None
    lowpass: float | None = None
    normalize: str = "zscore"
    mask: bool = False
    halves: str = "none"
    base: str = ""

    def __post_init__(self):
        def checked(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        checked("classes", _classes(self.classes))
        checked("unseen_classes", _unseen(self.unseen_classes, self.classes))
        for name, (low, high, allowed) in _INTEGERS.items():
            checked(name, _integer(name, getattr(self, name), low, high, allowed))
        for name, (holds, allowed) in _REALS.items():
            checked(name, _real(name, getattr(self, name), holds, allowed))
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise _refused(name, getattr(self, name), "one of " + ", ".join(allowed))
        for name in ("empty_class", "integer_shift", "mask"):
            if not isinstance(getattr(self, name), bool):
                raise _refused(name, getattr(self, name), "true or false")
        if not isinstance(self.base, str | Path):
            raise _refused("base", self.base, "a folder")
        checked("base", str(self.base))
        for name in ("size", "n_sim"):
            if getattr(self, name) is not None and getattr(self, name) % 2:
                raise _refused(name, getattr(self, name), "an even integer")
        if self.tilt_step > self.tilt_max:
            raise _refused("tilt_step", self.tilt_step, f"at most tilt_max ({self.tilt_max:g})")
        if self.simulated_size < self.size:
            raise _refused("n_sim", self.n_sim, f"at least size ({self.size})")
        if self.max_shift > self.size / 2:
            raise _refused("max_shift", self.max_shift, f"at most half of size ({self.size / 2:g})")
        if self.n_neighbors and self.simulated_size < 1.25 * self.size:
            raise _refused("n_sim", self.n_sim, f"at least 1.25 size ({1.25 * self.size:g}) when there are neighbours")
        if self.physics == "tilt" and self.simulated_size < 2 * self.size:
            raise _refused("n_sim", self.n_sim, f"at least 2 size ({2 * self.size}) when physics is tilt")
        if self.physics == "tilt" and self.noise_spectrum != "dfi":
            raise _refused("noise_spectrum", self.noise_spectrum, "dfi when physics is tilt, which makes it so")
        if self.halves == "tilts" and self.physics != "tilt":
            raise _refused("halves", self.halves, f"noise when physics is {self.physics}, which has no single tilts")
        if self.empty_class and self.unseen_classes:
            raise _refused("empty_class", True, "false when there are unseen_classes")

    @classmethod
    def from_preset(cls, preset: str = "default", **overrides: Any) -> SimulationSpec:
        """The parameters of `preset` (default, clean, xu2017, liu2020) with `overrides`, `classes` among them.

        Raises InputError on an unknown preset or key, with the nearest names, and on a value that is not allowed.
        """
        if preset not in list(PRESETS):
            raise InputError(f"preset {preset!r} is not one of {', '.join(PRESETS)}.{near(preset, PRESETS)}")
        names = [field.name for field in dataclasses.fields(cls)]
        for key in overrides:
            if key not in names:
                raise InputError(
                    f"unknown simulation parameter {key!r}.{near(key, names)} Known: {', '.join(names)}."
                )
        if "classes" not in overrides:
            raise InputError("classes is missing: give a list of structures, such as builtin names or paths")
        return cls(**{**PRESETS[preset], **overrides})

    @property
    def simulated_size(self) -> int:
        """Side in voxels of the simulated box: `n_sim`, or its default."""
        if self.n_sim is not None:
            return self.n_sim
        return 2 * self.size if self.physics == "tilt" else 2 * math.ceil(0.75 * self.size)

    @property
    def reconstruction_size(self) -> int:
        """Side in voxels of the reconstruction the crop stands for: `recon_box`, or its default."""
        return self.size if self.recon_box is None else self.recon_box

    @property
    def n_classes(self) -> int:
        """Number of labels, the empty class included."""
        return len(self.classes) + self.empty_class

    def labels(self, split: int) -> tuple[int, ...]:
        """The labels that occur in `split` (0 train, 1 validation, 2 test), ascending; samples take them in turns."""
        if not self.unseen_classes:
            return tuple(range(self.n_classes))
        wanted = split == SPLIT_OF_UNSEEN
        return tuple(i for i, one in enumerate(self.classes) if (one in self.unseen_classes) == wanted)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in label order, the empty class last. Reads no file but checks that the structures exist."""
        names = tuple(structure.name for structure in self.structures())
        return names + (EMPTY,) if self.empty_class else names

    def structures(self) -> list[structures.Structure]:
        """The structures in label order. Raises InputError when one is not found or two have one name."""
        found = [structures.resolve(reference, Path(self.base) if self.base else None) for reference in self.classes]
        names = [structure.name for structure in found]
        for name in names:
            if names.count(name) > 1 or name == EMPTY:
                raise InputError(f"classes has more than one structure named {name!r}: give each class its own name")
        return found

    def parameters(self) -> dict[str, Any]:
        """What decides the samples, by name; later parameters only where they are used, as before there were any."""
        left_out = {"base"}
        left_out |= {name for name in ("halves", "unseen_classes") if getattr(self, name) in ("none", ())}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}

    def fingerprint(self) -> str:
        """Hexadecimal digest of all that decides the samples: parameters, structures' contents, algorithm.

        The structures count by name and content, so moving a folder of models does not change it.
        """
        values = self.parameters()
        found = self.structures()
        values["classes"] = [[structure.name, structure.fingerprint()] for structure in found]
        if self.unseen_classes:
            values["unseen_classes"] = self.labels(SPLIT_OF_UNSEEN)
        values["n_sim"], values["recon_box"] = self.simulated_size, self.reconstruction_size
        values["algorithm"] = ALGORITHM
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# === Checks ===

# name: (lowest, highest, in words); None is allowed where the field's default is None.
_INTEGERS = {
    "seed": (0, 2**63 - 1, "an integer of at least 0 and below 2**63"),
    "size": (8, 512, "an even integer from 8 to 512"),
    "n_sim": (8, 1024, "an even integer from 8 to 1024, or none"),
    "n_neighbors": (0, 32, "an integer from 0 to 32"),
    "recon_box": (8, 1024, "an integer from 8 to 1024, or none"),
}
_REALS = {
    "voxel_size": (lambda v: 0 < v < math.inf, "a positive number of angstrom"),
    "resolution": (lambda v: 0 < v < math.inf, "a positive number of angstrom, or none"),
    "tilt_max": (lambda v: 0 < v <= 90, "degrees, above 0 and at most 90"),
    "tilt_step": (lambda v: 0 < v <= 90, "degrees, above 0 and at most tilt_max"),
    "voltage_kv": (lambda v: 10 <= v <= 3000, "kilovolts from 10 to 3000"),
    "cs_mm": (lambda v: 0 <= v <= 100, "millimetres from 0 to 100"),
    "defocus_um": (lambda v: -100 <= v <= 100, "micrometres from -100 to 100, positive for underfocus"),
    "defocus_jitter_um": (lambda v: 0 <= v <= 100, "micrometres from 0 to 100"),
    "amplitude_contrast": (lambda v: 0 <= v <= 1, "a fraction from 0 to 1"),
    "envelope": (lambda v: 0 < v < math.inf, "a positive fraction of the Nyquist frequency, or none"),
    "bfactor": (lambda v: 0 <= v < math.inf, "a number of A^2 of at least 0"),
    "max_shift": (lambda v: 0 <= v < math.inf, "a number of voxels of at least 0"),
    "min_gap": (lambda v: 0 <= v < math.inf, "a number of angstrom of at least 0"),
    "snr": (lambda v: v > 0, "a positive number, or inf"),
    "noise_split": (lambda v: 0 <= v <= 1, "a fraction from 0 to 1"),
    "lowpass": (lambda v: 0 < v <= 1, "a fraction of the Nyquist frequency above 0 and at most 1, or none"),
}
_OPTIONAL = ("resolution", "n_sim", "envelope", "recon_box", "lowpass")
_CHOICES = {
    "physics": ("volume", "tilt"),
    "mtf": ("sinc", "detector", "none"),
    "contrast": ("bright", "dark"),
    "snr_mode": SNR_MODES,
    "noise_spectrum": ("dfi", "white"),
    "normalize": ("zscore", "none"),
    "halves": ("none", "noise", "tilts"),
}


def _refused(name: str, value: Any, allowed: str) -> InputError:
    return InputError(f"{name} is {value!r}: expected {allowed}")


def _classes(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise _refused("classes", value, "a list of at least one structure")
    for reference in value:
        if not isinstance(reference, str | Path) or str(reference) in ("", EMPTY):
            raise _refused("classes", reference, f"names or paths of structures (the class {EMPTY!r} is empty_class)")
    return tuple(str(reference) for reference in value)


def _unseen(value: Any, classes: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise _refused("unseen_classes", value, "a list of some of classes")
    unseen = tuple(str(reference) for reference in value)
    for reference in unseen:
        if reference not in classes:
            raise InputError(f"unseen_classes has {reference!r}, which is not in classes.{near(reference, classes)}")
    if len(set(unseen)) < len(unseen) or len(unseen) == len(classes):
        raise _refused("unseen_classes", list(unseen), f"each once, and fewer than all {len(classes)} of classes")
    return unseen


def _integer(name: str, value: Any, low: int, high: int, allowed: str) -> int | None:
    if value is None and name in _OPTIONAL:
        return None
    whole = isinstance(value, numbers.Integral) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not low <= value <= high:
        raise _refused(name, value, allowed)
    return int(value)


def _real(name: str, value: Any, holds: Any, allowed: str) -> float | None:
    if value is None and name in _OPTIONAL:
        return None
    if name == "snr" and isinstance(value, str) and value.strip().lower() in ("inf", ".inf", "infinity"):
        return math.inf
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not holds(float(value)):
        raise _refused(name, value, allowed)
    return float(value)
