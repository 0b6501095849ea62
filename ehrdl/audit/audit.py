"""Makes the leak audit of a fitted run. It changes nothing else of the run, and its result depends only on the run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ehrdl.audit.audited import Audited
from ehrdl.audit.future import probe_time
from ehrdl.audit.permuted import probe_permuted
from ehrdl.audit.shadow import probe_shadow
from ehrdl.audit.single import probe_single
from ehrdl.audit.splits import probe_splits
from ehrdl.engine.messages import say
from ehrdl.processes.signals import pending
from ehrdl.runs.leak_audit import FAIL, Check, not_verified, write_audit

#: Each probe with the names of its checks.
_PROBES: tuple[tuple[tuple[str, ...], Callable[[Audited], Check | list[Check]]], ...] = (
    (("future", "early", "own_codes"), probe_time),
    (("permuted",), probe_permuted),
    (("shadow",), probe_shadow),
    (("single",), probe_single),
    (("subjects", "persons", "rows", "notes"), probe_splits),
)


def audit(run: Audited) -> list[Check]:
    """Make every check of a fitted run, write them to `leak_audit.json`, and report those that fail.

    A check that fails does not end the run, and neither does a probe that breaks: its checks are `not verified`.
    """
    with _own_draws():
        checks = [check for names, probe in _PROBES for check in _made(names, probe, run)]
    made = [check.to_dict() for check in checks]
    write_audit(run.folder, made)
    for check in checks:
        if check.status == FAIL:
            say(f"warning: leak audit: {check.finding}")
    return checks


def _made(names: tuple[str, ...], probe: Callable[[Audited], Check | list[Check]], run: Audited) -> list[Check]:
    try:
        found = probe(run)
    except Exception as error:  # hours of fitting must not be lost to a probe, so its error becomes its result
        if pending():  # DuckDB and others turn a signal into an error of their own
            raise
        reason = " ".join(str(error).split())[:200]
        say(f"warning: leak audit: the probe of {', '.join(names)} broke ({type(error).__name__}: {reason})")
        return [not_verified(name, f"The probe broke ({type(error).__name__}: {reason}).") for name in names]
    return found if isinstance(found, list) else [found]


@contextmanager
def _own_draws() -> Iterator[None]:
    """Within the block, random numbers may be drawn. After it, every global generator continues where it was."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
