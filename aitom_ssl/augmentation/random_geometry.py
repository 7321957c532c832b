"""Random geometric changes of subtomograms, one Keras layer each: draw parameters, turn them into matrices, apply.

`draw(batch_size, size, seed)` gives a dict of tensors: the parameters as drawn, `applied` (which samples are changed)
and `matrices` (batch, 3, 4), identity where not applied. `apply(volumes, drawn)` reads `matrices` alone. Calling the
layer does both. Volumes are (batch, z, y, x, channel) cubes; results are float32 whatever the precision policy.

References: SSL 2022 (Front. Physiol. 13), section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from aitom_ssl.augmentation import affine
from aitom_ssl.augmentation.checks import check_flag, check_number, check_probability, check_range
from aitom_ssl.augmentation.seeding import normal, seed_key, uniform
from aitom_ssl.errors import InputError

Tensor = Any


def cube_side(volumes: Tensor) -> int:
    """The side of a batch of cubes; InputError for any other shape."""
    shape = affine.spatial_shape(volumes)
    if len(set(shape)) != 1:
        raise InputError(f"Subtomograms are cubes: (batch, n, n, n, channel). Received: (z, y, x) = {shape}.")
    return shape[0]


# === Layers ===


class RandomLayer(keras.layers.Layer):
    """What random layers share: a float32 policy, a seed of their own for calls without one, draw then apply.

    `seed` (constructor): the generator used when a call gives no seed, or the integer to start one with; None starts it
    at random. A call takes `seed` as an integer, a `SeedGenerator` or an integer tensor (stream, step); see
    `seeding.seed_key`. Equal integers or tensors give equal draws. With `training=False` the volumes pass unchanged.
    """

    def __init__(self, seed: int | keras.random.SeedGenerator | None = None, **kwargs: Any):
        # Coordinates, not values, are what lower precision would ruin: voxel 31.5 of 32 is no bfloat16.
        kwargs["dtype"] = "float32"
        super().__init__(autocast=False, **kwargs)
        self.built = True  # there are no weights to build
        given = isinstance(seed, keras.random.SeedGenerator)
        self.seed_generator = seed if given else keras.random.SeedGenerator(seed)

    def draw(self, batch_size: int | Tensor, size: int, seed: Any) -> dict[str, Tensor]:
        """Parameters for `batch_size` cubes of side `size`, a pure function of an integer or tensor seed."""
        raise NotImplementedError

    def apply(self, volumes: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """The volumes (batch, n, n, n, channel) changed as `drawn` says; float32."""
        raise NotImplementedError

    def call(self, volumes: Tensor, seed: Any = None, training: bool = True) -> Tensor:
        size = cube_side(volumes)
        if not training:
            return ops.cast(volumes, "float32")
        drawn = self.draw(ops.shape(volumes)[0], size, self.seed_generator if seed is None else seed)
        return self.apply(volumes, drawn)

    def compute_output_shape(self, input_shape: tuple[int | None, ...], *_: Any, **__: Any) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed_generator.get_config()["seed"]}


class RandomGeometry3D(RandomLayer):
    """A random affine change, applied to each sample with `probability`.

    Subclasses give `parameters` and `matrices`. `in_plane`: z is neither mixed with y and x, nor scaled, nor shifted.
    `separable`: z is not mixed with y and x, so that whole slices move alike.
    """

    separable = True
    in_plane = True

    def __init__(self, probability: float, seed: int | keras.random.SeedGenerator | None = None, **kwargs: Any):
        super().__init__(seed=seed, **kwargs)
        self.probability = check_probability("probability", probability)

    def parameters(self, batch_size: int | Tensor, size: int, key: Tensor) -> dict[str, Tensor]:
        """Random parameters, one row a sample."""
        raise NotImplementedError

    def matrices(self, parameters: dict[str, Tensor]) -> Tensor:
        """(batch, 3, 4) output-to-input matrices of the parameters."""
        raise NotImplementedError

    def draw(self, batch_size: int | Tensor, size: int, seed: Any) -> dict[str, Tensor]:
        key = seed_key(seed)
        parameters = self.parameters(batch_size, size, key)
        applied = uniform(key, f"{type(self).__name__} applied", (batch_size,)) < self.probability
        matrices = ops.where(applied[:, None, None], self.matrices(parameters), affine.identity(batch_size))
        return {**parameters, "applied": applied, "matrices": matrices}

    def apply(self, volumes: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        return resample(volumes, drawn["matrices"], [self])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "probability": self.probability}


def resample(volumes: Tensor, matrices: Tensor, layers: Sequence[RandomGeometry3D]) -> Tensor:
    """Resample by the cheapest way that is exact for any composition of `layers`."""
    if all(layer.separable for layer in layers):
        along_z = not all(layer.in_plane for layer in layers)
        return affine.affine_transform_in_plane(volumes, matrices, along_z=along_z)
    return affine.affine_transform_3d(volumes, matrices)


def _between(unit: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * unit


@keras.saving.register_keras_serializable("aitom_ssl")
class RandomResizedCrop3D(RandomGeometry3D):
    """Crop a random box and magnify it to the full size.

    `scale`: range, in (0, 1], of the fraction that the crop keeps: of the (y, x) AREA of every slice with
    `in_plane=True`, of the VOLUME otherwise. The box lies anywhere inside the volume, at a sub-voxel position.
    `probability` that a sample is cropped.

    Drawn: `side` (batch,), the crop's side as a fraction of the volume's; `corner` (batch, 3), voxels (z, y, x) from
    the volume's corner to the crop's; `shift` (batch, 3), voxels from the volume's centre voxel to what it will show.

    The paper gives "scale range between 0.5 and 1" of the image before resizing. Its code hands volumes to a transform
    of 2-D images, which crops the last two axes, all slices alike, and takes the scale as a fraction of the area: that
    is the default here. Differs from that code in keeping the aspect ratio at 1 (there 3/4 to 4/3): unequal
    magnification of y and x deforms the molecule, which rotations and one common scale do not.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.5, 1.0),
        in_plane: bool = True,
        probability: float = 0.5,
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs: Any,
    ):
        super().__init__(probability, seed=seed, **kwargs)
        self.scale = check_range("scale", scale, 0.01, 1.0)
        self.in_plane = check_flag("in_plane", in_plane)

    def parameters(self, batch_size: int | Tensor, size: int, key: Tensor) -> dict[str, Tensor]:
        unit = uniform(key, "RandomResizedCrop3D", (batch_size, 4))
        kept = _between(unit[:, 0], *self.scale)
        side = ops.sqrt(kept) if self.in_plane else ops.power(kept, 1 / 3)
        corner = unit[:, 1:] * (1.0 - side[:, None]) * size
        # The outer edge of the first voxel shows the crop's corner; from there it is n // 2 + 1/2 voxels to the centre.
        shift = corner + (side[:, None] - 1.0) * (size // 2 + 0.5)
        if self.in_plane:
            free = ops.convert_to_tensor([0.0, 1.0, 1.0])
            corner, shift = corner * free, shift * free
        return {"side": side, "corner": corner, "shift": shift}

    def matrices(self, parameters: dict[str, Tensor]) -> Tensor:
        side, one = parameters["side"], ops.ones_like(parameters["side"])
        diagonal = ops.stack([one if self.in_plane else side, side, side], axis=-1)
        return affine.from_parts(diagonal[:, :, None] * ops.eye(3), parameters["shift"])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "in_plane": self.in_plane}


@keras.saving.register_keras_serializable("aitom_ssl")
class RandomAffine3D(RandomGeometry3D):
    """Turn about z, shift and scale, each uniform in its range.

    `angle`: largest turn about z in degrees, to either side. `translation`: largest shift along each axis, to either
    side, as a fraction of the volume's side. `scale`: range of the magnification. `in_plane=True` shifts and scales y
    and x only (SSL 2022: "horizontal" and "vertical", every slice alike); False includes z. `probability` that a sample
    is changed. The content is scaled and turned about the centre voxel, then shifted.

    Drawn: `angle` (batch,) degrees, right-handed; `translation` (batch, 3) voxels (z, y, x); `scale` (batch,).
    """

    def __init__(
        self,
        angle: float = 45.0,
        translation: float = 0.1,
        scale: tuple[float, float] = (0.9, 1.1),
        in_plane: bool = True,
        probability: float = 0.5,
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs: Any,
    ):
        super().__init__(probability, seed=seed, **kwargs)
        self.angle = check_number("angle", angle, 0, 180)
        self.translation = check_number("translation", translation, 0, 1)
        self.scale = check_range("scale", scale, 0.1, 10)
        self.in_plane = check_flag("in_plane", in_plane)

    def parameters(self, batch_size: int | Tensor, size: int, key: Tensor) -> dict[str, Tensor]:
        unit = uniform(key, "RandomAffine3D", (batch_size, 5))
        reach = self.translation * size
        free = ops.convert_to_tensor([0.0 if self.in_plane else 1.0, 1.0, 1.0])
        return {
            "angle": _between(unit[:, 0], -self.angle, self.angle),
            "scale": _between(unit[:, 1], *self.scale),
            "translation": _between(unit[:, 2:], -reach, reach) * free,
        }

    def matrices(self, parameters: dict[str, Tensor]) -> Tensor:
        scale, one = parameters["scale"], ops.ones_like(parameters["scale"])
        shrink = ops.stack([one if self.in_plane else 1 / scale, 1 / scale, 1 / scale], axis=-1)
        linear = shrink[:, :, None] * affine.turn_about_z(parameters["angle"] * (math.pi / 180))
        shift = -affine.multiply(linear, parameters["translation"][:, :, None])[:, :, 0]
        return affine.from_parts(linear, shift)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("angle", "translation", "scale", "in_plane")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("aitom_ssl")
class RandomRotation3D(RandomGeometry3D):
    """Turn about the centre voxel by a rotation uniform on SO(3): a normalised 4-D Gaussian quaternion.

    `probability` that a sample is turned. Drawn: `quaternion` (batch, 4), (w, x, y, z) on (x, y, z) as in `geometry`.
    Not in SSL 2022. A subtomogram's missing wedge turns with it, and its corners leave the box.
    """

    separable = False
    in_plane = False

    def __init__(self, probability: float = 1.0, seed: int | keras.random.SeedGenerator | None = None, **kwargs: Any):
        super().__init__(probability, seed=seed, **kwargs)

    def parameters(self, batch_size: int | Tensor, size: int, key: Tensor) -> dict[str, Tensor]:
        quaternion = normal(key, "RandomRotation3D", (batch_size, 4))
        length = ops.sqrt(ops.sum(ops.square(quaternion), axis=-1, keepdims=True))
        return {"quaternion": quaternion / ops.maximum(length, 1e-12)}

    def matrices(self, parameters: dict[str, Tensor]) -> Tensor:
        linear = affine.turn_by_quaternion(parameters["quaternion"])
        return affine.from_parts(linear, ops.zeros_like(linear[..., 0]))


@keras.saving.register_keras_serializable("aitom_ssl")
class RandomHalfTurn3D(RandomGeometry3D):
    """Turn about the centre voxel by 180 degrees about x, y or z.

    These turns leave the missing wedge where it is, of a tilt series about x, y or z that goes as far to either side,
    and put every voxel on a voxel. `probability` that a sample is turned; at the default, turning not at all is as
    likely as each of the three. Drawn: `axis` (batch,), 0 to 2 for x, y, z. Not in SSL 2022. Where n is even, the first
    voxels along an axis that is reversed have nothing to come from inside the box and become 0.
    """

    in_plane = False

    def __init__(self, probability: float = 0.75, seed: int | keras.random.SeedGenerator | None = None, **kwargs: Any):
        super().__init__(probability, seed=seed, **kwargs)

    def parameters(self, batch_size: int | Tensor, size: int, key: Tensor) -> dict[str, Tensor]:
        return {"axis": ops.cast(ops.floor(3 * uniform(key, "RandomHalfTurn3D", (batch_size,))), "int32")}

    def matrices(self, parameters: dict[str, Tensor]) -> Tensor:
        # Signs of (z, y, x): the axis of the turn keeps its own.
        signs = ops.take(ops.convert_to_tensor([[-1.0, -1, 1], [-1, 1, -1], [1, -1, -1]]), parameters["axis"], axis=0)
        return affine.from_parts(signs[:, :, None] * ops.eye(3), ops.zeros_like(signs))


@keras.saving.register_keras_serializable("aitom_ssl")
class RandomMirror3D(RandomGeometry3D):
    """Mirror x about the centre voxel. This CHANGES HANDEDNESS: the mirror image of a protein does not exist in nature.

    Where n is even the first voxel in x has no mirror image inside the box and becomes 0.
    """

    def __init__(self, probability: float = 0.5, seed: int | keras.random.SeedGenerator | None = None, **kwargs: Any):
        super().__init__(probability, seed=seed, **kwargs)

    def parameters(self, batch_size: int | Tensor, size: int, key: Tensor) -> dict[str, Tensor]:
        return {}

    def matrices(self, parameters: dict[str, Tensor]) -> Tensor:
        return ops.convert_to_tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, -1.0, 0]]])
