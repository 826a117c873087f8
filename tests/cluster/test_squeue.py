"""What Slurm says of a run's tasks, by a stand-in for squeue: which jobs are asked for, what becomes of silence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from synthetic_run import make_plan

from streamsal.cluster.squeue import NoSlurm, queue_states, tasks_of
from streamsal.heartbeat import Log
from streamsal.status import run_status

SQUEUE = """#!/bin/sh
echo "$@" >> {folder}/asked
{answer}
"""


def squeue_says(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    program = folder / "squeue"
    program.write_text(SQUEUE.format(folder=folder, answer=answer))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six tasks: done, running as 34_1, the others not yet; 34 holds tasks 0-3 and 35, with an offset, 4-5."""
    run = tmp_path / "r"
    run.mkdir()
    make_plan({"a.mp4": 60}, {"a.mp4": [10, 20, 30, 40, 50]}).save(run / "plan.json")
    for task in (0, 1):
        log = Log(run=run, task=task)
        log.start(rows=10, done=0, holes=0, device="cpu", job=f"34_{task}", requeues=0)
        if task == 0:
            log.end("done", done=10)
    (run / "submit").mkdir()
    sent = {"time": 1.0, "array": "0-5", "infer": ["34", "35"], "offsets": [0, 4], "merge": "36"}
    (run / "submit" / "jobs.jsonl").write_text(json.dumps(sent) + "\n")
    return run


ANSWER = """case "$*" in
*" 34 "*) echo "34_0|COMPLETED|None"; echo "34_1|RUNNING|None"; echo "34_2|PENDING|Resources";;
*" 35 "*) echo "35_0|PENDING|Priority"; echo "a line of something else";;
esac"""


def states(run: Path) -> dict[int, str]:
    return queue_states(run, run_status(run).tasks)


def test_one_question_per_array(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue_says(tmp_path, monkeypatch, ANSWER)
    assert states(run) == {1: "RUNNING", 2: "PENDING (Resources)", 4: "PENDING (Priority)"}
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"-h -r -t all -j {job} -o %i|%T|%r" for job in (34, 35)]


def test_the_newest_job_of_a_task_counts(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue_says(
        tmp_path, monkeypatch, 'echo "34_1|TIMEOUT|TimeLimit"; echo "40_1|PENDING|None"; echo "50|RUNNING|None"'
    )
    with open(run / "submit" / "jobs.jsonl", "a") as file:
        file.write(json.dumps({"array": "1-2", "infer": ["40"]}) + '\nnull\n{"array": "2", "inf')
    assert states(run) == {1: "PENDING"}
    Log(run=run, task=1).start(rows=10, done=4, holes=0, device="cpu", job="50", requeues=0)
    assert states(run) == {1: "RUNNING"}


def test_a_job_that_slurm_has_forgotten_has_no_state(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue_says(tmp_path, monkeypatch, 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert states(run) == {}


def test_a_slurm_that_does_not_answer_or_is_not_here(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue_says(tmp_path, monkeypatch, 'echo "Unable to contact slurm controller" >&2; exit 1')
    with pytest.raises(NoSlurm, match="Unable to contact slurm controller"):
        states(run)
    monkeypatch.setenv("PATH", str(run))
    with pytest.raises(NoSlurm, match="no squeue on this machine"):
        states(run)


def test_nothing_is_asked_of_a_run_that_never_met_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plan({"a.mp4": 10}, {"a.mp4": []}).save(tmp_path / "plan.json")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert states(tmp_path) == {}


def test_array_specs() -> None:
    assert list(tasks_of("0-2,7")) == [0, 1, 2, 7]
    assert list(tasks_of("5%2")) == [5]
    assert list(tasks_of("")) == []
