"""The composed pipeline: one resampling, presets, options, compilation, the other backend."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import kstest

from aitom_ssl.augmentation import PRESETS, SubtomogramAugmenter, affine_transform_3d, intensity
from aitom_ssl.errors import InputError

EVERYTHING = {
    "crop_probability": 0.5,
    "in_plane": False,
    "mirror_probability": 0.5,
    "surroundings": (0.2, 0.4),
    "noise": (0.1, 0.3),
    "wedge": 60.0,
    "jitter": 0.1,
}
KINDS = [{}, EVERYTHING, {"rotation": "so3", **EVERYTHING}, {"rotation": "half_turns", **EVERYTHING}]


def random_volumes(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def draw(augmenter, count=2000, size=16, seed=1):
    return {name: numpy(value) for name, value in augmenter.draw(count, size, seed).items()}


def test_none_changes_no_bit():
    volumes = random_volumes(2, 8, 8, 8, 1)
    augmenter = SubtomogramAugmenter("none")
    assert augmenter.draw(2, 8, 1) == {}
    assert np.array_equal(numpy(augmenter(volumes, seed=1)), volumes)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_call_is_draw_then_apply(preset):
    volumes, augmenter = random_volumes(4, 8, 8, 8, 1), SubtomogramAugmenter(preset)
    result = numpy(augmenter(volumes, seed=5))
    assert np.array_equal(result, numpy(augmenter.apply(volumes, augmenter.draw(4, 8, 5))))
    assert result.shape == volumes.shape and result.dtype == np.float32


def test_paper_preset_is_one_resampling_then_standardised():
    volumes, augmenter = random_volumes(6, 9, 9, 9, 1), SubtomogramAugmenter("ssl2022")
    drawn = augmenter.draw(6, 9, 2)
    assert set(drawn) == {"matrices"}
    expected = intensity.standardize(affine_transform_3d(volumes, drawn["matrices"]))
    np.testing.assert_allclose(numpy(augmenter.apply(volumes, drawn)), numpy(expected), atol=2e-5)


def test_paper_preset_composes_crop_then_affine():
    """Half of the samples are cropped and half changed, independently; z is never touched."""
    matrices = draw(SubtomogramAugmenter("ssl2022"), size=32)["matrices"]
    assert (matrices == np.eye(3, 4)).all(axis=(1, 2)).mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(matrices[:, 0], np.broadcast_to([1, 0, 0, 0], (2000, 4))) and not matrices[:, 1:, 0].any()
    angle = np.degrees(np.arctan2(matrices[:, 2, 1], matrices[:, 1, 1]))
    assert (angle != 0).mean() == pytest.approx(0.5, abs=0.04)
    assert kstest(angle[angle != 0], "uniform", args=(-45, 90)).pvalue > 1e-3
    magnification = np.linalg.det(matrices[:, :, :3]) ** -0.5
    assert magnification.min() > 0.9 - 1e-5 and magnification.max() < 1.1 * 2**0.5 + 1e-5
    only_cropped = (angle == 0) & (magnification != 1)
    kept = magnification[only_cropped].astype(np.float64) ** -2
    assert kstest(kept, "uniform", args=(0.5, 0.5)).pvalue > 1e-3


def test_a_crop_followed_by_a_turn_shows_the_turned_crop():
    """Order: the crop comes first, so its offset is turned and scaled by nothing but the affine change after it."""
    augmenter = SubtomogramAugmenter("ssl2022", crop_probability=1.0, affine_probability=1.0)
    crop, turn = augmenter.geometry
    first, second = (numpy(layer.draw(8, 16, 3)["matrices"]) for layer in (crop, turn))
    offset = np.array([1.0, -2.0, 3.0])
    for matrix, a, b in zip(draw(augmenter, 8, 16, 3)["matrices"], first, second, strict=True):
        through = a[:, :3] @ (b[:, :3] @ offset + b[:, 3]) + a[:, 3]
        np.testing.assert_allclose(matrix[:, :3] @ offset + matrix[:, 3], through, atol=1e-5)


def test_recommended_turns_every_sample_in_3d_and_shifts_a_little():
    drawn = draw(SubtomogramAugmenter("recommended"), size=32)
    linear, shift = drawn["matrices"][..., :3], drawn["matrices"][..., 3]
    np.testing.assert_allclose(linear @ np.swapaxes(linear, 1, 2), np.broadcast_to(np.eye(3), linear.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(linear), 1, atol=1e-5)  # no mirror
    assert kstest(linear[:, 0, 0], "uniform", args=(-1.000001, 2.000002)).pvalue > 1e-3
    content_shift = -(np.swapaxes(linear, 1, 2) @ shift[..., None])[..., 0]
    assert np.abs(content_shift).max() <= 0.06 * 32 + 1e-4 and (content_shift.std(axis=0) > 1).all()
    assert kstest(drawn["noise_level"], "uniform", args=(0, 0.5)).pvalue > 1e-3


@pytest.mark.parametrize("preset", list(PRESETS))
def test_no_preset_mirrors(preset):
    assert PRESETS[preset]["mirror_probability"] == 0
    drawn = draw(SubtomogramAugmenter(preset))
    assert "matrices" not in drawn or (np.linalg.det(drawn["matrices"][..., :3]) > 0).all()


def test_mirror_option_changes_handedness_of_half():
    matrices = draw(SubtomogramAugmenter("recommended", mirror_probability=0.5))["matrices"]
    assert (np.linalg.det(matrices[..., :3]) < 0).mean() == pytest.approx(0.5, abs=0.05)


def test_noise_is_in_units_of_the_volume():
    volumes = random_volumes(2, 16, 16, 16, 1) * np.float32([1, 10]).reshape(2, 1, 1, 1, 1)
    added = numpy(SubtomogramAugmenter("none", noise=(0.5, 0.5))(volumes, seed=1)) - volumes
    np.testing.assert_allclose(added.std(axis=(1, 2, 3, 4)), [0.5, 5], rtol=0.04)


def test_views_of_presets_are_standardised():
    volumes = 3 + 7 * random_volumes(4, 12, 12, 12, 1)
    for preset in ("ssl2022", "recommended"):
        view = numpy(SubtomogramAugmenter(preset, wedge=60)(volumes, seed=1))
        np.testing.assert_allclose(view.mean(axis=(1, 2, 3, 4)), 0, atol=1e-5)
        np.testing.assert_allclose(view.std(axis=(1, 2, 3, 4)), 1, atol=1e-4)


def test_two_views_keep_the_particle_and_get_other_neighbours():
    augmenter = SubtomogramAugmenter("none", surroundings=(0.25, 0.25))
    volumes = np.broadcast_to(np.arange(6.0).reshape(6, 1, 1, 1, 1), (6, 16, 16, 16, 1))
    views = [numpy(augmenter(volumes, seed=seed)) for seed in range(20)]
    assert all(np.array_equal(view[:, 8, 8, 8, 0], np.arange(6)) for view in views)
    corners = {tuple(view[:, 0, 0, 0, 0]) for view in views}
    assert len(corners) == 5 and all(corner[i] != i for corner in corners for i in range(6))
    drawn = draw(SubtomogramAugmenter("none", surroundings=(0.2, 0.4)), size=32)
    assert kstest(drawn["radius"] / 32, "uniform", (0.2, 0.2)).pvalue > 1e-3


def test_wedge_is_empty_after_turning_and_noise():
    volumes = random_volumes(3, 12, 12, 12, 1)
    view = numpy(SubtomogramAugmenter("recommended", wedge=50)(volumes, seed=1))[..., 0]
    power = np.abs(np.fft.fftn(view, axes=(1, 2, 3))) ** 2
    missing = np.broadcast_to(intensity.wedge_mask(12, 12, 50)[:, None, :] == 0, power.shape)
    assert power[missing].sum() < 1e-9 * power.sum() and 0.2 < missing.mean() < 0.6


def test_half_turns_leave_the_missing_wedge_where_it_is():
    wedge = intensity.wedge_mask(13, 13, 50)[:, None, :] == 0
    spectra = np.fft.fftn(random_volumes(16, 13, 13, 13), axes=(1, 2, 3))
    volumes = np.fft.ifftn(np.where(wedge, 0, spectra), axes=(1, 2, 3)).real[..., None].astype(np.float32)
    turned = numpy(SubtomogramAugmenter("none", rotation="half_turns")(volumes, seed=1))
    moved = np.abs(turned - volumes).max(axis=(1, 2, 3, 4)) > 0.1
    assert 6 <= moved.sum() < 16
    power = np.abs(np.fft.fftn(turned[..., 0], axes=(1, 2, 3))) ** 2
    assert power[np.broadcast_to(wedge, power.shape)].sum() < 1e-9 * power.sum()


def test_jitter_survives_standardisation():
    volumes = random_volumes(64, 8, 8, 8, 1)
    view = numpy(SubtomogramAugmenter("ssl2022", jitter=0.2)(volumes, seed=1))
    mean, std = view.mean(axis=(1, 2, 3, 4)), view.std(axis=(1, 2, 3, 4))
    assert np.abs(mean).max() <= 0.2 + 1e-5 and 0.08 < mean.std() < 0.16
    assert np.abs(std - 1).max() <= 0.2 + 1e-4 and 0.08 < std.std() < 0.16


def test_two_streams_give_two_views_and_a_step_repeats():
    volumes, augmenter = random_volumes(4, 8, 8, 8, 1), SubtomogramAugmenter("recommended")
    view = {
        key: numpy(augmenter(volumes, seed=ops.convert_to_tensor(key, "int32"))) for key in ((0, 7), (1, 7), (0, 8))
    }
    assert np.array_equal(view[0, 7], numpy(augmenter(volumes, seed=ops.convert_to_tensor([0, 7], "int32"))))
    assert not np.array_equal(view[0, 7], view[1, 7]) and not np.array_equal(view[0, 7], view[0, 8])


def test_a_generator_as_seed_advances():
    volumes, augmenter = random_volumes(2, 8, 8, 8, 1), SubtomogramAugmenter("recommended")
    generator = keras.random.SeedGenerator(1)
    assert not np.array_equal(numpy(augmenter(volumes, seed=generator)), numpy(augmenter(volumes, seed=generator)))


@pytest.mark.parametrize("options", KINDS, ids=["paper", "z", "so3", "half turns"])
def test_compiled_equals_not_compiled(options):
    """One trace serves every step and every batch size; XLA draws the same numbers."""
    import tensorflow as tf

    augmenter, traces = SubtomogramAugmenter("ssl2022", **options), []

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec((None, 8, 8, 8, 1)), tf.TensorSpec((2,), tf.int64)])
    def compiled(volumes, seed):
        traces.append(1)
        return augmenter(volumes, seed=seed)

    for batch, step in ((3, 0), (3, 1), (5, 1)):
        volumes, seed = random_volumes(batch, 8, 8, 8, 1), np.array([4, step])
        np.testing.assert_allclose(compiled(volumes, seed), augmenter(volumes, seed=seed), atol=1e-3)
    assert len(traces) == 1


@pytest.mark.parametrize("options", KINDS, ids=["paper", "z", "so3", "half turns"])
def test_serialisation_round_trip(options):
    augmenter = SubtomogramAugmenter("ssl2022", seed=3, **options)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(augmenter))
    assert restored.get_config() == augmenter.get_config() and restored.options == augmenter.options
    volumes = random_volumes(3, 8, 8, 8, 1)
    assert np.array_equal(numpy(augmenter(volumes)), numpy(restored(volumes)))


def test_one_state_for_the_whole_pipeline():
    """A method that owns an augmenter checkpoints two integers, not a generator for each layer."""
    assert len(SubtomogramAugmenter("recommended", mirror_probability=0.5).variables) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"preset": "ssl2020"}, "`preset` is one of none, ssl2022, recommended, crowded. Received: preset='ssl2020'"),
        ({"nois": (0, 1)}, r"no option 'nois'. Received: nois=\(0, 1\). Did you mean noise\?"),
        ({"rotation": "xyz"}, "`rotation` is one of z, so3, half_turns. Received: rotation='xyz'"),
        ({"crop_probability": 2}, "`crop_probability` is a probability from 0 to 1. Received: crop_probability=2"),
        ({"noise": 0.5}, "`noise` is a pair .*Received: noise=0.5"),
        ({"wedge": 90}, "`wedge` is a number from 1 to 89. Received: wedge=90"),
        ({"jitter": -0.1}, "`jitter` is a number from 0 to 1. Received: jitter=-0.1"),
        ({"standardize": 1}, "`standardize` is True or False. Received: standardize=1"),
        ({"angle": "45"}, "`angle` is a number from 0 to 180. Received: angle='45'"),
    ],
)
def test_mistakes_are_quoted(options, message):
    with pytest.raises(InputError, match=message):
        SubtomogramAugmenter(**options)


ON_JAX = """
import sys
import jax, keras, numpy as np
from aitom_ssl.augmentation import SubtomogramAugmenter
from aitom_ssl.augmentation.seeding import seed_key

assert keras.backend.backend() == "jax"
volumes = np.load(sys.argv[1])
augmenter = SubtomogramAugmenter("recommended", **eval(sys.argv[2]))
views = jax.jit(lambda v, seed: augmenter(v, seed=seed))
seeds = [np.array(s, np.uint32) for s in ([4, 1], [4, 1], [4, 2])]
first, again, other = (np.asarray(views(volumes, seed)) for seed in seeds)
assert first.dtype == np.float32 and np.isfinite(first).all()
assert np.array_equal(first, again) and not np.array_equal(first, other)
generator = keras.random.SeedGenerator(1)
assert not np.array_equal(seed_key(generator), seed_key(generator))
np.save(sys.argv[3], np.stack([first, other]))
"""


def test_jax_gives_the_same_views(tmp_path):
    """Also: under jax.jit a seed tensor repeats its draw, and a step changes it."""
    pytest.importorskip("jax")
    options = {"wedge": 60.0, "mirror_probability": 0.5}
    augmenter, volumes = SubtomogramAugmenter("recommended", **options), random_volumes(3, 8, 8, 8, 1)
    np.save(tmp_path / "given.npy", volumes)
    command = [sys.executable, "-c", ON_JAX, str(tmp_path / "given.npy"), repr(options), str(tmp_path / "result.npy")]
    repository = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [numpy(augmenter(volumes, seed=np.array(seed))) for seed in ([4, 1], [4, 2])]
    np.testing.assert_allclose(np.load(tmp_path / "result.npy"), np.stack(expected), atol=1e-3)
