"""Writes files and folders completely or not at all, reads and writes JSON, and computes fingerprints of files."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrdl.errors import ConfigError, WorkerError

if TYPE_CHECKING:
    pass


_MIB = 1 << 20
_PART = ".part"
SPILL = ".spill-"


def fingerprint(path: Path, verify: str = "fast") -> dict[str, Any]:
    """Return a fingerprint of a file. It differs if the file has changed.

    If `verify` is `fast`, it has the size, the modification time, and a hash of the first and last MiB. If `verify` is
    `full`, it has the size and a hash of all bytes.
    """
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if verify == "full":
            while block := file.read(_MIB):
                digest.update(block)
            return {"size": stat.st_size, "sha256": digest.hexdigest()}
        digest.update(file.read(_MIB))
        file.seek(max(0, stat.st_size - _MIB))
        digest.update(file.read())
    return {"size": stat.st_size, "mtime": stat.st_mtime_ns, "ends": digest.hexdigest()}


def digest(value: Any) -> str:
    """Return a short hash of a JSON-like value. Equal values have the same hash on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def building(folder: Path, resume: bool = False) -> Iterator[Path]:
    """Yield a temporary folder to write into, and rename it to `folder` at the end.

    If an error occurs, the temporary folder is removed. With `resume`, it is kept if the user stopped the work or a
    worker process died. The next call with `resume` then yields it again, with the files in it.
    """
    part = folder.parent / f".{folder.name}{_PART}"
    if not resume:
        shutil.rmtree(part, ignore_errors=True)  # a process that was killed may have left it
    part.mkdir(parents=True, exist_ok=resume)
    try:
        sweep(part)
        yield part
        sweep(part)
        os.replace(part, folder)
    except BaseException as error:
        stopped = isinstance(error, WorkerError) or not isinstance(error, Exception)  # Ctrl+C is no Exception
        if not (resume and stopped):
            shutil.rmtree(part, ignore_errors=True)
        raise


def sweep(folder: Path) -> None:
    """Remove from a folder the files that killed processes left in it.

    These are files that were never renamed, and temporary files of DuckDB.
    """
    for path in list(folder.rglob(".*")):
        if path.name.startswith(SPILL):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(_PART) and path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file to write, and rename the file to `path` once it is completely on the disk.

    Two processes may write the same `path` at the same time, since each has its own temporary file.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def free_folder(folder: Path) -> Path:
    """Check that output can be written to `folder`, which must be missing or empty. Return its absolute path.

    Raises:
        ConfigError: the path exists and is not an empty folder, or no folder can be made there.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: exists and is not an empty folder; choose another, or remove it")
    above = next(parent for parent in folder.parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ConfigError(f"--out {folder}: cannot be made, since {above} is no folder that can be written to")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value to a JSON file, completely or not at all. NaN raises ValueError, since JSON has no NaN."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return the text of a JSON file, with one key or list entry per line. NaN raises ValueError."""
    return json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """Convert a NumPy number or a path to a plain JSON value. Any other type raises TypeError."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def read_json(path: Path, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        kind: the type that the content must have, `dict` or `list`; None = any type.

    Raises:
        ConfigError: the file is missing or damaged, contains NaN, or its content is not of the type `kind`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, NaN, or thousands of brackets
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"{path}: is damaged, no JSON ({reason}); copy it again, or make it anew") from None
    if kind is not None and not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise ConfigError(f"{path}: holds {type(content).__name__}, not {expected}; copy it again, or make it anew")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
