"""The interface of a task, which reads the EVENTS table and returns the SAMPLES table with a flow chart."""

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
    """A clinical prediction task: the base class of all tasks. The file of a task does not import torch."""

    name: str
    #: A ceiling for the AUROC on real data. A higher value is reported as a probable leak: no honest model reaches it.
    too_good: float | None = None
    #: Whether a simulator writes the true risk for this definition beside its events.
    simulated: bool = False

    def ceiling(self, output: str) -> float | None:
        """Return the AUROC above which a leak is the likely explanation of an output's score; None = unknown."""
        return self.too_good

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report.

        A task of your own may leave this out. Title and sentence are then made from its name.
        """
        title = self.name.replace("_", " ").capitalize()
        return TaskInfo(title, f"Each model gives the chance of {title.lower()}, from {{inputs}} known by then.")

    @abstractmethod
    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the cohort, its prediction times and its labels.

        Args:
            events: the EVENTS table, with at least the columns of `ehrdl.schema.EVENTS`. The task reads `time` (when a
                fact happened) for cohorts, labels and exclusions. `available_time` is for inputs, and tells when a note
                could be read.

        Returns:
            The SAMPLES table with the flow chart, the outputs and the notes. Samples are sorted by subject_id,
            prediction_time and encounter_id. They have `sample_id` 0…n-1, and no `split`.
        """
