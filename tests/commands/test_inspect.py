"""What is said of videos and models can be read by programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamsal.cli import main


@pytest.mark.parametrize("arguments", ["probe film.mp4 --json", "models --json", "models center --json"])
def test_json_on_stdout_is_json(here: Path, capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    assert main(arguments.split()) == 0
    assert json.loads(capsys.readouterr().out)
