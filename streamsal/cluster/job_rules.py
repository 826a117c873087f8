"""What Kubernetes demands of a Job: a document in, what is wrong with it out, without a cluster.

The schemas of kubernetes-validate know types and fields, misspelt and missing ones; they know neither the words that a
field may hold nor fields that need each other, which an API server looks at. Those rules are written out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..extras import need

Document = Mapping[str, Any]
OLDEST = "1.29"  # from which backoffLimitPerIndex, maxFailedIndexes and podReplacementPolicy need no feature gate
GPU = "nvidia.com/gpu"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
SUBDOMAIN = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?")
IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]*")
CHOICES = {
    "completionMode": ("Indexed", "NonIndexed"),
    "podReplacementPolicy": ("Failed", "TerminatingOrFailed"),
    "restartPolicy": ("Never", "OnFailure"),  # of a Job's pods
    "action": ("FailJob", "FailIndex", "Ignore", "Count"),
    "status": ("True", "False", "Unknown"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "medium": ("", "Memory"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
}
OPERATORS = {"onExitCodes": ("In", "NotIn"), "matchExpressions": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")}


def problems(document: Document) -> Iterator[str]:
    """What is wrong with a Job, one sentence each."""
    yield from schema_problems(document)
    yield from rule_problems(document)


def versions() -> list[str]:
    """Those Kubernetes versions whose schemas are here and which know all that is used."""
    known = dict.fromkeys(modules()[0].utils.all_versions())  # there are two sets of schemas of each
    return [version for version in known if _numbers(version) >= _numbers(OLDEST)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))[:2]


def schema_problems(document: Document) -> Iterator[str]:
    """What the schemas of any of these versions say against it."""
    validate = modules()[0]
    for version in versions():
        try:
            validate.validate(document, version, strict=True)
        except validate.ValidationError as error:
            where = ".".join(map(str, error.path)) or "the document"
            yield f"{where}: {error.message} (Kubernetes {version})"


def rule_problems(document: Document) -> Iterator[str]:
    """What an API server would refuse and schemas do not: names, words out of a few, fields that need each other."""
    metadata, spec = document["metadata"], document["spec"]
    pod = spec["template"]["spec"]
    yield from _wrong_choices(document)
    yield from _wrong_names(metadata, spec, pod)
    yield from _wrong_indices(spec)
    yield from _wrong_failure_policy(spec, pod)
    for container in pod["containers"]:
        yield from _wrong_container(container, pod)
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") and context.get("runAsUser") == 0:
        yield "runAsNonRoot and runAsUser 0 exclude each other: submit what does not belong to root"


def _wrong_choices(found: Any, inside: str = "") -> Iterator[str]:
    if isinstance(found, Mapping):
        for key, value in found.items():
            known = OPERATORS.get(inside) if key == "operator" else CHOICES.get(key)
            if known and isinstance(value, str) and value not in known:
                yield f"{key} {value!r} is none of {', '.join(map(repr, known))}"
            yield from _wrong_choices(value, key)
    elif isinstance(found, list):
        for value in found:
            yield from _wrong_choices(value, inside)


def _wrong_names(metadata: Document, spec: Document, pod: Document) -> Iterator[str]:
    named = {"the name of a container": [x["name"] for x in pod["containers"]]}
    named |= {"the name of a volume": [x["name"] for x in pod.get("volumes", [])]}
    for what, names in named.items():
        if len(set(names)) < len(names):
            yield f"{what} is there twice: {', '.join(names)}"
    named["a job's name"] = [metadata["name"]]
    if "namespace" in metadata:
        named["a namespace"] = [metadata["namespace"]]
    if spec.get("completionMode") == "Indexed":  # a pod's host name is NAME-INDEX
        named["a pod's name"] = [f"{metadata['name']}-{spec.get('completions', 1) - 1}"]
    for what, names in named.items():
        for name in names:
            if not LABEL.fullmatch(name):
                yield f"{what} is made of at most 63 small letters, digits and inner hyphens, not {name!r}"
    for volume in pod.get("volumes", []):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName", "claim")
        if len(claim) > 253 or not SUBDOMAIN.fullmatch(claim):
            yield f"a claim's name is made of small letters, digits, inner hyphens and dots, not {claim!r}"
    for value in _wanted_of_nodes(pod.get("affinity", {})):
        if not value or not LABEL_VALUE.fullmatch(value):
            yield f"no label of a node can be {value!r}, and no pod would ever start"
    for key, value in metadata.get("labels", {}).items():
        if not LABEL_VALUE.fullmatch(value):
            yield f"label {key} cannot be {value!r}"


def _wanted_of_nodes(affinity: Document) -> Iterator[str]:
    required = affinity.get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.get("nodeSelectorTerms", []):
        for expression in term.get("matchExpressions", []):
            yield from expression.get("values", [])


def _wrong_indices(spec: Document) -> Iterator[str]:
    indexed, completions = spec.get("completionMode") == "Indexed", spec.get("completions")
    if indexed and completions is None:
        yield "an Indexed Job needs completions"
    if not indexed and {"backoffLimitPerIndex", "maxFailedIndexes"} & set(spec):
        yield "backoffLimitPerIndex and maxFailedIndexes are of an Indexed Job"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield "maxFailedIndexes needs backoffLimitPerIndex"
    for name in ("completions", "parallelism", "backoffLimit", "backoffLimitPerIndex", "maxFailedIndexes"):
        if spec.get(name, 0) < 0:
            yield f"{name} is negative"
    if completions is not None:
        if spec.get("parallelism", 1) > completions:
            yield f"parallelism {spec['parallelism']} is more than there are completions, {completions}"
        if spec.get("maxFailedIndexes", 0) > completions:
            yield f"maxFailedIndexes {spec['maxFailedIndexes']} is more than there are completions, {completions}"
        if indexed and "backoffLimitPerIndex" in spec and completions > 100_000:
            yield f"{completions} completions are more than the 100000 of an Indexed Job with limits per index"


def _wrong_failure_policy(spec: Document, pod: Document) -> Iterator[str]:
    if "podFailurePolicy" not in spec:
        return
    rules = spec["podFailurePolicy"]["rules"]
    if pod.get("restartPolicy") != "Never":
        yield "podFailurePolicy needs restartPolicy Never"
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "podFailurePolicy needs podReplacementPolicy Failed"
    if len(rules) > 20:
        yield "podFailurePolicy has at most 20 rules"
    containers = {container["name"] for container in pod["containers"]}
    for rule in rules:
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield "a rule of podFailurePolicy has either onExitCodes or onPodConditions"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield "FailIndex needs backoffLimitPerIndex"
        codes = rule.get("onExitCodes", {"operator": "In", "values": [1]})
        if codes.get("containerName", next(iter(containers))) not in containers:
            yield f"podFailurePolicy names a container {codes['containerName']!r} that is not there"
        if not codes["values"] or codes["values"] != sorted(set(codes["values"])) or len(codes["values"]) > 255:
            yield f"exit codes are 1 to 255 different numbers in order, not {codes['values']}"
        if codes["operator"] == "In" and 0 in codes["values"]:
            yield "exit code 0 is no failure"


def _wrong_container(container: Document, pod: Document) -> Iterator[str]:
    if not IMAGE.fullmatch(container["image"]):
        yield f"an image is named as registry.example/streamsal:0.1, not {container['image']!r}"
    resources = container.get("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for what, amount in {**requests, **limits}.items():
        if not QUANTITY.fullmatch(str(amount)) or (what == GPU and not str(amount).isdecimal()):
            yield f"{amount!r} is no amount of {what}"
    if requests.get(GPU, limits.get(GPU)) != limits.get(GPU):
        yield f"{GPU} is requested as {requests[GPU]} and limited to {limits.get(GPU)}: the two have to be equal"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    mounts = container.get("volumeMounts", [])
    paths = [mount["mountPath"] for mount in mounts]
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"volumeMounts names a volume {mount['name']!r} that is not there"
    for path in paths:
        if not path.startswith("/") or ":" in path or path == "/":
            yield f"a claim cannot be mounted at {path!r}: name a folder, as /data"
    if len(set(paths)) < len(paths):
        yield f"two volumes are mounted at one place: {', '.join(paths)}"
    for word in container.get("env", []):
        if not re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", word["name"]):
            yield f"{word['name']!r} is no name of a variable"


def modules() -> tuple[Any, Any]:
    """kubernetes_validate and yaml, which comes with it. Raises UsageError."""
    need("k8s", "writing manifests", "kubernetes_validate")
    import kubernetes_validate
    import yaml

    return kubernetes_validate, yaml
