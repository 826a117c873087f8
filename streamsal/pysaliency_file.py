"""A run as pysaliency reads predictions: one HDF5 file with a dataset for every frame, NAME/000123.

In flow stored frames, one at a time. `pysaliency.HDF5Model` opens what was a density, `HDF5SaliencyMapModel` the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from .blockfile import COMMIT_BYTES, BlockFile
from .errors import UsageError
from .exported import exported, read_map, why_not
from .files import replacing
from .layout import DONE, H5
from .maps import Maps
from .models.spec import Output


def write_predictions(path: Path, frames_of: Mapping[str, tuple[Maps, list[int]]], *, native: bool) -> None:
    """Write one file for any number of videos.

    Every dataset has a second name, NAME/000123.png, because pysaliency looks a stimulus up by the name of its file,
    ending included. Holes are left out: NaN is no prediction.
    """
    with replacing(path) as part:
        file = BlockFile(part)
        try:
            with h5py.File(file, "w") as h5:
                for name, (maps, frames) in frames_of.items():
                    output = exported(maps, native)
                    if len(read_map(maps, frames[0], native).shape) != 2:
                        raise UsageError(why_not(maps))
                    group = h5.create_group(name)
                    _describe(group, maps, output)
                    for frame in frames:
                        _write_frame(group, maps, frame, read_map(maps, frame, native))
                        if file.pending_bytes > COMMIT_BYTES:
                            h5.flush()
                            file.commit()
                h5.flush()
                file.commit()
        finally:
            file.close()


def _describe(group: H5, maps: Maps, output: Output) -> None:
    group.attrs.update(
        {
            "model": str(maps.info["model"]),
            "weights_sha256": str(maps.info["weights_sha256"]),
            "output": output.name,
            "units": output.units,
            "displayed_size": [maps.height, maps.width],
            "holes": maps.holes,
        }
    )


def _write_frame(group: H5, maps: Maps, frame: int, values: np.ndarray) -> None:
    row = int(np.searchsorted(maps.frame, frame))
    if maps.status[row] != DONE:
        return
    name = f"{frame:06d}"
    dataset = group.create_dataset(
        name, data=np.asarray(values, np.float32), compression="gzip", compression_opts=4, shuffle=True
    )
    dataset.attrs["pts_seconds"] = float(maps.pts_seconds[row])
    group[f"{name}.png"] = dataset  # a hard link
