"""Processes of one training: real ones, which talk to each other by gloo."""

from __future__ import annotations

import pytest
import torch
from side_by_side import end_all, start_two

from streamsal.actions.processes import joined
from streamsal.errors import UsageError

WORLD = """
from streamsal.actions.processes import joined
from streamsal.errors import Held

def refused():
    raise Held("another has it")

with joined("cpu") as processes:
    rank = processes.rank
    print(processes.world, processes.first, processes.gathered({"rank": rank, "text": "x" * rank}))
    print(processes.any(False), processes.any(rank == 1), processes.any(True))
    print(processes.first_does(lambda: f"made by {rank}"))
    try:
        processes.first_does(refused)
    except Held as error:
        print(error)
    processes.barrier()
"""


def test_two_processes_know_of_each_other() -> None:
    (first, err), (second, _) = end_all(start_two("-c", WORLD))
    gathered = "[{'rank': 0, 'text': ''}, {'rank': 1, 'text': 'x'}]"
    same = ["False True True", "made by 0", "another has it"]
    assert first.splitlines() == [f"2 True {gathered}", *same]
    assert second.splitlines() == [f"2 False {gathered}", *same]
    assert err == ""


def test_an_error_of_one_process_ends_the_other_too() -> None:
    failing = WORLD.replace("processes.barrier()", "0 / rank if rank == 0 else processes.barrier()")
    (_, first), (_, second) = end_all(start_two("-c", failing), code=1)
    assert "ZeroDivisionError" in first
    assert "streamsal.errors.Stopped: another process of this training has ended" in second.splitlines()[-1]


def test_one_process_alone_sends_nothing() -> None:
    with joined("cpu", {}) as processes:
        assert (processes.rank, processes.world, processes.device) == (0, 1, torch.device("cpu"))
        assert processes.first and processes.gathered("x") == ["x"]
        assert processes.any(True) and not processes.any(False)
        assert processes.first_does(lambda: 3) == 3
        assert not torch.distributed.is_initialized()


def test_a_world_of_one_needs_no_master() -> None:
    with joined("cpu", {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) as processes:
        assert processes.world == 1


@pytest.mark.parametrize("world", ["2", "many"])
def test_variables_that_torchrun_has_not_set_are_no_bug(monkeypatch: pytest.MonkeyPatch, world: str) -> None:
    found = {"RANK": "0", "WORLD_SIZE": world, "LOCAL_RANK": "0"}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match="RANK is set as by torchrun, but"), joined("cpu"):
        pass


def test_several_processes_cannot_share_a_device() -> None:
    with (
        pytest.raises(UsageError, match="several processes"),
        joined("cuda:0", {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}),
    ):
        pass
