"""What `status` says of a run to people, to programs and to schedulers. `submit`: tests/cluster/, tests/slurm/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamsal.cli import main


def test_status_of_a_whole_run_is_json_for_programs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "film.streamsal", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == found["rows"] == 40


def test_status_of_half_a_run_leaves_with_3_and_the_array_to_send(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "r")
    assert main(["plan", "film.mp4", "--model", "uniform", "-o", run, "--tasks", "4"]) == 0
    assert main(["infer", run, "--task-id", "1"]) == 0
    assert main(["status", run]) == 3
    assert "tasks not done: 0,2-3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "sigmotion", "--style", "labels"), "--style labels cannot show what sigmotion gives"),
        (
            ("--model", "lowres_classifier", "--weights", "synthetic", "--style", "heatmap"),
            "--style heatmap cannot show what lowres_classifier gives",
        ),
    ],
    ids=["maps", "labels"],
)
def test_a_film_that_cannot_be_drawn_is_refused_before_anything_is_computed_for_it(
    here: Path, tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, *options in (["submit", "--tasks", "2", "--render", "--dry-run"], ["run"]):
        assert main([command, "film.mp4", *words, "-o", str(tmp_path / "r"), *options]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "r" / "shards").exists()


def test_configurations_are_submitted_one_by_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for other in ("film.mp4", "b.toml"):
        assert main(["submit", "a.toml", other, "--dry-run"]) == 2
        assert "a configuration is submitted alone" in capsys.readouterr().err
