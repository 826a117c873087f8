from __future__ import annotations

import os

import pytest

from streamsal.cores import decoders_for, usable_cores


def test_cores_are_those_the_scheduler_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert usable_cores() == 3
    for nothing in ("", "0", "many"):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", nothing)
        assert usable_cores() == len(os.sched_getaffinity(0))


def test_a_quarter_of_the_cores_decodes() -> None:
    assert [decoders_for(cores) for cores in (0, 1, 7, 8, 64)] == [1, 1, 1, 2, 4]
