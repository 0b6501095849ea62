"""Checks an audit trail: whether any of its lines was changed, removed, moved or added, and what the runs say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ehrdl.engine.files import read_json
from ehrdl.errors import ConfigError
from ehrdl.runs.trail import MENDED, TRAIL, hash_of_lines, hashes, own_hash, parsed, to_line

#: The manifests below a folder of runs, and the folders of predictions in a run.
_MANIFESTS = ("*/manifest.json", "*/predict/*/manifest.json")
#: An action that begins a run. Until the next entry of the run, its files may change.
_BEGINS = ("started", "resumed")


@dataclass(frozen=True)
class Trail:
    """An audit trail that was checked.

    Attributes:
        path: the file.
        entries: the entries, in order.
        lines: the line number of each entry.
        cut: the line numbers of lines that a killed process left incomplete. The entry after such lines says so.
    """

    path: Path
    entries: list[dict[str, Any]]
    lines: list[int]
    cut: list[int]


def read_trail(root: Path) -> Trail:
    """Read the audit trail of a folder of runs, and check its chain.

    Args:
        root: the folder of the runs, or the file itself.

    Raises:
        ConfigError: there is no audit trail, or a line of it was changed, removed, moved or added. The message names
            the first such line.
    """
    path = root / TRAIL if root.is_dir() else root
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a folder of runs with an {TRAIL}") from None
    trail = Trail(path, [], [], [])
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    found = [parsed(line) for line in lines]
    pending: list[bytes] = []
    for number, (line, entry) in enumerate(zip(lines, found, strict=True), start=1):
        if entry is None:
            pending.append(line)
            continue
        _check_own(path, number, line, entry)
        _check_cut(trail, number, entry, pending)
        _check_place(trail, number, entry, [other for other in found if other is not None])
        pending = []
        trail.entries.append(entry)
        trail.lines.append(number)
    if pending:
        number = len(lines) - len(pending) + 1
        raise ConfigError(
            f"{path}, line {number}: is no entry: it was changed, or its process was killed while writing"
        )
    return trail


def _check_own(path: Path, number: int, line: bytes, entry: dict[str, Any]) -> None:
    if own_hash(entry) != entry["hash"] or to_line(entry) != line + b"\n":
        raise ConfigError(f"{path}, line {number}: was changed after it had been written (entry {entry['n']})")


def _check_place(trail: Trail, number: int, entry: dict[str, Any], every: list[dict[str, Any]]) -> None:
    """Refuse an entry that does not follow the entry before it."""
    last: dict[str, Any] = trail.entries[-1] if trail.entries else {"n": 0, "hash": ""}
    if entry["previous"] == last["hash"] and entry["n"] == last["n"] + 1:
        return
    where = f"{trail.path}, line {number}"
    if any(entry["previous"] == other["hash"] for other in every if other is not last):
        raise ConfigError(f"{where}: is not in its place: entry {entry['n']} comes after entry {last['n']}")
    missing = entry["n"] - last["n"] - 1
    if missing > 0:
        lines = "1 line was" if missing == 1 else f"{missing} lines were"
        raise ConfigError(f"{where}: {lines} removed before it: entry {entry['n']} comes after entry {last['n']}")
    raise ConfigError(f"{where}: does not follow the line before it, so one of them was added or replaced")


def _check_cut(trail: Trail, number: int, entry: dict[str, Any], pending: list[bytes]) -> None:
    """Refuse incomplete lines that the entry after them does not name."""
    cut = entry.get("cut") if entry.get("action") == MENDED else None
    if (hash_of_lines(pending) if pending else None) != cut:
        line = number - len(pending)
        raise ConfigError(f"{trail.path}, line {line}: was changed, so that it is no entry any more")
    trail.cut.extend(range(number - len(pending), number))


def faults(root: Path, trail: Trail) -> Iterator[str]:
    """Yield a line for each manifest that names an entry which the trail lacks, and for each file that has changed.

    Args:
        root: the folder of the runs.
        trail: the trail of this folder.
    """
    known = {entry["hash"] for entry in trail.entries}
    for path in sorted(path for pattern in _MANIFESTS for path in root.glob(pattern)):
        named = (read_json(path, dict).get("audit") or {}).get("entry")
        if named is not None and named not in known:
            yield (
                f"{path}: names the entry {named[:12]}, which {trail.path} does not have: the end of the trail was "
                "removed, or the run was copied here from another folder"
            )
    newest = {str(entry["run"]): entry for entry in trail.entries if entry.get("run")}
    written = {
        (str(entry["run"]), name): (digest, entry["n"])
        for entry in trail.entries
        if entry.get("run")
        for name, digest in (entry.get("files") or {}).items()
    }
    for (run, name), (digest, n) in written.items():
        busy = str(newest[run]["action"]).endswith(_BEGINS)
        if not busy and hashes(root / run, [name]).get(name, digest) != digest:
            yield f"{root / run / name}: has changed since entry {n} of {trail.path}"
