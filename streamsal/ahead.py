"""Jobs worked on by several threads at once, their results handed over in the order of the jobs.

Memory is bounded by bytes, whatever the jobs give. This module knows nothing of videos.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Generic, TypeVar

Result = TypeVar("Result")


def in_order(
    jobs: Sequence[tuple],
    workers: Sequence[Callable[..., Generator[Result]]],
    *,
    limit_bytes: int,
    size_of: Callable[[Result], int],
) -> Generator[Result]:
    """All results of the first job, then of the second, ...; each worker has a thread of its own and takes the next
    job that nobody has.

    Results that wait for their turn hold at most `limit_bytes`, and one per worker. An error is raised when its turn
    comes; closing the generator stops the threads.
    """
    waiting = _Waiting(len(jobs), limit_bytes, size_of)

    def work(worker: Callable[..., Generator[Result]]) -> None:
        while (job := waiting.next_job()) is not None:
            try:
                with closing(worker(*jobs[job])) as results:
                    if not all(waiting.put(job, result) for result in results):
                        return
                waiting.end(job)
            except BaseException as error:
                waiting.end(job, error)
                return

    threads = [
        threading.Thread(target=work, args=(worker,), name=f"streamsal-ahead-{number}", daemon=True)
        for number, worker in enumerate(workers)
    ]
    try:
        for thread in threads:
            thread.start()
        for job in range(len(jobs)):
            yield from waiting.take(job)
    finally:
        waiting.stop()
        for thread in threads:
            thread.join()


class _Waiting(Generic[Result]):
    def __init__(self, n_jobs: int, limit: int, size_of: Callable[[Result], int]) -> None:
        self._changed = threading.Condition()
        self._n_jobs, self._limit, self._size_of = n_jobs, limit, size_of
        self._turn = self._n_taken = self._held = 0
        self._stopped = False
        self._results: dict[int, deque[Result]] = {}
        self._ended: dict[int, BaseException | None] = {}

    def next_job(self) -> int | None:
        with self._changed:
            if self._stopped or self._n_taken == self._n_jobs:
                return None
            self._n_taken += 1
            return self._n_taken - 1

    def put(self, job: int, result: Result) -> bool:
        """Wait for room and leave the result; False when nobody takes any more.

        The job whose turn it is may always leave one, so that a full memory cannot stop everything.
        """
        size = self._size_of(result)
        with self._changed:
            results = self._results.setdefault(job, deque())
            self._changed.wait_for(
                lambda: self._stopped or self._held < self._limit or (job == self._turn and not results)
            )
            if self._stopped:
                return False
            results.append(result)
            self._held += size
            self._changed.notify_all()
            return True

    def end(self, job: int, error: BaseException | None = None) -> None:
        with self._changed:
            self._ended[job] = error
            self._changed.notify_all()

    def take(self, job: int) -> Generator[Result]:
        with self._changed:
            self._turn = job
            results = self._results.setdefault(job, deque())
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: results or job in self._ended)
                if not results:
                    del self._results[job]
                    error = self._ended.pop(job)
                    break
                result = results.popleft()
                self._held -= self._size_of(result)
                self._changed.notify_all()
            yield result
        if error is not None:
            raise error

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
