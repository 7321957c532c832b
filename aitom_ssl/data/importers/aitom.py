"""AITom's layout of simulated subtomograms, read and written.

    FOLDER/subtomogram_mrc/tomotarget{index}.mrc      one particle each
    FOLDER/json_label/target{index}.json              {"loc": [x, y, z], "rotate": [phi, theta, psi], "name": "1bxn"}

The arrays in these files are (x, y, z): AITom stores its volumes without reordering them, so the slowest axis of the
file is x, and a volume is transposed here on its way in and out. `loc` is the particle's offset from the centre voxel
in voxels, `rotate` the intrinsic ZYZ angles in radians. The published sets keep one such FOLDER a class below
SNR003/, SNR005/ and SNRinfinity/, with a voxel size of 0 in the headers (it is 10 A).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from aitom_ssl.data.importers.mrc_folder import central_crop, check_files, fingerprint_files
from aitom_ssl.data.importers.particles import Particles
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write
from aitom_ssl.geometry import euler_zyz_to_quaternion, quaternion_to_euler_zyz
from aitom_ssl.mrc import is_mrc_name, read_mrc, write_mrc

if TYPE_CHECKING:
    from aitom_ssl.data.dataset import Dataset

VOLUMES, LABELS = "subtomogram_mrc", "json_label"


def aitom_folders(folder: str | Path) -> list[Path]:
    """The folders at or up to two levels below `folder` that hold a `subtomogram_mrc`, sorted."""
    folder = Path(folder)
    return sorted(p.parent for depth in ("", "*/", "*/*/") for p in folder.glob(f"{depth}{VOLUMES}") if p.is_dir())


def aitom_particles(
    folder: str | Path, box_size: int | None = None, voxel_size: float | None = None, flag: str = "--input"
) -> Particles:
    """Particles of the layout in `folder`, or in its sub-folders when it is one SNR folder of the published sets.

    Classes are the sorted names in the JSON files; null is an unlabelled particle. Poses and shifts are kept where
    every file has them. `box_size` and `voxel_size` are as in `folder_particles`. Raises InputError, naming the `flag`
    that gave the folder, for one with several SNR folders (they hold the same scenes), a volume without its JSON, JSON
    without a name, and what `check_files` refuses.
    """
    folder = Path(folder)
    groups: dict[Path, list[Path]] = defaultdict(list)
    for found in aitom_folders(folder):
        groups[found if found == folder else found.parent].append(found)
    if len(groups) > 1:
        names = ", ".join(sorted(str(group.relative_to(folder)) for group in groups))
        raise InputError(f"{flag}={folder} holds several sets ({names}): take one, as in {flag}={min(groups)}.")
    folders = [found for members in groups.values() for found in members]
    files = [file for found in folders for file in _numbered(found / VOLUMES)]
    if not files:
        raise InputError(f"{flag}={folder}: no {VOLUMES}/tomotarget*.mrc in it.")
    size, voxel_size = check_files(files, box_size, voxel_size)
    labels = [_read_label(file) for file in files]
    class_names = sorted({label["name"] for label in labels if label["name"] is not None})
    known = {key: all(key in label for label in labels) for key in ("loc", "rotate")}

    def read(i: int) -> dict:
        volume = read_mrc(files[i])[0].transpose(2, 1, 0)
        sample = {"volume": central_crop(volume, size), "path": files[i].relative_to(folder).as_posix()}
        if known["rotate"]:
            sample["quaternion"] = euler_zyz_to_quaternion(np.degrees(labels[i]["rotate"]))
        if known["loc"]:
            sample["shift"] = np.array(labels[i]["loc"])
        return sample

    return Particles(
        class_names=class_names,
        labels=np.array([-1 if a["name"] is None else class_names.index(a["name"]) for a in labels], dtype=np.int64),
        voxel_size=voxel_size,
        size=size,
        read=read,
        describe=lambda i: str(files[i]),
        source={"kind": "aitom", "name": folder.resolve().name, **fingerprint_files(files, folder)},
    )


def _numbered(folder: Path) -> list[Path]:
    """Volumes in the order of the number in their name, so that tomotarget10 follows tomotarget9."""
    return sorted((p for p in folder.iterdir() if is_mrc_name(p)), key=lambda p: (_number(p), p.name))


def _number(path: Path) -> int:
    digits = re.search(r"(\d+)\D*$", path.name.split(".")[0])
    if not digits or "tomotarget" not in path.name:
        raise InputError(f"{path}: expected a name such as tomotarget0.mrc; move the file elsewhere or rename it.")
    return int(digits.group(1))


def _read_label(volume: Path) -> dict:
    stem = volume.name.split(".")[0].replace("tomotarget", "target")
    path = volume.parents[1] / LABELS / f"{stem}.json"
    if not path.is_file():
        raise InputError(f"{volume} has no label {path}: add it, or move the volume elsewhere.")
    try:
        label = json.loads(path.read_text())
        for key in ("loc", "rotate"):
            if key in label:
                label[key] = [float(value) for value in label[key]]
                if len(label[key]) != 3:
                    raise ValueError(f"{key} has {len(label[key])} numbers")
        if not isinstance(label["name"], str | None):
            raise ValueError(f"name is {label['name']!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f'{path} is not a label ({type(error).__name__}: {error}): expected {{"loc": [x, y, z], "rotate": '
            f'[phi, theta, psi], "name": "1bxn"}}.'
        ) from None
    return label


def export_aitom(dataset: Dataset, folder: str | Path) -> Path:
    """Write `dataset` in AITom's layout below `folder` (new or empty), which is returned.

    Particles are numbered from 0, class after class in the order of the labels and in the dataset's order within one,
    as in the original sets; the unlabelled come first, with the name null. `loc` and `rotate` are written where the
    dataset knows them. Voxels are the dataset's own, float32. Differs from AITom: the header has the voxel size.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: export to a new folder.")
    order = np.argsort(dataset.labels, kind="stable")
    for number, i in enumerate(tqdm(order, desc="exporting", unit="particle", disable=None)):
        sample = dataset[int(i)]
        label: dict = {}
        if "shift" in sample:
            label["loc"] = [int(v) if float(v).is_integer() else float(v) for v in sample["shift"]]
        if "quaternion" in sample:
            label["rotate"] = np.radians(quaternion_to_euler_zyz(sample["quaternion"])).tolist()
        label["name"] = dataset.class_names[sample["label"]] if sample["label"] >= 0 else None
        write_mrc(folder / VOLUMES / f"tomotarget{number}.mrc", sample["volume"].transpose(2, 1, 0), dataset.voxel_size)
        with atomic_write(folder / LABELS / f"target{number}.json") as temporary:
            temporary.write_text(json.dumps(label))
    return folder
