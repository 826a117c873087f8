"""What a model derives of its stored outputs rests on every frame once, in order, whoever computed it and however."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import two_passes
from films import destroy_packets, write_film
from program import end, start, wait_until
from synthetic_run import contents

from streamsal.decode import decode
from streamsal.engine import predict, stream
from streamsal.errors import BadInput, IncompleteRun, Stopped, StreamsalError, UsageError
from streamsal.export import export
from streamsal.fixations import History
from streamsal.heartbeat import read_heartbeat
from streamsal.merge import merge, open_run
from streamsal.models import create_model
from streamsal.prepare import Request, make_plan
from streamsal.store import shard_path
from streamsal.task import Worker, infer

MODEL = two_passes.__file__
N_FRAMES, HEIGHT, WIDTH = 40, 64, 96
HOLES = [1, 13, 14, 25]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_film(tmp_path_factory.mktemp("film") / "film.mov", N_FRAMES, codec="mjpeg")
    destroy_packets(path, HOLES)
    return path


def planned(film: Path, run: Path, tasks: int, **request: object) -> Path:
    make_plan([film], run, Request(**{"model": MODEL, "tasks": tasks, "batch_size": 4, **request}))
    return run


def computed(film: Path, run: Path, tasks: int, **request: object) -> Path:
    worker = Worker(planned(film, run, tasks, **request))
    for task in reversed(range(len(worker.plan.shards))):
        worker.infer(task)
    return run


@pytest.fixture(scope="module")
def undivided(film: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    (path,) = merge(computed(film, tmp_path_factory.mktemp("undivided") / "r", 1))
    return without_shard(path)


def without_shard(path: Path) -> dict[str, bytes]:
    found = contents(path)
    del found["shard"]
    return found


def history() -> History:
    nothing = np.full(3, np.nan)
    return History(x_px=np.array([0.25, *nothing]), y_px=np.array([8.0, *nothing]))


@pytest.mark.parametrize("tasks", [2, 7])
def test_sharded_equals_unsplit(film: Path, tmp_path: Path, undivided: dict[str, bytes], tasks: int) -> None:
    (path,) = merge(computed(film, tmp_path / "r", tasks))
    assert without_shard(path) == undivided
    assert {"constants/rows", "history_len", "priority", "log_density", "log_offset", "total"} < set(undivided)


def test_a_materialised_file_holds_the_same(film: Path, tmp_path: Path, undivided: dict[str, bytes]) -> None:
    (path,) = merge(computed(film, tmp_path / "r", 3), materialise=True)
    assert without_shard(path) == undivided
    with h5py.File(path) as file:
        assert not file["priority"].is_virtual and file["log_density"].chunks == (1, HEIGHT // 2, WIDTH // 2)


def test_every_frame_is_derived_of_all_before_it_and_holes_are_left_out(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 3, store_dtype="float32")
    (path,) = merge(run)
    with open_run(run) as opened:
        maps = opened[film.name]
        assert list(maps.outputs) == ["log_density", "total", "priority", "history_len"]
        assert maps.holes.tolist() == HOLES
        total = 0.0
        for frame in range(N_FRAMES):
            if frame in HOLES:
                assert np.isnan(maps.native(frame)).all() and np.isnan(maps.scalar("total")[frame])
                continue
            total = 0.9 * total + float(maps.output("priority", frame).sum()) + min(frame, two_passes.PAST) + 1
            assert maps.scalar("total")[frame] == pytest.approx(total, abs=1e-4)
            wanted = two_passes.density_of(total, 0, HEIGHT, WIDTH)
            np.testing.assert_allclose(maps.native(frame), wanted, atol=2e-5)
            np.testing.assert_array_equal(maps.log_density(frame)[::2, ::2], maps.log_density(frame)[1::2, 1::2])
            assert maps.output("total", frame) == maps.scalars["total"][frame]
    with h5py.File(path) as file:
        outputs = [output["name"] for output in json.loads(file.attrs["outputs"])]
        assert outputs == ["log_density", "total", "priority", "history_len"]
        assert json.loads(file.attrs["derived_from"]) == {"fixations": "the model's default"}
        assert not file["log_density"].is_virtual and file["priority"].is_virtual


def test_fixations_reach_the_model_and_are_recorded(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 2)
    (path,) = merge(run, fixations=history())
    with h5py.File(path) as file:
        derived_from = json.loads(file.attrs["derived_from"])
        seen = np.setdiff1d(np.arange(N_FRAMES), HOLES)
        log_density = file["log_density"][2] + file["log_offset"][2].astype(np.float32)
        wanted = two_passes.density_of(float(file["total"][2]), 0.25, HEIGHT, WIDTH)
        np.testing.assert_allclose(log_density, wanted, atol=4e-3)
        with open(tmp_path / "r" / "film.mov.scanpath.csv", newline="") as table:
            rows = list(csv.DictReader(table))
        assert [float(row["total"]) for row in rows] == pytest.approx(file["total"][seen], abs=1e-4)
        assert [float(row["start_seconds"]) for row in rows] == pytest.approx(file["pts_seconds"][seen])
    assert derived_from["fixations"] == "history" and derived_from["x_px"].startswith("sha256 ")
    merge(run)
    assert not (run / "film.mov.scanpath.csv").exists()


def test_what_was_derived_is_kept_until_something_else_is_asked_for(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 2)

    def merged_again(**options: object) -> bool:
        before = path.stat().st_mtime_ns
        merge(run, **options)
        return path.stat().st_mtime_ns != before

    (path,) = merge(run)
    asked = [{}, {"fixations": history()}, {"fixations": history()}, {}, {"materialise": True}, {"verify": True}]
    assert [merged_again(**options) for options in asked] == [False, True, False, True, True, True]
    path.write_bytes(b"no HDF5")
    assert merged_again() and len(open_run(run)[film.name]) == N_FRAMES
    shard_path(run, 0).unlink()
    infer(run, 0, device="cpu")
    assert not merged_again()
    with h5py.File(shard_path(run, 1), "r+") as file:
        file["film.mov/priority_crc32"][-1] += 1  # stands for a shard with other values
    with pytest.raises(BadInput, match="frame 39"):
        merge(run)


def test_a_model_that_derives_nothing_takes_no_fixations(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 1, options={"derived": False})
    with pytest.raises(UsageError, match="does not depend on fixations"):
        merge(run, fixations=history())
    merge(run)
    assert list(open_run(run)[film.name].outputs) == ["priority", "history_len"]


def test_before_merging_the_run_says_what_is_still_to_be_made(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 2)
    maps = open_run(run)[film.name]
    assert maps.log_density(5, "priority").shape == (HEIGHT, WIDTH) and maps.scalar("history_len")[5] == 4
    for read in (maps.log_density, maps.native, lambda frame: maps.output("total", frame)):
        with pytest.raises(IncompleteRun, match=r"log_density of film\.mov is made .*run `streamsal merge .*r` first"):
            read(5)
    with pytest.raises(IncompleteRun, match="streamsal merge"):
        export(run, tmp_path / "out", format="npy")
    assert not list((tmp_path / "out").iterdir())


def test_streaming_equals_merging(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 3, store_dtype="float32")
    merge(run)
    maps = open_run(run)[film.name]
    chunks = list(stream(film, model=MODEL, batch_size=5, device="cpu"))
    assert [output.name for output in chunks[0].outputs] == list(maps.outputs)
    for name in maps.outputs:
        found = torch.cat([chunk.values[name] for chunk in chunks]).numpy()
        np.testing.assert_array_equal(found, np.stack([maps.output(name, frame) for frame in range(N_FRAMES)]))
    full = torch.cat([chunk.log_density for chunk in chunks]).numpy()
    np.testing.assert_array_equal(full, maps.log_density(range(N_FRAMES)))


def test_predict_derives_too_and_takes_fixations(film: Path) -> None:
    model = create_model(MODEL)
    frames = np.stack([frame.rgb for frame in decode(film, 2, 11)])
    maps = predict(frames, model=model, batch_size=4, device="cpu")
    assert maps.shape == (9, HEIGHT, WIDTH)
    x = np.array([0.25, np.nan, np.nan, np.nan])
    moved = predict(frames, model=model, batch_size=4, device="cpu", fixations=(x, x), native=True)
    assert moved.shape == (9, HEIGHT // 2, WIDTH // 2)
    total, shown = 0.0, []
    for row, number in enumerate(two_passes.read_numbers(torch.from_numpy(frames))):
        shown = [*shown[-two_passes.PAST :], number]
        total = 0.9 * total + float(two_passes.priority(shown).sum()) + len(shown)
        np.testing.assert_allclose(moved[row], two_passes.density_of(total, 0.25, HEIGHT, WIDTH), atol=1e-5)
        wanted = two_passes.density_of(total, 0, HEIGHT, WIDTH)
        np.testing.assert_allclose(maps[row, ::2, ::2] + np.log(4), wanted, atol=1e-5)
    with pytest.raises(ValueError, match=r"each \(4,\) or \(9, 4\), got \(3,\) \(3,\)"):
        predict(frames, model=model, device="cpu", fixations=(x[:3], x[:3]))
    with pytest.raises(ValueError, match="uniform does not depend on fixations"):
        predict(frames, model=create_model("uniform"), device="cpu", fixations=(x, x))


def test_a_center_bias_for_a_clip_reaches_the_model() -> None:
    class Told(two_passes.Model):
        def begin(self, video):
            self.told = video.center_bias
            return super().begin(video)

    model, bias = Told(two_passes.spec(derived=False), torch.device("cpu"), 1.0), np.zeros((3, 4), np.float32)
    predict(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), model=model, device="cpu", center_bias=bias)
    assert model.told is bias


def test_a_range_without_a_single_picture_can_be_merged(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 1, start=13, stop=15)
    merge(run)
    maps = open_run(run)[film.name]
    assert maps.holes.tolist() == maps.frame.tolist() == [13, 14]
    assert np.isnan(maps.log_density(slice(None))).all() and np.isnan(maps.scalar("total")).all()


def test_a_killed_task_resumes_to_the_same(film: Path, tmp_path: Path, undivided: dict[str, bytes]) -> None:
    run = planned(film, tmp_path / "r", 1)
    env = {"STREAMSAL_TEST_DELAY_MS": "20", "PYTHONPATH": str(Path(MODEL).parent)}
    for goal in (4, 20):
        task = start("infer", run, "--task-id", "0", "--device", "cpu", env=env)
        wait_until(lambda goal=goal: ((read_heartbeat(run, 0) or {}).get("done") or 0) >= goal, task)
        task.send_signal(signal.SIGKILL)
        end(task, -signal.SIGKILL)
    infer(run, 0, device="cpu")
    assert [path.name for path in (run / "shards").iterdir()] == ["0000.h5"]
    (path,) = merge(run)
    assert without_shard(path) == undivided


def test_a_second_pass_that_is_stopped_leaves_nothing(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 1)
    asked = iter(["", "", "SIGTERM"])
    with pytest.raises(Stopped, match=r"film\.mov is not merged"):
        merge(run, stop=lambda: next(asked))
    assert {path.name for path in run.iterdir()} == {"plan.json", "index", "shards", "logs", ".plan.lock"}


def test_damage_to_what_was_derived_is_named(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 1)
    (path,) = merge(run)
    with h5py.File(path) as file:
        where = file["log_density"].id.get_chunk_info_by_coord((7, 0, 0))
    with open(path, "r+b") as file:
        file.seek(where.byte_offset + where.size // 2)
        file.write(b"\x55\xaa\x55")
    with pytest.raises(BadInput, match=r"frame 7 of film\.mov is damaged in .*film\.mov\.h5: delete that file"):
        open_run(run)[film.name].log_density(7)


def test_an_error_in_the_second_pass_names_the_model_file(film: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import two_passes\n"
        "from two_passes import spec\n"
        "class Model(two_passes.Model):\n"
        "    def derive(self, video, fixations):\n"
        "        raise ZeroDivisionError('mine')\n"
        "def build(weights=None, *, device):\n"
        "    return Model(spec(), device, 1.0)\n"
    )
    run = computed(film, tmp_path / "r", 1, model=str(tmp_path / "mine.py"))
    with pytest.raises(StreamsalError, match=r"mine\.py failed in the second pass over film\.mov: ZeroDivisionError"):
        merge(run)
    assert not (run / "film.mov.h5").exists()


def test_constants_are_asked_for_by_name(film: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import two_passes\n"
        "from two_passes import spec\n"
        "class Model(two_passes.Model):\n"
        "    def constants(self, state):\n"
        "        return {'rows': 1}\n"
        "def build(weights=None, *, device):\n"
        "    return Model(spec(), device, 1.0)\n"
    )
    run = planned(film, tmp_path / "r", 1, model=str(tmp_path / "mine.py"))
    with pytest.raises(StreamsalError, match=r"constants\(\) gave \['rows'\], the spec of two_passes names"):
        infer(run, 0)


def test_frames_made_smaller_are_read_back_at_displayed_size(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 2, long_side=48)
    (path,) = merge(run)
    maps = open_run(run)[film.name]
    assert maps.shape("log_density") == (HEIGHT // 4, WIDTH // 4)
    assert maps.constants["prior"].shape == (HEIGHT // 2, WIDTH // 2)
    for name in ("log_density", "priority"):
        full = maps.log_density(5, name)
        assert full.shape == (HEIGHT, WIDTH) and abs(np.exp(full, dtype=np.float64).sum() - 1) < 1e-5
        assert len(np.unique(full[20:22, 30:32])) > 1  # interpolated, not repeated
    with h5py.File(path) as file:
        assert (file.attrs["model_height"], file.attrs["model_width"]) == (HEIGHT // 2, WIDTH // 2)


def test_a_shard_of_a_run_with_constants_is_whole_only_with_them(film: Path, tmp_path: Path) -> None:
    run = computed(film, tmp_path / "r", 2)
    with h5py.File(shard_path(run, 1), "r+") as file:
        del file["film.mov/constants/rows"]
    with pytest.raises(IncompleteRun, match="1: unreadable"):
        merge(run)
    infer(run, 1)
    merge(run)
