"""`streamsal submit` without a cluster: what is planned, checked, written and printed, and the same tasks run here."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from films import write_film
from program import TELLTALE, call, end, run, start, wait_until

from streamsal.cluster.job_rules import modules
from streamsal.cluster.steps import Resources
from streamsal.cluster.submit import record, resources_of, sent_before, usual_tasks
from streamsal.plan import Plan, PlannedVideo

N_FRAMES = 60
PLAN = ("--model", TELLTALE, "--batch-size", "4")
HERE = ("--backend", "local", "--throttle", "2")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a space in its name, that holds film.mp4 and good.streamsal: two tasks, computed and merged."""
    folder = tmp_path_factory.mktemp("my films")
    write_film(folder / "film.mp4", N_FRAMES)
    call("run", "film.mp4", *PLAN, "--tasks", "2", "--no-render", "-o", "good.streamsal", cwd=folder)
    call("merge", "good.streamsal", "--materialise", cwd=folder)
    return folder


@pytest.fixture
def folder(films: Path, tmp_path: Path) -> Path:
    (tmp_path / "my films").mkdir()
    shutil.copy(films / "film.mp4", tmp_path / "my films")
    return tmp_path / "my films"


def assert_merged_as_good(folder: Path, films: Path) -> None:
    call("merge", "film.streamsal", "--materialise", cwd=folder)
    found, good = (at / "film.mp4.h5" for at in (folder / "film.streamsal", films / "good.streamsal"))
    assert found.read_bytes() == good.read_bytes()


def test_dry_run_plans_writes_and_prints_the_scripts_and_submits_nothing(folder: Path) -> None:
    out, _ = call("submit", "film.mp4", *PLAN, "--tasks", "3", "--gpu", "v100", "--render", "--dry-run", cwd=folder)
    made = folder / "film.streamsal"
    for name in ("infer", "merge", "render"):
        assert (made / "submit" / f"{name}.sbatch").read_text() in out
    assert f"infer=$(sbatch --parsable --array=0-2 '{made}/submit/infer.sbatch')" in out
    assert len(Plan.load(made / "plan.json").shards) == 3 and (made / "logs").is_dir()
    assert not (made / "shards").exists() and not (made / "submit" / "jobs.jsonl").exists()


def test_without_slurm_nothing_is_begun(folder: Path, tmp_path: Path) -> None:
    _, err = call("submit", "film.mp4", *PLAN, cwd=folder, env={"PATH": str(tmp_path)}, code=2)
    assert "no sbatch" in err and "--backend local" in err and "--dry-run" in err and err.count("\n") == 1
    assert not (folder / "film.streamsal").exists()


def test_missing_weights_and_videos_are_found_before_anything_waits(folder: Path, tmp_path: Path) -> None:
    _, err = call("submit", "film.mp4", "--dry-run", cwd=folder, env={"STREAMSAL_HOME": str(tmp_path)}, code=4)
    assert "streamsal weights fetch" in err
    call("plan", "film.mp4", *PLAN, "-o", "r", cwd=folder)
    (folder / "film.mp4").unlink()
    _, err = call("submit", "r", *HERE, cwd=folder, code=66)
    assert "film.mp4 is gone" in err and not (folder / "r" / "submit").exists()


def test_a_broken_video_among_others_is_named_and_the_rest_is_sent(folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"no video")
    _, err = call("submit", "film.mp4", "broken.mp4", *PLAN, "--dry-run", "-o", "r", cwd=folder, code=1)
    assert "broken.mp4" in err
    assert [video.name for video in Plan.load(folder / "r" / "plan.json").videos] == ["film.mp4"]


def test_a_plan_that_is_there_is_not_changed(folder: Path) -> None:
    call("plan", "film.mp4", *PLAN, "--tasks", "2", "-o", "r", cwd=folder)
    for more in (("--every", "2"), ("--backend", "reference")):
        _, err = call("submit", "r", "--dry-run", *more, cwd=folder, code=2)
        assert more[0] in err
    _, err = call("submit", "r", "--dry-run", "--tasks", "3", cwd=folder, code=65)
    assert "planned as 2 tasks, not 3" in err


def test_the_same_tasks_run_here_and_only_what_is_missing_runs_again(folder: Path, films: Path) -> None:
    out, _ = run("submit", "film.mp4", *PLAN, "--tasks", "2", *HERE, cwd=folder)
    shards, logs = folder / "film.streamsal" / "shards", folder / "film.streamsal" / "logs"
    assert out == f"{folder / 'film.streamsal' / 'film.mp4.h5'}\n"
    assert_merged_as_good(folder, films)
    assert {path.name for path in logs.glob("*.log")} == {f"infer-local_{task}.log" for task in range(2)}
    (shards / "0001.h5").unlink()
    other = (shards / "0000.h5").stat().st_mtime_ns
    _, err = call("submit", *HERE, "--resume", cwd=folder)
    assert "task 1: done" in err and "task 0" not in err
    assert other == (shards / "0000.h5").stat().st_mtime_ns
    assert_merged_as_good(folder, films)


def test_a_task_that_fails_is_named_with_its_log(folder: Path) -> None:
    call("plan", "film.mp4", *PLAN, "--tasks", "2", "-o", "r", cwd=folder)
    film = folder / "film.mp4"
    film.write_bytes(bytes(film.stat().st_size))
    _, err = call("submit", "r", *HERE, cwd=folder, code=65)
    assert "tasks 0-1" in err and "infer-local_0.log" in err
    assert "has changed since it was indexed" in (folder / "r" / "logs" / "infer-local_0.log").read_text()


def test_stopped_here_all_tasks_stop_and_can_go_on(folder: Path) -> None:
    call("plan", "film.mp4", *PLAN, "--tasks", "3", cwd=folder)
    process = start("submit", *HERE, cwd=folder, env={"STREAMSAL_TEST_DELAY_MS": "100"})
    beats = [folder / "film.streamsal" / "logs" / f"000{task}.json" for task in (0, 1)]
    wait_until(lambda: all(beat.exists() for beat in beats), process)
    process.send_signal(signal.SIGTERM)
    _, err = end(process, 75)
    assert "SIGTERM" in err and "3 tasks of" in err
    assert [json.loads(beat.read_text())["state"] for beat in beats] == ["stopped", "stopped"]
    call("infer", "film.streamsal", cwd=folder)
    call("merge", "film.streamsal", "--verify", cwd=folder)


def test_tasks_are_as_long_as_wished_where_the_model_s_cost_is_known(computed: Path) -> None:
    video = replace(
        Plan.load(computed / "film.streamsal" / "plan.json").videos[0],
        height=1080, width=1920, model_height=1080, model_width=1920, n_frames=180_000, start=0, stop=180_000, past=0,
    )  # fmt: skip
    said: list[str] = []

    def tasks(model: str, *videos: PlannedVideo) -> int:
        return usual_tasks(videos, model, 600, said.append)

    assert tasks("deepgaze_iie", video) == 12  # 180000 frames of 149 GMAC at 4 TMAC/s: 112 minutes
    assert "12 tasks of at most 10 minutes" in said[-1]
    assert tasks("deepgaze_iie", video, video) == 23
    assert tasks("deepgaze_i", replace(video, every=10)) == 2  # decoding binds
    assert tasks("deepgaze_iie", replace(video, stop=10)) == 1
    assert tasks("slowfast_r50_8x8", replace(video, clips=60_000, stop=60_000)) == 2  # 50.3 GMAC per clip: 13 minutes
    assert tasks("mine.py", video) == 16 and "the cost of mine.py is not known" in said[-1]


def test_resources_of_the_last_submission_are_kept_unless_others_are_given(tmp_path: Path) -> None:
    assert resources_of(tmp_path, {}, local=False, again=True) == Resources()
    assert resources_of(tmp_path, {"gpu": "none"}, local=False, again=False).device == "cpu"
    assert resources_of(tmp_path, {}, local=True, again=False).device == "auto"
    (tmp_path / "submit").mkdir()
    before = {"gpu": "none", "device": "cpu", "time": "0:10:00", "extra": ["--qos=long"]}
    lines = [json.dumps({"time": 1, "infer": ["5"], "resources": before}), '{"time": 2, "inf']
    (tmp_path / "submit" / "jobs.jsonl").write_text("\n".join(lines))
    assert [sent["infer"] for sent in sent_before(tmp_path)] == [["5"]]
    kept = resources_of(tmp_path, {"time": "1:00:00"}, local=False, again=True)
    assert kept == Resources(gpu="none", device="cpu", time="1:00:00", extra=("--qos=long",))
    assert resources_of(tmp_path, {"gpu": "v100"}, local=False, again=True).device == "cuda"
    assert resources_of(tmp_path, {}, local=False, again=False) == Resources()
    for job in ("6", "7"):
        record(tmp_path, {"infer": [job]})
    assert [sent["infer"] for sent in sent_before(tmp_path)] == [["5"], ["6"], ["7"]]


K8S = ("--backend", "k8s", "--image", "registry.example/streamsal:0.1", "--claim", "lab-data")


def test_manifests_of_a_run_are_written_into_it_and_what_to_type_is_printed(folder: Path) -> None:
    video = ("film.mp4", "--model", "sigmotion", "--tasks", "3", "--throttle", "2", "--gpu", "none")
    out, _ = call("submit", *video, *K8S, "--mount", str(folder), "--namespace", "lab", cwd=folder)
    infer, merge = (folder / "film.streamsal" / "submit" / f"{name}.yaml" for name in ("infer", "merge"))
    assert out.startswith(f"kubectl -n lab apply -f '{infer}' -f '{merge}'\nkubectl -n lab wait ")
    assert "completions: 3" in infer.read_text() and "parallelism: 2" in infer.read_text()
    assert "--wait" in merge.read_text() and "namespace: lab" in merge.read_text()
    assert not (folder / "film.streamsal" / "submit" / "jobs.jsonl").exists()


def test_the_commands_of_manifests_compute_and_merge_a_run(folder: Path) -> None:
    """As processes of this machine, the merge first: it waits."""
    video = ("film.mp4", "--model", "sigmotion", "--tasks", "2", "--gpu", "none")
    call("submit", *video, *K8S, "--mount", str(folder), cwd=folder)
    boxes = {}
    for name in ("infer", "merge"):
        job = modules()[1].safe_load((folder / "film.streamsal" / "submit" / f"{name}.yaml").read_text())
        boxes[name] = job["spec"]["template"]["spec"]["containers"][0]
    env = {each["name"]: each["value"] for each in boxes["infer"]["env"]} | {"HOME": str(folder)}
    merging = start(*boxes["merge"]["command"][1:], env=env)
    for index in ("0", "1"):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", index) for word in boxes["infer"]["command"][1:]]
        call(*words, env={**env, "JOB_COMPLETION_INDEX": index})
    end(merging, 0)
    assert (folder / "film.streamsal" / "film.mp4.h5").exists()


def test_what_pods_could_not_see_is_refused(folder: Path) -> None:
    _, err = call("submit", "film.mp4", *PLAN, *K8S, "--mount", str(folder), cwd=folder, code=2)
    assert f"the model {TELLTALE} is not below {folder}" in err
    _, err = call("submit", "film.streamsal", *K8S, cwd=folder, code=2)
    assert "the run" in err and "is not below /data" in err and not (folder / "film.streamsal" / "submit").exists()


def test_a_merge_waits_until_all_tasks_are_done(folder: Path) -> None:
    call("plan", "film.mp4", *PLAN, "--tasks", "2", "-o", "r", cwd=folder)
    call("infer", "r", "--task-id", "0", cwd=folder)
    merging = start("merge", "r", "--wait", cwd=folder)
    assert merging.stdout and "30 of 60 results" in merging.stdout.readline()
    call("infer", "r", "--task-id", "1", cwd=folder)
    out, _ = end(merging, 0)
    assert out.endswith("film.mp4.h5\n") and (folder / "r" / "film.mp4.h5").exists()
