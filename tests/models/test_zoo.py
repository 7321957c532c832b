"""Every architecture: published counts, forms, smallest boxes, linear features, bfloat16, the JAX backend."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from aitom_ssl import models
from aitom_ssl.errors import InputError
from aitom_ssl.training.precision import precision

# Xu 2017 and Che 2018, by box and number of classes.
COUNTS = {
    ("inception3d", 16, 10): 327_130,
    ("inception3d", 16, 23): 587_143,
    ("inception3d", 32, 10): 3_642_330,
    ("inception3d", 32, 23): 8_212_103,
    ("inception3d", 40, 10): 7_987_930,
    ("inception3d", 40, 23): 18_206_983,
    ("dsrf3d", 16, 10): 2_560_042,
    ("dsrf3d", 16, 23): 2_566_711,
    ("dsrf3d", 32, 10): 17_240_106,
    ("dsrf3d", 32, 23): 17_246_775,
    ("dsrf3d", 40, 10): 33_230_890,
    ("dsrf3d", 40, 23): 33_237_559,
    ("dsrf3dv2", 16, 10): 2_967_850,
    ("dsrf3dv2", 16, 23): 2_981_175,
    ("dsrf3dv2", 32, 10): 10_307_882,
    ("dsrf3dv2", 32, 23): 10_321_207,
    ("dsrf3dv2", 40, 10): 18_303_274,
    ("dsrf3dv2", 40, 23): 18_316_599,
    ("rb3d", 16, 10): 17_953_994,
    ("rb3d", 16, 23): 17_967_319,
    ("rb3d", 32, 10): 135_394_506,
    ("rb3d", 32, 23): 135_407_831,
    ("rb3d", 40, 10): 263_320_778,
    ("rb3d", 40, 23): 263_334_103,
}
MINIMUM = {"inception3d": 7, "dsrf3d": 4, "dsrf3dv2": 8, "cb3d": 16, "rb3d": 8, "rb3d_gn": 8, "resnet18_3d": 1}
POOLED = {"inception3d": 1280, "dsrf3d": 512, "dsrf3dv2": 1024, "cb3d": 4096, "rb3d": 256, "resnet18_3d": 512}
POOLED["rb3d_gn"] = 256
FLAT = {**POOLED, "inception3d": 351_520, "dsrf3d": 32_768, "dsrf3dv2": 8_192, "rb3d": 131_072, "rb3d_gn": 131_072}


def test_names():
    assert set(models.NAMES) == set(MINIMUM)
    for name in models.NAMES:
        assert models.get(name) is models.get(name.upper())
        builder = models.get(name)
        assert getattr(builder, "func", builder).__name__ in models.__all__
    with pytest.raises(InputError, match="Did you mean rb3d"):
        models.get("rb3")


@pytest.mark.parametrize("name", models.NAMES)
def test_a_field_of_view_is_the_network_of_the_cube_about_the_centre(name):
    small = models.get(name)((16, 16, 16, 1), classes=3, pooling="avg")
    large = models.get(name)((24, 24, 24, 1), classes=3, pooling="avg", field=2 / 3)
    large.set_weights(small.get_weights())
    volumes = np.random.default_rng(0).standard_normal((2, 24, 24, 24, 1)).astype(np.float32)
    seen = volumes[:, 4:20, 4:20, 4:20]
    np.testing.assert_array_equal(large(volumes, training=False), small(seen, training=False))


def test_published_number_of_weights(weightless):
    for (name, side, classes), count in COUNTS.items():
        assert models.get(name)((side, side, side, 1), classes).count_params() == count, (name, side, classes)


@pytest.mark.parametrize("name", models.NAMES)
def test_forms_at_32(name, weightless):
    build = models.get(name)
    assert build(include_top=False).output_shape == (None, FLAT[name])
    assert build(include_top=False, pooling="avg").output_shape == (None, POOLED[name])
    for pooling in (None, "avg"):
        model = build(classes=7, pooling=pooling)
        assert model.name == name and build(name="mine", pooling=pooling).name == "mine"
        assert model.input.name == "subtomogram"
        last = model.layers[-1]
        assert (last.name, last.output.shape, last.output.dtype) == ("classifier", (None, 7), "float32")
        assert "features" in {layer.name for layer in model.layers}
    dropped = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert not dropped and last.input.shape == (None, POOLED[name])


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("shape", [(24, 24, 24, 1), (33, 33, 33, 1), (24, 40, 28, 2), (48, 48, 48, 1), (64, 64, 64, 1)])
def test_any_box(name, shape, weightless):
    flat = models.get(name)(shape)
    pooled = models.get(name)(list(shape), pooling="avg")
    assert flat.output_shape == pooled.output_shape == (None, 10)
    if min(shape) > 1 and (name != "cb3d" or min(shape[:3]) >= 32):
        assert pooled.get_layer("features").output.shape == (None, POOLED[name])


@pytest.mark.parametrize("name", models.NAMES)
def test_layer_names_are_the_same_every_time(name, weightless):
    """A name that Keras makes up goes on counting from one network to the next."""
    first, second = ([layer.name for layer in models.get(name)().layers] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("pooling", [None, "avg"])
def test_smallest_box_runs_and_below_it_is_refused(name, pooling):
    n = MINIMUM[name]
    model = models.get(name)((n, n, n, 1), 3, pooling=pooling)
    probabilities = np.asarray(model(np.random.default_rng(0).standard_normal((2, n, n, n, 1))))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(InputError, match=rf"input_shape=\({n - 1}, 64, 64, 1\).*sides of {n} or more"):
        models.get(name)((n - 1, 64, 64, 1))


@pytest.mark.parametrize("name", ["inception3d", "dsrf3d", "dsrf3dv2", "rb3d"])
def test_linear_features_are_log_probabilities_up_to_a_constant(name):
    """Xu 2017, equations 1 and 2."""
    shape = (8, 8, 8, 1)
    model = models.get(name)(shape, 5)
    linear = models.get(name)(shape, 5, classifier_activation=None)
    linear.set_weights(model.get_weights())
    volumes = 3 * np.random.default_rng(0).standard_normal((4, *shape))
    difference = np.asarray(linear(volumes)) - np.log(model(volumes))
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-4)
    assert np.ptp(np.asarray(linear(volumes)), axis=1).min() > 1e-3


@pytest.mark.parametrize("name", models.NAMES)
def test_bfloat16(name):
    n = MINIMUM[name] if name != "resnet18_3d" else 16
    build = lambda: models.get(name)((n, n, n, 1), 3, pooling="avg")  # noqa: E731
    exact = build()
    with precision("mixed_bfloat16"):
        model = build()
    model.set_weights(exact.get_weights())
    volumes = np.random.default_rng(0).standard_normal((2, n, n, n, 1)).astype(np.float32)
    probabilities = model(volumes)
    assert model.get_layer("features").output.dtype == "bfloat16"
    assert keras.backend.standardize_dtype(probabilities.dtype) == "float32"
    np.testing.assert_allclose(np.asarray(probabilities), np.asarray(exact(volumes)), atol=0.05)


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (32, 32, 32)}, r"input_shape=\(32, 32, 32\) must be"),
        ({"input_shape": 32}, "input_shape=32 must be"),
        ({"input_shape": (None, None, None, 1)}, "input_shape"),
        ({"input_shape": (32, 32, 32, 0)}, "input_shape"),
        ({"input_shape": (32.0, 32, 32, 1)}, "input_shape"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"classes": 0}, "classes=0"),
        ({"classes": 2.5}, "classes=2.5"),
        ({"classifier_activation": "sofmax"}, "classifier_activation='sofmax'"),
    ],
)
def test_refuses(name, options, message):
    with pytest.raises(InputError, match=message) as error:
        models.get(name)(**options)
    assert "\n" not in str(error.value)


# Weights are arguments: JAX takes long to draw them, and to fold them as constants.
OUTPUTS = """
import json, sys
import numpy as np
import keras
from aitom_ssl import models

def outputs(compiled):
    found = {}
    for name in models.NAMES:
        with keras.StatelessScope(initialize_variables=False):
            model = models.get(name)((16, 16, 16, 1), 3, pooling="avg", classifier_activation=None)
        rng = np.random.default_rng(0)
        values = []
        for weight in model.weights:
            centre, scale = 0.5 * ("variance" not in weight.path), (8 / np.prod(weight.shape[:-1])) ** 0.5
            values.append((rng.random(weight.shape, np.float32) - centre) * scale)
        groups = [
            [keras.ops.convert_to_tensor(v) for v, w in zip(values, model.weights) if w.trainable == trainable]
            for trainable in (True, False)
        ]
        volumes = keras.ops.convert_to_tensor(rng.standard_normal((2, 16, 16, 16, 1)).astype(np.float32))
        call = compiled(lambda *given: model.stateless_call(*given)[0])
        found[name] = np.asarray(call(*groups, volumes)).tolist()
    return found
"""
NARROW = (64, 8, 12, 16)
ON_JAX = f"""
import jax
from aitom_ssl.models import resnet18_3d
resnet18_3d._STAGES = {NARROW}
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
print(json.dumps(outputs(jax.jit)))
"""


def test_jax_gives_the_same(monkeypatch):
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", OUTPUTS + ON_JAX]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    monkeypatch.setattr(models.resnet18_3d, "_STAGES", NARROW)
    here = {}
    exec(OUTPUTS, here)
    expected = here["outputs"](lambda function: function)
    keras.utils.clear_session()
    for name in models.NAMES:
        assert np.ptp(expected[name]) > 0.1, name
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
