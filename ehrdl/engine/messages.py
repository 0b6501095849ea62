"""What the user is told: lines and bars on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress(quiet: bool = False, rows: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error, which vanishes when it is done.

    Args:
        quiet: show nothing.
        rows: count rows and rows a second, whose total nobody knows.
    """
    from rich import progress as rich_progress
    from rich.console import Console

    class Rows(rich_progress.ProgressColumn):
        """Rows, and rows a second as soon as that is known."""

        def render(self, task: rich_progress.Task) -> str:
            return f"{task.completed:,.0f} rows  {task.speed or 0:,.0f} rows/s"

    columns: list[Any] = [rich_progress.TextColumn("{task.description}"), rich_progress.BarColumn()]
    if rows:
        columns += [Rows()]
    else:
        columns += [rich_progress.MofNCompleteColumn(), rich_progress.TimeRemainingColumn()]
    console = Console(stderr=True)
    hidden = quiet or _muted or not console.is_terminal or console.is_jupyter
    with rich_progress.Progress(
        *columns, rich_progress.TimeElapsedColumn(), console=console, transient=True, disable=hidden
    ) as bar:
        yield bar


_muted = False


def mute() -> None:
    """Say nothing from here on: this process is not the first of its run."""
    global _muted
    _muted = True


def say(line: str) -> None:
    """One line for the user, on standard error."""
    import sys

    if not _muted:
        print(line, file=sys.stderr, flush=True)


def has_terminal() -> bool:
    """Whether standard error is a terminal, which shows bars; a log has lines instead."""
    import sys

    return sys.stderr.isatty()


@contextmanager
def staged(name: str) -> Iterator[None]:
    """A stage of the work, with a line that gives its time where nobody sees a bar."""
    start = time.perf_counter()
    yield
    if not has_terminal():
        say(f"{name}: {time.perf_counter() - start:.1f} s")
