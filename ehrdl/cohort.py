"""A cohort: the patients for whom predictions are made, with their prepared data, which are kept in the cache.

Large libraries are imported only inside the functions that use them, so that the command line responds at once.
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
        data: the configuration of the data: their source, and how they become batches.
        task: the task, which defines what is predicted, for whom and when.
        prepared: the prepared data: the SAMPLES table with its splits, the dataset of inputs and labels, and numbers
            for the run's manifest.
        result: the result of the task: its outputs, its flow chart, and its notes for the report.
    """

    data: DataConfig
    task: Task
    prepared: Prepared
    result: TaskResult

    @property
    def samples(self) -> pd.DataFrame:
        """The SAMPLES table: one row per prediction to make, with `label_*`, `status_*`, `group_*` and `split`."""
        return self.prepared.samples

    @property
    def flow(self) -> pd.DataFrame:
        """The flow chart of the cohort: one row per step, with its rule and the admissions and patients left."""
        import pandas as pd

        return pd.DataFrame([vars(step) for step in self.result.flow])

    @property
    def quality(self) -> pd.DataFrame:
        """The findings on data quality: values that were clamped, dropped or unknown, by table and column."""
        import pandas as pd

        return pd.DataFrame(self.prepared.facts["quality"])

    def __repr__(self) -> str:
        """Return one line: the source, the task and the number of samples."""
        source = type(self.data.source).__name__
        n, subjects = len(self.samples), self.samples["subject_id"].nunique()
        return f"<Cohort {source}, {self.task.name}: {n:,} samples of {subjects:,} patients>"


def prepare(data: DataConfig, task: Task, timed: Callable[[str], AbstractContextManager[Any]] = staged) -> Cohort:
    """Prepare the data that models are fitted on: events, cohort, time series, notes and tokens.

    The results are kept in the cache.

    Args:
        data: the configuration of the data, with their source.
        task: the task, which defines what is predicted.
        timed: a function that returns a context manager for the name of a step. The step runs inside it, to be timed.

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
