"""What validation says of a network."""

from aitom_ssl.models import COSNet, ModelDescription
from aitom_ssl.oneshot import validation
from aitom_ssl.oneshot.plan import training_plan
from aitom_ssl.oneshot.trained import TrainedCOSNet


def test_validation_is_on_classes_kept_out(splits, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "_MONITOR_EPISODES", 20)
    plan = training_plan(splits, {**settings, "unseen": "a,b"})
    network = COSNet((8, 8, 8, 1), filters=2, features=4)
    trained = TrainedCOSNet(tmp_path, ModelDescription("cosnet", (), 8, 10.0, "bright"), network, plan.classes)
    found = validation.validate(trained, plan, seed=0, episodes=30)
    assert found.unseen and found.samples == 8 and [a.way for a in found.answers] == [2]
    assert found.to_dict()["validation_accuracy"]["2"]["count"] == 30
    assert "unseen classes" in found.text() and "Dice" in found.text()
    logs = {}
    validation.ValidationMonitor(trained, plan, 0).on_epoch_end(0, logs)
    assert set(logs) == {"val_accuracy", "val_dice"}
