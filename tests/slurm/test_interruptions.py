"""What a cluster does to jobs while they compute, and that nothing of it changes what is computed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from cluster import Cluster, Tasks
from films import overwrite
from program import TELLTALE
from undisturbed import assert_as_undisturbed
from victim import VICTIM, assert_resumed, until_blocks_are_safe

SCRIPTS = Path(__file__).parents[2] / "scripts" / "sbatch"
INFER, MULTI_GPU = SCRIPTS / "infer.sbatch", SCRIPTS / "multi_gpu.sbatch"


def submit(cluster: Cluster, folder: Path, *options: str, requeues: int = 5, delay_ms: int = 100) -> str:
    """The tasks that are not computed yet, 30 frames each, slowly; returns when some blocks of the victim are safe."""
    exported = {"STREAMSAL_TEST_DELAY_MS": str(delay_ms), "STREAMSAL_REQUEUES": str(requeues)}
    job = cluster.sbatch(*options, "--array=2-3", "-c1", INFER, "film.streamsal", cwd=folder, env=exported)
    until_blocks_are_safe(folder)
    return job


def restarts(tasks: Tasks) -> dict[int, int]:
    """How often each task was started again; all of them must have completed."""
    assert {task.state for task in tasks.values()} == {"COMPLETED"}, tasks
    return {number: task.restarts for number, task in tasks.items()}


def test_a_requeued_task_goes_on_and_the_others_are_left_alone(
    cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    job = submit(cluster, half_done)
    cluster.call("scontrol", "requeue", f"{job}_{VICTIM}")
    assert restarts(cluster.finish(job)) == {2: 0, VICTIM: 1}
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


def test_a_cancelled_task_stays_away_until_it_is_submitted_again(
    cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    job = submit(cluster, half_done)
    cluster.call("scancel", f"{job}_{VICTIM}")
    tasks = cluster.finish(job)
    assert (tasks[2].state, tasks[VICTIM].state) == ("COMPLETED", "CANCELLED")
    again = cluster.sbatch(f"--array={VICTIM}", INFER, "film.streamsal", cwd=half_done)
    assert restarts(cluster.finish(again)) == {VICTIM: 0}
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


@pytest.mark.parametrize("signal_option", [(), ("--signal=USR1@120",)], ids=["warned", "terminated"])
def test_preempted_tasks_come_back(
    signal_option: tuple[str, ...], cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    """The script asks for a warning, and some sites send it when they preempt; elsewhere the first sign is SIGTERM."""
    job = submit(cluster, half_done, *signal_option, delay_ms=200)
    node = cluster.tasks(job)[VICTIM].node
    urgent = ("--partition=urgent", "--exclusive", "--nodelist", node, "--output=urgent.log")
    other = cluster.sbatch(*urgent, "--wrap=sleep 1", cwd=half_done)
    assert restarts(cluster.finish(job)) == {2: 1, VICTIM: 1}
    assert restarts(cluster.finish(other)) == {0: 0}
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


def test_a_lost_node_costs_what_it_had_not_committed(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    job = submit(cluster, half_done)
    node = cluster.tasks(job)[VICTIM].node
    cluster.crash(node)
    try:
        tasks = cluster.finish(job)
    finally:
        cluster.heal(node)
    assert restarts(tasks)[VICTIM] == 1 and tasks[VICTIM].node != node
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


def test_a_killed_task_has_failed_and_goes_on_when_it_is_requeued(
    cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    job = submit(cluster, half_done)
    heartbeat = half_done / "film.streamsal" / "logs" / f"{VICTIM:04d}.json"
    os.kill(json.loads(heartbeat.read_text())["pid"], signal.SIGKILL)
    killed = cluster.finish(job)[VICTIM]
    assert (killed.state, killed.code) == ("FAILED", 128 + signal.SIGKILL)
    cluster.call("scontrol", "requeue", f"{job}_{VICTIM}")
    assert restarts(cluster.finish(job)) == {2: 0, VICTIM: 1}
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


def test_a_task_warned_of_its_time_limit_requeues_itself_but_not_for_ever(
    cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    job = submit(cluster, half_done, requeues=1)
    warn = ("scancel", "--batch", "--signal=USR1", f"{job}_{VICTIM}")
    cluster.call(*warn)
    cluster.wait(job, lambda tasks: tasks[VICTIM].restarts == 1 and tasks[VICTIM].state == "RUNNING")
    until_blocks_are_safe(half_done)
    cluster.call(*warn)
    tasks = cluster.finish(job)
    assert (tasks[2].state, tasks[2].restarts) == ("COMPLETED", 0)
    assert (tasks[VICTIM].state, tasks[VICTIM].restarts, tasks[VICTIM].code) == ("FAILED", 1, 75)
    rest = cluster.sbatch(f"--array={VICTIM}", INFER, "film.streamsal", cwd=half_done)
    assert restarts(cluster.finish(rest)) == {VICTIM: 0}
    assert_resumed(half_done, times=2)
    assert_as_undisturbed(half_done, undisturbed)


def test_a_job_that_is_no_array_requeues_itself_too(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    here = ("film.mp4", "-o", "film.streamsal", "--model", TELLTALE, "--batch-size", "4", "--device", "cpu")
    slow = {"STREAMSAL_TEST_DELAY_MS": "100"}
    job = cluster.sbatch("--gres=none", "-c1", MULTI_GPU, *here, "--no-render", cwd=half_done, env=slow)
    until_blocks_are_safe(half_done)
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    assert restarts(cluster.finish(job)) == {0: 1}
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


def test_where_requeueing_is_not_allowed_a_warned_task_leaves_with_75(
    cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    job = submit(cluster, half_done, "--no-requeue")
    cluster.call("scancel", "--batch", "--signal=USR1", f"{job}_{VICTIM}")
    stopped = cluster.finish(job)[VICTIM]
    assert (stopped.state, stopped.restarts, stopped.code) == ("FAILED", 0, 75)
    rest = cluster.sbatch(f"--array={VICTIM}", INFER, "film.streamsal", cwd=half_done)
    assert restarts(cluster.finish(rest)) == {VICTIM: 0}
    assert_as_undisturbed(half_done, undisturbed)


def test_a_video_that_is_gone_or_another_fails_every_task(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    film = half_done / "film.mp4"
    whole = film.read_bytes()

    def codes() -> set[int]:
        job = cluster.sbatch("--array=2-3", "-c1", INFER, "film.streamsal", cwd=half_done)
        return {task.code for task in cluster.finish(job).values()}

    film.unlink()
    assert codes() == {66}
    film.write_bytes(whole)
    overwrite(film, len(whole) // 2, b"\0" * 64)
    os.utime(film, (0, 0))
    assert codes() == {65}
    film.write_bytes(whole)
    assert codes() == {0}
    assert_as_undisturbed(half_done, undisturbed)


@pytest.mark.slow
def test_a_task_longer_than_its_time_limit_is_computed_limit_by_limit(
    cluster: Cluster, undisturbed: Path, half_done: Path
) -> None:
    slow = {"STREAMSAL_TEST_DELAY_MS": "5000"}  # 150 s of work a minute at a time, the warning up to a minute early
    limit = ("--time=1", "--signal=B:USR1@20")
    job = cluster.sbatch("--array=2-3", "-c1", *limit, INFER, "film.streamsal", cwd=half_done, env=slow)
    tasks = cluster.wait(job, lambda tasks: all(task.ended for task in tasks.values()), patience_seconds=900)
    assert min(restarts(tasks).values()) >= 2
    assert_as_undisturbed(half_done, undisturbed)
