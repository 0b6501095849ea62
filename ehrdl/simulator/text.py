"""The synthetic hospital's notes: discharge summaries with the note facts, and radiology reports without them.

A fact that is present is written once, in one of its wordings. A fact that is absent is denied half the time, and
otherwise not mentioned. Facts are written even if the requested length is too short for them. Sentences without a fact
fill the rest of a summary. The choice among wordings depends only on chance.
"""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.simulator import phrases
from ehrdl.simulator.files import NULL, Columns
from ehrdl.simulator.illness import CONDITIONS, Condition
from ehrdl.simulator.risk import NOTE_NAMES, Ints
from ehrdl.simulator.stays import DAY, HOUR, NOTE_ABSENT, NOTE_LATE, NOTE_NO_STORETIME, day_of

P_NEGATED = 0.5
FULL_HEADER_TOKENS = 200  # from this length on, summaries carry MIMIC's whole header
P_RADIOLOGY = (0.45, 0.35, 0.20)  # 0, 1 or 2 reports per stay
P_RADIOLOGY_NAMELESS = 0.10  # share of these reports without hadm_id
P_RADIOLOGY_CLINIC = 0.10  # probability of a report from clinic after the stay


def discharge(
    rng: np.random.Generator, stays: pd.DataFrame, conditions: Ints, places: Any, note_tokens: tuple[int, int]
) -> Columns:
    """Draw the rows of the table discharge: one summary per episode, at its last stay. Some episodes have none.

    Args:
        rng: the random generator.
        stays: the result of `stay_frame`.
        conditions: the reason for admission of each episode, as a row number of `CONDITIONS`.
        places: the discharge location of each stay.
        note_tokens: the smallest and the largest number of words of a summary.
    """
    written = (stays["last"] & (stays["note"] != NOTE_ABSENT)).to_numpy()
    rows = stays[written]
    end = rows["end"].to_numpy()
    midnight = day_of(end) * DAY
    in_time = np.maximum(end - rng.integers(0, 6 * HOUR, len(rows)), midnight)
    late = end + rng.integers(HOUR, 4 * DAY, len(rows))
    stored = np.where(rows["note"] == NOTE_LATE, late, in_time)
    pick = random.Random(int(rng.integers(2**62)))
    facts = zip(*(rows[name].to_list() for name in NOTE_NAMES), strict=True)
    about = zip(rows["female"].to_list(), conditions[rows["episode"]].tolist(), places[written], facts, strict=True)
    texts = [
        summary(pick, dict(zip(NOTE_NAMES, levels, strict=True)), female, CONDITIONS[condition], place, note_tokens)
        for female, condition, place, levels in about
    ]
    return {
        **_identified(rows["subject_id"].to_numpy(), rows["hadm_id"].to_numpy(), "DS"),
        "charttime": midnight,
        "storetime": np.where(rows["note"] == NOTE_NO_STORETIME, NULL, stored),
        "text": texts,
    }


def radiology(rng: np.random.Generator, stays: pd.DataFrame, conditions: Ints, films: dict[str, Any]) -> Columns:
    """Draw the rows of the table radiology.

    A stay has up to two reports. Some patients have a report from a clinic after the stay. The chest films in `films`
    are added.
    """
    n_reports = rng.choice(3, len(stays), p=P_RADIOLOGY)
    inside = np.repeat(np.arange(len(stays)), n_reports)
    after = np.flatnonzero((rng.random(len(stays)) < P_RADIOLOGY_CLINIC) & ~stays["dead"].to_numpy())
    start, end = stays["start"].to_numpy(), stays["end"].to_numpy()
    time = np.concatenate(
        [
            start[inside] + ((end - start)[inside] * 0.9 * rng.random(len(inside))).astype(np.int64),
            end[after] + rng.integers(DAY, 20 * DAY, len(after)),
        ]
    )
    of = np.concatenate([inside, after])
    nameless = (np.arange(len(of)) >= len(inside)) | (rng.random(len(of)) < P_RADIOLOGY_NAMELESS)
    pick = random.Random(int(rng.integers(2**62)))
    female = stays["female"].to_numpy()[of].tolist()
    complaint = [CONDITIONS[row].complaint for row in conditions[stays["episode"]][of]]
    stored = np.where(rng.random(len(of)) < 0.02, NULL, time + rng.integers(30, 12 * HOUR, len(of)))
    texts = [_report(pick, woman, why) for woman, why in zip(female, complaint, strict=True)]
    hadm_id = np.where(nameless, NULL, stays["hadm_id"].to_numpy()[of])
    all_of = np.concatenate([of, films["stay"]])
    hadm_id = np.concatenate([hadm_id, stays["hadm_id"].to_numpy()[films["stay"]]])
    return {
        **_identified(stays["subject_id"].to_numpy()[all_of], hadm_id, "RR"),
        "charttime": np.concatenate([time, films["charttime"]]),
        "storetime": np.concatenate([stored, films["storetime"]]),
        "text": [*texts, *films["text"]],
    }


def summary(
    pick: random.Random,
    facts: dict[str, int],
    female: bool,
    condition: Condition,
    place: str | None,
    note_tokens: tuple[int, int],
) -> str:
    """Write the text of one discharge summary.

    Args:
        pick: the random generator.
        facts: the level of each note fact, by name.
        female: whether the patient is a woman.
        condition: the reason for admission.
        place: the discharge location. If it is None, the summary says `Home`.
        note_tokens: the smallest and the largest number of words.
    """
    wanted = pick.randint(*note_tokens)
    filled = _Slots(pick, female)
    sections: dict[str, list[str]] = {name: [] for name in phrases.SECTIONS}
    opening = f"___ yo {filled['man']} with {condition.name} p/w {condition.complaint}."
    for name, level in facts.items():
        stated = _fact(pick, name, level)
        if stated:
            _insert(pick, sections[pick.choice(phrases.WORDINGS[name].sections)], stated.format_map(filled))
    head = _header(wanted, female, condition)
    tail = phrases.DISPOSITIONS.get(place or "", "Home")
    n_words = sum(len(text.split()) for text in (head, opening, tail, *_flat(sections.values()))) + 6
    while n_words < wanted:
        section = pick.choice(phrases.SECTIONS)
        text = pick.choice(phrases.DISTRACTORS[section]).format_map(filled)
        if text in sections[section] and pick.random() < 0.9:  # repeated only in long notes, where words run out
            continue
        n_words += len(text.split()) + (0 if sections[section] else len(section.split()))
        _insert(pick, sections[section], text)
    sections[phrases.HPI].insert(0, opening)
    body = "\n\n".join(f"{name}:\n{' '.join(texts)}" for name, texts in sections.items() if texts)
    return f"{head}\n\n{body}\n\nDischarge Disposition:\n{tail}\n"


def _fact(pick: random.Random, name: str, level: int) -> str | None:
    """Choose a wording of the fact at this level, a denial, or nothing."""
    wording = phrases.WORDINGS[name]
    if level in wording.stated:
        return pick.choice(wording.stated[level])
    if wording.negated and pick.random() < P_NEGATED:
        return pick.choice(wording.negated)
    return None


class _Slots(dict[str, str]):
    """The words for the braces of a sentence. Words about the patient are fixed; drugs and doses vary at each use."""

    _DRAWN: dict[str, tuple[str, ...]] = {"drug": phrases.DRUGS, "dose": phrases.DOSES, "often": phrases.OFTEN}  # noqa: RUF012

    def __init__(self, pick: random.Random, female: bool) -> None:
        words = ("She", "she", "her", "her", "herself", "woman", "husband")
        if not female:
            words = ("He", "he", "his", "him", "himself", "man", "wife")
        super().__init__(zip(("He", "he", "his", "him", "self", "man", "spouse"), words, strict=True))
        self._pick = pick

    def __missing__(self, key: str) -> str:
        return self._pick.choice(self._DRAWN[key])


def _insert(pick: random.Random, texts: list[str], text: str) -> None:
    texts.insert(pick.randint(0, len(texts)), text)


def _flat(lists: Iterable[list[str]]) -> list[str]:
    return [text for texts in lists for text in texts]


def _header(wanted: int, female: bool, condition: Condition) -> str:
    sex, service = "F" if female else "M", phrases.SERVICES[condition.service]
    complaint = f"Chief Complaint:\n{condition.complaint}"
    if wanted < FULL_HEADER_TOKENS:
        return f"Sex: {sex}\nService: {service}\n\n{complaint}"
    return (
        " \nName:  ___                     Unit No:   ___\n \n"
        "Admission Date:  ___              Discharge Date:   ___\n \n"
        f"Date of Birth:  ___             Sex:   {sex}\n \nService: {service}\n \n"
        'Allergies: \nNo Known Allergies / "Adverse Drug Reactions"\n \nAttending: ___.\n \n' + complaint
    )


def _report(pick: random.Random, female: bool, complaint: str) -> str:
    """Write one radiology report of 15 to 40 words."""
    study, findings, impressions = pick.choice(phrases.STUDIES)
    found = " ".join(pick.sample(findings, pick.randint(1, min(4, len(findings)))))
    who = "woman" if female else "man"
    return (
        f"EXAMINATION:  {study}\n\nINDICATION:  ___ year old {who} with {complaint}\n\n"
        f"FINDINGS: \n{found}\n\nIMPRESSION: \n{pick.choice(impressions)}\n"
    )


def _identified(subject_id: Ints, hadm_id: Ints, note_type: str) -> dict[str, Any]:
    """Return the id columns. Notes are numbered within a patient."""
    seq = pd.Series(subject_id).groupby(subject_id).cumcount().to_numpy() + 1
    ids = [f"{subject}-{note_type}-{number}" for subject, number in zip(subject_id, seq, strict=True)]
    return {"note_id": ids, "subject_id": subject_id, "hadm_id": hadm_id, "note_type": note_type, "note_seq": seq}
