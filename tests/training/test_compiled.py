"""XLA for the augmentation alone."""

import numpy as np
import tensorflow as tf

from aitom_ssl.training.compiled import compiled_alone, networks_on_xla


def test_the_augmentation_is_compiled_and_gives_the_same():
    compiled = compiled_alone(lambda volumes, seed: volumes * 2 + tf.cast(seed[1], tf.float32))
    volumes = tf.ones((2, 3))
    np.testing.assert_array_equal(compiled(volumes, seed=tf.constant([0, 5])), np.full((2, 3), 7))
    assert "HloModule" in compiled.experimental_get_compiler_ir(volumes, tf.constant([0, 5]))(stage="hlo")
    assert networks_on_xla() is False
