"""Job arrays as users write them: from nothing, counted from 0 or 1, in parts, twice, on one type of GPU."""

from __future__ import annotations

from pathlib import Path

from cluster import Cluster, Task
from films import write_film
from program import TELLTALE, call
from undisturbed import assert_as_undisturbed

SCRIPTS = Path(__file__).parents[2] / "scripts" / "sbatch"
INFER, MERGE = SCRIPTS / "infer.sbatch", SCRIPTS / "merge.sbatch"
MODEL = ("--model", TELLTALE, "--batch-size", "4")


def done(tasks: dict[int, Task]) -> list[int]:
    return [number for number, task in sorted(tasks.items()) if task.state == "COMPLETED"]


def test_arrays_plan_and_compute_from_nothing(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    """Counted from 0, from 1, and an array of one."""
    jobs = {}
    for array, base in (("0-2", ()), ("1-2", ("--task-base", "1")), ("0", ())):
        folder = tmp_path / array
        folder.mkdir()
        (folder / "film.mp4").write_bytes((undisturbed / "film.mp4").read_bytes())
        job = cluster.sbatch(f"--array={array}", "-c1", INFER, "film.mp4", *MODEL, *base, cwd=folder)
        jobs[folder] = job, cluster.sbatch(f"--dependency=afterany:{job}", MERGE, "film.streamsal", cwd=folder)
    for folder, (job, merge) in jobs.items():
        assert done(cluster.finish(merge)) == [0]
        assert_as_undisturbed(folder, undisturbed, len(cluster.tasks(job)))


def test_parts_of_an_array_compute_their_tasks_and_a_merge_before_the_rest_names_what_is_missing(
    cluster: Cluster, undisturbed: Path, planned: Path
) -> None:
    first = cluster.sbatch("--array=1,3", "-c1", INFER, "film.streamsal", cwd=planned)
    merge = cluster.sbatch(f"--dependency=afterany:{first}", MERGE, "film.streamsal", "-v", cwd=planned)
    assert done(cluster.finish(first)) == [1, 3]
    assert cluster.finish(merge)[0].code == 3
    (log,) = [path.read_text() for path in planned.rglob(f"*merge*{merge}*")]
    assert "0,2" in log and not (planned / "film.streamsal" / "film.mp4.h5").exists()
    rest = cluster.sbatch("--array=0,2", "-c1", INFER, "film.streamsal", cwd=planned)
    merge = cluster.sbatch(f"--dependency=afterany:{rest}", MERGE, "film.streamsal", cwd=planned)
    assert done(cluster.finish(merge)) == [0] and done(cluster.tasks(rest)) == [0, 2]
    assert_as_undisturbed(planned, undisturbed)


def test_the_same_array_twice(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    slow = {"STREAMSAL_TEST_DELAY_MS": "50"}
    jobs = [cluster.sbatch("--array=2-3", "-c1", INFER, "film.streamsal", cwd=half_done, env=slow) for _ in range(2)]
    codes = [[task.code for _, task in sorted(cluster.finish(job).items())] for job in jobs]
    assert {min(pair) for pair in zip(*codes, strict=True)} == {0} and {*codes[0], *codes[1]} <= {0, 75}, codes
    assert_as_undisturbed(half_done, undisturbed)


def test_more_tasks_than_frames_and_a_wider_array_than_tasks(cluster: Cluster, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", 1)
    job = cluster.sbatch("--array=0-1", "-c1", INFER, "film.mp4", *MODEL, cwd=tmp_path)
    assert done(cluster.finish(job)) == [0, 1]
    call("merge", tmp_path / "film.streamsal")
    call("status", tmp_path / "film.streamsal")
    wider = cluster.sbatch("--array=2", "-c1", INFER, "film.streamsal", cwd=tmp_path)
    assert done(cluster.finish(wider)) == [2]


def test_a_type_of_gpu_is_a_node_that_has_it(cluster: Cluster, undisturbed: Path, half_done: Path) -> None:
    gpu = ("-c1", "--gres=gpu:geforce_rtx_3090:1")  # the nodes' GPUs are names alone, hence --device cpu
    job = cluster.sbatch("--array=2-3", *gpu, INFER, "film.streamsal", "--device", "cpu", cwd=half_done)
    assert {(task.state, task.node) for task in cluster.finish(job).values()} == {("COMPLETED", "n1")}
    assert_as_undisturbed(half_done, undisturbed)


def test_a_gpu_that_was_asked_for_and_does_not_work_is_not_replaced_by_the_processor(
    cluster: Cluster, planned: Path
) -> None:
    job = cluster.sbatch("--array=0", "--gres=gpu:rtx_a4000:1", INFER, "film.streamsal", cwd=planned)
    assert cluster.finish(job)[0].code == 69
    assert not list(planned.rglob("*.h5"))
    _, err = call("submit", "film.streamsal", "--resume", "--dry-run", cwd=planned)
    assert "task 0 left with 69 on n2" in err and "--sbatch=--exclude=n2" in err
