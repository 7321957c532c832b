import importlib.metadata
import os
import platform
import re
import sys

import pytest

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


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """A module that writes to file descriptor 2 as C++ does, and fails when asked."""
    code = "import os\nos.write(2, b'noise')\nif os.environ.get('FAIL'):\n    raise RuntimeError('broken')\nvalue = 3\n"
    (tmp_path / "noisy_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "noisy_module", raising=False)
    return "noisy_module"


@pytest.mark.parametrize(("level", "shown"), [("3", ""), ("0", "noise"), (None, "noise")])
def test_start_up_noise_is_silenced_unless_asked_for(noisy, level, shown, monkeypatch, capfd):
    if level is None:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    else:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    assert environment.import_quietly(noisy).value == 3
    os.write(2, b" after")
    assert capfd.readouterr().err == f"{shown} after"


def test_an_import_that_fails_raises_and_gives_stderr_back(noisy, monkeypatch, capfd):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(RuntimeError, match="broken"):
        environment.import_quietly(noisy)
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
