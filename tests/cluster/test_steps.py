"""What a run asks of a cluster, whichever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from streamsal.cluster.steps import Resources, Run

RUN = Run(folder=Path("/data/talk.streamsal"), resources=Resources(gpu="v100", cpus=6, mem="20G", time="3:00:00"))


def test_a_run_is_an_array_a_merge_and_a_film_if_it_is_wanted() -> None:
    infer, merge = RUN.steps
    assert infer.number == "--task-id" and infer.gpu == "v100" and merge.number is None
    infer, merge, render = replace(RUN, resources=Resources(render=True)).steps
    assert (merge.after, render.after) == ("any", "ok")


def test_what_computes_gets_the_resources_and_what_does_not_gets_no_gpu() -> None:
    infer, merge = RUN.steps
    assert (infer.gpu, infer.cpus, infer.mem, infer.time) == ("v100", 6, "20G", "3:00:00")
    assert merge.gpu == "none" and merge.words == ("merge", "/data/talk.streamsal")
    computing = replace(RUN, second_pass=True).steps[1]
    assert computing.gpu == "v100" and computing.words[-2:] == ("--device", "cuda")
