"""Results on stdout: a table for people, or the same facts as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def print_facts(facts: Any, rows: Sequence[Sequence[str]], head: Sequence[str], as_json: bool) -> None:
    """A table for people, or the same facts as JSON, on stdout."""
    if as_json:
        print(json.dumps(facts, indent=1, default=str))
        return
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows] if any(head) else rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
