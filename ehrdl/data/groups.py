"""Merges small groups of patients in SAMPLES, so that no rare value identifies a patient."""

from __future__ import annotations

import pandas as pd

#: Groups that take their values from free text in the hospital's tables.
_TYPED = ("sex", "race", "insurance", "language", "care_unit")


def named_groups(samples: pd.DataFrame, min_patients: int) -> pd.DataFrame:
    """Return SAMPLES with small groups merged, since a rare value, such as a language, can identify a patient.

    Args:
        samples: the SAMPLES table with its columns `group_…`.
        min_patients: the fewest patients that a group must have to keep its name. The smaller groups of a column become
            one group.
    """
    changed = {}
    for name in (f"group_{name}" for name in _TYPED):
        if name in samples:
            patients = samples.groupby(name, dropna=True).subject_id.nunique()
            few = samples[name].isin(patients.index[patients < min_patients])
            if few.any():
                changed[name] = samples[name].astype(object).mask(few, f"fewer than {min_patients} patients")
    return samples.assign(**changed)
