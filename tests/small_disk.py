"""A fixture: a file system small enough to fill, or that can be made read-only (root ignores permissions)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own: called with mount options, again to change them."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        remount = ["-o", "remount," + options] if mounted else ["-t", "tmpfs", "-o", options, "tmpfs"]
        done = subprocess.run(["mount", *remount, folder], capture_output=True, text=True)
        if done.returncode:
            if os.environ.get("STREAMSAL_REQUIRE_TMPFS") == "1":
                pytest.fail(f"STREAMSAL_REQUIRE_TMPFS=1, and mounting a tmpfs failed: {done.stderr}")
            pytest.skip("needs the right to mount a tmpfs (STREAMSAL_REQUIRE_TMPFS=1 turns this into a failure)")
        mounted.append(folder)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", folder], check=True)
