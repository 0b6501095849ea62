"""The lives of the synthetic hospital's patients: episodes, what follows each episode, and the stays within an episode.

Times are minutes since 1970 (int64) until a table is written. As in the readmission task, a patient who returns on the
day of discharge continues the same episode. The outcome Y of an episode is unplanned readmission within 30 days. Y is
drawn from the exact risk given the facts that are visible at discharge. The next episode is then placed so that the
tables agree with Y:

    Y = 1   the next episode starts 12 h to 30 d after discharge, on a later calendar day, unplanned
    Y = 0   planned return within 30 d (4 %); observation-only return within 30 d (4 %), nothing else before day 31;
            death at home within 30 d (1 to 7 % by frailty); else, in 54 %, an episode 31 to 500 d later; else nothing
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.simulator import risk
from ehrdl.simulator.risk import Floats, Ints

HOUR, DAY = 60, 24 * 60  # minutes
UNPLANNED, PLANNED, OBSERVATION = 0, 1, 2  # how an episode began
NOTE_VISIBLE, NOTE_ABSENT, NOTE_LATE, NOTE_NO_STORETIME = 0, 1, 2, 3
P_NOTE = np.array([0.90, 0.04, 0.04, 0.02])
P_LABS = 0.90
P_FIRST_KIND = np.array([0.78, 0.16, 0.06])
P_LATER_KIND = np.array([0.76, 0.16, 0.08])
P_AGE = np.array([0.20, 0.28, 0.34, 0.18])
P_PLANNED_RETURN, P_OBSERVATION_RETURN, P_LATER = 0.04, 0.04, 0.54
P_DEATH_AT_HOME = np.array([0.01, 0.03, 0.07])  # within 30 d, by frailty
P_DEATH_LATER = 0.08  # 31 to 365 d after the last discharge; MIMIC's dod ends there
P_SPLIT = 0.05  # share of the long enough episodes with a return on the day of discharge
AGE_BANDS = ((18, 50), (50, 65), (65, 80), (80, 98))
STAY_HOURS = np.array([[26, 68], [68, 168], [168, 480]])
ANCHOR_GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
_FIRST_DAY = int(np.datetime64("2110-01-01", "D").astype(np.int64))
_N_DAYS = int(np.datetime64("2191-01-01", "D").astype(np.int64)) - _FIRST_DAY


@dataclass(frozen=True)
class Block:
    """The simulated lives of a block of patients.

    Attributes:
        patients: one row per patient.
        episodes: one row per episode. The column `patient` is a row number of `patients`.
        stays: one row per stay (an admission). The column `episode` is a row number of `episodes`.
    """

    patients: pd.DataFrame
    episodes: pd.DataFrame
    stays: pd.DataFrame


def simulate(rng: np.random.Generator, first_patient: int, n_patients: int, first_stay: int) -> Block:
    """Draw the lives of a block of patients.

    Args:
        rng: the random generator.
        first_patient: the number of patients in earlier blocks, so that ids do not repeat.
        n_patients: the number of patients in this block.
        first_stay: the number of stays in earlier blocks, so that ids do not repeat.
    """
    patients = _patients(rng, first_patient, n_patients)
    episodes = _episodes(rng, patients)
    stays = _stays(rng, episodes)
    patients["dod"] = _deaths(rng, patients, episodes)
    stays["hadm_id"] = 20_000_000 + first_stay + np.arange(len(stays))
    return Block(patients, episodes, stays)


def year_of(minutes: Ints) -> Ints:
    """Return the calendar year of times that are given in minutes since 1970."""
    return np.asarray(minutes).astype("datetime64[m]").astype("datetime64[Y]").astype(np.int64) + 1970


def day_of(minutes: Ints) -> Ints:
    """Return the whole days since 1970 of times that are given in minutes since 1970."""
    return np.asarray(minutes) // DAY


def _patients(rng: np.random.Generator, first: int, n: int) -> pd.DataFrame:
    age_band = rng.choice(risk.AGE_LEVELS, n, p=P_AGE)
    low, high = np.array(AGE_BANDS)[age_band].T
    start = (_FIRST_DAY + rng.integers(0, _N_DAYS, n)) * DAY + _hour_of_admission(rng, n)
    age = rng.integers(low, high)
    return pd.DataFrame(
        {
            # one of three ids reserved for each patient: unique for any block size, but not a counter
            "subject_id": 10_000_000 + 3 * (first + np.arange(n)) + rng.integers(0, 3, n),
            "female": rng.random(n) < 0.5,
            "anchor_age": np.where(age > 89, 91, age),
            "anchor_year": year_of(start),
            "anchor_group": rng.choice(len(ANCHOR_GROUPS), n, p=[0.30, 0.24, 0.20, 0.16, 0.10]),
            "age_band": age_band,
            "chronic": risk.draw(rng, risk.P_CHRONIC[age_band]),
            "frailty": risk.draw(rng, risk.P_FRAILTY[age_band]),
            "first_start": start,
        }
    )


def _hour_of_admission(rng: np.random.Generator, n: int) -> Ints:
    return np.asarray(np.clip(rng.normal(16 * HOUR, 5 * HOUR, n), 10, DAY - 10).astype(np.int64))


def _episodes(rng: np.random.Generator, patients: pd.DataFrame) -> pd.DataFrame:
    """Draw every patient's episodes, one generation at a time, until nobody returns."""
    generations = []
    patient = np.arange(len(patients))
    start, kind = patients["first_start"].to_numpy(), rng.choice(3, len(patients), p=P_FIRST_KIND)
    while len(patient):
        episode = _one_generation(rng, patients, patient, start, kind)
        after = _what_follows(rng, episode, patients["frailty"].to_numpy()[patient])
        generations.append(pd.DataFrame(episode | {"dies_at": after["dies_at"]}))
        goes_on = after["next_kind"] >= 0
        patient, kind = patient[goes_on], after["next_kind"][goes_on]
        start = (episode["end"] + after["gap"])[goes_on]
    episodes = pd.concat(generations, ignore_index=True)
    return episodes.sort_values(["patient", "start"], ignore_index=True)


def _one_generation(
    rng: np.random.Generator, patients: pd.DataFrame, patient: Ints, start: Ints, kind: Ints
) -> dict[str, Any]:
    """Draw one episode for each patient in `patient`: facts, end, death, what is visible, risks and outcome."""
    n, who = len(patient), patients.iloc[patient]
    severity = risk.draw(rng, np.tile(risk.P_SEVERITY, (n, 1)))
    facts = risk.draw_facts(rng, risk.state_index(who["chronic"].to_numpy(), who["frailty"].to_numpy(), severity))
    age = who["anchor_age"].to_numpy() + year_of(start) - who["anchor_year"].to_numpy()
    facts["age_band"] = np.searchsorted([band[0] for band in AGE_BANDS[1:]], age, side="right")
    observation = kind == OBSERVATION
    facts["stay_band"] = np.where(observation, 0, facts["stay_band"])
    dead = (rng.random(n) < risk.death_prob(facts["acuity"], facts["age_band"])) & ~observation
    labs = rng.random(n) < P_LABS
    note = rng.choice(4, n, p=P_NOTE)
    probs = _probabilities(facts, note == NOTE_VISIBLE, labs, rng.random(n) < 0.3)
    return {
        "patient": patient,
        "kind": kind,
        "start": start,
        "end": _end(rng, start, facts["stay_band"], observation),
        "dead": dead,
        "indexed": ~dead & ~observation,
        "note": note,
        "labs": labs,
        "outcome": rng.random(n) < probs["prob"],
        **facts,
        **probs,
    }


def _probabilities(facts: dict[str, Ints], note: Any, labs: Any, removed: Any) -> dict[str, Any]:
    """Return the exact risks given what is visible, given each modality alone, and with the note `removed`."""
    table = risk.risk()
    x = risk.record_index(facts)
    n, s = risk.note_index(facts), risk.series_index(facts)
    prob_notes = np.where(note, table.notes[n, x], table.none[x])
    prob_series = np.where(labs, table.series[s, x], table.none[x])
    prob = np.where(note & labs, table.full[n, s, x], np.where(note, prob_notes, prob_series))
    return {
        "prob": prob,
        "prob_notes": prob_notes,
        "prob_series": prob_series,
        "prob_notes_removed_30": np.where(removed, prob_series, prob),
        "note_removed": removed,
    }


def _end(rng: np.random.Generator, start: Ints, stay_band: Ints, observation: Any) -> Ints:
    """Draw the times of discharge.

    Most are between 10:00 and 19:00, with a length of stay inside its band. Observation stays last 8 to 46 h and end at
    any hour.
    """
    n = len(start)
    low, high = (STAY_HOURS[stay_band] * HOUR).T
    wanted = start + low + ((high - low) * rng.random(n) ** 1.3).astype(np.int64)
    by_day = day_of(wanted) * DAY + np.clip(rng.normal(14.5 * HOUR, 2 * HOUR, n), 10 * HOUR, 19 * HOUR).astype(np.int64)
    by_day = np.where(by_day < start + low, by_day + DAY, by_day)
    by_day = np.where(by_day > start + high, by_day - DAY, by_day)
    return np.asarray(np.where(observation, start + rng.integers(8 * HOUR, 46 * HOUR, n), by_day))


def _what_follows(rng: np.random.Generator, episode: dict[str, Any], frailty: Ints) -> dict[str, Ints]:
    """Draw the next episode's kind (-1: none) and gap from this one's end, and the minute of death at home.

    The minute of death is -1 if the patient does not die at home.
    """
    n, end = len(frailty), episode["end"]
    outcome = episode["outcome"] & episode["indexed"]
    fate = rng.random(n)
    edges = np.cumsum([P_PLANNED_RETURN, P_OBSERVATION_RETURN])
    home = P_DEATH_AT_HOME[frailty]
    plain = episode["indexed"] & ~outcome
    planned_return, observed = plain & (fate < edges[0]), plain & (fate >= edges[0]) & (fate < edges[1])
    dies = plain & (fate >= edges[1]) & (fate < edges[1] + home)
    later = (fate >= edges[1] + home) & (fate < edges[1] + home + P_LATER) & ~outcome & ~episode["dead"]

    kind = np.full(n, -1)
    kind[later] = rng.choice(3, n, p=P_LATER_KIND)[later]
    kind[outcome], kind[planned_return], kind[observed] = UNPLANNED, PLANNED, OBSERVATION
    early = _not_same_day(end, 12 * HOUR + (rng.beta(1.1, 1.6, n) * (30 * DAY - 12 * HOUR)).astype(np.int64))
    early = np.where(rng.random(n) < 0.005, 30 * DAY, early)  # occasionally at the last minute that still counts
    # an observation stay of at most 46 h must end before day 30, or it would merge with the next episode
    brief = _not_same_day(end, rng.integers(12 * HOUR, 26 * DAY, n))
    far = 31 * DAY + (rng.beta(0.9, 2.0, n) * 469 * DAY).astype(np.int64)
    return {
        "next_kind": kind,
        "gap": np.where(observed, brief, np.where(later, far, early)),
        "dies_at": np.where(dies, end + rng.integers(DAY, 30 * DAY, n), -1),
    }


def _not_same_day(end: Ints, gap: Ints) -> Ints:
    """Return the gap before the next episode, a day longer if it would otherwise start on the day of discharge.

    An episode that starts on the day of discharge would merge with the one before it.
    """
    return np.asarray(np.where(day_of(end + gap) == day_of(end), gap + DAY, gap))


def _stays(rng: np.random.Generator, episodes: pd.DataFrame) -> pd.DataFrame:
    """Draw the admissions: one per episode, or two if the patient came back on the day of discharge."""
    n = len(episodes)
    start, end = episodes["start"].to_numpy(), episodes["end"].to_numpy()
    middle = day_of((start + end) // 2) * DAY
    left = middle + rng.integers(9 * HOUR, 13 * HOUR, n)
    # one in seven overlaps: the second admission is registered before the first is closed
    back = np.where(rng.random(n) < 0.15, left - rng.integers(0, 2 * HOUR, n), left + rng.integers(HOUR, 8 * HOUR, n))
    split = (rng.random(n) < P_SPLIT) & (left > start + 6 * HOUR) & (back > start + 6 * HOUR) & (back < end - 12 * HOUR)
    split &= episodes["indexed"].to_numpy()
    whole = pd.DataFrame({"episode": np.arange(n), "start": np.where(split, back, start), "end": end, "last": True})
    first = pd.DataFrame({"episode": np.arange(n), "start": start, "end": left, "last": False})[split]
    return pd.concat([first, whole]).sort_values(["episode", "last"], ignore_index=True)


def _deaths(rng: np.random.Generator, patients: pd.DataFrame, episodes: pd.DataFrame) -> Floats:
    """Return the day of death in days since 1970; NaN if none is recorded.

    Death is in hospital, at home, or within a year after the last discharge.
    """
    last = episodes.groupby("patient").last().reindex(np.arange(len(patients)))
    end, at_home = last["end"].to_numpy(), last["dies_at"].to_numpy()
    later = rng.random(len(patients)) < P_DEATH_LATER
    days = np.where(later, day_of(end) + rng.integers(31, 365, len(patients)), np.nan)
    days = np.where(at_home >= 0, day_of(at_home), days)
    return np.asarray(np.where(last["dead"].to_numpy(dtype=bool), day_of(end), days), dtype=np.float64)
