"""The audit trail of a folder of runs: who did what with which data, one JSON line per action.

Each line holds the SHA-256 hash of the line before it, and its own hash over its content. A line that was changed,
removed or moved therefore shows (`ehrdl.runs.chain` checks this). A removed end of the file leaves an intact chain. For
this case, each manifest names the hash of the entry that was the newest when the manifest was written.

The chain has no secret key. Anyone who may write the file can compute a whole new chain. A copy of the newest hash in
another place shows this too. The trail names no patient.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import getpass
import hashlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import SoftFileLock, Timeout

from ehrdl.engine.messages import say
from ehrdl.runs.folder import git_hash, installed_version

#: The file, in the folder that holds the runs.
TRAIL = "audit.jsonl"
#: The action of the entry that follows a line which a killed process left incomplete.
MENDED = "mended"
#: The bytes at the end of the file in which the newest intact line is looked for.
_TAIL = 1 << 20
_MODE = 0o664
#: Errors of file systems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_SOFT_LOCK_S = 20.0


def enter(root: Path, action: str, facts: dict[str, Any], create: bool = False) -> str | None:
    """Add an entry to the audit trail in the folder `root`. If the trail cannot be written, print a line instead.

    Args:
        root: the folder that holds the runs.
        action: what was done, such as `train finished`.
        facts: further facts as plain values: the run's name, source, data, config and the hashes of written files.
        create: whether to begin a trail if there is none. Otherwise nothing is written where no trail was kept.

    Returns:
        The hash of the new entry; None = nothing was written.
    """
    path = root / TRAIL
    if not (create or path.is_file()):
        return None
    try:
        return _append(path, _who() | {"action": action} | facts)
    except (OSError, Timeout) as error:
        reason = getattr(error, "strerror", None) or error
        say(f"note: {path}: cannot be written to ({reason}), so this is not in the audit trail: {action}")
        return None


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 hash of each of the named files in a folder that exists, by name."""
    found = {}
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def files_of(run: Path, folder: Path, found: dict[str, str]) -> dict[str, Any]:
    """Return the keys `run` and `files` of an entry about files that were made from a run.

    Args:
        run: the run's folder.
        folder: the folder of the files, in the run's folder or anywhere else.
        found: the hashes of the files, by their names in `folder`.
    """
    run, folder = run.resolve(), folder.resolve()
    place = folder.relative_to(run) if folder.is_relative_to(run) else folder
    return {"run": run.name, "files": {(place / name).as_posix(): found[name] for name in found}}


def own_hash(entry: dict[str, Any]) -> str:
    """Return the SHA-256 hash of an entry: of its canonical JSON, without the key `hash`.

    >>> own_hash({"n": 1, "hash": "any"}) == hashlib.sha256(b'{"n":1}').hexdigest()
    True
    """
    content = {key: value for key, value in entry.items() if key != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def to_line(entry: dict[str, Any]) -> bytes:
    """Return the line of an entry, as it is written to the file."""
    return json.dumps(entry).encode() + b"\n"


def hash_of_lines(lines: list[bytes]) -> str:
    """Return the SHA-256 hash of incomplete lines, which the entry after them names as `cut`."""
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the entry in a line; None if the line holds no entry, since it was cut or overwritten."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_entry = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("hash", "previous"))
    return entry if is_entry and isinstance(entry.get("n"), int) else None


def _who() -> dict[str, Any]:
    """Return the facts of every entry: time, user, machine, command and version."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = ""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "user": user,
        "uid": os.getuid(),
        "host": socket.gethostname(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "ehrdl": installed_version("ehrdl"),
        "git": _commit(),
    }


@functools.cache
def _commit() -> str | None:
    """Return the commit of the code, which does not change while a process runs."""
    return git_hash()


def _append(path: Path, facts: dict[str, Any]) -> str:
    """Append an entry after the newest one, while no other process appends, and return its hash."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _MODE)
    try:
        with _locked(path, file):
            size = os.fstat(file).st_size
            tail = os.pread(file, _TAIL, max(0, size - _TAIL))
            if tail and not tail.endswith(b"\n"):
                os.write(file, b"\n")
            newest, cut = _newest(tail.removesuffix(b"\n").split(b"\n") if tail else [])
            if cut:
                newest = _write(file, _who() | {"action": MENDED, "cut": hash_of_lines(cut)}, newest)
            entry = _write(file, facts, newest)
            os.fsync(file)
    finally:
        os.close(file)
    return str(entry["hash"])


def _write(file: int, facts: dict[str, Any], newest: dict[str, Any] | None) -> dict[str, Any]:
    n, previous = (newest["n"] + 1, newest["hash"]) if newest else (1, "")
    entry = {"n": n} | facts | {"previous": previous}
    entry["hash"] = own_hash(entry)
    os.write(file, to_line(entry))
    return entry


def _newest(lines: list[bytes]) -> tuple[dict[str, Any] | None, list[bytes]]:
    """Return the newest entry in some lines, and the incomplete lines after it."""
    for i, line in reversed(list(enumerate(lines))):
        if (entry := parsed(line)) is not None:
            return entry, lines[i + 1 :]
    return None, lines


@contextmanager
def _locked(path: Path, file: int) -> Iterator[None]:
    """Within the block, let no other process append. A file system without locks gets a lock file instead."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        with SoftFileLock(path.with_name(f".{path.name}.lock"), timeout=_SOFT_LOCK_S):
            yield
        return
    yield  # the lock ends when the file is closed
