"""Which run and which videos are meant, and what of a model is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import TELLTALE

from streamsal.cli import main
from streamsal.plan import Plan


def test_where_the_run_comes_from(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "film.streamsal"]) == 0
    assert main(["status"]) == 0  # the only one here
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["status"]) == 2
    assert "which run? there is none here" in capsys.readouterr().err
    monkeypatch.setenv("STREAMSAL_RUN", str(here / "film.streamsal"))
    assert main(["status"]) == 0
    assert main(["status", "other.streamsal"]) == 66  # an argument goes before the environment
    monkeypatch.delenv("STREAMSAL_RUN")
    for name in ("a.streamsal", "b.streamsal"):
        Path(name).mkdir()
    capsys.readouterr()
    assert main(["status"]) == 2
    assert "which run? there are 2 here" in capsys.readouterr().err


def test_a_new_run_is_named_after_the_video(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film = str(here / "film.mp4")
    assert main(["plan", film, "--model", "uniform"]) == 0
    assert Path("film.streamsal/plan.json").exists()
    monkeypatch.setenv("STREAMSAL_RUN", "named")
    assert main(["plan", film, "--model", "uniform"]) == 0
    assert Path("named/plan.json").exists()
    assert main(["plan", film, "--model", "uniform", "-o", "given"]) == 0
    assert Path("given/plan.json").exists()


def test_several_videos_need_a_name(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.mp4"
    other.write_bytes((here / "film.mp4").read_bytes())
    assert main(["plan", str(here / "film.mp4"), "other.mp4", "--model", "uniform"]) == 2
    assert "-o RUN" in capsys.readouterr().err


def test_options_of_the_model(here: Path) -> None:
    options = ["--option", "past=3", "--option", "future=0"]
    assert main(["plan", "film.mp4", "-o", "optional", "--model", TELLTALE, *options]) == 0
    assert Plan.load("optional/plan.json").model.options == {"past": 3, "future": 0}
    assert main(["plan", "film.mp4", "-o", "optional", "--model", TELLTALE, "--option", "pasta=3"]) == 2


def test_stand_in_weights_are_loud(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["film.mp4", "--model", "deepgaze_i", "--weights", "synthetic", "--end", "4", "--quiet", "-o", "stand_in"]
    for command in ("plan", "infer", "run"):
        assert main([command, *asked, *(["--no-render"] if command == "run" else [])]) == 0
        assert "deepgaze_i has STAND-IN WEIGHTS: its results mean nothing" in capsys.readouterr().err
    assert main(["infer", "stand_in", "--commercial-only"]) == 0
    assert "STAND-IN" in capsys.readouterr().err
