"""Mortality: does a patient in intensive care die in hospital, as seen after the first 24 or 48 hours there?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import DEATH, OutputSpec, TaskResult
from ehrdl.tasks.base import Task
from ehrdl.tasks.cohort import age_at_admission, check_age, prevalence, still_there, to_samples
from ehrdl.tasks.episodes import read_icu_stays, read_stays, read_subjects
from ehrdl.tasks.flow import Flow

if TYPE_CHECKING:
    import duckdb

#: Printed with every result.
CAVEATS = (
    "The outcome is death before the hospital stay ends; who dies after it counts as a survivor.",
    "A decision to limit treatment is part of what is predicted: the label is what happened under the care given.",
)


class Mortality(Task):
    """Death in hospital, from what was known `hours` after the start of an ICU stay."""

    name = "mortality"
    #: The best that was found published on PhysioNet/CinC 2012 is 0.88 (MTM, 2025).
    too_good = 0.93

    def __init__(self, hours: float = 48, min_age: int = 18, first_only: bool = True) -> None:
        """Choose a variant of the definition; the defaults are the primary one.

        Args:
            hours: prediction time after the start of the ICU stay [h], above 0, at most 720.
            min_age: youngest age at admission [years]; 0 = everyone, unknown ages too.
            first_only: only the first ICU stay of a hospital stay.

        Raises:
            ConfigError: a value that cannot be.
        """
        if not 0 < hours <= 720:
            raise ConfigError(f"task.hours: {hours} is not above 0 and at most 720 hours")
        check_age(min_age)
        self.hours, self.min_age, self.first_only = hours, min_age, first_only

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find who is alive in the ICU at the prediction time, and whether they leave the hospital alive.

        Args:
            events: EVENTS of any source that writes `ADMISSION//`, `ICU_IN//` and `DISCHARGE//`. A stay in the ICU
                without `ICU_OUT//` lasts until the discharge.

        Returns:
            One sample an ICU stay. A stay whose end is not in the data has an unknown label (status `censored`).

        Raises:
            SchemaError: no stay is left (the message is the flow chart).
        """
        flow = Flow()
        stays = flow.count(read_stays(events), "admissions", "every stay in the data")
        index = stays.drop(columns="care_unit").merge(read_icu_stays(events), on=["subject_id", "encounter_id"])
        flow.count(index, "ICU stays", "a stay in an intensive care unit, counted as often as there are any")
        if self.first_only:
            index = index.sort_values(["subject_id", "encounter_id", "intime"], ignore_index=True)
            first = ~index.duplicated(["subject_id", "encounter_id"])
            index = flow.keep(index, first, "first ICU stay", "the first ICU stay of a hospital stay")
        index = self._timed(index.join(read_subjects(events), on="subject_id"))
        t0 = f"{self.hours:g} h after ICU admission (t0)"
        index = still_there(index, flow, self.min_age, t0, "in the ICU", ongoing=True)
        if index.empty:
            raise SchemaError(f"task.mortality: no stay is left: {flow}")
        index = _with_outcome(index)
        samples = to_samples(index, self.name)
        unknown = [name for name in samples.filter(like="group_") if samples[name].isna().all()]
        hidden = ("DISCHARGE//", "ICU_OUT//", DEATH)
        return TaskResult(
            samples.drop(columns=unknown), flow.steps, [OutputSpec(self.name)], hidden, self._notes(index)
        )

    def _timed(self, stays: pd.DataFrame) -> pd.DataFrame:
        """Add the prediction time and the end of the ICU stay; NaT = it is not in the data."""
        hospital_end = stays[["dischtime", "deathtime"]].max(axis=1)  # a discharge may be noted before the death
        return stays.assign(
            prediction_time=stays["intime"] + pd.Timedelta(hours=self.hours),
            end=stays["outtime"].fillna(hospital_end),
            hospital_end=hospital_end,
            age=age_at_admission(stays),
        )

    def _notes(self, index: pd.DataFrame) -> dict[str, Any]:
        return {
            "what": f"For patients in intensive care {self.hours:g} hours after ICU admission, each model gives the "
            "probability that they die in hospital, from what was known by then.",
            "prevalence": {
                "all": prevalence(index),
                **{str(unit): prevalence(part) for unit, part in index.groupby("care_unit")},
            },
            "end_not_in_the_data": int(index["label"].isna().sum()),
            "caveats": list(CAVEATS),
        }


def _with_outcome(index: pd.DataFrame) -> pd.DataFrame:
    known = index["died"] | index["hospital_end"].notna()
    status = np.select([~known, index["died"]], ["censored", "positive"], "negative").astype(object)
    return index.assign(status=status, label=index["died"].astype(np.float32).where(known))
