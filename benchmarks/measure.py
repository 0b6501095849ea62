"""What all benchmarks share: the memory of a process tree, a table on the screen, numbers as JSON."""

from __future__ import annotations

import json
import os
import platform
import threading
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

_SECONDS_A_LOOK = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """The most resident memory that this process and all its descendants had at the same time [MB].

    What two processes share (libraries) counts in both, so this is the most that anybody could say.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS_A_LOOK):
            self.peak_mb = max(self.peak_mb, tree_mb(os.getpid()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, tree_mb(os.getpid()))


def tree_mb(root: int) -> float:
    """Resident memory of a process and its descendants [MB]; Linux."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                pages[int(entry.name)] = int((entry / "statm").read_text().split()[1])
            except (OSError, IndexError):  # it has ended
                continue
    family = {root}
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return sum(pages.get(number, 0) for number in family) * _PAGE / 1e6


def disk_mb(folder: Path) -> int:
    """Size of all files under a folder [MB]."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {"cores": len(os.sched_getaffinity(0)), "processor": _processor(), "python": platform.python_version()}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def show(title: str, found: dict[str, Any], file: Path | None) -> None:
    """Print the numbers as a table, and write them as JSON where a file is given."""
    table = Table(title=title, show_header=False)
    for name, value in found.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    Console().print(table)
    if file:
        file.write_text(json.dumps(found | {"machine": machine()}, indent=2) + "\n", encoding="utf-8")
