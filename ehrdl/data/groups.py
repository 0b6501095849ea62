"""Merges groups of patients in SAMPLES: words that mean the same, and groups so small that they identify a patient."""

from __future__ import annotations

import pandas as pd

from ehrdl.clinical.demographics import merged

#: Groups that take their values from free text in the hospital's tables.
_TYPED = ("sex", "race", "insurance", "language", "care_unit")
_WORDS = ("sex", "race", "insurance", "language")
#: A language of a smaller share of the patients is `other`.
_MIN_SHARE = 0.01


def merged_words(samples: pd.DataFrame) -> pd.DataFrame:
    """Return SAMPLES with the words of sex, race, insurance and language merged (see `clinical.demographics`).

    Languages of less than 1 % of the patients become `other`.
    """
    changed = {name: merged(samples[name], name.removeprefix("group_")) for name in _columns(samples, _WORDS)}
    if "group_language" in changed:
        language = changed["group_language"]
        patients = samples["subject_id"].groupby(language).nunique()
        rare = patients.index[patients < _MIN_SHARE * samples["subject_id"].nunique()]
        changed["group_language"] = language.mask(language.isin(rare), "other")
    return samples.assign(**changed)


def named_groups(samples: pd.DataFrame, min_patients: int) -> pd.DataFrame:
    """Return SAMPLES with small groups merged, since a rare value, such as a language, can identify a patient.

    Args:
        samples: the SAMPLES table with its columns `group_…`.
        min_patients: the fewest patients that a group must have to keep its name. The smaller groups of a column become
            one group.
    """
    changed = {}
    for name in _columns(samples, _TYPED):
        patients = samples.groupby(name, dropna=True).subject_id.nunique()
        few = samples[name].isin(patients.index[patients < min_patients])
        if few.any():
            changed[name] = samples[name].astype(object).mask(few, f"fewer than {min_patients} patients")
    return samples.assign(**changed)


def _columns(samples: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    return [f"group_{name}" for name in names if f"group_{name}" in samples]
