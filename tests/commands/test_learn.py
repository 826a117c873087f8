"""Commands train and test as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_clips import write_clips

from streamsal.actions.config import Test as Judging
from streamsal.cli import main, parser
from streamsal.commands.learn import _settings, changed
from streamsal.errors import UsageError

GRID = """
[grid]
"model.blocks" = [1, 2]
"train.lr" = [0.001, 0.002]
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, config.toml, and what `streamsal train` makes of them, by its default name."""
    folder = tmp_path_factory.mktemp("learn")
    config = write_clips(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", str(config), "--device", "cpu", "-q"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return trained


def test_an_example_is_written_with_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--example", "moving"]) == 0
    recipe, following = capsys.readouterr().out.splitlines()
    assert (recipe, following.split()[:3]) == ("moving/recipe.toml", ["next:", "streamsal", "train"])
    assert len(list(Path("moving").rglob("*.mp4"))) == 408
    assert main(["train", "moving/order.toml", "--list"]) == 0


def test_train_prints_the_classifier_and_says_that_it_is_done(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "config.toml", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert out == "config.training/best.pt\n" and Path(out.strip()).exists()
    assert err == f"config.training: this training is done, the best epoch is {err.split()[-1]}\n"


def test_a_setting_can_be_changed_for_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "config.toml", "--set", "train.lr=0.5", "--device", "cpu"]) == 65
    assert "train.lr = 0.001, and now it is 0.5" in capsys.readouterr().err


def test_settings_are_values_of_toml_or_texts() -> None:
    tables = {"train": {"lr": 1, "loss": "bce"}}
    asked = ["train.lr=0.5", "train.loss=weighted", "test.clips='all'", "data.flip=0"]
    assert changed(tables, asked) == {
        "train": {"lr": 0.5, "loss": "weighted"},
        "test": {"clips": "all"},
        "data": {"flip": 0},
    }
    assert tables == {"train": {"lr": 1, "loss": "bce"}}
    for text in ("train.lr", "lr=3", "train.=3", "train.lr="):
        with pytest.raises(UsageError, match=r"TABLE\.KEY=VALUE"):
            changed(tables, [text])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("config.toml --index 1", "has no table [grid]"),
        ("config.toml --summary", "has no table [grid]"),
        ("config.toml --wait", "--wait and --json belong to --summary"),
        ("config.toml --set model.frames=12", "config.toml: [model] frames = 12"),
        ("config.toml --set train.speed=1", "has no setting 'speed'"),
        ("config.toml --set trian.lr=1", "did you mean train?"),
        ("grid.toml --index 4", "has cells 0 to 3, no cell 4"),
        ("grid.toml --set train.lr=1", "train.lr is an axis of [grid]"),
    ],
)
def test_what_makes_no_sense_leaves_with_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    Path("grid.toml").write_text(Path("config.toml").read_text() + GRID)
    assert main(["train", *arguments.split()]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_a_grid_is_listed_trained_by_number_and_summed_up(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("grid.toml").write_text(Path("config.toml").read_text() + GRID)
    assert main(["train", "grid.toml", "--list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][1:] == [
        ["0", "1", "0.001"],
        ["1", "1", "0.002"],
        ["2", "2", "0.001"],
        ["3", "2", "0.002"],
    ]
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert main(["train", "grid.toml", "-q", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "grid.training/0002/best.pt\n"
    assert json.loads(Path("grid.training/0002/config.json").read_text())["model"]["blocks"] == 2
    assert main(["train", "grid.toml", "--summary"]) == 3
    out, err = capsys.readouterr()
    assert [line.split()[3] for line in out.splitlines()[1:]] == ["missing", "missing", "done", "missing"]
    assert "1 of 4 cells done; cells not done: 0-1,3" in err


def test_a_cell_that_cannot_be_trained_leaves_the_others_to_be(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = '[grid]\n"data.train" = ["none.csv", "clips.csv"]'
    Path("half.toml").write_text(Path("config.toml").read_text().replace("epochs = 2", "epochs = 1") + cells)
    assert main(["train", "half.toml", "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert out == "half.training/0001/best.pt\n"
    first, second, third, *_ = err.splitlines()
    assert (first, third) == ("half.training/0000: training 1 of 2", "half.training/0001: training 2 of 2")
    assert second.startswith("streamsal: half.training/0000: ") and "none.csv cannot be read" in second


def test_a_training_is_judged_at_its_end_if_it_says_so_and_only_once(here: Path) -> None:
    command = ["train", "config.toml", "-o", "judged.training", "-q", "--device", "cpu", "--set", "train.epochs=1"]
    assert main(command) == 0
    assert not Path("judged.training/test").exists()
    command += ["--set", "data.test=clips.csv", "--set", "test.at_end=true"]
    for _ in range(2):
        assert main(command) == 0
        metrics = Path("judged.training/test/metrics.json")
        assert json.loads(metrics.read_text())["clips"] == 10
        metrics.write_text(metrics.read_text().replace("}", " }"))
    assert " }" in metrics.read_text()


def test_test_prints_scores_as_a_table_and_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["test", "config.training", "--manifest", "clips.csv", "--device", "cpu", "-q", "--no-plots"]
    assert main([*command, "--json", "-o", "judged", "--clips", "2", "--threshold", "0.4"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["clips"] == 10 and [row["class"] for row in facts["classes"]] == ["down", "right"]
    assert {row["threshold"] for row in facts["classes"]} == {0.4}
    assert main([*command, "-o", "judged"]) == 0
    table, last = capsys.readouterr().out.split("\n\n")
    assert table.splitlines()[0].split() == ["class", "clips", "threshold", "f1", "precision", "recall", "ap"]
    assert last.startswith("10 clips: f1_macro 0.") and Path("judged/predictions.h5").exists()


def test_clips_without_labels_have_no_scores_and_are_told_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new.csv").write_text("path,labels\n0.mkv,down\n1.mkv\n")
    command = ["test", "config.training", "--manifest", "new.csv", "--device", "cpu", "-o", "new"]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) is None
    assert "new.csv: 1 of 2 clips has no labels, so there will be predictions and no scores" in err


def test_what_is_not_said_is_as_in_training(here: Path) -> None:
    def settings(*options: str) -> Judging | None:
        return _settings(parser().parse_args(["test", "config.training", *options]))

    assert settings() is None
    assert settings("--pool", "mean", "--clips", "all") == Judging(clips="all", pool="mean", threshold=0.5, batch=2)
    assert settings("--threshold", "tuned", "--batch", "3") == Judging(threshold="tuned", batch=3)


def test_a_threshold_is_a_probability(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("1.5", "0", "often"):
        with pytest.raises(SystemExit):
            main(["test", "t", "--threshold", text])
        assert repr(text) in capsys.readouterr().err


def test_torchrun_trains_with_two_processes(here: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "streamsal", "train", "config.toml", "-o", "by_two", "--set", "train.epochs=1", "--device", "cpu"]
    done = subprocess.run([*torchrun, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "by_two/best.pt\n"
    assert sum("epoch 1 of 1: f1_macro" in line for line in done.stderr.splitlines()) == 1
