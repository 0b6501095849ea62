"""Sets of diagnosis codes, and the values of MIMIC-IV's administrative columns that cohort rules use.

A code has a meaning only together with its version: V271 is a stillbirth in ICD-9 and a motorcyclist in ICD-10. So
every set has patterns per version, and EVENTS codes contain their version: `DIAGNOSIS//ICD10//I500`. Codes are written
without dots.
"""

import re
from dataclasses import dataclass

from ehrdl.errors import SchemaError


@dataclass(frozen=True)
class CodeSet:
    """A named set of diagnosis codes, given as patterns for ICD-9 and for ICD-10.

    A pattern is a prefix (`V57` includes V571) or a range between two prefixes of the same length. A range includes
    both ends (`F20-F69` includes F200 to F6999). Ranges follow ASCII order, in which digits come before letters.
    C00-C96 therefore includes C4A (Merkel cell), C7A and C7B (neuroendocrine), which are malignant too.

    Attributes:
        name: the set's name in flow charts and messages.
        icd9: the patterns of ICD-9-CM.
        icd10: the patterns of ICD-10-CM.
    """

    name: str
    icd9: tuple[str, ...]
    icd10: tuple[str, ...]

    def bounds(self, version: int) -> list[tuple[str, str]]:
        """Return the first and last prefix of each pattern for one ICD version. For a single prefix, both are equal.

        Raises:
            SchemaError: the version is neither 9 nor 10.
        """
        if version not in (9, 10):
            raise SchemaError(f"icd_version: {version!r} is neither 9 nor 10")
        ends = [pattern.split("-") for pattern in (self.icd9 if version == 9 else self.icd10)]
        return [(end[0], end[-1]) for end in ends]


# The exclusions of CMS's hospital-wide readmission measure, as the task `readmission` adapts them to MIMIC-IV.
PSYCHIATRIC = CodeSet("psychiatric", icd9=("295-302", "306-314"), icd10=("F20-F69", "F80-F99", "R45851"))
REHABILITATION = CodeSet("rehabilitation", icd9=("V57",), icd10=("Z5189",))
CANCER_TREATMENT = CodeSet(
    "cancer_treatment",
    icd9=("140-208", "2090-2093", "V580", "V581"),
    icd10=("C00-C96", "Z510", "Z511"),
)
DELIVERY = CodeSet("delivery", icd9=("650", "V27"), icd10=("O80", "O82", "Z37"))

# The label of the task `diagnosis.heart_failure`: heart failure (428; I50), rheumatic heart failure (39891; I0981), and
# hypertensive heart disease (with or without kidney disease) with heart failure. Source: the titles of ICD-9-CM and
# ICD-10-CM.
HEART_FAILURE = CodeSet(
    "heart_failure",
    icd9=("428", "40201", "40211", "40291", "40401", "40403", "40411", "40413", "40491", "40493", "39891"),
    icd10=("I50", "I110", "I130", "I132", "I0981"),
)

# Conditions that rule out a new kidney injury in the task `aki`: end-stage renal disease, dependence on dialysis, a
# transplanted kidney. V451 includes V4511 (dialysis) and V4512 (not compliant with it).
END_STAGE_KIDNEY = CodeSet(
    "end_stage_kidney",
    icd9=("5856", "V420", "V451"),
    icd10=("N186", "Z940", "Z992"),
)

# Services of MIMIC-IV (mimic.mit.edu/docs/iv/modules/hosp/services) that are specialties of surgery in the list of the
# American College of Surgeons. Ophthalmology (EYE), oral and maxillofacial surgery (DENT), otolaryngology (ENT),
# urology (GU) and gynaecology (GYN) count. Obstetrics (OBS) does not, since deliveries have a set of their own. This is
# broader than mimic-code's `%SURG` or ORTHO.
SURGICAL_SERVICES = (
    "CSURG", "DENT", "ENT", "EYE", "GU", "GYN", "NSURG", "ORTHO", "PSURG", "SURG", "TRAUM", "TSURG", "VSURG",
)  # fmt: skip
#: All services of MIMIC-IV, from the same page. The rules of surgery and oncology know only these.
SERVICES = frozenset({*SURGICAL_SERVICES, "CMED", "MED", "NB", "NBB", "NMED", "OBS", "OMED", "PSYCH"})

# Values of admissions.admission_type in MIMIC-IV. OBSERVATION ADMIT is not an observation: it became an inpatient stay.
PLANNED_ADMISSIONS = ("ELECTIVE", "SURGICAL SAME DAY ADMISSION")
OBSERVATION_ADMISSIONS = ("AMBULATORY OBSERVATION", "DIRECT OBSERVATION", "EU OBSERVATION")
#: All values of admission_type, and of the uniform bill's field "type of admission" (UB-04). The rules know only these.
ADMISSION_TYPES = frozenset(
    {
        *PLANNED_ADMISSIONS, *OBSERVATION_ADMISSIONS, "DIRECT EMER.", "EW EMER.", "OBSERVATION ADMIT", "URGENT",
        "EMERGENCY", "NEWBORN", "TRAUMA", "UNKNOWN",
    }
)  # fmt: skip
#: Values of admissions.discharge_location in MIMIC-IV, and further ones that sources write. The rules know only these.
DISCHARGE_LOCATIONS = frozenset(
    {
        "ACUTE HOSPITAL", "AGAINST ADVICE", "ASSISTED LIVING", "CHRONIC/LONG TERM ACUTE CARE", "DIED",
        "HEALTHCARE FACILITY", "HOME", "HOME HEALTH CARE", "HOSPICE", "OTHER FACILITY", "PSYCH FACILITY", "REHAB",
        "SKILLED NURSING FACILITY", "ALIVE", "UNKNOWN",
    }
)  # fmt: skip
#: White space between and around words: blanks of any width, tabs, a byte order mark (a pattern of RE2, for DuckDB).
BLANKS = r"[\s\p{Z}\x{200B}\x{FEFF}]+"
_BLANKS = re.compile(r"[\s\u200b\ufeff]+")


def folded(word: str) -> str:
    """Return an administrative value as rules compare it: upper case, one space between words, none at the ends.

    >>> folded("  Against\u00a0 advice ")
    'AGAINST ADVICE'
    """
    return _BLANKS.sub(" ", word).strip().upper()


def folded_sql(column: str) -> str:
    """Return a DuckDB SQL expression that changes the values of a column as `folded` does."""
    return f"upper(trim(regexp_replace({column}, '{BLANKS}', ' ', 'g')))"


def matches(codes: CodeSet, version: int, code: str) -> bool:
    """Return whether an ICD code belongs to a set.

    Args:
        codes: the set of codes.
        version: the ICD version of `code`, 9 or 10.
        code: the code, without dots and without spaces around it.

    Raises:
        SchemaError: the version is neither 9 nor 10.

    >>> matches(DELIVERY, 9, "V271"), matches(DELIVERY, 10, "V271")
    (True, False)
    """
    return any(len(code) >= len(low) and low <= code[: len(low)] <= high for low, high in codes.bounds(version))


def sql(codes: CodeSet, column: str = "code") -> str:
    """Return a DuckDB SQL condition: whether the EVENTS code in a column belongs to a set. A null code gives null.

    >>> sql(REHABILITATION)
    "(starts_with(code, 'DIAGNOSIS//ICD9//V57') OR starts_with(code, 'DIAGNOSIS//ICD10//Z5189'))"
    """
    terms = []
    for version in (9, 10):
        stem = f"DIAGNOSIS//ICD{version}//"
        for low, high in codes.bounds(version):
            length = len(stem + low)
            if low == high:
                terms.append(f"starts_with({column}, '{stem}{low}')")
            else:  # the length is checked because a truncated code, such as F6, sorts between F20 and F69
                between = f"substr({column}, 1, {length}) BETWEEN '{stem}{low}' AND '{stem}{high}'"
                terms.append(f"(length({column}) >= {length} AND {between})")
    return f"({' OR '.join(terms)})"
