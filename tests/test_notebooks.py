"""The notebooks run from top to bottom, and what is committed is what they say, short and the same on every machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
MAX_BYTES = 300_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(?!home/you/)\w[\w.-]*/\w")
ADDRESS_OR_ESCAPE = re.compile(r"0x[0-9a-f]{6,}|\x1b")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """Of every code cell, what it showed: (stdout, stderr or a kind of data, the text; of a picture nothing)."""

    def of_output(output: dict[str, Any]) -> list[tuple[str, str]]:
        if output["output_type"] == "stream":
            return [(output["name"], "".join(output["text"]))]
        assert output["output_type"] in ("display_data", "execute_result")
        return [(kind, "" if "image" in kind else "".join(text)) for kind, text in output["data"].items()]

    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[shown for output in cell["outputs"] for shown in of_output(output)] for cell in cells]


def worded(shown: list[list[tuple[str, str]]]) -> list[list[tuple[str, str]]]:
    """Without numbers, which may differ by rounding from machine to machine, and the spaces that align them."""

    def words(kind: str, text: str) -> tuple[str, str]:
        kind = "image" if kind.startswith("image/") else kind
        return kind, " ".join(re.sub(r"[-+]?\d[\d.,%]*(e[-+]?\d+)?", "#", text).split())

    return [[words(kind, text) for kind, text in cell] for cell in shown]


@pytest.mark.needs_notebooks
@every_notebook
def test_a_notebook_runs_and_says_what_is_committed(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/notebooks.py"), str(path), "-o", str(tmp_path)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # on busy cores threads only wait for each other
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=one_thread)
    assert done.returncode == 0, done.stderr
    committed, now = (json.loads(each.read_text()) for each in (path, tmp_path / path.name))
    assert worded(outputs(now)) == worded(outputs(committed)), "run `make notebooks`, and look at what has changed"


@every_notebook
def test_what_is_committed_was_run_in_order_and_did_not_fail(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert any("image" in kind for cell in outputs(notebook) for kind, _ in cell)


@every_notebook
def test_what_is_committed_is_small_and_knows_no_machine(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    notebook = json.loads(path.read_text())
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert all(cell["metadata"] == {} and cell["id"] == f"cell-{i:02}" for i, cell in enumerate(notebook["cells"]))
    for cell in outputs(notebook):
        for _, text in cell:
            assert not ABSOLUTE_PATH.search(text) and not ADDRESS_OR_ESCAPE.search(text), text


@every_notebook
def test_links_lead_somewhere(path: Path) -> None:
    notebook = json.loads(path.read_text())
    prose = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)#]+)\)", prose)
    assert targets
    for target in targets:
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"first_run", "evaluation", "cluster"}
