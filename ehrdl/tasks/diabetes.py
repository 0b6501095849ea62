"""Readmission within 30 days in the data set Diabetes-130, with the labels that come with the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ehrdl.errors import SchemaError
from ehrdl.info import TaskInfo
from ehrdl.schema import OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.common.cohort import prevalence, to_samples
from ehrdl.tasks.common.flow import Facts, Flow

if TYPE_CHECKING:
    import duckdb

#: Dispositions of IDs_mapping.csv after which no patient returns: expired, and hospice.
DEAD = ("11", "19", "20", "21")
HOSPICE = ("13", "14")
#: Uninformative dispositions: NULL, not mapped, unknown or invalid, and missing in the table.
UNKNOWN = ("18", "25", "26", "unknown", "")

#: Printed with every result.
CAVEATS = (
    "The table has no dates: stays are ordered by encounter_id, an assumption that reading the table checks; nothing "
    "is known of the time between them, and nothing is made of it.",
    "Everything in a row counts as known at discharge. Billing codes of the stay are often final only days later.",
    "Only stays of 1 to 14 days with a diabetic diagnosis, laboratory tests and drugs are in the table; of others, "
    "the counts of visits in the year before and the label know.",
)

_STAYS = """
    SELECT encounter_id, any_value(subject_id) AS subject_id, max(time) FILTER (code LIKE 'DISPOSITION//%') AS left_at,
        max(code[14:]) FILTER (code LIKE 'DISPOSITION//%') AS disposition,
        max(code[13:]) FILTER (code LIKE 'READMITTED//%') AS readmitted,
        max(numeric_value) FILTER (code = 'STAY//age//years') AS age,
        max(code[7:]) FILTER (code LIKE 'RACE//%') AS race,
        max(code[8:]) FILTER (code LIKE 'PAYER//%') AS insurance
    FROM events WHERE encounter_id IS NOT NULL GROUP BY encounter_id HAVING left_at IS NOT NULL
"""
_SEX = "SELECT subject_id, min(code[9:]) AS sex FROM events WHERE code LIKE 'GENDER//%' GROUP BY subject_id"


class DiabetesReadmission(Task):
    """Readmission within 30 days of discharge, for patients who leave alive and do not go to a hospice."""

    name = "diabetes_readmission"
    #: An untuned LightGBM reaches 0.679 on unseen patients.
    too_good = 0.72

    def __init__(self, past_outcomes: bool = True) -> None:
        """Choose a variant of the definition; the default is the primary one.

        Args:
            past_outcomes: whether models read the outcomes of a patient's earlier stays: admitted again within 30 days,
                later, or not at all. An outcome is known once the next stay has begun.
        """
        self.past_outcomes = past_outcomes

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report."""
        return TaskInfo(
            "Readmission of diabetic patients within 30 days",
            "For diabetic patients who leave the hospital alive, each model gives the probability that they are "
            "admitted again within 30 days, from what is in the table of this stay and of earlier ones.",
            "An admission within 30 days of discharge, planned or not, counts.",
            {
                "prevalence": "Share of stays that were followed by an admission within 30 days: {*}.",
                "label_unknown": "The outcome of {} stays is unknown.",
            },
        )

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the patients who left alive, and whether they were readmitted within 30 days.

        Args:
            events: the EVENTS table of the source Diabetes130.

        Returns:
            One sample per stay, at its discharge. If the table has no outcome of a stay, the label is unknown (status
            `censored`).

        Raises:
            SchemaError: no stay remains (the message lists the steps of the flow chart).
        """
        stays = _frame(events, _STAYS)
        sex = _frame(events, _SEX).set_index("subject_id")
        flow = Flow()
        flow.count(stays, "stays", "every stay in the table")
        known = Facts("dispositions", ~stays.disposition.isin(UNKNOWN))
        rule = f"disposition none of {', '.join(DEAD)} (died)"
        index = flow.keep(stays, ~stays.disposition.isin(DEAD), "alive", rule, known)
        rule = f"disposition none of {', '.join(HOSPICE)}: who dies there cannot come back"
        index = flow.keep(index, ~index.disposition.isin(HOSPICE), "no hospice", rule, known)
        if index.empty:
            raise SchemaError(f"task.{self.name}: no stay is left: {flow}")
        index = index.rename(columns={"left_at": "prediction_time"}).join(sex, on="subject_id")
        samples = to_samples(_with_outcome(index), self.name)
        samples = samples.drop(columns=["group_language", "group_care_unit", "group_age_band"])
        samples = samples.rename(columns={"group_decade": "group_age_band"})
        hidden = () if self.past_outcomes else ("READMITTED//",)
        return TaskResult(samples, flow.steps, [OutputSpec(self.name)], hidden, self._notes(index))

    def _notes(self, index: pd.DataFrame) -> dict[str, Any]:
        index = _with_outcome(index)
        return {
            "prevalence": {"all": prevalence(index)},
            "label_unknown": int(index["label"].isna().sum()),
            "caveats": list(CAVEATS),
        }


def _with_outcome(index: pd.DataFrame) -> pd.DataFrame:
    """Add the labels, and the table's age bands of ten years; other tasks have other bands."""
    known, positive = index["readmitted"].notna(), index["readmitted"] == "<30"
    band = (index["age"] // 10 * 10).map(lambda low: f"{low:.0f}-{low + 9:.0f}", na_action="ignore")
    band = band.astype(object).where(index["age"].notna(), "unknown")
    return index.assign(
        status=np.select([~known, positive], ["censored", "positive"], "negative").astype(object),
        label=positive.astype(np.float32).where(known),
        language=None,
        care_unit=None,
        group_decade=band,
    )


def _frame(events: duckdb.DuckDBPyRelation, query: str) -> pd.DataFrame:
    rows: Any = events.query("events", query)
    frame: pd.DataFrame = rows.df()
    return frame
