from __future__ import annotations

import contextlib
import io
from pathlib import Path

import av
import h5py
import numpy as np
import pytest

from streamsal.demo import TASKS, demo, largest_difference, scene_rows
from streamsal.merge import open_run
from streamsal.plan import Plan
from streamsal.sample_clip import SCENES

SIZE = {"seconds": 3, "width": 192, "height": 108}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    """What the demo prints; what it makes lies in `folder`."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        demo(folder, **SIZE)
    return text.getvalue()


def test_demo_divides_the_work_and_proves_that_it_changes_nothing(folder: Path, printed: str) -> None:
    assert "max difference to unsplit: 0\n" in printed
    divided, unsplit = folder / "clip.streamsal", folder / "clip_unsplit.streamsal"
    assert len(Plan.load(divided / "plan.json").shards) == TASKS
    assert len(Plan.load(unsplit / "plan.json").shards) == 1
    with h5py.File(divided / "clip.mp4.h5") as ours, h5py.File(unsplit / "clip.mp4.h5") as theirs:
        assert ours["log_density"][...].tobytes() == theirs["log_density"][...].tobytes()
        assert len(ours["log_density"]) == 75


def test_demo_film_has_every_frame_and_the_sound_of_the_clip(folder: Path, printed: str) -> None:
    def packets(path: Path) -> list[bytes]:
        with av.open(path) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    with av.open(folder / "clip.streamsal" / "clip.overlay.mp4") as film:
        assert sum(1 for _ in film.decode(video=0)) == 75
    assert packets(folder / "clip.streamsal" / "clip.overlay.mp4") == packets(folder / "clip.mp4")


def test_demo_prints_where_everything_is(folder: Path, printed: str) -> None:
    for name in ("clip.mp4", "clip.streamsal/clip.overlay.mp4", "clip.streamsal/clip.mp4.h5", "report.html"):
        assert (folder / name).stat().st_size
        assert str(folder / name) in printed
    assert all(kind in printed for kind in SCENES)


def test_map_finds_the_target_of_every_scene(folder: Path, printed: str) -> None:
    with open_run(folder / "clip.streamsal") as run:
        rows = scene_rows(run["clip.mp4"])
    assert [kind for kind, *_ in rows] == list(SCENES)
    for kind, _, target, peak, bits in rows:
        assert np.hypot(*np.subtract(peak, target)) < 0.2, kind
        assert bits > 1, kind


def test_demo_starts_anew_where_one_was_before(folder: Path, printed: str) -> None:
    stale = folder / "clip.streamsal" / "shards" / "0000.h5"
    stale.write_bytes(b"no shard at all")
    with contextlib.redirect_stdout(io.StringIO()) as text:
        demo(folder, **SIZE)
    assert "max difference to unsplit: 0\n" in text.getvalue()


def stored(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def test_comparison_sees_one_bit_anywhere(tmp_path: Path) -> None:
    maps = np.linspace(-9, 0, 60, dtype=np.float16).reshape(5, 3, 4)
    maps[2] = np.nan
    frame = np.arange(5)
    ours = stored(tmp_path / "ours.h5", maps=maps, frame=frame, shard=np.zeros(5, np.int32))

    def difference(**changed: np.ndarray) -> float:
        datasets = {"maps": maps, "frame": frame, "shard": np.arange(5, dtype=np.int32), **changed}
        return largest_difference(ours, stored(tmp_path / "theirs.h5", **datasets))

    last_bit = maps.copy()
    last_bit.view(np.uint16)[0, 0, 0] ^= 1
    negative_zero = maps.copy()
    negative_zero[4, 2, 3] = -0.0
    filled = np.nan_to_num(maps)

    assert difference() == 0
    assert difference(maps=last_bit) == pytest.approx(2**-7)
    assert 0 < difference(maps=negative_zero) < 1e-300
    assert difference(maps=filled) == np.inf
    assert difference(maps=maps.astype(np.float32)) == np.inf
    assert difference(frame=frame[::-1].copy()) == 4
    assert difference(more=frame) == np.inf
