"""Fixtures of the whole suite: a cache of its own, and the folder of real input data where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["AITOM_SSL_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared_folder():
    """Folder with `structures/` and `real/`: $AITOM_SSL_SHARED, else `shared` beside the checkout."""
    named = os.environ.get("AITOM_SSL_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "structures").is_dir():
        pytest.skip(f"no real input data at {folder} (set AITOM_SSL_SHARED to a folder with structures/ and real/)")
    return folder
