"""Finds the file of a hospital's table, and tells its compression from its first bytes, not from its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from ehrdl.errors import SchemaError

#: The endings of table files, in upper or lower case. If a table has several files, the first ending counts.
SUFFIXES = (".csv.gz", ".csv", ".parquet", ".csv.zst", ".csv.bz2")
READ = ", ".join(SUFFIXES)
#: The first bytes of each compression, and pyarrow's name for it.
_STREAMS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
#: The first bytes of files that are not CSV, compressed or not, each with what it is and what to do.
_OTHERS = {
    b"PK\x03\x04": "is a zip archive (an Excel file is one too); unzip it, or save the table as CSV",
    b"\xfd7zXZ\x00": "is compressed with xz; run xz -d, and gzip where space matters",
    b"PAR1": "is a Parquet file; give it the ending .parquet",
    b"\xd0\xcf\x11\xe0": "is an Excel file; save the table as CSV",
    b"\xff\xfe": "is UTF-16 text; convert the file (iconv -f utf-16 -t utf-8)",
    b"\xfe\xff": "is UTF-16 text; convert the file (iconv -f utf-16 -t utf-8)",
}
#: The advice on a file with an ending that is not read.
_ADVICE = {
    ".zip": "unzip it",
    ".xz": "run xz -d on it",
    ".lz4": "run lz4 -d on it",
    ".7z": "unpack it",
    ".tsv": "save it as a comma-separated .csv",
    ".txt": "name it .csv if it is separated by commas",
    ".dat": "name it .csv if it is separated by commas",
}


def find(root: Path, name: str) -> Path | None:
    """Return the file of a table such as `hosp/labevents` under `root`, in any letter case; None if there is none."""
    return next(iter(find_all(root, name)), None)


def find_all(root: Path, name: str) -> list[Path]:
    """Return all files of a table under `root`. The first of them is the file that ehrdl reads."""
    files = {path.name.lower(): path for path in reversed(list(_beside(root, name))) if path.is_file()}
    base = name.rpartition("/")[2].lower()
    return [files[f"{base}{suffix}"] for suffix in SUFFIXES if f"{base}{suffix}" in files]


def unread(root: Path, name: str) -> str:
    """Return a hint about a missing table if a file or folder with its name exists but cannot be read; else empty."""
    base = name.rpartition("/")[2].lower()
    for path in _beside(root, name):
        if path.name.lower() == base or path.name.lower().startswith(f"{base}."):
            kind = "is a folder" if path.is_dir() else f"is not read, since its ending is none of {READ}"
            advice = _ADVICE.get(path.suffix.lower(), "save it as .csv.gz")
            return f"{path} lies there, but {kind}; {'put the table into one file' if path.is_dir() else advice}"
    return ""


def elsewhere(root: Path, name: str) -> str:
    """Return a hint about a missing table if it is found one folder above or below its proper place; else empty."""
    folder, _, base = name.rpartition("/")
    if find(root, base):
        where = f"give the folder above it, {root.parent}" if root.name.lower() == folder else f"move it to {folder}/"
        return f"{base} lies in {root} itself; {where}"
    for inner in sorted(path for path in root.iterdir() if path.is_dir()):
        if find(inner, name):
            return f"it lies in {inner}; give that folder"
    return ""


def _beside(root: Path, name: str) -> Iterator[Path]:
    """Yield the files in the folder of a table, sorted. A folder of the exact name comes before one in another case."""
    *folders, _ = name.split("/")
    inside = [root]
    for folder in folders:
        inner = [path for above in inside for path in _listed(above) if path.name.lower() == folder and path.is_dir()]
        inside = sorted(inner, key=lambda path: path.name != folder)
    for place in inside:
        yield from _listed(place)


def _listed(folder: Path) -> list[Path]:
    """List the content of a folder, without hidden files (macOS leaves `._labevents.csv` beside a file)."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def is_parquet(path: Path) -> bool:
    """Return whether a file has the ending of a Parquet file."""
    return path.suffix.lower() == ".parquet"


def packing(path: Path) -> str | None:
    """Return pyarrow's name for the compression of a CSV file; None = not compressed.

    Raises:
        SchemaError: the file is not a CSV, or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read ({error.strerror}); copy the file again") from None
    _refuse_other(path, head)
    return next((name for mark, name in _STREAMS.items() if head.startswith(mark)), None)


def open_stream(path: Path) -> pa.NativeFile:
    """Open a CSV as a stream of decompressed bytes.

    Raises:
        SchemaError: the file is not a CSV.
    """
    return pa.input_stream(str(path), compression=packing(path))


def check_head(path: Path, head: bytes) -> None:
    """Check that the first decompressed bytes of a file are plain text, and not compressed a second time.

    Raises:
        SchemaError: the bytes are not plain text. The message names what they are.
    """
    for mark, name in _STREAMS.items():
        if head.startswith(mark):
            tool = {"gzip": "gunzip", "zstd": "unzstd", "bz2": "bunzip2"}[name]
            raise SchemaError(f"{path}: is compressed twice, the second time with {name}; run {tool} on it once")
    _refuse_other(path, head)


def stream_fault(path: Path, reason: str, after: str) -> str:
    """Explain what is wrong with a compressed file, from pyarrow's message; empty if the compression is not at fault.

    Args:
        path: the file.
        reason: pyarrow's message.
        after: where reading stopped, in words, such as `after row 500`.
    """
    if re.search("header check|compression method|no magic header|frame descriptor", reason):
        return f"something else follows the end of its {packing(path)} stream; cut that off, or copy the file again"
    if re.search("compressed stream|zlib|bz2 decompress|ZSTD decompress", reason):
        return f"the {packing(path)} stream is damaged or truncated {after}; copy the file again"
    return ""


def _refuse_other(path: Path, head: bytes) -> None:
    for mark, what in _OTHERS.items():
        if head.startswith(mark):
            raise SchemaError(f"{path}: {what}")
