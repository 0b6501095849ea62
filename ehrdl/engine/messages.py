"""Messages to the user: lines through the logger `ehrdl`, and progress bars, both on standard error.

logging.getLogger("ehrdl").setLevel(logging.ERROR)  # silences lines and bars
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress(quiet: bool = False, rows: bool = False) -> Iterator[Progress]:
    """Show a progress bar on standard error; it vanishes when the work is done.

    Args:
        quiet: whether to show nothing.
        rows: whether to count rows and rows per second, for work with an unknown total.
    """
    from rich import progress as rich_progress
    from rich.console import Console

    class Rows(rich_progress.ProgressColumn):
        """Rows, and rows per second once known."""

        def render(self, task: rich_progress.Task) -> str:
            return f"{task.completed:,.0f} rows  {task.speed or 0:,.0f} rows/s"

    columns: list[Any] = [rich_progress.TextColumn("{task.description}"), rich_progress.BarColumn()]
    if rows:
        columns += [Rows()]
    else:
        columns += [rich_progress.MofNCompleteColumn(), rich_progress.TimeRemainingColumn()]
    console = Console(stderr=True)
    hidden = quiet or not _log.isEnabledFor(logging.INFO) or not console.is_terminal or console.is_jupyter
    with rich_progress.Progress(
        *columns, rich_progress.TimeElapsedColumn(), console=console, transient=True, disable=hidden
    ) as bar:
        yield bar


class _StandardError(logging.Handler):
    """Writes lines unchanged to the current standard error, which notebooks and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _logger() -> logging.Logger:
    logger = logging.getLogger("ehrdl")
    if not logger.handlers:
        logger.addHandler(_StandardError())
        logger.propagate = False  # otherwise each line is shown twice if the calling script also logs to standard error
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    return logger


_log = _logger()


def mute() -> None:
    """Stop reporting, because this process is not the first of its run."""
    _log.disabled = True


def say(line: str) -> None:
    """Report one line to the user; it is a warning if it begins with `warning:`, and information otherwise."""
    _log.log(logging.WARNING if line.startswith("warning:") else logging.INFO, "%s", line)


def has_terminal() -> bool:
    """Return whether standard error is a terminal, which shows progress bars; a log file gets lines instead."""
    return sys.stderr.isatty()


@contextmanager
def staged(name: str) -> Iterator[None]:
    """Time a stage of the work; its time is reported in a line if no progress bar is shown."""
    start = time.perf_counter()
    yield
    if not has_terminal():
        say(f"{name}: {time.perf_counter() - start:.1f} s")
