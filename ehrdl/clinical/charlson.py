"""Charlson's 17 comorbidities, found from diagnosis codes, and the Charlson index, which is their weighted sum.

Sources: Quan et al., Med Care 43 (2005) 1130, table 1 (the codes: enhanced ICD-9-CM and ICD-10). Charlson et al., J
Chronic Dis 40 (1987) 373 (the weights). Kidney disease is not graded, because Quan's codes do not grade it. Age adds no
points.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ehrdl.clinical.codes import CodeSet, sql

#: The comorbidities in the order of Quan's table. A comorbidity's position is its bit in `mask_sql`.
COMORBIDITIES = (
    CodeSet("myocardial_infarction", icd9=("410", "412"), icd10=("I21", "I22", "I252")),
    CodeSet(
        "heart_failure",
        icd9=(
            "39891", "40201", "40211", "40291", "40401", "40403", "40411", "40413", "40491", "40493", "4254-4259",
            "428",
        ),
        icd10=("I099", "I110", "I130", "I132", "I255", "I420", "I425-I429", "I43", "I50", "P290"),
    ),
    CodeSet(
        "peripheral_vascular",
        icd9=("0930", "4373", "440", "441", "4431-4439", "4471", "5571", "5579", "V434"),
        icd10=("I70", "I71", "I731", "I738", "I739", "I771", "I790", "I792", "K551", "K558", "K559", "Z958", "Z959"),
    ),
    CodeSet("cerebrovascular", icd9=("36234", "430-438"), icd10=("G45", "G46", "H340", "I60-I69")),
    CodeSet("dementia", icd9=("290", "2941", "3312"), icd10=("F00-F03", "F051", "G30", "G311")),
    CodeSet(
        "chronic_pulmonary",
        icd9=("4168", "4169", "490-505", "5064", "5081", "5088"),
        icd10=("I278", "I279", "J40-J47", "J60-J67", "J684", "J701", "J703"),
    ),
    CodeSet(
        "rheumatic",
        icd9=("4465", "7100-7104", "7140-7142", "7148", "725"),
        icd10=("M05", "M06", "M315", "M32-M34", "M351", "M353", "M360"),
    ),
    CodeSet("peptic_ulcer", icd9=("531-534",), icd10=("K25-K28",)),
    CodeSet(
        "mild_liver",
        icd9=(
            "07022", "07023", "07032", "07033", "07044", "07054", "0706", "0709", "570", "571", "5733", "5734", "5738",
            "5739", "V427",
        ),
        icd10=(
            "B18", "K700-K703", "K709", "K713-K715", "K717", "K73", "K74", "K760", "K762-K764", "K768", "K769", "Z944",
        ),
    ),
    CodeSet(
        "diabetes",
        icd9=("2500-2503", "2508", "2509"),
        icd10=tuple(f"E{kind}{end}" for kind in range(10, 15) for end in (0, 1, 6, 8, 9)),
    ),
    CodeSet(
        "diabetes_with_complications",
        icd9=("2504-2507",),
        icd10=tuple(f"E{kind}{end}" for kind in range(10, 15) for end in (2, 3, 4, 5, 7)),
    ),
    CodeSet(
        "paralysis",
        icd9=("3341", "342", "343", "3440-3446", "3449"),
        icd10=("G041", "G114", "G801", "G802", "G81", "G82", "G830-G834", "G839"),
    ),
    CodeSet(
        "renal",
        icd9=(
            "40301", "40311", "40391", "40402", "40403", "40412", "40413", "40492", "40493", "582", "5830-5837", "585",
            "586", "5880", "V420", "V451", "V56",
        ),
        icd10=("I120", "I131", "N032-N037", "N052-N057", "N18", "N19", "N250", "Z490-Z492", "Z940", "Z992"),
    ),
    CodeSet(
        "cancer",
        icd9=("140-172", "174-194", "1950-1958", "200-208", "2386"),
        icd10=(
            "C00-C26", "C30-C34", "C37-C41", "C43", "C45-C58", "C60-C76", "C81-C85", "C88", "C90-C97",
        ),
    ),
    CodeSet(
        "severe_liver",
        icd9=("4560-4562", "5722-5728"),
        icd10=("I850", "I859", "I864", "I982", "K704", "K711", "K721", "K729", "K765-K767"),
    ),
    CodeSet("metastatic_cancer", icd9=("196-199",), icd10=("C77-C80",)),
    CodeSet("aids", icd9=("042-044",), icd10=("B20-B22", "B24")),
)  # fmt: skip
NAMES = tuple(codes.name for codes in COMORBIDITIES)
#: Pairs (mild, severe) of a disease. If both are present, only the severe form counts.
GRAVER = (("diabetes", "diabetes_with_complications"), ("mild_liver", "severe_liver"), ("cancer", "metastatic_cancer"))

#: The weights of Charlson 1987, table 3.
WEIGHTS_1987: Mapping[str, int] = dict.fromkeys(NAMES, 1) | {
    "diabetes_with_complications": 2,
    "paralysis": 2,
    "renal": 2,
    "cancer": 2,
    "severe_liver": 3,
    "metastatic_cancer": 6,
    "aids": 6,
}


def mask_sql(column: str = "code") -> str:
    """Return a DuckDB SQL expression: the comorbidities of an EVENTS code as an integer, with one bit each.

    Bit i is set if the code, such as `DIAGNOSIS//ICD10//I500`, belongs to the comorbidity `NAMES[i]`.
    """
    return " + ".join(
        f"CASE WHEN {sql(codes, column)} THEN {1 << bit} ELSE 0 END" for bit, codes in enumerate(COMORBIDITIES)
    )


def flags(mask: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the bits of the integers in `mask` (n,) as booleans (n, 17), one column per comorbidity in `NAMES`."""
    bits: NDArray[np.bool_] = (np.asarray(mask)[:, None] >> np.arange(len(NAMES))) & 1 == 1
    return bits


def index(present: NDArray[np.bool_], weights: Mapping[str, int] = WEIGHTS_1987) -> NDArray[np.int64]:
    """Return the Charlson index of each row of `present`.

    Args:
        present: (n, 17), whether each comorbidity is present, in the order of `NAMES`.
        weights: the weight of each comorbidity, by name. A name that is missing has weight 0.

    The second row has both forms of diabetes. Only the weight 2 of diabetes with complications counts:

    >>> index(flags(np.array([0b1, 0b11000000000, 0b1000000000000000])))
    array([1, 2, 6])
    """
    counted = present.copy()
    for mild, grave in GRAVER:
        counted[:, NAMES.index(mild)] &= ~present[:, NAMES.index(grave)]
    return counted.astype(np.int64) @ np.array([weights.get(name, 0) for name in NAMES], dtype=np.int64)
