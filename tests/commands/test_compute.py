"""What goes to which stream, which tasks are computed, and what happens without weights."""

from __future__ import annotations

import json
import os
import pty
import re
from pathlib import Path

import pytest
import torch
from file_server import Site, serving
from program import call, start

from streamsal.cli import main


def test_results_on_stdout_everything_else_on_stderr(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "film.mp4", "--model", "center", "-o", "planned", "--tasks", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["task", "video", "frames", "results"]
    assert out.splitlines()[-1] == "planned" and err == "film.mp4: 40 frames, 25.000 fps, 96x64\n"
    assert main(["merge", "film.streamsal"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("film.streamsal/film.mp4.h5\n", "")
    assert main(["infer", "film.streamsal"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "task 0: already done\ntask 1: already done\n")
    assert main(["infer", "film.streamsal", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_progress_as_json_lines(here: Path) -> None:
    _, err = call("infer", "film.mp4", "--model", "uniform", "-o", "logged", "--log-json", cwd=here)
    found = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in found] == ["note", "start", "done"]
    assert found[-1]["binds"] in ("decode", "model", "write")


def test_tasks_in_turn_or_those_that_are_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tasks(*arguments: str) -> str:
        assert main(["infer", "film.streamsal", *arguments]) == 0
        return "".join(re.findall(r"task (\d+)", capsys.readouterr().err))

    assert tasks() == "01"
    assert tasks("--task-id", "1", "--task-base", "1") == "0"
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert tasks() == "1"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights on this machine, and no network to get them from."""
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("STREAMSAL_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of nothing in particular."""
    path = tmp_path_factory.mktemp("elsewhere") / "w.pth"
    torch.save({"weight": torch.zeros(10)}, path)
    return path


def test_missing_weights_leave_with_4_and_the_lines_to_type(
    here: Path, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("run", "plan", "infer"):
        assert main([command, "film.mp4", "-o", "none"]) == 4
        err = capsys.readouterr().err
        assert "\n  streamsal weights fetch deepgaze_iie\n" in err and "--model sigmotion" in err
    assert not Path("none").exists()


PATH = "/matthias-k/DeepGaze/releases/download/v1.01/deepgaze1.pth"


@pytest.mark.parametrize(("answer", "code"), [("y", 65), ("n", 4)])
def test_on_a_terminal_run_offers_to_fetch(
    here: Path, tmp_path: Path, checkpoint: Path, answer: str, code: int
) -> None:
    """What is fetched here is no checkpoint of that model, so the run that follows says so."""
    ours, theirs = pty.openpty()
    command = [
        "run",
        "film.mp4",
        "--model",
        "deepgaze_i",
        "--center-bias",
        "uniform",
        "--no-render",
        "-o",
        tmp_path / "r",
    ]
    with serving(Site(files={PATH: checkpoint.read_bytes()})) as site:
        env = {"STREAMSAL_HOME": str(tmp_path / "home"), "STREAMSAL_MIRROR": site.url, "TORCH_HOME": str(tmp_path)}
        process = start(*command, env=env, cwd=here, stdin=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        said = everything(ours)
        assert process.wait() == code, said
    assert "missing: deepgaze1.pth (244 MB), checkpoint of DeepGaze I, licence: none stated" in said
    assert "fetch now? [y/N]" in said
    assert site.served == ([(PATH, None)] if answer == "y" else [])
    assert ("is no checkpoint of deepgaze_i: " if answer == "y" else "streamsal weights fetch deepgaze_i\r\n") in said


def everything(terminal: int) -> str:
    """What a terminal shows until nobody writes to it any more."""
    shown = b""
    try:
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    except OSError:  # Linux: the other side is closed
        pass
    os.close(terminal)
    return shown.decode()
