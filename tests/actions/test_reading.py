"""Windows of clips are the frames that arithmetic says, whoever decodes them, and as the old loader showed them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from films import destroy_packets, write_film, write_sound
from hypothesis import given, settings
from hypothesis import strategies as st
from telltale import read_numbers

from streamsal.actions import reading
from streamsal.actions.manifest import LabeledClip, Manifest, read_manifest
from streamsal.actions.reading import At, Order, Read, Reading, Wanted, batches, decoded, windows
from streamsal.errors import MissingInput, PlanMismatch, StreamsalError, VideoError
from streamsal.index import index_video
from streamsal.models.bilinear import thinned
from streamsal.models.classifier import prepared
from streamsal.models.design import Design

FIXTURES = Path(__file__).parents[1] / "fixtures/lowres_action"
MINI = FIXTURES / "mini_tinyvirat"
OLD = np.load(FIXTURES / "mini_tinyvirat_upstream.npz")
EIGHT = Design(classes=("x",), frames=8)


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    reading._indexes.clear()
    yield
    reading._indexes.clear()


def manifest_of(*paths: Path) -> Manifest:
    clips = (LabeledClip(id=path.name, path=path, labels=(), scene="") for path in paths)
    return Manifest(classes=("x",), clips=tuple(clips))


@pytest.fixture
def five() -> Manifest:
    return manifest_of(*sorted(MINI.rglob("*.mp4")))


def flat(found: Iterator[list[Read]]) -> list[Read]:
    return [one for some in found for one in some]


def numbers_in(path: Path, at: At, *, frames: int, order: Order = "natural") -> list[list[int]]:
    """The numbers drawn into the frames of every window."""
    found = decoded(index_video(path), at, frames=frames, order=order)
    return [read_numbers(torch.from_numpy(window)) for window in found]


@settings(deadline=None)
@given(n=st.integers(1, 200), frames=st.integers(1, 70), u=st.floats(0, 1, exclude_max=True))
def test_a_window_begins_anywhere_it_fits_and_repeats_the_last_frame_where_it_does_not(
    n: int, frames: int, u: float
) -> None:
    (window,) = windows(n, frames, u).tolist()
    start = int(u * max(n - frames + 1, 1))
    assert window == [min(start + i, n - 1) for i in range(frames)]
    assert window[-1] == start + frames - 1 if n >= frames else start == 0


@settings(deadline=None)
@given(n=st.integers(1, 200), frames=st.integers(1, 70), k=st.integers(1, 6))
def test_windows_spread_evenly_begin_with_the_first_frame_and_end_with_the_last(n: int, frames: int, k: int) -> None:
    found = windows(n, frames, k)
    assert found.shape == (k, frames) and found[0, 0] == 0
    assert k == 1 or found[-1, -1] == n - 1
    steps = np.diff(found[:, 0])
    assert k == 1 or steps.max() - steps.min() <= 1


@settings(deadline=None)
@given(n=st.integers(1, 200), frames=st.integers(1, 70))
def test_windows_one_behind_the_other_show_every_frame_and_repeat_only_the_last(n: int, frames: int) -> None:
    found = windows(n, frames, "all").ravel()
    assert found[:n].tolist() == list(range(n)) and (found[n:] == n - 1).all() and len(found) - n < frames


@settings(deadline=None)
@given(n=st.integers(1, 200), frames=st.integers(1, 70), at=st.sampled_from([0.0, 0.7, 1, 3, "all"]))
def test_the_legacy_order_shows_the_same_frames_sorted_by_their_numbers_as_text(n: int, frames: int, at: At) -> None:
    natural, legacy = windows(n + frames, frames, at), windows(n + frames, frames, at, "legacy")
    for window, as_text in zip(natural[:1].tolist(), legacy[:1].tolist(), strict=True):
        assert as_text == sorted(window, key=str)
    assert np.array_equal(np.sort(natural), np.sort(legacy))


@pytest.mark.parametrize("start", [0, 90])
def test_the_legacy_order_is_the_old_one_from_any_start(start: int) -> None:
    (found,) = windows(start + 32, 32, 0.999, "legacy")
    assert found.tolist() == OLD[f"lexicographic_order_start{start}_n32"].tolist()


@pytest.mark.parametrize(("part", "row"), [("train", 0), ("train", 1), ("test", 0), ("test", 1)])
def test_clips_look_as_the_old_loader_showed_them(part: str, row: int) -> None:
    """It re-encoded frames as JPEG, and resized them rounding to whole levels: means may differ by 0.02 of 2."""
    manifest = read_manifest(MINI / f"tiny_{part}.json")
    design = Design(classes=manifest.classes, colors="bgr", order="legacy")
    (window,) = decoded(index_video(manifest.clips[row].path), frames=32, order="legacy")
    ours = prepared(torch.from_numpy(window), design).transpose(0, 1)[:, :, ::4, ::4].numpy()
    theirs = OLD[f"{part}_{row}_video_strided"]
    assert abs(ours - theirs).mean() < 0.02
    assert abs(ours.mean((2, 3)) - theirs.mean((2, 3))).max() < 0.02
    grey = theirs[:, :, :, :6].mean((0, 2, 3))  # the left half of frame k has the level 5 k + 10
    levels = 5 * OLD["lexicographic_order_start0_n32"] + 10
    assert np.rint((np.rint((grey + 1) * 127.5) - 10) / 5).tolist() == ((levels - 10) // 5).tolist()
    assert np.array_equal(np.argsort(ours[:, :, :, :6].mean((0, 2, 3))), np.argsort(grey))
    assert np.array_equal(manifest.targets()[row], OLD[f"{part}_{row}_label"])


def test_windows_hold_the_frames_that_they_name(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 40)
    assert numbers_in(film, 0.5, frames=16) == [list(range(12, 28))]
    assert numbers_in(film, 3, frames=16) == [list(range(16)), list(range(12, 28)), list(range(24, 40))]
    assert numbers_in(film, "all", frames=32) == [list(range(32)), [*range(32, 40), *[39] * 24]]
    assert numbers_in(film, 0.0, frames=12, order="legacy") == [[0, 1, 10, 11, *range(2, 10)]]


def test_a_missing_picture_is_filled_as_the_engine_does(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.avi", 24, codec="mjpeg")
    destroy_packets(film, [5, 6, 23])
    assert numbers_in(film, 0.0, frames=24) == [[*range(5), 4, 4, *range(7, 23), 22]]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_is_read_does_not_depend_on_who_decodes_it(five: Manifest, workers: int) -> None:
    design = Design(classes=("x",), side_in=7, order="legacy")
    wanted = [
        Wanted(row=3),
        Wanted(row=0, at=0.9, flip=True),
        Wanted(row=3, at=2),
        Wanted(row=4, at="all"),
        Wanted(row=1, at=0.3),
    ]
    for _ in range(2):  # an epoch that makes the indexes and one that has them
        found = list(batches(five, wanted, design, batch=2, workers=workers))
        assert [len(some) for some in found] == [2, 2, 1]
        for one, asked in zip(flat(iter(found)), wanted, strict=True):
            whole = decoded(index_video(five.clips[asked.row].path), asked.at, frames=32, order="legacy")
            assert (one.row, one.flip, one.size) == (asked.row, asked.flip, whole.shape[2:4])
            assert np.array_equal(one.windows_ktHWC.numpy(), [[thinned(x, 7) for x in window] for window in whole])
            assert one.windows_ktHWC.shape[2:] == (14, 14, 3)
        assert set(reading._indexes) == {five.clips[row].path for row in (0, 1, 3, 4)}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("order", ["natural", "legacy"])
@pytest.mark.parametrize("at", [0.5, 2, "all"])
def test_what_is_finished_on_the_device_has_the_bits_of_whole_frames(tmp_path: Path, at: At, order: Order) -> None:
    """Films are prepared from whole frames, clips of a data set from what is left of them; holes and all."""
    film = write_film(tmp_path / "film.avi", 20, codec="mjpeg", size=(70, 96))
    destroy_packets(film, [5, 6, 19])
    design = Design(classes=("x",), frames=8, side_in=14, order=order, colors="bgr")
    ((read,),) = batches(manifest_of(film), [Wanted(row=0, at=at)], design, batch=1)
    whole = decoded(index_video(film), at, frames=8, order=order)
    assert whole.shape[2:4] == read.size == (70, 96) and read.windows_ktHWC.shape[2:4] == (28, 28)
    for left, window in zip(read.windows_ktHWC, torch.from_numpy(whole), strict=True):
        assert torch.equal(prepared(left, design, read.size), prepared(window, design))


def test_a_large_clip_is_sent_and_held_small(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 24, size=(480, 640))
    design = Design(classes=("x",), frames=24, side_in=14)
    clips = Reading(manifest_of(film), [Wanted(row=0)], design, indexes={film: index_video(film)})
    window, picture = 24 * 28 * 28 * 3, 480 * 640 * 3
    tracemalloc.start()
    try:
        sent = clips[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(sent.windows, np.ndarray) and sent.windows.nbytes == window
    assert len(pickle.dumps(sent)) < window + 10_000
    assert peak < 3 * picture  # of 24


def test_workers_that_are_spawned_read_the_same(five: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "START", "spawn")
    (here,), (there,) = (batches(five, [Wanted(row=1)], EIGHT, batch=1, workers=n) for n in (0, 1))
    assert torch.equal(here[0].windows_ktHWC, there[0].windows_ktHWC)


def test_reading_takes_no_random_numbers_from_training(five: Manifest) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    flat(batches(five, [Wanted(row=0)], EIGHT, batch=1, workers=1))
    flat(batches(five, [Wanted(row=0)], EIGHT, batch=1, workers=0))
    assert torch.equal(torch.rand(4), expected)


def test_a_thread_may_read_ahead(five: Manifest) -> None:
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(list, batches(five, [Wanted(row=0)] * 3, EIGHT, batch=2, workers=1)).result()
    assert [len(some) for some in found] == [2, 1]
    assert not multiprocessing.active_children()


@pytest.mark.filterwarnings("error")
def test_more_workers_than_cores_are_no_news(five: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    assert len(flat(batches(five, [Wanted(row=0)] * 2, EIGHT, batch=1, workers=2))) == 2


def test_nothing_wanted_is_nothing_read(five: Manifest) -> None:
    assert list(batches(five, [], EIGHT, batch=4, workers=2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_cannot_be_read_is_named_when_its_turn_comes(five: Manifest, tmp_path: Path, workers: int) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    bad = {
        tmp_path / "text.mp4": VideoError,
        write_sound(tmp_path / "sound.mp4"): VideoError,
        tmp_path / "none.mp4": MissingInput,
    }
    for path, kind in bad.items():
        manifest = replace(five, clips=(*five.clips, *manifest_of(path).clips))
        found = batches(manifest, [Wanted(row=row) for row in range(6)], EIGHT, batch=3, workers=workers)
        assert len(next(found)) == 3
        with pytest.raises(kind, match=path.name) as caught:
            next(found)
        assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_a_clip_that_changes_between_two_epochs_is_named(five: Manifest, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 12)
    manifest = manifest_of(film)
    flat(batches(manifest, [Wanted(row=0)], EIGHT, batch=1))
    write_film(film, 13)
    with pytest.raises(PlanMismatch, match=r"film\.mp4 has changed"):
        flat(batches(manifest, [Wanted(row=0)], EIGHT, batch=1))


def test_readers_who_leave_early_leave_no_workers_behind(five: Manifest) -> None:
    found = batches(five, [Wanted(row=0)] * 40, EIGHT, batch=2, workers=2)
    next(found)
    assert len(multiprocessing.active_children()) == 2
    found.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_an_error_in_one_sentence(five: Manifest) -> None:
    found = batches(five, [Wanted(row=0)] * 400, EIGHT, batch=2, workers=1)
    next(found)
    with pytest.raises(StreamsalError, match="a process that decoded clips was killed"):
        for _ in found:
            for worker in multiprocessing.active_children():
                worker.kill()
            time.sleep(0.1)  # whatever the reader does meanwhile is not disturbed


PROGRAM = """
import multiprocessing, sys, time
from pathlib import Path
from streamsal.actions.manifest import LabeledClip, Manifest
from streamsal.actions.reading import Wanted, batches
from streamsal.models.design import Design
from streamsal.signals import stop_on_signals

clip = LabeledClip(id="0", path=Path(sys.argv[1]), labels=(), scene="")
with stop_on_signals() as stop:
    manifest, design = Manifest(classes=("x",), clips=(clip,)), Design(classes=("x",), frames=8)
    found = batches(manifest, [Wanted(row=0)] * 60, design, batch=2, workers=2)
    next(found)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    while not stop():
        time.sleep(0.01)
    print(sum(1 for _ in found))
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """In a process group of its own. Its pipes end when the last of its workers has ended."""
    command = [sys.executable, "-c", PROGRAM, str(MINI / "videos/train/VIRAT_S_000001/0.mp4")]
    with subprocess.Popen(
        command, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as found:
        assert found.stdout is not None and len(found.stdout.readline().split()) == 2
        yield found


def test_signals_to_the_whole_group_stop_no_worker(program: subprocess.Popen[str]) -> None:
    """What a terminal and Slurm send; the process that reads decides, and here it reads to the end."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.killpg(program.pid, number)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out.strip(), err) == (0, "29", "")


def test_who_leaves_while_workers_read_takes_them_along() -> None:
    """The batches are still referred to when Python ends, as by the traceback of what made it end."""
    code = PROGRAM.replace("while not stop():", "sys.stderr = None; sys.exit(75)\n    while False:")
    command = [sys.executable, "-c", code, str(MINI / "videos/train/VIRAT_S_000001/0.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75, done.stderr
    assert len(done.stdout.split()) == 2


def test_workers_end_when_their_reader_is_killed(program: subprocess.Popen[str]) -> None:
    program.kill()
    out, _ = program.communicate(timeout=60)
    assert (program.returncode, out) == (-signal.SIGKILL, "")
