"""The interface of a task, which reads EVENTS and returns SAMPLES with their flow chart."""

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
    """A clinical prediction task. Each task has its own file, which does not import torch."""

    name: str
    #: A ceiling for the AUROC on real data. A higher value is reported as a probable leak: no honest model reaches it.
    too_good: float | None = None
    #: Whether a simulator writes the true risk for this definition beside its events.
    simulated: bool = False

    def ceiling(self, output: str) -> float | None:
        """Return the AUROC of an output above which a leak is the likely explanation; None = no such value is known."""
        return self.too_good

    @property
    def info(self) -> TaskInfo:
        """A description of the prediction for the report. Your own task may leave it out and rely on its name."""
        title = self.name.replace("_", " ").capitalize()
        return TaskInfo(title, f"Each model gives the chance of {title.lower()}, from {{inputs}} known by then.")

    @abstractmethod
    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the cohort, its prediction times and its labels.

        Args:
            events: EVENTS, with at least the columns of `ehrdl.schema.EVENTS`. The task reads `time` (when a fact
                happened) for cohorts, labels and exclusions. `available_time` is for inputs, and tells when a note
                could be read.

        Returns:
            Samples sorted by subject_id, prediction_time and encounter_id, with `sample_id` 0…n-1 and without `split`.
        """
