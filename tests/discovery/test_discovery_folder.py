"""What a folder of discover says: its jobs, those too small, failures, and files that are damaged."""

import json

import numpy as np
import pytest

from aitom_ssl.discovery.cluster_averages import AveragingSettings
from aitom_ssl.discovery.discovery_folder import Cluster, Discovery
from aitom_ssl.errors import InputError

SETTINGS = AveragingSettings(2, 1, False, 60.0, None, None, 0)  # four members at least


@pytest.fixture
def found(tmp_path):
    about = {"sizes": [9, 4, 3], "what": "features", "notes": [], "compared": {}}
    (tmp_path / "subdivision.json").write_text(json.dumps(about))
    np.savez(tmp_path / "clusters.npz", particle=[0, 1], cluster=[0, 1], predicted=[-1, -1])
    return Discovery(tmp_path, SETTINGS)


def test_jobs_have_folders_and_words(found):
    assert found.jobs() == [Cluster(0, 9), Cluster(1, 4)] and found.too_small() == [Cluster(2, 3)]
    assert str(Cluster(7, 1200)) == "cluster 7, 1,200 subtomograms"
    assert Cluster(7, 1).folder.as_posix() == "clusters/007"


def test_a_failure_counts_until_the_cluster_is_finished(found):
    job = found.jobs()[0]
    folder = found.path / job.folder
    folder.mkdir(parents=True)
    assert not found.finished(job) and found.failure(job) is None and found.results() == {}
    (folder / "failed.txt").write_text("why")
    assert found.failure(job) == "why"
    (folder / "cluster.json").write_text("{}")
    assert found.finished(job) and found.failure(job) is None


def test_damaged_files_are_named(found):
    assert found.subdivided and found.clusters()["cluster"].tolist() == [0, 1]
    (found.path / "clusters.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"clusters\.npz is damaged .*: delete it and subdivision\.json"):
        found.clusters()
    (found.path / "subdivision.json").write_text('{"sizes": [9]}')
    with pytest.raises(InputError, match=r"subdivision\.json is damaged .*: delete it to subdivide anew"):
        found.jobs()
