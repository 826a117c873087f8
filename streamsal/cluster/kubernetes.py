"""The steps of a run or a study in, Kubernetes Jobs out, as documents that are proved and as YAML to read and to apply.

An array is an Indexed Job. Documents are functions of their arguments alone, and each of them is held against the rules
in `job_rules` before anybody sees it. Talks to no cluster.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .job_rules import GPU, Document, modules, problems
from .steps import Step, Submission

PRODUCT = "nvidia.com/gpu.product"  # the label that NVIDIA's feature discovery gives a node, as NVIDIA-A100-SXM4-80GB
HOPELESS = (2, 4, 65, 66)  # exit codes that another try cannot mend, see cli.py
RUN_ME_AGAIN = 75
TRIES = 3  # after other failures: out of memory, a GPU that does not work, a disk that is full
SCRATCH = "20Gi"  # of a node's own disk, for /tmp: copies of videos
NOT_ROOT = 1000  # user and group, as in the Dockerfile
GRACE_SECONDS = 120  # from TERM to KILL, for the block at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """What all pods of a submission have in common. `claim` is mounted at `mount`, where it holds everything they read
    and write; `weights` is the folder of published weights there, STREAMSAL_HOME. They run as `user` and `group`."""

    image: str
    claim: str
    mount: Path = Path("/data")
    weights: Path = Path("/data/.streamsal")
    namespace: str = ""
    user: int = NOT_ROOT
    group: int = NOT_ROOT


def manifests(submission: Submission, pods: Pods, n_tasks: int) -> dict[str, Document]:
    """A Job for each step, by its name. Raises UsageError where one of them would be refused or never run."""
    made: dict[str, Document] = {step.name: job(submission, step, pods, n_tasks) for step in submission.steps}
    for name, document in made.items():
        for problem in problems(document):
            raise UsageError(f"Kubernetes would not take the {name} of {submission.folder}: {problem}")
    return made


def job(submission: Submission, step: Step, pods: Pods, n_tasks: int) -> dict[str, Any]:
    """Of a step that is an array: an Indexed Job with an index for each task."""
    array: dict[str, Any] = {}
    if step.number is not None:
        array = {
            "completionMode": "Indexed",
            "completions": n_tasks,
            "parallelism": min(n_tasks, submission.resources.throttle or n_tasks),
            "backoffLimitPerIndex": TRIES,
            "maxFailedIndexes": n_tasks,  # one task that fails is no reason to stop the others
        }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(submission.folder, step),
            **({"namespace": pods.namespace} if pods.namespace else {}),
            "labels": {"app.kubernetes.io/name": "streamsal", "app.kubernetes.io/component": step.name},
        },
        "spec": {
            **(array or {"backoffLimit": TRIES}),
            "podReplacementPolicy": "Failed",  # a pod that is being ended still writes: no second one beside it
            "podFailurePolicy": {"rules": _rules(step)},
            "template": {"spec": _pod(submission, step, pods)},
        },
    }


def job_name(folder: Path, step: Step) -> str:
    """The same for the same folder, and another for one of the same name elsewhere."""
    plain = re.sub(r"[^a-z0-9]+", "-", folder.stem.lower()).strip("-")[:30].strip("-")
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:6]
    return "-".join(filter(None, ["s" if plain[:1].isdigit() else "", plain or "run", digest, step.name]))


def _rules(step: Step) -> list[dict[str, Any]]:
    """The first that fits decides; a failure that fits none counts, and the task is tried again."""

    def on_exit(action: str, *codes: int) -> dict[str, Any]:
        values = {"containerName": step.name, "operator": "In", "values": list(codes)}
        return {"action": action, "onExitCodes": values}

    disrupted = {"type": "DisruptionTarget", "status": "True"}  # preempted, evicted, drained: no fault of the pod
    return [
        {"action": "Ignore", "onPodConditions": [disrupted]},
        on_exit("Ignore", RUN_ME_AGAIN),
        on_exit("FailJob" if step.number is None else "FailIndex", *HOPELESS),
    ]


def _pod(submission: Submission, step: Step, pods: Pods) -> dict[str, Any]:
    words = [_literal(word) for word in (*submission.program, *step.words)]
    if step.number:
        words += [step.number, "$(JOB_COMPLETION_INDEX)"]
    elif step.number is None and step.after == "any":
        words += ["--wait"]
    environment = {
        "HOME": "/tmp",  # what libraries cache goes where anybody may write
        "STREAMSAL_HOME": _literal(str(pods.weights)),
        "OMP_NUM_THREADS": str(step.cpus),
        "MKL_NUM_THREADS": str(step.cpus),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    gets = {"cpu": str(step.cpus), "memory": quantity(step.mem), "ephemeral-storage": SCRATCH}
    if step.gpu != "none":
        gets[GPU] = "1"
    mounts = {"data": str(pods.mount), "tmp": "/tmp", "shm": "/dev/shm"}
    container = {
        "name": step.name,
        "image": pods.image,
        "command": words,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": {"requests": gets, "limits": gets},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": pods.user,
            "runAsGroup": pods.group,
            "fsGroup": pods.group,
            "fsGroupChangePolicy": "OnRootMismatch",  # else every pod would walk through the whole claim
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"affinity": _on_nodes_with(step.gpu)} if step.gpu not in ("any", "none") else {}),
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": pods.claim}},
            {"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # 64 MB by default: too few for what workers hand over
        ],
    }


def _on_nodes_with(gpu: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": PRODUCT, "operator": "In", "values": gpu.split(",")}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def _literal(word: str) -> str:
    """As Kubernetes hands it on unchanged: to it $(NAME) in a command or a value is a variable, and $$ is a $."""
    return word.replace("$", "$$")


def quantity(memory: str) -> str:
    """Memory as sbatch takes it (16G, or 16000 for megabytes) or as Kubernetes does (16Gi), for Kubernetes."""
    found = re.fullmatch(r"([1-9][0-9]*)(?:([KMGT])(?:i?B?)?)?", memory, re.IGNORECASE)
    if not found:
        raise UsageError(f"--mem {memory} is no size: write it as 16G")
    return f"{found[1]}{(found[2] or 'M').upper()}i"


def check_visible(paths: Mapping[str, str | Path], pods: Pods) -> None:
    """Raises UsageError for the first of what is named that pods cannot see."""
    for what, path in paths.items():
        if not Path(path).is_relative_to(pods.mount):
            raise UsageError(
                f"{what} {path} is not below {pods.mount}, where pods see the claim {pods.claim}: put it there, and "
                "submit where the claim is mounted at the same place, or name that place with --mount"
            )


def kubectl_lines(submission: Submission, pods: Pods, *, again: bool) -> list[str]:
    """What to type. Steps that wait for the array themselves are applied with it, unless they would hold a GPU idle."""
    kubectl = f"kubectl -n {pods.namespace}" if pods.namespace else "kubectl"
    first, *others = submission.steps
    file = {step: shlex.quote(str(submission.folder / "submit" / f"{step.name}.yaml")) for step in submission.steps}
    at_once = [first, *(step for step in others if step.after == "any" and step.gpu == "none")]
    files = " ".join(f"-f {file[step]}" for step in at_once)
    all_files = " ".join(f"-f {path}" for path in file.values())
    lines = [f"{kubectl} delete --ignore-not-found {all_files}"] if again else []
    lines.append(f"{kubectl} apply {files}")
    for before, step in zip(submission.steps, others, strict=False):
        if step not in at_once:
            lines += [_wait(kubectl, submission, before), f"{kubectl} apply -f {file[step]}"]
    return [*lines, _wait(kubectl, submission, submission.steps[-1])]


def _wait(kubectl: str, submission: Submission, step: Step) -> str:
    return f"{kubectl} wait --for=condition=complete --timeout=-1s job/{job_name(submission.folder, step)}"


def as_yaml(document: Document) -> str:
    """For people: in the order in which it was made, lists of plain values on one line, nothing by reference."""
    yaml = modules()[1]

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            return super().increase_indent(flow, False)

    def sequence(dumper: Any, items: list[Any]) -> Any:
        plain = all(not isinstance(item, (dict, list)) for item in items)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)

    Dumper.add_representer(list, sequence)
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
