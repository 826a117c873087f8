"""Checkpoints and templates that models need: where they lie here, how they get here, and that they stay the same.

In: the name of an asset. Out: the path of a file whose checksum is the one it had at its first use. Knows no model, and
of what is inside a file only its format. `fetch` alone touches the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import BadInput, MissingInput, MissingWeights, WriteError
from ..files import make_folder, replacing, write_bytes
from ..locks import lock
from ..progress import Progress
from . import formats
from .assets import ASSETS, Asset, asset_named

SYNTHETIC = "synthetic"  # in place of a path: stand-in weights, see synthetic.py
SYNTHETIC_SHA256 = hashlib.sha256(b"streamsal synthetic weights, rule 1, seed 0").hexdigest()


def home() -> Path:
    """Our cache: $STREAMSAL_HOME, else streamsal/ in the user's cache folder."""
    given = os.environ.get("STREAMSAL_HOME")
    return Path(given).expanduser() if given else _user_cache() / "streamsal"


def hub() -> Path:
    """The folder of torch.hub, as it computes it, without importing torch."""
    given = os.environ.get("TORCH_HOME")
    return (Path(given).expanduser() if given else _user_cache() / "torch") / "hub"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def located(asset: Asset) -> Path | None:
    """The asset's file in our cache or in torch.hub's, if it is in one of them."""
    ours = home() / asset.file
    if ours.is_file():
        return ours
    return next((path for path in sorted(hub().glob(asset.hub)) if path.is_file()), None)


def find(name: str) -> Path:
    """The asset's file on this machine, with the checksum it had at its first use.

    Raises MissingWeights with the lines to type, BadInput where the file is another than before.
    """
    asset = asset_named(name)
    path = located(asset)
    if path is None:
        raise MissingWeights(missing(asset))
    sha256(asset, path)
    return path


def missing(*assets: Asset) -> str:
    """What to say, and what to type, where files are not here."""
    sizes = {asset: f", {asset.megabytes} MB" if asset.megabytes else "" for asset in assets}
    files = " and ".join(f"{asset.file} ({asset.about}{sizes[asset]})" for asset in assets)
    are = "is" if len(assets) == 1 else "are"
    instead = next((asset.instead for asset in assets if asset.instead), None)
    another = ", or take a model that needs no weights" if instead else ""
    lines = [f"{files} {are} not on this machine; fetch or import{another}:"]
    for asset in assets:
        lines.append(f"  streamsal weights fetch {asset.name}")
        lines.append(f"  streamsal weights import {asset.name} FILE    (downloaded elsewhere from {asset.url})")
    return "\n".join([*lines, *([f"  --model {instead}"] if instead else [])])


def checksum(path: Path) -> str:
    """sha256 of a file of weights; of one in a cache it is known from its first use, if the file has not changed.

    Raises MissingWeights where an official file is gone, MissingInput for any other.
    """
    asset = next((asset for asset in ASSETS.values() if asset.file == path.name), None)
    if asset and not path.exists():
        raise MissingWeights(missing(asset))
    return sha256(asset, path) if asset and path == located(asset) else file_sha256(path)


def sha256(asset: Asset, path: Path, *, always_hash: bool = False) -> str:
    """The file's checksum, recorded at its first use. Raises BadInput when the file is not that one any more.

    A file of the recorded place, size and time of change is not read again: a task has better things to do than to
    hash 418 MB.
    """
    known = record(asset)
    stat = path.stat()
    here = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if not always_hash and known and here.items() <= known.items():
        return known["sha256"]
    found = _checked(asset, path, f"{path} is", "put the old one back, or if the new one is right, delete {record}")
    if known is None or not here.items() <= known.items():
        formats.require(path, *asset.kinds)
        with contextlib.suppress(WriteError):  # a cache that others keep for us may be read-only
            make_folder(home())
            write_bytes(record_path(asset), (json.dumps({"sha256": found, **here}, indent=1) + "\n").encode())
    return found


def _checked(asset: Asset, path: Path, what_is: str, remedy: str) -> str:
    """A file's checksum. Raises BadInput unless it is the published one, and that of the first use, where known."""
    found = file_sha256(path)
    blob = git_blob(path) if asset.git_blob else None
    for kind, here, published in [("sha256", found, asset.sha256), ("git blob", blob, asset.git_blob)]:
        if published and here and not here.startswith(published):
            raise BadInput(
                f"{what_is} not the {asset.file} that is published ({kind} {published[:8]} there, {here[:8]} here): "
                "get it again"
            )
    first = (record(asset) or {}).get("sha256", found)
    if found != first and asset.sha256 != found:
        raise BadInput(
            f"{what_is} not the file that was first used here (sha256 {first[:8]} then, {found[:8]} now): "
            f"{remedy.format(record=record_path(asset))}"
        )
    return found


def record(asset: Asset) -> dict | None:
    try:
        return json.loads(record_path(asset).read_bytes())
    except (OSError, ValueError):
        return None


def record_path(asset: Asset) -> Path:
    return home() / f"{asset.file}.json"


def file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({error.strerror}): name a file that exists") from error


def git_blob(path: Path) -> str:
    """The name that git gives to a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def fetch(name: str, *, progress: Progress) -> Path:
    """Downloads an asset unless it is here; of many that start at once, one does and the others wait.

    Raises MissingWeights where the download fails, BadInput where something else arrives, WriteError.
    """
    asset = asset_named(name)
    if (path := located(asset)) is None:
        path = make_folder(home()) / asset.file
        with contextlib.ExitStack() as stack:
            guard = path.with_name(f".{path.name}.lock")
            if not stack.enter_context(lock(guard, wait=False)):
                progress.say(f"{asset.file}: another process is fetching it, waiting for that")
                stack.enter_context(lock(guard, wait=True))
            if located(asset) is None:
                _fetch(asset, path, progress)
    else:
        progress.say(f"{asset.file}: already here")
    sha256(asset, path)
    return path


def _fetch(asset: Asset, path: Path, progress: Progress) -> None:
    from .download import DownloadFailed, download

    url = address(asset)
    if os.environ.get("STREAMSAL_OFFLINE", "0") not in ("", "0"):
        raise MissingWeights(f"STREAMSAL_OFFLINE is set, so nothing is fetched. {missing(asset)}")
    part = path.with_name(f"{path.name}.part")
    try:
        with contextlib.ExitStack() as stack:
            for number, (done, total) in enumerate(download(url, part)):
                if number == 0:
                    bar = progress.track(asset.file, (total or 0) // 10**6, done // 10**6, unit="MB")
                    stack.enter_context(bar)
                progress.update(done // 10**6)
    except DownloadFailed as error:
        raise MissingWeights(
            f"{asset.file} could not be fetched: {error}. Try again, it resumes; or download it elsewhere and run "
            f"`streamsal weights import {asset.name} FILE`"
        ) from error
    _keep(asset, part, path)


def _keep(asset: Asset, part: Path, path: Path) -> None:
    """Gives a file that has arrived its name, if it is what was asked for; else it is removed."""
    try:
        if asset.archived:
            _unpack(asset, part)
        formats.require(part, *asset.kinds)
        if asset.sha256 or asset.git_blob or record(asset):
            sent = f"what {address(asset)} sent is"
            _checked(asset, part, sent, "if the new one is right, delete {record} and fetch again")
    except BadInput:
        part.unlink()
        raise
    os.replace(part, path)


def _unpack(asset: Asset, part: Path) -> None:
    """Puts the asset's file in the place of the archive that it came in."""
    sent = f"what {address(asset)} sent"
    try:
        with tarfile.open(part) as archive:
            member = next((one for one in archive if one.isfile() and Path(one.name).name == asset.file), None)
            inside = archive.extractfile(member) if member else None
            if inside is None:
                raise BadInput(f"{sent} is an archive without {asset.file} in it")
            with replacing(part) as whole, whole.open("wb") as file:
                shutil.copyfileobj(inside, file)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BadInput(f"{sent} is no archive, or one that is cut off: {formats.KINDS[formats.kind(part)]}") from error


def address(asset: Asset) -> str:
    """The official address, or the same path on the mirror that STREAMSAL_MIRROR names."""
    mirror = os.environ.get("STREAMSAL_MIRROR")
    return mirror.rstrip("/") + urlsplit(asset.url).path if mirror else asset.url


def import_file(name: str, source: Path) -> Path:
    """Copies a file that was downloaded elsewhere into the cache. Raises MissingInput, BadInput, WriteError."""
    asset = asset_named(name)
    formats.require(source, *asset.kinds)
    path = make_folder(home()) / asset.file
    if asset.sha256 or asset.git_blob or record(asset):
        remedy = "if the new one is right, delete {record} and import again"
        _checked(asset, source, f"{source} is", remedy)
    if not (path.exists() and path.samefile(source)):
        with replacing(path) as part:
            shutil.copyfile(source, part)
    sha256(asset, path)
    return path


def verify(name: str) -> tuple[Path, str]:
    """Reads an asset's file whole and returns its path and checksum. Raises MissingWeights, BadInput."""
    asset = asset_named(name)
    path = located(asset)
    if path is None:
        raise MissingWeights(missing(asset))
    formats.require(path, *asset.kinds)
    return path, sha256(asset, path, always_hash=True)
