from __future__ import annotations

import threading

import pytest

from streamsal.ahead import in_order


def counting(job: int, n_results: int):
    for k in range(n_results):
        yield job, k


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("streamsal-ahead")]


@pytest.mark.parametrize("n_workers", [1, 2, 5])
@pytest.mark.parametrize("limit", [0, 3, 1000])
def test_results_come_in_the_order_of_the_jobs(n_workers, limit):
    jobs = [(job, (job * 7) % 5) for job in range(12)]
    results = in_order(jobs, [counting] * n_workers, limit_bytes=limit, size_of=lambda result: 1)
    assert list(results) == [(job, k) for job, n in jobs for k in range(n)]
    assert not threads_left()


def test_what_waits_is_bounded_in_bytes():
    made = threading.Semaphore(0)
    count = [0]

    def large(job: int):
        for k in range(100):
            count[0] += 1
            made.release()
            yield job, k

    results = in_order([(0,), (1,)], [large, large], limit_bytes=50, size_of=lambda result: 10)
    assert next(results) == (0, 0)
    for _ in range(8):  # one taken, five wait, and each worker holds one that it cannot leave
        assert made.acquire(timeout=10)
    assert not made.acquire(timeout=0.1)
    assert count[0] == 8
    results.close()


def test_an_error_comes_at_its_turn_and_stops_the_others():
    def failing(job: int):
        yield job
        if job == 2:
            raise OSError("job 2")
        yield job

    results = in_order([(job,) for job in range(6)], [failing] * 2, limit_bytes=100, size_of=lambda result: 1)
    assert [next(results) for _ in range(5)] == [0, 0, 1, 1, 2]
    with pytest.raises(OSError, match="job 2"):
        next(results)
    assert not threads_left()


def test_closing_stops_workers_that_wait_for_room():
    results = in_order([(0, 100), (1, 100)], [counting] * 2, limit_bytes=1, size_of=lambda result: 1)
    assert next(results) == (0, 0)
    results.close()
    assert not threads_left()
