"""Handles the signals that stop a run: SIGTERM, SIGHUP, Ctrl+C, and SIGUSR1, which requeues a SLURM job.

The run stops where the same command can resume, reports that in one line, and exits with 128 + the signal's number. A
signal during a training step waits until the step ends, so that the saved state is between two steps. Lightning's own
handlers would save in the middle of a step. On SIGTERM, they would end with status 0.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ehrdl.engine.messages import say
from ehrdl.processes.ranks import place

#: Signals that stop a run; SLURM sends SIGUSR1 ahead of a time limit or a preemption (`sbatch --signal`).
_NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT")
_STOPS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
#: Seconds that SLURM's controller may take to answer.
_REQUEUE_TIMEOUT = 30


class Stopped(SystemExit):
    """Raised when a signal stops the run. The exit status is 128 + the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class _State:
    """The signals to this process. `pending` is the signal that came, 0 = none. While `held`, a signal waits."""

    pending = 0
    held = False
    owner = 0  # the process that installed the handlers; its forked workers ignore the signals, and end with it
    again = ""


def _handle(number: int, _: FrameType | None) -> None:
    if os.getpid() != _State.owner:
        return
    again = _State.pending == number
    _State.pending = number
    if again or not _State.held:
        _raise(number)


def _raise(number: int) -> None:
    _State.held = False
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def pending() -> int:
    """Return the number of the signal that waits for the end of the training step; 0 = none."""
    return _State.pending


def hold() -> None:
    """From now on, make signals wait until `release`. If the same signal comes twice, it takes effect at once."""
    _State.held = True


def release(stop: bool) -> None:
    """From now on, let signals take effect at once. Called after a training step.

    Args:
        stop: whether a signal has come to any process of the run.

    Raises:
        Stopped: `stop` is true.
        KeyboardInterrupt: `stop` is true, and the signal was Ctrl+C.
    """
    _State.held = False
    if stop:
        _raise(_State.pending or signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` if a signal comes within the block, even if a library turns the signal into another error.

    If blocks are nested, only the outermost handles signals. A signal that is ignored before the block (`nohup`) stays
    ignored. Signal handlers are installed only in the main thread, because Python does not allow it in other threads.
    """
    if _State.owner == os.getpid() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPS}
    _State.owner, _State.pending, _State.held = os.getpid(), 0, False
    tell("the same command resumes")
    take_back()
    try:
        yield
    except (Exception, SystemExit) as error:
        number = error.number if isinstance(error, Stopped) else _State.pending
        if number == signal.SIGINT:  # DuckDB and others raise their own error on it
            raise KeyboardInterrupt from None
        if not number:
            raise
        last_words(number)
        raise Stopped(number) from None
    finally:
        _State.owner = 0
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def take_back() -> None:
    """Reinstall ehrdl's signal handlers, after Lightning has installed its own at the start of a fit."""
    if _State.owner == os.getpid() and threading.current_thread() is threading.main_thread():
        for number in _STOPS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, _handle)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let signals stop a Lightning fit within the block, as in `stoppable`. Ctrl+C raises KeyboardInterrupt.

    Without this, Lightning exits after Ctrl+C, and further Ctrl+C would be ignored.
    """
    with stoppable():
        handler = signal.getsignal(signal.SIGINT)
        try:
            yield
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):
                signal.signal(signal.SIGINT, handler)
                raise KeyboardInterrupt from None
            raise
        finally:
            _State.held = False


def job() -> str:
    """Return the id of the SLURM job of this process, such as 41, or 40_1 in a job array; empty = no SLURM job."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return ""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    found = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    return found if re.fullmatch(r"[0-9]+(_[0-9]+)?", found) else ""


def requeue() -> str:
    """Ask SLURM to run this job again, and return a phrase about the result. Outside of SLURM, it is empty.

    Only the first process of a job asks. Source: Lightning's SignalConnector, which calls `scontrol requeue JOB`.
    """
    if not job():
        return ""
    if place().rank:
        return f"job {job()} is requeued; "
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job()], capture_output=True, text=True, timeout=_REQUEUE_TIMEOUT, check=False
        )
        reason = "" if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        return f"scontrol requeue {job()} failed ({' '.join(reason.split())[:120]}); "
    return f"job {job()} is requeued; "


def tell(again: str) -> None:
    """Set the end of the message that `last_words` prints, which tells how to resume the run."""
    _State.again = again


def last_words(number: int = signal.SIGINT) -> None:
    """Print to standard error the one-line message that the run was stopped. On SIGUSR1, also requeue a SLURM job."""
    requeued = requeue() if number == getattr(signal, "SIGUSR1", None) else ""
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    say(f"ehrdl: stopped{by}; {requeued}{_State.again}")
