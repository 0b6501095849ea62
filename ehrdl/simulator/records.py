"""The synthetic hospital's administrative tables: patients, admissions, transfers, services, icustays and true risks.

The latent states of `risk` influence these tables only through age band, length-of-stay band, acuity and death. Acuity
decides how likely a stay is to include intensive care. Only stays with labs can include it, so a stay without labs does
not reveal its acuity.
"""

from typing import Any

import numpy as np
import pandas as pd

from ehrdl.simulator import risk
from ehrdl.simulator.files import NULL, Columns
from ehrdl.simulator.illness import CONDITIONS
from ehrdl.simulator.risk import Ints
from ehrdl.simulator.stays import ANCHOR_GROUPS, DAY, HOUR, NOTE_VISIBLE, OBSERVATION, PLANNED, UNPLANNED, Block, day_of

_TYPES = {
    UNPLANNED: (("EW EMER.", "OBSERVATION ADMIT", "URGENT", "DIRECT EMER."), (0.46, 0.22, 0.22, 0.10)),
    PLANNED: (("SURGICAL SAME DAY ADMISSION", "ELECTIVE"), (0.6, 0.4)),
    OBSERVATION: (("EU OBSERVATION", "DIRECT OBSERVATION", "AMBULATORY OBSERVATION"), (0.7, 0.2, 0.1)),
}
_THROUGH_ED = ("EW EMER.", "OBSERVATION ADMIT", "EU OBSERVATION")
_LOCATIONS = {
    True: (("EMERGENCY ROOM", "WALK-IN/SELF REFERRAL", "PHYSICIAN REFERRAL"), (0.84, 0.06, 0.10)),
    False: (
        ("PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "CLINIC REFERRAL", "TRANSFER FROM SKILLED NURSING FACILITY"),
        (0.5, 0.34, 0.12, 0.04),
    ),
}
_GOES_TO = (
    *("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "CHRONIC/LONG TERM ACUTE CARE", "HOSPICE"),
    *("AGAINST ADVICE", "ACUTE HOSPITAL", "PSYCH FACILITY", None),
)
_P_GOES_TO = np.array(  # by age band + length-of-stay band
    [
        [0.740, 0.120, 0.020, 0.010, 0.005, 0.002, 0.025, 0.008, 0.010, 0.060],
        [0.640, 0.200, 0.045, 0.020, 0.010, 0.005, 0.018, 0.008, 0.006, 0.048],
        [0.520, 0.270, 0.090, 0.040, 0.010, 0.009, 0.012, 0.008, 0.004, 0.037],
        [0.400, 0.310, 0.160, 0.060, 0.015, 0.015, 0.006, 0.008, 0.002, 0.024],
        [0.290, 0.310, 0.250, 0.080, 0.020, 0.022, 0.004, 0.008, 0.001, 0.015],
        [0.200, 0.280, 0.340, 0.090, 0.030, 0.035, 0.002, 0.008, 0.000, 0.015],
    ]
)
_RACES = (
    ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO - PUERTO RICAN", "ASIAN - CHINESE", "OTHER", "UNKNOWN"),
    (0.64, 0.15, 0.06, 0.05, 0.05, 0.05),
)
_MARITAL = (("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", None), (0.42, 0.33, 0.13, 0.08, 0.04))
_ICUS = (
    "Medical Intensive Care Unit (MICU)",
    "Surgical Intensive Care Unit (SICU)",
    "Medical/Surgical Intensive Care Unit (MICU/SICU)",
    "Cardiac Vascular Intensive Care Unit (CVICU)",
)
P_ICU_BY_ACUITY = np.array([0.0, 0.12, 1.0])
TRUTH_SPEC = {
    "hadm_id": "i",
    "subject_id": "i",
    "prob": "f",
    "prob_notes": "f",
    "prob_series": "f",
    "prob_notes_removed_30": "f",
    "note_removed": "i",
    **dict.fromkeys((*risk.NOTE_NAMES, *risk.SERIES_NAMES, *risk.RECORD_NAMES), "i"),
    "note_visible": "i",
    "labs_present": "i",
    "outcome": "i",
}


def stay_frame(block: Block) -> pd.DataFrame:
    """Return the stays of a block of patients, with the columns of their episodes and the patients' id, sex and age."""
    of_episode = block.episodes.drop(columns=["start", "end"]).iloc[block.stays["episode"]].reset_index(drop=True)
    stays = pd.concat([block.stays.reset_index(drop=True), of_episode], axis=1)
    who = block.patients.iloc[stays["patient"]].reset_index(drop=True)
    return stays.assign(subject_id=who["subject_id"], female=who["female"], age=who["anchor_age"])


def patients(block: Block) -> Columns:
    """Return the rows of the table patients for a block of patients."""
    people = block.patients
    return {
        "subject_id": people["subject_id"],
        "gender": np.where(people["female"], "F", "M").astype(object),
        "anchor_age": people["anchor_age"],
        "anchor_year": people["anchor_year"],
        "anchor_year_group": np.array(ANCHOR_GROUPS, dtype=object)[people["anchor_group"]],
        "dod": _or_null(people["dod"].notna(), people["dod"].fillna(0).astype(np.int64)),
    }


def admissions(rng: np.random.Generator, block: Block, stays: pd.DataFrame) -> dict[str, Any]:
    """Draw the rows of the table admissions, one per stay, in the order of `stays`."""
    n = len(stays)
    start, end = stays["start"].to_numpy(), stays["end"].to_numpy()
    kind = _admission_type(rng, stays)
    through_ed = np.isin(kind, _THROUGH_ED)
    registered = np.maximum(start - rng.integers(HOUR, 10 * HOUR, n), _previous_end(stays) + 10)
    registered = np.where(registered < start, registered, start - 1)
    return {
        "subject_id": stays["subject_id"],
        "hadm_id": stays["hadm_id"],
        "admittime": start,
        **_leaving(rng, stays, end),
        "admission_type": kind,
        "admit_provider_id": _providers(rng, n),
        "admission_location": _pick_by(rng, through_ed, _LOCATIONS),
        **_demographics(rng, block, stays),
        "edregtime": _or_null(through_ed, registered),
        "edouttime": _or_null(through_ed, start + rng.integers(0, 2 * HOUR, n)),
    }


def transfers(rng: np.random.Generator, stays: pd.DataFrame, table: dict[str, Any], icu: pd.DataFrame,
              conditions: Ints) -> Columns:  # fmt: skip
    """Draw the rows of the table transfers: emergency department, ward, ICU, ward again, discharge.

    The rows have no transfer_id yet. `table` is the result of `admissions`, and `icu` is the result of `icu_stays`.
    """
    wards = np.array([condition.ward for condition in CONDITIONS], dtype=object)[conditions[stays["episode"]]]
    base = pd.DataFrame({"subject_id": stays["subject_id"], "hadm_id": stays["hadm_id"], "careunit": wards})
    start, end = stays["start"].to_numpy(), stays["end"].to_numpy()
    in_icu = icu.set_index("stay").reindex(np.arange(len(stays)))
    has_icu = in_icu["intime"].notna().to_numpy()
    enters = in_icu["intime"].fillna(0).astype(np.int64).to_numpy()
    leaves = np.minimum(in_icu["outtime"].fillna(0).astype(np.int64).to_numpy(), end)
    registered, out = table["edregtime"], table["edouttime"]
    in_ed = registered != NULL
    # some ED visits became a stay late; their ED row keeps its null hadm_id
    nameless = np.where(rng.random(len(base)) < 0.15, NULL, base["hadm_id"])
    rows = [
        base.assign(eventtype="ED", careunit="Emergency Department", hadm_id=nameless, intime=registered, outtime=out)[
            in_ed
        ],
        base.assign(eventtype="admit", intime=start, outtime=np.where(has_icu, enters, end)),
        base.assign(eventtype="transfer", careunit=in_icu["unit"].to_numpy(), intime=enters, outtime=leaves)[has_icu],
        base.assign(eventtype="transfer", intime=leaves, outtime=end)[has_icu & (leaves < end)],
        base.assign(eventtype="discharge", careunit=None, intime=end, outtime=NULL),
    ]
    return _columns(pd.concat(rows, ignore_index=True))


def services(rng: np.random.Generator, stays: pd.DataFrame, conditions: Ints) -> Columns:
    """Draw the rows of the table services: the first service of each stay, and a later move in some stays.

    The reason for admission (`conditions`) decides the first service.
    """
    first = np.array([condition.service for condition in CONDITIONS], dtype=object)[conditions[stays["episode"]]]
    base = pd.DataFrame({"subject_id": stays["subject_id"], "hadm_id": stays["hadm_id"]})
    at = stays["start"].to_numpy() + rng.integers(0, 20, len(stays))
    half = (stays["start"].to_numpy() + stays["end"].to_numpy()) // 2
    moves = (rng.random(len(stays)) < 0.12) & (first != "PSYCH") & (first != "OBS")
    second = np.where(first == "MED", "SURG", "MED")
    rows = [
        base.assign(transfertime=at, prev_service=None, curr_service=first),
        base.assign(transfertime=half, prev_service=first, curr_service=second)[moves],
    ]
    return _columns(pd.concat(rows, ignore_index=True))


def icu_stays(rng: np.random.Generator, stays: pd.DataFrame) -> pd.DataFrame:
    """Draw the ICU stays.

    Sicker patients go to an ICU more often, but only if their stay has labs.

    Returns:
        One row per ICU stay: stay (a row number of `stays`), subject_id, hadm_id, unit, intime, outtime.
    """
    goes = rng.random(len(stays)) < P_ICU_BY_ACUITY[stays["acuity"]]
    goes &= (stays["labs"] & stays["last"] & (stays["kind"] != OBSERVATION)).to_numpy()
    chosen = stays[goes]
    n, start, end = len(chosen), chosen["start"].to_numpy(), chosen["end"].to_numpy()
    intime = start + rng.integers(5, 2 * HOUR, n)
    hours = np.clip(rng.uniform(0.3, 0.6, n) * (end - start) / HOUR, 8, 96)
    outtime = np.minimum(intime + (hours * HOUR).astype(np.int64), end - 30)
    # occasionally, the ICU record is closed after the discharge
    outtime = np.where(rng.random(n) < 0.02, end + rng.integers(5, HOUR, n), outtime)
    ids = {"stay": np.flatnonzero(goes), "subject_id": chosen["subject_id"], "hadm_id": chosen["hadm_id"]}
    unit = np.array(_ICUS, dtype=object)[rng.choice(len(_ICUS), n, p=[0.35, 0.25, 0.2, 0.2])]
    return pd.DataFrame(ids | {"unit": unit, "intime": intime, "outtime": outtime}).reset_index(drop=True)


def icu_columns(icu: pd.DataFrame) -> Columns:
    """Return the rows of the table icustays, from the result of `icu_stays` with the column stay_id added."""
    columns = _columns(icu[["subject_id", "hadm_id", "stay_id", "intime", "outtime"]])
    unit = icu["unit"].to_numpy()
    los = ((icu["outtime"] - icu["intime"]) / DAY).to_numpy()
    return columns | {"first_careunit": unit, "last_careunit": unit, "los": los}


def truth(stays: pd.DataFrame) -> Columns:
    """Return the rows of the table of true risks, one per stay, with the facts and the outcome.

    A row has values if its stay ends an inpatient episode that the patient leaves alive. Other rows have only the ids.
    """
    shown = (stays["indexed"] & stays["last"]).to_numpy()
    note_visible = shown & (stays["note"] == NOTE_VISIBLE).to_numpy()
    labs = shown & stays["labs"].to_numpy()
    columns: dict[str, Any] = {"hadm_id": stays["hadm_id"], "subject_id": stays["subject_id"]}
    for name in ("prob", "prob_notes", "prob_series", "prob_notes_removed_30"):
        columns[name] = np.where(shown, stays[name], np.nan)
    visible = dict.fromkeys(risk.NOTE_NAMES, note_visible) | dict.fromkeys(risk.SERIES_NAMES, labs)
    for name in ("note_removed", "outcome", *risk.NOTE_NAMES, *risk.SERIES_NAMES, *risk.RECORD_NAMES):
        columns[name] = _or_null(visible.get(name, shown), stays[name])
    return columns | {"note_visible": _or_null(shown, note_visible), "labs_present": _or_null(shown, labs)}


def _admission_type(rng: np.random.Generator, stays: pd.DataFrame) -> Any:
    """Draw the type of each stay.

    An unplanned episode with two stays may begin under observation. Its second stay is always unplanned.
    """
    last = stays["last"].to_numpy()
    second = last & stays["episode"].duplicated().to_numpy()
    kind = np.where(second, UNPLANNED, stays["kind"])
    began_observed = ~last & (stays["kind"] == UNPLANNED).to_numpy() & (rng.random(len(stays)) < 0.25)
    drawn = _pick_by(rng, kind, _TYPES)
    return np.where(began_observed, "EU OBSERVATION", drawn)


def _leaving(rng: np.random.Generator, stays: pd.DataFrame, end: Ints) -> dict[str, Any]:
    """Draw dischtime, deathtime, discharge_location and hospital_expire_flag. Not every death has all three marks."""
    n = len(stays)
    place = np.array(_GOES_TO, dtype=object)[risk.draw(rng, _P_GOES_TO[stays["age_band"] + stays["stay_band"]])]
    home = rng.random(n) < 0.4
    observed = (stays["kind"] == OBSERVATION).to_numpy()
    place[observed & home], place[observed & ~home] = "HOME", None
    place[~stays["last"].to_numpy()] = "HOME"
    dead = (stays["dead"] & stays["last"]).to_numpy()
    only = np.where(rng.random(n) < 0.06, rng.integers(0, 3, n), -1)  # the only mark of a death, or -1 for all three
    place[dead] = None
    place[dead & np.isin(only, (-1, 1))] = "DIED"
    midnight = day_of(end) * DAY
    dated = dead & (rng.random(n) < 0.1) & (midnight > stays["start"].to_numpy())
    return {
        "dischtime": np.where(dated, midnight, end),
        "deathtime": _or_null(dead & np.isin(only, (-1, 0)), end),
        "discharge_location": place,
        "hospital_expire_flag": (dead & np.isin(only, (-1, 2))).astype(np.int64),
    }


def _demographics(rng: np.random.Generator, block: Block, stays: pd.DataFrame) -> dict[str, Any]:
    """Draw the answers given at registration: one answer per patient, insurance by age."""
    n = len(block.patients)
    patient = stays["patient"].to_numpy()
    old = (block.patients["anchor_age"] >= 65).to_numpy()
    insurance = np.where(old & (rng.random(n) < 0.85), "Medicare", np.where(rng.random(n) < 0.2, "Medicaid", "Other"))
    marital = rng.choice(np.array(_MARITAL[0], dtype=object), n, p=_MARITAL[1])
    return {
        "insurance": insurance.astype(object)[patient],
        "language": np.where(rng.random(n) < 0.9, "ENGLISH", "?").astype(object)[patient],
        "marital_status": marital[patient],
        "race": np.array(_RACES[0], dtype=object)[rng.choice(len(_RACES[0]), n, p=_RACES[1])][patient],
    }


def _previous_end(stays: pd.DataFrame) -> Ints:
    """Return the end of the patient's stay before each stay, or a time long ago if there is none."""
    ends = stays["end"].to_numpy()
    same = np.concatenate([[False], stays["patient"].to_numpy()[1:] == stays["patient"].to_numpy()[:-1]])
    return np.where(same, np.roll(ends, 1), -(10**9))


def _pick_by(rng: np.random.Generator, keys: Any, choices: Any) -> Any:
    """Draw one word for each key, from the words and probabilities of that key."""
    out = np.empty(len(keys), dtype=object)
    for key, (words, probs) in choices.items():
        rows = np.asarray(keys) == key
        out[rows] = rng.choice(np.array(words, dtype=object), rows.sum(), p=probs)
    return out


def _providers(rng: np.random.Generator, n: int) -> Any:
    return np.array([f"P{i:05X}" for i in range(0x1000, 0x1000 + 400)], dtype=object)[rng.integers(0, 400, n)]


def _or_null(keep: Any, values: Any) -> Ints:
    return np.where(keep, np.asarray(values).astype(np.int64), NULL)


def _columns(frame: pd.DataFrame) -> dict[str, Any]:
    return {str(name): frame[name].to_numpy() for name in frame}
