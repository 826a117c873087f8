"""Frames in the slots that the plan's grid gives them, in memory that is used in turn, a few batches ahead."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from films import write_film
from telltale import Telltale, read_numbers

from streamsal.batches import AHEAD, assemble, prefetch
from streamsal.engine import Job
from streamsal.index import VideoIndex, index_video
from streamsal.models.spec import Batch
from streamsal.prepare import plan_video
from streamsal.progress import Meter


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    return index_video(write_film(tmp_path_factory.mktemp("film") / "film.mp4", 40))


def job(index: VideoIndex, batch_size: int, *, past: int = 0, future: int = 0, **asked: int) -> Job:
    model = Telltale(past=past, future=future, device="cpu")
    video = plan_video(index, name="film.mp4", spec=model.spec, **asked)
    where = torch.device("cpu")
    return Job(index=index, video=video, model=model, batch_size=batch_size, device=where, dtype=torch.float32)


def shown(batches: Iterator[Batch]) -> list[list[int]]:
    """Numbers read from the pixels of every slot; each batch is looked at while it is valid."""
    return [read_numbers(batch.frames_nhwc) for batch in batches]


def test_batches_begin_at_absolute_frame_numbers(index: VideoIndex) -> None:
    found = list(assemble(job(index, 8, past=3), 20, 33, set(), Meter()))
    assert [batch.present for batch in found] == [slice(1, 8), slice(0, 8), slice(0, 1)]
    assert [batch.frame[batch.present].tolist() for batch in found] == [[*range(17, 24)], [*range(24, 32)], [32]]
    seconds = np.concatenate([batch.pts_seconds[batch.present] for batch in found])
    assert np.allclose(seconds, np.arange(17, 33) / 25)


def test_slots_of_others_repeat_a_neighbor(index: VideoIndex) -> None:
    assert shown(assemble(job(index, 8, past=3), 20, 33, set(), Meter())) == [
        [17, *range(17, 24)],
        [*range(24, 32)],
        [32] * 8,
    ]


def test_windows_with_gaps_are_read_one_after_another(index: VideoIndex) -> None:
    batches = assemble(job(index, 4, past=1, future=1, start=2, every=12), 2, 40, set(), Meter())
    assert shown(batches) == [[1, 2, 3, 13], [14, 15, 25, 26], [27, 37, 38, 39]]


@pytest.mark.parametrize("every", [1, 3, 12])
def test_every_selected_frame_is_wanted_of_one_shard_and_nothing_else_is(index: VideoIndex, every: int) -> None:
    work = job(index, 4, past=3, future=2, start=2, stop=39, every=every)
    borders = [work.video.selection.border(ordinal) for ordinal in (0, 2, 3, 40)]
    found = [
        frame
        for start, stop in pairwise(borders)
        for batch in assemble(work, start, stop, set(), Meter())
        for frame in batch.frame[batch.wanted].tolist()
    ]
    assert found == list(range(2, 39, every))


def test_every_batch_is_valid_while_it_is_the_newest(index: VideoIndex) -> None:
    batches = prefetch(assemble(job(index, 2), 0, 40, set(), Meter()), AHEAD)
    assert shown(batches) == [[k, k + 1] for k in range(0, 40, 2)]


def test_smaller_frames_are_averaged_in_place(index: VideoIndex) -> None:
    batch = next(assemble(job(index, 4, long_side=48), 0, 4, set(), Meter()))
    assert batch.frames_nhwc.shape == (4, 32, 48, 3) and batch.frames_nhwc.dtype == torch.uint8
    assert read_numbers(batch.frames_nhwc) == [0, 1, 2, 3]


def test_prefetch_keeps_order_and_runs_ahead_by_no_more_than_asked() -> None:
    made: list[int] = []
    reached = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            if len(made) == 4:
                reached.set()
            yield number

    items = prefetch(numbers(), 2)
    assert next(items) == 0
    assert reached.wait(10)  # one taken, two waiting, one in hand
    assert len(made) == 4
    assert list(items) == list(range(1, 20))


def test_prefetch_passes_errors_on_behind_what_came_before() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    items = prefetch(numbers(), 2)
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


def test_a_signal_that_does_not_wake_who_waits_is_answered_all_the_same() -> None:
    """Such as one that comes as the waiting begins: here it is sent to another thread, which wakes nobody either."""
    answered = threading.Event()

    def slow() -> Generator[bool]:
        time.sleep(0.3)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        yield answered.wait(60)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: answered.set())
    try:
        assert list(prefetch(slow(), 1)) == [True]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_closing_prefetch_closes_its_source_and_thread() -> None:
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = prefetch(numbers(), 2)
    next(items)
    items.close()
    assert closed.is_set()
    assert not any(thread.name == "streamsal-decode" for thread in threading.enumerate())
