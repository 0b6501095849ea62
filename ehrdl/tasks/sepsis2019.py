"""Hourly prediction of sepsis within six hours, with the labels of the PhysioNet/CinC Challenge 2019."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ehrdl.errors import SchemaError
from ehrdl.info import TaskInfo
from ehrdl.schema import BIRTH, OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.common.cohort import to_samples
from ehrdl.tasks.common.flow import Flow

if TYPE_CHECKING:
    import duckdb

#: The label turns 1 this many hours before the onset (Reyna 2020).
LEAD_HOURS = 6
_YEAR_SECONDS = 365.25 * 86_400

#: Printed with every result.
CAVEATS = (
    "The label is the challenge's: 1 from six hours before the onset of Sepsis-3, to the end of the record.",
    "Hours of one stay are no independent samples: intervals are over patients, and long stays weigh more.",
    "Whether a laboratory test was taken at all says what the team suspected: models read that too.",
)

_HOURS = """
    SELECT subject_id, time AS prediction_time, any_value(encounter_id) AS encounter_id,
        max(numeric_value) FILTER (code = 'SEPSIS_LABEL') AS label,
        CASE WHEN bool_or(code = 'P19//Unit//MICU') THEN 'MICU' WHEN bool_or(code = 'P19//Unit//SICU') THEN 'SICU'
        ELSE 'unknown' END AS care_unit
    FROM events WHERE code IN ('P19//ICULOS//h', 'SEPSIS_LABEL', 'P19//Unit//MICU', 'P19//Unit//SICU')
    GROUP BY subject_id, time HAVING bool_or(code = 'P19//ICULOS//h')
"""
_PATIENTS = f"""
    SELECT subject_id, max(time) FILTER (code = '{BIRTH}') AS birth,
        min(code[9:]) FILTER (code LIKE 'GENDER//%') AS sex
    FROM events WHERE code = '{BIRTH}' OR code LIKE 'GENDER//%' GROUP BY subject_id
"""


class HourlySepsis(Task):
    """Sepsis that is present or begins within six hours, predicted in each hour in the ICU."""

    name = "sepsis_2019"
    #: The challenge's best entries reach an AUROC of about 0.85 within one hospital.
    too_good = 0.92

    def __init__(self, after_onset: bool = False) -> None:
        """Choose a variant of the definition; the default is the primary one.

        Args:
            after_onset: whether to keep the hours after the onset of sepsis, which is six hours after the first label
                1. The challenge's own score uses the hours up to three hours after the onset.
        """
        self.after_onset = after_onset

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report."""
        return TaskInfo(
            "Sepsis within six hours",
            "For patients in intensive care, each model gives every hour the probability that sepsis sets in within "
            "six hours or has just set in, from what was measured up to that hour.",
            "The label of the challenge: 1 from six hours before the onset of sepsis (Sepsis-3) on.",
            {
                "septic_stays": "{} stays became septic.",
                "share_of_stays": "That is {:share} of all stays.",
                "label_unknown": "The label of {} hours is unknown.",
                "hours_after_onset": "Hours after the onset of sepsis are {}.",
            },
        )

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Make one sample per hour of every record, with the hour's label from the challenge.

        Args:
            events: the EVENTS table of the source Physionet2019.

        Returns:
            One sample per hour. If the files give no label for an hour, its label is unknown (status `censored`).

        Raises:
            SchemaError: the data have no hours.
        """
        hours = _frame(events, _HOURS)
        if hours.empty:
            raise SchemaError(f"task.{self.name}: no hour is left: the source has no ICULOS; use Physionet2019")
        flow = Flow()
        flow.count(hours, "hours", "every row of every record, an hour in the ICU each")
        turned = hours[hours["label"] == 1].groupby("subject_id")["prediction_time"].min()
        onset = turned.reindex(hours["subject_id"]).set_axis(hours.index) + pd.Timedelta(hours=LEAD_HOURS)
        if not self.after_onset:
            before = ~(hours["prediction_time"] > onset)
            hours = flow.keep(hours, before, "until onset", f"no hour after the first label 1 + {LEAD_HOURS} h")
        samples = to_samples(_described(hours, _frame(events, _PATIENTS)), self.name)
        samples = samples.drop(columns=["group_race", "group_insurance", "group_language"])
        notes = self._notes(hours, turned)
        return TaskResult(
            samples, flow.steps, [OutputSpec(self.name, utility="physionet2019")], ("SEPSIS_LABEL",), notes
        )

    def _notes(self, hours: pd.DataFrame, turned: pd.Series) -> dict[str, Any]:
        stays = hours["subject_id"].nunique()
        return {
            "septic_stays": len(turned),
            "share_of_stays": len(turned) / stays,
            "label_unknown": int(hours["label"].isna().sum()),
            "hours_after_onset": "kept" if self.after_onset else "left out",
            "caveats": list(CAVEATS),
        }


def _described(hours: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """Add status, age and sex to the hours."""
    who = patients.set_index("subject_id").reindex(hours["subject_id"].to_numpy())
    birth = pd.to_datetime(who["birth"]).to_numpy()  # without any known birth, the column has no type
    age = (hours["prediction_time"].to_numpy() - birth) / np.timedelta64(1, "s") / _YEAR_SECONDS
    known = hours["label"].notna()
    status = np.select([~known, hours["label"] == 1], ["censored", "positive"], "negative").astype(object)
    return hours.assign(status=status, age=age, sex=who["sex"].to_numpy(), race=None, insurance=None, language=None)


def _frame(events: duckdb.DuckDBPyRelation, query: str) -> pd.DataFrame:
    rows: Any = events.query("events", query)
    frame: pd.DataFrame = rows.df()
    return frame
