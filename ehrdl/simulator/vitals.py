"""The synthetic hospital's ICU charting: hourly vitals, temperature in °C or °F, the Glasgow coma scale as words.

Vitals are charted only in the ICU, so their presence shows how sick a patient was. Their values say
nothing about the patient's risk. Each stay has a level around which its values vary. Over the stay, values move towards
normal.
"""

from typing import Any

import numpy as np
import pandas as pd

from ehrdl.simulator.files import NULL, Columns
from ehrdl.simulator.risk import Floats, Ints
from ehrdl.simulator.stays import HOUR

P_NULL_STORETIME = 0.03
P_CELSIUS = 0.12  # of the ICU stays
# itemid, label, abbreviation, category, unit, mean at admission, mean at the end, spread between stays, within one
_NUMERIC = (
    (220045, "Heart Rate", "HR", "Routine Vital Signs", "bpm", 98, 84, 10, 6),
    (220179, "Non Invasive Blood Pressure systolic", "NBPs", "Routine Vital Signs", "mmHg", 108, 122, 11, 8),
    (220180, "Non Invasive Blood Pressure diastolic", "NBPd", "Routine Vital Signs", "mmHg", 58, 64, 7, 6),
    (220181, "Non Invasive Blood Pressure mean", "NBPm", "Routine Vital Signs", "mmHg", 74, 82, 7, 5),
    (220210, "Respiratory Rate", "RR", "Respiratory", "insp/min", 23, 18, 2, 2.5),
    (220277, "O2 saturation pulseoxymetry", "SpO2", "Respiratory", "%", 95, 97, 1.2, 1.2),
    (223761, "Temperature Fahrenheit", "Temperature F", "Routine Vital Signs", "°F", 99.3, 98.5, 0.5, 0.5),
)
_CELSIUS = (223762, "Temperature Celsius", "Temperature C", "Routine Vital Signs", "°C")
_COMA = (  # the words of the scores from 1
    (220739, "GCS - Eye Opening", "Eye Opening", ("None", "To Pain", "To Speech", "Spontaneously")),
    (
        *(223900, "GCS - Verbal Response", "Verbal Response"),
        ("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused", "Oriented"),
    ),
    (
        *(223901, "GCS - Motor Response", "Motor Response"),
        ("No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws", "Localizes Pain", "Obeys Commands"),
    ),
)
_TEMPERATURE = len(_NUMERIC) - 1
_SPO2 = 5
_SPARSE_EVERY = 4  # temperature and coma scale are charted every fourth round
_IMPOSSIBLE = {0: 999.0, 1: 0.0, _SPO2: 0.0}  # by row of _NUMERIC
P_IMPOSSIBLE = 0.0004


def chart(rng: np.random.Generator, icu: pd.DataFrame) -> Columns:
    """Draw the rows of the table chartevents for the ICU stays."""
    hours = rng.choice([1.0, 2.0], len(icu), p=[0.4, 0.6])
    stay_minutes = (icu["outtime"] - icu["intime"]).to_numpy()
    n_rounds = np.maximum(1, (stay_minutes / (hours * HOUR)).astype(np.int64))
    of = np.repeat(np.arange(len(icu)), n_rounds)
    order = np.arange(len(of)) - np.repeat(np.cumsum(n_rounds) - n_rounds, n_rounds)
    time = icu["intime"].to_numpy()[of] + ((order + 0.2 + 0.6 * rng.random(len(of))) * hours[of] * HOUR).astype(
        np.int64
    )
    time = np.minimum(time, icu["outtime"].to_numpy()[of])
    progress = order / np.maximum(n_rounds[of] - 1, 1)
    parts = [_numeric(rng, len(icu), of, order, progress), _coma(rng, len(icu), of, order, progress)]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    charttime = time[rows.pop("round")]
    stay = rows.pop("stay")
    late = charttime + rng.integers(0, HOUR, len(stay))
    return rows | {
        "subject_id": icu["subject_id"].to_numpy()[stay],
        "hadm_id": icu["hadm_id"].to_numpy()[stay],
        "stay_id": icu["stay_id"].to_numpy()[stay],
        "caregiver_id": rng.integers(1000, 1400, len(stay)),
        "charttime": charttime,
        "storetime": np.where(rng.random(len(stay)) < P_NULL_STORETIME, NULL, late),
        "warning": (rng.random(len(stay)) < 0.002).astype(np.int64),
    }


def chart_items() -> Columns:
    """Return the rows of the table d_items: the charted vitals and coma scores."""
    numeric = [(*row[:5], "Numeric") for row in _NUMERIC] + [(*_CELSIUS, "Numeric")]
    words = [(row[0], row[1], row[2], "Neurological", None, "Text") for row in _COMA]
    names = ("itemid", "label", "abbreviation", "category", "unitname", "param_type")
    items = dict(zip(names, map(list, zip(*numeric, *words, strict=True)), strict=True))
    return items | {"linksto": "chartevents"}


def _numeric(rng: np.random.Generator, n_stays: int, of: Ints, order: Ints, progress: Floats) -> dict[str, Any]:
    start, end, between, within = np.array([row[5:] for row in _NUMERIC], dtype=np.float64).T
    level = between * rng.normal(size=(n_stays, len(_NUMERIC)))
    value = start + (end - start) * progress[:, None] + level[of] + within * rng.normal(size=(len(of), len(_NUMERIC)))
    value[:, _SPO2] = np.minimum(value[:, _SPO2], 100)
    charted = np.ones(value.shape, dtype=bool)
    charted[:, _TEMPERATURE] = order % _SPARSE_EVERY == 0
    charted &= rng.random(value.shape) > 0.04
    row, column = np.nonzero(charted)
    value = np.round(value[row, column], 0)
    hot = column == _TEMPERATURE
    fahrenheit = np.round(98.6 + 0.6 * rng.normal(size=len(row)) + level[of[row], _TEMPERATURE], 1)
    value = np.where(hot, fahrenheit, value)
    celsius = hot & (rng.random(n_stays) < P_CELSIUS)[of[row]]
    value = np.where(celsius, np.round((value - 32) / 1.8, 1), value)
    for bad_column, bad in _IMPOSSIBLE.items():
        value[(column == bad_column) & (rng.random(len(row)) < P_IMPOSSIBLE)] = bad
    unit = np.array([item[4] for item in _NUMERIC], dtype=object)[column]
    return {
        "round": row,
        "stay": of[row],
        "itemid": np.where(celsius, _CELSIUS[0], np.array([item[0] for item in _NUMERIC])[column]),
        "value": np.char.mod("%.6g", value).astype(object),
        "valuenum": value,
        "valueuom": np.where(celsius, _CELSIUS[4], unit),
    }


def _coma(rng: np.random.Generator, n_stays: int, of: Ints, order: Ints, progress: Floats) -> dict[str, Any]:
    """Draw eye, verbal and motor scores. Most stays have full scores; a third lose up to two points early on."""
    rounds = np.flatnonzero(order % _SPARSE_EVERY == 0)
    drowsy = (rng.random(n_stays) < 0.35)[of[rounds]] & (progress[rounds] < 0.6)
    lost = np.where(drowsy, rng.integers(0, 3, len(rounds)), 0)
    parts = []
    for itemid, _, _, words in _COMA:
        score = len(words) - lost
        parts.append(
            {
                "round": rounds,
                "stay": of[rounds],
                "itemid": np.full(len(rounds), itemid),
                "value": np.array(words, dtype=object)[score - 1],
                "valuenum": score.astype(np.float64),
                "valueuom": np.full(len(rounds), None, dtype=object),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
