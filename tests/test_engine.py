"""The one flow: that a result depends on its frame alone, never on how the work is divided, stopped or squeezed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import two_passes
from films import destroy_packets, write_film
from program import TELLTALE, run
from telltale import Telltale, expected

import streamsal
from streamsal.decode import decode
from streamsal.engine import predict, stream
from streamsal.errors import DeviceError, Stopped, UsageError
from streamsal.maps import Maps
from streamsal.merge import merge, open_run
from streamsal.prepare import Request, make_plan
from streamsal.task import infer

N_FRAMES = 100


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", N_FRAMES)


def computed(film: Path, folder: Path, tasks: int, **request: object) -> Maps:
    """The film as so many tasks, the last first."""
    plan = make_plan([film], folder, Request(tasks=tasks, **{"model": TELLTALE, "batch_size": 8, **request}))
    for task in reversed(range(len(plan.shards))):
        infer(folder, task)
    return open_run(folder)[film.name]


def seen(maps: Maps) -> dict[int, list[float]]:
    return {int(frame): maps.output("seen", int(frame)).tolist() for frame in maps.frame}


@pytest.mark.parametrize(("tasks", "stop"), [(1, N_FRAMES), (2, N_FRAMES), (7, N_FRAMES), (40, 30)])
def test_every_frame_meets_the_same_frames_however_the_work_is_divided(
    film: Path, tmp_path: Path, tasks: int, stop: int
) -> None:
    maps = computed(film, tmp_path / "r", tasks, stop=stop)
    assert seen(maps) == {frame: expected(frame, N_FRAMES) for frame in range(stop)}


@pytest.mark.parametrize(("past", "future"), [(0, 0), (40, 0), (0, 9), (3, 10), (150, 150)])
def test_windows(film: Path, tmp_path: Path, past: int, future: int) -> None:
    maps = computed(film, tmp_path / "r", 5, options={"past": past, "future": future}, start=10, stop=90)
    assert seen(maps) == {frame: expected(frame, N_FRAMES, past, future) for frame in range(10, 90)}


@pytest.mark.parametrize(("every", "past", "future"), [(3, 15, 3), (7, 2, 1), (7, 0, 0), (60, 5, 5)])
def test_sampling_with_and_without_gaps_between_windows(
    film: Path, tmp_path: Path, every: int, past: int, future: int
) -> None:
    asked = {"options": {"past": past, "future": future}, "start": 4, "every": every}
    found = [seen(computed(film, tmp_path / f"r{tasks}", tasks, **asked)) for tasks in (1, 4)]
    assert found[0] == {frame: expected(frame, N_FRAMES, past, future) for frame in range(4, N_FRAMES, every)}
    assert found[0] == found[1]


def test_sharded_files_equal_unsplit_ones_bit_for_bit(film: Path, tmp_path: Path) -> None:
    one, many = (computed(film, tmp_path / f"r{tasks}", tasks, model="sigmotion") for tasks in (1, 3))
    for frame in range(N_FRAMES):
        assert np.array_equal(one.output("log_density", frame), many.output("log_density", frame)), frame


def test_a_stopped_task_goes_on_where_it_was(film: Path, tmp_path: Path) -> None:
    make_plan([film], tmp_path / "r", Request(model=TELLTALE, batch_size=8))
    stops = 0
    while True:
        asked = iter(["", "SIGTERM"])
        try:
            infer(tmp_path / "r", 0, stop=lambda asked=asked: next(asked))
        except Stopped:
            stops += 1
        else:
            break
    assert stops > 4
    maps = open_run(tmp_path / "r")[film.name]
    assert seen(maps) == {frame: expected(frame, N_FRAMES) for frame in range(N_FRAMES)}


def test_holes_keep_their_number_and_show_the_picture_before(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mov", 40, codec="mjpeg")
    destroy_packets(film, [8, 13, 14, 39])
    shown = {8: 9, 13: 12, 14: 12, 39: 38}  # 8 begins a run of the decoder: there is none before it
    for tasks in (1, 3):
        maps = computed(film, tmp_path / f"r{tasks}", tasks)
        assert maps.holes.tolist() == list(shown) and len(maps) == 40
        for frame, found in seen(maps).items():
            if frame in shown:
                assert np.isnan(found).all() and np.isnan(maps.log_density(frame)).all()
            else:
                assert found == [frame, *(shown.get(number, number) for number in expected(frame, 40)[1:])]


def small_device(path: Path, largest: int) -> Path:
    """A model file for a device that takes batches up to a size."""
    path.write_text(f"""
import torch
from telltale import Telltale, spec

class Small(Telltale):
    def step(self, batch, state):
        if len(batch.frames_nhwc) > {largest}:
            raise torch.OutOfMemoryError("too large")
        return super().step(batch, state)

def build(weights=None, *, device):
    return Small(past=15, future=3, device=device)
""")
    return path


def test_out_of_memory_halves_the_batch_and_changes_nothing(film: Path, tmp_path: Path) -> None:
    maps = computed(film, tmp_path / "r", 2, model=str(small_device(tmp_path / "small.py", 3)))
    assert seen(maps) == {frame: expected(frame, N_FRAMES) for frame in range(N_FRAMES)}
    lines = (tmp_path / "r" / "logs" / "0000.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["retry_with_batch_size"] for event in events if event["event"] == "oom"] == [4, 2]


def test_out_of_memory_at_batch_size_1_names_the_frame(film: Path, tmp_path: Path) -> None:
    make_plan([film], tmp_path / "r", Request(model=str(small_device(tmp_path / "small.py", 0)), batch_size=8))
    with pytest.raises(DeviceError, match=r"film.mp4 frame 0.*--long-side"):
        infer(tmp_path / "r", 0)


def test_stream_yields_what_is_asked_for(film: Path) -> None:
    chunks = list(stream(film, model="sigmotion", start="0.4s", stop="0:01.2", every=2, batch_size=4))
    assert [f for chunk in chunks for f in chunk.frame.tolist()] == list(range(10, 30, 2))
    for chunk in chunks:
        assert np.allclose(chunk.pts_seconds, chunk.frame / 25)
        assert chunk.log_density.shape == (len(chunk.frame), 64, 96) and chunk.log_density.dtype == torch.float32
        assert chunk.log_density.double().logsumexp((1, 2)).abs().max() < 1e-4
        assert not chunk.hole.any()


def test_a_stream_closed_early_leaves_no_thread(film: Path) -> None:
    chunks = streamsal.stream(film, model=TELLTALE, batch_size=2)
    next(chunks)
    assert any(thread.name.startswith("streamsal") for thread in threading.enumerate())
    chunks.close()
    assert not any(thread.name.startswith("streamsal") for thread in threading.enumerate())


def test_an_error_in_the_model_ends_the_stream_and_its_thread(film: Path, tmp_path: Path) -> None:
    class Broken(Telltale):
        def step(self, batch, state):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        list(stream(film, model=Broken(past=0, future=0, device="cpu")))
    assert not any(thread.name.startswith("streamsal") for thread in threading.enumerate())


@pytest.mark.parametrize("model", ["sigmotion", TELLTALE])
def test_predict_equals_stream(film: Path, model: str) -> None:
    made = streamsal.create_model(model)
    chunks = list(stream(film, model=made, stop=30, batch_size=8, device="cpu"))
    frames = np.stack([frame.rgb for frame in decode(film, 0, 33)])
    stored = predict(frames, model=made, fps=25, batch_size=8, device="cpu", native=True)
    assert np.array_equal(stored[:27], torch.cat([chunk.values["log_density"] for chunk in chunks]).numpy()[:27])
    full = predict(frames, model=made, fps=25, batch_size=8, device="cpu")
    assert np.array_equal(full[:27], torch.cat([chunk.log_density for chunk in chunks]).numpy()[:27])


def test_maps_are_read_back_in_float32_whatever_the_model_computes_in(film: Path) -> None:
    """Blurring by matrices is a product, which autocast would round."""
    spec = dataclasses.replace(two_passes.spec(derived=False), autocast=True)
    model = two_passes.Model(spec, torch.device("cpu"), 1.0)
    frames = np.stack([frame.rgb for frame in decode(film, 0, 3)])
    half, full = (predict(frames, model=model, dtype=dtype, device="cpu") for dtype in ("bf16", "fp32"))
    np.testing.assert_array_equal(half, full)
    (chunk,) = stream(film, model=model, dtype="bf16", stop=3, batch_size=8, device="cpu")
    assert np.array_equal(chunk.log_density.numpy(), full)


def test_predict_refuses_what_is_no_clip() -> None:
    with pytest.raises(ValueError, match="uint8 RGB"):
        predict(np.zeros((2, 8, 8, 3), np.float32), model=streamsal.create_model("uniform"))


def test_a_model_without_densities_says_so(film: Path) -> None:
    chunk = next(stream(film, model=TELLTALE))
    features = streamsal.Chunk(
        frame=chunk.frame,
        pts_seconds=chunk.pts_seconds,
        hole=chunk.hole,
        values=chunk.values,
        outputs=chunk.outputs[1:],
        size=chunk.size,
    )
    with pytest.raises(UsageError, match="seen is a features, not a log density"):
        _ = features.log_density


def test_a_copied_run_without_its_video_can_be_merged(film: Path, tmp_path: Path) -> None:
    shutil.copy(film, tmp_path / "film.mp4")
    whole = seen(computed(tmp_path / "film.mp4", tmp_path / "r", 2))
    shutil.move(tmp_path / "r", tmp_path / "elsewhere")
    (tmp_path / "film.mp4").unlink()
    merge(tmp_path / "elsewhere")
    assert seen(open_run(tmp_path / "elsewhere" / "film.mp4.h5")["film.mp4"]) == whole


def write_long_film(path: Path, n_frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((48, 32), 90, np.uint8), format="yuvj420p")
        for number in range(n_frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    peaks = []
    for n_frames in (1000, 10_000):
        film = write_long_film(tmp_path / f"{n_frames}.mov", n_frames)
        run("infer", film, "--model", "uniform", "-o", tmp_path / f"r{n_frames}", "--batch-size", "32")
        heartbeat = json.loads((tmp_path / f"r{n_frames}" / "logs" / "0000.json").read_text())
        assert heartbeat["done"] == n_frames
        peaks.append(heartbeat["memory_mb"])
    assert peaks[1] < 1.05 * peaks[0]


@pytest.mark.needs_cuda
def test_cuda_sees_the_same_frames_and_gives_the_same_maps(film: Path, tmp_path: Path) -> None:
    chunks = list(stream(film, model=TELLTALE, device="cuda", batch_size=8))  # more batches than staging buffers
    rows = np.concatenate([chunk.values["seen"].cpu().numpy() for chunk in chunks])
    assert rows.tolist() == [expected(frame, N_FRAMES) for frame in range(N_FRAMES)]
    maps = {
        device: torch.cat(
            [chunk.log_density.cpu() for chunk in stream(film, model="sigmotion", device=device, batch_size=8)]
        )
        for device in ("cpu", "cuda")
    }
    torch.testing.assert_close(maps["cuda"], maps["cpu"], atol=2e-3, rtol=0)
