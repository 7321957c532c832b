"""A run is a folder: what was asked for, what was measured, where to go on, and the result.

    config.yaml  metrics.csv  tensorboard/  checkpoints/epoch-00012.npz  model.keras  report.html
"""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import atomic_write, refuse_unwritable, write_csv, write_json

RUNS = Path("runs")
_KEPT = 2


class Checkpoint(NamedTuple):
    """What a run knew at the end of an epoch, but for the variables."""

    epoch: int  # epochs finished
    history: list[dict[str, Any]]  # one row an epoch
    seconds: float  # training time so far


class RunFolder:
    """One run's folder. `create` makes a new one, `open` and `newest` find one that is there."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, output: str | os.PathLike | None, method: str, data: str) -> RunFolder:
        """A new run in `output`, else in the first free of runs/METHOD-DATA, runs/METHOD-DATA-2, ...

        InputError when `output` is there already and not empty.
        """
        if output is None:
            name = run_name(method, data)
            numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
            path = next(RUNS / n for n in numbered if not (RUNS / n).exists())
        else:
            path = Path(output)
        cls.refuse(path)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @staticmethod
    def refuse(output: str | os.PathLike) -> None:
        """InputError when no new run can be made in `output`: it is there and not empty, or cannot be written to."""
        path = Path(output)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            what = "already holds a run" if (path / "config.yaml").is_file() else "is there and is not empty"
            raise InputError(f"{path} {what}: give another --output, or --resume to go on with a run.")
        refuse_unwritable(path)

    @classmethod
    def open(cls, output: str | os.PathLike) -> RunFolder:
        """The run in `output`; InputError when there is none."""
        if not (Path(output) / "config.yaml").is_file():
            raise InputError(f"{output} holds no run (no config.yaml): name the folder of one.")
        return cls(Path(output))

    @classmethod
    def newest(cls, *methods: str, data: str | None = None) -> RunFolder:
        """The run of any of `methods` (and of `data`) in runs/ that was started last; InputError when there is none."""
        patterns = [f"{run_name(method, data)}*" if data else f"{method}-*" for method in methods]
        found = [path.parent for pattern in patterns for path in RUNS.glob(f"{pattern}/config.yaml")]
        if not found:
            looked = " or ".join(str(RUNS / pattern) for pattern in patterns)
            raise InputError(f"There is no run {looked} to resume: name its folder with --output=FOLDER.")
        return cls(max(found, key=lambda path: (path / "config.yaml").stat().st_mtime))

    # --- What was asked for, what was measured ---

    def read_config(self) -> dict[str, Any]:
        """config.yaml; InputError when it cannot be read."""
        path = self.path / "config.yaml"
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is not readable YAML ({reason(error)}): put it back, or start a new run."
            ) from None
        if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
            raise InputError(f"{path} is not a run's config (it has no `settings`): put it back, or start a new run.")
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        with atomic_write(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")

    def write_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        """metrics.csv: a header, one row an epoch; a value that was not measured is empty."""
        write_csv(self.path / "metrics.csv", history)

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """results.json: the measurements of the finished run."""
        return write_json(self.path / "results.json", results)

    # --- Where to go on ---

    def save_checkpoint(self, checkpoint: Checkpoint, variables: Sequence[Any]) -> None:
        """Write `checkpoint` and the values of Keras `variables`; the two newest are kept."""
        from keras import ops

        arrays = {f"{i:05d}": ops.convert_to_numpy(variable.value) for i, variable in enumerate(variables)}
        about = np.frombuffer(json.dumps(checkpoint._asdict()).encode(), np.uint8)
        with atomic_write(self._checkpoint(checkpoint.epoch)) as temporary:
            np.savez(temporary, about=about, **arrays)
        for old in self._checkpoints()[:-_KEPT]:
            old.unlink()

    def restore_checkpoint(self, variables: Sequence[Any]) -> Checkpoint | None:
        """Assign the newest checkpoint to `variables` (as saved, in that order); None when there is none."""
        paths = self._checkpoints()
        if not paths:
            return None
        path = paths[-1]
        try:
            with np.load(path) as file:
                about = Checkpoint(**json.loads(file["about"].tobytes()))
                arrays = [file[f"{i:05d}"] for i in range(len(file.files) - 1)]
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged ({reason(error)}): delete it to go on from the one before.") from None
        expected, found = [tuple(v.shape) for v in variables], [a.shape for a in arrays]
        if expected != found:
            raise InputError(
                f"{path} is of another model ({len(found)} arrays, here {len(expected)}, or other shapes): "
                "resume with the version of aitom_ssl that made it, or start a new run."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return about

    def finished_epochs(self) -> int:
        """Epoch of the newest checkpoint, 0 when there is none."""
        paths = self._checkpoints()
        return int(paths[-1].stem.partition("-")[2]) if paths else 0

    def _checkpoint(self, epoch: int) -> Path:
        return self.path / "checkpoints" / f"epoch-{epoch:05d}.npz"

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob(f"epoch-{'[0-9]' * 5}.npz"))

    # --- The result ---

    def save_model(self, model: Any) -> Path:
        """model.keras, loadable with keras.models.load_model."""
        with atomic_write(self.path / "model.keras") as temporary:
            model.save(temporary)
        return self.path / "model.keras"

    def load_model(self) -> Any:
        """The keras.Model in model.keras, not compiled; InputError when it is damaged."""
        import keras

        path = self.path / "model.keras"
        if path.is_file() and not zipfile.is_zipfile(path):
            raise InputError(f"{path} cannot be loaded (it is no .keras file): train or import the model again.")
        try:
            return keras.models.load_model(path, compile=False)
        except (ValueError, TypeError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be loaded ({reason(error)}): train or import the model again.") from None


def run_name(method: str, data: str) -> str:
    """`moco-sim_snr005`; of a path its last part."""
    return f"{method}-{Path(data).resolve().name.removesuffix('.yaml')}"
