"""What the tests of datasets on disk share."""

import pytest

from aitom_ssl.data import shards


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 8 samples, so that 23 samples make two whole ones and a short one."""
    monkeypatch.setattr(shards, "SHARD_SIZE", 8)
