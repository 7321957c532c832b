"""What a legacy file holds, and every file that is none or is damaged: named in one line, nothing loaded from it."""

import zipfile

import h5py
import numpy as np
import pytest
from small_legacy import LAYOUTS, edited, names_in, refused

from aitom_ssl.export.legacy_file import legacy_layout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_is_told(inception, layout):
    assert legacy_layout(inception / LAYOUTS[layout]) == layout


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_a_file_cut_short_is_refused(tmp_path, twins, inception, layout, share):
    content = (inception / LAYOUTS[layout]).read_bytes()
    path = tmp_path / LAYOUTS[layout]
    path.write_bytes(content[: int(len(content) * share)])
    refused(twins("inception3d"), path, f"{path.name} is damaged or cut short")


def other_content(path):
    with h5py.File(path, "w") as file:
        file["volumes"] = np.zeros((2, 3))


def other_layout(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = 5


def keras_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", "")


def half_an_archive(path):
    """The end of an archive is there, what it points to is not."""
    keras_archive(path)
    content = path.read_bytes()
    path.write_bytes(b"\0" * (len(content) - 22) + content[-22:])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "not an HDF5 file"),
        (lambda path: path.write_text("epoch,loss\n" * 300), "not an HDF5 file"),
        (other_content, "HDF5 file without a Keras model"),
        (other_layout, "not laid out as Keras does"),
        (keras_archive, "is a .keras archive"),
        (half_an_archive, "not an HDF5 file"),
    ],
)
def test_a_file_that_is_no_keras_file_is_refused(tmp_path, twins, make, words):
    make(tmp_path / "a.h5")
    refused(twins("inception3d"), tmp_path / "a.h5", f"a.h5 (is )?.*{words}")


def set_value(place, value):
    def edit(file):
        file[place.format(name=names_in(file["model_weights"])[1])][...] = value

    return edit


def remove_array(file):
    name = names_in(file["model_weights"])[1]
    del file[f"model_weights/{name}/{name}/kernel:0"]


def spoil_config(file):
    file.attrs["model_config"] = file.attrs["model_config"][1:]


def write_backend(file):
    file["model_weights"].attrs["backend"] = "theano"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_value("model_weights/{name}/{name}/bias:0", np.nan), "not all finite"),
        (remove_array, "damaged or cut short"),
        (spoil_config, "model_config is not JSON"),
        (write_backend, "Theano"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, twins, inception, edit, words):
    refused(twins("inception3d"), edited(inception / "whole.h5", tmp_path / "a.h5", edit), words)
