"""Mortality: death in hospital of ICU patients, predicted after their first 24 or 48 hours in the ICU.

Models can also learn auxiliary labels, in addition to the outcome. A death in hospital is only yes or no. The day of a
later death and the length of stay show how ill the survivors were. Sources: Caruana, Machine Learning 28 (1997) 41
(multitask learning); Harutyunyan et al., Scientific Data 6 (2019) 96 (multitask learning on ICU series).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.info import TaskInfo
from ehrdl.schema import DEATH, REGRESSION, OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.common.cohort import (
    Age,
    HoursIn,
    age_at_admission,
    deaths,
    prevalence,
    read_admissions,
    still_there,
    to_samples,
    with_icu_stays,
    with_patients,
)
from ehrdl.tasks.common.flow import Flow

if TYPE_CHECKING:
    import duckdb

#: Printed with every result.
CAVEATS = (
    "The outcome is death before the hospital stay ends; who dies after it counts as a survivor.",
    "A decision to limit treatment is part of what is predicted: the label is what happened under the care given.",
)


_LEFT, _DAY_SECONDS = "length_of_stay", 86_400
#: PhysioNet 2012 dates an unknown end just after its window. Such an end tells nothing about the stay's length.
_LEAST_DAYS = 1 / 24
_AUXILIARY = re.compile(rf"death_[1-9]\d{{0,3}}d|death_known|{_LEFT}")


class Mortality(Task):
    """Death in hospital of ICU patients, predicted `hours` after the start of an ICU stay."""

    name = "mortality"
    #: The best published value found for PhysioNet/CinC 2012 is 0.88 (MTM, 2025).
    too_good = 0.93

    def __init__(
        self,
        hours: HoursIn = 48,
        min_age: Age = 18,
        first_only: bool = True,
        auxiliary: list[str] = [],  # noqa: B006 - never changed, and a list is what YAML gives
    ) -> None:
        """Choose a variant of the definition; the defaults are the primary one.

        Args:
            hours: the prediction time after the start of the ICU stay [h], above 0, at most 720.
            min_age: the youngest age at admission [years]; 0 or null = everyone, also patients of unknown age.
            first_only: whether to use only the first ICU stay of a hospital stay.
            auxiliary: the outputs that deep models learn in addition to the outcome, but do not predict. `death_30d`:
                death within 30 days after the prediction time, in hospital or later; other numbers of days are allowed.
                `death_known`: death at any time recorded in the data. `length_of_stay`: log(1 + remaining days in
                hospital), unknown below an hour. A patient without a date of death counts as a survivor, so the number
                of days should not exceed the follow-up of the data.

        Raises:
            ConfigError: a value is invalid.
        """
        for name in auxiliary:
            if not _AUXILIARY.fullmatch(name):
                raise ConfigError(
                    f"task.auxiliary: {name!r} is not one of death_30d (or other days), death_known, {_LEFT}"
                )
        self.hours, self.min_age, self.first_only = hours, min_age or 0, first_only
        self.auxiliary = list(auxiliary)

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report."""
        return TaskInfo(
            "Death in hospital",
            f"For patients in intensive care {self.hours:g} hours after ICU admission, each model gives the "
            "probability that they die in hospital, from {inputs} known by then.",
            "Death later than the prediction time and before the end of the hospital stay counts.",
            {
                "prevalence": "Share of patients who died in hospital: {*}.",
                "end_not_in_the_data": "The end of {} stays is not in the data, so that their outcome is unknown.",
            },
        )

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the patients alive in the ICU at the prediction time, and whether they leave the hospital alive.

        Args:
            events: the EVENTS table of any source that writes `ADMISSION//`, `ICU_IN//` and `DISCHARGE//`. An ICU stay
                without `ICU_OUT//` lasts until the discharge.

        Returns:
            One sample per ICU stay. If the end of the hospital stay is not in the data, the label is unknown (status
            `censored`).

        Raises:
            SchemaError: no stay remains (the message lists the steps of the flow chart).
        """
        flow = Flow()
        index = with_icu_stays(read_admissions(events, flow), events, flow)
        if self.first_only:
            index = index.sort_values(["subject_id", "encounter_id", "intime"], ignore_index=True)
            first = ~index.duplicated(["subject_id", "encounter_id"])
            index = flow.keep(index, first, "first ICU stay", "the first ICU stay of a hospital stay")
        index = self._timed(with_patients(index, events))
        t0 = f"{self.hours:g} h after ICU admission (t0)"
        index = still_there(index, flow, self.min_age, t0, "in the ICU", ongoing=True)
        if index.empty:
            raise SchemaError(f"task.mortality: no stay is left: {flow}")
        flow.check(index, "outcome", "death before the hospital stay ends", deaths(index))
        index = _with_outcome(index)
        samples = to_samples(index, self.name, {name: _auxiliary(name, index) for name in self.auxiliary})
        unknown = [name for name in samples.filter(like="group_") if samples[name].isna().all()]
        hidden = ("DISCHARGE//", "ICU_OUT//", DEATH)
        auxiliary = [
            OutputSpec(name, REGRESSION, "log(1 + d)") if name == _LEFT else OutputSpec(name) for name in self.auxiliary
        ]
        return TaskResult(
            samples.drop(columns=unknown), flow.steps, [OutputSpec(self.name)], hidden, self._notes(index), auxiliary
        )

    def _timed(self, stays: pd.DataFrame) -> pd.DataFrame:
        """Add the prediction time and the end of the ICU stay; NaT = not in the data."""
        hospital_end = stays[["dischtime", "deathtime"]].max(axis=1)  # a discharge may be recorded before the death
        return stays.assign(
            prediction_time=stays["intime"] + pd.Timedelta(hours=self.hours),
            end=stays["outtime"].fillna(hospital_end),
            hospital_end=hospital_end,
            age=age_at_admission(stays),
        )

    def _notes(self, index: pd.DataFrame) -> dict[str, Any]:
        return {
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


def _auxiliary(name: str, index: pd.DataFrame) -> pd.Series:
    """Return the label of an auxiliary output; NaN if the end of the stay is not in the data."""
    if name == _LEFT:
        days: pd.Series = (index["hospital_end"] - index["prediction_time"]).dt.total_seconds() / _DAY_SECONDS
        return days.where(days > _LEAST_DAYS).map(math.log1p)
    death = index[["deathtime", "death"]].min(axis=1).fillna(index["hospital_end"].where(index["died"]))
    within = death.notna()
    if name != "death_known":
        days_after = float(name.removeprefix("death_").removesuffix("d"))
        within &= death <= index["prediction_time"] + pd.Timedelta(days=days_after)
    return within.astype(np.float32).where(index["label"].notna())
