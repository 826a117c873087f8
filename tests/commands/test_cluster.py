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
