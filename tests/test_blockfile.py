"""The file h5py sees is an ordinary one; the one on disk is that of the last commit."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsal.blockfile import BlockFile
from streamsal.errors import WriteError

WRITE = st.tuples(st.just("write"), st.integers(0, 60), st.binary(min_size=1, max_size=30))
OTHER = st.sampled_from([("commit",), ("reopen",), ("truncate", 10), ("truncate", 40)])


@settings(max_examples=150, deadline=None)
@given(st.lists(WRITE | OTHER, max_size=25))
def test_it_behaves_as_a_file_and_the_disk_holds_the_last_commit(steps: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        file, seen, committed = BlockFile(path), bytearray(), b""
        for step in steps:
            if step[0] == "write":
                _, offset, data = step
                offset = min(offset, len(seen))
                file.seek(offset)
                file.write(memoryview(data))
                seen[offset : offset + len(data)] = data
            elif step[0] == "truncate" and step[1] < len(seen):
                file.truncate(step[1])
                file.commit()
                del seen[step[1] :]
                committed = bytes(seen)
            elif step[0] == "commit":
                file.commit()
                committed = bytes(seen)
            elif step[0] == "reopen":
                file.close()
                file, seen = BlockFile(path), bytearray(committed)
            file.seek(0)
            assert file.read(len(seen)) == seen
            assert path.read_bytes() == committed
        file.close()


def test_growth_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """In a process of its own, because the limit on the size of files is one."""
    code = f"""
import resource
from pathlib import Path
from streamsal.blockfile import BlockFile
from streamsal.errors import WriteError
path = Path({str(tmp_path / "x")!r})
file = BlockFile(path)
file.write(b"a" * 1000)
file.commit()
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
file.seek(500)
file.write(b"b" * 2000)
for _ in range(2):
    try:
        file.commit()
    except WriteError as error:
        print(error)
file.write(b"c")
file.close()
assert path.read_bytes() == b"a" * 1000
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "larger than allowed" in done.stdout and "an earlier write failed" in done.stdout


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="the folder does not exist"):
        BlockFile(tmp_path / "nowhere" / "x")
