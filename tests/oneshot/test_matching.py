"""The training model: its loss from parts, masks that turn with their volumes, exact resuming, and that it learns."""

import keras
import numpy as np
import pytest
from keras import ops

from aitom_ssl.augmentation import SubtomogramAugmenter
from aitom_ssl.errors import InputError
from aitom_ssl.losses import dice_loss, matching_loss
from aitom_ssl.models import COSNet
from aitom_ssl.oneshot.episodes import Episode
from aitom_ssl.oneshot.matching import OneShotModel, arranged, augment_pair
from aitom_ssl.training.run import Checkpoint, RunFolder

SHAPE = (8, 8, 8, 1)


def built(augmenter=None, seed=0, decoder=True, eagerly=True, **options):
    """Compiled; a few steps are quicker eagerly than a graph is made."""
    keras.utils.set_random_seed(seed)
    network = COSNet(SHAPE, filters=2, features=4, decoder=decoder)
    options = {"episodes": 2, "way": 2, "shots": 1, "readout": "sigmoid", **options}
    model = OneShotModel(network, augmenter, seed=seed, **options)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False, run_eagerly=eagerly)
    model.optimizer.build(model.trainable_variables)
    return model


def batch(samples, seed=0):
    rng = np.random.default_rng(seed)
    masks = (rng.random((samples, *SHAPE)) > 0.7).astype(np.uint8)
    volumes = (masks + 0.5 * rng.standard_normal(masks.shape)).astype(np.float32)
    return volumes, masks


def test_the_order_of_a_batch():
    episodes = [Episode(np.array([5, 7]), np.array([[10], [20]]), np.array([[11], [21]])) for _ in range(2)]
    np.testing.assert_array_equal(arranged(episodes), [10, 20, 11, 21] * 2)


@pytest.mark.parametrize("shots", [1, 3])
def test_the_loss_from_its_parts(shots):
    """Two episodes of two classes, each with its own matching; masks of both sets."""
    model = built(shots=shots, targets=2, readout="softmax")
    each = 2 * shots + 4
    volumes, masks = batch(2 * each)
    loss = float(model.compute_loss(y_pred=model((volumes, masks)), training=False))

    outputs = model.network(volumes, training=False)
    pairs = np.asarray(outputs["similarity"])
    logits = []
    for episode in (0, 1):
        start = episode * each
        block = pairs[start + 2 * shots : start + each, start : start + 2 * shots]
        logits.append(np.stack([block[:, :shots].mean(axis=1), block[:, shots:].mean(axis=1)], axis=1))
    expected = float(matching_loss(np.stack(logits), np.array([[0, 0, 1, 1]] * 2), "softmax"))
    support = np.concatenate([np.arange(2 * shots) + episode * each for episode in (0, 1)])
    target = np.setdiff1d(np.arange(2 * each), support)
    predicted = np.asarray(outputs["mask"])
    expected += sum(float(dice_loss(masks[rows], predicted[rows])) for rows in (support, target))
    assert loss == pytest.approx(expected, rel=1e-4)


def test_without_a_decoder_only_the_matching_counts():
    model = built(decoder=False)
    volumes, masks = batch(8)
    logits, _, predicted = model((volumes, masks))
    assert predicted is None and model.dice is None
    loss = float(model.compute_loss(y_pred=(logits, masks, None), training=False))
    assert loss == pytest.approx(float(matching_loss(logits, np.array([[0, 1]] * 2), "sigmoid")), rel=1e-5)


# === Augmentation ===


def test_masks_turn_with_their_volumes():
    volumes, _ = batch(6)
    masks = np.zeros_like(volumes)
    masks[:, 2:6, 3:5, 1:7] = 1
    both = np.concatenate([10 * masks - 5, masks], axis=-1)
    augmenter = SubtomogramAugmenter("recommended", noise=(0, 0), standardize=False)
    found = np.asarray(augment_pair(augmenter, ops.convert_to_tensor(both), seed=3))
    assert set(np.unique(found[..., 1])) == {0.0, 1.0}
    # Voxels outside the box come in as 0, the middle of -5 and 5: only those can differ in sign.
    inside = np.abs(found[..., 0]) > 1e-6
    np.testing.assert_array_equal(found[..., 1][inside] == 1, (found[..., 0] > 0)[inside])
    moved = np.abs(found[..., 1] - masks[..., 0]).reshape(6, -1).sum(axis=1)
    assert moved.min() > 0 and found[..., 1].reshape(6, -1).sum(axis=1).min() > 20
    drawn = augmenter.draw(6, 8, 3)
    np.testing.assert_allclose(augmenter.apply(both[..., :1], drawn), found[..., :1], atol=1e-6)


def test_without_geometry_masks_stay_as_they_are():
    volumes, masks = batch(2)
    both = np.concatenate([volumes, masks], axis=-1).astype(np.float32)
    found = np.asarray(
        augment_pair(SubtomogramAugmenter("none", noise=(0.5, 0.5)), ops.convert_to_tensor(both), seed=1)
    )
    np.testing.assert_array_equal(found[..., 1:], masks)
    assert np.abs(found[..., :1] - volumes).max() > 0.1


def test_surroundings_are_refused():
    with pytest.raises(InputError, match=r"exchanges surroundings.*recommended, not crowded"):
        built(SubtomogramAugmenter("crowded"))


# === Training ===


def test_two_and_two_steps_equal_four(tmp_path, uncompiled):
    def state(model):
        return [*model.variables, *model.optimizer.variables]

    def steps(model, numbers):
        for number in numbers:
            model.train_on_batch(batch(8, seed=number))

    augmenter = SubtomogramAugmenter("recommended")
    through, resumed = built(augmenter), built(augmenter)
    run = RunFolder(tmp_path)
    steps(through, range(2))
    run.save_checkpoint(Checkpoint(1, [], 0.0), state(through))
    before = [v.numpy() for v in through.trainable_variables]
    steps(through, range(2, 4))
    moved = [np.abs(v.numpy() - b).max() for v, b in zip(through.trainable_variables, before, strict=True)]
    assert max(moved) > 1e-3

    for variable in resumed.trainable_variables:
        variable.assign(variable + 1)
    run.restore_checkpoint(state(resumed))
    assert int(resumed.step.value) == 2
    steps(resumed, range(2, 4))
    for a, b in zip(state(through), state(resumed), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_every_weight_of_the_network_is_trained(uncompiled):
    model = built()
    before = {v.path: v.numpy() for v in model.network.weights}
    for number in range(3):
        model.train_on_batch(batch(8, seed=number))
    still = [v.path for v in model.network.weights if np.array_equal(v.numpy(), before[v.path])]
    assert not still


def test_it_learns(splits):
    """Four blocks of other shapes, apart in a few steps: matched and outlined."""
    model = built(episodes=1, way=4, readout="softmax", eagerly=False)
    train = splits["train"]
    rng = np.random.default_rng(0)
    logs = []
    for _ in range(60):
        rows = np.stack([rng.choice(np.flatnonzero(train.labels == label), 2, replace=False) for label in range(4)])
        rows = rows.T.ravel()
        model.reset_metrics()
        logs.append(
            model.train_on_batch((train.volumes(rows)[..., None], train.masks(rows)[..., None]), return_dict=True)
        )
    first, last = ({name: np.mean([log[name] for log in part]) for name in logs[0]} for part in (logs[:10], logs[-10:]))
    assert last["episode_accuracy"] > 0.9 and last["dice"] > first["dice"] + 0.2 and last["loss"] < 0.7 * first["loss"]
