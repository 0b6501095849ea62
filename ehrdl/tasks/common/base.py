"""The interface of a task: EVENTS in, SAMPLES with their flow chart out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ehrdl.info import TaskInfo
from ehrdl.options.bounds import Checked
from ehrdl.recorded import Recorded
from ehrdl.schema import TaskResult

if TYPE_CHECKING:
    import duckdb


class Task(Recorded, Checked, ABC, key="task"):
    """A clinical prediction task. Each task has its own file, without torch."""

    name: str
    #: An AUROC above this on real data exceeds that of any honest model, and is reported as a probable leak.
    too_good: float | None = None
    #: Whether this is the definition whose true risk a simulator writes beside its events.
    simulated: bool = False

    def ceiling(self, output: str) -> float | None:
        """The AUROC of an output above which a leak is the likely explanation; None = no such value is known."""
        return self.too_good

    @property
    def info(self) -> TaskInfo:
        """A description of the prediction for the report; your own task may rely on its name instead."""
        title = self.name.replace("_", " ").capitalize()
        return TaskInfo(title, f"Each model gives the chance of {title.lower()}, from {{inputs}} known by then.")

    @abstractmethod
    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the cohort, its prediction times and its labels.

        Args:
            events: EVENTS, with at least the columns of `ehrdl.schema.EVENTS`. The task reads `time` (when it happened)
                for cohorts, labels and exclusions. `available_time` is for inputs, and tells when a note could be read.

        Returns:
            Samples sorted by subject_id, prediction_time, encounter_id, with `sample_id` 0…n-1 and no `split` yet.
        """
