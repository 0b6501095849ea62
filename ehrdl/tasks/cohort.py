"""What the cohorts of stays share: age, and SAMPLES with the groups that results are told apart by."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ehrdl.errors import ConfigError

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


def to_samples(index: pd.DataFrame, output: str) -> pd.DataFrame:
    """SAMPLES of index stays, without their split.

    Args:
        index: subject_id, encounter_id, prediction_time, label, status, age, sex, race, insurance, language, care_unit
            (null = no ICU), and any further group_ columns.
        output: what is predicted.
    """
    index = index.sort_values(_ORDER, ignore_index=True)
    bands = pd.cut(index["age"], [*_AGE_BANDS, np.inf], right=False, labels=list(_AGE_BANDS.values()))
    samples = pd.DataFrame(
        {
            "sample_id": np.arange(len(index), dtype=np.int64),
            **{name: index[name] for name in ("subject_id", "encounter_id", "prediction_time")},
            f"label_{output}": index["label"].astype(np.float32),
            f"status_{output}": index["status"],
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
