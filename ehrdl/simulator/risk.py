"""The true risk of the synthetic hospital: facts, latent state, 30-day risk, and exact Bayes probabilities.

All numbers here are invented. They are plausible in direction and size, but not estimated from any data set. The design
makes the true probability known exactly, and favours no kind of model.

Each patient has an age band and two latent states that no table shows: chronic burden and frailty (0, 1, 2). Each
episode draws a third state, acute severity. Together they are the state z with 27 values. Given z, every fact of the
episode is an independent categorical draw. The risk is a function of the facts alone:

    logit P(unplanned readmission in 30 days) = INTERCEPT + EFFECTS that apply + INTERACTIONS that apply

Because z affects the current episode only through its facts, the probability of readmission given any subset of the
facts is an exact sum over the 27 states.

The facts are listed below with their levels. A note fact is written in the discharge summary, a series fact shows in
the labs and vitals, and a record fact in the administrative tables:

    note    lives_alone, missed_medication, recent_falls, substance_use, poor_understanding, pending_workup (0 no,
            1 yes); follow_up (0 arranged, 1 not mentioned, 2 explicitly not arranged)
    series  haemoglobin (last of the stay: 0 >= 11, 1 8.5 to 11, 2 < 8.5 g/dL), sodium (last of the stay: 0 >= 135.5,
            1 130.5 to 135.5, 2 < 130.5 mEq/L), creatinine_trend (last / first of the stay: 0 < 0.8 falling, 1 flat,
            2 > 1.25 rising), acuity (0 daily labs, 1 twice daily, 2 four times daily and an ICU stay)
    record  age_band (0 18-49, 1 50-64, 2 65-79, 3 80 and over), stay_band (0 26-68 h, 1 68-168 h, 2 168-480 h)

In this formula, the intercept is -5.15. The effects on the log-odds are listed below. A level that is not listed adds
0, and follow_up has an effect only in interactions.

    lives_alone=1 +0.55         missed_medication=1 +0.95   recent_falls=1 +0.70        substance_use=1 +0.85
    poor_understanding=1 +0.75  pending_workup=1 +0.65      haemoglobin=1 +0.40         haemoglobin=2 +0.95
    sodium=1 +0.35              sodium=2 +0.70              creatinine_trend=0 -0.40    creatinine_trend=2 +0.95
    acuity=1 +0.60              acuity=2 +1.25              age_band=1 +0.05            age_band=2 +0.15
    age_band=3 +0.25            stay_band=1 +0.10           stay_band=2 +0.30
    missed_medication=1 and creatinine_trend=2 +0.90        follow_up=2 and sodium=2 +1.40
    follow_up=2 and sodium=1 +1.00                          lives_alone=1 and haemoglobin=2 +0.95
    poor_understanding=1 and stay_band=2 +0.50              substance_use=1 and creatinine_trend=0 +0.40

Follow-up matters only together with a low sodium. With a normal sodium it changes nothing. Death in hospital depends on
acuity and age (`death_prob`). Patients who die have no outcome, and the sums account for that.

Chronic burden and frailty stay with a patient. High-risk patients therefore return more often, and are over-represented
among later episodes. Of the tables in `Risk`, `full` is exact for each episode. `notes`, `series` and `none` are exact
for a first episode, and very nearly calibrated over all episodes. If the note or the labs are not visible at discharge,
the outcome is drawn from the table for the facts that are visible. That table is then exact too.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVELS = 3  # of each latent state: chronic burden, frailty, acute severity


@dataclass(frozen=True)
class Fact:
    """An observable fact about an episode, with a few levels.

    The probability of a level given the latent state z is the softmax of `base` plus each state times its slopes.

    Attributes:
        name: the fact's name.
        base: the logit of each level if all states are 0.
        chronic: the slope of each level's logit in chronic burden; None = no influence.
        frailty: the slope of each level's logit in frailty; None = no influence.
        severity: the slope of each level's logit in acute severity; None = no influence.
    """

    name: str
    base: tuple[float, ...]
    chronic: tuple[float, ...] | None = None
    frailty: tuple[float, ...] | None = None
    severity: tuple[float, ...] | None = None

    @property
    def n_levels(self) -> int:
        """The number of levels of the fact."""
        return len(self.base)

    def given_state(self) -> Floats:
        """Return the probability of each level given each of the 27 latent states, as an array (27, levels)."""
        logits = np.tile(np.asarray(self.base), (LEVELS**3, 1))
        for state, slopes in zip(_state_grid(), (self.chronic, self.frailty, self.severity), strict=True):
            if slopes is not None:
                logits += state[:, None] * np.asarray(slopes)
        odds = np.exp(logits)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


NOTE_FACTS = (
    Fact("lives_alone", (0.0, -0.9), frailty=(0.0, 0.35)),
    Fact("missed_medication", (0.0, -1.7), chronic=(0.0, 0.45), severity=(0.0, 0.2)),
    Fact("follow_up", (0.6, 0.0, -0.6), severity=(0.0, 0.0, 0.25)),
    Fact("recent_falls", (0.0, -1.7), frailty=(0.0, 0.7)),
    Fact("substance_use", (0.0, -1.6), chronic=(0.0, 0.2)),
    Fact("poor_understanding", (0.0, -1.6), frailty=(0.0, 0.5)),
    Fact("pending_workup", (0.0, -1.3), severity=(0.0, 0.4)),
)
SERIES_FACTS = (
    Fact("haemoglobin", (0.6, 0.0, -1.5), chronic=(0.0, 0.3, 0.5), severity=(0.0, 0.1, 0.3)),
    Fact("sodium", (1.3, 0.0, -0.9), chronic=(0.0, 0.2, 0.3), severity=(0.0, 0.15, 0.3)),
    Fact("creatinine_trend", (0.0, 0.7, -0.6), chronic=(0.0, 0.0, 0.3), severity=(0.2, 0.0, 0.4)),
    Fact("acuity", (0.7, 0.3, -1.2), frailty=(0.0, 0.1, 0.2), severity=(0.0, 0.5, 0.9)),
)
STAY_FACT = Fact("stay_band", (0.4, 0.5, -1.0), frailty=(0.0, 0.1, 0.3), severity=(0.0, 0.3, 0.6))
AGE_LEVELS = 4
P_CHRONIC = np.array([[0.60, 0.30, 0.10], [0.42, 0.38, 0.20], [0.30, 0.40, 0.30], [0.25, 0.42, 0.33]])  # by age band
P_FRAILTY = np.array([[0.75, 0.20, 0.05], [0.58, 0.30, 0.12], [0.40, 0.37, 0.23], [0.20, 0.42, 0.38]])  # by age band
P_SEVERITY = np.array([0.45, 0.35, 0.20])
P_DEATH = np.array([0.004, 0.012, 0.060])  # in hospital, by acuity; a factor for age multiplies it
DEATH_AGE_FACTOR = np.array([0.5, 0.8, 1.2, 1.8])

INTERCEPT = -5.15
EFFECTS: tuple[tuple[str, int, float], ...] = (
    ("lives_alone", 1, 0.55),
    ("missed_medication", 1, 0.95),
    ("recent_falls", 1, 0.70),
    ("substance_use", 1, 0.85),
    ("poor_understanding", 1, 0.75),
    ("pending_workup", 1, 0.65),
    ("haemoglobin", 1, 0.40),
    ("haemoglobin", 2, 0.95),
    ("sodium", 1, 0.35),
    ("sodium", 2, 0.70),
    ("creatinine_trend", 0, -0.40),
    ("creatinine_trend", 2, 0.95),
    ("acuity", 1, 0.60),
    ("acuity", 2, 1.25),
    ("age_band", 1, 0.05),
    ("age_band", 2, 0.15),
    ("age_band", 3, 0.25),
    ("stay_band", 1, 0.10),
    ("stay_band", 2, 0.30),
)
INTERACTIONS: tuple[tuple[str, int, str, int, float], ...] = (
    ("missed_medication", 1, "creatinine_trend", 2, 0.90),
    ("follow_up", 2, "sodium", 2, 1.40),
    ("follow_up", 2, "sodium", 1, 1.00),
    ("lives_alone", 1, "haemoglobin", 2, 0.95),
    ("poor_understanding", 1, "stay_band", 2, 0.50),
    ("substance_use", 1, "creatinine_trend", 0, 0.40),
)

NOTE_NAMES = tuple(fact.name for fact in NOTE_FACTS)
SERIES_NAMES = tuple(fact.name for fact in SERIES_FACTS)
RECORD_NAMES = ("age_band", STAY_FACT.name)
_NOTE_SHAPE = tuple(fact.n_levels for fact in NOTE_FACTS)
_SERIES_SHAPE = tuple(fact.n_levels for fact in SERIES_FACTS)
_RECORD_SHAPE = (AGE_LEVELS, STAY_FACT.n_levels)


@dataclass(frozen=True)
class Risk:
    """The exact probabilities of readmission, in one table for each set of known facts.

    Each axis of a table numbers the combinations of levels of some facts: n of the note facts (`note_index`), s of the
    series facts (`series_index`), x of the record facts (`record_index`).

    Attributes:
        full: (n, s, x), the probability given all facts.
        notes: (n, x), the probability given the note facts and the record facts.
        series: (s, x), the probability given the series facts and the record facts.
        none: (x,), the probability given the record facts alone.
    """

    full: Floats
    notes: Floats
    series: Floats
    none: Floats


def note_index(facts: dict[str, Ints]) -> Ints:
    """Return one number for the levels of all note facts, as an index of axis n in the tables of `Risk`."""
    return np.ravel_multi_index(tuple(facts[name] for name in NOTE_NAMES), _NOTE_SHAPE)


def series_index(facts: dict[str, Ints]) -> Ints:
    """Return one number for the levels of all series facts, as an index of axis s in the tables of `Risk`."""
    return np.ravel_multi_index(tuple(facts[name] for name in SERIES_NAMES), _SERIES_SHAPE)


def record_index(facts: dict[str, Ints]) -> Ints:
    """Return one number for the levels of all record facts, as an index of axis x in the tables of `Risk`."""
    return np.ravel_multi_index(tuple(facts[name] for name in RECORD_NAMES), _RECORD_SHAPE)


def state_index(chronic: Ints, frailty: Ints, severity: Ints) -> Ints:
    """Return the number (0 to 26) of the latent state z = (chronic, frailty, severity)."""
    return np.ravel_multi_index((chronic, frailty, severity), (LEVELS,) * 3)


def draw(rng: np.random.Generator, prob: Floats) -> Ints:
    """Draw one level for each row of `prob` (rows, levels), which holds the probability of each level."""
    edges = np.cumsum(prob, axis=1)
    level = (rng.random(len(prob))[:, None] >= edges).sum(axis=1)
    return np.asarray(np.minimum(level, prob.shape[1] - 1), dtype=np.int64)


def draw_facts(rng: np.random.Generator, state: Ints) -> dict[str, Ints]:
    """Draw the levels of all facts of episodes, except the age band.

    `state` is the number of each episode's latent state, from `state_index`.
    """
    facts = (*NOTE_FACTS, *SERIES_FACTS, STAY_FACT)
    return {fact.name: draw(rng, fact.given_state()[state]) for fact in facts}


def death_prob(acuity: Ints, age_band: Ints) -> Floats:
    """Return the probability of death in hospital, given the levels of acuity and age band."""
    return np.asarray(P_DEATH[acuity] * DEATH_AGE_FACTOR[age_band])


def logit(facts: dict[str, Ints]) -> Floats:
    """Return the log-odds of unplanned readmission within 30 days.

    Args:
        facts: the levels of each fact, by name, as arrays that broadcast against each other.
    """
    total: Floats = np.asarray(INTERCEPT)
    for name, level, size in EFFECTS:
        total = total + size * (facts[name] == level)
    for first, first_level, second, second_level, size in INTERACTIONS:
        total = total + size * ((facts[first] == first_level) & (facts[second] == second_level))
    return np.asarray(total)


@lru_cache(maxsize=1)
def risk() -> Risk:
    """Compute the exact probabilities of readmission, given all facts or only some kinds of facts (see `Risk`)."""
    note, series, record = _levels(NOTE_NAMES, _NOTE_SHAPE), _levels(SERIES_NAMES, _SERIES_SHAPE), _record_levels()
    grid = {name: values[:, None, None] for name, values in note.items()}
    grid |= {name: values[None, :, None] for name, values in series.items()}
    grid |= {name: values[None, None, :] for name, values in record.items()}
    full = 1 / (1 + np.exp(-logit(grid)))

    alive = 1 - death_prob(series["acuity"][:, None], record["age_band"][None, :])  # (s, x)
    note_given = _joint(NOTE_FACTS)  # (z, n)
    series_given = _joint(SERIES_FACTS)[:, :, None] * alive  # (z, s, x), survivors only
    state_given = state_prior()[:, record["age_band"]] * STAY_FACT.given_state()[:, record["stay_band"]]  # (z, x)

    joint = np.einsum("zx,zn,zsx->nsx", state_given, note_given, series_given, optimize=True)
    weighted = joint * full
    return Risk(
        full=full,
        notes=weighted.sum(1) / joint.sum(1),
        series=weighted.sum(0) / joint.sum(0),
        none=weighted.sum((0, 1)) / joint.sum((0, 1)),
    )


def state_prior() -> Floats:
    """Return the probability of each latent state z given the age band, as an array (27, age bands)."""
    chronic, frailty, severity = _state_grid()
    return np.asarray(P_CHRONIC.T[chronic] * P_FRAILTY.T[frailty] * P_SEVERITY[severity][:, None])


def _state_grid() -> tuple[Ints, Ints, Ints]:
    chronic, frailty, severity = np.unravel_index(np.arange(LEVELS**3), (LEVELS,) * 3)
    return chronic, frailty, severity


def _levels(names: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Ints]:
    """Return the level of each fact at every joint index, which numbers the combinations of levels."""
    return dict(zip(names, np.unravel_index(np.arange(math.prod(shape)), shape), strict=True))


def _record_levels() -> dict[str, Ints]:
    return _levels(RECORD_NAMES, _RECORD_SHAPE)


def _joint(facts: tuple[Fact, ...]) -> Floats:
    """Return P(joint level | z) as (27, product of levels), in the order of the joint index."""
    prob: Floats = np.ones((LEVELS**3, 1))
    for fact in facts:
        prob = (prob[:, :, None] * fact.given_state()[:, None, :]).reshape(LEVELS**3, -1)
    return prob
