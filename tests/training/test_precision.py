"""The precision of a run."""

import keras
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.training import precision


def test_policy_holds_inside_and_is_put_back_after_an_error():
    before = keras.config.dtype_policy().name
    with pytest.raises(RuntimeError), precision("mixed_bfloat16"):
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        assert (layer.compute_dtype, layer.kernel.dtype) == ("bfloat16", "float32")
        raise RuntimeError
    assert keras.config.dtype_policy().name == before


def test_refuses_others():
    message = "precision='float16' must be one of float32, mixed_bfloat16"
    with pytest.raises(InputError, match=message), precision("float16"):
        pass
