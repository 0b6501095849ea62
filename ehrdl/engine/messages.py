"""Messages to the user on standard error: lines through the logger `ehrdl`, and progress bars.

To silence both: `logging.getLogger("ehrdl").setLevel(logging.ERROR)`.
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
    """Show a progress bar on standard error. The bar disappears when the work is done.

    Args:
        quiet: whether to show no bar.
        rows: whether the bar shows the number of rows done and the rows per second, for work with an unknown total.
            Otherwise it shows how many of all items are done, and the remaining time.
    """
    from rich import progress as rich_progress
    from rich.console import Console

    class Rows(rich_progress.ProgressColumn):
        """A column of the progress bar with the number of rows done and the rows per second."""

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
    """Silence all messages of this process. If several processes share a run, only the first of them reports."""
    _log.disabled = True


def say(line: str) -> None:
    """Show one line to the user. A line that begins with `warning:` is a warning, and any other line is information."""
    _log.log(logging.WARNING if line.startswith("warning:") else logging.INFO, "%s", line)


def has_terminal() -> bool:
    """Return whether standard error is a terminal. A terminal shows progress bars; a log file gets lines instead."""
    return sys.stderr.isatty()


@contextmanager
def staged(name: str) -> Iterator[None]:
    """Measure the time of a stage of the work. Report it in a line if standard error is not a terminal."""
    start = time.perf_counter()
    yield
    if not has_terminal():
        say(f"{name}: {time.perf_counter() - start:.1f} s")
