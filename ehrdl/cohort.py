"""A cohort: who is predicted, with EVENTS, SAMPLES, series and notes, prepared once and kept in the cache.

Heavy libraries are imported where a step needs them, so that the command line answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ehrdl.data.config import DataConfig
from ehrdl.engine.messages import staged
from ehrdl.quality import tell
from ehrdl.schema import TaskResult
from ehrdl.tasks.common.base import Task

if TYPE_CHECKING:
    import pandas as pd

    from ehrdl.data.prepare import Prepared


@dataclass(frozen=True)
class Cohort:
    """A hospital's patients, with the predictions to make for one task.

    Attributes:
        data: where the data come from and how they become batches.
        task: what is predicted.
        prepared: SAMPLES with their split, the contents of batches, and facts for the manifest.
        result: what the task found: outputs, flow chart, notes for the report.
    """

    data: DataConfig
    task: Task
    prepared: Prepared
    result: TaskResult

    @property
    def samples(self) -> pd.DataFrame:
        """SAMPLES: one row per prediction to make, with `label_*`, `status_*`, `group_*` and `split`."""
        return self.prepared.samples

    @property
    def flow(self) -> pd.DataFrame:
        """The flow chart: each step, its rule, and the number of admissions and patients left after it."""
        import pandas as pd

        return pd.DataFrame([vars(step) for step in self.result.flow])

    @property
    def quality(self) -> pd.DataFrame:
        """The data quality findings: values that were clamped, dropped or unknown, by table and column."""
        import pandas as pd

        return pd.DataFrame(self.prepared.facts["quality"])

    def __repr__(self) -> str:
        """Return one line: the source, the task and the number of samples."""
        source = type(self.data.source).__name__
        n, subjects = len(self.samples), self.samples["subject_id"].nunique()
        return f"<Cohort {source}, {self.task.name}: {n:,} samples of {subjects:,} patients>"


def prepare(data: DataConfig, task: Task, timed: Callable[[str], AbstractContextManager[Any]] = staged) -> Cohort:
    """Prepare all that comes before fitting: EVENTS, cohort, series, notes and tokens, all kept in the cache.

    Args:
        data: where the data come from.
        task: what is predicted.
        timed: a context manager that is called with each step's name, to time the step.

    Raises:
        EhrdlError: the data cannot be used; the message gives the reason in one line.
    """
    from ehrdl.data.prepare import find_quality, find_samples, read_events
    from ehrdl.data.prepare import prepare as prepare_samples
    from ehrdl.report.screen import print_flow

    data.check()
    with timed("read"):
        events = read_events(data)
    with timed("quality"):
        findings = tell(find_quality(data, events), data.prepare.strict)
    with timed("task"):
        result = find_samples(events, task)
    print_flow(result.flow)
    with timed("prepare"):
        prepared = prepare_samples(data, events, result)
    prepared.facts["quality"] = findings
    return Cohort(data, task, prepared, result)
