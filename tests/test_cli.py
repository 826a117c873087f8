"""The command line: options, examples, exit codes, and what is imported for it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from streamsal import commands
from streamsal.cli import main, parser


def commands_by_name() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


@pytest.mark.parametrize("name", list(commands_by_name()))
def test_help_ends_with_an_example_that_can_be_parsed(name: str) -> None:
    text = commands_by_name()[name].format_help()
    assert text.strip().splitlines()[-2] == "example:"
    example = text.strip().splitlines()[-1].strip()
    assert example.startswith(f"streamsal {name}")
    assert parser().parse_args(example.split()[1:]).command == name


def test_an_option_means_the_same_everywhere() -> None:
    helps: dict[str, set[str | None]] = {}
    for command in commands_by_name().values():
        for action in command._actions:
            for option in action.option_strings:
                if option not in (
                    "-o",
                    "--output",
                    "--tasks",
                    "--json",
                    "--verify",
                    "--backend",
                    "--preset",
                    "--frames",
                    "--resume",
                    "--pool",
                    "--wait",
                    "--batch",
                ):  # what it is about is in the help
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


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_closed_early_is_no_error(here: Path, unbuffered: str) -> None:
    command = f"PYTHONUNBUFFERED={unbuffered} {sys.executable} -m streamsal models | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=here)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("gone", ["2>&-", "<&- 2>&-", "2>/dev/full", "2> >(true)"])
def test_a_command_ends_as_ever_where_nobody_hears_what_it_says(here: Path, gone: str, unbuffered: str) -> None:
    program = f"PYTHONUNBUFFERED={unbuffered} {sys.executable} -m streamsal"
    command = f"{program} models center {gone}; echo $?; {program} models nonsense {gone}; echo $?"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=here)
    assert done.stdout.splitlines()[0].split() == ["name", "center"]
    assert done.stdout.splitlines()[-2:] == ["0", "2"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_an_error_of_writing(here: Path, unbuffered: str) -> None:
    command = f"PYTHONUNBUFFERED={unbuffered} {sys.executable} -m streamsal models"
    done = subprocess.run(["bash", "-c", f"{command} >/dev/full"], capture_output=True, text=True, cwd=here)
    assert done.returncode == 74
    assert done.stderr == "streamsal: cannot write to standard output: the disk is full\n"
    closed = subprocess.run(["bash", "-c", f"{command} >&-"], capture_output=True, text=True, cwd=here)
    assert (closed.returncode, closed.stderr) == (0, "")


HEAVY = ("torch", "av", "h5py", "rich", "numpy")
LIST_OF_CELLS = """
open("grid.toml", "w").write("[data]\\ntrain = 'clips.csv'\\n[grid]\\nmodel.blocks = [1, 2]")
from streamsal.cli import main; main(["train", "grid.toml", "--list"])"""


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
        (LIST_OF_CELLS, HEAVY[:-1]),
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
