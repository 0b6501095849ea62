"""Early diagnosis: whether a stay will be coded as heart failure, predicted on its first day.

There is one prediction per stay (one encounter_id), not per episode of care, because a code belongs to one stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ehrdl.clinical.codes import HEART_FAILURE
from ehrdl.errors import SchemaError
from ehrdl.info import TaskInfo
from ehrdl.schema import OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.common.cohort import (
    Age,
    HoursIn,
    age_at_admission,
    prevalence,
    read_admissions,
    still_there,
    to_samples,
    whom,
    with_patients,
)
from ehrdl.tasks.common.evidence import KINDS, first_evidence
from ehrdl.tasks.common.flow import Facts, Flow

if TYPE_CHECKING:
    import duckdb

Cohort = Literal["incident", "first_stay", "all"]
Position = Literal["any", "principal"]

_CODED = f"coded_{HEART_FAILURE.name}"
_PRINCIPAL = f"principal_{HEART_FAILURE.name}"
_NEVER = np.iinfo(np.int64).max
#: The codes billed for a stay. They are never inputs, whatever the coding lag. The codes of the predicted stay are
#: dated at its end, which also hides them at t0. The exception is a stay with a discharge recorded before its death.
_BILLED = ("DIAGNOSIS//", "PROCEDURE//ICD", "DRG//", "HCPCS//")

#: Printed with every result.
CAVEATS = (
    "The label is a billing code, given after discharge, not an adjudicated diagnosis.",
    "Before discharge the notes are radiology and earlier summaries.",
    "Only stays in this hospital are known: heart failure that was coded elsewhere is taken for new.",
    "Some patients have signs of heart failure, a test or a treatment for it by the prediction time; "
    "task.exclude_evidence leaves them out.",
)


class HeartFailure(Task):
    """Early diagnosis: whether a stay will be coded as heart failure, predicted `hours` after admission."""

    name = "heart_failure"
    #: No published result has this cohort, label and prediction time, so no ceiling is set.
    too_good = None

    def __init__(
        self,
        hours: HoursIn = 24,
        min_age: Age = 18,
        cohort: Cohort = "incident",
        position: Position = "any",
        exclude_evidence: bool = False,
    ) -> None:
        """Choose a variant of the definition; the defaults are the primary one.

        Args:
            hours: the prediction time after admission [h], above 0, at most 720.
            min_age: the youngest age at admission [years]; 0 or null = everyone, also patients of unknown age.
            cohort: the stays to predict. `incident`: the patient has an earlier stay, and no heart failure code in any
                earlier stay. `first_stay`: the patient has no earlier stay; prevalent cases may be included. `all`:
                both kinds. The column group_stratum tells them apart.
            position: the position of the heart failure code: any, or only the principal diagnosis. In earlier stays, a
                code counts in any position.
            exclude_evidence: whether to leave out patients with evidence of heart failure by the prediction time: an
                available note that names it, NT-proBNP, or an intravenous loop diuretic.

        Raises:
            ConfigError: a value is invalid.
        """
        self.min_age = min_age or 0
        self.hours = hours
        self.cohort = cohort
        self.position = position
        self.exclude_evidence = exclude_evidence

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report."""
        history = {
            "incident": "none of whose earlier stays was coded as heart failure",
            "first_stay": "of whom no earlier stay is known",
            "all": "whatever their earlier stays",
        }[self.cohort]
        return TaskInfo(
            "Early diagnosis of heart failure",
            f"For {whom(self.min_age)} in hospital {self.hours:g} hours after admission, {history}, each model gives "
            "the chance that the stay will be coded as heart failure, from {inputs} known by then.",
            "A code of heart failure counts that is billed for the stay "
            + ("as the principal diagnosis." if self.position == "principal" else "in any position."),
            {
                "prevalence": "Share of stays that were coded as heart failure: {*}.",
                "coded_in_any_position": "{} stays have a code of heart failure in any position.",
                "coded_as_principal": "{} stays have it as the principal diagnosis.",
                "stays_without_any_code": "{} stays have no diagnosis code at all.",
                "died_in_the_stay": "{} patients died in the stay.",
            },
        )

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the stays that last beyond the prediction time, and whether they were coded as heart failure.

        Args:
            events: the EVENTS table of any source that writes `ADMISSION//`, `DISCHARGE//` and `DIAGNOSIS//`.

        Returns:
            One sample per stay. A stay without any diagnosis code has label 0. The result's `notes` give the number of
            such stays.

        Raises:
            SchemaError: no stay remains (the message lists the steps of the flow chart), or the data have no diagnosis
                code at all.
        """
        flow = Flow()
        stays = read_admissions(events, flow, principal=[HEART_FAILURE], coded=[HEART_FAILURE])
        self._check_codes(stays)
        index = self._history(with_patients(stays, events))
        index = self._stratum(self._in_hospital(index, flow), flow)
        flow.check(index, "outcome", "a stay that was never coded counts as 0", _coded(index))
        if self.exclude_evidence:
            index = _without_evidence(index, first_evidence(events), flow)
        if index.empty:
            raise SchemaError(f"task.heart_failure: no stay is left: {flow}")
        positive = index[_CODED if self.position == "any" else _PRINCIPAL]
        index = index.assign(
            label=positive.astype(np.float32), status=np.where(positive, "positive", "negative").astype(object)
        )
        samples = to_samples(index, self.name)
        return TaskResult(samples, flow.steps, [OutputSpec(self.name)], hidden_codes=_BILLED, notes=self._notes(index))

    def _check_codes(self, stays: pd.DataFrame) -> None:
        """Refuse data without the diagnosis codes that labels need."""
        needs = {"n_codes": "DIAGNOSIS code", "n_icd": "DIAGNOSIS code of ICD-9 or ICD-10"}
        if self.position == "principal":
            needs["n_principal"] = "principal diagnosis (a DIAGNOSIS code with sequence number 1)"
        for column, name in needs.items():
            if len(stays) and not stays[column].any():
                raise SchemaError(f"task.heart_failure: no stay has a {name}; add the table of diagnoses")

    def _history(self, stays: pd.DataFrame) -> pd.DataFrame:
        """Add the prediction time, the end of each stay, and facts about earlier stays.

        An earlier stay was admitted before this one and ended by the prediction time. Codes become known at the end of
        their stay, so the codes of a stay that ends later are not yet known.
        """
        t0 = stays["admittime"] + pd.Timedelta(hours=self.hours)
        end = stays[["dischtime", "deathtime"]].max(axis=1)
        coded = stays[_CODED]
        return stays.assign(
            prediction_time=t0,
            end=end,
            has_earlier=_first_end(stays, end) <= _microseconds(t0),
            prevalent=_first_end(stays, end.where(coded)) <= _microseconds(t0),
            age=age_at_admission(stays),
        )

    def _in_hospital(self, index: pd.DataFrame, flow: Flow) -> pd.DataFrame:
        t0 = f"{self.hours:g} h after admission (t0)"
        return still_there(index, flow, self.min_age, t0)

    def _stratum(self, index: pd.DataFrame, flow: Flow) -> pd.DataFrame:
        rule = "no heart failure code in an earlier stay"
        index = flow.keep(index, ~index["prevalent"], "no earlier heart failure", rule)
        if self.cohort == "incident":
            return flow.keep(index, index["has_earlier"], "incident", "at least one earlier stay")
        if self.cohort == "first_stay":
            return flow.keep(index, ~index["has_earlier"], "first stay", "no earlier stay")
        return index.assign(group_stratum=np.where(index["has_earlier"], "incident", "first stay").astype(object))

    def _notes(self, index: pd.DataFrame) -> dict[str, Any]:
        strata = {
            "stays with an earlier stay": prevalence(index[index["has_earlier"]]),
            "first stays (prevalent cases hide in them)": prevalence(index[~index["has_earlier"]]),
        }
        return {
            "prevalence": {name: value for name, value in strata.items() if value is not None},
            "coded_in_any_position": int(index[_CODED].sum()),
            "coded_as_principal": int(index[_PRINCIPAL].sum()),
            "stays_without_any_code": int((index["n_codes"] == 0).sum()),
            "died_in_the_stay": int(index["died"].sum()),
            "caveats": list(CAVEATS),
        }


def _coded(index: pd.DataFrame) -> Facts:
    return Facts("diagnosis codes of ICD-9 or ICD-10", index["n_icd"] > 0)


def _without_evidence(index: pd.DataFrame, first: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Keep the stays without evidence by the prediction time; each kind of evidence is a step of the flow chart."""
    index = index.join(first.add_prefix("first_"), on="subject_id")
    for kind, rule in KINDS.items():
        seen = index[f"first_{kind}"] <= index["prediction_time"]
        index = flow.keep(index, ~seen, f"evidence: {kind}", f"{rule} by t0")
    return index


def _first_end(stays: pd.DataFrame, end: pd.Series) -> pd.Series:
    """Return, for each stay, the earliest `end` [µs] among the patient's earlier stays. NaT counts as never.

    Stays are in order of subject and admission. Of two stays admitted at the same time, neither is earlier.
    """
    subject = stays["subject_id"]
    known = _microseconds(end).where(end.notna(), _NEVER)
    before = known.groupby(subject).cummin().groupby(subject).shift(fill_value=_NEVER)
    return before.groupby([subject, stays["admittime"]]).transform("first")


def _microseconds(time: pd.Series) -> pd.Series:
    """Return times as int64 [µs since 1970]."""
    return pd.Series(time.to_numpy().astype("datetime64[us]").astype(np.int64), index=time.index)
