"""Where a classifier looks: class activation maps of chosen particles, as MRC files, a table and a picture."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aitom_ssl.data.sources import Reading, Source, is_dataset, open_source
from aitom_ssl.errors import InputError, near
from aitom_ssl.export.classifier import RIF_SVM, ModelFiles, find_model, load_keras
from aitom_ssl.export.feed import Feed
from aitom_ssl.export.prediction import refuse_differences
from aitom_ssl.files import build_folder, refuse_unwritable, write_csv, write_json
from aitom_ssl.mrc import write_mrc
from aitom_ssl.training.quiet import import_keras_quietly

if TYPE_CHECKING:
    from aitom_ssl.evaluation.cam_figure import ModelMaps
    from aitom_ssl.models import ModelDescription

PREDICTED, LABEL = "predicted", "label"
BATCH_SIZE = 16
# A taller picture is of no use; the files are of all samples.
DRAWN = 24


class Explanation(NamedTuple):
    """What `explain_classifier` wrote."""

    folder: Path
    rows: list[dict[str, Any]]  # those of maps.csv
    notes: list[str]  # what the user should know


@dataclasses.dataclass(frozen=True)
class _Maps:
    """What one model makes of the samples."""

    run: str  # its name in tables and files
    layer: str
    probabilities: np.ndarray  # (n, classes), in the order of `class_names`
    class_names: Sequence[str]
    targets: np.ndarray  # (n,) class of each map
    maps: np.ndarray  # (n, z, y, x)

    def drawn(self, count: int) -> ModelMaps:
        from aitom_ssl.evaluation.cam_figure import ModelMaps

        predicted, targets = self.probabilities.argmax(axis=1), self.targets
        names = [[self.class_names[k] for k in classes[:count]] for classes in (predicted, targets)]
        return ModelMaps(self.run, self.maps[:count], names[0], self.probabilities.max(axis=1)[:count], names[1])


def explain_classifier(
    run: str | os.PathLike,
    data: str,
    output: str | os.PathLike,
    compare: str | os.PathLike | None = None,
    reading: Reading | None = None,
    count: int = 8,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    method: str = "grad_cam",
    layer: str | None = None,
    target: str = PREDICTED,
    batch_size: int = BATCH_SIZE,
    precision: str | None = None,
    ignore_mismatch: bool = False,
    command: str = "",
) -> Explanation:
    """What in particles of `data` speaks for their class, to the classifier at `run`: files in a new folder `output`.

    For sample number i of the data, and every model:

        00005_volume.mrc         what the network was given: standardised, in its box and contrast
        00005_map.mrc            the map (see `evaluation.gradcam`), unscaled; 00005_map_compare.mrc that of `compare`
        maps.csv                 a row a sample and model: classes, probabilities, where the map lies
        explain.png              the samples' slices under their maps, the models side by side
        explanation.json         how it was made

    In maps.csv, peak_x, peak_y, peak_z are the map's maximum in voxels from 0, and central_share is how much of the
    positive part of the map lies in the central sphere (see `gradcam.central_share`); both are empty for a map that is
    nowhere positive.

    Args:
        run: folder of a run with a trained network.
        data: see `sources.open_source`, with `reading`; of a dataset the test split unless `reading` names another.
        output: a new or empty folder, which appears whole.
        compare: a second run, of the same classes and kind of data, on the same samples.
        count: how many samples, equally many of each class as far as they go, drawn by `seed`.
        indices: these samples instead, as they are numbered in the data, from 0.
        method, layer: see `gradcam.class_activation_map`; both models are asked for the same layer.
        target: class of the maps: "predicted", "label" (the true one), or the name of a class.
        batch_size: volumes differentiated at a time.
        precision: numbers to compute in; None is what each model was trained in.
        ignore_mismatch: take data of another voxel size, box or contrast than the models' (see `predict_files`).
        command: what makes it again, kept in explanation.json.

    Raises:
        InputError: for what cannot be used, with both values where data and model, or the two models, differ.
    """
    reading = reading or Reading()
    if reading.split is None and is_dataset(data):
        reading = dataclasses.replace(reading, split="test")
    models = [find_differentiable(path) for path in (run, compare) if path is not None]
    if len(models) == 2:
        _refuse_other_classes(*models)
    class_names = models[0].about["class_names"]
    if target not in (PREDICTED, LABEL, *class_names):
        raise InputError(
            f"target={target!r} is neither {PREDICTED} nor {LABEL} nor a class of {models[0].path} "
            f"({', '.join(class_names)}).{near(target, class_names)}"
        )
    _refuse_taken(Path(output))
    source = open_source(data, reading, models[0].size)
    chosen = _chosen(source, class_names, count, indices, seed, target)

    import_keras_quietly()
    descriptions = [files.description() for files in models]
    notes = list(source.notes)
    for files in models:
        notes += [note for note in refuse_differences(files, source, ignore_mismatch) if note not in notes]
    feed = Feed(source, descriptions[0].size, descriptions[0].contrast, skip_damaged=False)
    volumes = feed.batch(chosen).volumes
    notes += feed.notes()
    names = _run_names(run, compare)
    settings = (method, layer, batch_size, precision)
    labels = [source.class_names[source.labels[i]] if source.labels[i] >= 0 else None for i in chosen]
    explained = [
        _explained(name, files, description, volumes, target, labels, *settings)
        for name, files, description in zip(names, models, descriptions, strict=True)
    ]
    about = {
        "run": str(run),
        "compare": None if compare is None else str(compare),
        "data": data,
        "split": reading.split,
        "method": method,
        "layers": {maps.run: maps.layer for maps in explained},
        "target": target,
        "seed": None if indices is not None else seed,
        "notes": notes,
        "command": command,
    }
    rows = _write(Path(output), source, chosen, labels, volumes, explained, about)
    if len(chosen) > DRAWN:
        notes.append(f"explain.png shows the first {DRAWN} of {len(chosen)} samples.")
    return Explanation(Path(output), rows, notes)


# === What is asked for ===


def find_differentiable(path: str | os.PathLike) -> ModelFiles:
    """The classifier of the run at `path`, a network that gradients can be taken of; loads no framework.

    InputError where there is none: a SavedModel, a RIF-SVM and an encoder are told apart.
    """
    files = find_model(path)
    if files.kind == RIF_SVM:
        raise InputError(f"{path} is a RIF-SVM, which has no feature maps: give a run of a network.")
    if files.path.suffix != ".keras":
        raise InputError(
            f"{path} is a SavedModel, which gives no gradients: give the run that it was exported from, the folder "
            "with config.yaml and model.keras."
        )
    return files


def _refuse_other_classes(files: ModelFiles, other: ModelFiles) -> None:
    mine, theirs = set(files.about["class_names"]), set(other.about["class_names"])
    if mine != theirs:
        only = sorted(mine ^ theirs)
        where = files.path if only[0] in mine else other.path
        raise InputError(
            f"The runs to compare know different classes ({only[0]!r} is in {where} alone): compare runs of the same."
        )
    if files.size != other.size:
        raise InputError(
            f"The runs to compare take different boxes: {files.path} {files.size}^3, {other.path} {other.size}^3."
        )


def _refuse_taken(output: Path) -> None:
    refuse_unwritable(output)
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} is there and is not empty: give another --output.")


def _run_names(run: str | os.PathLike, compare: str | os.PathLike | None) -> list[str]:
    if compare is None:
        return [Path(run).absolute().name]
    last = [Path(path).absolute().name for path in (run, compare)]
    return last if last[0] != last[1] else [str(run), str(compare)]


def _chosen(
    source: Source, class_names: Sequence[str], count: int, indices: Sequence[int] | None, seed: int, target: str
) -> np.ndarray:
    """Numbers of the samples. InputError for one that is not there, or lacks the label that `target` asks for."""
    known = np.array([name in class_names for name in source.class_names] + [False])[source.labels]
    if indices is None:
        allowed = np.flatnonzero(known) if target == LABEL else np.arange(len(source))
        if not len(allowed):
            raise InputError(
                f"target={LABEL} needs samples with a label that the model knows ({', '.join(class_names)}), and the "
                f"data have none: take target={PREDICTED}, or name a class."
            )
        return allowed[spread_over_classes(source.labels[allowed], count, seed)]
    chosen = np.asarray(indices, dtype=np.int64)
    outside = chosen[(chosen < 0) | (chosen >= len(source))]
    if len(outside):
        raise InputError(f"There is no sample {outside[0]}: the data have {len(source):,}, numbered from 0.")
    if len(np.unique(chosen)) < len(chosen):
        raise InputError(f"A sample is named twice among {', '.join(map(str, chosen))}: name each once.")
    if target == LABEL and not known[chosen].all():
        raise InputError(
            f"{source.describe(int(chosen[~known[chosen]][0]))} has no label that the model knows: take "
            f"target={PREDICTED}, or name a class."
        )
    return chosen


def spread_over_classes(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Up to `count` indices of `labels` (n,), in the order of their labels; the labels' numbers differ by 1 at most.

    A label that has too few leaves its place to the others; -1 counts as a label. Drawn by `seed`.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        turn[mine] = np.arange(len(mine))
    chosen = order[np.argsort(turn[order], kind="stable")][:count]
    return chosen[np.lexsort((chosen, labels[chosen]))]


# === What a model makes of them ===


def _explained(
    name: str,
    files: ModelFiles,
    description: ModelDescription,
    volumes: np.ndarray,
    target: str,
    labels: Sequence[str | None],
    method: str,
    layer: str | None,
    batch_size: int,
    precision: str | None,
) -> _Maps:
    from aitom_ssl.evaluation.gradcam import class_activation_map, class_scores, spatial_layer

    model, class_names = load_keras(files, precision), description.class_names
    chosen = spatial_layer(model, layer).name
    scores = class_scores(model, volumes, batch_size).astype(np.float64)
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if target == PREDICTED:
        targets = scores.argmax(axis=1)
    else:
        targets = np.array([class_names.index(label if target == LABEL else target) for label in labels])
    maps = class_activation_map(model, volumes, targets, chosen, method, batch_size)
    return _Maps(name, chosen, probabilities, class_names, targets, maps)


# === Files ===


def _write(
    output: Path,
    source: Source,
    chosen: np.ndarray,
    labels: Sequence[str | None],
    volumes: np.ndarray,
    explained: Sequence[_Maps],
    about: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Everything into `output`, which appears whole; the rows of maps.csv."""
    with build_folder(output) as folder:
        rows = _write_maps(folder, source, chosen, labels, volumes, explained)
        write_csv(folder / "maps.csv", rows)
        _draw(folder / "explain.png", chosen, labels, volumes, explained, source.voxel_size)
        write_json(folder / "explanation.json", about)
    return rows


def _write_maps(
    folder: Path,
    source: Source,
    chosen: np.ndarray,
    labels: Sequence[str | None],
    volumes: np.ndarray,
    explained: Sequence[_Maps],
) -> list[dict[str, Any]]:
    from aitom_ssl.evaluation.gradcam import central_share, peak

    rows = []
    digits = max(5, len(str(len(source) - 1)))
    for row, (number, label) in enumerate(zip(chosen, labels, strict=True)):
        stem = f"{number:0{digits}d}"
        write_mrc(folder / f"{stem}_volume.mrc", volumes[row], source.voxel_size)
        for maps, suffix in zip(explained, ("map", "map_compare"), strict=False):
            cam, probabilities = maps.maps[row], maps.probabilities[row]
            write_mrc(folder / f"{stem}_{suffix}.mrc", cam, source.voxel_size)
            predicted, target = int(probabilities.argmax()), int(maps.targets[row])
            place, share = peak(cam), central_share(cam)
            z, y, x = ("", "", "") if place is None else place
            rows.append(
                {
                    "sample": int(number),
                    **{name: values[int(number)] for name, values in source.columns.items()},
                    "run": maps.run,
                    "label": label or "",
                    "predicted": maps.class_names[predicted],
                    "probability": f"{probabilities[predicted]:.4f}",
                    "target": maps.class_names[target],
                    "target_probability": f"{probabilities[target]:.4f}",
                    "peak_x": x,
                    "peak_y": y,
                    "peak_z": z,
                    "central_share": "" if share is None else f"{share:.4f}",
                    "map": f"{stem}_{suffix}.mrc",
                    "volume": f"{stem}_volume.mrc",
                }
            )
    return rows


def _draw(
    path: Path,
    chosen: np.ndarray,
    labels: Sequence[str | None],
    volumes: np.ndarray,
    explained: Sequence[_Maps],
    voxel_size: float,
) -> None:
    from aitom_ssl.evaluation.cam_figure import cam_figure

    names = [f"sample {number}" for number in chosen[:DRAWN]]
    models = [maps.drawn(DRAWN) for maps in explained]
    cam_figure(volumes[:DRAWN], names, labels[:DRAWN], models, voxel_size).savefig(path, dpi=150)
