"""What is measured, side by side with peers: `python -m benchmarks.NAME` prints one table."""

from __future__ import annotations

import os

from aitom_ssl import environment

# TensorFlow's start-up messages would stand among the tables.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def heading(*packages: str) -> str:
    """The machine, and the versions of aitom_ssl, Python and `packages`: what every table starts with."""
    machine, versions = environment.machine(), environment.versions(*packages)
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['processor']}, {machine['cores']} cores; {listed}"
