"""Building: parallel, resumable, atomic, and always the same bytes."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aitom_ssl.data import build as builder
from aitom_ssl.data import shards
from aitom_ssl.data.build import build, dataset_folder, load, prepare
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.header import read_header
from aitom_ssl.data.shards import halves_file, labels_file, volumes_file
from aitom_ssl.data.spec import load_spec
from aitom_ssl.errors import InputError

SPEC = """
description: small, for tests
simulation: {classes: [proteasome_20s, groel, apoferritin], size: 16, voxel_size: 20, n_sim: 16, snr: 0.5}
splits: {train: 40, test: 20}
"""
PROGRAM = """
import sys
from pathlib import Path
from aitom_ssl.data import load_spec, shards
from aitom_ssl.data.build import build
shards.SHARD_SIZE = 8
build(load_spec(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]), progress=False)
"""


pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return load_spec(path)


@pytest.fixture(autouse=True)
def own_cache_for_each_test(tmp_path, monkeypatch):
    monkeypatch.setenv("AITOM_SSL_CACHE", str(tmp_path / "cache"))


def contents(folder):
    """Name to bytes of every file but dataset.json, which holds the folder's own name."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def checksums(folder):
    return read_header(folder)["splits"]


def run_builder(spec_path, folder, workers):
    program = [sys.executable, "-c", PROGRAM, str(spec_path), str(folder), str(workers)]
    return subprocess.Popen(program, start_new_session=True, stderr=subprocess.PIPE)


def test_samples_are_the_simulators(spec):
    from aitom_ssl.simulation import Simulator

    folder = build(spec, workers=1, progress=False)
    assert folder == dataset_folder(spec)
    simulator = Simulator(spec.simulation)
    for split, number in (("train", 0), ("test", 2)):
        dataset = Dataset(folder, split)
        dataset.verify()
        assert len(dataset) == spec.splits[split] and dataset.class_names == ["proteasome_20s", "groel", "apoferritin"]
        for index in (0, 7, 8, 19):
            expected, found = simulator.sample(number, index), dataset[index]
            stored = expected["volume"].astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(found["volume"], stored)
            assert (found["label"], found["index"]) == (expected["label"], index)
            np.testing.assert_allclose(found["quaternion"], expected["quaternion"])
            np.testing.assert_allclose(found["shift"], expected["shift"])
            np.testing.assert_allclose(found["crop_snr"], expected["crop_snr"])


def test_one_and_two_workers_write_the_same_bytes(spec, tmp_path):
    one = build(spec, tmp_path / "one", workers=1, progress=False)
    two = build(spec, tmp_path / "two", workers=2, progress=False)
    assert contents(one) == contents(two) and checksums(one) == checksums(two)
    assert len(contents(one)) == 2 * (5 + 3)


@pytest.mark.parametrize(("workers", "kills"), [(1, 2), (2, 1)])
def test_killed_builds_resume_to_the_same_bytes(tmp_path, workers, kills):
    path = tmp_path / "long.yaml"
    path.write_text(SPEC.replace("train: 40, test: 20", "train: 320, test: 80"))
    whole = build(load_spec(path), tmp_path / "whole", workers=1, progress=False)
    folder, kept = tmp_path / "killed", 0
    for _ in range(kills):
        process = run_builder(path, folder, workers)
        deadline = time.monotonic() + 60
        while len(list(folder.glob("train/labels-*"))) < kept + 6 and time.monotonic() < deadline:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
        finished = {name: data for name, data in contents(folder).items() if "partial" not in name}
        kept = len(list(folder.glob("train/labels-*")))
        assert 6 <= kept < 40 and not (folder / "dataset.json").exists()
        assert all(contents(whole)[name] == data for name, data in finished.items())
        with pytest.raises(InputError, match=r"not a dataset"):
            Dataset(folder)
    assert run_builder(path, folder, workers).wait() == 0
    assert contents(folder) == contents(whole) and checksums(folder) == checksums(whole)
    Dataset(folder).verify()


def test_two_processes_at_once(tmp_path):
    path = tmp_path / "shared.yaml"
    path.write_text(SPEC.replace("train: 40, test: 20", "train: 400, test: 100"))
    pair = [run_builder(path, tmp_path / "both", 1) for _ in range(2)]
    assert [process.wait() for process in pair] == [0, 0]
    build(load_spec(path), tmp_path / "alone", workers=1, progress=False)
    assert contents(tmp_path / "both") == contents(tmp_path / "alone")
    for split in ("train", "test"):
        Dataset(tmp_path / "both", split).verify()


def test_nothing_to_do_writes_nothing(spec, monkeypatch):
    folder = build(spec, workers=1, progress=False)
    monkeypatch.setattr(builder, "_write", None)
    assert build(spec, workers=1, progress=False) == folder


def test_splits_one_after_the_other(spec, tmp_path):
    folder = build(spec, tmp_path / "d", splits=["test"], workers=1, progress=False)
    assert list(read_header(folder)["splits"]) == ["test"]
    with pytest.raises(InputError, match=r"no split 'train' .*aitom-ssl simulate --data=.*small.yaml --output=.*again"):
        Dataset(folder)
    build(spec, folder, workers=1, progress=False)
    assert list(read_header(folder)["splits"]) == ["train", "test"]
    assert contents(folder) == contents(build(spec, tmp_path / "whole", workers=1, progress=False))


def test_a_limited_dataset_is_the_beginning_in_a_folder_of_its_own(spec):
    whole, part = (build(spec, limit=limit, workers=1, progress=False) for limit in (None, 12))
    assert whole != part
    assert len(Dataset(part)) == 12 and len(Dataset(part, "test")) == 12
    np.testing.assert_array_equal(Dataset(part).volumes(range(12)), Dataset(whole).volumes(range(12)))


def test_damaged_shards_are_named_and_the_next_build_mends_them(spec):
    folder = build(spec, workers=1, progress=False)
    before = contents(folder)
    os.truncate(volumes_file(folder, "train", 1), 1000)
    os.unlink(labels_file(folder, "train", 3))
    with pytest.raises(InputError, match=r"volumes-00001.npy has 1000 bytes .*`aitom-ssl simulate --data=\S+` again"):
        load(spec.request.removeprefix("--data="))
    build(spec, workers=1, progress=False)
    assert contents(folder) == before


def test_a_lost_dataset_json_is_written_again_from_the_shards(spec):
    folder = build(spec, workers=1, progress=False)
    listed = checksums(folder)
    (folder / "dataset.json").unlink()
    build(spec, workers=1, progress=False)
    assert checksums(folder) == listed


def test_another_datasets_folder_is_refused(spec, tmp_path):
    folder = build(spec, tmp_path / "d", workers=1, progress=False)
    with pytest.raises(InputError, match="holds another dataset"):
        build(spec.with_seed(9), folder, workers=1, progress=False)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"labels-00000.npz belongs to another dataset"):
        build(spec.with_seed(9), folder, workers=1, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        build(spec, tmp_path / "file", workers=1, progress=False)


def test_too_little_space_is_said_before_the_work(spec, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs .* GB under .* are free"):
        build(spec, tmp_path / "d", workers=1, progress=False)
    assert not (tmp_path / "d").exists()


def test_a_disk_that_fills_up_loses_nothing(spec, tmp_path, monkeypatch):
    written = []
    whole = shards.write_shard

    def full(*args):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(args)
        return whole(*args)

    monkeypatch.setattr(shards, "write_shard", full)
    with pytest.raises(InputError, match=r"disk is full.*run the same command again"):
        build(spec, tmp_path / "d", workers=1, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(shards, "SHARD_SIZE", 8)
    before = contents(tmp_path / "d")
    assert len(before) == 6
    build(spec, tmp_path / "d", workers=1, progress=False)
    assert before.items() <= contents(tmp_path / "d").items()


def test_interrupting_says_how_to_go_on(spec, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(builder, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt, match="run the same command again"):
        build(spec, tmp_path / "d", workers=1, progress=False)


def test_the_crop_snr_is_printed(spec, capsys):
    build(spec, splits=["train"], workers=1)
    captured = capsys.readouterr()
    assert "small train: 40 samples, crop SNR median 0.5" in captured.out
    assert "small" in captured.err and "samples" in captured.err


def test_load_builds_what_it_needs_once(spec, monkeypatch):
    name = spec.request.removeprefix("--data=")
    train = load(name)
    assert len(train) == 40 and list(read_header(train.folder)["splits"]) == ["train"]
    assert len(load(name, "test")) == 20
    monkeypatch.setattr(builder, "build", None)
    assert len(load(name)) == 40
    assert prepare(name) == train.folder


def test_loading_a_folder_with_a_limit_draws_from_all_of_it(spec, tmp_path):
    samples = ({"volume": np.eye(4)[:, :, None] * np.ones(4) * i, "label": i // 10} for i in range(30))
    folder = shards.write_dataset(tmp_path / "sorted", "sorted", ["a", "b", "c"], 10.0, "bright", {"train": samples})
    part = load(folder, limit=12)
    assert len(part) == 12 and set(part.labels) == {0, 1, 2}
    np.testing.assert_array_equal(part.labels, load(folder, limit=12).labels)
    assert len(load(folder, limit=99)) == 30


def test_user_mistakes(spec, tmp_path):
    with pytest.raises(InputError, match=r"no split 'dev': expected some of train, test"):
        build(spec, splits=["dev"])
    with pytest.raises(InputError, match="workers is 0"):
        build(spec, workers=0)
    with pytest.raises(InputError, match="limit is 0"):
        build(spec, limit=0)
    with pytest.raises(InputError, match="is not a dataset"):
        load(tmp_path)


def test_masks_are_stored_when_asked_for(tmp_path):
    path = tmp_path / "masked.yaml"
    path.write_text(SPEC.replace("snr: 0.5", "snr: 0.5, mask: true"))
    dataset = Dataset(build(load_spec(path), limit=3, workers=1, progress=False))
    assert dataset[0]["mask"].shape == (16, 16, 16) and 0 < dataset[0]["mask"].mean() < 0.9


@pytest.fixture
def halved(tmp_path):
    path = tmp_path / "halved.yaml"
    path.write_text(SPEC.replace("snr: 0.5", "snr: 0.5, halves: noise"))
    return load_spec(path)


def test_halves_are_the_simulators_beside_the_volumes_of_before(spec, halved, tmp_path, capsys):
    from aitom_ssl.simulation import Simulator

    plain, folder = build(spec, tmp_path / "plain", progress=False, workers=1), build(halved, workers=1)
    assert "with half images" in capsys.readouterr().out
    names = {name: data for name, data in contents(plain).items() if "volumes" in name}
    assert names.items() <= contents(folder).items()
    simulator = Simulator(halved.simulation)
    for split, number in (("train", 0), ("test", 2)):
        dataset = Dataset(folder, split)
        dataset.verify()
        a, b = dataset.halves([0, 9])
        for row, index in enumerate((0, 9)):
            sample = simulator.sample(number, index)
            np.testing.assert_array_equal(b[row], sample["half"].astype(np.float16).astype(np.float32))
            np.testing.assert_allclose(a[row], 2 * sample["volume"] - sample["half"], atol=1e-2)
    assert "halves" not in Dataset(plain).metadata["simulation"]
    assert dataset.metadata["simulation"]["halves"] == "noise"


def test_a_build_with_halves_resumes_to_the_same_bytes(halved, tmp_path):
    folder = build(halved, tmp_path / "d", workers=1, progress=False)
    before, listed = contents(folder), checksums(folder)
    assert contents(build(halved, tmp_path / "two", workers=2, progress=False)) == before
    os.truncate(halves_file(folder, "train", 1), 1000)
    os.unlink(halves_file(folder, "test", 0))
    with pytest.raises(InputError, match=r"halves-00001.npy has 1000 bytes .*`aitom-ssl simulate"):
        Dataset(folder)
    build(halved, folder, workers=1, progress=False)
    assert contents(folder) == before
    # An interrupted build has no dataset.json yet, and a shard may lack its halves.
    (folder / "dataset.json").unlink()
    os.unlink(halves_file(folder, "train", 2))
    os.truncate(halves_file(folder, "train", 3), 1000)
    build(halved, folder, workers=1, progress=False)
    assert contents(folder) == before and checksums(folder) == listed


def test_halves_count_in_the_space_that_is_needed(spec, halved, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 60 * 16**3 * 2 + 1})
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda path: usage)
    build(spec, tmp_path / "plain", workers=1, progress=False)
    with pytest.raises(InputError, match=r"needs .* GB under .* are free"):
        build(halved, tmp_path / "d", workers=1, progress=False)


@pytest.mark.parametrize(
    ("first", "second"), [("sim_snr005", "sim_snrinf"), ("crop_snr05", "crop_snr005"), ("sim_snr003", "crop_snr3")]
)
def test_named_families_share_their_scenes(first, second):
    """Equal index, equal class, pose, shift and neighbours: only the noise's share differs."""
    from aitom_ssl.simulation import Simulator

    a, b = (Simulator(load_spec(name).simulation) for name in (first, second))
    for index in (0, 11):
        one, two = a.clean_and_noise(0, index), b.clean_and_noise(0, index)
        np.testing.assert_array_equal(one[0], two[0])
        if two[1] is not None:
            np.testing.assert_array_equal(one[1], two[1])
        x, y = a.sample(0, index), b.sample(0, index)
        for key in ("label", "quaternion", "shift"):
            np.testing.assert_array_equal(x[key], y[key])
        assert not np.array_equal(x["volume"], y["volume"])


def test_a_split_named_twice_is_built_once(spec, tmp_path):
    folder = build(spec, tmp_path / "d", ["train", "train"], workers=1, progress=False)
    assert len(Dataset(folder, "train")) == 40


def test_a_place_that_is_a_file_is_said_before_the_work(spec, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file is a file, expected a folder"):
        build(spec, tmp_path / "file" / "d", workers=1, progress=False)


@pytest.mark.parametrize("limit", [0, -1, 2.5, "3"])
def test_limits_that_are_no_counts(spec, tmp_path, limit):
    folder = build(spec, tmp_path / "d", ["train"], workers=1, progress=False)
    for name in (str(folder), spec.request.removeprefix("--data=")):
        with pytest.raises(InputError, match=r"limit is .*, expected 1 or more"):
            load(name, limit=limit)


def test_a_killed_worker_is_one_line(spec, tmp_path, monkeypatch):
    def killed(*args):
        raise builder.TerminatedWorkerError("A worker process ...\nThe exit codes ...")

    monkeypatch.setattr(builder, "_results", killed)
    with pytest.raises(InputError, match=r"was killed.*fewer than --workers=2 to go on"):
        build(spec, tmp_path / "d", workers=2, progress=False)
