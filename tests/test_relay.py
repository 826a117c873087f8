"""State that goes from shard to shard: whatever the order, and whoever is killed, each frame is remembered once."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from films import destroy_packets, write_film
from program import call, end, start, wait_until
from relaytale import folded

from streamsal.errors import BadInput, Stopped, UsageError, WriteError
from streamsal.heartbeat import read_heartbeat
from streamsal.merge import open_run
from streamsal.prepare import Request, make_plan
from streamsal.relay import Handover, spool
from streamsal.task import infer

MODEL = str(Path(__file__).with_name("relaytale.py"))
N_FRAMES = 60


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", N_FRAMES)


def planned(film: Path, run: Path, tasks: int) -> Path:
    make_plan([film], run, Request(model=MODEL, tasks=tasks, batch_size=4))
    return run


def assert_each_frame_was_remembered_once(run: Path, frames: range = range(N_FRAMES)) -> None:
    maps, memory = open_run(run)["film.mp4"], (0, 0)
    for frame in frames:
        memory = folded(memory, frame)
        assert tuple(maps.output("memory", frame).astype(int)) == memory, frame


@pytest.mark.parametrize("tasks", [1, 2, 7])
def test_each_frame_is_remembered_once_however_the_work_is_divided(film: Path, tmp_path: Path, tasks: int) -> None:
    planned(film, tmp_path / "r", tasks)
    for task in range(tasks):
        infer(tmp_path / "r", task)
    assert_each_frame_was_remembered_once(tmp_path / "r")


def test_a_part_of_a_film_begins_from_nothing(film: Path, tmp_path: Path) -> None:
    make_plan([film], tmp_path / "r", Request(model=MODEL, tasks=3, batch_size=4, start=10, stop=50))
    for task in range(3):
        infer(tmp_path / "r", task)
    assert_each_frame_was_remembered_once(tmp_path / "r", range(10, 50))


def test_a_task_that_comes_too_early_looks_at_its_frames_and_waits(film: Path, tmp_path: Path) -> None:
    path = planned(film, tmp_path / "r", 3)
    late = [start("infer", path, "--task-id", task) for task in ("2", "1")]
    said = [process.stderr.readline() for process in late if process.stderr]
    assert said == [
        "task 2: waits for film.mp4.40.npz, which task 1 hands on\n",
        "task 1: waits for film.mp4.20.npz, which task 0 hands on\n",
    ]
    call("infer", path, "--task-id", "0")
    for process in late:
        end(process, 0)
    assert_each_frame_was_remembered_once(path)


def test_who_waits_can_be_stopped_and_goes_on_later(film: Path, tmp_path: Path) -> None:
    path = planned(film, tmp_path / "r", 2)
    early = start("infer", path, "--task-id", "1")
    wait_until(lambda: (read_heartbeat(path, 1) or {}).get("state") == "running", early)
    early.send_signal(signal.SIGTERM)
    end(early, 75)
    call("infer", path, "--task-id", "any")
    assert_each_frame_was_remembered_once(path)


def test_who_goes_on_from_a_task_that_failed_does_not_wait(film: Path, tmp_path: Path) -> None:
    path = planned(film, tmp_path / "r", 2)
    heartbeat = path / "logs" / "0000.json"
    heartbeat.parent.mkdir()
    heartbeat.write_text('{"state": "failed"}')
    _, err = call("infer", path, "--task-id", "1", code=75)
    assert "task 1 goes on from task 0, which has failed: run that one again first" in err


def test_a_task_that_was_stopped_midway_goes_on_as_if_nothing_had_happened(film: Path, tmp_path: Path) -> None:
    path = planned(film, tmp_path / "r", 2)
    for task in range(2):
        looks = iter(["", "", "SIGTERM"])
        with pytest.raises(Stopped, match="of 30 results safe"):
            infer(path, task, stop=lambda looks=looks: next(looks))
        infer(path, task)
    assert_each_frame_was_remembered_once(path)


def test_a_state_that_was_not_handed_on_is_made_again(film: Path, tmp_path: Path) -> None:
    path = planned(film, tmp_path / "r", 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(WriteError):
        patch.setattr(Handover, "give", give_to_a_full_disk)
        infer(path, 0)
    assert (path / "shards" / "0000.h5").exists() and not (path / "states").exists()
    for task in range(2):
        infer(path, task)
    assert_each_frame_was_remembered_once(path)


def give_to_a_full_disk(handover: Handover, arrays: object) -> None:
    raise WriteError("the disk is full")


def test_a_hole_shows_what_it_shows_any_model(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mov", 24, codec="mjpeg")
    destroy_packets(film, [9, 10])
    found = []
    for tasks in (1, 3):
        path = planned(film, tmp_path / str(tasks), tasks)
        for task in range(tasks):
            infer(path, task)
        maps = open_run(path)["film.mov"]
        assert maps.holes.tolist() == [9, 10]
        found.append([maps.output("memory", frame).tolist() for frame in range(24) if frame not in (9, 10)])
    assert found[0] == found[1]


def test_a_model_that_remembers_every_frame_leaves_none_out(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --every out"):
        make_plan([film], tmp_path / "r", Request(model=MODEL, tasks=1, every=2))


def test_a_state_of_another_plan_or_a_damaged_one_is_named(tmp_path: Path) -> None:
    def handover(plan_id: str) -> Handover:
        where = {"run": tmp_path, "video": "a.mp4", "start": 5, "stop": 5, "takes": True, "gives": True}
        return Handover(plan_id=plan_id, alive=lambda missing: None, **where)

    assert handover("a").take() is None and not handover("a").given
    handover("a").give({"x": np.arange(3)})
    assert handover("a").given and handover("a").wait()["x"].tolist() == [0, 1, 2]
    with pytest.raises(BadInput, match=r"a\.mp4\.5\.npz is of another plan"):
        handover("b").take()
    (tmp_path / "states" / "a.mp4.5.npz").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"a\.mp4\.5\.npz is damaged"):
        handover("a").take()


def test_what_is_kept_on_disk_comes_back_in_order_as_often_as_asked() -> None:
    with spool() as things:
        for thing in ("a", ["b"], 3):
            things.put(thing)
        assert [*things] == [*things] == ["a", ["b"], 3]
        things.put(4)
        assert [*things] == ["a", ["b"], 3, 4]
