"""What commands do with their arguments: which run, which tasks, and what goes to which stream."""

from __future__ import annotations

import json
import os
import pty
import re
from pathlib import Path

import pytest
import torch
from file_server import Site, serving
from program import TELLTALE, run, start

from streamsal.cli import main
from streamsal.commands import film_path
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


@pytest.mark.parametrize(
    "arguments", ["probe film.mp4 --json", "models --json", "models center --json", "status film.streamsal --json"]
)
def test_json_on_stdout_is_json(here: Path, capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    assert main(arguments.split()) == 0
    assert json.loads(capsys.readouterr().out)


def test_progress_as_json_lines(here: Path) -> None:
    _, err = run("infer", "film.mp4", "--model", "uniform", "-o", "logged", "--log-json", cwd=here)
    found = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in found] == ["note", "start", "done"]
    assert found[-1]["binds"] in ("decode", "model", "write")


def test_options_of_the_model(here: Path) -> None:
    options = ["--option", "past=3", "--option", "future=0"]
    assert main(["plan", "film.mp4", "-o", "optional", "--model", TELLTALE, *options]) == 0
    assert Plan.load("optional/plan.json").model.options == {"past": 3, "future": 0}
    assert main(["plan", "film.mp4", "-o", "optional", "--model", TELLTALE, "--option", "pasta=3"]) == 2


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


def test_films_of_videos_that_differ_in_their_suffix_keep_apart() -> None:
    names = ["talk.mp4", "talk.mkv", "walk.webm", "a__talk.mov"]
    films = [film_path(Path("r"), name, names, "side").name for name in names]
    assert films == ["talk.mp4.side.mp4", "talk.mkv.side.mkv", "walk.side.mkv", "a__talk.side.mp4"]


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


def test_stand_in_weights_are_loud(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["film.mp4", "--model", "deepgaze_i", "--weights", "synthetic", "--end", "4", "--quiet", "-o", "stand_in"]
    for command in ("plan", "infer", "run"):
        assert main([command, *asked, *(["--no-render"] if command == "run" else [])]) == 0
        assert "deepgaze_i has STAND-IN WEIGHTS: its results mean nothing" in capsys.readouterr().err
    assert main(["infer", "stand_in", "--commercial-only"]) == 0
    assert "STAND-IN" in capsys.readouterr().err


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


def test_render_makes_films_and_pages_where_they_belong(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gaze.csv").write_text("who,when,x,y\na,100,8,8\n")
    gaze = ["--gaze", str(tmp_path / "gaze.csv"), "--columns", "subject=who,t=when,x=x,y=y,time_unit=ms"]
    assert main(["render", "film.streamsal", "--style", "contact", *gaze, "-q"]) == 0
    assert Path(capsys.readouterr().out.strip()) == Path("film.streamsal/film.contact.png")
    assert Path("film.streamsal/film.contact.png").read_bytes().startswith(b"\x89PNG")
    shown = ["--compare", "film.streamsal", "--frame-number", "--timestamp", "--legend", "--end", "3"]
    assert main(["render", "film.streamsal", "-o", str(tmp_path / "both.mp4"), *shown, "-q"]) == 0
    assert (tmp_path / "both.mp4").exists()
    assert main(["render", "film.streamsal", "--style", "contact", *shown[:2]]) == 2
    assert "leave --compare out" in capsys.readouterr().err


def test_export_has_a_place_for_each_kind(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, path in {
        "pysaliency": "export/predictions.hdf5",
        "bids": "bids/stimuli/stim-film_desc-center_saliency.tsv",
    }.items():
        assert main(["export", "film.streamsal", "--format", kind, "--end", "2"]) == 0
        assert Path(capsys.readouterr().out.strip()) == Path("film.streamsal", path)
        assert Path("film.streamsal", path).exists()
