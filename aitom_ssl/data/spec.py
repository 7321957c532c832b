"""Dataset specifications: YAML files that say what a simulated dataset is made of and how it is split.

    description: one or two sentences                             (needed)
    extends: sim_snr005          another spec to start from; the keys below then change it, mapping by mapping
    preset: liu2020              of SimulationSpec.from_preset
    structures: ../structures    folder of structure files, relative to this file (which is the default)
    simulation: {classes: [...], snr: 0.05, ...}                  fields of SimulationSpec
    splits: {train: 3000, validation: 1000, test: 1000}           samples in each
    dtype: float16               or float32

Unknown and doubled keys are errors. `data_specs/*.yaml` are the named ones; any other is given by its path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import numbers
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import aitom_ssl
from aitom_ssl.data.header import DTYPES, SPLITS, VERSION
from aitom_ssl.errors import InputError, near

if TYPE_CHECKING:
    from aitom_ssl.simulation import SimulationSpec

KEYS = ("description", "extends", "preset", "structures", "simulation", "splits", "dtype")


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What a dataset is. `request`: the flags that ask for it, for messages, as "--data=sim_demo"."""

    name: str
    description: str
    simulation: SimulationSpec
    splits: dict[str, int]
    dtype: str = "float16"
    request: str = ""

    @property
    def standardize(self) -> bool:
        """Whether the stored volumes have zero mean and unit standard deviation (`normalize: zscore`)."""
        return self.simulation.normalize == "zscore"

    @property
    def has_halves(self) -> bool:
        """Whether each sample is also two half images."""
        return self.simulation.halves != "none"

    @property
    def fingerprint(self) -> str:
        """Hexadecimal identity of the samples: everything but name and description."""
        parts = [VERSION, self.simulation.fingerprint(), sorted(self.splits.items()), self.dtype]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def with_seed(self, seed: int) -> DatasetSpec:
        """The same dataset from other random numbers."""
        simulation = dataclasses.replace(self.simulation, seed=seed)
        return dataclasses.replace(self, simulation=simulation, request=f"{self.request} --seed={seed}")

    def limited(self, limit: int) -> DatasetSpec:
        """The first `limit` samples of each split (classes take turns, so all of them are there)."""
        check_limit(limit)
        splits = {split: min(count, limit) for split, count in self.splits.items()}
        return dataclasses.replace(self, splits=splits, request=f"{self.request} --limit={limit}")


def check_limit(limit: int) -> None:
    """InputError unless `limit` is a whole number from 1 up."""
    if not isinstance(limit, numbers.Integral) or limit < 1:
        raise InputError(f"limit is {limit!r}, expected 1 or more samples a split.")


def specs_folder() -> Path:
    """Where the named specs are: in the installed package, else beside the package in a checkout."""
    package = Path(aitom_ssl.__file__).parent
    installed = package / "data_specs"
    return installed if installed.is_dir() else package.parent / "data_specs"


def spec_names() -> list[str]:
    """Names that `load_spec` knows."""
    return sorted(path.stem for path in specs_folder().glob("*.yaml"))


def load_spec(name: str | os.PathLike) -> DatasetSpec:
    """The spec called `name`, or the one in the YAML file at that path. InputError says which key is wrong and why."""
    path = _find(os.fspath(name))
    keys, structures = _merged(path, ())
    return _spec(path, keys, structures, os.fspath(name))


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"No file {name}: give the path of a spec or a name such as sim_demo.")
        return path
    if name and Path(name).is_dir():
        raise InputError(f"{name} is a folder, expected a spec: give a name such as sim_demo or a .yaml file.")
    if os.sep in name:
        raise InputError(f"No folder {name}: check the path of the dataset, or give a name such as sim_demo.")
    if name not in spec_names():
        known = near(name, spec_names()) or f" Known names: {', '.join(spec_names())}."
        raise InputError(f"No dataset {name!r}.{known} A spec's .yaml file or a dataset's folder will do as well.")
    return specs_folder() / f"{name}.yaml"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where PyYAML keeps the last one silently."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = [key for key in keys if keys.count(key) > 1]
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"key {doubled[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        keys = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(keys, dict):
        raise InputError(f"{path} holds {keys!r}, expected a mapping with the keys {', '.join(KEYS)}.")
    _allowed(path, "", keys, KEYS)
    return keys


def _allowed(path: Path, inside: str, keys: Any, allowed: Sequence[str]) -> None:
    if not isinstance(keys, dict):
        raise InputError(f"{path}: {inside} is {keys!r}, expected a mapping with keys among {', '.join(allowed)}.")
    for key, value in keys.items():
        if key not in allowed:
            where = f" in {inside}" if inside else ""
            raise InputError(
                f"{path}: unknown key {key!r} (value {value!r}){where}.{near(str(key), allowed)} "
                f"Allowed: {', '.join(allowed)}."
            )


def _merged(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Path]:
    """The keys of a spec over those that it extends, and the folder of its structures."""
    path = path.resolve()
    if path in seen:
        raise InputError(f"{path} extends itself, through {' -> '.join(p.stem for p in (*seen, path))}.")
    keys = _read(path)
    parent, structures = keys.pop("extends", None), path.parent
    folder = keys.pop("structures", None)
    if parent is not None:
        if not isinstance(parent, str):
            raise InputError(f"{path}: extends is {parent!r}, expected the name or the path of a spec.")
        is_path = parent.endswith((".yaml", ".yml"))
        try:
            found = _find(os.fspath(path.parent / parent) if is_path else parent)
        except InputError as error:
            raise InputError(f"{path}: extends is {parent!r}. {error}") from None
        inherited, structures = _merged(found, (*seen, path))
        for key in ("simulation", "splits"):
            if isinstance(keys.get(key), dict) and isinstance(inherited.get(key), dict):
                keys[key] = {**inherited[key], **keys[key]}
        keys = {**inherited, **keys}
    if folder is not None:
        structures = path.parent / str(folder)
        if not structures.is_dir():
            raise InputError(
                f"{path}: structures is {folder!r}, and there is no folder {structures.resolve()}: put the structure "
                "files there, or copy the spec and change `structures`."
            )
    return keys, structures.resolve()


def _spec(path: Path, keys: Mapping[str, Any], structures: Path, asked: str) -> DatasetSpec:
    from aitom_ssl.simulation import SimulationSpec

    for key in ("description", "simulation", "splits"):
        if key not in keys:
            raise InputError(f"{path} lacks the key {key!r}; it needs description, simulation and splits.")
    if not isinstance(keys["description"], str) or not keys["description"].strip():
        raise InputError(f"{path}: description is {keys['description']!r}, expected a sentence.")
    splits = keys["splits"]
    _allowed(path, "splits", splits, SPLITS)
    for split, count in splits.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{path}: {split} in splits is {count!r}, expected a number of samples from 1 up.")
    if not splits:
        raise InputError(f"{path}: splits is empty, expected at least one of {', '.join(SPLITS)} with a count.")
    dtype = keys.get("dtype", "float16")
    if dtype not in list(DTYPES):
        raise InputError(f"{path}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.")
    hints = typing.get_type_hints(SimulationSpec)
    _allowed(path, "simulation", keys["simulation"], [name for name in hints if name != "base"])
    fields = {key: _number(value, hints[key]) for key, value in keys["simulation"].items()}
    for key in ("classes", "unseen_classes"):
        if isinstance(fields.get(key), list):
            fields[key] = tuple(fields[key])
    try:
        simulation = SimulationSpec.from_preset(keys.get("preset", "default"), base=str(structures), **fields)
        simulation.structures()  # a missing one is named here, with the spec
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return DatasetSpec(path.stem, " ".join(keys["description"].split()), simulation, ordered, dtype, f"--data={asked}")


def _number(value: Any, hint: Any) -> Any:
    """YAML 1.1 reads `inf` and `1e3` as text: a field that takes a float gets the number that was meant."""
    if isinstance(value, str) and (hint is float or float in typing.get_args(hint)):
        try:
            return float(value)
        except ValueError:
            return value
    return value
