"""Unplanned readmission within 30 days for any cause, following the CMS hospital-wide measure.

Source: CMS, Hospital-Wide All-Cause Unplanned Readmission Measure, adapted to MIMIC-IV (no CCS tables, no enrolment).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd

from ehrdl.clinical.codes import CANCER_TREATMENT, DELIVERY, PLANNED_ADMISSIONS, PSYCHIATRIC, REHABILITATION
from ehrdl.clinical.years import approximate_years
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.info import TaskInfo
from ehrdl.options.bounds import Bound
from ehrdl.schema import OutputSpec, TaskResult
from ehrdl.tasks.common.base import Task
from ehrdl.tasks.common.cohort import (
    Age,
    age_at_admission,
    deaths,
    old_enough,
    prevalence,
    read_admissions,
    to_samples,
    whom,
    with_patients,
)
from ehrdl.tasks.common.flow import Facts, Flow
from ehrdl.tasks.common.stays import build_episodes, read_emergency_visits

if TYPE_CHECKING:
    import duckdb

Variant = Literal["at_discharge", "note_complete"]
Death = Literal["negative", "exclude", "composite"]
EmergencyReturn = Literal["negative", "composite"]

_TRANSFERRED_OR_LEFT = ("ACUTE HOSPITAL", "AGAINST ADVICE")
_HOSPICE = "HOSPICE"
_OBSERVATION_ADMIT = "OBSERVATION ADMIT"
_NOTE_LAG = pd.Timedelta(hours=24)

#: Printed with every result.
CAVEATS = (
    "Only returns to the hospitals in these data are seen; a readmission elsewhere counts as none.",
    "Planned is a fallback without CCS tables: the next admission is ELECTIVE or SURGICAL SAME DAY ADMISSION. The CMS "
    "planned readmission algorithm, version 2.1, had sensitivity 45 %, specificity 96 % and PPV 52 % (Horwitz 2015).",
    "An emergency-only return is an episode of observation stays, or an emergency visit without a stay where the "
    "source has transfers; it counts as no readmission unless the config says so.",
    "Cohort exclusions use diagnosis codes that are billed after discharge and not yet known at the prediction time.",
)

#: Sentences about the numbers in the notes.
_FACTS = {
    "summary_stored": "{by dischtime} of the discharge summaries were stored by discharge, {within 24 h} within the "
    "next 24 hours, and {later} later; {never} of the stays have none.",
    "planned_next": "{} stays were followed by a planned admission, which does not count as a readmission.",
    "emergency_only_return": "{} stays were followed only by an observation stay or an emergency visit.",
    "died_within_horizon": "{} stays were followed by death in the horizon without an unplanned readmission.",
    "censored": "{} stays reach the last year of the data, so that their outcome is unknown.",
    "prevalence": "Prevalence of the outcome: {*}.",
    "observation_admit": "{n} stays began as an observation. The prevalence is {with:share} with them, and "
    "{without:share} without them.",
}


class Readmission(Task):
    """Unplanned readmission within `horizon_days` of discharge, predicted at discharge or a day later."""

    name = "readmission"
    #: The best published values with all EHR data are 0.75 to 0.78.
    too_good = 0.85

    def __init__(
        self,
        variant: Variant = "at_discharge",
        horizon_days: Annotated[float, Bound("(0, 365]")] = 30,
        min_age: Age = 18,
        keep_hospice: bool = False,
        death: Death = "negative",
        emergency_return: EmergencyReturn = "negative",
        censor_last_year: Annotated[int, Bound("[1900, 2100]")] | None = None,
    ) -> None:
        """Choose a variant of the definition; the defaults are the primary one.

        Args:
            variant: the prediction time. `at_discharge`: the discharge itself. `note_complete`: 24 h after the
                discharge, when most summaries are stored. `note_complete` leaves out patients who are readmitted by
                then, or died by the end of that day. In both variants, the horizon starts at the discharge.
            horizon_days: the length of the outcome window from discharge [days], above 0, at most 365, since MIMIC-IV
                has no dates of death (dod) after that.
            min_age: the youngest age at admission [years]; 0 or null = everyone, also patients of unknown age.
            keep_hospice: whether to keep index stays that were discharged to a hospice.
            death: the label of a death in the horizon without an unplanned readmission: 0 (`negative`, as in CMS) or 1
                (`composite`). `exclude` leaves such stays out of the cohort.
            emergency_return: the label of a return in the horizon only for observation or to the emergency department:
                0 (`negative`, as in CMS) or 1 (`composite`).
            censor_last_year: the release's last year (2019 for MIMIC-IV 2.x, 2022 for 3.x). The label of an index stay
                is unknown if its range of approximate years reaches that year. null = all labels are kept.

        Raises:
            ConfigError: a value is invalid.
        """
        self.min_age = min_age or 0
        if variant == "note_complete" and horizon_days <= 1:
            raise ConfigError(f"task.horizon_days: {horizon_days} is over by task.variant note_complete, 1 day after")
        self.variant = variant
        self.horizon_days = horizon_days
        self.keep_hospice = keep_hospice
        self.death = death
        self.emergency_return = emergency_return
        self.censor_last_year = censor_last_year
        given = (variant, horizon_days, death, emergency_return)
        self.simulated = given == ("at_discharge", 30, "negative", "negative")

    @property
    def info(self) -> TaskInfo:
        """The title and the sentence that describe the prediction in the report."""
        days = f"{self.horizon_days:g}"
        when = "at the moment of discharge" if self.variant == "at_discharge" else "24 hours after discharge"
        return TaskInfo(
            f"Unplanned readmission within {days} days",
            f"For {whom(self.min_age)} who left hospital alive, each model gives the risk of unplanned readmission "
            f"within {days} days, {when}, from {{inputs}} known by then.",
            self._outcome(days),
            _FACTS,
        )

    def _outcome(self, days: str) -> str:
        """Return what counts as the outcome, in words."""
        also = []
        if self.emergency_return == "composite":
            also.append("a return only for observation or to the emergency department")
        if self.death == "composite":
            also.append("death without a readmission")
        more = f" So does {' and '.join(also)} in this time." if also else ""
        return f"An admission that was not planned counts, later than the discharge and within {days} days of it.{more}"

    def label(self, events: duckdb.DuckDBPyRelation) -> TaskResult:
        """Find the discharges to predict from (index stays), and whether an unplanned readmission followed each.

        Args:
            events: the EVENTS table of any source that writes `ADMISSION//`, `DISCHARGE//` and `ADMISSION_TYPE//`.

        Returns:
            One sample per index stay, which may be an episode of several stays. The status `death` means a death in the
            horizon without an unplanned readmission.

        Raises:
            SchemaError: no index stay remains (the message lists the steps of the flow chart), or a subject lacks the
                anchor_year_group that `censor_last_year` needs.
        """
        flow = Flow()
        stays = read_admissions(events, flow, (PSYCHIATRIC, REHABILITATION, CANCER_TREATMENT), (DELIVERY,))
        inpatient = self._inpatient(with_patients(_episodes(stays, flow), events), flow)
        index = self._exclude(self._adult_and_alive(inpatient, flow), flow)
        index = self._at_risk(_with_emergency(index, read_emergency_visits(events)), flow)
        self._check_outcome(index, flow)
        index = self._outcomes(index)
        notes = self._notes(index)
        if self.death == "exclude":
            rule = "not died in the horizon without an unplanned readmission (selects on the future)"
            index = flow.keep(index, index["status"] != "death", "death", rule)
        if index.empty:
            raise SchemaError(f"task.readmission: no index stay is left: {flow}")
        samples = to_samples(index, self.name)
        return TaskResult(samples, flow.steps, [OutputSpec(self.name)], notes=notes | _prevalences(index))

    def planned(self, episodes: pd.DataFrame) -> pd.Series:
        """Return whether each episode is planned, by its admission type.

        CMS version 4 uses CCS tables instead. A subclass that has these tables replaces this method and
        `planned_needs`.

        Args:
            episodes: the episodes of `build_episodes`, without those only for observation.
        """
        return episodes["admission_type"].isin(PLANNED_ADMISSIONS)

    def planned_needs(self, episodes: pd.DataFrame) -> list[Facts]:
        """Return the facts that `planned` needs. A subclass that replaces one of the two methods must replace both."""
        return [Facts("admission types", episodes["admission_type"].notna())]

    def _inpatient(self, episodes: pd.DataFrame, flow: Flow) -> pd.DataFrame:
        """Keep episodes that are not only for observation, and add to each the next one, which may be a readmission."""
        rule = "not all stays are EU, AMBULATORY or DIRECT OBSERVATION"
        types = Facts("admission types", episodes["admission_type"].notna())
        inpatient = flow.keep(episodes, ~episodes["observation_only"], "inpatient", rule, types)
        inpatient = inpatient.assign(planned=self.planned(inpatient))
        flow.check(inpatient, "outcome: planned", "a planned return is no outcome", *self.planned_needs(inpatient))
        after = inpatient.groupby("subject_id")[["admittime", "planned"]].shift(-1)
        return inpatient.assign(next_admittime=after["admittime"], next_planned=after["planned"].eq(True))

    def _adult_and_alive(self, index: pd.DataFrame, flow: Flow) -> pd.DataFrame:
        index = old_enough(index.assign(age=age_at_admission(index)), flow, self.min_age)
        # A date of death counts at the end of its day, so this is also `dod before date(dischtime)`.
        dead = index["died"] | (index["death"] <= index["dischtime"])
        rule = "not died in the stay; death not dated before the discharge day"
        return flow.keep(index, ~dead, "alive", rule, deaths(index))

    def _exclude(self, index: pd.DataFrame, flow: Flow) -> pd.DataFrame:
        left = _TRANSFERRED_OR_LEFT if self.keep_hospice else (*_TRANSFERRED_OR_LEFT, _HOSPICE)
        locations = Facts("discharge locations", index["disposition"].notna())
        coded = [Facts("diagnosis codes", index["n_codes"] > 0), Facts("codes of ICD-9 or ICD-10", index["n_icd"] > 0)]
        principal = [*coded, Facts("principal diagnoses (sequence number 1)", index["n_principal"] > 0)]
        services = Facts("services", index["n_services"] > 0, exception=True)
        for reason, excluded, rule, needs in (
            ("disposition", index["disposition"].isin(left), f"not discharged to {', '.join(left)}", [locations]),
            ("psychiatric", index["principal_psychiatric"], "principal diagnosis not psychiatric", principal),
            ("rehabilitation", index["principal_rehabilitation"], "principal diagnosis not rehabilitation", principal),
            (
                "cancer",
                index["principal_cancer_treatment"] & ~index["surgical"],
                "principal diagnosis not cancer, unless under a surgical service",
                [*principal, services],
            ),
            ("delivery", index["coded_delivery"], "no delivery in any position", coded),
        ):
            index = flow.keep(index, ~excluded[index.index], f"excluded: {reason}", rule, *needs)
        return index

    def _check_outcome(self, index: pd.DataFrame, flow: Flow) -> None:
        """Report which options of the outcome these data cannot support."""
        if self.death != "negative":
            flow.check(index, "outcome: death", f"death in the horizon: {self.death}", deaths(index))
        if self.emergency_return == "composite":
            seen = Facts("emergency visits or observation stays", bool(index["emergency_recorded"].any()))
            flow.check(index, "outcome: emergency return", "counts as a readmission", seen)

    def _at_risk(self, index: pd.DataFrame, flow: Flow) -> pd.DataFrame:
        """Add the prediction time, and keep the index stays that have no outcome by then."""
        if self.variant == "at_discharge":
            return index.assign(prediction_time=index["dischtime"])
        index = index.assign(prediction_time=index["dischtime"] + _NOTE_LAG)
        returned = index["next_admittime"] <= index["prediction_time"]
        if self.emergency_return == "composite":
            returned |= index["emergency_time"] <= index["prediction_time"]
        dead = index["death"].dt.normalize() <= index["prediction_time"].dt.normalize()
        rule = "not readmitted by 24 h after discharge (t0); death not dated on the day of t0 or before"
        return flow.keep(index, ~(returned | dead), "at risk at t0", rule)

    def _outcomes(self, index: pd.DataFrame) -> pd.DataFrame:
        """Add the events after each index stay in the horizon, then `label` and `status`."""
        returned = self._follows(index, "next_admittime")
        index = index.assign(
            readmitted=returned & ~index["next_planned"],
            planned_next=returned & index["next_planned"],
            emergency_only=self._follows(index, "emergency_time"),
            died_after=self._follows(index, "death"),
            censored=self._reaches_last_year(index),
            group_observation_admit=_observation_admit(index["admission_type"]),
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
        """Return whether the time in `column` lies in (dischtime, dischtime + horizon]."""
        gap = index[column] - index["dischtime"]
        return (gap > pd.Timedelta(0)) & (gap <= pd.Timedelta(days=self.horizon_days))

    def _reaches_last_year(self, index: pd.DataFrame) -> pd.Series:
        if self.censor_last_year is None:
            return pd.Series(False, index=index.index)
        known = index["anchor_year_group"], index["anchor_year"]
        latest = approximate_years(*known, index["admittime"].dt.year, self.censor_last_year)["latest"]
        if latest.isna().any():
            subject = index.loc[latest.isna(), "subject_id"].iloc[0]
            raise SchemaError(
                f"task.censor_last_year: subject {subject} has no ANCHOR_YEAR_GROUP event; set it to null"
            )
        reaches: pd.Series = latest >= self.censor_last_year
        return reaches

    def _notes(self, index: pd.DataFrame) -> dict[str, Any]:
        """Count outcomes over all eligible index stays, before any is left out for death."""
        without = ~index["readmitted"]
        return {
            "summary_stored": _summary_stored(index),
            "planned_next": int(index["planned_next"].sum()),
            "emergency_only_return": int((index["emergency_only"] & without).sum()),
            "died_within_horizon": int((index["died_after"] & without).sum()),
            "censored": int(index["censored"].sum()),
            "caveats": list(CAVEATS),
        }


def _episodes(stays: pd.DataFrame, flow: Flow) -> pd.DataFrame:
    """Merge stays into episodes, and add the admission time of the next episode if it is only for observation."""
    ended = stays["dischtime"].notna()
    if not ended.all():
        nobody = "" if ended.any() else "no DISCHARGE event of a stay in the data"
        stays = flow.count(stays[ended], "still there", "stays without a discharge are left out", nobody)
    in_order = stays["dischtime"] > stays["admittime"]
    stays = flow.keep(stays, in_order, "dated", "discharge after admission")
    episodes = build_episodes(stays)
    flow.count(episodes, "episode", "stays that overlap or touch on a calendar day are one; from here N is episodes")
    after = episodes.groupby("subject_id")[["admittime", "observation_only"]].shift(-1)
    only = after["observation_only"].eq(True)
    return episodes.assign(next_observation=after["admittime"].where(only))


def _with_emergency(index: pd.DataFrame, visits: pd.DataFrame) -> pd.DataFrame:
    """Add the first return for observation or to the emergency department, if no inpatient episode begins before it."""
    ordered = index.sort_values("dischtime", kind="stable")
    visit = pd.merge_asof(
        ordered[["subject_id", "dischtime"]],
        visits.rename(columns={"time": "visit"}),
        left_on="dischtime",
        right_on="visit",
        by="subject_id",
        direction="forward",
        allow_exact_matches=False,
    )["visit"]
    visit = visit.set_axis(ordered.index).reindex(index.index)
    visit = visit.where(index["next_admittime"].isna() | (visit < index["next_admittime"]))
    return index.assign(
        emergency_time=pd.concat([index["next_observation"], visit], axis=1).min(axis=1),
        emergency_recorded=bool(len(visits) or index["next_observation"].notna().any()),
    )


def _observation_admit(kind: pd.Series) -> pd.Series:
    """Return whether the stay began as an observation; null if its admission type is unknown."""
    named = kind.eq(_OBSERVATION_ADMIT).map({True: "yes", False: "no"}).astype(object)
    return named.where(kind.notna())


def _summary_stored(index: pd.DataFrame) -> dict[str, float]:
    """Return the shares of index stays by the time when the episode's first discharge summary could be read."""
    lag = index["summary_time"] - index["dischtime"]
    by_discharge = lag <= pd.Timedelta(0)
    soon = ~by_discharge & (lag <= _NOTE_LAG)
    shares = {
        "by dischtime": by_discharge,
        "within 24 h": soon,
        "later": lag > _NOTE_LAG,
        "never": lag.isna(),
    }
    return {name: float(mask.mean()) if len(index) else 0.0 for name, mask in shares.items()}


def _prevalences(index: pd.DataFrame) -> dict[str, Any]:
    admitted = index["admission_type"] == _OBSERVATION_ADMIT
    return {
        "prevalence": {
            "all eligible": prevalence(index),
            "without each patient's last admission (as peers do; selects on the future)": prevalence(
                index[index["next_admittime"].notna()]
            ),
        },
        "observation_admit": {
            "n": int(admitted.sum()),
            "with": prevalence(index),
            "without": prevalence(index[~admitted]),
        },
    }
