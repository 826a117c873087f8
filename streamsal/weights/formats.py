"""What a file of weights is, told by its first bytes and, of an archive, its table: whatever its name claims.

In: a path. Out: one word, and a sentence for people. Runs nothing of what is in the file and needs no torch.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from ..errors import BadInput, MissingInput

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch.save began its files with before 1.6
BEGINNINGS = {
    LEGACY: "legacy",
    b"\x93NUMPY": "npy",
    b"version https://git-lfs.github.com/": "lfs",
    b"\x1f\x8b": "gzip",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\x80": "pickle",
    b"(dp": "pickle",  # a dictionary in pickle's protocol 0, which is made of letters, and in protocol 1
    b"}q": "pickle",
}
# What is wrong with a file of each kind, and what to do about it. torch, legacy, caffe2 and npy are what we read.
KINDS = {
    "torch": "a torch checkpoint",
    "legacy": "a torch checkpoint of before 2020",
    "caffe2": "a Caffe2 checkpoint",
    "npy": "an array in a .npy file",
    "empty": "an empty file: get or make it again",
    "html": "a web page, such as servers send with errors and before a login: get the file itself",
    "lfs": "the pointer of a Git LFS file, not the file: run `git lfs pull` where it comes from",
    "gzip": "compressed with gzip: unpack it first (gunzip)",
    "truncated": "the beginning of a torch checkpoint, damaged or cut off: get or make it again",
    "zip": "a zip archive without a torch checkpoint in it",
    "safetensors": "a safetensors file: load it with that package and save the mapping with torch.save",
    "hdf5": "an HDF5 file, not a torch checkpoint",
    "pickle": "a pickle that neither torch.save nor Caffe2 wrote: it is not loaded, because it could run code",
    "text": "a text, such as servers send with errors: get the file itself",
    "unknown": "nothing known",
}


def kind(path: Path) -> str:
    """One of KINDS. Raises MissingInput where there is no readable file."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({error.strerror}): name a file that exists") from error
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    for beginning, found in BEGINNINGS.items():
        if head.startswith(beginning):
            return "caffe2" if found == "pickle" and _has_blobs(path) else found
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20:
        return "safetensors"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return "text" if text.isascii() and b"\0" not in head else "unknown"


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "truncated"  # the table of an archive is at its end
    return "torch" if any(name.endswith("/data.pkl") for name in names) else "zip"


def _has_blobs(path: Path) -> bool:
    """Whether the word under which Caffe2 keeps its tensors is among the strings of a pickle."""
    with path.open("rb") as file:
        try:
            return any(argument == "blobs" for _, argument, _ in pickletools.genops(file))
        except (ValueError, MemoryError, OverflowError):  # cut off before the word, or lengths that cannot be
            return False


def require(path: Path, *kinds: str) -> str:
    """The kind of the file. Raises BadInput, saying what it is instead, unless it is one of `kinds`."""
    found = kind(path)
    if found not in kinds:
        raise BadInput(f"{path} is not {KINDS[kinds[0]]} but {KINDS[found]}")
    return found


def check_intact(path: Path) -> None:
    """Raises BadInput where a torch checkpoint is not as it was written; PyTorch (2.11) looks at no checksum."""
    if kind(path) != "torch":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except Exception as error:  # zipfile raises anything, from EOFError to zlib.error, where bytes are wrong
        raise damaged(path, error) from error
    if wrong:
        raise damaged(path, ValueError(f"the checksum of {wrong} is another"))


def damaged(path: Path, error: Exception) -> BadInput:
    """What to say of a file that `error` ended the reading of."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return BadInput(f"{path} is damaged or cut off ({reason}): get or make it again")
