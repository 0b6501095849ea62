"""A task that joins several tasks: it has the outputs and the samples of all of them.

One network with one head can then learn all outputs together. Tasks are joined on patient, stay and prediction time, so
they must predict at the same moments. For example, `heart_failure` and `length_of_stay` predict 24 hours after an
admission.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.info import TaskInfo
from ehrdl.schema import FlowStep, OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task

if TYPE_CHECKING:
    import duckdb

_KEY = ["subject_id", "prediction_time", "encounter_id"]
_NOT_ASKED = "not_asked"


class Joint(Task):
    """Several tasks joined as one task, for a model that learns their outputs together."""

    def __init__(self, tasks: list[Task]) -> None:
        """Choose the tasks.

        Args:
            tasks: the tasks, at least two, with different names for their outputs. A sample of any of them is a sample
                of the joint task. If another task lacks the sample, the labels of its outputs are unknown there, and
                their status is `not_asked`. Codes that one task hides from the models are hidden for all.

        Raises:
            ConfigError: there are fewer than two tasks.
        """
        if len(tasks) < 2:
            raise ConfigError(f"task.tasks: {len(tasks)} task; give at least two, or name it as the task itself")
        self.tasks = list(tasks)
        self.name = "_and_".join(task.name for task in tasks)
        self._of: dict[str, Task] = {}

    @property
    def info(self) -> TaskInfo:
        """The titles and the sentences of all tasks, which describe the prediction in the report."""
        infos = [task.info for task in self.tasks]
        names = _tell_apart([task.name for task in self.tasks])
        facts = {
            f"{name}.{key}": text for name, info in zip(names, infos, strict=True) for key, text in info.facts.items()
        }
        return TaskInfo(
            ", ".join(info.title for info in infos),
            " ".join(info.sentence for info in infos),
            " ".join(f"{info.title}: {info.outcome}" for info in infos if info.outcome),
            {"samples": "Samples: {*}."} | facts,
        )

    def ceiling(self, output: str) -> float | None:
        """Return the AUROC above which a leak is the likely explanation of an output's score; None = unknown.

        It is the value of the task that the output belongs to. It is known only after a call of `label`.
        """
        task = self._of.get(output)
        return task.ceiling(output) if task else None

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the samples of every task, and join them on patient, stay and prediction time.

        Args:
            events: the EVENTS table, with the codes that each of the tasks needs.

        Returns:
            One sample for each patient, stay and prediction time of any task. The flow chart lists the steps of the
            first task, then those of the next.

        Raises:
            ConfigError: two tasks have an output of the same name, or a task shares no prediction time with the others.
            SchemaError: a task finds no sample, or has two samples of one stay at one time.
        """
        results = [task.label(events) for task in self.tasks]
        names = _tell_apart([task.name for task in self.tasks])
        outputs = self._outputs(results)
        samples, shared = _join(names, results)
        hidden = dict.fromkeys(code for result in results for code in result.hidden_codes)
        steps = [replace(step, task=name) for name, part in zip(names, results, strict=True) for step in part.flow]
        steps.append(_last_step(samples))
        notes = _notes(names, results, len(samples), shared)
        auxiliary = [output for result in results for output in result.auxiliary]
        samples = _ordered(samples, [*outputs, *auxiliary])
        return TaskResult(samples, steps, outputs, tuple(hidden), notes, auxiliary)

    def _outputs(self, results: list[TaskResult]) -> list[OutputSpec]:
        owner: dict[str, Task] = {}
        for task, result in zip(self.tasks, results, strict=True):
            for output in [*result.outputs, *result.auxiliary]:
                if output.name in owner:
                    raise ConfigError(
                        f"task.tasks: {owner[output.name].name} and {task.name} both have an output "
                        f"{output.name}; give one of them another name, or leave it out"
                    )
                owner[output.name] = task
        self._of = owner
        return [output for result in results for output in result.outputs]


def _tell_apart(names: list[str]) -> list[str]:
    """Return the names of the tasks, numbered if a task occurs more than once."""
    return [f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _join(names: list[str], results: list[TaskResult]) -> tuple[pd.DataFrame, int]:
    """Join the SAMPLES of all tasks, and count the samples that every task has."""
    joined = pd.DataFrame()
    for name, result in zip(names, results, strict=True):
        part = result.samples.drop(columns="sample_id").astype({"encounter_id": "Int64"}).assign(**{_has(name): 1.0})
        if part.duplicated(_KEY).any():
            subject = part.loc[part.duplicated(_KEY), "subject_id"].iloc[0]
            raise SchemaError(f"task.{name}: subject {subject} has two samples of one stay at one time")
        if joined.empty:
            joined = part
            continue
        both = joined.merge(part, on=_KEY, how="outer", suffixes=("", "_of_the_other"))
        if len(both) == len(joined) + len(part):
            others = " or ".join(names[: names.index(name)])
            raise ConfigError(
                f"task.tasks: {name} has no stay and prediction time in common with {others}; tasks are joined on "
                "those, so let them predict at the same moment (such as hours after the admission)"
            )
        for column in [str(column) for column in both if str(column).endswith("_of_the_other")]:
            mine = column.removesuffix("_of_the_other")
            both[mine] = both[mine].where(both[mine].notna(), both.pop(column))
        joined = both
    shared = int(joined[[_has(name) for name in names]].notna().all(axis=1).sum())
    return joined.drop(columns=[_has(name) for name in names]), shared


def _has(name: str) -> str:
    return f"is of {name}"


def _ordered(joined: pd.DataFrame, outputs: list[OutputSpec]) -> pd.DataFrame:
    """Sort and number the samples, order the labels like the outputs, and fill in the status `not_asked`."""
    joined = joined.sort_values(_KEY, ignore_index=True)
    joined.insert(0, "sample_id", np.arange(len(joined), dtype=np.int64))
    for column in joined.filter(like="status_"):
        joined[column] = joined[column].astype(object).where(joined[column].notna(), _NOT_ASKED)
    labels = [f"label_{output.name}" for output in outputs]
    rest = [column for column in joined if column not in labels]
    return joined[[*rest[:4], *labels, *rest[4:]]]


def _last_step(samples: pd.DataFrame) -> FlowStep:
    return FlowStep("joined", "the samples of all tasks", len(samples), samples["subject_id"].nunique(), "all tasks")


def _notes(names: list[str], results: list[TaskResult], n: int, shared: int) -> dict[str, Any]:
    """Return the notes of each task under its name, with the numbers of samples and all caveats."""
    notes: dict[str, Any] = {
        "samples": {name: len(result.samples) for name, result in zip(names, results, strict=True)}
        | {"of every task": shared, "of any task": n},
    }
    for name, result in zip(names, results, strict=True):
        notes[name] = {key: value for key, value in result.notes.items() if key != "caveats"}
    caveats = [line for result in results for line in result.notes.get("caveats", [])]
    hidden = "What one task hides from the models, since it defines its outcome, is hidden for all of them."
    return notes | {"caveats": list(dict.fromkeys([*caveats, hidden]))}
