"""The augmentation of self-supervised training: all random geometry in one resampling, then the voxel values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
from keras import ops

from aitom_ssl.augmentation import affine, intensity
from aitom_ssl.augmentation.checks import check_flag, check_number, check_probability, check_range
from aitom_ssl.augmentation.random_geometry import (
    RandomAffine3D,
    RandomGeometry3D,
    RandomHalfTurn3D,
    RandomLayer,
    RandomMirror3D,
    RandomResizedCrop3D,
    RandomRotation3D,
    resample,
)
from aitom_ssl.augmentation.seeding import seed_key, uniform
from aitom_ssl.errors import InputError, near

Tensor = Any

# Every option with the value that leaves volumes alone, or with the paper's range behind a probability of 0.
_NOTHING: dict[str, Any] = {
    "rotation": "z",
    "crop_probability": 0.0,
    "crop_scale": (0.5, 1.0),
    "affine_probability": 0.0,
    "angle": 45.0,
    "translation": 0.1,
    "scale": (0.9, 1.1),
    "in_plane": True,
    "mirror_probability": 0.0,
    "surroundings": None,
    "noise": (0.0, 0.0),
    "wedge": None,
    "jitter": 0.0,
    "standardize": False,
}

# `rotation` to what turns the volume beforehand; "z" is a part of the affine change.
_TURNS = {"z": (), "so3": (RandomRotation3D,), "half_turns": (RandomHalfTurn3D,)}

PRESETS: dict[str, dict[str, Any]] = {
    "none": _NOTHING,
    "ssl2022": {**_NOTHING, "crop_probability": 0.5, "affine_probability": 0.5, "standardize": True},
    "recommended": {
        **_NOTHING,
        "rotation": "so3",
        "affine_probability": 1.0,
        "translation": 0.06,
        "scale": (1.0, 1.0),
        "in_plane": False,
        "noise": (0.0, 0.5),
        "standardize": True,
    },
}
PRESETS["crowded"] = {**PRESETS["recommended"], "surroundings": (0.22, 0.38)}


@keras.saving.register_keras_serializable("aitom_ssl")
class SubtomogramAugmenter(RandomLayer):
    """Random views of subtomograms: (batch, n, n, n, channel) in, float32 of the same shape out.

    Presets; any option given beside one replaces the preset's value:

    - "ssl2022": the paper's pipeline (SSL 2022, section 3.3): resized crop and z-axis affine change, each with
      probability 0.5. Differs from it in composing both into one matrix, so that values are interpolated once and what
      the crop left outside can come back in with a shift, instead of zeros.
    - "recommended": uniform 3-D rotation, shift by up to 6% of the side along each axis, added noise of 0 to 0.5
      standard deviations. The paper's views share noise, neighbours and wedge almost voxel by voxel, which a network
      can match without looking at the molecule; turned apart, with noise of their own, these give it less to match.
    - "none": nothing, bit for bit.

    Options:

    - rotation: "z", turns by `angle` as part of the affine change; "so3", turns every sample by a rotation uniform on
      SO(3), and `angle` is not used; "half_turns", by 180 degrees about x, y or z, or not at all, each alike
      likely, which leaves the missing wedge where it is and interpolates nothing, and `angle` is not used.
    - crop_probability, crop_scale: `RandomResizedCrop3D`.
    - affine_probability, angle (degrees), translation (fraction of the side), scale: `RandomAffine3D`.
    - in_plane: crop, shift and scale y and x only, or all three axes.
    - mirror_probability: of mirroring x. Changes handedness; no preset does it.
    - surroundings: None, or a range of radii in fractions of the side. What lies outside a sphere of such a radius
      about the centre is replaced by what is there in another volume of the batch, across a soft edge: the particle
      keeps no neighbour by which two views could be told to be one volume. A batch of one stays as it is.
    - noise: range of the standard deviation of white Gaussian noise, uniform, in units of the given volume's own.
    - wedge: degrees from 1 to 89, or None. After turning and noise, removes what a tilt series of +-wedge about y does
      not measure, so that a turned view looks like a measurement of the turned particle. Its orientation is the data's
      own (tilt axis y, beam z), never random; a turned view then lacks its own wedge as well as this one.
    - standardize: mean 0 and standard deviation 1 for each view.
    - jitter: after that, gain uniform in 1 +- jitter and offset uniform in +- jitter standard deviations (of 1).

    Order: mirror, rotation, crop, affine change (one resampling), surroundings, noise, wedge, standardisation,
    jitter. `draw` gives `matrices` (batch, 3, 4) and, where the options ask for them, `radius` (voxels), `partner`
    (index into the batch), `noise_level`, `gain`, `offset` (batch,) and `noise_key` (2,). Seeds: see `RandomLayer`.
    Compile it: under XLA the whole is several times faster.

    Raises InputError for an unknown preset or option, or a value out of range.
    """

    def __init__(self, preset: str = "ssl2022", seed: int | keras.random.SeedGenerator | None = None, **options: Any):
        layer_options = {name: options.pop(name) for name in ("name", "trainable", "dtype") if name in options}
        super().__init__(seed=seed, **layer_options)
        if preset not in PRESETS:
            raise InputError(f"`preset` is one of {', '.join(PRESETS)}. Received: preset={preset!r}.")
        for name, value in options.items():
            if name not in _NOTHING:
                hint = near(name, _NOTHING) or f" Options: {', '.join(_NOTHING)}."
                raise InputError(f"SubtomogramAugmenter has no option {name!r}. Received: {name}={value!r}.{hint}")
        self.preset = preset
        self.options = _checked({**PRESETS[preset], **options})
        o = self.options
        rotation = o["rotation"]
        angle = o["angle"] if rotation == "z" else 0.0
        shared = self.seed_generator
        layers = [
            RandomMirror3D(o["mirror_probability"], shared),
            *(turn(seed=shared) for turn in _TURNS[rotation]),
            RandomResizedCrop3D(o["crop_scale"], o["in_plane"], o["crop_probability"], shared),
            RandomAffine3D(angle, o["translation"], o["scale"], o["in_plane"], o["affine_probability"], shared),
        ]
        # In a namespace, Keras does not track them: they hold no state but the seed, which is tracked here already.
        self._parts = SimpleNamespace(geometry=[layer for layer in layers if layer.probability > 0])

    def draw(self, batch_size: int | Tensor, size: int, seed: Any) -> dict[str, Tensor]:
        key = seed_key(seed)
        drawn = {}
        for layer in self.geometry:
            matrices = layer.draw(batch_size, size, key)["matrices"]
            drawn["matrices"] = affine.compose(drawn["matrices"], matrices) if drawn else matrices
        if self.options["surroundings"] is not None:
            low, high = self.options["surroundings"]
            drawn["radius"] = size * (low + (high - low) * uniform(key, "radius", (batch_size,)))
            drawn["partner"] = intensity.partners(uniform(key, "partner", (1,))[0], batch_size)
        if self._noisy:
            low, high = self.options["noise"]
            drawn["noise_level"] = low + (high - low) * uniform(key, "noise level", (batch_size,))
            drawn["noise_key"] = key
        if self.options["jitter"] > 0:
            change = self.options["jitter"] * (2 * uniform(key, "jitter", (batch_size, 2)) - 1)
            drawn["gain"], drawn["offset"] = 1 + change[:, 0], change[:, 1]
        return drawn

    def apply(self, volumes: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        given = volumes = ops.cast(volumes, "float32")
        if self.geometry:
            volumes = resample(volumes, drawn["matrices"], self.geometry)
        if self.options["surroundings"] is not None:
            volumes = intensity.exchange_surroundings(volumes, drawn["radius"], drawn["partner"])
        if self._noisy:
            level = ops.reshape(drawn["noise_level"], (-1, 1, 1, 1, 1))
            deviation = level * intensity.standard_deviation(given)
            volumes = intensity.add_noise(volumes, deviation, drawn["noise_key"])
        if self.options["wedge"] is not None:
            volumes = intensity.apply_missing_wedge(volumes, self.options["wedge"])
        if self.options["standardize"]:
            volumes = intensity.standardize(volumes)
        if self.options["jitter"] > 0:
            volumes = intensity.change_intensity(volumes, drawn["gain"], drawn["offset"])
        return volumes

    @property
    def geometry(self) -> list[RandomGeometry3D]:
        """The random changes in use, in the order in which they are composed."""
        return self._parts.geometry

    @property
    def _noisy(self) -> bool:
        return self.options["noise"][1] > 0

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "preset": self.preset, **self.options}


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options that no layer checks, checked and in one form; the layers check theirs when they are made."""
    if options["rotation"] not in _TURNS:
        raise InputError(f"`rotation` is one of {', '.join(_TURNS)}. Received: rotation={options['rotation']!r}.")
    wedge, around = options["wedge"], options["surroundings"]
    return {
        **options,
        "crop_probability": check_probability("crop_probability", options["crop_probability"]),
        "crop_scale": check_range("crop_scale", options["crop_scale"], 0.01, 1.0),
        "affine_probability": check_probability("affine_probability", options["affine_probability"]),
        "scale": check_range("scale", options["scale"], 0.1, 10),
        "mirror_probability": check_probability("mirror_probability", options["mirror_probability"]),
        "surroundings": None if around is None else check_range("surroundings", around, 0, 1),
        "noise": check_range("noise", options["noise"], 0, 100),
        "wedge": None if wedge is None else check_number("wedge", wedge, 1, 89),
        "jitter": check_number("jitter", options["jitter"], 0, 1),
        "standardize": check_flag("standardize", options["standardize"]),
    }
