import re

import keras
import numpy as np
import pytest

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.evaluation import compare_encoders, figures, pretraining_report
from aitom_ssl.evaluation.pretraining_report import write_pretraining_report

NAMES = ["proteasome", "groel", "ribosome"]
HISTORY = [
    {"epoch": e, "loss": 5 - e, "pretext_accuracy": 0.1 * e, "feature_std": 0.2, "queue_fill": 1.0, "knn": 0.3}
    for e in (1, 2)
]
CONFIG = {
    "command": "bin/train_moco --data=toy --epochs=2",
    "data": "toy",
    "seed": 7,
    "seconds": 3725.4,
    "dim": 16,
    "optimizer": {"name": "adam", "learning_rate": 1e-4},
}


def samples(count, seed, labelled, crop_snr):
    rng = np.random.default_rng(seed)
    for index in range(count):
        label = index % 3
        volume = rng.normal(size=(8, 8, 8)).astype(np.float32)
        volume[:4, :4, :4] += 2 * label
        sample = {"volume": volume, "label": label if labelled else -1}
        yield sample | ({} if crop_snr is None else {"crop_snr": crop_snr})


def datasets(folder, labelled=True, crop_snr=0.25):
    counts = {"train": 30, "validation": 9, "test": 15}
    splits = {name: samples(n, n, labelled, crop_snr) for name, n in counts.items()}
    write_dataset(folder, "toy", NAMES, 10.0, "bright", splits, {})
    return [Dataset(folder, name) for name in counts]


def encoder(power):
    inputs = keras.Input((8, 8, 8, 1))
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.AveragePooling3D(4)(inputs)) ** power)


def augmenter(volumes, seed):
    return np.rot90(volumes, seed, axes=(2, 3)).copy()


@pytest.fixture(scope="module")
def labelled_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    train, validation, test = datasets(folder / "data")
    encoders = {"untrained": encoder(2), "MoCo": encoder(1)}
    comparison = compare_encoders(encoders, train, test)
    path = write_pretraining_report(
        folder / "run", encoder(1), encoder(2), train, validation, test, augmenter, HISTORY, CONFIG, comparison
    )
    assert path == folder / "run" / "report.html"
    return path.read_text(encoding="utf-8"), comparison


def test_it_has_every_picture_and_the_table(labelled_report):
    page, comparison = labelled_report
    assert page.count("<img") == 6
    for caption in ("Confusion matrix", "Judge", "t-SNE", "as the samples themselves", "Central slices", "two views"):
        assert caption in page
    for row in comparison.rows():
        assert all(cell in page.replace("\u00a0", " ") for cell in row)


def test_the_summary_says_what_went_in(labelled_report):
    page, _ = labelled_report
    assert "toy: 3 classes, 8 voxels of 10 Å a side" in page
    assert "30 train, 9 validation, 15 test" in page
    assert "median 0.25" in page and "1h02m" in page
    assert "<pre>bin/train_moco --data=toy --epochs=2</pre>" in page
    assert "tensorflow 2." in page and f"keras {keras.__version__}" in page
    assert re.search(r"<th>seed</th><td>7</td>", page)
    assert "optimizer.learning_rate" in page and "0.0001" in page
    assert "collapsed:" not in page.replace("(0: collapsed", "") and "has collapsed" not in page


def test_the_views_are_two_draws_of_the_augmenter(tmp_path, monkeypatch):
    train, *_ = datasets(tmp_path / "data")
    seeds, shown = [], []
    monkeypatch.setattr(figures, "views_figure", lambda *a: shown.append(a))

    def spy(volumes, seed):
        seeds.append(seed)
        assert volumes.shape == (6, 8, 8, 8, 1) and volumes.dtype == np.float32
        return augmenter(volumes, seed)

    pretraining_report._views(train, spy, seed=3)
    originals, first, second, titles, voxel_size = shown[0]
    assert seeds == [4, 5] and voxel_size == 10.0 and set(titles) == set(NAMES)
    np.testing.assert_array_equal(first, originals)
    np.testing.assert_array_equal(second, np.rot90(originals, axes=(2, 3)))


def test_unlabelled_data_give_an_embedding_and_no_confusion(tmp_path):
    train, _, _ = datasets(tmp_path / "data", labelled=False, crop_snr=None)
    config = {"seed": 0}
    path = write_pretraining_report(tmp_path, encoder(1), encoder(2), train, None, None, augmenter, HISTORY, config)
    page = path.read_text(encoding="utf-8")
    assert page.count("<img") == 5 and "Confusion" not in page
    assert "no labels, 8 voxels" in page and "not known (not simulated)" in page and "not recorded" in page
    assert "30 samples of the train set, no labels" in page


def test_a_collapsed_embedding_is_called_so(tmp_path):
    train, *_ = datasets(tmp_path / "data", crop_snr=np.inf)
    history = [{"epoch": 1, "loss": 1.0, "feature_std": 0.04}]
    arguments = (encoder(1), encoder(2), train, None, None, augmenter, history)
    page = write_pretraining_report(tmp_path, *arguments, {"seed": 0, "dim": 16}).read_text(encoding="utf-8")
    assert "has collapsed" in page and "infinite (no noise)" in page


def test_a_run_too_short_to_have_epochs_or_samples_still_reports(tmp_path):
    train, *_ = datasets(tmp_path / "data")
    few = train.subset([0, 1])
    path = write_pretraining_report(tmp_path, encoder(1), encoder(2), few, None, None, augmenter, [], {})
    assert "too few to draw an embedding" in path.read_text(encoding="utf-8")


def test_examples_show_every_class_equally_and_stay_within_the_count(tmp_path):
    train, *_ = datasets(tmp_path / "data")
    chosen, titles = pretraining_report._examples(train, 3, seed=0)
    assert titles == NAMES and [NAMES[label] for label in train.labels[chosen]] == NAMES
    chosen, titles = pretraining_report._examples(train, 8, seed=0)
    assert len(set(chosen)) == 6 and titles == [name for name in NAMES for _ in range(2)]
    assert len(pretraining_report._examples(train, 2, seed=0)[0]) == 2
