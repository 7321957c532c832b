"""What this machine and this installation are: for `check_env`, reports and tables. Imports nothing heavy by itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from types import ModuleType

from aitom_ssl import __version__

PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "mrcfile",
    "absl-py",
    "PyYAML",
    "gemmi",
    "starfile",
    "matplotlib",
    "tqdm",
    "platformdirs",
    "pydensecrf2",
    "jax",
)


def versions() -> dict[str, str]:
    """Version of this package, Python and every dependency; "not installed" where one is missing."""
    found = {"aitom_ssl": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str]:
    """Operating system, processor, usable cores and memory, as text for people."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "memory": _memory(),
    }


def usable_cores() -> int:
    """Cores that this process may run on (an affinity mask counts, where the system has one)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_quietly(name: str) -> ModuleType:
    """Import `name`, and TensorFlow with it, without its start-up lines on stderr; Python's errors come through.

    TensorFlow 2.21 logs while it is being imported, before it has read its own log level, so the file descriptor has to
    be turned away. With any other TF_CPP_MIN_LOG_LEVEL than the commands' own (3) nothing is hidden.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3" or name in sys.modules:
        return importlib.import_module(name)
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        return importlib.import_module(name)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _processor() -> str:
    lines = _lines("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    lines = [line.split() for line in _lines("/proc/meminfo") if line.endswith("kB")]
    kilobytes = {name.rstrip(":"): int(value) for name, value, _ in lines}
    if "MemTotal" not in kilobytes:
        return "unknown"
    total, free = (kilobytes.get(name, 0) / 2**20 for name in ("MemTotal", "MemAvailable"))
    return f"{total:.1f} GiB, {free:.1f} GiB available"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
