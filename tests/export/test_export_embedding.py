"""Features of any model on any data: the model's own numbers in the order of the data, and what is written of them."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from small_network import NAMES, SIZE, small_network
from small_run import small_run

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.data.batches import gather, standardize, subsample
from aitom_ssl.data.sources import Reading
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import standardize_features
from aitom_ssl.export import embedding as module
from aitom_ssl.export.classifier import FEATURES, answers, find_network, load_classifier, load_network
from aitom_ssl.export.embedding import embed
from aitom_ssl.export.prediction import predict_files
from aitom_ssl.mrc import write_mrc

COUNT = 100  # the last batch of 64 is ragged
ALWAYS = {"features.npy", "samples.csv", "results.json", "report.html"}
DRAWN = {"tsne.png", "pca.png", "projector"}


def dataset(path, labels=np.arange(COUNT) % 3, voxel_size=13.48, contrast="bright", size=SIZE):
    """A class more bright than the one before, so that there is something to find."""
    rng = np.random.default_rng(0)

    def volume(i):
        return (rng.normal(size=(size,) * 3) + 0.6 * (i % 3) * np.eye(size)).astype(np.float32)

    samples = ({"volume": volume(i), "label": int(label)} for i, label in enumerate(labels))
    return write_dataset(path, "tiny", NAMES, voxel_size, contrast, {"test": samples})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def run(encoder, description, tmp_path_factory):
    described = dataclasses.replace(description, class_names=())
    return small_run(tmp_path_factory.mktemp("runs") / "encoder", described, encoder)


@pytest.fixture(scope="module")
def classifier_run(classifier, description, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("runs") / "classifier", description, classifier)


@pytest.fixture(scope="module")
def whole(run, data, tmp_path_factory):
    """An embedding with everything."""
    output = tmp_path_factory.mktemp("whole") / "out"
    return embed(run, str(data), output, labels_per_class=(2, 5), seeds=2, as_csv=True, command="make it again")


@pytest.fixture
def no_report(monkeypatch):
    """Seconds of drawing that only some tests need."""
    monkeypatch.setattr(module, "_write_report", lambda *_: None)


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def names(folder):
    return {path.name for path in folder.iterdir()}


# === The numbers ===


def test_an_encoders_features_are_its_answers_in_order(whole, encoder, data):
    volumes = gather(Dataset(data, "test"), np.arange(COUNT))
    expected = np.asarray(encoder(volumes, training=False))
    found = np.load(whole.folder / "features.npy")
    assert found.dtype == np.float32 and found.shape == (COUNT, 16)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found, whole.features)


def test_a_classifiers_features_are_what_its_last_layer_sees(classifier_run, classifier, data, tmp_path, no_report):
    found = embed(classifier_run, str(data), tmp_path / "out", labels_per_class=(1,), seeds=1)
    last = classifier.layers[-1]
    logits = found.features @ np.asarray(last.kernel) + np.asarray(last.bias)
    volumes = gather(Dataset(data, "test"), np.arange(COUNT))[..., 0]
    expected = load_classifier(classifier_run).probabilities(volumes, standardized=True)
    np.testing.assert_allclose(np.asarray(keras.ops.softmax(logits)), expected, atol=1e-5)
    assert any("scores are no measure of it" in note for note in found.notes)


def test_a_linear_layer_before_the_classifier_gets_no_softmax(description, volumes, tmp_path):
    network = small_network(classes=0)
    linear = keras.Model(network.input, keras.layers.Dense(6)(network.output))
    last = keras.layers.Dense(3, activation="softmax", name="classifier", dtype="float32")(linear.output)
    path = small_run(tmp_path / "run", description, keras.Model(network.input, last))
    standard = standardize(volumes.copy())
    found = answers(load_network(find_network(path), FEATURES, 5), standard, 5, path)
    np.testing.assert_allclose(found, np.asarray(linear(standard[..., None], training=False)), atol=1e-5)


def test_a_large_map_before_the_classifier_is_averaged(description, volumes, tmp_path, monkeypatch):
    layers = keras.layers
    x = layers.Conv3D(5, 3, padding="same", name="map")(volumes_in := keras.Input((SIZE, SIZE, SIZE, 1)))
    flat = layers.Dropout(0.5)(layers.Flatten()(x))
    last = layers.Dense(3, activation="softmax", name="classifier")
    path = small_run(tmp_path / "run", description, keras.Model(volumes_in, last(flat)))
    standard = standardize(volumes.copy())
    whole = np.asarray(keras.Model(volumes_in, x)(standard[..., None]))
    for wide, expected in (
        (5 * SIZE**3, whole.reshape(5, -1)),
        (5 * SIZE**3 - 1, whole.reshape(5, 2, 4, 2, 4, 2, 4, 5).mean(axis=(2, 4, 6)).reshape(5, 40)),
    ):
        monkeypatch.setattr("aitom_ssl.export.classifier.WIDE", wide)
        found = answers(load_network(find_network(path), FEATURES, 5), standard, 5, path)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_more_features_than_can_be_kept_are_refused(served, data, tmp_path, monkeypatch):
    monkeypatch.setattr("aitom_ssl.export.features.WIDE", 15)
    with pytest.raises(InputError, match="answers with 16 features, expected 15 at most: give the run"):
        embed(served, str(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_saved_models_answer_as_the_runs_they_are_of(served, served_encoder, classifier_run, run, volumes):
    for exported, original in ((served, classifier_run), (served_encoder.parent, run)):
        standard = standardize(volumes.copy())
        pair = [answers(load_network(find_network(p), FEATURES, 8), standard, 8, p) for p in (exported, original)]
        assert pair[0].shape == (5, 16)
        np.testing.assert_allclose(*pair, atol=1e-5)


def test_a_rif_svms_features_are_the_rotation_invariant_ones(description, data, tmp_path, monkeypatch, no_report):
    from aitom_ssl.discovery import rif_svm
    from aitom_ssl.discovery.invariants import rotation_invariant_features

    path = small_run(tmp_path / "run", description)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["model"]["architecture"] = "rif_svm"
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "model.joblib").write_bytes(b"")
    monkeypatch.setattr(rif_svm, "load_rif_svm", lambda _: rif_svm.RifSvm(description, None))
    found = embed(path, str(data), tmp_path / "out", labels_per_class=(1,), seeds=1)
    volumes = gather(Dataset(data, "test"), np.arange(COUNT))[..., 0]
    np.testing.assert_allclose(found.features, rotation_invariant_features(volumes), rtol=1e-3, atol=1e-5)
    assert not any("has seen labels" in note for note in found.notes)


def test_bfloat16_is_coarser(run, data, tmp_path, no_report):
    arguments = {"labels_per_class": (1,), "seeds": 1}
    coarse = embed(run, str(data), tmp_path / "a", precision="mixed_bfloat16", **arguments).features
    fine = embed(run, str(data), tmp_path / "b", **arguments).features
    assert 0 < np.abs(coarse - fine).max() < 0.05 * np.abs(fine).max()


def test_volumes_are_read_a_few_batches_at_a_time(run, data, tmp_path, monkeypatch, no_report):
    asked, answer = [], module.Feed.batch
    monkeypatch.setattr(module.Feed, "batch", lambda self, indices: asked.append(len(indices)) or answer(self, indices))
    embed(run, str(data), tmp_path / "out", batch_size=16, labels_per_class=(1,), seeds=1)
    assert asked == [16] * 6 + [4]


# === What is written ===


def test_all_of_it_is_there(whole):
    assert names(whole.folder) == ALWAYS | DRAWN | {"features.csv", "clusters.csv"}
    assert names(whole.folder / "projector") == {"tensors.tsv", "metadata.tsv", "sprite.png", "projector_config.pbtxt"}
    assert names(whole.folder.parent) == {"out"}
    assert imread(whole.folder / "tsne.png").std() > 0 and imread(whole.folder / "pca.png").std() > 0


def test_tables_have_a_row_a_particle(whole):
    samples = table(whole.folder / "samples.csv")
    assert samples[0] == ["particle", "split", "index", "label", "class"]
    assert samples[1:] == [[f"{i}", "test", f"{i}", f"{i % 3}", NAMES[i % 3]] for i in range(COUNT)]
    features = table(whole.folder / "features.csv")
    assert features[0] == ["particle", "split", "index", *(f"feature_{k}" for k in range(16))]
    np.testing.assert_array_equal(np.array([row[3:] for row in features[1:]], np.float32), whole.features)
    clusters = table(whole.folder / "clusters.csv")
    assert [int(row[-1]) for row in clusters[1:]] == whole.clusters.tolist() and set(whole.clusters) == {0, 1, 2}


def test_the_projector_shows_standardised_features_with_class_and_cluster(whole):
    folder = whole.folder / "projector"
    (standard,) = standardize_features(whole.features.astype(np.float64))
    np.testing.assert_allclose(np.loadtxt(folder / "tensors.tsv"), standard, rtol=1e-4, atol=1e-6)
    lines = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
    assert lines[0] == ["particle", "split", "index", "class", "cluster"]
    assert lines[1:] == [
        [f"{i}", "test", f"{i}", NAMES[i % 3], f"{cluster}"] for i, cluster in enumerate(whole.clusters)
    ]


def test_results_and_report_say_what_was_found(whole):
    results = json.loads((whole.folder / "results.json").read_text())
    assert results["samples"] == results["labelled"] == COUNT and results["features"] == 16
    assert sum(results["cluster_sizes"]) == COUNT
    assert results["cluster_scores"]["adjusted_rand"] == whole.scores.adjusted_rand
    assert np.array(results["few_labels"]["accuracy"]["kNN"]).shape == (2, 2)
    page = (whole.folder / "report.html").read_text(encoding="utf-8")
    for part in ("What was embedded", "Pictures", "Clusters", "A few labels", "make it again", "tensorboard --logdir="):
        assert part in page
    assert page.count("<img") == 4 and f"{whole.scores.purity:.3f}" in page


def test_of_many_a_subset_is_shown_and_drawn(run, data, tmp_path, monkeypatch, no_report):
    monkeypatch.setattr(module, "MOST", 40)
    found = embed(run, str(data), tmp_path / "out", labels_per_class=(1,), seeds=1)
    chosen = subsample(COUNT, 40, 0)
    (standard,) = standardize_features(found.features[chosen].astype(np.float64))
    folder = tmp_path / "out" / "projector"
    np.testing.assert_allclose(np.loadtxt(folder / "tensors.tsv"), standard, rtol=1e-4, atol=1e-6)
    assert [line.split("\t")[0] for line in (folder / "metadata.tsv").read_text().splitlines()[1:]] == [
        f"{i}" for i in chosen
    ]
    assert imread(folder / "sprite.png").shape[:2] == (7 * SIZE, 7 * SIZE)


def test_particles_are_called_as_in_predictions(classifier_run, tmp_path, no_report):
    tomogram = np.random.default_rng(2).normal(size=(20, 22, 24)).astype(np.float32)
    write_mrc(tmp_path / "t.mrc", tomogram, 13.48)
    text = "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n"
    rows = [(5.5, 6, 7), (90, 1, 1), (12, 11, 10), (9, 9, 9), (8, 12, 9.25)]
    (tmp_path / "p.star").write_text(text + "".join("{} {} {}\n".format(*row) for row in rows))
    given = str(tmp_path / "p.star"), tmp_path / "out", Reading(tomogram=str(tmp_path / "t.mrc"))
    found = embed(classifier_run, *given)
    predict_files(classifier_run, given[0], tmp_path / "predicted", given[2])
    predicted = table(tmp_path / "predicted" / "predictions.csv")
    called = ["particle", "row", "x", "y", "z"]
    assert table(tmp_path / "out" / "samples.csv") == [
        [*row[:5], *end] for row, end in zip(predicted, [["label", "class"], *[["-1", ""]] * 4], strict=True)
    ]
    assert predicted[0][:5] == called and any("1 of 3" in n or "1 of 5" in n for n in found.notes)


def test_files_without_labels_have_features_and_pictures_and_clusters_on_demand(run, volumes, tmp_path):
    for i, volume in enumerate(volumes):
        write_mrc(tmp_path / "mrc" / f"p {i}.mrc", volume, 13.48)
    plain = embed(run, str(tmp_path / "mrc"), tmp_path / "plain")
    assert plain.clusters is plain.scores is plain.few is None and names(tmp_path / "plain") == ALWAYS | DRAWN
    clustered = embed(run, str(tmp_path / "mrc"), tmp_path / "clustered", clusters=2)
    assert clustered.scores is None and sorted(np.bincount(clustered.clusters)) == sorted(clustered.cluster_sizes)
    assert names(tmp_path / "clustered") == ALWAYS | DRAWN | {"clusters.csv"}
    page = (tmp_path / "clustered" / "report.html").read_text(encoding="utf-8")
    assert "coloured by cluster" in page and "Rand" not in page and page.count("<img") == 3


def test_samples_without_a_label_are_clustered_and_not_scored(run, tmp_path, no_report):
    labels = np.where(np.arange(COUNT) % 5 == 0, -1, np.arange(COUNT) % 3)
    found = embed(run, str(dataset(tmp_path / "data", labels)), tmp_path / "out", seeds=1)
    assert found.labelled == 80 and len(found.clusters) == COUNT and found.scores.counts.sum() == 80
    assert found.few.samples == COUNT and found.few.measured == (65, 50, 20)
    assert table(tmp_path / "out" / "samples.csv")[1] == ["0", "test", "0", "-1", ""]


def test_too_few_to_draw_are_embedded_all_the_same(run, volumes, tmp_path):
    for i, volume in enumerate(volumes[:3]):
        write_mrc(tmp_path / "mrc" / f"{i}.mrc", volume, 13.48)
    embed(run, str(tmp_path / "mrc"), tmp_path / "out")
    assert names(tmp_path / "out") == ALWAYS
    assert "too few to draw" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_labels_that_the_smallest_class_does_not_allow_are_left_out_with_a_note(run, tmp_path, no_report):
    labels = np.repeat([0, 1, 2], [40, 53, 7])
    path = dataset(tmp_path / "data", labels)
    found = embed(run, str(path), tmp_path / "out", seeds=1)
    assert found.few.labels_per_class == (5,)
    assert f"not measured with 10, 20 labels a class: {NAMES[2]} has 7 samples." in found.notes
    one = embed(run, str(dataset(tmp_path / "one", np.zeros(9))), tmp_path / "other")
    assert one.few is one.scores is one.clusters is None


# === What is refused ===


def test_what_differs_is_refused_with_both_values_and_can_be_overruled(run, tmp_path, no_report):
    for change, said in (
        ({"voxel_size": 10.0}, r"voxel size 10 A \(trained on 13\.48 A\)"),
        ({"size": 10}, r"box 10\^3 \(trained on 8\^3\)"),
        ({"contrast": "dark"}, r"dark protein \(trained on bright\)"),
    ):
        path = dataset(tmp_path / said[:3], **change)
        with pytest.raises(InputError, match=said + ".*--ignore_mismatch"):
            embed(run, str(path), tmp_path / "out")
        assert not (tmp_path / "out").exists()
        found = embed(run, str(path), tmp_path / f"out{said[:3]}", ignore_mismatch=True, seeds=1)
        assert any("taken as it is" in note for note in found.notes)


def test_mistakes_are_found_before_anything_is_computed(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_features", lambda *_: pytest.fail("computed"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for arguments, said in (
        ({"clusters": 101}, "--clusters=101 and 100 particles"),
        ({"labels_per_class": (33,)}, r"has 33 labelled samples: 33 labels a class leave none"),
        ({"output": tmp_path / "full"}, "full is there and is not empty"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "half"}, "precision='half'"),
    ):
        with pytest.raises(InputError, match=said):
            embed(run, str(data), **{"output": tmp_path / "out", **arguments})
    assert names(tmp_path) == {"full"}


def test_interrupted_or_diverged_it_leaves_nothing(run, data, description, tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=r"Nothing is written to .*out"):
        patch.setattr(module, "_write_report", pressed)
        embed(run, str(data), tmp_path / "out", labels_per_class=(1,), seeds=1)
    broken = small_network(activation=None)
    broken.layers[-1].name = "embedding"
    broken.layers[-1].kernel.assign(np.full(broken.layers[-1].kernel.shape, np.nan))
    path = small_run(tmp_path / "broken", dataclasses.replace(description, class_names=()), broken)
    with pytest.raises(InputError, match="answers with NaN"):
        embed(path, str(data), tmp_path / "out")
    assert names(tmp_path) - {"out"} == {"broken"}


def test_an_empty_folder_is_filled(run, data, tmp_path, no_report):
    (tmp_path / "out").mkdir()
    embed(run, str(data), tmp_path / "out", labels_per_class=(1,), seeds=1)
    assert "features.npy" in names(tmp_path / "out")


def test_an_encoder_of_another_shape_is_refused(run, tmp_path, description):
    described = dataclasses.replace(description, class_names=(), size=SIZE + 1)
    path = small_run(tmp_path / "run", described, small_network(classes=0))
    with pytest.raises(InputError, match="its description says"):
        load_network(find_network(path), FEATURES)


def test_figures_draw_some_of_what_is_shown_with_its_own_pictures(whole, monkeypatch):
    from aitom_ssl.export import embedding_report

    drawn = {}
    monkeypatch.setattr(embedding_report, "DRAWN", 12)
    monkeypatch.setattr(embedding_report, "gallery_figure", lambda points, pictures: drawn.update(pictures=pictures))
    monkeypatch.setattr(
        embedding_report, "embedding_figure", lambda panels, labels, names, **_: drawn.setdefault("labels", labels)
    )
    shown = np.arange(10, 60)
    # Each picture says which sample it is of.
    embedding_report.embedding_figures(whole, shown, np.ones((1, 4, 4)) * shown[:, None, None])
    samples = drawn["pictures"][:, 0, 0].astype(int)
    assert len(set(samples)) == 12 and set(samples) <= set(shown)
    np.testing.assert_array_equal(drawn["labels"], samples % 3)
