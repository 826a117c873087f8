"""Job arrays as users write them: from nothing, counted from 0 or 1, in parts, twice, on one type of GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import Cluster, Task
from films import write_film
from program import TELLTALE, run
from undisturbed import assert_as_undisturbed

SCRIPTS = Path(__file__).parents[2] / "scripts" / "sbatch"
INFER, MERGE = SCRIPTS / "infer.sbatch", SCRIPTS / "merge.sbatch"
MODEL = ("--model", TELLTALE, "--batch-size", "4")


def done(tasks: dict[int, Task]) -> list[int]:
    return [number for number, task in sorted(tasks.items()) if task.state == "COMPLETED"]


@pytest.mark.parametrize(("array", "base"), [("0-3", ()), ("1-4", ("--task-base", "1")), ("0", ())])
def test_an_array_plans_and_computes_from_nothing(
    array: str, base: tuple[str, ...], cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "film.mp4").write_bytes((undisturbed / "film.mp4").read_bytes())
    job = cluster.sbatch(f"--array={array}", INFER, "film.mp4", *MODEL, *base, cwd=tmp_path)
    merge = cluster.sbatch(f"--dependency=afterany:{job}", MERGE, "film.streamsal", cwd=tmp_path)
    n_tasks = len(cluster.finish(job))
    assert done(cluster.finish(merge)) == [0]
    assert_as_undisturbed(tmp_path, undisturbed, n_tasks)


def test_parts_of_an_array_compute_their_tasks_and_a_merge_before_the_rest_names_what_is_missing(
    cluster: Cluster, undisturbed: Path, planned: Path
) -> None:
    first = cluster.sbatch("--array=1,3", INFER, "film.streamsal", cwd=planned)
    merge = cluster.sbatch(f"--dependency=afterany:{first}", MERGE, "film.streamsal", "-v", cwd=planned)
    assert done(cluster.finish(first)) == [1, 3]
    assert cluster.finish(merge)[0].code == 3
    (log,) = [path.read_text() for path in planned.rglob(f"*merge*{merge}*")]
    assert "0,2" in log and not (planned / "film.streamsal" / "film.mp4.h5").exists()
    rest = cluster.sbatch("--array=0,2", INFER, "film.streamsal", cwd=planned)
    merge = cluster.sbatch(f"--dependency=afterany:{rest}", MERGE, "film.streamsal", cwd=planned)
    assert done(cluster.finish(merge)) == [0] and done(cluster.tasks(rest)) == [0, 2]
    assert_as_undisturbed(planned, undisturbed)


def test_the_same_array_twice(cluster: Cluster, undisturbed: Path, planned: Path) -> None:
    slow = {"STREAMSAL_TEST_DELAY_MS": "50"}
    jobs = [cluster.sbatch("--array=0-3", "-c1", INFER, "film.streamsal", cwd=planned, env=slow) for _ in range(2)]
    codes = [[task.code for _, task in sorted(cluster.finish(job).items())] for job in jobs]
    assert {min(pair) for pair in zip(*codes, strict=True)} == {0} and {*codes[0], *codes[1]} <= {0, 75}, codes
    assert_as_undisturbed(planned, undisturbed)


def test_more_tasks_than_frames_and_a_wider_array_than_tasks(cluster: Cluster, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", 3)
    job = cluster.sbatch("--array=0-4", "-c1", INFER, "film.mp4", *MODEL, cwd=tmp_path)
    assert done(cluster.finish(job)) == [0, 1, 2, 3, 4]
    run("merge", "film.streamsal", cwd=tmp_path)
    run("status", "film.streamsal", cwd=tmp_path)
    wider = cluster.sbatch("--array=5", "-c1", INFER, "film.streamsal", cwd=tmp_path)
    assert done(cluster.finish(wider)) == [5]


def test_a_type_of_gpu_is_a_node_that_has_it(cluster: Cluster, undisturbed: Path, planned: Path) -> None:
    gpu = ("-c1", "--gres=gpu:geforce_rtx_3090:1")  # the nodes' GPUs are names alone, hence --device cpu
    job = cluster.sbatch("--array=0-3", *gpu, INFER, "film.streamsal", "--device", "cpu", cwd=planned)
    assert {(task.state, task.node) for task in cluster.finish(job).values()} == {("COMPLETED", "n1")}
    assert_as_undisturbed(planned, undisturbed)


def test_a_gpu_that_was_asked_for_and_does_not_work_is_not_replaced_by_the_processor(
    cluster: Cluster, planned: Path
) -> None:
    job = cluster.sbatch("--array=0", "--gres=gpu:rtx_a4000:1", INFER, "film.streamsal", cwd=planned)
    assert cluster.finish(job)[0].code == 69
    assert not list(planned.rglob("*.h5"))
    _, err = run("submit", "film.streamsal", "--resume", "--dry-run", cwd=planned)
    assert "task 0 left with 69 on n2" in err and "--sbatch=--exclude=n2" in err
