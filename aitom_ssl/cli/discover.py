"""Structures that nobody labelled: features -> clusters -> averages -> resolution (Xu 2017).

    aitom-ssl discover --run=runs/inception3d-mine --data=folder_of_mrc/ --output=found
    aitom-ssl discover --run=runs/moco-mine --data=picks.star --tomogram=tomogram.mrc --invert_contrast --output=found
    aitom-ssl discover --features=pose_normalized --data=sim_demo --split=test --output=found
    aitom-ssl discover --resume --output=found

The features of every subtomogram (of a classifier its linear activations, of an encoder its features) go through
k-means into many clusters; each cluster is classified and averaged by itself, without a reference, under the missing
wedge. The folder gets clusters/NUMBER/class-1.mrc, ... (averages and their half maps, voxel size set), particles.star
(cluster, class and pose of each subtomogram, for RELION), table.csv (a row an average: sizes, resolution, what most of
its members are, the known structure that it looks like), tsne.png and report.html.

Stop at any time and go on with --resume: finished clusters are kept. Several processes with --resume (and --workers=1)
share the clusters. --compare puts the cluster sizes of Xu 2009 and Xu 2015 beside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aitom_ssl.cli.common import EMPTY, flag, flag_words
from aitom_ssl.cli.studies import asked_study, study_command
from aitom_ssl.environment import usable_cores
from aitom_ssl.errors import InputError, near
from aitom_ssl.training.precision import PRECISIONS
from aitom_ssl.training.settings import refuse_changes, refuse_missing

NAME = "discover"
NETWORK = "network"
BASELINES = ("rotation_invariant", "pose_normalized")
DEFAULTS: dict[str, Any] = {
    "run": None,
    "features": NETWORK,
    "split": None,
    "clusters": None,
    "classes": 3,
    "iterations": 5,
    "gold_standard": False,
    "tilt_max": None,
    "mask_radius": None,
    "max_shift": None,
    "compare": [],
    "seed": 0,
    "tomogram": None,
    "tomogram_name": None,
    "coordinate_voxel_size": None,
    "centre_offset": -1.0,
    "voxel_size": None,
    "box_size": None,
    "invert_contrast": False,
    "label_column": None,
    "ignore_mismatch": False,
    "skip_damaged": False,
    "batch_size": 64,
    "precision": None,
}
SMOKE = {"data": "sim_demo", "split": "validation", "clusters": 3, "classes": 2, "iterations": 1}


@dataclasses.dataclass
class Options:
    run: str | None = flag(None, "Folder of a trained run (classifier or encoder), or of a SavedModel.")
    data: str | None = flag(None, "Dataset (name, YAML file or folder), folder of MRC subtomograms, or .star file.")
    output: str | None = flag(
        None, "Folder for the results. Default: runs/discover-DATA, with a number when that is taken."
    )
    features: str | None = flag(
        None,
        "What is clustered: features by --run, or one of two baselines that need none. Default: network.",
        (NETWORK, *BASELINES),
    )
    compare: list[str] = flag([], f"Of {', '.join(BASELINES)}: whose cluster sizes the report shows beside.")
    clusters: int | None = flag(None, "Clusters of k-means. Default: 100, fewer when there are fewer than 2,000.")
    classes: int | None = flag(None, "Classes that each cluster is divided into. Default: 3.")
    iterations: int | None = flag(None, "Of classification, averaging and alignment. Default: 5.")
    gold_standard: bool | None = flag(None, "Keep two half sets apart from the start: the FSC is then independent.")
    tilt_max: float | None = flag(
        None, "Tilts go so many degrees either way about y; 90 for no missing wedge. Default: as simulated, else 60."
    )
    mask_radius: float | None = flag(
        None, "Radius in A of the sphere that averages are looked at in. Default: the box's, less 3 voxels."
    )
    max_shift: float | None = flag(
        None, "Largest distance in A of a particle from its box's centre. Default: a quarter of the box."
    )
    seed: int | None = flag(None, "Of clusters, half sets and first references. Default: 0.")
    split: str | None = flag(
        None, "Split of a dataset. Default: all of them.", choices=("train", "validation", "test")
    )
    tomogram: str | None = flag(None, "Tomogram (MRC) that the coordinates of a STAR file lie in.")
    tomogram_name: str | None = flag(
        None, "The tomogram's name in a STAR file of several (rlnTomoName). Default: the name of --tomogram's file."
    )
    coordinate_voxel_size: float | None = flag(
        None, "Pixel in A that the coordinates are counted in, in place of what the STAR file says."
    )
    centre_offset: float | None = flag(
        None,
        "Where rlnCenteredCoordinate is counted from: size/2 + this, in unbinned pixels. RELION -1, copick 0. "
        "Default: -1.",
    )
    voxel_size: float | None = flag(None, "Voxel size in A, in place of the one in the MRC headers.")
    box_size: int | None = flag(
        None, "Box in voxels: crops MRC files about their centre. Of a tomogram, default: the model's."
    )
    invert_contrast: bool | None = flag(
        None, "Protein is dark in the files, as in most tomograms. Of a dataset, which knows: turn its sign even so."
    )
    label_column: str | None = flag(None, "Column of a STAR file whose values are classes, for the report alone.")
    ignore_mismatch: bool | None = flag(
        None, "Take data of another voxel size, box or contrast than the model's; boxes are cropped or padded."
    )
    skip_damaged: bool | None = flag(
        None, "Leave out particles that are NaN, infinite or constant, in place of stopping there."
    )
    batch_size: int | None = flag(None, "Volumes that go through the network at a time. Default: 64.")
    precision: str | None = flag(
        None,
        "Numbers to compute in; bfloat16 is quicker where the processor has it. Default: as it was trained.",
        choices=PRECISIONS,
    )
    workers: int | None = flag(None, "Processes that align. Default: one a core.")
    resume: bool = flag(False, "Go on with what is in --output, or the last one, with its settings.")
    smoke: bool = flag(
        False, "The same in about two minutes: the validation samples of sim_demo, 3 clusters, 2 classes, 1 iteration."
    )


_LEAST = {"clusters": 1, "classes": 1, "iterations": 1, "seed": 0, "batch_size": 1, "workers": 1, "box_size": 8}
_ABOVE_0 = ("voxel_size", "coordinate_voxel_size", "mask_radius")


def given_flags(options: Options) -> dict[str, Any]:
    """The settings that the user gave, each in its range."""
    given = {name: value for name, value in dataclasses.asdict(options).items() if value not in (None, [])}
    for name, least in _LEAST.items():
        if name in given and given[name] < least:
            raise InputError(f"--{name}={given[name]}: expected {least} or more.")
    for name in _ABOVE_0:
        if name in given and given[name] <= 0:
            raise InputError(f"--{name}={given[name]:g}: expected a positive number of angstroms.")
    if given.get("max_shift", 0) < 0:
        raise InputError(f"--max_shift={given['max_shift']:g}: expected 0 or more angstroms.")
    if "tilt_max" in given and not 0 < given["tilt_max"] <= 90:
        raise InputError(f"--tilt_max={given['tilt_max']:g}: expected degrees, above 0 and up to 90.")
    if given.get("compare") == [EMPTY]:
        given["compare"] = []
    for word in given.get("compare", ()):
        if word not in BASELINES:
            raise InputError(f"--compare={word}: expected some of {', '.join(BASELINES)}.{near(word, BASELINES)}")
    if "compare" in given:
        given["compare"] = [name for name in BASELINES if name in given["compare"]]
    for name in ("output", "resume", "smoke", "workers"):
        given.pop(name, None)
    return given


def new_settings(options: Options) -> dict[str, Any]:
    """All settings of a new discovery: flags before --smoke before the defaults."""
    given = given_flags(options)
    settings = {"data": None, **DEFAULTS, **(SMOKE if options.smoke else {}), **given}
    if options.smoke and "features" not in given and "run" not in given:
        settings["features"] = BASELINES[0]
    if settings["data"] is None:
        raise InputError("--data is missing: give it, for example --data=particles/.")
    network = settings["features"] == NETWORK
    if network and settings["run"] is None:
        raise InputError(
            f"--run is missing: give a trained run, for example --run=runs/mine, or --features={BASELINES[0]}."
        )
    if not network and settings["run"] is not None:
        raise InputError(f"--run={settings['run']} and --features={settings['features']}: leave one of them out.")
    return settings


def resumed_settings(options: Options, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The folder's own settings; InputError when a flag differs from them."""
    given = given_flags(options)
    refuse_missing(("data", *DEFAULTS), stored, where, "discovery")
    refuse_changes(given, stored, where, "discovery", flag_words)
    return dict(stored)


def run(options: Options) -> None:
    """Subdivide, average, and say what came of it."""
    settings, output = asked_study(NAME, options, new_settings, resumed_settings)

    from aitom_ssl.data.sources import Reading, open_source
    from aitom_ssl.export.features import BaselineFeatures, NetworkFeatures
    from aitom_ssl.training.quiet import import_keras_quietly

    skip = settings["skip_damaged"]
    if settings["features"] == NETWORK:
        names = ("run", "batch_size", "precision", "ignore_mismatch", "skip_damaged")
        features = NetworkFeatures(**{name: settings[name] for name in names})
    else:
        features = BaselineFeatures(settings["features"], skip)
    reading = Reading(**{field.name: settings[field.name] for field in dataclasses.fields(Reading)})
    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    source = open_source(settings["data"], reading, features.size)
    baselines = {name: BaselineFeatures(name, skip) for name in settings["compare"]}
    said = {name: value for name, value in settings.items() if name == "data" or value != DEFAULTS.get(name)}
    command = study_command(NAME, Options, said)
    workers = options.workers or usable_cores()
    import_keras_quietly()

    from aitom_ssl.discovery.discover import run_discovery

    run_discovery(settings, source, features, baselines, output, options.resume, workers, command)
