"""What this machine and this installation are: for `check_env`, reports and benchmark tables. Imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from aitom_ssl import __version__

PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "threadpoolctl",
    "mrcfile",
    "absl-py",
    "PyYAML",
    "gemmi",
    "starfile",
    "pandas",
    "matplotlib",
    "tqdm",
    "platformdirs",
    "pydensecrf2",
    "jax",
)


def versions(*packages: str) -> dict[str, str]:
    """Version of this package, Python and `packages` (none: every dependency); "not installed" where one is missing."""
    found = {"aitom_ssl": __version__, "python": platform.python_version()}
    for name in packages or PACKAGES:
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


def _processor() -> str:
    lines = _lines("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_memory() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not say."""
    kilobytes = _meminfo().get("MemAvailable")
    return None if kilobytes is None else 1024 * kilobytes


def _meminfo() -> dict[str, int]:
    """Kilobytes by name."""
    lines = [line.split() for line in _lines("/proc/meminfo") if line.endswith("kB")]
    return {name.rstrip(":"): int(value) for name, value, _ in lines}


def _memory() -> str:
    kilobytes = _meminfo()
    if "MemTotal" not in kilobytes:
        return "unknown"
    total, free = (kilobytes.get(name, 0) / 2**20 for name in ("MemTotal", "MemAvailable"))
    return f"{total:.1f} GiB, {free:.1f} GiB available"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
