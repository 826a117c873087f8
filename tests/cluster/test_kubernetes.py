"""Jobs for Kubernetes: right for every sensible submission, what they were asked to be, and readable."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsal.cluster.job_rules import modules, versions
from streamsal.cluster.kubernetes import (
    HOPELESS,
    NOT_ROOT,
    Pods,
    as_yaml,
    check_visible,
    job_name,
    kubectl_lines,
    manifests,
    quantity,
)
from streamsal.cluster.steps import Resources, Run
from streamsal.errors import UsageError

PODS = Pods(image="registry.example/streamsal:0.1", claim="lab-data")
RUN = Run(folder=Path("/data/talk.streamsal"), resources=Resources(throttle=4))
AWKWARD = Path("""/data/it's "my" $(HOME) $$x `talk` é.streamsal""")


def container(document: Any) -> Any:
    return document["spec"]["template"]["spec"]["containers"][0]


def expanded(word: str, environment: dict[str, str]) -> str:
    """What Kubernetes makes of a word of a command: $$ is a $, $(NAME) the variable's value, if there is one."""
    out, place = "", 0
    while place < len(word):
        if word.startswith("$$", place):
            out, place = out + "$", place + 2
        elif word.startswith("$(", place) and ")" in word[place:]:
            end = word.index(")", place)
            out, place = out + environment.get(word[place + 2 : end], word[place : end + 1]), end + 1
        else:
            out, place = out + word[place], place + 1
    return out


@settings(max_examples=6, deadline=None)
@given(
    name=st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=80),
    gpu=st.sampled_from(["any", "none", "NVIDIA-A40", "NVIDIA-GeForce-RTX-3090,NVIDIA-A100-SXM4-80GB"]),
    cpus=st.integers(1, 128),
    mem=st.sampled_from(["16G", "16000", "2T", "500M", "24Gi"]),
    throttle=st.integers(0, 2000),
    n_tasks=st.integers(1, 100_000),
    second_pass=st.booleans(),
)
def test_any_sensible_submission_gives_jobs_that_every_version_takes_and_yaml_that_says_the_same(
    name: str, gpu: str, cpus: int, mem: str, throttle: int, n_tasks: int, second_pass: bool
) -> None:
    """`manifests` refuses what is wrong for any of them."""
    wanted = Resources(gpu=gpu, cpus=cpus, mem=mem, throttle=throttle, render=True)
    run = Run(folder=Path("/data") / f"{name}.streamsal", resources=wanted, second_pass=second_pass)
    for step, document in zip(run.steps, manifests(run, PODS, n_tasks).values(), strict=True):
        assert modules()[1].safe_load(as_yaml(document)) == document
        command = [expanded(word, {"JOB_COMPLETION_INDEX": "7"}) for word in container(document)["command"]]
        behind = {"infer": ["--task-id", "7"], "merge": ["--wait"], "render": []}[step.name]
        assert command == ["streamsal", *step.words, *behind]


def test_an_array_is_an_indexed_job_and_a_merge_is_not() -> None:
    infer, merge = (made["spec"] for made in manifests(RUN, PODS, 16).values())
    assert (infer["completionMode"], infer["completions"], infer["parallelism"]) == ("Indexed", 16, 4)
    assert "completions" not in merge and merge["backoffLimit"] == 3


@pytest.mark.parametrize(("name", "action"), [("infer", "FailIndex"), ("merge", "FailJob")])
def test_disruption_and_75_cost_no_try_and_what_is_hopeless_is_not_tried_again(name: str, action: str) -> None:
    disrupted, again, hopeless = manifests(RUN, PODS, 16)[name]["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == again["action"] == "Ignore" and hopeless["action"] == action
    assert disrupted["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert again["onExitCodes"]["values"] == [75] and hopeless["onExitCodes"]["values"] == list(HOPELESS)


@pytest.mark.parametrize(
    ("gpu", "amount", "products"),
    [("any", "1", None), ("none", None, None), ("NVIDIA-A40,NVIDIA-L40", "1", ["NVIDIA-A40", "NVIDIA-L40"])],
)
def test_gpus(gpu: str, amount: str | None, products: list[str] | None) -> None:
    made = manifests(replace(RUN, resources=Resources(gpu=gpu)), PODS, 2)
    resources = container(made["infer"])["resources"]
    assert resources["requests"] == resources["limits"] and resources["limits"].get("nvidia.com/gpu") == amount
    assert "nvidia.com/gpu" not in container(made["merge"])["resources"]["limits"]
    terms = str(made["infer"]["spec"]["template"]["spec"].get("affinity"))
    assert str(products) in terms


def test_nobody_is_root_and_everybody_can_write_where_libraries_cache() -> None:
    for document in manifests(RUN, replace(PODS, user=1234, group=100), 2).values():
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1234
        environment = {each["name"]: each["value"] for each in container(document)["env"]}
        mounted = {each["mountPath"]: each["name"] for each in container(document)["volumeMounts"]}
        assert environment["HOME"] in mounted and environment["STREAMSAL_HOME"].startswith("/data/")
        shm = next(volume for volume in pod["volumes"] if volume["name"] == mounted["/dev/shm"])
        assert shm["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        (replace(PODS, image="my image"), "an image is named"),
        (replace(PODS, claim="My_Claim"), "a claim's name"),
        (replace(PODS, namespace="a.b"), "a namespace"),
        (replace(PODS, mount=Path("/tmp")), "two volumes are mounted at one place"),
        (replace(PODS, user=0), "runAsUser 0"),
    ],
)
def test_what_would_be_refused_is_said_in_one_sentence(pods: Pods, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        manifests(RUN, pods, 16)
    assert "\n" not in str(refused.value)


def test_jobs_of_folders_with_one_name_do_not_meet() -> None:
    infer = RUN.steps[0]
    names = {job_name(Path(folder), infer) for folder in ("/data/a/talk.streamsal", "/data/b/talk.streamsal")}
    assert len(names) == 2 and job_name(RUN.folder, infer) == job_name(RUN.folder, infer)


@pytest.mark.parametrize(("given", "is_"), [("16G", "16Gi"), ("16GB", "16Gi"), ("24Gi", "24Gi"), ("900", "900Mi")])
def test_memory_as_slurm_writes_it(given: str, is_: str) -> None:
    assert quantity(given) == is_


def test_no_memory() -> None:
    with pytest.raises(UsageError, match="--mem lots"):
        quantity("lots")


def test_what_pods_cannot_see_is_refused() -> None:
    check_visible({"run": "/data/a/b"}, PODS)
    with pytest.raises(UsageError, match="/home/me/run is not below /data, where pods see the claim lab-data"):
        check_visible({"run": "/home/me/run"}, PODS)
    with pytest.raises(UsageError, match="/database"):
        check_visible({"run": "/database/run"}, PODS)


def test_lines_apply_what_waits_by_itself_at_once_and_the_rest_after_what_it_needs() -> None:
    run = Run(folder=AWKWARD, resources=Resources(render=True))
    words = [shlex.split(line) for line in kubectl_lines(run, replace(PODS, namespace="lab"), again=True)]
    files = {step.name: str(AWKWARD / "submit" / f"{step.name}.yaml") for step in run.steps}
    assert all(line[:3] == ["kubectl", "-n", "lab"] for line in words)
    assert [line[3] for line in words] == ["delete", "apply", "wait", "apply", "wait"]
    assert words[1][4:] == ["-f", files["infer"], "-f", files["merge"]] and words[3][4:] == ["-f", files["render"]]
    assert [line[-1].rpartition("-")[2] for line in words if line[3] == "wait"] == ["merge", "render"]


def test_a_merge_that_holds_a_gpu_is_applied_only_when_it_has_work() -> None:
    lines = kubectl_lines(replace(RUN, second_pass=True), PODS, again=False)
    assert [line.split()[1] for line in lines] == ["apply", "wait", "apply", "wait"]
    assert "merge" not in lines[0] and lines[1].endswith("-infer")


def test_the_pod_in_the_documentation_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    validate, yaml = modules()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    for version in versions():
        validate.validate(yaml.safe_load(text), version, strict=True)


def test_the_image_has_the_user_that_pods_run_as_and_is_built_of_files_that_docker_may_see() -> None:
    root = Path(__file__).parents[2]
    text = (root / "Dockerfile").read_text()
    assert f"--uid {NOT_ROOT} " in text and f"\nUSER {NOT_ROOT}:{NOT_ROOT}\n" in text
    copied = [
        name.removeprefix("./") for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()
    ]
    seen = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(seen) and all((root / name).exists() for name in copied)
