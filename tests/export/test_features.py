"""Features by a run, an encoder and a SavedModel, the baselines', and particles that cannot be used."""

import numpy as np
import pytest
from small_network import NAMES, SIZE
from small_run import small_run

from aitom_ssl.data.batches import standardize
from aitom_ssl.data.sources import Reading, open_source
from aitom_ssl.discovery.invariants import rotation_invariant_features
from aitom_ssl.discovery.pose_normalization import pose_normalized_features
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import FEATURES, LINEAR, find_model, find_network, load_classifier, load_network
from aitom_ssl.export.features import BaselineFeatures, NetworkFeatures
from aitom_ssl.models import ModelDescription
from aitom_ssl.mrc import write_mrc


@pytest.fixture(scope="module")
def folder(volumes, tmp_path_factory):
    path = tmp_path_factory.mktemp("particles")
    for i, volume in enumerate(volumes):
        write_mrc(path / f"{i}.mrc", volume, 13.48)
    return path


@pytest.fixture(scope="module")
def run(description, classifier, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("runs") / "classifier", description, classifier)


@pytest.fixture(scope="module")
def encoder_run(encoder, tmp_path_factory):
    described = ModelDescription("small", (), SIZE, 13.48, "bright")
    return small_run(tmp_path_factory.mktemp("runs") / "encoder", described, encoder)


def source(folder):
    return open_source(str(folder), Reading())


def test_a_classifier_gives_what_its_softmax_is_taken_of(run, folder, volumes):
    make = NetworkFeatures(run, batch_size=2)
    assert (make.size, make.class_names) == (SIZE, tuple(NAMES))
    found = make(source(folder))
    assert found.values.shape == (len(volumes), len(NAMES)) and not found.by_direction
    assert found.class_names == tuple(NAMES) and found.indices.tolist() == list(range(len(volumes)))
    powers = np.exp(found.values - found.values.max(axis=1, keepdims=True))
    expected = load_classifier(find_model(run), 2).probabilities(volumes)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), expected, atol=1e-5)
    # The network itself keeps its softmax.
    again = load_classifier(find_model(run), 2).probabilities(volumes)
    np.testing.assert_allclose(again.sum(axis=1), 1, atol=1e-5)


def test_an_encoder_gives_its_features_and_a_savedmodel_too(encoder_run, served, folder, volumes):
    found = NetworkFeatures(encoder_run)(source(folder))
    network = load_network(find_network(encoder_run), FEATURES, len(volumes))
    np.testing.assert_allclose(found.values, network(standardize(volumes.copy())), rtol=1e-4, atol=1e-5)
    assert found.by_direction and found.class_names == ()
    found = NetworkFeatures(served)(source(folder))
    assert found.by_direction and "features of" in found.what
    with pytest.raises(InputError, match="has no linear activations: expected a run"):
        load_network(find_network(served), LINEAR)


def test_data_unlike_the_model_s_are_refused(run, folder):
    with pytest.raises(InputError, match="voxel size 20 A"):
        NetworkFeatures(run).check(open_source(str(folder), Reading(voxel_size=20.0)))
    found = NetworkFeatures(run, ignore_mismatch=True)(open_source(str(folder), Reading(voxel_size=20.0)))
    assert any("voxel size 20 A" in note for note in found.notes)


def test_the_baselines(folder, volumes):
    standard = standardize(volumes.copy())
    found = BaselineFeatures("rotation_invariant")(source(folder))
    np.testing.assert_allclose(found.values, rotation_invariant_features(standard), rtol=1e-4, atol=1e-4)
    assert found.by_direction
    found = BaselineFeatures("pose_normalized")(source(folder))
    np.testing.assert_allclose(found.values, pose_normalized_features(standard)[0], atol=1e-4)
    assert not found.by_direction and found.class_names == ()
    with pytest.raises(InputError, match="expected rotation_invariant or pose_normalized"):
        BaselineFeatures("posed")


def test_dark_protein_is_turned_for_the_baselines(folder, volumes):
    found = BaselineFeatures("pose_normalized")(open_source(str(folder), Reading(invert_contrast=True)))
    np.testing.assert_allclose(found.values, pose_normalized_features(-standardize(volumes.copy()))[0], atol=1e-4)


@pytest.mark.parametrize("kind", ["network", "rotation_invariant", "pose_normalized"])
def test_a_damaged_particle_is_named_or_left_out(kind, run, volumes, tmp_path):
    for i, volume in enumerate(volumes):
        write_mrc(tmp_path / f"{i}.mrc", np.full_like(volume, 3) if i == 2 else volume, 13.48)

    def make(skip):
        return NetworkFeatures(run, skip_damaged=skip) if kind == "network" else BaselineFeatures(kind, skip)

    with pytest.raises(InputError, match=r"2\.mrc"):
        make(False)(source(tmp_path))
    found = make(True)(source(tmp_path))
    assert found.indices.tolist() == [0, 1, 3, 4] and len(found.values) == 4
    assert len(found.left_out) == 1 and "2.mrc" in found.left_out[0]
