"""Where a classifier looks: Grad-CAM and Respond-CAM in three dimensions, at the resolution of the subtomogram."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import ndimage

from aitom_ssl.errors import InputError, near
from aitom_ssl.geometry import centre

# Coarser maps than this many voxels a side say little about where, and are not chosen by default.
_ENOUGH_VOXELS = 4
_POOLS = (keras.layers.MaxPooling3D, keras.layers.AveragePooling3D)


# === Maps from activations and gradients ===


def grad_cam(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM (Selvaraju 2017, equations 1 and 2): max(0, sum_k w_k A_k), w_k the mean gradient of channel k.

    Where layers above A weigh each voxel by itself (a flattened map, as in inception3d and dsrf3d), the mean gradient
    loses what they know of places, and Respond-CAM is the better choice.

    Args:
        activations: (n, z', y', x', channels) feature maps A.
        gradients: the same shape; of a class's score before the softmax with respect to A.

    Returns:
        (n, z', y', x') float64, not negative; zero everywhere where nothing at this layer speaks for the class.
    """
    activations, gradients = _checked_maps(activations, gradients)
    return np.maximum(_weighted(activations, gradients.mean(axis=(1, 2, 3))), 0.0)


def respond_cam(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Respond-CAM (Zhao 2018): sum_k w_k A_k, w_k = sum(A_k G_k) / sum(A_k) over the voxels of channel k.

    A channel's weight counts gradients where the channel responds. Voxels that speak against the class are negative.
    The map sums to sum(A G): to the score but for the bias where the score is linear in A, as it is in a network whose
    only layers above A are pooling by averages, flattening and one Dense layer ("sum-to-score"). It is meant for maps
    that are not negative (behind a ReLU): sums of mixed sign can be near 0, which makes weights large at random.

    Args and returns are those of `grad_cam`, but for the sign. A channel whose sum is 0 has weight 0; differs from the
    authors' 1e-10 in the divisor, which comes to the same where the channel itself is 0.
    """
    activations, gradients = _checked_maps(activations, gradients)
    total = activations.sum(axis=(1, 2, 3))
    weights = (activations * gradients).sum(axis=(1, 2, 3)) / np.where(total == 0, np.inf, total)
    return _weighted(activations, weights)


METHODS = {"grad_cam": grad_cam, "respond_cam": respond_cam}


def _weighted(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("nzyxk,nk->nzyx", activations, weights)


def _checked_maps(activations: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    activations, gradients = np.asarray(activations, np.float64), np.asarray(gradients, np.float64)
    if activations.ndim != 5 or activations.shape != gradients.shape:
        raise InputError(
            "Activations and gradients are both (n, z, y, x, channels). Received shapes "
            f"{activations.shape} and {gradients.shape}."
        )
    return activations, gradients


# === Maps of a model ===


def class_activation_map(
    model: keras.Model,
    volumes: np.ndarray,
    classes: np.ndarray | int | None = None,
    layer: str | None = None,
    method: str = "grad_cam",
    batch_size: int = 16,
) -> np.ndarray:
    """What in each volume speaks for a class, at `layer` of a classifier: (n, z, y, x) float32, unscaled.

    The score is the last layer's value before its softmax, and the network is in inference mode. The map of the layer's
    voxels is brought to the volume's by trilinear interpolation between the places where these voxels lie (their
    receptive fields' centres); beyond the outermost ones it stays constant.

    Args:
        model: functional, one input (batch, z, y, x, 1), ends in a Dense layer with or without softmax.
        volumes: (n, z, y, x) or (n, z, y, x, 1), standardised as in training.
        classes: class of each volume (n,), or one for all; default the predicted ones.
        layer: name of a layer with spatial maps, a convolution for instance. The default is the last one, pools and
            paddings apart, with at least 4 voxels a side; of the zoo at 32^3: inception3d concatenate (14^3),
            dsrf3d block2_conv2 (16^3), dsrf3dv2 block3_conv2 (8^3), cb3d block4_conv2 (8x4x4), rb3d block4_relu (16^3),
            resnet18_3d stage2_block2_relu2 (4^3, whose last stage is a single voxel).
        method: "grad_cam" or "respond_cam".
        batch_size: volumes differentiated at a time.

    Raises:
        InputError: for another model, shape, class, layer or method, and where the network's answers are not finite.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r} must be one of {', '.join(METHODS)}.")
    dense = _classifier(model)
    volumes = _checked_volumes(model, volumes)
    chosen = spatial_layer(model, layer)
    start, step = voxel_places(model, chosen)
    if classes is None:
        classes = class_scores(model, volumes, batch_size).argmax(axis=1)
    classes = _checked_classes(classes, len(volumes), dense.units)
    before = keras.Model(model.inputs[0], chosen.output)
    after = _scores_of_maps(model, chosen, dense)
    found = np.empty(volumes.shape[:4], np.float32)
    for first in range(0, len(volumes), batch_size):
        rows = slice(first, first + batch_size)
        maps = _float32(before(volumes[rows], training=False))
        gradients = _gradients(after, volumes[rows], maps, classes[rows])
        found[rows] = [upsample(coarse, start, step, volumes.shape[1:4]) for coarse in METHODS[method](maps, gradients)]
    return _finite(model, found)


def class_scores(model: keras.Model, volumes: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """(n, classes) float32: the values of a classifier's last layer before its softmax, in inference mode.

    Arguments and errors are those of `class_activation_map`.
    """
    dense = _classifier(model)
    volumes = _checked_volumes(model, volumes)
    features = keras.Model(model.inputs[0], dense.input)
    batches = (volumes[first : first + batch_size] for first in range(0, len(volumes), batch_size))
    scores = [_float32(_linear(dense, features(batch, training=False))) for batch in batches]
    return _finite(model, np.concatenate(scores))


def spatial_layer(model: keras.Model, name: str | None = None) -> keras.layers.Layer:
    """The layer of that name, whose output is (batch, z, y, x, channels); by default that of `class_activation_map`.

    InputError, listing those there are, where `model` has no such layer or its output is something else.
    """
    found = {}
    for layer in model.layers:
        output = layer.output
        spatial = isinstance(output, keras.KerasTensor) and len(output.shape) == 5
        if spatial and not isinstance(layer, keras.layers.InputLayer) and max(output.shape[1:4]) > 1:
            found[layer.name] = layer
    if not found:
        raise InputError(f"{model.name} has no layer with spatial maps of more than one voxel: nothing shows where.")
    if name is None:
        maps = [layer for layer in found.values() if not isinstance(layer, (*_POOLS, keras.layers.ZeroPadding3D))]
        fine = [layer for layer in maps if min(layer.output.shape[1:4]) >= _ENOUGH_VOXELS]
        return (fine or maps or list(found.values()))[-1]
    if name not in found:
        there = any(layer.name == name for layer in model.layers)
        what = f"The layer {name!r} of {model.name} has no spatial maps" if there else f"{model.name} has no {name!r}"
        raise InputError(f"{what}; layers that have: {', '.join(found)}.{near(name, found)}")
    return found[name]


def _classifier(model: keras.Model) -> keras.layers.Dense:
    """The last layer. InputError where `model` is no functional classifier of volumes of one channel."""
    if not isinstance(getattr(model, "operations", None), list):
        raise InputError(f"Expected a functional keras.Model. Received {type(model).__name__}.")
    shapes = [tensor.shape for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 5 or shapes[0][-1] != 1:
        raise InputError(f"{model.name} takes inputs {shapes}, expected one (batch, z, y, x, 1).")
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense) or len(model.outputs[0].shape) != 2:
        raise InputError(
            f"{model.name} ends in {last.name} ({type(last).__name__}), expected a Dense layer with a score a class: "
            "an encoder knows no classes."
        )
    return last


def _linear(dense: keras.layers.Dense, features: Any) -> Any:
    """What `dense` gives before its activation, in float32 as `building.classifier` computes it."""
    scores = ops.matmul(ops.cast(features, "float32"), ops.cast(dense.kernel, "float32"))
    return scores if dense.bias is None else scores + ops.cast(dense.bias, "float32")


def _float32(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _finite(model: keras.Model, found: np.ndarray) -> np.ndarray:
    if not np.isfinite(found).all():
        raise InputError(f"{model.name} answers with NaN: its training diverged, or the volumes are not finite.")
    return found


def _checked_volumes(model: keras.Model, volumes: np.ndarray) -> np.ndarray:
    volumes = np.asarray(volumes, np.float32)
    expected = model.inputs[0].shape[1:4]
    volumes = volumes[..., None] if volumes.ndim == 4 else volumes
    if volumes.ndim != 5 or volumes.shape[1:] != (*expected, 1) or len(volumes) == 0:
        sides = ", ".join(map(str, expected))
        raise InputError(f"{model.name} takes volumes (n, {sides}), n >= 1. Received shape {volumes.shape}.")
    return volumes


def _checked_classes(classes: np.ndarray | int, count: int, known: int) -> np.ndarray:
    classes = np.asarray(classes)
    if classes.dtype.kind not in "iu" or classes.shape not in ((), (count,)):
        raise InputError(f"classes must be a whole number, or one for each of {count} volumes. Received {classes!r}.")
    classes = np.broadcast_to(classes, count)
    wrong = classes[(classes < 0) | (classes >= known)]
    if len(wrong):
        raise InputError(f"There is no class {wrong[0]}: the model's classes are 0 to {known - 1}.")
    return classes


# === Gradients ===


def _scores_of_maps(
    model: keras.Model, layer: keras.layers.Layer, dense: keras.layers.Dense
) -> Callable[[Any, Any], Any]:
    """(volumes, maps of `layer`) to scores. The volumes matter where branches pass the layer by."""
    features = keras.Model([model.inputs[0], layer.output], dense.input)
    return lambda volumes, maps: _linear(dense, features([volumes, maps], training=False))


def _gradients(
    scores: Callable[[Any, Any], Any], volumes: np.ndarray, maps: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Of each volume's score for its class with respect to `maps`; the same shape, float32."""
    ascent = _Ascent(scores, maps.shape)
    ascent.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    ascent.train_on_batch([volumes, maps], np.asarray(classes, np.int32))
    return ops.convert_to_numpy(ascent.change.value)


class _Ascent(keras.Model):
    """Its only weight is added to the maps and starts at 0: one step of SGD at rate 1 makes it the scores' gradient.

    So Keras itself differentiates, on whichever backend it has. `scores` is a function and no layer, for the network's
    own weights must not be trained.
    """

    def __init__(self, scores: Callable[[Any, Any], Any], shape: tuple[int, ...]):
        super().__init__(name="ascent", dtype="float32")
        self.change = self.add_weight(shape=shape, initializer="zeros", name="change")
        self._scores = scores
        self.built = True

    def call(self, inputs: Any) -> Any:
        volumes, maps = inputs
        return self._scores(volumes, maps + self.change)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return -ops.sum(ops.take_along_axis(y_pred, y[:, None], axis=1))


# === Where the voxels of a layer lie ===


def voxel_places(model: keras.Model, layer: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    """start, step (3,) in input voxels: the receptive field of the layer's voxel k has its centre at start + k step.

    Branches with other centres that meet (a pool over an even window shifts by half a voxel) count by their channels.
    """
    places = {id(model.inputs[0]): (np.zeros(3), np.ones(3))}
    for operation in model.operations:
        sources = [tensor for tensor in keras.tree.flatten(operation.input) if id(tensor) in places]
        outputs = [tensor for tensor in keras.tree.flatten(operation.output) if len(tensor.shape) == 5]
        if not sources or isinstance(operation, keras.layers.InputLayer):
            continue
        channels = [tensor.shape[-1] for tensor in sources]
        start, step = (
            np.average([places[id(tensor)][part] for tensor in sources], axis=0, weights=channels) for part in (0, 1)
        )
        for output in outputs:
            places[id(output)] = _moved(operation, sources[0].shape[1:4], output.shape[1:4], start, step)
        if operation is layer:
            break
    return places[id(layer.output)]


def _moved(
    operation: Any, before: tuple[int, ...], after: tuple[int, ...], start: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """start and step behind an operation on maps of sides `before` that gives maps of sides `after`."""
    if isinstance(operation, keras.layers.ZeroPadding3D):
        return start - step * [low for low, _ in operation.padding], step
    if isinstance(operation, keras.layers.Cropping3D):
        return start + step * [low for low, _ in operation.cropping], step
    if isinstance(operation, keras.layers.Conv3D):
        # The voxels that a dilated kernel of k covers: (k - 1) dilation + 1.
        kernel = (np.array(operation.kernel_size) - 1) * operation.dilation_rate + 1
    elif isinstance(operation, _POOLS):
        kernel = np.array(operation.pool_size)
    elif before == after:
        return start, step
    else:
        raise InputError(
            f"{operation.name} ({type(operation).__name__}) turns maps of {before} voxels into {after}, and where they "
            "lie is known of convolutions, pools and paddings only: choose a layer before it."
        )
    stride = np.array(operation.strides)
    low = np.zeros(3, int)
    if operation.padding == "same":
        # The smaller half goes before the first voxel.
        low = np.maximum((np.array(after) - 1) * stride + kernel - before, 0) // 2
    return start + step * ((kernel - 1) / 2 - low), step * stride


def upsample(coarse: np.ndarray, start: np.ndarray, step: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map whose voxel k lies at start + k step, interpolated trilinearly at the voxels of `shape`.

    Beyond its outermost voxels it stays constant.
    """
    step = np.asarray(step, np.float64)
    offset = -np.asarray(start) / step
    return ndimage.affine_transform(coarse, 1 / step, offset, output_shape=shape, order=1, mode="nearest")


# === What a map says ===


def peak(cam: np.ndarray) -> tuple[int, int, int] | None:
    """(z, y, x) of the largest value of a (z, y, x) map; None where no value is above 0."""
    place = np.unravel_index(np.argmax(cam), cam.shape)
    return tuple(int(n) for n in place) if cam[place] > 0 else None


def central_share(cam: np.ndarray) -> float | None:
    """Share of the positive part of a (z, y, x) map within the central sphere; None where no value is above 0.

    The sphere's radius is a third of the shortest side, about the centre voxel: room for a particle that fills two
    thirds of the box. A map that is the same everywhere has the sphere's share of the box, about 0.15.
    """
    positive = np.maximum(np.asarray(cam, np.float64), 0.0)
    total = positive.sum()
    if total == 0:
        return None
    offsets = np.ogrid[tuple(slice(-centre(n), n - centre(n)) for n in cam.shape)]
    inside = sum(offset**2 for offset in offsets) <= (min(cam.shape) / 3) ** 2
    return float(positive[inside].sum() / total)
