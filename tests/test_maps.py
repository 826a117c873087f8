"""What a run holds for a video reads the same from shards and merged files, and damage is named."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from films import write_film
from synthetic_run import HEIGHT, HOLES, OUTPUTS, VIDEOS, WIDTH, make_plan, make_run, values_of
from torch.nn.functional import interpolate

from streamsal.density import normalize
from streamsal.errors import BadInput, IncompleteRun
from streamsal.merge import merge, open_run
from streamsal.prepare import Request
from streamsal.prepare import make_plan as make_planned
from streamsal.store import shard_path
from streamsal.task import infer


def test_a_frame_of_another_computation_is_noticed(talks: Path) -> None:
    """The merged file vouches for what it was merged from."""
    merge(talks)
    with h5py.File(shard_path(talks, 2), "r+") as file:
        file["a__talk.mp4/log_density"][3] = 0
    with pytest.raises(BadInput, match="frame 23 "):
        open_run(talks)["a__talk.mp4"].log_density(23)


@pytest.mark.parametrize("state", ["not merged", "merged", "materialised", "one file"])
def test_a_run_reads_the_same_in_every_state(talks: Path, state: str) -> None:
    if state != "not merged":
        merge(talks, materialise=state == "materialised")
    opened = open_run(talks / "a__talk.mp4.h5" if state == "one file" else talks)
    assert opened.videos == (("a__talk.mp4",) if state == "one file" else tuple(VIDEOS))
    maps = opened["talk.mp4"]
    assert maps is opened["a__talk.mp4"] is opened[Path("/films/talk.mp4")]
    assert len(maps) == 50 and list(maps.frame) == list(range(50)) and list(maps.holes) == list(HOLES)
    assert maps.outputs == {output.name: output for output in OUTPUTS}
    assert maps.info["weights_sha256"] == "ab" * 32 and maps.info["stop"] == 50
    expected = values_of(np.arange(50))
    for frame in (0, 3, 4, 19, 20, 49):
        np.testing.assert_allclose(maps.native(frame), expected["log_density"][frame], atol=2e-2)
        np.testing.assert_array_equal(maps.output("features", frame), expected["features"][frame])
        full = maps.log_density(frame)
        assert full.shape == (HEIGHT, WIDTH) and full.dtype == np.float32
        assert abs(np.exp(full, dtype=np.float64).sum() - 1) < 1e-5
    assert np.isnan(maps.log_density(7)).all() and np.isnan(maps.output("features", 31)).all()
    opened.close()


def test_frames_are_chosen_by_number_slice_and_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.streamsal", make_plan({"a.mp4": 60}, {"a.mp4": [15, 45]}, every=3))
    maps = open_run(run)["a.mp4"]
    assert len(maps) == 20
    assert list(maps.frames(10, 30)) == [12, 15, 18, 21, 24, 27]
    assert list(maps.frames(10, 30, 6)) == [12, 18, 24]
    several = maps.log_density(slice(10, 30, 6))
    assert several.shape == (3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(several, maps.log_density([12, 18, 24]))
    np.testing.assert_array_equal(several[1], maps.log_density(np.int64(18)))
    assert [maps.at(t) for t in (-1.0, 0.0, 0.119, 0.12, 0.47, 0.48, 99.0)] == [0, 0, 0, 3, 9, 12, 57]
    with pytest.raises(ValueError, match=r"no frame 13 of a\.mp4: the run holds every 3 frames 0 to 57"):
        maps.log_density(13)
    with pytest.raises(ValueError, match="no output 'speed'"):
        maps.output("speed", 12)
    with pytest.raises(ValueError, match="is a saliency_map, no density"):
        maps.log_density(12, "saliency")
    assert maps.full_size(12, "saliency").shape == (HEIGHT, WIDTH)


def test_a_shard_missing_after_the_merge_is_named(talks: Path) -> None:
    merge(talks)
    shard_path(talks, 2).unlink()
    maps = open_run(talks)["a__talk.mp4"]
    maps.native(0)
    with pytest.raises(
        IncompleteRun, match=r"0002\.h5 is missing: run `streamsal infer .*talks\.streamsal --task-id 2`"
    ):
        maps.native(20)


def test_many_shards_are_read_with_few_files_open(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.streamsal", make_plan({"a.mp4": 30}, {"a.mp4": list(range(1, 30))}))
    merge(run)
    maps = open_run(run)["a.mp4"]
    before = len(os.listdir("/proc/self/fd"))
    for frame in maps.frames():
        maps.native(frame)
    assert len(os.listdir("/proc/self/fd")) - before <= 16


HALVES = """
import torch
from streamsal.density import normalize
from streamsal.models.spec import ModelSpec, Output, Readback, Result

READBACK = Readback(interpolation="nearest", block={block})
SPEC = ModelSpec(
    name="halves", summary="a test", licence="Apache-2.0", citation="none needed",
    outputs=(Output(name="log_density", kind="log_density", units="nats", readback=READBACK),),
)

class Model:
    spec = SPEC
    def begin(self, video):
        return video
    def step(self, batch, video):
        grid = (video.height // {block}, video.width // {block})
        maps = [torch.randn(grid, generator=torch.Generator().manual_seed(int(k)))
                for k in batch.frame[batch.present]]
        return Result(frame=batch.frame[batch.present], values={{"log_density": normalize(torch.stack(maps))}})
    def end(self, video):
        return None

def build(weights=None, *, device):
    return Model()
"""


@pytest.mark.parametrize(("size", "block"), [((64, 96), 2), ((67, 97), 2), ((75, 130), 4)])
def test_a_repeated_map_read_back_is_the_model_s_own_full_size_map(
    tmp_path: Path, size: tuple[int, int], block: int
) -> None:
    film = write_film(tmp_path / "film.mov", 3, codec="mjpeg", size=size)
    (tmp_path / "halves.py").write_text(HALVES.format(block=block))
    make_planned([film], tmp_path / "r", Request(model=str(tmp_path / "halves.py"), store_dtype="float32"))
    infer(tmp_path / "r", 0, device="cpu")
    maps = open_run(tmp_path / "r")["film.mov"]
    for frame in range(3):
        grid = (size[0] // block, size[1] // block)
        own = torch.randn(grid, generator=torch.Generator().manual_seed(frame))
        own = normalize(interpolate(normalize(own)[None, None], size, mode="nearest")[0, 0])
        np.testing.assert_array_equal(maps.log_density(frame), own.numpy())


def test_a_density_can_be_had_at_another_size(talks: Path) -> None:
    maps = open_run(talks)["a__talk.mp4"]
    small = maps.log_density(5, size=(HEIGHT // 4, WIDTH // 4))
    assert small.shape == (HEIGHT // 4, WIDTH // 4) and abs(np.exp(small, dtype=np.float64).sum() - 1) < 1e-5
    assert maps.log_density([5, 6], size=(7, 9)).shape == (2, 7, 9)
    with pytest.raises(ValueError, match="features is not one number per frame"):
        maps.scalar("features")
    assert maps.scalars == {} and maps.constants == {}
