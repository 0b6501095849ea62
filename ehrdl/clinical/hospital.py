"""The HOSPITAL score of potentially avoidable readmission within 30 days of discharge: 0 to 13 points.

Source: Donzé et al., JAMA Intern Med 173 (2013) 632, table 3. The items are low Haemoglobin, discharge from an Oncology
service, low Sodium, any Procedure, Index admission Type, Admissions in the year before, Length of stay. The score's c
statistic was 0.71 in the derivation cohort. Here, as in that source, earlier admissions are grouped as 0, 1 to 5, and
more than 5. The validation study of 2016 (JAMA Intern Med 176: 496) used the groups 0 to 1 and 2 to 5 instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOW_HEMOGLOBIN = 12.0  # [g/dL]
LOW_SODIUM = 135.0  # [mEq/L]
LONG_STAY_DAYS = 5


def hospital(
    hemoglobin: ArrayLike,
    oncology: ArrayLike,
    sodium: ArrayLike,
    procedure: ArrayLike,
    nonelective: ArrayLike,
    admissions: ArrayLike,
    length_of_stay_days: ArrayLike,
) -> NDArray[np.int64]:
    """Return the HOSPITAL score of each hospital stay, from one array per item of the score.

    Args:
        hemoglobin: the stay's last haemoglobin [g/dL]. NaN (not measured) gives no point.
        oncology: whether the patient was discharged from an oncology service.
        sodium: the stay's last sodium [mEq/L]. NaN (not measured) gives no point.
        procedure: whether any ICD-coded procedure was done in the stay.
        nonelective: whether the admission was urgent or emergent.
        admissions: the number of hospital admissions in the year before this admission.
        length_of_stay_days: the whole days from admission to discharge.

    >>> hospital([11.9, 12.0], [True, False], [134, np.nan], [True, False], [True, False], [6, 1], [5, 4])
    array([13,  2])
    """
    points: NDArray[np.int64] = np.array([0, 2, 5])[np.searchsorted([1, 6], np.asarray(admissions), side="right")]
    terms = (
        (1, np.asarray(hemoglobin, dtype=np.float64) < LOW_HEMOGLOBIN),
        (2, np.asarray(oncology, dtype=bool)),
        (1, np.asarray(sodium, dtype=np.float64) < LOW_SODIUM),
        (1, np.asarray(procedure, dtype=bool)),
        (1, np.asarray(nonelective, dtype=bool)),
        (2, np.asarray(length_of_stay_days) >= LONG_STAY_DAYS),
    )
    for weight, yes in terms:
        points = points + weight * yes.astype(np.int64)
    return points
