"""The command line: options, examples, exit codes, what goes to which stream, and what is imported for it."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from films import write_film
from program import TELLTALE, run

from streamsal import commands
from streamsal.cli import main, parser
from streamsal.errors import UsageError
from streamsal.plan import Plan
from streamsal.scheduler import number_of_tasks


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4 and film.streamsal, all of it computed."""
    folder = tmp_path_factory.mktemp("cli")
    write_film(folder / "film.mp4", 40)
    run("infer", "film.mp4", "--model", "center", "--num-tasks", "2", cwd=folder)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("STREAMSAL_RUN", raising=False)
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.mark.parametrize("name", list(command_parsers()))
def test_help_ends_with_an_example_that_can_be_parsed(name: str) -> None:
    text = command_parsers()[name].format_help()
    assert text.strip().splitlines()[-2] == "example:"
    example = text.strip().splitlines()[-1].strip()
    assert example.startswith(f"streamsal {name}")
    assert parser().parse_args(example.split()[1:]).command == name


def test_an_option_means_the_same_everywhere() -> None:
    helps: dict[str, set[str | None]] = {}
    for command in command_parsers().values():
        for action in command._actions:
            for option in action.option_strings:
                if option not in ("-o", "--output", "--tasks", "--json", "--verify"):  # what it is about is in the help
                    helps.setdefault(option, set()).add(action.help)
    assert {option: texts for option, texts in helps.items() if len(texts) > 1} == {}


@pytest.mark.parametrize(
    "arguments",
    ["", "inferr", "infer --every 0", "infer --num-tasks x", "infer --task-base 2", "status --nonsense", "plan"],
)
def test_usage_errors_leave_with_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments.split())
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: streamsal")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("infer --task-id x", "'x' is neither a number nor `any`"),
        ("infer --task-id 0 --task-base 1", "below the first task, 1"),
        ("infer film.mp4 --option sharp -o r", "NAME=VALUE"),
        ("infer film.mp4 --model unifrom -o r", "did you mean uniform"),
        ("infer --long-side 10 --px-per-degree 3 film.mp4 -o r", "one of them"),
        ("plan film.mp4 film.streamsal/../film.mp4 -o r --model uniform", "named twice"),
    ],
)
def test_wrong_values_leave_with_2_and_one_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert main(arguments.split()) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("streamsal: ") and err.count("\n") == 1


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


def test_tasks_in_turn_by_number_and_from_the_scheduler(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tasks(*arguments: str) -> str:
        assert main(["infer", "film.streamsal", *arguments]) == 0
        return "".join(re.findall(r"task (\d+)", capsys.readouterr().err))

    assert tasks() == "01"
    assert tasks("--task-id", "any") == "01"
    assert tasks("--task-id", "1") == "1"
    assert tasks("--task-id", "1", "--task-base", "1") == "0"
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert tasks() == "1"
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    assert tasks() == "0"
    assert tasks("--task-id", "1") == "1"


def array(first: int, last: int, count: int) -> dict[str, str]:
    return {
        "SLURM_ARRAY_TASK_ID": str(first),
        "SLURM_ARRAY_TASK_COUNT": str(count),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_MAX": str(last),
    }


def test_the_number_of_tasks_from_the_scheduler_where_it_is_certain() -> None:
    assert number_of_tasks({}, None, 0) == 1
    assert number_of_tasks({}, "any", 0) == 1
    assert number_of_tasks(array(0, 7, 8), None, 0) == 8
    assert number_of_tasks(array(1, 8, 8), None, 1) == 8
    for environment, task_id, base in (
        (array(1, 8, 8), None, 0),
        (array(0, 7, 8), None, 1),
        (array(0, 9, 4), None, 0),
        (array(3, 7, 2), "3", 0),
        ({"JOB_COMPLETION_INDEX": "0"}, None, 0),
        ({"SLURM_ARRAY_TASK_ID": "0"}, None, 0),
        ({}, "3", 0),
    ):
        with pytest.raises(UsageError, match=r"--num-tasks N.*--task-base 1"):
            number_of_tasks(environment, task_id, base)


def test_options_of_the_model(here: Path) -> None:
    options = ["--option", "past=3", "--option", "future=0"]
    assert main(["plan", "film.mp4", "-o", "optional", "--model", TELLTALE, *options]) == 0
    assert Plan.load("optional/plan.json").model.options == {"past": 3, "future": 0}
    assert main(["plan", "film.mp4", "-o", "optional", "--model", TELLTALE, "--option", "pasta=3"]) == 2


def test_a_pipe_closed_early_is_no_error(here: Path) -> None:
    command = f"{sys.executable} -m streamsal models | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=here)
    assert (done.returncode, done.stderr) == (0, "")


HEAVY = ("torch", "av", "h5py", "rich", "numpy")


@pytest.mark.parametrize(
    ("statement", "light"),
    [
        ("import streamsal", HEAVY),
        ("import streamsal.cli", HEAVY),
        ("from streamsal.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass", HEAVY),
        ("from streamsal.cli import main; main(['models'])", HEAVY[:-1]),
        ("from streamsal.cli import main; main(['status', 'film.streamsal'])", HEAVY),
        ("from streamsal.cli import main; main(['probe', 'film.mp4'])", ("torch", "h5py", "rich")),
        ("from streamsal.cli import main; main(['infer', 'film.streamsal'])", ("torch", "rich")),
    ],
)
def test_nothing_is_imported_before_it_is_needed(here: Path, statement: str, light: tuple[str, ...]) -> None:
    code = f"import sys\n{statement}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    assert not set(light) & set(done.stderr.split())


def test_a_bug_of_ours_shows_a_traceback_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "models", lambda arguments: 1 / 0)
    assert main(["models"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("streamsal: ZeroDivisionError: division by zero (a bug of ours")


WRONG_MODEL = """
from streamsal.models.center import Constant, spec

class Wrong(Constant):
    def step(self, batch, state):
        return super().step(batch, state) if batch.frame[0] < 32 else 1 / 0

def build(weights=None, *, device, late=True):  # `spec`, which is the center model's, knows no option `late`
    return Wrong(spec(), prior_weight=0.0, device=device)
"""


def test_a_bug_of_a_user_s_model_file_is_said_to_be_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.py").write_text(WRONG_MODEL)
    assert main(["infer", "film.mp4", "--model", "wrong.py", "--batch-size", "8", "-o", "wrong"]) == 70
    err = capsys.readouterr().err
    said = (
        f"streamsal: model file {here / 'wrong.py'} failed at frame 32 of film.mp4: ZeroDivisionError: division by zero"
    )
    assert "Traceback" in err and "in step" in err and err.splitlines()[-1] == said
    assert main(["infer", "film.mp4", "--model", "wrong.py", "--option", "late=false", "-o", "early"]) == 70
    assert "wrong.py failed in spec(): TypeError: spec() got an unexpected" in capsys.readouterr().err.splitlines()[-1]


def test_verbose_adds_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "no.mp4"]) == 66
    assert "Traceback" not in capsys.readouterr().err
    assert main(["infer", "no.mp4", "-v"]) == 66
    assert "Traceback" in capsys.readouterr().err
