"""Length of stay for bed planning: a patient's remaining days, and whether they exceed given numbers of days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd

from ehrdl.errors import ConfigError, SchemaError
from ehrdl.info import TaskInfo
from ehrdl.options.bounds import Bound, Distinct, Options
from ehrdl.schema import REGRESSION, OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.common.cohort import (
    Age,
    HoursIn,
    age_at_admission,
    read_admissions,
    still_there,
    to_samples,
    whom,
    with_icu_stays,
    with_patients,
)
from ehrdl.tasks.common.flow import Facts, Flow

if TYPE_CHECKING:
    import duckdb

Unit = Literal["hospital", "icu"]
#: A limit on the remaining days [d].
Days = Annotated[float, Bound("(0, 1000)")]
Until = Literal["unit", "discharge"]
Death = Literal["keep", "unknown"]

_DAY_SECONDS = 86_400
#: Units in MIMIC-IV's icustays that are not intensive care.
_STEPDOWN = ("Neuro Intermediate", "Neuro Stepdown")
_PLACES = {"hospital": ("admission", "in hospital"), "icu": ("ICU admission", "in the ICU")}

#: Printed with every result.
CAVEATS = (
    "A stay that ended in death counts with the time until then, as for a bed; such stays are a group of their own "
    "(discharge: died), and task.death: unknown leaves their labels out.",
    "Whoever left before the prediction time is not in the cohort: these are the remaining days of those still there.",
)


@dataclass(frozen=True)
class IcuStays(Options, key="task.icu"):
    """The choice of ICU stays for length of stay, and of the event that ends them.

    Args:
        until: the event that ends the stay. The patient leaves the ICU (`unit`) or the hospital (`discharge`).
        first_only: whether to use only the first ICU stay of a hospital stay.
        drop_stepdown: whether to leave out Neuro Intermediate and Neuro Stepdown, which MIMIC-IV counts as ICU stays.

    Raises:
        ConfigError: a value is invalid.
    """

    until: Until = "unit"
    first_only: bool = True
    drop_stepdown: bool = False


class LengthOfStay(Task):
    """The remaining days of a stay and whether they exceed given limits, predicted `hours` after its start."""

    name = "length_of_stay"

    def __init__(
        self,
        unit: Unit = "icu",
        hours: HoursIn = 24,
        over_days: Annotated[list[Days], Distinct()] = [3, 7],  # noqa: B006 - never changed, and a list is what YAML gives
        days: bool = True,
        min_age: Age = 18,
        death: Death = "keep",
        icu: IcuStays = IcuStays(),
    ) -> None:
        """Choose a variant of the definition; the defaults are the primary one.

        Args:
            unit: the kind of stay. `icu` is predicted `hours` after the ICU's intime, `hospital` after the admission.
            hours: the prediction time after the start of the stay [h], above 0, at most 720.
            over_days: the limits of the binary outputs [d]. Each output is whether more days than its limit remain.
            days: whether the remaining days are also a regression output.
            min_age: the youngest age at admission [years]; 0 or null = everyone, also patients of unknown age.
            death: the label of a stay that ends in death: its remaining days (`keep`), or no label (`unknown`).
            icu: the ICU stays to use, and their end; only for the unit `icu`.

        Raises:
            ConfigError: a value is invalid.
        """
        if not days and not over_days:
            raise ConfigError("task.days: false leaves no output where task.over_days is empty")
        if unit == "hospital" and icu != IcuStays():
            raise ConfigError("task.icu: belongs to task.unit icu; leave it out where task.unit is hospital")
        self.min_age = min_age or 0
        self.unit, self.hours, self.over_days, self.days = unit, hours, tuple(over_days), days
        self.death, self.icu = death, icu

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report."""
        start, place = _PLACES[self.unit]
        what = "hospital" if self.unit == "hospital" or self.icu.until == "discharge" else "ICU"
        return TaskInfo(
            "Length of stay",
            f"For {whom(self.min_age)} {place} {self.hours:g} hours after {start}, each model gives how long they will "
            f"stay in the {what} from then on, from {{inputs}} known by then.",
            f"The days from the prediction time to the end of the stay in the {what}.",
            {
                "days_left": "Days left from the prediction on: {*:number}.",
                "died_in_the_stay": "{} stays ended in death.",
                "end_not_in_the_data": "The end of {} stays is not in the data, so that their outcome is unknown.",
            },
        )

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the patients who have not left at the prediction time, and how long they stay from then on.

        Args:
            events: the EVENTS table of any source that writes `ADMISSION//` and `DISCHARGE//`. The unit `icu` also
                needs `ICU_IN//` and `ICU_OUT//`.

        Returns:
            One sample per stay. A stay without an end in the data has an unknown label (status `censored`).

        Raises:
            SchemaError: no stay remains (the message lists the steps of the flow chart).
        """
        flow = Flow()
        stays = read_admissions(events, flow)
        if self.unit == "icu":
            stays = self._icu(with_icu_stays(stays, events, flow), flow)
        index = self._timed(with_patients(stays, events))
        start, place = _PLACES[self.unit]
        t0 = f"{self.hours:g} h after {start} (t0)"
        index = still_there(index, flow, self.min_age, t0, place, ongoing=True)
        if index.empty:
            raise SchemaError(f"task.length_of_stay: no stay is left: {flow}")
        index, outputs = self._outcomes(index)
        samples = to_samples(index, [output.name for output in outputs])
        return TaskResult(samples, flow.steps, outputs, ("DISCHARGE//", "ICU_OUT//"), self._notes(index))

    def _icu(self, joined: pd.DataFrame, flow: Flow) -> pd.DataFrame:
        """Keep the requested ICU stays."""
        if self.icu.drop_stepdown:
            rule, units = f"not in {' or '.join(_STEPDOWN)}", Facts("names of units", joined["care_unit"] != "unknown")
            joined = flow.keep(joined, ~joined["care_unit"].isin(_STEPDOWN), "no step-down unit", rule, units)
        if self.icu.first_only:
            joined = joined.sort_values(["subject_id", "encounter_id", "intime"], ignore_index=True)
            first = ~joined.duplicated(["subject_id", "encounter_id"])
            joined = flow.keep(joined, first, "first ICU stay", "the first ICU stay of a hospital stay")
        return joined

    def _timed(self, stays: pd.DataFrame) -> pd.DataFrame:
        """Add the prediction time, and the end of the predicted stay; NaT = not in the data."""
        hospital_end = stays[["dischtime", "deathtime"]].max(axis=1)  # a discharge may be recorded before the death
        if self.unit == "hospital":
            start, left = stays["admittime"], hospital_end
        else:
            start, left = stays["intime"], stays["outtime"].fillna(stays["deathtime"])
        return stays.assign(
            prediction_time=start + pd.Timedelta(hours=self.hours),
            end=left,
            until=hospital_end if self.icu.until == "discharge" else left,
            age=age_at_admission(stays),
        )

    def _outcomes(self, index: pd.DataFrame) -> tuple[pd.DataFrame, list[OutputSpec]]:
        left = (index["until"] - index["prediction_time"]).dt.total_seconds() / _DAY_SECONDS
        died = index["died"] & ~(index["deathtime"] > index["until"])
        known = left.where(~died) if self.death == "unknown" else left
        outputs = [OutputSpec(self.name, REGRESSION, "d")] if self.days else []
        columns: dict[str, Any] = {
            f"label_{self.name}": known,
            f"status_{self.name}": _status(left, died, "observed"),
        }
        for limit in self.over_days:
            output = f"over_{limit:g}_days".replace(".", "_")
            outputs.append(OutputSpec(output))
            over = left > limit
            columns[f"label_{output}"] = over.astype(np.float64).where(known.notna())
            columns[f"status_{output}"] = _status(left, died, np.where(over, "positive", "negative"))
        how = np.where(left.isna(), "still there", np.where(died, "died", "alive")).astype(object)
        return index.assign(**columns, days_left=left, group_discharge=how), outputs

    def _notes(self, index: pd.DataFrame) -> dict[str, Any]:
        days = index["days_left"]
        by_end = {f"mean, {how}": _number(part.mean()) for how, part in days.groupby(index["group_discharge"])}
        return {
            "days_left": {"mean": _number(days.mean()), "median": _number(days.median())} | by_end,
            "died_in_the_stay": int((index["group_discharge"] == "died").sum()),
            "end_not_in_the_data": int(days.isna().sum()),
            "caveats": list(CAVEATS),
        }


def _status(left: pd.Series, died: pd.Series, otherwise: Any) -> Any:
    return np.where(left.isna(), "censored", np.where(died, "death", otherwise)).astype(object)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
