"""What the cohorts of stays share: age, and SAMPLES with the groups that results are told apart by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from ehrdl.errors import ConfigError
from ehrdl.tasks.flow import Flow

_AGE_BANDS = {0: "0-17", 18: "18-44", 45: "45-64", 65: "65-74", 75: "75-84", 85: "85+"}
_ORDER = ["subject_id", "prediction_time", "encounter_id"]


def check_age(min_age: int) -> None:
    """Refuse a youngest age that no cohort has.

    Raises:
        ConfigError: naming the key.
    """
    if not 0 <= min_age <= 120:
        raise ConfigError(f"task.min_age: {min_age} is not between 0 and 120 years")


def age_at_admission(stays: pd.DataFrame) -> pd.Series:
    """Age of each stay [years], NaN where the birth is not known.

    Birth is 1 January of anchor_year - anchor_age, so this is anchor_age + year(admittime) - anchor_year.
    """
    age: pd.Series = stays["admittime"].dt.year - stays["birth"].dt.year
    return age


def still_there(
    index: pd.DataFrame, flow: Flow, min_age: int, t0: str, place: str = "in hospital", ongoing: bool = False
) -> pd.DataFrame:
    """The adults who are still there, and alive, at their prediction time: three steps of the flow chart.

    Args:
        index: age, prediction_time, end (of the stay, NaT = not in the data), death.
        flow: the flow chart.
        min_age: youngest age at admission [years]; 0 = everyone, also those whose age is not known.
        t0: the prediction time in words.
        place: where.
        ongoing: keep stays whose end is not in the data.
    """
    old_enough = (index["age"] >= min_age) | (min_age == 0)
    index = flow.keep(index, old_enough, "age", f"age at admission >= {min_age} years")
    inside = index["end"] > index["prediction_time"]
    index = flow.keep(
        index,
        inside | (index["end"].isna() & ongoing),
        place,
        f"{'discharge' if place == 'in hospital' else 'leaving it'}, or death after it, later than {t0}",
    )
    alive = ~(index["death"] <= index["prediction_time"])
    return flow.keep(index, alive, "alive", f"no death by {t0}")


def to_samples(
    index: pd.DataFrame, outputs: str | Sequence[str], auxiliary: Mapping[str, pd.Series] = MappingProxyType({})
) -> pd.DataFrame:
    """SAMPLES of index stays, without their split.

    Args:
        index: subject_id, encounter_id, prediction_time, label, status, age, sex, race, insurance, language, care_unit
            (null = no ICU), and any further group_ columns.
        outputs: what is predicted. Several of them have the columns label_NAME and status_NAME in `index`.
        auxiliary: labels of what is learned beside that, by name; rows as in `index`.
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
            "group_age_band": bands.astype("str"),
            **{f"group_{name}": index[name] for name in ("race", "insurance", "language")},
            "group_care_unit": index["care_unit"].fillna("no ICU"),
        }
    )
    return samples.join(index.filter(like="group_"))


def prevalence(index: pd.DataFrame) -> float | None:
    """Share of known labels that are 1; None where no label is known."""
    known = index["label"].dropna().astype(np.float64)
    return float(known.mean()) if len(known) else None
