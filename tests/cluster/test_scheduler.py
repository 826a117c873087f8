"""Tasks from the environment of Slurm arrays and indexed jobs: taken where they are certain, asked for where not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from films import write_film
from program import TELLTALE, end, start

from streamsal.cluster.scheduler import job_facts, number_of_tasks, task_numbers
from streamsal.errors import UsageError
from streamsal.heartbeat import read_heartbeat

SLURM, INDEXED_JOB = {"SLURM_ARRAY_TASK_ID": "0"}, {"JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("environment", "task_id", "base", "tasks"),
    [
        ({}, None, 0, [0, 1, 2]),
        ({}, "any", 0, [0, 1, 2]),
        ({}, "1", 0, [1]),
        ({}, "1", 1, [0]),
        (INDEXED_JOB, None, 0, [1]),
        (SLURM | INDEXED_JOB, None, 0, [0]),
        (SLURM, "2", 0, [2]),
        (SLURM, "any", 0, [0, 1, 2]),
        ({"SLURM_ARRAY_TASK_ID": ""}, None, 0, [0, 1, 2]),
        ({}, "7", 0, [7]),  # beyond the plan: nothing to do, which is for the task to say
    ],
)
def test_a_named_task_goes_before_the_scheduler_s_and_that_before_all(
    environment: dict[str, str], task_id: str | None, base: int, tasks: list[int]
) -> None:
    assert list(task_numbers(environment, task_id, base, 3)) == tasks


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


def test_what_the_scheduler_left_out_is_not_quoted() -> None:
    for count, known in (("2", "the array has 2 tasks of unknown numbers"), ("", "the scheduler does not say")):
        with pytest.raises(UsageError, match=known):
            number_of_tasks({**SLURM, "SLURM_ARRAY_TASK_COUNT": count}, None, 0)


def test_an_array_plans_by_itself(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 50)
    command = ("infer", film, "--model", TELLTALE, "-o", tmp_path / "r", "--batch-size", "4")
    job = {**array(0, 1, 2), "SLURM_JOB_ID": "35", "SLURM_ARRAY_JOB_ID": "34", "SLURM_RESTART_COUNT": "2"}
    tasks = [start(*command, env={**job, "SLURM_ARRAY_TASK_ID": str(task)}) for task in range(2)]
    for task in tasks:
        end(task, 0)
    beat = read_heartbeat(tmp_path / "r", 1)
    assert beat and (beat["job"], beat["requeues"]) == ("34_1", 2)
    started = (tmp_path / "r" / "logs" / "0001.jsonl").read_text().splitlines()[0]
    assert '"event": "start"' in started and '"job": "34_1", "requeues": 2' in started
    assert sorted(os.listdir(tmp_path / "r" / "shards")) == ["0000.h5", "0001.h5"]


def test_what_the_scheduler_calls_a_job() -> None:
    assert job_facts({}) == {}
    assert job_facts({"SLURM_JOB_ID": "35"}) == {"job": "35", "requeues": 0, "node": ""}
    array = {"SLURM_ARRAY_JOB_ID": "34", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "35", "SLURM_RESTART_COUNT": "3"}
    assert job_facts({**array, "SLURMD_NODENAME": "n2"}) == {"job": "34_1", "requeues": 3, "node": "n2"}
