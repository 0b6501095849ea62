"""Code that tasks share: the steps that select a cohort of stays, and the SAMPLES table made from the cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd

from ehrdl.clinical.codes import CodeSet
from ehrdl.options.bounds import Bound
from ehrdl.schema import BIRTH
from ehrdl.tasks.common.flow import Facts, Flow
from ehrdl.tasks.common.stays import read_icu_stays, read_stays, read_subjects

if TYPE_CHECKING:
    import duckdb

#: The prediction time after the start of a stay [h], at most thirty days.
HoursIn = Annotated[float, Bound("(0, 720]")]
#: The youngest age of a cohort [years]; null, like 0, includes everyone.
Age = Annotated[int, Bound("[0, 120]")] | None

_ADULT = 18
_AGE_BANDS = {0: "0-17", 18: "18-44", 45: "45-64", 65: "65-74", 75: "75-84", 85: "85+"}
_ORDER = ["subject_id", "prediction_time", "encounter_id"]


def whom(min_age: int) -> str:
    """Return words for patients of at least `min_age` years, such as `adults` for 18."""
    named = {0: "patients", _ADULT: "adults"}
    return named.get(min_age, f"patients of at least {min_age} years")


def read_admissions(
    events: duckdb.DuckDBPyRelation, flow: Flow, principal: Sequence[CodeSet] = (), coded: Sequence[CodeSet] = ()
) -> pd.DataFrame:
    """Read the hospital stays that have an admission, as the first step of a flow chart.

    Stays with a discharge but no admission are left out, and the step reports their number.

    Args:
        events: the EVENTS table.
        flow: the flow chart.
        principal: the code sets to look for in the principal position of the stay's diagnoses.
        coded: the code sets to look for in any position.
    """
    stays = read_stays(events, principal, coded, unadmitted=True)
    admitted = stays["admittime"].notna()
    n_without = int((~admitted).sum())
    said = [f"{n_without:,} more have a discharge but no admission"] if n_without else []
    if not admitted.any():
        said.append("no ADMISSION event of a stay in the data")
    return flow.count(stays[admitted], "admissions", "every stay in the data", "; ".join(said))


def with_patients(stays: pd.DataFrame, events: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Add the columns of `read_subjects` to each stay, and the column `deaths_recorded`.

    `deaths_recorded` is true in all rows if the data record any death, and false in all rows otherwise.
    """
    subjects = read_subjects(events)
    recorded = bool(subjects["death"].notna().any() or stays["died"].any())
    return stays.join(subjects, on="subject_id").assign(deaths_recorded=recorded)


def with_icu_stays(stays: pd.DataFrame, events: duckdb.DuckDBPyRelation, flow: Flow) -> pd.DataFrame:
    """Return one row per ICU stay within the given hospital stays, as a step of the flow chart.

    A row has the columns of the hospital stay and those of `read_icu_stays`.
    """
    icu = read_icu_stays(events)
    joined = stays.drop(columns="care_unit").merge(icu, on=["subject_id", "encounter_id"])
    caveat = "" if len(icu) else "no ICU_IN// event of a hospital stay in the data"
    rule = "a stay in an intensive care unit, counted as often as there are any"
    return flow.count(joined, "ICU stays", rule, caveat)


def deaths(index: pd.DataFrame) -> Facts:
    """Return the facts that a rule about deaths needs: whether the data record any death.

    `index` is a result of `with_patients`.
    """
    return Facts("deaths", index["deaths_recorded"])


def age_at_admission(stays: pd.DataFrame) -> pd.Series:
    """Return the age at each stay's admission [years]; NaN if the birth is unknown.

    Birth is 1 January of anchor_year - anchor_age, so the age is anchor_age + year(admittime) - anchor_year.
    """
    age: pd.Series = stays["admittime"].dt.year - stays["birth"].dt.year
    return age


def old_enough(index: pd.DataFrame, flow: Flow, min_age: int) -> pd.DataFrame:
    """Keep the stays of patients of at least `min_age`, as a step of the flow chart.

    Stays of patients of unknown age are counted as a separate step.

    Args:
        index: the stays, with the column age [years]; NaN = unknown.
        flow: the flow chart.
        min_age: the youngest age [years]. 0 keeps everyone, also patients of unknown age. Any other value leaves out
            unknown ages.
    """
    known = index["age"].notna()
    nobody = f"no {BIRTH} in the data" if len(index) and not known.any() else ""
    if not min_age:
        if not known.all():
            flow.count(index, "age unknown", f"{int((~known).sum()):,} of unknown age are kept", nobody)
        return flow.count(index, "age", "every age")
    if not known.all():
        advice = f"{nobody}; task.min_age: 0 keeps everyone" if nobody else ""
        index = flow.count(index[known], "age unknown", "unknown ages are left out", advice)
    return flow.keep(index, index["age"] >= min_age, "age", f"age at admission >= {min_age} years")


def still_there(
    index: pd.DataFrame, flow: Flow, min_age: int, t0: str, place: str = "in hospital", ongoing: bool = False
) -> pd.DataFrame:
    """Keep the stays of patients who are old enough, and at the prediction time are alive and have not left.

    Each of the rules is a step of the flow chart.

    Args:
        index: the result of `with_patients`, with the columns age, prediction_time, end (of the stay; NaT = not in the
            data) and death.
        flow: the flow chart.
        min_age: the youngest age at admission [years]; 0 = everyone, also patients of unknown age.
        t0: the prediction time in words, for the flow chart.
        place: where patients must still be, in words for the flow chart, such as `in the ICU`.
        ongoing: whether to keep stays without an end in the data.
    """
    index = old_enough(index, flow, min_age)
    ends = Facts("end in the data", index["end"].notna())
    if not ongoing and index["end"].isna().any():
        nobody = "" if index["end"].notna().any() else "no DISCHARGE event of a stay in the data"
        index = flow.count(index[index["end"].notna()], "end unknown", "stays without an end are left out", nobody)
    index = flow.keep(
        index,
        (index["end"] > index["prediction_time"]) | index["end"].isna(),
        place,
        f"{'discharge' if place == 'in hospital' else 'leaving it'}, or death after it, later than {t0}",
        ends,
    )
    alive = ~(index["death"] <= index["prediction_time"])
    return flow.keep(index, alive, "alive", f"no death by {t0}", deaths(index))


def to_samples(
    index: pd.DataFrame, outputs: str | Sequence[str], auxiliary: Mapping[str, pd.Series] = MappingProxyType({})
) -> pd.DataFrame:
    """Make the SAMPLES table from the stays of a cohort, without the column `split`.

    Args:
        index: the stays of the cohort: subject_id, encounter_id, prediction_time, label, status, age, sex, race,
            insurance, language, care_unit (null = no ICU), and any further group_ columns. With care_unit_time, an ICU
            stay that was not known at the prediction time counts as none.
        outputs: the name of the output, or a list of names. For a list, `index` has the columns label_NAME and
            status_NAME for each name, instead of label and status.
        auxiliary: the labels of auxiliary outputs, by name, with the same rows as `index`.
    """
    named = (
        {outputs: ("label", "status")}
        if isinstance(outputs, str)
        else {name: (f"label_{name}", f"status_{name}") for name in outputs}
    )
    index = index.assign(**{f"label_{name}": label for name, label in auxiliary.items()})
    index = index.sort_values(_ORDER, ignore_index=True)
    bands = pd.cut(index["age"], [*_AGE_BANDS, np.inf], right=False, labels=list(_AGE_BANDS.values()))
    samples = pd.DataFrame(
        {
            "sample_id": np.arange(len(index), dtype=np.int64),
            **{name: index[name] for name in ("subject_id", "encounter_id", "prediction_time")},
            **{f"label_{name}": index[label].astype(np.float32) for name, (label, _) in named.items()},
            **{f"label_{name}": index[f"label_{name}"].astype(np.float32) for name in auxiliary},
            **{f"status_{name}": index[status] for name, (_, status) in named.items()},
            "group_sex": index["sex"],
            "group_age_band": bands.astype("str").fillna("unknown"),
            **{f"group_{name}": index[name] for name in ("race", "insurance", "language")},
            "group_care_unit": _unit_by_then(index).fillna("no ICU"),
        }
    )
    return samples.join(index.filter(like="group_"))


def _unit_by_then(index: pd.DataFrame) -> pd.Series:
    """Return each sample's care unit; null if it became known after the prediction time."""
    unit = index["care_unit"]
    return unit.mask(index["care_unit_time"] > index["prediction_time"]) if "care_unit_time" in index else unit


def prevalence(index: pd.DataFrame) -> float | None:
    """Return the share of known values in the column `label` that are 1; None if no label is known."""
    known = index["label"].dropna().astype(np.float64)
    return float(known.mean()) if len(known) else None
