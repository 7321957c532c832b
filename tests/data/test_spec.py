"""Specifications: every named one is sound, and each kind of mistake in a file is named."""

import dataclasses
import math

import pytest

from aitom_ssl.data.spec import DatasetSpec, load_spec, spec_names, specs_folder
from aitom_ssl.errors import InputError

GOOD = """
description: two of them
simulation: {classes: [proteasome_20s, groel], size: 16, snr: .inf, n_sim: 16}
splits: {train: 8, test: 4}
"""


def write(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_good_spec(tmp_path):
    spec = load_spec(write(tmp_path, GOOD))
    assert isinstance(spec, DatasetSpec)
    assert (spec.name, spec.description, spec.dtype, spec.standardize) == ("mine", "two of them", "float16", True)
    assert spec.simulation.classes == ("proteasome_20s", "groel") and spec.simulation.snr == math.inf
    assert spec.splits == {"train": 8, "test": 4}


@pytest.mark.parametrize("text", ["inf", ".inf", "1.0e+400", "'inf'"])
def test_ways_to_write_infinity(tmp_path, text):
    assert load_spec(write(tmp_path, GOOD.replace(".inf", text))).simulation.snr == math.inf


def test_numbers_that_yaml_takes_for_text(tmp_path):
    assert load_spec(write(tmp_path, GOOD.replace(".inf", "1e3"))).simulation.snr == 1000.0


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("splits:", "spilts:", ["mine.yaml", "'spilts'", "{'train': 8, 'test': 4}", "mean splits", "Allowed: desc"]),
        ("size: 16", "sise: 16", ["'sise'", "16", "in simulation", "Did you mean size", "voxel_size"]),
        ("train: 8", "training: 8", ["'training'", "8", "in splits", "Did you mean train", "validation"]),
        ("train: 8", "train: 0", ["train in splits is 0", "from 1 up"]),
        ("train: 8", "train: many", ["'many'"]),
        ("train: 8", "train: true", ["True"]),
        ("train: 8, test: 4", "", ["splits is empty"]),
        ("{train: 8, test: 4}", "12", ["splits is 12", "mapping"]),
        ("size: 16", "size: 15", ["mine.yaml: size is 15", "even"]),
        ("snr: .inf", "snr: much", ["snr is 'much'", "positive number"]),
        ("snr: .inf", "snr_mode: box", ["'box'", "aitom_box"]),
        ("snr: .inf", "base: /tmp", ["'base'"]),
        ("snr: .inf", "halves: tilts", ["halves is 'tilts'", "noise when physics is volume"]),
        ("snr: .inf", "size: 20", ["'size' is given twice"]),
        ("classes: [proteasome_20s, groel], ", "", ["classes"]),
        ("[proteasome_20s, groel]", "proteasome_20s", ["classes is 'proteasome_20s'"]),
        ("description: two of them", "preset: default", ["lacks the key 'description'"]),
        ("description: two of them", "description: 7", ["description is 7"]),
        ("description: two of them", "description: d\npreset: liu2021", ["'liu2021'", "liu2020"]),
        ("description: two of them", "description: d\ndtype: int8", ["'int8'", "float16, float32"]),
        ("description: two of them", "description: d\nstructures: nowhere", ["'nowhere'", "there is no folder"]),
        ("description: two of them", "description: d\nextends: sim_dmo", ["No dataset 'sim_dmo'", "sim_demo"]),
        ("description: two of them", "description: [", ["mine.yaml is not YAML"]),
        (GOOD, "3", ["mine.yaml holds 3", "mapping"]),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, old, new, parts):
    with pytest.raises(InputError) as caught:
        load_spec(write(tmp_path, GOOD.replace(old, new)))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_misspelt_structure_is_named(tmp_path):
    with pytest.raises(InputError, match=r"mine\.yaml: .*groll.*groel"):
        load_spec(write(tmp_path, GOOD.replace("groel", "groll")))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + "dtype: [float16]\n", ("dtype", "['float16']", "float32")),
        (GOOD + "preset: [liu2020]\n", ("preset", "['liu2020']", "xu2017")),
        ("description: child\nextends: gone.yaml\n", ("mine.yaml", "extends", "No file", "gone.yaml")),
        ("description: child\nextends: sim_dem\n", ("mine.yaml", "extends", "sim_demo")),
    ],
)
def test_lists_for_names_and_lost_parents_are_named(tmp_path, text, parts):
    with pytest.raises(InputError) as error:
        load_spec(write(tmp_path, text))
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)


def test_a_folder_or_a_lost_path_is_not_answered_with_names(tmp_path):
    for name, said in ((tmp_path, "is a folder, expected a spec"), (tmp_path / "lost", "No folder")):
        with pytest.raises(InputError, match=said):
            load_spec(name)


def test_extending_merges_mapping_by_mapping(tmp_path):
    write(tmp_path, GOOD, "parent.yaml")
    child = "description: noisier\nextends: parent.yaml\nsimulation: {snr: 0.5}\nsplits: {train: 6}\n"
    spec = load_spec(write(tmp_path, child))
    assert (spec.description, spec.simulation.snr, spec.simulation.size) == ("noisier", 0.5, 16)
    assert spec.splits == {"train": 6, "test": 4}


def test_extending_oneself_is_refused(tmp_path):
    write(tmp_path, "description: d\nextends: b.yaml\n", "a.yaml")
    with pytest.raises(InputError, match="a -> b -> a"):
        load_spec(write(tmp_path, "description: d\nextends: a.yaml\n", "b.yaml").parent / "a.yaml")


def test_structures_are_found_from_the_folder_of_the_file(tmp_path):
    (tmp_path / "models").mkdir()
    spec = load_spec(write(tmp_path, GOOD.replace("description", "structures: models\ndescription")))
    assert spec.simulation.base == str(tmp_path / "models")


def test_unknown_names_suggest_near_ones(tmp_path):
    with pytest.raises(InputError, match=r"No dataset 'sim_snr05'\. Did you mean .*sim_snr005"):
        load_spec("sim_snr05")
    with pytest.raises(InputError, match=r"No file .*nowhere\.yaml"):
        load_spec(tmp_path / "nowhere.yaml")


def test_the_fingerprint_is_of_the_samples_only(tmp_path):
    spec = load_spec(write(tmp_path, GOOD))
    renamed = load_spec(write(tmp_path, GOOD.replace("two of them", "a pair"), "other.yaml"))
    assert spec.fingerprint == renamed.fingerprint
    changed = [spec.with_seed(1), spec.limited(5), load_spec(write(tmp_path, GOOD.replace("inf", "5"), "third.yaml"))]
    assert len({spec.fingerprint, *(other.fingerprint for other in changed)}) == 4


def test_a_limit_is_per_split(tmp_path):
    spec = load_spec(write(tmp_path, GOOD))
    assert spec.limited(6).splits == {"train": 6, "test": 4}
    with pytest.raises(InputError, match="limit is 0"):
        spec.limited(0)


ATOMIC = "atomic24"


@pytest.mark.parametrize("name", [name for name in spec_names() if name != ATOMIC])
def test_named_specs_are_sound(name):
    spec = load_spec(name)
    assert len(spec.description) > 20
    assert len(set(spec.simulation.class_names)) == spec.simulation.n_classes


def test_the_atomic_spec():
    # The spec names the folder by its place beside the checkout, wherever AITOM_SSL_SHARED points.
    folder = specs_folder().parents[1] / "shared" / "structures" / "atomic"
    if not folder.is_dir():
        pytest.skip(f"no atomic models at {folder}")
    spec = load_spec(ATOMIC)
    assert spec.simulation.n_classes == len(spec.simulation.class_names) == 24


def test_the_families_that_the_papers_need_are_there():
    expected = {"sim_demo", ATOMIC, *(f"sim_snr{snr}" for snr in ("inf", "005", "003"))}
    expected |= {f"crop_snr{snr}" for snr in ("inf", "3", "05", "005")}
    expected |= {"crop_snr05_halves", "sim_snr005_halves", "sim_snr005_10k"}
    expected |= {f"cosnet_snr{snr}" for snr in ("inf", "1000", "05")}
    expected |= {f"sim50_snr{snr}" for snr in ("inf", "005", "003")}
    expected |= {f"xu2017_snr{snr}_tilt{t}" for snr in ("1000", "05", "01", "005", "003") for t in (60, 50, 40)}
    assert set(spec_names()) == expected


def test_the_larger_set_is_the_same_with_more_to_pretrain_on():
    small, large = load_spec("sim_snr005"), load_spec("sim_snr005_10k")
    assert large.simulation == small.simulation  # and so are the samples
    assert large.splits == {**small.splits, "train": 10_000}


@pytest.mark.parametrize("name", ["crop_snr05", "sim_snr005"])
def test_sets_with_halves_are_the_same_but_for_them(name):
    whole, split = load_spec(name), load_spec(f"{name}_halves")
    assert (whole.has_halves, split.has_halves) == (False, True) and split.splits == whole.splits
    assert split.simulation == dataclasses.replace(whole.simulation, halves="noise")
    assert split.fingerprint != whole.fingerprint


@pytest.mark.parametrize("snr", ["inf", "005", "003"])
def test_ssl_2022_sets(snr):
    """Ten classes of 500, 32^3, 60:20:20 (SSL 2022, section 3.1)."""
    spec = load_spec(f"sim_snr{snr}")
    simulation = spec.simulation
    assert spec.splits == {"train": 3000, "validation": 1000, "test": 1000}
    assert (simulation.n_classes, simulation.size, simulation.n_neighbors) == (10, 32, 4)
    assert (simulation.snr, simulation.snr_mode) == ({"inf": math.inf, "005": 0.05, "003": 0.03}[snr], "aitom_box")


@pytest.mark.parametrize("snr", ["inf", "1000", "05"])
def test_cosnet_sets(snr):
    """About 5,835 samples of 22 classes, 14 to train on and 8 to test with, each with its mask (Zhou 2020, 3.1)."""
    spec = load_spec(f"cosnet_snr{snr}")
    simulation = spec.simulation
    assert (simulation.n_classes, simulation.size, simulation.voxel_size) == (22, 32, 10.0) and simulation.mask
    assert [simulation.labels(split) for split in range(3)] == [(*range(14),), (*range(14),), (*range(14, 22),)]
    samples = {split: count / len(simulation.labels(i)) for i, (split, count) in enumerate(spec.splits.items())}
    assert samples == {"train": 225, "validation": 40, "test": 265} and sum(spec.splits.values()) == 5830
    assert (simulation.snr, simulation.snr_mode) == ({"inf": math.inf, "1000": 1000, "05": 0.5}[snr], "crop")


@pytest.mark.parametrize("snr", ["1000", "05", "01", "005", "003"])
@pytest.mark.parametrize("tilt", [60, 50, 40])
def test_xu_2017_sets(snr, tilt):
    """22 complexes and the empty class, 1,000 each, in two halves, one of them for testing (Xu 2017, section 3.1)."""
    spec = load_spec(f"xu2017_snr{snr}_tilt{tilt}")
    simulation = spec.simulation
    value = {"1000": 1000.0, "05": 0.5, "01": 0.1, "005": 0.05, "003": 0.03}[snr]
    assert (simulation.n_classes, simulation.empty_class, simulation.size) == (23, True, 40)
    assert (simulation.snr, simulation.tilt_max, simulation.voxel_size) == (value, tilt, 9.2)
    assert (sum(spec.splits.values()), spec.splits["test"]) == (23_000, 11_500)


@pytest.mark.parametrize("snr", ["inf", "005", "003"])
def test_dal_2023_sets(snr):
    """Fifty classes, 24,000 for training and 1,000 for testing (DAL 2023, section 4.1)."""
    spec = load_spec(f"sim50_snr{snr}")
    assert spec.simulation.n_classes == 50
    assert (spec.splits["train"] + spec.splits.get("validation", 0), spec.splits["test"]) == (24_000, 1_000)
