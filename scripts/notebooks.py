"""Runs notebooks from top to bottom in a folder of their own and keeps what they showed: `make notebooks`.

Notebooks flow in; the same ones flow out with fresh outputs, in place or in the folder that `-o` names. What differs
from machine to machine (times, versions, ids, folders) is left out or renamed. The first cell that fails ends it all.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "docs/notebooks"
SECONDS_PER_CELL = 240
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> NotebookNode:
    """The notebook as it is after a run. Raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        places = {os.path.realpath(folder): "/home/you/films", sys.executable: "python", sys.prefix: "/home/you/venv"}
        NotebookClient(
            notebook,
            timeout=SECONDS_PER_CELL,
            startup_timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": os.path.realpath(folder)}},
            extra_arguments=["--log-level=ERROR"],  # else a remark that the loopback is not encrypted
        ).execute(env=_environment(folder))
    notebook.metadata = nbformat.from_dict(KERNEL)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02}", NotebookNode()
        for output in cell.get("outputs", ()):
            for place, name in places.items():
                if "text" in output:
                    output.text = output.text.replace(place, name)
            if "image/png" in output.get("data", ()):
                _shrink(output)
    return notebook


def _environment(folder: str) -> dict[str, str]:
    """Ours with this Python's programs first, without the scheduler, the run and the plots of the one who calls."""
    theirs = ("SLURM_", "STREAMSAL_", "JOB_COMPLETION_INDEX", "MPL")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return clean | {"PATH": path, "IPYTHONDIR": f"{folder}/.ipython"}


def _shrink(output: NotebookNode) -> None:
    """Photographs, which take far more bytes without loss, as JPEG; plots as PNG with 256 colors; no metadata."""
    exact, small = io.BytesIO(base64.b64decode(output.data.pop("image/png"))), io.BytesIO()
    picture = Image.open(exact).convert("RGB")
    picture.save(small, "JPEG", quality=85, subsampling=0, optimize=True)
    kind = "jpeg"
    if small.tell() > exact.getbuffer().nbytes / 2:
        kind, small = "png", io.BytesIO()
        picture.quantize(256).save(small, "PNG", optimize=True)
    output.data[f"image/{kind}"] = base64.b64encode(small.getvalue()).decode() + "\n"
    output.metadata = NotebookNode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run notebooks and keep what they showed.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of docs/notebooks")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="default: in place")
    arguments = parser.parse_args()
    for path in arguments.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = execute(path)
        nbformat.write(notebook, (arguments.output or path.parent) / path.name)


if __name__ == "__main__":
    main()
