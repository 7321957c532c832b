import importlib.metadata
import platform
import re

from aitom_ssl import __version__, environment


def test_versions_are_those_installed_and_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package"))
    assert environment.versions() == {
        "aitom_ssl": __version__,
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "no-such-package": "not installed",
    }


def test_the_machine_is_described():
    found = environment.machine()
    assert set(found) == {"system", "processor", "cores", "memory"} and all(found.values())
    assert re.match(r"\d+ usable of \d+$", found["cores"])
    assert found["memory"] == "unknown" or re.match(r"\d+\.\d GiB, \d+\.\d GiB available$", found["memory"])


def test_a_system_without_proc_is_described_too(monkeypatch):
    monkeypatch.setattr(environment, "_lines", lambda path: [])
    assert environment.machine()["memory"] == "unknown" and environment.machine()["processor"]
    assert environment.available_memory() is None


def test_available_memory_is_in_bytes(monkeypatch):
    monkeypatch.setattr(environment, "_lines", lambda path: ["MemTotal:  2048 kB", "MemAvailable:  1024 kB"])
    assert environment.available_memory() == 2**20
