"""RIF-SVM, the baseline of Xu 2017: rotation-invariant features and a support vector machine with a Gaussian kernel.

    features (discovery.invariants) -> zero mean, unit deviation -> SVC -> calibrated probabilities

Its run is a folder like any other, without epochs and with model.joblib in place of model.keras:

    config.yaml  model.joblib  results.json  report.html

A joblib file is a pickle, and loading one runs whatever code it holds: load only runs that you trust.
"""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from aitom_ssl import environment
from aitom_ssl.data import Dataset
from aitom_ssl.data.batches import gather, standardize
from aitom_ssl.discovery.invariants import rotation_invariant_features
from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import atomic_write
from aitom_ssl.training.request import checked_splits, labelled_splits, run_config
from aitom_ssl.training.run import RunFolder

if TYPE_CHECKING:
    from aitom_ssl.models.description import ModelDescription

METHOD = "rif_svm"
MODEL_FILE = "model.joblib"
# Penalty, and the kernel's exponent as a multiple of 1 / (number of features).
PENALTIES = (1.0, 3.0, 10.0, 30.0)
EXPONENTS = (0.3, 1.0, 3.0)
_FOLDS = 5
_TOGETHER = 256
# Below so many samples an SVM is trained sooner than another process is started.
_WORTH_PROCESSES = 500


@dataclasses.dataclass(frozen=True)
class RifSvm:
    """A trained RIF-SVM. description: what it was trained on. classifier: features to probabilities, from sklearn."""

    description: ModelDescription
    classifier: Pipeline

    def features(self, volumes: np.ndarray) -> np.ndarray:
        """Rotation-invariant features (n, d) of `volumes` (n, z, y, x), each standardised first as in training."""
        volumes = np.asarray(volumes)
        size = self.description.size
        if volumes.ndim != 4 or volumes.shape[1:] != (size,) * 3:
            raise InputError(f"This model takes volumes (n, {size}, {size}, {size}). Received shape {volumes.shape}.")
        blocks = [volumes[start : start + _TOGETHER] for start in range(0, len(volumes), _TOGETHER)] or [volumes]
        return np.concatenate(
            [rotation_invariant_features(standardize(np.array(block, np.float32))) for block in blocks]
        )

    def probabilities(self, volumes: np.ndarray) -> np.ndarray:
        """(n, classes) float32 of `volumes` (n, z, y, x); 0 for a class that training had no sample of."""
        return class_probabilities(self.classifier, self.features(volumes), len(self.description.class_names))


def run_rif_svm(settings: Mapping[str, Any], output: str | None = None, command: str = "") -> RunFolder:
    """Train on the training split, choose penalty and kernel on the validation split, measure on the test split.

    Args:
        settings: data, limit (or None), seed, and class_weights "balanced" where classes are to weigh the same. What
            else a network is told may stand there and is not read.
        output: the run's folder; default runs/rif_svm-DATA, with a number when that is taken.
        command: what makes the run again, kept in its config.

    The folder is written at the end: an interrupted run leaves nothing, and there is nothing to resume. Memory holds
    the features of all volumes (some 230 numbers each), never the volumes. Time grows with the square of the number of
    training volumes.

    Raises:
        InputError: on data that cannot be used, or fewer than 2 training samples of a class that occurs.
    """
    from aitom_ssl.models.description import ModelDescription
    from aitom_ssl.training.outcome import conclude

    splits = checked_splits({**settings, "batch_size": 1}, output, resume=False)
    labelled = labelled_splits(splits, settings["seed"], batch_size=1)
    for note in labelled.notes:
        print(note, flush=True)
    train, validation, measured = labelled.train, labelled.validation, labelled.measured
    description = ModelDescription(METHOD, tuple(train.class_names), train.size, train.voxel_size, train.contrast)

    started = time.perf_counter()
    trained_on, chosen_on = dataset_features(train), dataset_features(validation)
    measured_features = chosen_on if measured is validation else dataset_features(measured)
    extraction = time.perf_counter() - started
    volumes = len(train) + len(validation) + (0 if measured is validation else len(measured))
    fitted = fit_rif_svm(
        trained_on,
        train.labels,
        chosen_on,
        validation.labels,
        class_weight="balanced" if settings.get("class_weights") == "balanced" else None,
        seed=settings["seed"],
    )
    seconds = time.perf_counter() - started
    probabilities = class_probabilities(fitted.classifier, measured_features, len(description.class_names))

    run = RunFolder.create(output, METHOD, settings["data"])
    run.write_config(run_config(METHOD, command, settings, splits, description))
    _write(run.path / MODEL_FILE, RifSvm(description, fitted.classifier))
    found = {
        "penalty": fitted.penalty,
        "kernel_exponent": fitted.exponent,
        "support_vectors": fitted.support_vectors,
        "feature_milliseconds": 1000 * extraction / volumes,
    }
    more = {
        "seconds": seconds,
        "train_samples": len(train),
        "validation_accuracy": fitted.validation_accuracy,
        **found,
    }
    facts = [(name.replace("_", " "), f"{value:.4g}") for name, value in found.items()]
    conclude(run, probabilities, measured, labelled.measured_on, settings, command, facts=facts, more=more)
    return run


def dataset_features(dataset: Dataset) -> np.ndarray:
    """Rotation-invariant features (n, d) of every volume of `dataset`, standardised as in training."""
    blocks = []
    with tqdm(total=len(dataset), desc=f"features, {dataset.split}", unit=" volumes", leave=False) as bar:
        for start in range(0, len(dataset), _TOGETHER):
            rows = np.arange(start, min(start + _TOGETHER, len(dataset)))
            blocks.append(rotation_invariant_features(gather(dataset, rows)[..., 0]))
            bar.update(len(rows))
    return np.concatenate(blocks)


# === The machine ===


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit_rif_svm` found."""

    classifier: Pipeline
    penalty: float  # C
    exponent: float  # gamma times the number of features
    validation_accuracy: float
    support_vectors: int


def fit_rif_svm(
    features: np.ndarray,
    labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    class_weight: str | None = None,
    seed: int = 0,
) -> Fitted:
    """Train on `features` (n, d) and `labels` (n,), with penalty and kernel that did best on the validation pair.

    Probabilities come from a sigmoid a class, fitted to decisions about held-out fifths of the training samples
    (CalibratedClassifierCV; scikit-learn deprecates SVC's own). The folds are drawn by `seed`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        raise InputError(
            f"A support vector machine needs 2 classes or more with 2 training samples or more in each. Received "
            f"{len(classes)} classes, the smallest with {counts.min()}: take more samples."
        )
    exponents = [exponent / features.shape[1] for exponent in EXPONENTS]
    grid = {"svc__C": PENALTIES, "svc__gamma": exponents}
    both = np.concatenate([features, validation_features]), np.concatenate([labels, validation_labels])
    fold = PredefinedSplit(np.repeat([-1, 0], [len(labels), len(validation_labels)]))
    processes = environment.usable_cores() if len(labels) >= _WORTH_PROCESSES else 1
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        search = GridSearchCV(_machine(class_weight), grid, cv=fold, refit=False, n_jobs=processes)
        search.fit(*both)
        chosen = _machine(class_weight).set_params(**search.best_params_)
        folds = StratifiedKFold(min(_FOLDS, counts.min()), shuffle=True, random_state=seed)
        classifier = CalibratedClassifierCV(chosen, cv=folds, ensemble=False, n_jobs=processes)
        classifier.fit(features, labels)
    machine = classifier.calibrated_classifiers_[0].estimator[-1]
    return Fitted(
        classifier,
        machine.C,
        machine.gamma * features.shape[1],
        float(search.best_score_),
        int(machine.n_support_.sum()),
    )


def _machine(class_weight: str | None) -> Pipeline:
    return make_pipeline(StandardScaler(), SVC(class_weight=class_weight, cache_size=500))


def class_probabilities(classifier: Any, features: np.ndarray, classes: int) -> np.ndarray:
    """(n, classes) float32 of `features` (n, d); a class that the classifier never met has probability 0."""
    probabilities = np.zeros((len(features), classes), np.float32)
    if len(features):
        probabilities[:, classifier.classes_] = classifier.predict_proba(features)
    return probabilities


# === On disk ===


def _write(path: Path, model: RifSvm) -> None:
    parts = {
        "description": model.description.to_dict(),
        "classifier": model.classifier,
        "scikit-learn": environment.versions("scikit-learn")["scikit-learn"],
    }
    with atomic_write(path) as temporary:
        joblib.dump(parts, temporary, compress=3)


def load_rif_svm(path: str | os.PathLike) -> RifSvm:
    """The trained model in a run's folder, or in its model.joblib.

    Loading runs code that the file holds: only files that you trust. InputError when there is none, when it is damaged,
    or when this scikit-learn cannot read what another version wrote; a warning when it can.
    """
    from aitom_ssl.models.description import ModelDescription

    path = Path(path)
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} is not there: give the folder of a finished rif_svm run.")
    here = environment.versions("scikit-learn")["scikit-learn"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            parts = joblib.load(file)
            description, classifier, version = (parts[key] for key in ("description", "classifier", "scikit-learn"))
            classifier.predict_proba  # noqa: B018 (that it is there)
        except Exception as error:  # a pickle may fail in any way
            wrote = _recorded_version(file.parent)
            other = wrote not in (None, here)
            mend = f"it is of scikit-learn {wrote}, here is {here}: install that one, or train again" if other else ""
            raise InputError(
                f"{file} cannot be loaded ({type(error).__name__}: {reason(error)}): {mend or 'train again'}."
            ) from None
    if any(issubclass(one.category, InconsistentVersionWarning) for one in caught):
        warnings.warn(f"{file} is of scikit-learn {version}, here is {here}: answers may differ.", stacklevel=2)
    return RifSvm(ModelDescription.from_dict(description, str(file)), classifier)


def _recorded_version(folder: Path) -> str | None:
    """The scikit-learn in a run's config.yaml; None where that is missing or unreadable."""
    try:
        return RunFolder.open(folder).read_config()["versions"]["scikit-learn"]
    except (InputError, KeyError, TypeError):
        return None
