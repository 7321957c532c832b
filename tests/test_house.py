"""The house: which room may import from which, who may know TensorFlow, what is public, and that it is all packaged."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "aitom_ssl"

# A room imports from rooms before it, never from later ones.
ROOMS = [
    *["errors", "geometry", "files", "cache", "mrc", "environment", "on_demand"],
    *["structures", "simulation", "data", "augmentation", "models", "losses", "evaluation", "training"],
    *["ssl", "active", "oneshot", "discovery", "export", "cli"],
]
FRAMEWORKS = {"tensorflow", "keras", "jax", "torch"}
NUMPY_ONLY = {"errors", "geometry", "files", "cache", "mrc", "environment", "structures", "simulation", "discovery"}
# pipeline: tf.data. compiled: the training step. callbacks: TensorBoard's event files. export: SavedModel.
KNOW_TENSORFLOW = ("data/pipeline.py", "training/callbacks.py", "training/compiled.py", "export/")

PUBLIC = {
    "models": ["Inception3D", "DSRF3D", "DSRF3Dv2", "CB3D", "RB3D", "ResNet18_3D", "COSNet", "NAMES", "get"],
    "augmentation": [
        "RandomAffine3D",
        "RandomResizedCrop3D",
        "RandomRotation3D",
        "SubtomogramAugmenter",
        "affine_transform_3d",
    ],
    "losses": ["dice_loss", "info_nce", "nt_xent", "sinkhorn", "swapped_prediction"],
    "ssl": ["MoCo", "SimCLR", "SwAV"],
    "active": ["NAMES", "MeanTeacher", "get"],
    "oneshot": ["Episodes", "TrainedCOSNet", "load_cosnet"],
    "discovery": ["fourier_shell_correlation", "align", "average_subtomograms"],
    "export": ["export_savedmodel", "load_legacy_weights", "aitom_model"],
    "data": ["load_spec", "prepare", "load", "Dataset"],
    "simulation": ["simulate", "SimulationSpec", "Simulator"],
    "structures": ["resolve", "NAMES"],
}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def room_of(file):
    return file.split("/")[0].removesuffix(".py")


def imports(file):
    """Dotted names that a file imports anywhere in it; `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def outside(file):
    """Top-level names of what a file imports from elsewhere."""
    return {name.split(".")[0] for name in imports(file)} - {"aitom_ssl"}


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_go_one_way(file):
    room = room_of(file)
    inside = {name.split(".")[1] for name in imports(file) if name.startswith("aitom_ssl.")} - {"__version__"}
    below = {name for name in inside if ROOMS.index(name) > ROOMS.index(room)}
    assert not below, f"{file} imports {below}, which {'are' if len(below) > 1 else 'is'} below {room}"


def test_only_the_named_files_know_a_framework():
    for file in FILES:
        known = outside(file) & FRAMEWORKS
        if room_of(file) in NUMPY_ONLY or (room_of(file) == "data" and file not in KNOW_TENSORFLOW):
            assert not known, file
        assert "tensorflow" not in known or file.startswith(KNOW_TENSORFLOW), file
        assert not known & {"jax", "torch"}, file


def test_simulating_and_reading_data_load_no_framework():
    rooms = [*sorted(NUMPY_ONLY), "data", "data.importers"]
    code = f"import sys, {', '.join(f'aitom_ssl.{room}' for room in rooms)}; print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not FRAMEWORKS & set(ast.literal_eval(shown.stdout))


@pytest.mark.parametrize("room", PUBLIC)
def test_public_names(room):
    module = importlib.import_module(f"aitom_ssl.{room}")
    assert set(PUBLIC[room]) <= set(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    documented = [name for name in module.__all__ if callable(getattr(module, name))]
    assert not [name for name in documented if not getattr(module, name).__doc__]


@pytest.mark.parametrize("file", FILES)
def test_every_module_says_what_it_is(file):
    if file != "cli/__main__.py":
        assert ast.get_docstring(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))), file


def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_every_folder_is_packaged():
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(setup()["options"]["packages"].split()) == folders | {"aitom_ssl.data_specs"}


def requirements(lines):
    return {re.split(r"[<>=; ]", line)[0].lower() for line in lines.split("\n") if line}


def test_every_import_is_a_declared_dependency():
    declared = requirements(setup()["options"]["install_requires"])
    extras = {name: requirements(lines) for name, lines in setup()["options.extras_require"].items()}
    # What an extra brings is imported by the modules that are useless without it.
    optional = {"export/compare_legacy.py": extras["legacy"], "export/client.py": extras["serving"]}
    optional["active/label_server.py"] = extras["browser"]
    named_otherwise = {"absl": "absl-py", "sklearn": "scikit-learn", "yaml": "pyyaml", "tf_keras": "tf-keras"}
    named_otherwise["pydensecrf"] = "pydensecrf2"
    named_otherwise |= {"tensorflow_serving": "tensorflow-serving-api", "grpc": "tensorflow-serving-api"}
    for file in FILES:
        names = outside(file) - sys.stdlib_module_names
        assert {named_otherwise.get(name, name) for name in names} <= declared | optional.get(file, set()), file


def test_no_file_names_a_place_on_one_machine():
    folders = ("aitom_ssl", "benchmarks", "bin", "data_specs", "tests")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in ("", ".py", ".yaml")]
    for path in (path for path in paths if path.is_file()):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text and not re.search(r"/(home|Users|root)/\w", text), path
