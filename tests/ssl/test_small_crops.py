"""Small crops: boxes against slices of the volume, weights that are shared and not copied."""

import keras
import numpy as np
import pytest
from keras import layers

from aitom_ssl import models
from aitom_ssl.errors import InputError
from aitom_ssl.models import standardized
from aitom_ssl.ssl.small_crops import random_box, sharing_weights


def test_boxes_are_slices_at_a_place_of_their_own():
    volumes = np.arange(40 * 5 * 6 * 7 * 2, dtype=np.float32).reshape(40, 5, 6, 7, 2)
    boxes = np.asarray(random_box(volumes, 4, np.array([3, 1])))
    assert boxes.shape == (40, 4, 4, 4, 2)
    corners = set()
    for volume, box in zip(volumes, boxes, strict=True):
        z, y, x = (int(i[0]) for i in np.nonzero((volume == box[0, 0, 0]).all(axis=-1)))
        np.testing.assert_array_equal(box, volume[z : z + 4, y : y + 4, x : x + 4])
        corners.add((z, y, x))
    assert {tuple(max(c) for c in zip(*corners, strict=True))} == {(1, 2, 3)}
    assert {tuple(min(c) for c in zip(*corners, strict=True))} == {(0, 0, 0)}


def test_boxes_are_a_function_of_the_seed():
    volumes = np.random.default_rng(0).standard_normal((6, 8, 8, 8, 1)).astype(np.float32)
    first, again, other = (np.asarray(random_box(volumes, 3, np.array(seed))) for seed in ((0, 5), (0, 5), (0, 6)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(random_box(volumes, 8, np.array([0, 0])), volumes)


def test_weights_are_shared_but_for_the_statistics_of_the_features():
    large, small = (
        standardized(models.get("rb3d")(input_shape=(n, n, n, 1), include_top=False, pooling="avg")) for n in (16, 8)
    )
    shared = sharing_weights(small, large)
    assert shared.input_shape == (None, 8, 8, 8, 1)
    assert {id(w) for w in shared.trainable_weights} == {id(w) for w in large.trainable_weights}
    assert not {id(w) for w in shared.non_trainable_weights} & {id(w) for w in large.non_trainable_weights}
    # The same numbers as the small network with the large one's weights copied into it.
    small.set_weights(large.get_weights())
    volumes = np.random.default_rng(1).standard_normal((2, 8, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(shared(volumes), small(volumes), rtol=1e-5, atol=1e-6)


def test_an_encoder_for_one_size_only_is_refused():
    def encoder(n):
        volumes = keras.Input((n, n, n, 1))
        return keras.Model(volumes, layers.Dense(3, name="dense")(layers.Flatten(name="flatten")(volumes)))

    with pytest.raises(InputError, match=r"layer dense has weights \[\(64, 3\).* at 4\^3 and \[\(512, 3\).* at 8\^3"):
        sharing_weights(encoder(4), encoder(8))
