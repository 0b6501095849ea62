"""Table 1: the characteristics of the samples in all, in each split, and with and without each outcome.

Every characteristic is a static feature or a group column of SAMPLES. Both are of facts visible at the prediction time,
except for group columns in which a task tells how the index stay went.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.description.summary import QUARTILES, rounded, smd_of_categories, smd_of_numbers
from ehrdl.data.features.static import STATICS
from ehrdl.schema import BINARY, HELD_OUT, SPLITS, TRAIN, OutputSpec

#: Group columns that another group repeats: `present` combines both.
_REPEATED = ("has_note", "has_series")
#: Most categories of a characteristic; the rarest beyond these are one category.
_MOST_CATEGORIES = 30
_UNKNOWN, _OTHER = "unknown", "other"

#: The masks of samples (n_samples,) of each column of the table, by the column's key.
Masks = Mapping[str, np.ndarray]


def column_masks(samples: pd.DataFrame, outputs: list[OutputSpec]) -> dict[str, np.ndarray]:
    """Return the samples of each column of Table 1: `all`, each split, and `with:OUTPUT` and `without:OUTPUT`.

    The samples with and without an outcome are training samples, unless no sample is for training. A report also shows
    outcomes of groups of held-out patients, and the outcomes of small groups could be computed from two such tables.
    """
    split = samples["split"].to_numpy()
    masks = {"all": np.ones(len(samples), bool)} | {name: split == name for name in SPLITS if (split == name).any()}
    for output in outputs:
        if output.kind == BINARY:
            label = samples[f"label_{output.name}"].to_numpy()
            own = masks.get(TRAIN, masks["all"])
            masks |= {f"with:{output.name}": own & (label == 1), f"without:{output.name}": own & (label == 0)}
    return masks


def sizes(samples: pd.DataFrame, masks: Masks) -> dict[str, dict[str, int]]:
    """Return the numbers of samples and patients in each column."""
    subject = samples["subject_id"].to_numpy()
    return {key: {"samples": int(mask.sum()), "patients": _patients(subject, mask)} for key, mask in masks.items()}


def characteristics(
    samples: pd.DataFrame, dataset: SampleDataset, masks: Masks, has_stays: bool
) -> list[dict[str, Any]]:
    """Return the rows of Table 1, each with its values in every column and its standardised mean differences.

    Args:
        samples: the SAMPLES table.
        dataset: the dataset of these samples.
        masks: the columns, from `column_masks`.
        has_stays: whether the data record admissions.
    """
    static = dict(zip(STATICS, dataset.static.T, strict=True))
    subject = samples["subject_id"].to_numpy()
    age = np.where(static["age_missing"] == 0, static["age_years"], np.nan)
    rows = [_numbers("age", "Age", "years", age, subject, masks)] if np.isfinite(age).any() else []
    if "group_sex" not in samples:
        sex = np.select([static["sex_missing"] > 0, static["sex_female"] > 0], [_UNKNOWN, "F"], "M")
        rows.append(_categories("sex", pd.Series(sex), subject, masks))
    for column in samples.filter(like="group_"):
        name = str(column).removeprefix("group_")
        if name not in _REPEATED or "group_present" not in samples:
            rows.append(_categories(name, samples[column], subject, masks))
    if has_stays:
        admissions = np.rint(np.expm1(static["log_admissions_before"]))
        earlier = np.maximum(admissions - 1, 0)  # the last of them is the stay of the prediction
        rows.append(_numbers("earlier_admissions", "Earlier admissions in these data", "", earlier, subject, masks))
        if dataset.since_admission is not None:
            days = np.where(admissions > 0, dataset.since_admission / 24, np.nan)
            rows.append(_numbers("days_since_admission", "Time since the last admission", "d", days, subject, masks))
    return [row for row in rows if len(row.get("levels", "ab")) > 1]


def outcomes(samples: pd.DataFrame, outputs: list[OutputSpec], masks: Masks) -> list[dict[str, Any]]:
    """Return for each output how many samples of all and of each split had the outcome, or quartiles of a number."""
    subject = samples["subject_id"].to_numpy()
    here = {key: mask for key, mask in masks.items() if ":" not in key}
    rows = []
    for output in outputs:
        label = samples[f"label_{output.name}"].to_numpy(dtype=np.float64)
        row: dict[str, Any] = {"name": output.name, "kind": output.kind, "unit": output.unit}
        if output.kind == BINARY:
            row["values"] = {key: _events(label, subject, mask) for key, mask in here.items()}
        else:
            row["values"] = {key: _quartiles(label, subject, mask) for key, mask in here.items()}
        rows.append(row)
    return rows


def _events(label: np.ndarray, subject: np.ndarray, mask: np.ndarray) -> dict[str, int]:
    parts = {"with": label == 1, "without": label == 0, "unknown": np.isnan(label)}
    found = {name: int((part & mask).sum()) for name, part in parts.items()}
    return found | {f"patients_{name}": _patients(subject, part & mask) for name, part in parts.items()}


def _numbers(name: str, title: str, unit: str, value: np.ndarray, subject: np.ndarray, masks: Masks) -> dict[str, Any]:
    """Return the row of a characteristic that is a number; NaN = unknown."""
    value = value.astype(np.float64)  # a mean of float32 is exact to five digits only
    known = np.isfinite(value)
    differences = {
        key: smd_of_numbers(value[one & known], value[other & known]) for key, (one, other) in _pairs(masks).items()
    }
    values = {key: _quartiles(value, subject, mask) for key, mask in masks.items()}
    return {"name": name, "title": title, "unit": unit, "kind": "number", "values": values, "smd": differences}


def _quartiles(value: np.ndarray, subject: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Return the quartiles of the known values in a column, and the numbers of samples and patients that have one."""
    known = mask & np.isfinite(value)
    q1, median, q3 = rounded(np.quantile(value[known], QUARTILES)) if known.any() else (None, None, None)
    counts = {"known": int(known.sum()), "unknown": int((mask & ~known).sum())}
    counts |= {"patients": _patients(subject, known), "patients_unknown": _patients(subject, mask & ~known)}
    return counts | {"q1": q1, "median": median, "q3": q3}


def _categories(name: str, value: pd.Series, subject: np.ndarray, masks: Masks) -> dict[str, Any]:
    """Return the row of a characteristic with categories, the most frequent first."""
    text = value.astype(object).where(value.notna(), _UNKNOWN).astype(str)
    frequent = text.value_counts(sort=True).index[:_MOST_CATEGORIES]
    text = text.where(text.isin(frequent), _OTHER)
    code, levels = pd.factorize(text, sort=True)

    def counts(mask: np.ndarray) -> np.ndarray:
        return np.bincount(code[mask], minlength=len(levels))

    differences = {key: smd_of_categories(counts(one), counts(other)) for key, (one, other) in _pairs(masks).items()}
    patients = {
        key: [_patients(subject, mask & (code == i)) for i in range(len(levels))] for key, mask in masks.items()
    }
    values = {key: {"samples": counts(masks[key]).tolist(), "patients": patients[key]} for key in masks}
    title = name.replace("_", " ").capitalize()
    return {
        "name": name,
        "title": title,
        "kind": "categories",
        "levels": [str(level) for level in levels],
        "values": values,
        "smd": differences,
    }


def _pairs(masks: Masks) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the pairs of columns that are compared: train with held-out, and with each outcome and without."""
    pairs = {"splits": (masks[TRAIN], masks[HELD_OUT])} if {TRAIN, HELD_OUT} <= masks.keys() else {}
    for key, mask in masks.items():
        if key.startswith("with:"):
            pairs[key.removeprefix("with:")] = mask, masks[f"without:{key.removeprefix('with:')}"]
    return pairs


def _patients(subject: np.ndarray, mask: np.ndarray) -> int:
    """Count the patients of a mask. Samples are sorted by patient, so a patient's samples are neighbours."""
    chosen = subject[mask]
    return int(np.count_nonzero(np.diff(chosen))) + 1 if len(chosen) else 0
