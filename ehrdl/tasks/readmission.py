"""30-day unplanned all-cause readmission, after the CMS hospital-wide measure.

Source: CMS, Hospital-Wide All-Cause Unplanned Readmission Measure, adapted to MIMIC-IV (no CCS tables, no enrolment).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from ehrdl.clinical.codes import PLANNED_ADMISSIONS
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import FlowStep, OutputSpec, TaskResult
from ehrdl.tasks.base import Task
from ehrdl.tasks.episodes import build_episodes, read_stays, read_subjects

if TYPE_CHECKING:
    import duckdb

Variant = Literal["at_discharge"]
Death = Literal["negative", "exclude", "composite"]
EmergencyReturn = Literal["negative", "composite"]

_TRANSFERRED_OR_LEFT = ("ACUTE HOSPITAL", "AGAINST ADVICE")
_HOSPICE = "HOSPICE"
_SUMMARY_LAG = pd.Timedelta(hours=24)
_AGE_BANDS = {0: "0-17", 18: "18-44", 45: "45-64", 65: "65-74", 75: "75-84", 85: "85+"}

#: Printed with every result.
CAVEATS = (
    "MIMIC-IV holds emergency and intensive care patients of one centre; readmissions elsewhere are invisible and "
    "count as none.",
    "Planned is a fallback without CCS tables: the next admission is ELECTIVE or SURGICAL SAME DAY ADMISSION. The CMS "
    "planned readmission algorithm, version 2.1, had sensitivity 45 %, specificity 96 % and PPV 52 % (Horwitz 2015).",
    "An emergency-only return is seen only as an episode of observation stays: an emergency visit without any "
    "admission is not among the stays.",
    "Cohort exclusions use diagnosis codes that are billed after discharge and not yet known at the prediction time.",
)


class Readmission(Task):
    """Unplanned readmission within `horizon_days` of discharge, predicted at discharge."""

    name = "readmission"
    #: The best published with all EHR data are 0.75 to 0.78.
    too_good = 0.85

    def __init__(
        self,
        variant: Variant = "at_discharge",
        horizon_days: float = 30,
        min_age: int = 18,
        keep_hospice: bool = False,
        death: Death = "negative",
        emergency_return: EmergencyReturn = "negative",
        censor_last_year: int | None = None,
    ) -> None:
        """Choose a variant of the definition; the defaults are the primary one.

        Args:
            variant: when to predict: `at_discharge` is the discharge itself.
            horizon_days: length of the outcome window from discharge [days], above 0, at most 365 (dod ends there).
            min_age: youngest age at admission [years].
            keep_hospice: keep index stays that were discharged to a hospice.
            death: death in the horizon without an unplanned readmission is 0 (`negative`, as CMS), leaves the cohort
                (`exclude`), or is 1 (`composite`).
            emergency_return: an observation-only return in the horizon is 0 (`negative`, as CMS) or 1 (`composite`).
            censor_last_year: the release's last year (2019 for MIMIC-IV 2.x, 2022 for 3.x): the label of an index whose
                approximate year range reaches it is unknown; null = keep them all.

        Raises:
            ConfigError: a value that cannot be.
        """
        for key, value, kind in (
            ("variant", variant, Variant),
            ("death", death, Death),
            ("emergency_return", emergency_return, EmergencyReturn),
        ):
            if value not in get_args(kind):
                raise ConfigError(f"task.{key}: {value!r} is not one of {', '.join(get_args(kind))}")
        if not 0 < horizon_days <= 365:
            raise ConfigError(f"task.horizon_days: {horizon_days} is not above 0 and at most 365 days")
        if not 0 <= min_age <= 120:
            raise ConfigError(f"task.min_age: {min_age} is not between 0 and 120 years")
        if censor_last_year is not None and not 1900 <= censor_last_year <= 2100:
            raise ConfigError(f"task.censor_last_year: {censor_last_year} is not a calendar year, such as 2019")
        self.variant = variant
        self.horizon_days = horizon_days
        self.min_age = min_age
        self.keep_hospice = keep_hospice
        self.death = death
        self.emergency_return = emergency_return
        self.censor_last_year = censor_last_year

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the index stays, their discharge times and whether an unplanned readmission followed.

        Args:
            events: EVENTS of any source that writes `ADMISSION//`, `DISCHARGE//` and `ADMISSION_TYPE//`.

        Returns:
            One sample an index episode; status `death` means died in the horizon without an unplanned readmission.

        Raises:
            SchemaError: no index stay is left (the message is the flow chart), or a year group is missing.
        """
        flow = _Flow()
        episodes = _episodes(read_stays(events), flow).join(read_subjects(events), on="subject_id")
        inpatient = _inpatient(episodes, flow)
        index = self._outcomes(self._exclude(self._adult_and_alive(inpatient, flow), flow))
        notes = self._notes(index)
        if self.death == "exclude":
            rule = "not died in the horizon without an unplanned readmission (selects on the future)"
            index = flow.keep(index, index["status"] != "death", "death", rule)
        if index.empty:
            raise SchemaError(f"task.readmission: no index stay is left: {flow}")
        return TaskResult(_samples(index), flow.steps, [OutputSpec(self.name)], notes=notes | _prevalences(index))

    def _adult_and_alive(self, index: pd.DataFrame, flow: _Flow) -> pd.DataFrame:
        # Birth is 1 January of anchor_year - anchor_age, so this is anchor_age + year(admittime) - anchor_year.
        index = index.assign(age=index["admittime"].dt.year - index["birth"].dt.year)
        index = flow.keep(index, index["age"] >= self.min_age, "age", f"age at admission >= {self.min_age} years")
        # A date of death stands at the end of its day, so this is also `dod before date(dischtime)`.
        dead = index["died"] | (index["death"] <= index["dischtime"])
        return flow.keep(index, ~dead, "alive", "not died in the stay; death not dated before the discharge day")

    def _exclude(self, index: pd.DataFrame, flow: _Flow) -> pd.DataFrame:
        left = _TRANSFERRED_OR_LEFT if self.keep_hospice else (*_TRANSFERRED_OR_LEFT, _HOSPICE)
        for reason, excluded, rule in (
            ("disposition", index["disposition"].isin(left), f"not discharged to {', '.join(left)}"),
            ("psychiatric", index["psychiatric"], "principal diagnosis not psychiatric"),
            ("rehabilitation", index["rehabilitation"], "principal diagnosis not rehabilitation"),
            (
                "cancer",
                index["cancer_treatment"] & ~index["surgical"],
                "principal diagnosis not cancer, unless under a surgical service",
            ),
            ("delivery", index["delivery"], "no delivery in any position"),
        ):
            index = flow.keep(index, ~excluded[index.index], f"excluded: {reason}", rule)
        return index

    def _outcomes(self, index: pd.DataFrame) -> pd.DataFrame:
        """Add what followed each index in the horizon, and from it `label` and `status`."""
        returned = self._follows(index, "next_admittime")
        index = index.assign(
            readmitted=returned & ~index["next_type"].isin(PLANNED_ADMISSIONS),
            planned_next=returned & index["next_type"].isin(PLANNED_ADMISSIONS),
            emergency_only=self._follows(index, "next_observation"),
            died_after=self._follows(index, "death"),
            censored=self._reaches_last_year(index),
        )
        positive = index["readmitted"].copy()
        if self.emergency_return == "composite":
            positive |= index["emergency_only"]
        if self.death == "composite":
            positive |= index["died_after"]
        rules = [index["censored"], positive, index["died_after"]]
        index["status"] = np.select(rules, ["censored", "positive", "death"], "negative")
        index["label"] = np.where(index["censored"], np.nan, positive).astype(np.float32)
        return index

    def _follows(self, index: pd.DataFrame, column: str) -> pd.Series:
        """Whether the time in `column` lies in (dischtime, dischtime + horizon]."""
        gap = index[column] - index["dischtime"]
        return (gap > pd.Timedelta(0)) & (gap <= pd.Timedelta(days=self.horizon_days))

    def _reaches_last_year(self, index: pd.DataFrame) -> pd.Series:
        if self.censor_last_year is None:
            return pd.Series(False, index=index.index)
        last = index["anchor_year_group"].astype("str").str.extract(r"(\d{4})\s*$")[0].astype(float)
        latest = last + index["admittime"].dt.year - index["anchor_year"]
        if latest.isna().any():
            subject = index.loc[latest.isna(), "subject_id"].iloc[0]
            raise SchemaError(
                f"task.censor_last_year: subject {subject} has no ANCHOR_YEAR_GROUP event; set it to null"
            )
        reaches: pd.Series = latest >= self.censor_last_year
        return reaches

    def _notes(self, index: pd.DataFrame) -> dict[str, Any]:
        """Counts over all eligible index stays, before any is left out for dying."""
        without = ~index["readmitted"]
        return {
            "summary_stored": _summary_stored(index),
            "planned_next": int(index["planned_next"].sum()),
            "emergency_only_return": int((index["emergency_only"] & without).sum()),
            "died_within_horizon": int((index["died_after"] & without).sum()),
            "censored": int(index["censored"].sum()),
            "caveats": list(CAVEATS),
        }


@dataclass
class _Flow:
    """The flow chart, built by the filters themselves so that it cannot differ from them."""

    steps: list[FlowStep] = field(default_factory=list)

    def keep(self, rows: pd.DataFrame, mask: pd.Series, step: str, rule: str) -> pd.DataFrame:
        """The rows under `mask`, counted as one step."""
        return self.count(rows[mask], step, rule)

    def count(self, rows: pd.DataFrame, step: str, rule: str) -> pd.DataFrame:
        """The rows as they are, counted as one step."""
        self.steps.append(FlowStep(step, rule, len(rows), rows["subject_id"].nunique()))
        return rows

    def __str__(self) -> str:
        return ", ".join(f"{step.step}: {step.admissions} after" for step in self.steps)


def _episodes(stays: pd.DataFrame, flow: _Flow) -> pd.DataFrame:
    """Episodes, each with the admission that its next one is if that is for observation alone (else NaT)."""
    flow.count(stays, "admissions", "every stay in the data")
    in_order = stays["dischtime"] > stays["admittime"]
    stays = flow.keep(stays, in_order, "dated", "discharge after admission")
    episodes = build_episodes(stays)
    flow.count(episodes, "episode", "stays that overlap or touch on a calendar day are one; from here N is episodes")
    after = episodes.groupby("subject_id")[["admittime", "observation_only"]].shift(-1)
    only = after["observation_only"].eq(True)
    return episodes.assign(next_observation=after["admittime"].where(only))


def _inpatient(episodes: pd.DataFrame, flow: _Flow) -> pd.DataFrame:
    """Episodes with more than observation, each with the next of them: readmissions are found among these alone."""
    rule = "not all stays are EU, AMBULATORY or DIRECT OBSERVATION"
    inpatient = flow.keep(episodes, ~episodes["observation_only"], "inpatient", rule)
    after = inpatient.groupby("subject_id")[["admittime", "admission_type"]].shift(-1)
    return inpatient.assign(next_admittime=after["admittime"], next_type=after["admission_type"])


def _samples(index: pd.DataFrame) -> pd.DataFrame:
    index = index.sort_values(["subject_id", "dischtime", "encounter_id"], ignore_index=True)
    bands = pd.cut(index["age"], [*_AGE_BANDS, np.inf], right=False, labels=list(_AGE_BANDS.values()))
    return pd.DataFrame(
        {
            "sample_id": np.arange(len(index), dtype=np.int64),
            "subject_id": index["subject_id"],
            "encounter_id": index["encounter_id"],
            "prediction_time": index["dischtime"],
            "label_readmission": index["label"],
            "status_readmission": index["status"],
            "group_sex": index["sex"],
            "group_age_band": bands.astype("str"),
            "group_race": index["race"],
            "group_insurance": index["insurance"],
            "group_language": index["language"],
            "group_care_unit": index["care_unit"].fillna("no ICU"),
        }
    )


def _summary_stored(index: pd.DataFrame) -> dict[str, float]:
    """Shares of index stays by when the first discharge summary of the episode could be read."""
    lag = index["summary_time"] - index["dischtime"]
    by_discharge = lag <= pd.Timedelta(0)
    soon = ~by_discharge & (lag <= _SUMMARY_LAG)
    shares = {
        "by dischtime": by_discharge,
        "within 24 h": soon,
        "later": lag > _SUMMARY_LAG,
        "never": lag.isna(),
    }
    return {name: float(mask.mean()) if len(index) else 0.0 for name, mask in shares.items()}


def _prevalences(index: pd.DataFrame) -> dict[str, Any]:
    admitted = index["admission_type"] == "OBSERVATION ADMIT"
    return {
        "prevalence": {
            "all eligible": _prevalence(index),
            "without each patient's last admission (as peers do; selects on the future)": _prevalence(
                index[index["next_admittime"].notna()]
            ),
        },
        "observation_admit": {
            "n": int(admitted.sum()),
            "with": _prevalence(index),
            "without": _prevalence(index[~admitted]),
        },
    }


def _prevalence(index: pd.DataFrame) -> float | None:
    """Share of known labels that are 1; None where no label is known."""
    known = index["label"].dropna().astype(np.float64)
    return float(known.mean()) if len(known) else None
