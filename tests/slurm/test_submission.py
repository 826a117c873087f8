"""`streamsal submit` on a cluster: a video becomes a film, and what was left undone is done by --resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster import Cluster, running
from program import TELLTALE, call
from undisturbed import assert_as_undisturbed
from victim import VICTIM, assert_resumed, until_blocks_are_safe

SMALL = ("--gpu", "none", "--cpus", "1")


def submit(cluster: Cluster, folder: Path, *arguments: str, delay_ms: int = 0) -> dict[str, str]:
    """The job of each step, as the command prints them."""
    env = {**cluster.environment, "STREAMSAL_TEST_DELAY_MS": str(delay_ms)}
    out, _ = call("submit", *arguments, cwd=folder, env=env)
    return dict(line.split() for line in out.splitlines())


def slurm_says(cluster: Cluster, folder: Path) -> dict[int, str]:
    """Slurm's state of each task, as `status` shows it of a run that is not complete."""
    out, _ = call("status", "film.streamsal", "--slurm", "--json", cwd=folder, env=cluster.environment, code=3)
    return {task["task"]: task.get("slurm", "") for task in json.loads(out)["tasks"]}


def test_a_video_becomes_a_film_by_one_command(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes((undisturbed / "film.mp4").read_bytes())
    model = ("--model", TELLTALE, "--batch-size", "4", "--tasks", "2")
    jobs = submit(cluster, tmp_path, "film.mp4", *model, *SMALL, "--render")
    states = {step: [task.state for task in cluster.finish(job).values()] for step, job in jobs.items()}
    assert states == {"infer": ["COMPLETED"] * 2, "merge": ["COMPLETED"], "render": ["COMPLETED"]}
    assert len(list(tmp_path.rglob("*.mp4"))) == 2
    assert_as_undisturbed(tmp_path, undisturbed, 2)


def test_what_a_submission_left_undone_is_done_by_resume(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    never_again = ("--sbatch=--no-requeue", "--render")
    jobs = submit(cluster, half_done, "film.streamsal", *SMALL, *never_again, delay_ms=400)
    until_blocks_are_safe(half_done)
    _, err = call("submit", "film.streamsal", "--resume", cwd=half_done, env=cluster.environment, code=75)
    assert jobs["infer"] in err
    assert slurm_says(cluster, half_done) == {0: "", 1: "", 2: "RUNNING", VICTIM: "RUNNING"}
    cluster.call("scancel", "--batch", "--signal=USR1", f"{jobs['infer']}_{VICTIM}")
    assert [task.code for _, task in sorted(cluster.finish(jobs["infer"]).items())] == [0, 0, 0, 75]
    assert cluster.finish(jobs["merge"])[0].code == 3
    assert cluster.finish(jobs["render"])[0].state == "CANCELLED"
    jobs = submit(cluster, half_done, "film.streamsal", "--resume")
    assert list(cluster.finish(jobs["infer"])) == [VICTIM]
    assert cluster.finish(jobs["render"])[0].state == "COMPLETED"
    assert_resumed(half_done)
    assert_as_undisturbed(half_done, undisturbed)


@pytest.mark.slow  # a cluster of its own; that tasks are divided so is proved of the scripts, too
def test_more_tasks_than_an_array_may_hold(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes((undisturbed / "film.mp4").read_bytes())
    model = ("--model", TELLTALE, "--batch-size", "4", "--tasks", "6", "--throttle", "2")
    with running(tmp_path / "slurm", cluster.environment, "--nodes", "1", "--array-max", "4") as small:
        out, _ = call("submit", "film.mp4", *model, *SMALL, cwd=tmp_path, env=small.environment)
        jobs = {step: numbers for step, *numbers in map(str.split, out.splitlines())}
        assert [task.state for task in small.finish(jobs["merge"][0]).values()] == ["COMPLETED"]
        assert [sorted(small.tasks(job)) for job in jobs["infer"]] == [[0, 1, 2, 3], [0, 1]]
    assert_as_undisturbed(tmp_path, undisturbed, 6)
