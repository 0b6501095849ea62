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
    """A progress bar on standard error, which vanishes when it is done.

    Args:
        quiet: whether to show nothing.
        rows: whether to count rows and rows per second, of which the total is unknown.
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
        logger.propagate = False  # otherwise a script that logs to standard error too would show each line twice
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    return logger


_log = _logger()


def mute() -> None:
    """Report nothing from here on, because this process is not the first of its run."""
    _log.disabled = True


def say(line: str) -> None:
    """Report one line to the user; a line that begins with `warning:` is a warning, all others are information."""
    _log.log(logging.WARNING if line.startswith("warning:") else logging.INFO, "%s", line)


def has_terminal() -> bool:
    """Whether standard error is a terminal, which shows bars; a log has lines instead."""
    return sys.stderr.isatty()


@contextmanager
def staged(name: str) -> Iterator[None]:
    """A stage of the work; where no bar is seen, a line reports its time."""
    start = time.perf_counter()
    yield
    if not has_terminal():
        say(f"{name}: {time.perf_counter() - start:.1f} s")
