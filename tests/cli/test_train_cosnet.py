"""The flags of train_cosnet and evaluate_oneshot: presets, ranges, and mistakes answered before TensorFlow."""


import numpy as np
import pytest

from aitom_ssl.cli import main, train_cosnet
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError

RECIPE = train_cosnet.RECIPE


def options(*flags):
    return parse("train_cosnet", train_cosnet, flags)


@pytest.fixture
def data(tmp_path):
    """Folder of a dataset without masks: three classes in both splits."""
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.standard_normal((8, 8, 8)).astype(np.float32), "label": i % 3} for i in range(12)]
    splits = {"train": samples, "test": samples}
    return write_dataset(tmp_path / "data", "data", ["a", "b", "c"], 10.0, "bright", splits)


def test_the_paper_preset_is_the_published_code():
    settings = RECIPE.new(options("--data=x", "--preset=paper"))
    paper = {"filters": 64, "learning_rate": 1e-4, "schedule": "constant", "epochs": 40, "steps": 1000, "way": 2}
    assert settings.items() >= {**paper, "fusion": "add", "decoder": True, "shots": 1, "augmentation": "none"}.items()


def test_every_setting_is_a_flag():
    fields = options().__dataclass_fields__
    for preset in RECIPE.presets.values():
        assert set(preset) | set(RECIPE.common) <= set(fields)
    assert len({frozenset(preset) for preset in RECIPE.presets.values()}) == 1


def test_a_runs_own_settings_pass_as_flags_again():
    settings = RECIPE.new(options("--data=x", "--fusion=none", "--decoder=false", "--unseen=a,b"))
    assert settings["decoder"] is False
    assert RECIPE.resumed(options("--resume"), settings, "runs/x", parse) == settings
    with pytest.raises(InputError, match="was started with --decoder=False, not --decoder=True"):
        RECIPE.resumed(options("--resume", "--decoder"), settings, "runs/x", parse)


@pytest.mark.parametrize("flag", ["epochs=0", "steps=0", "way=1", "shots=0", "episodes=0", "filters=1", "limit=0"])
def test_ranges(flag):
    with pytest.raises(InputError, match=f"--{flag.partition('=')[0]}=.* must be"):
        RECIPE.new(options("--data=x", f"--{flag}"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Every class of the test split of data is in its training split too"),
        (["--unseen=c"], "has no masks"),
        (["--unseen=c", "--decoder=false"], "needs 8 classes of 2 samples or more, and there are 2"),
        (["--unseen=d"], "no class 'd'"),
        (["--fusion=sum"], "fusion"),
        (["--augmentation=crop"], "--augmentation=crop"),
    ],
)
def test_mistakes_are_one_line(data, tmp_path, capsys, flags, message):
    output = tmp_path / "run"
    assert main("train_cosnet", [f"--data={data}", f"--output={output}", *flags]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said and not output.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--run is missing"),
        (["--run=runs/nowhere"], "--output is missing"),
        (["--run=runs/nowhere", "--output=OUT"], "runs/nowhere holds no run"),
        (["--run=x", "--output=OUT", "--ways=2,many"], "--ways=2,many must be whole numbers of 2 or more"),
        (["--run=x", "--output=OUT", "--ways=1,2"], "--ways=1,2"),
        (["--run=x", "--output=OUT", "--shots=0"], "--shots=0 must be 1 or more"),
        (["--run=x", "--output=OUT", "--episodes=0"], "--episodes=0"),
        (["--run=x", "--output=OUT", "--seed=-1"], "--seed=-1"),
        (["--run=x", "--output=OUT", "--split=all"], "split"),
    ],
)
def test_mistakes_of_evaluate_oneshot_are_one_line(tmp_path, capsys, flags, message):
    flags = [flag.replace("OUT", str(tmp_path / "out")) for flag in flags]
    assert main("evaluate_oneshot", flags) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said and not (tmp_path / "out").exists()


def test_a_mistake_is_answered_before_tensorflow_is_loaded(refused_early, data, tmp_path):
    refused_early("train_cosnet", [f"--data={data}", f"--output={tmp_path / 'run'}"])
