"""Parameters: presets say what the papers say, every bad value is named with what is allowed."""

import dataclasses
import math
import shutil

import mrcfile
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.simulation import PRESETS, SimulationSpec

CLASSES = ("groel", "hemoglobin")


def test_defaults_of_the_specification():
    spec = SimulationSpec(classes=CLASSES)
    assert (spec.size, spec.voxel_size, spec.simulated_size, spec.reconstruction_size) == (32, 10.0, 48, 32)
    assert (spec.tilt_max, spec.tilt_step, spec.voltage_kv, spec.cs_mm, spec.defocus_um) == (60, 3, 300, 2, 5)
    assert (spec.contrast, spec.max_shift, spec.snr, spec.snr_mode) == ("bright", 4, 0.05, "crop")
    assert (spec.normalize, spec.mask, spec.n_neighbors, spec.empty_class) == ("zscore", False, 0, False)
    assert SimulationSpec(classes=CLASSES, physics="tilt").simulated_size == 64


def test_presets():
    xu = SimulationSpec.from_preset("xu2017", classes=CLASSES)
    assert (xu.size, xu.voxel_size, xu.noise_split, xu.snr_mode, xu.mtf) == (40, 9.2, 1.0, "projection", "sinc")
    liu = SimulationSpec.from_preset("liu2020", classes=CLASSES)
    assert (liu.size, liu.voxel_size, liu.n_neighbors, liu.envelope, liu.lowpass) == (32, 10.0, 4, 0.4, 0.5)
    assert (liu.noise_split, liu.noise_spectrum, liu.mtf, liu.snr_mode) == (0.5, "white", "detector", "aitom_box")
    assert SimulationSpec.from_preset("clean", classes=CLASSES).snr == math.inf
    for preset in PRESETS:
        SimulationSpec.from_preset(preset, classes=CLASSES)


def test_overrides_beat_the_preset():
    assert SimulationSpec.from_preset("liu2020", classes=CLASSES, snr_mode="crop").snr_mode == "crop"


@pytest.mark.parametrize("text", ["inf", ".inf", "Infinity", math.inf])
def test_snr_takes_infinity_in_words(text):
    assert SimulationSpec(classes=CLASSES, snr=text).snr == math.inf


BAD = [
    ("size", 33, "even"),
    ("size", 6, "from 8"),
    ("size", "32", "integer"),
    ("size", True, "integer"),
    ("seed", -1, "at least 0"),
    ("voxel_size", 0, "positive"),
    ("voxel_size", math.nan, "positive"),
    ("resolution", -1.0, "positive"),
    ("n_sim", 30, "at least size"),
    ("n_sim", 49, "even"),
    ("tilt_max", 91, "at most 90"),
    ("tilt_step", 61, "tilt_max"),
    ("voltage_kv", 1, "kilovolts"),
    ("amplitude_contrast", 1.5, "0 to 1"),
    ("envelope", 0, "positive"),
    ("bfactor", -1, "at least 0"),
    ("mtf", "sync", "sinc, detector, none"),
    ("contrast", "black", "bright, dark"),
    ("physics", "3d", "volume, tilt"),
    ("max_shift", 17, "half of size"),
    ("n_neighbors", -1, "0 to 32"),
    ("n_neighbors", 2.5, "integer"),
    ("min_gap", math.inf, "at least 0"),
    ("snr", 0, "inf"),
    ("snr", "high", "inf"),
    ("snr", None, "inf"),
    ("snr_mode", "voxel", "crop, target, dataset, projection, aitom_box"),
    ("noise_split", -0.1, "0 to 1"),
    ("noise_spectrum", "pink", "dfi, white"),
    ("lowpass", 2, "at most 1"),
    ("normalize", "minmax", "zscore, none"),
    ("mask", "yes", "true or false"),
    ("halves", "frames", "none, noise, tilts"),
    ("halves", True, "none, noise, tilts"),
    ("halves", "tilts", "noise when physics is volume"),
    ("unseen_classes", "groel", "list"),
    ("unseen_classes", ("clpp",), "not in classes"),
    ("unseen_classes", CLASSES, "fewer than all"),
    ("classes", "groel", "list"),
    ("classes", (), "list"),
    ("classes", ("groel", "none"), "empty_class"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD)
def test_a_bad_value_is_named(field, value, allowed):
    with pytest.raises(InputError) as error:
        SimulationSpec(**{"classes": CLASSES, field: value})
    message = str(error.value)
    assert message.startswith(field) and allowed in message and "\n" not in message
    received = value[-1] if isinstance(value, tuple) and value else value
    assert repr(received) in message


def test_values_that_do_not_go_together():
    with pytest.raises(InputError, match="neighbours"):
        SimulationSpec(classes=CLASSES, n_neighbors=4, n_sim=32)
    with pytest.raises(InputError, match="2 size"):
        SimulationSpec(classes=CLASSES, physics="tilt", n_sim=48)
    with pytest.raises(InputError, match="noise_spectrum"):
        SimulationSpec(classes=CLASSES, physics="tilt", noise_spectrum="white")
    with pytest.raises(InputError, match="empty_class"):
        SimulationSpec(classes=CLASSES, empty_class=True, unseen_classes=CLASSES[:1])


def test_unknown_names_get_a_suggestion():
    with pytest.raises(InputError, match="Did you mean voxel_size"):
        SimulationSpec.from_preset("default", classes=CLASSES, voxelsize=10)
    with pytest.raises(InputError, match="Did you mean liu2020"):
        SimulationSpec.from_preset("liu2o20", classes=CLASSES)
    with pytest.raises(InputError, match="classes is missing"):
        SimulationSpec.from_preset("default")
    with pytest.raises(InputError):
        _ = SimulationSpec(classes=("groell",)).class_names


def test_class_names():
    assert SimulationSpec(classes=CLASSES, empty_class=True).class_names == (*CLASSES, "none")
    with pytest.raises(InputError, match="more than one structure"):
        _ = SimulationSpec(classes=("groel", "groel")).class_names


def test_fingerprint_follows_every_parameter():
    spec = SimulationSpec(classes=CLASSES)
    assert spec.fingerprint() == SimulationSpec(classes=list(CLASSES), n_sim=48, recon_box=32).fingerprint()
    changed = {"seed": 1, "snr": 0.1, "mask": True, "classes": CLASSES[::-1], "empty_class": True, "envelope": 0.4}
    changed |= {"halves": "noise", "unseen_classes": CLASSES[:1]}
    prints = {dataclasses.replace(spec, **{name: value}).fingerprint() for name, value in changed.items()}
    assert len(prints | {spec.fingerprint()}) == len(changed) + 1


def test_without_later_parameters_the_identity_is_that_of_before_there_were_any():
    spec = SimulationSpec(classes=CLASSES)
    assert not {"halves", "unseen_classes", "base"} & set(spec.parameters())
    assert spec.fingerprint() == "b1bb14b509e4c288fa1a2b47fc77867d15eeb95cede3cdd160a6f58304ce69e9"
    assert dataclasses.replace(spec, halves="noise").parameters() == {**spec.parameters(), "halves": "noise"}


def test_unseen_classes_have_a_split_of_their_own():
    spec = SimulationSpec(classes=("groel", "clpp", "p97", "urease"), unseen_classes=("urease", "clpp"))
    assert [spec.labels(split) for split in range(3)] == [(0, 2), (0, 2), (1, 3)]
    assert spec.class_names == ("groel", "clpp", "p97", "urease")
    everything = dataclasses.replace(spec, unseen_classes=(), empty_class=True)
    assert [everything.labels(split) for split in range(3)] == [(0, 1, 2, 3, 4)] * 3


def test_fingerprint_follows_content_and_not_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    ball = (np.indices((12, 12, 12)) - 6.0).astype(np.float32)
    with mrcfile.new(tmp_path / "a" / "ball.mrc") as file:
        file.set_data(np.exp(-np.square(ball).sum(0) / 8).astype(np.float32))
        file.voxel_size = 10.0
    shutil.copy(tmp_path / "a" / "ball.mrc", tmp_path / "b" / "ball.mrc")
    here = SimulationSpec(classes=("ball.mrc",), base=str(tmp_path / "a"))
    there = SimulationSpec(classes=(str(tmp_path / "b" / "ball.mrc"),))
    assert here.fingerprint() == there.fingerprint()
    with mrcfile.open(tmp_path / "b" / "ball.mrc", mode="r+") as file:
        file.data[6, 6, 6] += 1
    assert here.fingerprint() != there.fingerprint()
