"""A Job that an API server would refuse is refused here, each kind of mistake by itself."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest

from streamsal.cluster.job_rules import modules, problems, rule_problems, schema_problems, versions
from streamsal.errors import UsageError

RIGHT: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "talk-merge", "namespace": "lab", "labels": {"app.kubernetes.io/name": "streamsal"}},
    "spec": {
        "completionMode": "Indexed",
        "completions": 16,
        "parallelism": 4,
        "backoffLimitPerIndex": 3,
        "maxFailedIndexes": 16,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailIndex",
                    "onExitCodes": {"containerName": "infer", "operator": "In", "values": [2, 65]},
                },
            ]
        },
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["NVIDIA-A40"]}]}
                            ]
                        }
                    }
                },
                "containers": [
                    {
                        "name": "infer",
                        "image": "registry.example:5000/lab/streamsal:0.1",
                        "command": ["streamsal", "--version"],
                        "env": [{"name": "HOME", "value": "/tmp"}],
                        "resources": {
                            "requests": {"nvidia.com/gpu": "1", "memory": "16Gi", "cpu": "500m"},
                            "limits": {"nvidia.com/gpu": "1", "memory": "16Gi", "cpu": "500m"},
                        },
                        "volumeMounts": [
                            {"name": "data", "mountPath": "/data"},
                            {"name": "shm", "mountPath": "/dev/shm"},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "lab.data"}},
                    {"name": "shm", "emptyDir": {"medium": "Memory"}},
                ],
            }
        },
    },
}
POD = "spec.template.spec"
RULES = "spec.podFailurePolicy.rules"
BOX = f"{POD}.containers.0"
NODES = f"{POD}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0"
GONE = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """A copy of that Job where the field at `path` is another, or GONE."""
    document: Any = copy.deepcopy(RIGHT)
    found, *keys = document, *path.replace("nvidia.com", "nvidia,com").split(".")
    for key in keys[:-1]:
        found = found[int(key) if isinstance(found, list) else key]
    last = keys[-1].replace("nvidia,com", "nvidia.com")
    if value is GONE:
        del found[last]
    else:
        found[int(last) if isinstance(found, list) else last] = value
    return document


def test_a_right_job_has_no_problems() -> None:
    assert list(problems(RIGHT)) == []


WRONG = [
    ("spec.completionMode", "Indxed", "completionMode 'Indxed'"),
    ("spec.podReplacementPolicy", "Faild", "podReplacementPolicy 'Faild'"),
    (f"{POD}.restartPolicy", "Sometimes", "restartPolicy 'Sometimes'"),
    (f"{RULES}.0.action", "Ignor", "action 'Ignor'"),
    (f"{RULES}.0.onPodConditions.0.status", "true", "status 'true'"),
    (f"{RULES}.1.onExitCodes.operator", "Is", "operator 'Is'"),
    (f"{NODES}.matchExpressions.0.operator", "Is", "operator 'Is'"),
    (f"{NODES}.matchExpressions.0.values", ["A 40"], "no label of a node can be 'A 40'"),
    (f"{NODES}.matchExpressions.0.values", ["A40", ""], "no label of a node can be ''"),
    (f"{POD}.volumes.1.emptyDir.medium", "Ram", "medium 'Ram'"),
    (f"{BOX}.imagePullPolicy", "Sometimes", "imagePullPolicy 'Sometimes'"),
    ("metadata.name", "Talk", "a job's name"),
    ("metadata.name", "a" * 61, "a pod's name"),
    ("metadata.namespace", "my lab", "a namespace"),
    ("metadata.labels", {"app": "my app"}, "label app"),
    (f"{BOX}.name", "infer_1", "the name of a container"),
    (f"{POD}.volumes.0.name", "shm", "is there twice: shm, shm"),
    (f"{POD}.volumes.0.persistentVolumeClaim.claimName", "My_Claim", "a claim's name"),
    ("spec.completions", GONE, "needs completions"),
    ("spec.completionMode", "NonIndexed", "are of an Indexed Job"),
    ("spec.backoffLimitPerIndex", GONE, "maxFailedIndexes needs backoffLimitPerIndex"),
    ("spec.backoffLimitPerIndex", GONE, "FailIndex needs backoffLimitPerIndex"),
    ("spec.parallelism", 17, "parallelism 17"),
    ("spec.parallelism", -1, "parallelism is negative"),
    ("spec.maxFailedIndexes", 17, "maxFailedIndexes 17"),
    ("spec.completions", 100_001, "100001 completions"),
    (f"{POD}.restartPolicy", "OnFailure", "needs restartPolicy Never"),
    ("spec.podReplacementPolicy", "TerminatingOrFailed", "needs podReplacementPolicy Failed"),
    (RULES, RIGHT["spec"]["podFailurePolicy"]["rules"][:1] * 21, "at most 20 rules"),
    (f"{RULES}.0.onPodConditions", GONE, "either onExitCodes or onPodConditions"),
    (f"{RULES}.1.onExitCodes.containerName", "merge", "names a container 'merge'"),
    (f"{RULES}.1.onExitCodes.values", [65, 2], "in order, not [65, 2]"),
    (f"{RULES}.1.onExitCodes.values", [], "in order, not []"),
    (f"{RULES}.1.onExitCodes.values", [0, 2], "exit code 0"),
    (f"{BOX}.image", "my image", "not 'my image'"),
    (f"{BOX}.resources.limits.memory", "16 GB", "no amount of memory"),
    (f"{BOX}.resources.limits.nvidia.com/gpu", "0.5", "no amount of nvidia.com/gpu"),
    (f"{BOX}.resources.limits.nvidia.com/gpu", "2", "have to be equal"),
    (f"{BOX}.volumeMounts.0.name", "disk", "a volume 'disk'"),
    (f"{BOX}.volumeMounts.0.mountPath", "data", "mounted at 'data'"),
    (f"{BOX}.volumeMounts.0.mountPath", "/", "mounted at '/'"),
    (f"{BOX}.volumeMounts.0.mountPath", "/dev/shm", "two volumes are mounted at one place"),
    (f"{BOX}.env.0.name", "1 HOME", "no name of a variable"),
    (f"{POD}.securityContext.runAsUser", 0, "runAsUser 0"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "said"), WRONG)
def test_what_schemas_let_pass_is_found(path: str, value: object, said: str) -> None:
    document = changed(path, value)
    assert [problem for problem in rule_problems(document) if said in problem]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.completion", 16, "completion"),
        ("spec.completions", "16", "spec.completions: '16' is not of type"),
        (f"{RULES}.1.action", GONE, "'action' is a required property"),
        (f"{BOX}.env.0.value", 1, "env.0.value: 1 is not of type"),
    ],
)
def test_misspelt_missing_and_mistyped_fields_are_found_by_the_schemas(path: str, value: object, said: str) -> None:
    found = list(schema_problems(changed(path, value)))
    assert len(found) == len(versions()) and all(said in problem for problem in found)


def test_schemas_are_those_of_1_29_and_all_after_it() -> None:
    assert versions()[0] == "1.29.0" and versions()[-1] == modules()[0].latest_version()
    assert len(set(versions())) == len(versions()) >= 9


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes_validate", None)
    with pytest.raises(UsageError, match=r"pip install 'streamsal\[k8s\]'"):
        list(problems(RIGHT))
