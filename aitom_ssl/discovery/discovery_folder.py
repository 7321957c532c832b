"""What is finished in a folder of `discover`: its subdivision, and the averages of each cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.discovery.cluster_averages import AveragingSettings, ClusterResult, read_cluster
from aitom_ssl.errors import InputError, reason


class Cluster(NamedTuple):
    """The job of one cluster."""

    number: int
    size: int
    needs: tuple[Any, ...] = ()

    @property
    def folder(self) -> Path:
        return Path("clusters") / f"{self.number:03d}"

    def __str__(self) -> str:
        return f"cluster {self.number}, {self.size:,} subtomograms"


class Discovery:
    """A folder of `run_discovery`, and what is finished in it."""

    def __init__(self, path: Path, averaging: AveragingSettings):
        self.path, self.averaging = path, averaging

    @property
    def subdivided(self) -> bool:
        return (self.path / "subdivision.json").is_file()

    def subdivision(self) -> dict[str, Any]:
        """subdivision.json; InputError where it is damaged."""
        path = self.path / "subdivision.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            list(about["sizes"]), str(about["what"]), list(about["notes"]), dict(about["compared"])
            return about
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({reason(error)}): delete it to subdivide anew.") from None

    def clusters(self) -> dict[str, np.ndarray]:
        """particle, cluster, predicted: (m,) each."""
        path = self.path / "clusters.npz"
        try:
            with np.load(path) as file:
                return {name: file[name] for name in ("particle", "cluster", "predicted")}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged ({reason(error)}): delete it and subdivision.json.") from None

    def jobs(self) -> list[Cluster]:
        """Of the clusters that are large enough, the largest first."""
        sizes = self.subdivision()["sizes"]
        return [Cluster(c, size) for c, size in enumerate(sizes) if size >= self.averaging.needed]

    def too_small(self) -> list[Cluster]:
        """Clusters that cannot be divided into so many classes."""
        sizes = self.subdivision()["sizes"]
        return [Cluster(c, size) for c, size in enumerate(sizes) if size < self.averaging.needed]

    def finished(self, job: Cluster) -> bool:
        return (self.path / job.folder / "cluster.json").is_file()

    def failure(self, job: Cluster) -> str | None:
        """Why a cluster has no averages, where that was tried."""
        path = self.path / job.folder / "failed.txt"
        return path.read_text(encoding="utf-8") if path.is_file() and not self.finished(job) else None

    def results(self) -> dict[Cluster, ClusterResult]:
        """Of every finished cluster."""
        return {job: read_cluster(self.path / job.folder) for job in self.jobs() if self.finished(job)}
