"""Groups of sex, race, language and insurance, from the words that hospitals use for them.

`demographics.csv` has one row per beginning of a word, in upper case. A word belongs to the group of the first row that
it begins with; an empty group means that the hospital did not know. A word without a row keeps its own group.

Sources: the categories of race and ethnicity are those of OMB Statistical Policy Directive 15 (62 FR 58782, 1997). By
its definitions, people of Portugal and the Middle East are white, and those of South America Hispanic. MIMIC-IV has one
column for both, so Hispanic is a group beside the races. The codes such as 2106-3 are those of the CDC Race and
Ethnicity code set in HL7. The words are those of MIMIC-IV (hosp.admissions), MIMIC-III (`PTUN` is Portuguese), eICU
and Diabetes-130.
"""

from __future__ import annotations

import csv
import functools
import io
from importlib.resources import files

import pandas as pd

from ehrdl.clinical.codes import folded

_ANY = "*"


def merged(words: pd.Series, column: str) -> pd.Series:
    """Return the group of each word of a column: sex, race, language or insurance. Null = the hospital did not know.

    >>> merged(pd.Series(["WHITE - RUSSIAN", "White", "UNABLE TO OBTAIN", "Han"]), "race").fillna("").tolist()
    ['white', 'white', '', 'Han']
    """
    groups = {word: _group(str(word), column) for word in words.dropna().unique()}
    found: pd.Series = words.astype(object).map(groups)
    return found.where(found.notna(), None)


def _group(word: str, column: str) -> str | None:
    text = folded(word)
    if not text:
        return None
    for begins, group in _rows(column):
        if text.startswith(begins):
            return group or None
    return word


@functools.cache
def _rows(column: str) -> list[tuple[str, str]]:
    text = (files("ehrdl.clinical") / "demographics.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return [(row["begins_with"], row["group"]) for row in rows if row["column"] in (column, _ANY)]
