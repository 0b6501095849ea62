"""Files and folders that are written completely or not at all, JSON, and file fingerprints."""

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
    """Return a file's size, modification time and a hash of its first and last MiB (`full`: of all its bytes)."""
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
    """Return a short hash of plain values, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def building(folder: Path, resume: bool = False) -> Iterator[Path]:
    """Make a folder to write into, and rename it to `folder` at the end.

    If an error occurs, the new folder is removed. With `resume`, it is kept if the user stopped the work or a worker
    process died.
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
    """Remove the leftovers of killed processes: files that were never renamed, and temporary files of DuckDB."""
    for path in list(folder.rglob(".*")):
        if path.name.startswith(SPILL):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(_PART) and path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Provide a file to write, and rename it to `path` once all of it is on the disk.

    Two processes may write the same path at the same time.
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
    """Return the absolute path of a folder that does not exist yet, or is empty.

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
    """Write a text file whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """Convert a NumPy number or a path to plain JSON; anything else is refused rather than written as its repr."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def read_json(path: Path, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        kind: `dict` or `list`, if the content must be one.

    Raises:
        ConfigError: the file is missing or damaged, or holds NaN or something of another kind.
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
