"""Packages whose names are imported when they are asked for."""

import importlib
import subprocess
import sys

import pytest

ROOMS = ("active", "discovery", "evaluation", "export", "oneshot", "ssl")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_without_keras(room):
    code = f"import sys, aitom_ssl.{room} as room; names = dir(room); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert f"aitom_ssl.{room}" in loaded and not {"keras", "tensorflow", "sklearn", "matplotlib"} & set(loaded)


@pytest.mark.parametrize("room", ROOMS)
def test_its_names_are_those_of_its_modules(room):
    module = importlib.import_module(f"aitom_ssl.{room}")
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        found = getattr(module, name)
        home = getattr(found, "__module__", module.__name__)
        assert home.startswith(f"aitom_ssl.{room}") and getattr(sys.modules[home], name) is found


def test_a_name_that_it_has_not():
    import aitom_ssl.export

    with pytest.raises(AttributeError, match=r"module 'aitom_ssl\.export' has no attribute 'savedmodell'"):
        aitom_ssl.export.savedmodell  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from aitom_ssl.export import nothing  # noqa: F401
