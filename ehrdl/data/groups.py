"""Groups of patients, with the names that predictions and the report use."""

from __future__ import annotations

import pandas as pd

#: Groups that take their values from free text in the hospital's tables.
_TYPED = ("sex", "race", "insurance", "language", "care_unit")


def named_groups(samples: pd.DataFrame, min_patients: int) -> pd.DataFrame:
    """Return SAMPLES without the names of groups that are too small: a rare language can identify a patient.

    Args:
        samples: SAMPLES with their groups.
        min_patients: the fewest patients of the cohort in a named group; smaller groups are merged into one.
    """
    changed = {}
    for name in (f"group_{name}" for name in _TYPED):
        if name in samples:
            patients = samples.groupby(name, dropna=True).subject_id.nunique()
            few = samples[name].isin(patients.index[patients < min_patients])
            if few.any():
                changed[name] = samples[name].astype(object).mask(few, f"fewer than {min_patients} patients")
    return samples.assign(**changed)
