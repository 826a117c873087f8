"""The tree that is drawn for people is the tree of classes."""

from __future__ import annotations

import inspect

from streamsal import errors
from streamsal.errors import StreamsalError


def drawn() -> dict[str, tuple[str, int]]:
    """{class: (its parent, exit code)} as in the docstring; where no code is drawn it is the parent's."""
    tree: dict[str, tuple[str, int]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        stem = line.lstrip(" │├└─")
        name, *rest = stem.split()[:2] or [""]
        if inspect.isclass(getattr(errors, name, None)):
            depth = (len(line) - len(stem)) // 4
            parent = above[depth - 1] if depth else "Exception"
            code = int(rest[0]) if rest[0].isdecimal() else tree[parent][1]
            above[depth:] = [name]
            tree[name] = parent, code
    return tree


def classes(kind: type[StreamsalError]) -> dict[str, tuple[str, int]]:
    found = {kind.__name__: (kind.__base__.__name__, kind.exit_code)} if kind.__base__ else {}
    for child in kind.__subclasses__():
        found |= classes(child)
    return found


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    assert drawn() == classes(StreamsalError)


def test_no_error_leaves_as_if_it_were_done() -> None:
    codes = {code for _, code in classes(StreamsalError).values()}
    assert min(codes) > 1  # 1: done but for some inputs
    assert errors.Interrupted.exit_code == 128 + 2  # as a shell says that SIGINT ended it
