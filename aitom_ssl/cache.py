"""Where the package keeps what it can make again: nothing is ever written into the installed package."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """`$AITOM_SSL_CACHE`, else the platform's user cache folder. Not created here."""
    return Path(os.environ.get("AITOM_SSL_CACHE") or platformdirs.user_cache_dir("aitom_ssl"))
