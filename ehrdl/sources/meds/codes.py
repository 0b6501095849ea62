r"""Rules that map a MEDS dataset's codes to EVENTS codes, and that set the delay until a fact can be seen.

Patterns are Python's regular expressions. A pattern must match the whole code, and the first pattern that matches
decides. A replacement is written as for `re.sub`, where `\1` is the text of the first group. In a replacement, `{NAME}`
becomes the row's value in the column NAME of the dataset, or nothing if the value is null.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any

import pandas as pd

from ehrdl.clinical import concepts
from ehrdl.errors import ConfigError
from ehrdl.options.bounds import Bound
from ehrdl.schema import HOUR

#: The delay of a fact [h], shorter than a century.
Delay = Annotated[float, Bound("[0, 876600)", "a fact would be seen before it happened")]
_NOTE = "NOTE//"
_COLUMN = re.compile(r"\{(\w+)\}")
#: The codes of diagnoses and procedures are compared without dots, in upper case.
_ICD = re.compile(r"((?:DIAGNOSIS|PROCEDURE)//ICD\d+//)(.*)", re.DOTALL)

_WEEK = 168
#: The delay from a fact's time until it can be seen [h], for datasets that do not record it. The values follow the
#: rules that `mimic4.stays`, `mimic4.bedside` and `mimic4.orders` apply if no time is recorded. Facts that are written
#: down as they happen have no delay. A note, an order or an outpatient measurement may have only a date. Its delay of
#: 24 h lasts until the end of that day.
DELAYS: Mapping[str, float] = {
    "MEDS_BIRTH|MEDS_DEATH|(ANCHOR_YEAR_GROUP|GENDER|RACE|LANGUAGE|MARITAL_STATUS)//.*": 0,
    "(ED_IN|ED_OUT|ADMISSION|DISCHARGE|TRANSFER_IN|TRANSFER_OUT|SERVICE_IN|ICU_IN|ICU_OUT)(//.*)?": 0,
    "(ADMISSION_TYPE|INSURANCE)//.*": 24,
    "(MICRO_TAKEN|DRUG_STOP)//.*": 0,
    "(CHART|OUTPUT|EMAR|INPUT_START|INPUT_END|PROCEDURE_START|PROCEDURE_END)//.*": 1,
    "LAB//.*": 4,
    "(NOTE|DRUG_START|OMR)//.*": 24,
    "(DIAGNOSIS|PROCEDURE|DRG|HCPCS|MICRO_RESULT)//.*": _WEEK,
}
#: A code that no pattern matches may be a billing code, and gets the delay of one.
DEFAULT_DELAY = float(_WEEK)


@cache
def shipped_delays() -> dict[str, float]:
    """Return the shipped delays [h] by pattern of codes: the pattern of charted laboratory values, then `DELAYS`.

    A laboratory value in the chart has the time of the blood draw, so it gets the delay of laboratory results.
    """
    known = concepts.load()
    labs = set(known.frame.base_code[known.frame.category == "lab"])
    charted = "|".join(code for code in known.base_codes("CHART//") if code in labs)
    return {f"({charted})(//.*)?": DELAYS["LAB//.*"], **DELAYS}


@dataclass(frozen=True)
class CodeRules:
    """The rules for a dataset's codes, which are options of the source `Meds`.

    Attributes:
        rename: for each pattern, the codes that replace a matching code: one, several or none.
        notes: the patterns of codes for which text_value is a note.
        delays: the delay for each pattern [h]. These patterns are tried before those of `shipped_delays`.
        default_delay: the delay of codes that no pattern matches [h].
    """

    rename: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    delays: Mapping[str, float]
    default_delay: float

    def __post_init__(self) -> None:
        """Refuse an invalid pattern or replacement. The error names its key."""
        for pattern, codes in self.rename.items():
            for code in codes:
                _check_pattern("rename", pattern, code)
        for pattern in self.notes:
            _check_pattern("notes", pattern)
        for pattern in self.delays:
            _check_pattern("delays", pattern)

    def key(self) -> list[Any]:
        """Return the rules as nested lists of plain values, to be part of a cache key."""
        own = [list(self.rename.items()), list(self.notes), list(self.delays.items()), self.default_delay]
        return [*own, list(shipped_delays().items())]

    @property
    def columns(self) -> list[str]:
        """The columns of the dataset that the replacements in `rename` refer to, such as NAME in `{NAME}`."""
        named = (name for codes in self.rename.values() for code in codes for name in _COLUMN.findall(code))
        return sorted(set(named))

    def apply(self, codes: Iterable[str]) -> pd.DataFrame:
        r"""Return the new codes and the delay of each code of a dataset.

        Args:
            codes: the distinct codes of the dataset.

        Returns:
            One row per new code, in the order of `codes`. The columns are source (the dataset's code), code (the new
            code), delay [µs], fallback (whether no pattern of delays matched) and templated (whether the new code
            refers to a column). A code that `rename` drops has no row.

        >>> rules = CodeRules({r"HOSPITAL_DISCHARGE//(.*)": [r"DISCHARGE//\1"]}, ["Letter"], {}, 168)
        >>> rules.apply(["HOSPITAL_DISCHARGE//HOME", "Letter", "X1"])[["code", "delay", "fallback"]].values.tolist()
        [['DISCHARGE//HOME', 0, False], ['NOTE//Letter', 86400000000, False], ['X1', 604800000000, True]]
        """
        rows = []
        for source in codes:
            for code in dict.fromkeys(self._new_codes(source)):
                hours = self._hours(source, code)
                delay = round((self.default_delay if hours is None else hours) * HOUR)
                rows.append((source, code, delay, hours is None, bool(_COLUMN.search(code))))
        frame = pd.DataFrame(rows, columns=["source", "code", "delay", "fallback", "templated"])
        return frame.astype({"source": "str", "code": "str", "delay": "int64", "fallback": bool, "templated": bool})

    def _new_codes(self, source: str) -> list[str]:
        found = [source]
        for pattern, codes in self._rename:
            if match := pattern.fullmatch(source):
                found = [match.expand(code) for code in codes]
                break
        return [self._as_note(source, _without_dots(code)) for code in found]

    def _as_note(self, source: str, code: str) -> str:
        if code.startswith(_NOTE) or not any(p.fullmatch(source) or p.fullmatch(code) for p in self._notes):
            return code
        return _NOTE + code

    def _hours(self, source: str, code: str) -> float | None:
        """Return the delay of the first pattern that matches the dataset's code or the new code."""
        return next((hours for p, hours in self._delays if p.fullmatch(source) or p.fullmatch(code)), None)

    @cached_property
    def _rename(self) -> list[tuple[re.Pattern[str], Sequence[str]]]:
        return [(_compiled(pattern), codes) for pattern, codes in self.rename.items()]

    @cached_property
    def _notes(self) -> list[re.Pattern[str]]:
        return [_compiled(pattern) for pattern in self.notes]

    @cached_property
    def _delays(self) -> list[tuple[re.Pattern[str], float]]:
        return [(_compiled(pattern), hours) for pattern, hours in [*self.delays.items(), *shipped_delays().items()]]


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def _without_dots(code: str) -> str:
    """Return an ICD code as the tasks compare it: `DIAGNOSIS//ICD10//i50.9` is `DIAGNOSIS//ICD10//I509`."""
    match = _ICD.fullmatch(code)
    return match[1] + match[2].replace(".", "").strip().upper() if match else code


def _check_pattern(key: str, pattern: str, replacement: str = "") -> None:
    try:
        re.sub(pattern, replacement, "")  # reads the replacement too, whether or not anything matches
    except (re.error, IndexError) as error:
        what = f"{pattern!r}: {replacement!r}" if replacement else f"{pattern!r}"
        raise ConfigError(f"data.source.{key}: {what} is no regular expression ({error})") from None
