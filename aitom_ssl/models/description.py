"""What a trained network expects and what its outputs mean: it travels with the weights into runs and SavedModels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from aitom_ssl.data.header import CONTRASTS
from aitom_ssl.errors import InputError

# Headers round voxel sizes: 13.48 and 13.5 are the same data.
VOXEL_SIZE_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """Architecture, label order and the kind of subtomogram that a network was trained on.

    architecture: name for `models.get`, or "rif_svm".
    class_names: in label order; empty for an encoder.
    size: voxels a side.
    voxel_size: A; None where it is not known (a legacy file does not say).
    contrast: "bright" (protein positive) or "dark"; None where it is not known.
    """

    architecture: str
    class_names: tuple[str, ...]
    size: int
    voxel_size: float | None
    contrast: str | None

    def __post_init__(self) -> None:
        names = self.class_names
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise InputError(f"class_names={names!r} must be a list of names.")
        if len(set(names)) != len(names):
            raise InputError(f"class_names={list(names)!r} names a class twice: every class needs a name of its own.")
        object.__setattr__(self, "class_names", tuple(names))
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise InputError(f"size={self.size!r} must be a whole number of voxels a side, 1 or more.")
        voxel_size = self.voxel_size
        if voxel_size is not None and not (isinstance(voxel_size, (int, float)) and 0 < voxel_size < math.inf):
            raise InputError(f"voxel_size={voxel_size!r} must be a number of angstrom above 0, or None.")
        if self.contrast not in (None, *CONTRASTS):
            raise InputError(f"contrast={self.contrast!r} must be one of {', '.join(CONTRASTS)}, or None.")

    def to_dict(self) -> dict[str, Any]:
        """For YAML and JSON."""
        return {**dataclasses.asdict(self), "class_names": list(self.class_names)}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> ModelDescription:
        """What `to_dict` gave; `where` names the file in the InputError about anything else."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, Mapping) or set(values) != set(names):
            raise InputError(f"{where} does not describe a model: expected {', '.join(names)}; write it again.")
        try:
            return cls(**values)
        except (InputError, TypeError) as error:
            raise InputError(f"{where} does not describe a model: {error}") from None

    def differences(self, size: int, voxel_size: float | None, contrast: str | None) -> list[str]:
        """What is unlike in data of this box, voxel size (A) and contrast, one phrase each; unknown values fit."""
        found = []
        if size != self.size:
            found.append(f"box {size}^3 (trained on {self.size}^3)")
        known = None not in (voxel_size, self.voxel_size)
        if known and abs(voxel_size - self.voxel_size) > VOXEL_SIZE_TOLERANCE * self.voxel_size:
            found.append(f"voxel size {voxel_size:g} A (trained on {self.voxel_size:g} A)")
        if None not in (contrast, self.contrast) and contrast != self.contrast:
            found.append(f"{contrast} protein (trained on {self.contrast})")
        return found
