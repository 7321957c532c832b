"""The projector's files, read back by protobuf and a PNG reader."""

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from matplotlib.image import imread

from aitom_ssl.errors import InputError
from aitom_ssl.export.projector import sprite, thumbnails, write_projector

RNG = np.random.default_rng(0)


def projector_config():
    """TensorBoard's message, as its projector_config.proto has it."""
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="tensorboard.projector", syntax="proto3")
    field_type = descriptor_pb2.FieldDescriptorProto
    one, many = field_type.LABEL_OPTIONAL, field_type.LABEL_REPEATED
    text, number, message = field_type.TYPE_STRING, field_type.TYPE_UINT32, field_type.TYPE_MESSAGE
    messages = {
        "SpriteMetadata": [("image_path", 1, text, one), ("single_image_dim", 2, number, many)],
        "EmbeddingInfo": [
            ("tensor_name", 1, text, one),
            ("metadata_path", 2, text, one),
            ("bookmarks_path", 3, text, one),
            ("tensor_shape", 4, number, many),
            ("sprite", 5, message, one),
            ("tensor_path", 6, text, one),
        ],
        "ProjectorConfig": [("model_checkpoint_path", 1, text, one), ("embeddings", 2, message, many)],
    }
    kinds = {"sprite": "SpriteMetadata", "embeddings": "EmbeddingInfo"}
    for name, fields in messages.items():
        entry = file.message_type.add(name=name)
        for field, tag, kind, label in fields:
            kind_name = f".tensorboard.projector.{kinds[field]}" if kind == message else None
            entry.field.add(name=field, number=tag, type=kind, label=label, type_name=kind_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorboard.projector.ProjectorConfig"))()


def test_the_files_name_each_other_and_hold_what_was_given(tmp_path):
    features, pictures = RNG.normal(size=(5, 3)), RNG.integers(0, 256, (5, 6, 6)).astype(np.uint8)
    rows = [[i, f"a\tb\n{i}", ["igg", ""][i % 2]] for i in range(5)]
    write_projector(tmp_path / "projector", features, ["particle", "path", "class"], rows, pictures)
    folder = tmp_path / "projector"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), projector_config())
    (embedding,) = config.embeddings
    assert list(embedding.tensor_shape) == [5, 3] and list(embedding.sprite.single_image_dim) == [6, 6]
    np.testing.assert_allclose(np.loadtxt(folder / embedding.tensor_path, delimiter="\t"), features, rtol=1e-4)
    lines = (folder / embedding.metadata_path).read_text().splitlines()
    assert [line.split("\t") for line in lines] == [
        ["particle", "path", "class"],
        *([f"{i}", f"a b {i}", ["igg", ""][i % 2]] for i in range(5)),
    ]
    image = imread(folder / embedding.sprite.image_path)
    np.testing.assert_array_equal(np.round(255 * image[..., 0]), sprite(pictures))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 2), (5, 3), (10, 4)])
def test_a_sprite_is_square_row_by_row_and_upright(count, columns):
    pictures = RNG.integers(1, 256, (count, 3, 3)).astype(np.uint8)
    found = sprite(pictures)
    assert found.shape == (3 * columns, 3 * columns)
    for i in range(columns * columns):
        row, column = divmod(i, columns)
        cell = found[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        # Rows of an image go down, y goes up.
        np.testing.assert_array_equal(cell, pictures[i, ::-1] if i < count else np.zeros((3, 3)))


def test_a_thumbnail_is_the_mean_of_the_central_slices_from_black_to_white():
    volumes = np.zeros((2, 9, 4, 4), np.float32)
    volumes[:, 2:7] = np.arange(16).reshape(4, 4)
    volumes[:, (0, 8)] = 1e6
    volumes[1] = 7 - 3 * volumes[1]
    found = thumbnails(volumes)
    assert found.shape == (2, 4, 4) and found.dtype == np.uint8
    assert found[0].min() == 0 and found[0].max() == 255 and (np.diff(found[0].ravel().astype(int)) >= 0).all()
    assert (np.diff(found[1].ravel().astype(int)) <= 0).all()
    assert not thumbnails(np.ones((1, 4, 4, 4))).any()


def test_thumbnails_of_wide_boxes_are_small_enough():
    assert thumbnails(np.zeros((1, 97, 97, 97), np.float32)).shape == (1, 33, 33)
    assert thumbnails(np.zeros((1, 48, 48, 48), np.float32)).shape == (1, 48, 48)


@pytest.mark.parametrize(
    ("features", "columns", "side"),
    [((10_001, 2), 2, 2), ((4, 1), 2, 2), ((4, 2), 1, 2), ((4, 2), 2, 49)],
)
def test_what_the_projector_cannot_show_is_refused(tmp_path, features, columns, side):
    arguments = np.zeros(features), ["x"] * columns, [], np.zeros((features[0], side, side), np.uint8)
    with pytest.raises(InputError, match="The projector takes up to 10,000 samples"):
        write_projector(tmp_path / "p", *arguments)
    assert not (tmp_path / "p").exists()
