"""Splits notes in the form of MIMIC-IV-Note into sections, and cuts or keeps some of the sections.

Discharge summaries have headings on lines of their own (`History of Present Illness:`). At their top, before the first
such heading, they have lines that begin with a heading (`Service: MEDICINE`). Radiology reports have headings in
capitals, often with text on the same line (`INDICATION:  ___ year old woman`). Any heading on a line of its own is
found, even if it is not listed here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

#: Headings of discharge summaries, by their normalised names.
SUMMARY = (
    "chief complaint",
    "major surgical or invasive procedure",
    "history of present illness",
    "past medical history",
    "social history",
    "family history",
    "physical exam",
    "pertinent results",
    "brief hospital course",
    "transitional issues",
    "medications on admission",
    "discharge medications",
    "discharge disposition",
    "facility",
    "discharge diagnosis",
    "discharge condition",
    "discharge instructions",
    "followup instructions",
)
#: Headings of radiology reports, by their normalised names.
REPORT = (
    "examination",
    "indication",
    "history",
    "technique",
    "comparison",
    "contrast",
    "dose",
    "findings",
    "impression",
    "recommendation",
    "notification",
    "addendum",
    "wet read",
)
# Headings that occur before the first one on a line of its own; `Allergies:` often has its own line.
_IDENTIFICATION = ("name", "unit no", "admission date", "discharge date", "date of birth", "sex")
_FRONT = (*_IDENTIFICATION, "service", "allergies", "attending")
#: Other ways to write a heading, in lower case and with single spaces.
_ALIASES = {
    **dict.fromkeys(_IDENTIFICATION, "identification"),
    "hospital course": "brief hospital course",
    "___ hospital course": "brief hospital course",
    "physical examination": "physical exam",
    "discharge diagnoses": "discharge diagnosis",
    "follow-up instructions": "followup instructions",
    "follow up instructions": "followup instructions",
    "major surgical or invasive procedures": "major surgical or invasive procedure",
    "admission medications": "medications on admission",
    "exam": "examination",
    "comparisons": "comparison",
    "clinical indication": "indication",
    "reason for exam": "indication",
    "reason for examination": "indication",
    "clinical history": "history",
    "clinical information": "history",
    "finding": "findings",
    "impressions": "impression",
    "conclusion": "impression",
    "recommendations": "recommendation",
    "recommendation(s)": "recommendation",
}
_FRONT_NAMES = {"identification", "service", "allergies", "attending"}
_REPORT_WORDS = (*REPORT, *(alias for alias, name in _ALIASES.items() if name in REPORT))
_SUMMARY_WORDS = (*SUMMARY, *(alias for alias, name in _ALIASES.items() if name in SUMMARY))


def _any_of(words: Collection[str]) -> str:
    ordered = sorted(words, key=len, reverse=True)
    return "|".join(r"[ \t]+".join(re.escape(part) for part in word.split()) for word in ordered)


# A line of its own, such as `Followup Instructions:`, or a known heading in other letter case. A line with text after
# the colon (`Mental Status: Clear`) stays in its section. Cutting too much is safe; cutting too little is a leak.
_TITLE = r"[A-Z][a-z]+(?:[ \t]+(?:[A-Z][\w/&'-]*|of|on|or|and|the|to|for|in|with|at))*"
_ALONE = rf"(?:{_TITLE}|(?i:{_any_of(_SUMMARY_WORDS)}))(?=[ \t]*:[ \t]*$)"
_FRONT_LINE = rf"(?i:{_any_of(_FRONT)})(?=[ \t]*:)"
_REPORT_LINE = rf"(?:{_any_of([word.upper() for word in _REPORT_WORDS])})(?=[ \t]*:)"
_OF_SUMMARY, _OF_REPORT = (
    re.compile(rf"^[ \t]*(?=[A-Z_])({_ALONE}|{line})[ \t]*:", re.MULTILINE) for line in (_FRONT_LINE, _REPORT_LINE)
)


@dataclass(frozen=True)
class Section:
    """A section of a note: the characters [start, stop) of the note's text, including the heading.

    The name is empty for text before any heading.
    """

    name: str
    start: int
    stop: int


def normalized(heading: str) -> str:
    """Return the standard name of a heading that notes may write in several ways.

    >>> normalized("Follow-Up  Instructions"), normalized("___ Hospital Course"), normalized("REASON FOR EXAM")
    ('followup instructions', 'brief hospital course', 'indication')
    """
    words = " ".join(heading.lower().split())
    return _ALIASES.get(words, words)


def split_sections(text: str) -> list[Section]:
    r"""Split a note into sections, which together make up the whole text. An empty text has none.

    Neighbouring sections with the same name are one section. A radiology heading, in capitals, counts only if the text
    has no heading of a discharge summary. So a radiology report that was pasted into a summary stays within a section
    of the summary.

    >>> text = "Service: MEDICINE\n\nChief Complaint:\nDyspnea\n\nSocial History:\nLives alone.\n"
    >>> [(section.name, text[section.start : section.stop]) for section in split_sections(text)]
    [('service', 'Service: MEDICINE\n\n'), ('chief complaint', 'Chief Complaint:\nDyspnea\n\n'), ('social history', 'Social History:\nLives alone.\n')]
    """  # noqa: E501
    found = [(line.start(), _name(line)) for line in _headings(text)]
    if not found or text[: found[0][0]].strip():
        found.insert(0, (0, ""))
    kept = [found[0]] + [one for before, one in pairwise(found) if one[1] != before[1]]
    starts = [0, *(start for start, _ in kept[1:]), len(text)]
    names = (name for _, name in kept)
    return [Section(name, *span) for name, span in zip(names, pairwise(starts), strict=True)] if text else []


def mask_section(text: str, section: str, is_report: bool = False) -> tuple[str, bool]:
    r"""Cut the text of one section out of a note. Return the remaining note, and whether the note had the section.

    The text of a section ends before the next heading of the same kind of note, or at the end of the note. The heading
    of the cut section is kept.

    Args:
        text: the note, a discharge summary or a radiology report.
        section: the section's heading, in any letter case, without the colon. In the note, text may follow the heading
            on the same line.
        is_report: whether the note is a radiology report.

    >>> mask_section("Discharge Disposition:\nHospice\n\nDischarge Diagnosis:\nCHF", "discharge disposition")
    ('Discharge Disposition:\nDischarge Diagnosis:\nCHF', True)
    >>> mask_section("INDICATION:  Dyspnea\nFINDINGS:  Effusion\nIMPRESSION:  CHF", "Findings", is_report=True)
    ('INDICATION:  Dyspnea\nFINDINGS:\nIMPRESSION:  CHF', True)
    """
    headings = list(_OF_REPORT.finditer(text)) if is_report else _summary_headings(_OF_SUMMARY.finditer(text))
    wanted = normalized(section)
    bodies = {heading.end() for heading in headings if _name(heading) == wanted}
    bodies |= {line.end() for line in _lines_of(text, section)}
    # A line such as `Service: X` ends only the body of a section at the front of a summary.
    any_ends = is_report or wanted in _FRONT_NAMES
    starts = [heading.start() for heading in headings if any_ends or _stands_alone(heading)]
    parts, at = [], 0
    for begin in sorted(bodies):
        if begin >= at:
            parts.append(text[at:begin] + "\n")
            at = next((start for start in starts if start >= begin), len(text))
    return "".join([*parts, text[at:]]), bool(parts)


def _lines_of(text: str, section: str) -> Iterator[re.Match[str]]:
    """Return the lines that begin with a section's heading, either as given or by any of its other names."""
    wanted = normalized(section)
    names = {section, wanted, *(alias for alias, name in _ALIASES.items() if name == wanted)}
    return re.finditer(rf"^[ \t]*(?i:{_any_of(names)})[ \t]*:", text, re.MULTILINE)


def keep_sections(text: str, sections: Sequence[str]) -> tuple[str, set[str]]:
    r"""Return the text of the chosen sections of a discharge summary, and the headings of those that it has.

    The sections stay in the order of the summary, and include their headings.

    >>> keep_sections("Service: X\nChief Complaint:\nDyspnea\nSocial History:\nAlone\n", ["Chief complaint", "Exam"])
    ('Chief Complaint:\nDyspnea\n', {'Chief complaint'})
    """
    names = {normalized(section): section for section in sections}
    headings = _summary_headings(_OF_SUMMARY.finditer(text))
    spans = pairwise([*(heading.start() for heading in headings), len(text)])
    found = [(_name(heading), *span) for heading, span in zip(headings, spans, strict=True)]
    kept = [(text[start:stop], names[name]) for name, start, stop in found if name in names]
    return "".join(part for part, _ in kept), {section for _, section in kept}


def has_sections(addendum: str) -> bool:
    r"""Return whether an addendum has section headings of a discharge summary. Lines such as `Service:` do not count.

    >>> has_sections("Service: MEDICINE\n\nPlease Note:\nCulture grew.\n"), has_sections("Social History:\nAlone\n")
    (False, True)
    """
    found = {_name(heading) for heading in _summary_headings(_OF_SUMMARY.finditer(addendum))}
    return bool(found & set(SUMMARY) - _FRONT_NAMES - {"addendum"})


def _headings(text: str) -> list[re.Match[str]]:
    """Return the lines of a summary or a report that are headings or begin with one."""
    summary = list(_OF_SUMMARY.finditer(text))
    if not any(_name(line) in SUMMARY for line in summary):
        report = list(_OF_REPORT.finditer(text))
        if any(_name(line) in REPORT for line in report):
            return report
    return _summary_headings(summary)


def _summary_headings(lines: Iterable[re.Match[str]]) -> list[re.Match[str]]:
    """Return the headings of a summary: lines of their own, and before the first of these also lines with text."""
    found, in_front = [], True
    for line in lines:
        is_front = _name(line) in _FRONT_NAMES
        in_front &= is_front
        if not is_front or in_front or _stands_alone(line):
            found.append(line)
    return found


def _name(line: re.Match[str]) -> str:
    return normalized(line[1])


def _stands_alone(line: re.Match[str]) -> bool:
    stop = line.string.find("\n", line.end())
    return not line.string[line.end() : stop if stop >= 0 else len(line.string)].strip(" \t")
