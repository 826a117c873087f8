"""All tasks on this machine: in turn, or in processes that take the next free one."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from films import write_film
from program import TELLTALE, call, end, start, wait_until
from telltale import expected

from streamsal.errors import Stopped, StreamsalError
from streamsal.heartbeat import read_heartbeat
from streamsal.local import infer_all
from streamsal.merge import open_run
from streamsal.plan import Plan
from streamsal.prepare import Request, make_plan
from streamsal.progress import Progress

N_FRAMES = 60
QUIET = Progress(quiet=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    film = write_film(tmp_path / "film.mp4", N_FRAMES)
    make_plan([film], tmp_path / "r", Request(model=TELLTALE, tasks=4, batch_size=4))
    return tmp_path / "r"


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
def test_every_task_is_computed_once(run: Path, devices: list[str]) -> None:
    infer_all(run, devices, decode_workers=1, progress=QUIET)
    maps = open_run(run)["film.mp4"]
    assert {k: maps.output("seen", k).tolist() for k in range(N_FRAMES)} == {
        k: expected(k, N_FRAMES) for k in range(N_FRAMES)
    }
    plan = Plan.load(run / "plan.json")
    for task in range(4):
        beat = read_heartbeat(run, task)
        assert (beat and beat["restarts"]) == (0 if plan.rows(task) else None)


def test_the_model_is_loaded_once_for_all_tasks(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", N_FRAMES)
    model, log = tmp_path / "mine.py", tmp_path / "log"
    model.write_text(
        "from telltale import build as build_telltale, spec\n"
        "def build(weights=None, *, device):\n"
        f"    open({str(log)!r}, 'a').write('built ')\n"
        "    return build_telltale(device=device)\n"
    )
    make_plan([film], tmp_path / "r", Request(model=str(model), tasks=4, batch_size=4))
    infer_all(tmp_path / "r", ["cpu"], decode_workers=1, progress=QUIET)
    assert log.read_text() == "built "
    infer_all(tmp_path / "r", ["cpu"], decode_workers=1, progress=QUIET)
    assert log.read_text() == "built "  # there is nothing left to compute


def test_a_process_that_fails_fails_the_run_with_its_exit_code(run: Path) -> None:
    (run.parent / "film.mp4").unlink()
    with pytest.raises(StreamsalError, match="streamsal status") as caught:
        infer_all(run, ["cpu", "cpu"], decode_workers=1, progress=QUIET)
    assert caught.value.exit_code == 66


def test_processes_are_stopped_with_their_parent(run: Path) -> None:
    with pytest.raises(Stopped, match="SIGTERM"):
        infer_all(run, ["cpu", "cpu"], decode_workers=1, progress=QUIET, stop=lambda: "SIGTERM")
    shutil.rmtree(run)  # nobody writes here any more
    assert not run.exists()


@pytest.mark.parametrize("no_flock", ["", "5"])
def test_who_joins_takes_what_is_free_at_once_and_leaves_the_rest_to_others(run: Path, no_flock: str) -> None:
    """Whether a task is held or its holder killed: nobody waits and nothing is computed twice."""
    join = ("infer", run, "--task-id", "any")
    environment = {"STREAMSAL_TEST_NO_FLOCK": no_flock}
    first = start(*join, env={**environment, "STREAMSAL_TEST_DELAY_MS": "200"})
    wait_until(lambda: read_heartbeat(run, 0) is not None, first)
    first.send_signal(signal.SIGSTOP)  # so that its task is held throughout
    _, err = call(*join, env=environment)
    assert f"task 0 of {run}: others work on that; nothing else is left to do" in err
    assert [bool((read_heartbeat(run, task) or {}).get("state") == "done") for task in range(4)] == [False] + 3 * [True]
    first.kill()
    end(first, -signal.SIGKILL)
    _, err = call(*join, env=environment)
    assert not err
    beats = [read_heartbeat(run, task) for task in range(4)]
    assert [beat and (beat["state"], beat["restarts"]) for beat in beats] == [("done", 1)] + 3 * [("done", 0)]
    maps = open_run(run)["film.mp4"]
    assert all(maps.output("seen", k).tolist() == expected(k, N_FRAMES) for k in range(N_FRAMES))
