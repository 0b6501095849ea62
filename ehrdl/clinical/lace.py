"""The LACE index of death or unplanned readmission within 30 days of discharge: 0 to 19 points.

Source: van Walraven et al., CMAJ 182 (2010) 551, the figure that shows the index. The items are Length of stay, Acute
admission, Comorbidity, Emergency visits. The index's c statistic was 0.68 in the derivation cohort.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The index's own weights of Charlson's comorbidities, after Schneeweiss et al., Health Serv Res 38 (2003) 1103. Quan's
#: codes do not grade kidney disease. It counts 2, as when the index is used on coded data (BMJ Open 7 (2017) e016921).
COMORBIDITY_WEIGHTS: Mapping[str, int] = {
    "myocardial_infarction": 1,
    "cerebrovascular": 1,
    "peripheral_vascular": 1,
    "diabetes": 1,
    "heart_failure": 2,
    "diabetes_with_complications": 2,
    "chronic_pulmonary": 2,
    "mild_liver": 2,
    "renal": 2,
    "cancer": 2,
    "dementia": 3,
    "rheumatic": 3,
    "severe_liver": 4,
    "aids": 4,
    "metastatic_cancer": 6,
}


def lace(
    length_of_stay_days: ArrayLike, acute: ArrayLike, comorbidity: ArrayLike, emergency_visits: ArrayLike
) -> NDArray[np.int64]:
    """Return the LACE index of each hospital stay, from one array per item of the index.

    Args:
        length_of_stay_days: the whole days from admission to discharge.
        acute: whether the admission was emergent.
        comorbidity: the Charlson index with the weights `COMORBIDITY_WEIGHTS`.
        emergency_visits: the number of visits to an emergency department in the six months before the admission. The
            visit that led to the admission does not count.

    In the first stay, four days, an acute admission, heart failure and one visit give 4 + 3 + 2 + 1 points:

    >>> lace([4, 0, 20], [True, False, True], [2, 0, 9], [1, 0, 7])
    array([10,  0, 19])
    """
    days, burden, visits = (np.asarray(item) for item in (length_of_stay_days, comorbidity, emergency_visits))
    stay = np.array([0, 1, 2, 3, 4, 5, 7])[np.searchsorted([1, 2, 3, 4, 7, 14], days, side="right")]
    illness = np.where(burden >= 4, 5, burden)
    points: NDArray[np.int64] = stay + 3 * np.asarray(acute, dtype=np.int64) + illness + np.minimum(visits, 4)
    return points
