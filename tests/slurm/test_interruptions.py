"""What a cluster does to jobs while they compute, and that nothing of it changes what is computed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from cluster import Cluster, Tasks
from films import write_film
from program import TELLTALE, call
from undisturbed import assert_as_undisturbed
from victim import VICTIM, assert_resumed, until_blocks_are_safe, when_a_block_is_safe

SCRIPTS = Path(__file__).parents[2] / "scripts" / "sbatch"
INFER, MULTI_GPU = SCRIPTS / "infer.sbatch", SCRIPTS / "multi_gpu.sbatch"
MODEL = ("--model", TELLTALE, "--batch-size", "4")
ROWS = 30  # of a task


def submit(cluster: Cluster, folder: Path, *options: str, delay_ms: int, requeues: int = 5) -> str:
    exported = {"STREAMSAL_TEST_DELAY_MS": str(delay_ms), "STREAMSAL_REQUEUES": str(requeues)}
    return cluster.sbatch(*options, "-c1", INFER, "film.streamsal", cwd=folder, env=exported)


def warn(cluster: Cluster, job: str) -> None:
    """As Slurm does it before a time limit."""
    cluster.call("scancel", "--batch", "--signal=USR1", job)


def restarts(tasks: Tasks) -> dict[int, int]:
    """How often each task was started again; all of them must have completed."""
    assert {task.state for task in tasks.values()} == {"COMPLETED"}, tasks
    return {number: task.restarts for number, task in tasks.items()}


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4, six tasks long, its good.streamsal, and film.streamsal, where nothing is computed yet."""
    folder = tmp_path_factory.mktemp("longer")
    write_film(folder / "film.mp4", 6 * ROWS)
    call("infer", "film.mp4", *MODEL, "-o", "good.streamsal", cwd=folder)
    call("merge", "good.streamsal", cwd=folder)
    call("plan", "film.mp4", *MODEL, "--tasks", "6", cwd=folder)
    return folder


def test_whatever_ends_a_task_it_goes_on_where_it_was_and_the_others_are_left_alone(
    cluster: Cluster, longer: Path
) -> None:
    """The one that is warned is the last of its array: Slurm gives it the array's own number."""
    alone, requeued, cancelled, killed, not_allowed, warned = range(6)
    job = submit(cluster, longer, f"--array={alone}-{killed},{warned}", delay_ms=400, requeues=1)
    other = submit(cluster, longer, f"--array={not_allowed}", "--no-requeue", delay_ms=400)
    heartbeat = longer / "film.streamsal" / "logs" / f"{killed:04d}.json"
    when_a_block_is_safe(
        longer,
        {
            requeued: lambda: cluster.call("scontrol", "requeue", f"{job}_{requeued}"),
            cancelled: lambda: cluster.call("scancel", f"{job}_{cancelled}"),
            killed: lambda: os.kill(json.loads(heartbeat.read_text())["pid"], signal.SIGKILL),
            not_allowed: lambda: warn(cluster, f"{other}_{not_allowed}"),
            warned: lambda: warn(cluster, f"{job}_{warned}"),
        },
    )
    tasks = cluster.wait(job, lambda tasks: tasks[killed].ended)
    assert (tasks[killed].state, tasks[killed].code) == ("FAILED", 128 + signal.SIGKILL)
    cluster.call("scontrol", "requeue", f"{job}_{killed}")
    cluster.wait(job, lambda tasks: tasks[warned].restarts == 1 and tasks[warned].state == "RUNNING")
    until_blocks_are_safe(longer, warned, blocks=1)
    warn(cluster, f"{job}_{warned}")
    tasks = cluster.finish(job)
    assert {number: (task.state, task.restarts) for number, task in tasks.items()} == {
        alone: ("COMPLETED", 0),
        requeued: ("COMPLETED", 1),
        cancelled: ("CANCELLED", 0),
        killed: ("COMPLETED", 1),
        warned: ("FAILED", 1),  # as often as it was allowed to come back
    }
    stopped = cluster.finish(other)[not_allowed]
    assert (stopped.state, stopped.restarts, stopped.code, tasks[warned].code) == ("FAILED", 0, 75, 75)
    again = cluster.sbatch(f"--array={cancelled}", "-c1", INFER, "film.streamsal", cwd=longer)
    assert restarts(cluster.finish(again)) == {cancelled: 0}
    call("infer", longer / "film.streamsal")
    for task in (requeued, cancelled, killed, not_allowed):
        assert_resumed(longer, task, rows=ROWS)
    assert_resumed(longer, warned, times=2, rows=ROWS)
    assert_as_undisturbed(longer, longer, 6)


def test_preempted_tasks_come_back(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    """The script asks for a warning, and some sites send it when they preempt; elsewhere the first sign is SIGTERM."""
    here, terminated = "--nodelist=n1", "--signal=USR1@120"
    jobs = {
        VICTIM - 1: submit(cluster, half_done, f"--array={VICTIM - 1}", here, delay_ms=400),
        VICTIM: submit(cluster, half_done, f"--array={VICTIM}", here, terminated, delay_ms=400),
    }
    when_a_block_is_safe(half_done, dict.fromkeys(jobs, lambda: None))
    urgent = ("--partition=urgent", "--exclusive", here, "--output=urgent.log")
    other = cluster.sbatch(*urgent, "--wrap=sleep 1", cwd=half_done)
    for task, job in jobs.items():
        assert restarts(cluster.finish(job)) == {task: 1}
        assert_resumed(half_done, task)
    assert restarts(cluster.finish(other)) == {0: 0}
    assert_as_undisturbed(half_done, undisturbed)


def test_a_lost_node_costs_what_it_had_not_committed(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    job = submit(cluster, half_done, f"--array={VICTIM}", delay_ms=100)
    until_blocks_are_safe(half_done)
    node = cluster.tasks(job)[VICTIM].node
    cluster.crash(node)
    try:
        tasks = cluster.finish(job)
    finally:
        cluster.heal(node)
    assert restarts(tasks) == {VICTIM: 1} and tasks[VICTIM].node != node
    call("infer", half_done / "film.streamsal")
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


def test_a_job_that_is_no_array_requeues_itself_too(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    here = ("film.mp4", "-o", "film.streamsal", *MODEL, "--device", "cpu")
    slow = {"STREAMSAL_TEST_DELAY_MS": "100"}
    job = cluster.sbatch("--gres=none", "-c1", MULTI_GPU, *here, "--no-render", cwd=half_done, env=slow)
    until_blocks_are_safe(half_done)
    warn(cluster, job)
    assert restarts(cluster.finish(job)) == {0: 1}
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


def test_a_video_that_was_replaced_fails_every_task(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    film = half_done / "film.mp4"
    film.write_bytes(bytes(film.stat().st_size))
    job = submit(cluster, half_done, "--array=2-3", delay_ms=0)
    assert [task.code for task in cluster.finish(job).values()] == [65, 65]
    film.write_bytes((undisturbed / "film.mp4").read_bytes())
    call("infer", half_done / "film.streamsal")
    assert_as_undisturbed(half_done, undisturbed)


@pytest.mark.slow
def test_a_task_longer_than_its_time_limit_is_computed_limit_by_limit(
    cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    limit = ("--time=1", "--signal=B:USR1@20")  # 150 s of work a minute at a time, the warning up to a minute early
    job = submit(cluster, half_done, "--array=2-3", *limit, delay_ms=5000, requeues=20)
    tasks = cluster.wait(job, lambda tasks: all(task.ended for task in tasks.values()), patience_seconds=900)
    assert min(restarts(tasks).values()) >= 2
    assert_as_undisturbed(half_done, undisturbed)
