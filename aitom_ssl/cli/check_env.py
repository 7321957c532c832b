"""Print versions, devices, folders and known datasets: paste it into a bug report.

    aitom-ssl check_env

A package that is missing or broken is named in the table; the command still prints the rest.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path


@dataclasses.dataclass
class Options:
    """This command takes no flags."""


def run(options: Options) -> None:
    from aitom_ssl.environment import machine, versions

    _print("Versions", versions())
    _print("Machine", machine() | _devices())
    _print("Folders", _folders())
    _print("Data", _data_specs())


def _print(title: str, rows: dict[str, str]) -> None:
    print(title)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value}")


def _devices() -> dict[str, str]:
    from aitom_ssl.training.quiet import import_keras_quietly

    # Any failure of a broken installation is this command's result, not its end.
    try:
        import_keras_quietly()
        import keras

        devices = keras.distribution.list_devices("cpu") + keras.distribution.list_devices("gpu")
        return {
            "backend": keras.config.backend(),
            "devices": ", ".join(devices) or "none",
            "precision": keras.config.dtype_policy().name,
        }
    except Exception as error:
        return {"backend": f"does not start: {type(error).__name__}: {' '.join(str(error).split())}"}


def _folders() -> dict[str, str]:
    import aitom_ssl
    from aitom_ssl.cache import cache_folder
    from aitom_ssl.files import nearest_existing

    cache = cache_folder()
    standing = nearest_existing(cache)
    state = "" if cache.exists() else " (made on first use)"
    writable = standing.is_dir() and os.access(standing, os.W_OK)
    return {
        "package": str(Path(aitom_ssl.__file__).parent),
        "cache": f"{cache}{state}" + ("" if writable else " NOT WRITABLE: set AITOM_SSL_CACHE"),
        "free there": f"{shutil.disk_usage(standing).free / 2**30:.1f} GiB",
    }


def _data_specs() -> dict[str, str]:
    from aitom_ssl.cache import cache_folder
    from aitom_ssl.data.spec import spec_names

    built = sorted(path.parent.name for path in cache_folder().glob("datasets/*/dataset.json"))
    return {"specs": ", ".join(spec_names()) or "none", "built": ", ".join(built) or "none"}
