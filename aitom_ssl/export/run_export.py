"""From a finished run to a SavedModel: what is exported where, and how it is served.

`checked_export` looks without loading a framework, so that mistakes are answered at once; `export_run` does it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import RIF_SVM, find_run
from aitom_ssl.export.versions import new_version
from aitom_ssl.oneshot.trained import METHOD as COSNET
from aitom_ssl.oneshot.trained import TrainedCOSNet
from aitom_ssl.training.run import RunFolder

if TYPE_CHECKING:
    from aitom_ssl.models import ModelDescription

IMAGE = "tensorflow/serving"


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """An export that can start."""

    run: Path
    folder: Path  # of the version to be
    about: dict[str, Any]  # ModelDescription.to_dict, not checked yet

    @property
    def name(self) -> str:
        """What to call the model on a server: the run, or the output folder where that is somewhere else."""
        models = self.folder.parent.resolve()
        named = models.parent if models == self.run.resolve() / "savedmodel" else models
        return re.sub(r"[^\w.-]+", "_", named.name, flags=re.ASCII) or "model"


def checked_export(
    run: str | os.PathLike,
    output: str | os.PathLike | None = None,
    version: int | None = None,
    voxel_size: float | None = None,
    contrast: str | None = None,
) -> ExportRequest:
    """The export of a run's model.keras as a version under `output`, default RUN/savedmodel.

    `voxel_size` (A) and `contrast` complete the description of a run that does not know its own, as one made from a
    legacy file. Raises InputError for what is no finished run of a network, a version that is there, an output that
    cannot be written to, and a voxel size or contrast that contradicts the run.
    """
    path = Path(run)
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path} holds no run (no config.yaml): give the folder of one.")
    files = find_run(path)
    if files.kind == RIF_SVM:
        raise InputError(
            f"{path} is a RIF-SVM, a scikit-learn model that cannot be a SavedModel: use it with `aitom-ssl predict`."
        )
    about = dict(files.about)
    for name, given in (("voxel_size", voxel_size), ("contrast", contrast)):
        if given is not None and about.get(name) not in (None, given):
            raise InputError(f"{path} was trained with {name}={about[name]}, not {given}: leave --{name} out.")
        about[name] = about.get(name) if given is None else given
    return ExportRequest(path, new_version(output if output is not None else path / "savedmodel", version), about)


def export_run(request: ExportRequest) -> ModelDescription:
    """Write the SavedModel, and return its description. InputError for a model.keras or description that is damaged."""
    from aitom_ssl.export.savedmodel import export_savedmodel
    from aitom_ssl.models import ModelDescription

    description = ModelDescription.from_dict(request.about, f"{request.run}/config.yaml")
    model = RunFolder(request.run).load_model()
    place = request.folder.parent, int(request.folder.name)
    if description.architecture == COSNET:
        from aitom_ssl.export.cosnet import export_cosnet

        export_cosnet(TrainedCOSNet(request.run / "model.keras", description, model, ()), *place)
    else:
        export_savedmodel(model, place[0], description, place[1])
    return description


# === Serving ===


def docker_line(models: Path, name: str) -> str:
    """What starts TensorFlow Serving on a folder of versions: gRPC on 8500, REST on 8501."""
    mount = shlex.quote(f"{models.resolve()}:/models/{name}")
    return f"docker run --rm -p 8500:8500 -p 8501:8501 -v {mount} -e MODEL_NAME={name} {IMAGE}"


def model_config(name: str) -> str:
    """The same as an entry of the file that --model_config_file names (tensorflow.serving.ModelServerConfig)."""
    entry = f'name: "{name}"  base_path: "/models/{name}"  model_platform: "tensorflow"'
    return f"model_config_list {{ config {{ {entry} }} }}"
