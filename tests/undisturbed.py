"""What a run must be in the end, whatever happened on the way."""

from __future__ import annotations

from pathlib import Path

import h5py
from program import call

N_FRAMES = 120


def assert_as_undisturbed(folder: Path, undisturbed: Path, n_tasks: int = 4) -> None:
    """film.streamsal merges into the datasets of the run that one task computed, and no temporary file is left."""
    call("merge", folder / "film.streamsal")
    call("merge", folder / "film.streamsal", "--verify")
    merged, good = (datasets(at / "film.mp4.h5") for at in (folder / "film.streamsal", undisturbed / "good.streamsal"))
    assert merged.keys() == good.keys()
    assert [name for name in good if merged[name] != good[name] and name != "shard"] == []
    assert_tidy(folder / "film.streamsal", n_tasks)


def datasets(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every dataset, by name."""
    found = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (str(item.dtype), item.shape, item[...].tobytes())

    with h5py.File(path) as h5:
        h5.visititems(note)
    return found


def assert_tidy(run_folder: Path, n_tasks: int) -> None:
    """The shards and nothing beside them, and no file that waits to be renamed."""
    shards = sorted(path.name for path in (run_folder / "shards").iterdir())
    assert shards == [f"{task:04d}.h5" for task in range(n_tasks)]
    hidden = [path.name for path in run_folder.rglob(".*")]
    assert set(hidden) <= {".plan.lock"}
    assert not [path for path in run_folder.rglob("*.part*")]
