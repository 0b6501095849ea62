"""The synthetic hospital's labs: noisy measurements that show the series facts of `risk`.

A stay with labs has blood drawn at a steady pace set by its acuity. The results of one draw are a panel. The first draw
is near admission, and the last is 5 to 11 h before discharge. The results of the last draw are in the chart by
discharge, and show the haemoglobin and sodium levels. The ratio of the stay's last to first creatinine shows the trend.
Most of this change happens in the last 72 h. Between the first and the last panel, values drift and jitter.

Half of the labs from the emergency department and a few other labs have no hadm_id. Labs from clinics have none either.
They are drawn before an admission and after a discharge, at the patient's usual level. Some storetimes are late or
missing. Some rows have other spellings or units, or impossible values. Such rows are never in the first or last panel
of a stay, because these panels carry the facts.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ehrdl.simulator.files import NULL, Columns
from ehrdl.simulator.heart import NT_PROBNP
from ehrdl.simulator.risk import Floats, Ints
from ehrdl.simulator.stays import DAY, HOUR, Block

P_NULL_STORETIME = 0.03
PANEL_HOURS = np.array([24, 13, 7])  # by acuity
TREND_HOURS = 72
HAEMOGLOBIN = np.array([[11.4, 14.4], [8.8, 10.7], [6.9, 8.2]])  # g/dL by level; thresholds 11 and 8.5
SODIUM = np.array([[137, 143], [132, 134], [123, 129]])  # mEq/L by level; thresholds 135.5 and 130.5
TREND_FOLD = np.array([[0.45, 0.66], [0.96, 1.04], [1.5, 2.2]])  # last / first; thresholds 0.8 and 1.25


@dataclass(frozen=True)
class Lab:
    """An analyte that the laboratory measures.

    Attributes:
        itemid: the item id in d_labitems.
        label: the label in d_labitems.
        category: the category in d_labitems.
        unit: the unit of the results; None = no unit.
        mean: the mean of the patients' usual values [unit].
        between: the standard deviation of the patients' usual values [unit].
        within: the standard deviation of one patient's values around the usual value [unit].
        decimals: the number of decimals in a result.
        low: the lower limit of the reference range [unit].
        high: the upper limit of the reference range [unit].
        share: the share of panels that contain the analyte.
    """

    itemid: int
    label: str
    category: str
    unit: str | None
    mean: float
    between: float
    within: float
    decimals: int
    low: float
    high: float
    share: float = 1.0


LABS = (
    Lab(50983, "Sodium", "Chemistry", "mEq/L", 139.5, 1.5, 1.2, 0, 133, 145),
    Lab(50912, "Creatinine", "Chemistry", "mg/dL", 1.0, 0.25, 0.04, 1, 0.5, 1.2),
    Lab(51222, "Hemoglobin", "Hematology", "g/dL", 12.6, 0.9, 0.3, 1, 12.0, 16.0),
    Lab(50971, "Potassium", "Chemistry", "mEq/L", 4.1, 0.25, 0.35, 1, 3.3, 5.1),
    Lab(50902, "Chloride", "Chemistry", "mEq/L", 102, 1.5, 1.5, 0, 96, 108),
    Lab(50882, "Bicarbonate", "Chemistry", "mEq/L", 25, 1.5, 1.8, 0, 22, 32),
    Lab(51006, "Urea Nitrogen", "Chemistry", "mg/dL", 18, 4, 1.5, 0, 6, 20),
    Lab(50931, "Glucose", "Chemistry", "mg/dL", 125, 25, 25, 0, 70, 100),
    Lab(51221, "Hematocrit", "Hematology", "%", 38, 2.5, 0.7, 1, 36, 48),
    Lab(51301, "White Blood Cells", "Hematology", "K/uL", 8.5, 1.8, 1.3, 1, 4, 11),
    Lab(51265, "Platelet Count", "Hematology", "K/uL", 220, 60, 18, 0, 150, 440),
    Lab(50893, "Calcium, Total", "Chemistry", "mg/dL", 8.7, 0.35, 0.3, 1, 8.4, 10.3, 0.7),
    Lab(50960, "Magnesium", "Chemistry", "mg/dL", 2.0, 0.12, 0.18, 1, 1.6, 2.6, 0.7),
    Lab(50970, "Phosphate", "Chemistry", "mg/dL", 3.5, 0.4, 0.5, 1, 2.7, 4.5, 0.7),
    Lab(50813, "Lactate", "Blood Gas", "mmol/L", 1.6, 0.3, 0.4, 1, 0.5, 2.0, 0.12),
    Lab(50885, "Bilirubin, Total", "Chemistry", "mg/dL", 0.7, 0.3, 0.15, 1, 0, 1.5, 0.12),
    Lab(50861, "Alanine Aminotransferase (ALT)", "Chemistry", "IU/L", 30, 12, 6, 0, 0, 40, 0.12),
    Lab(51237, "INR(PT)", "Hematology", None, 1.2, 0.12, 0.08, 1, 0.9, 1.1, 0.2),
    Lab(50862, "Albumin", "Chemistry", "g/dL", 3.7, 0.4, 0.15, 1, 3.5, 5.2, 0.15),
)
_COLUMN = {lab.label: column for column, lab in enumerate(LABS)}
_SODIUM, _CREATININE, _HAEMOGLOBIN = _COLUMN["Sodium"], _COLUMN["Creatinine"], _COLUMN["Hemoglobin"]
_IMPOSSIBLE = {_SODIUM: 1400.0, _COLUMN["Potassium"]: 99.9, _COLUMN["Glucose"]: 9999.0, _HAEMOGLOBIN: 113.0}
# (other unit, factor from the usual unit, share of the rows)
_OTHER_UNITS = {
    _CREATININE: (("mg/dl", 1.0, 0.01), ("umol/L", 88.42, 0.004)),
    _COLUMN["Glucose"]: (("mg/dl", 1.0, 0.01), ("mmol/L", 0.05551, 0.004)),
}


@dataclass(frozen=True)
class Panels:
    """Blood draws, one row each, with the values of all analytes.

    Attributes:
        stay: the row number of the stay in the frame of stays.
        charttime: the time of the draw [minutes since 1970].
        last_charttime: the time of the last draw of the same episode [minutes since 1970].
        first: whether the draw is the first of an episode.
        last: whether the draw is the last of an episode.
        hadm_id: the id of the stay; NULL = not recorded.
        value: (draws, labs), the values before rounding.
    """

    stay: Ints
    charttime: Ints
    last_charttime: Ints  # of the same episode
    first: Any
    last: Any
    hadm_id: Ints
    value: Floats  # (draws, labs), before measurement noise is rounded


def labs(rng: np.random.Generator, block: Block, stays: pd.DataFrame) -> Columns:
    """Draw the rows of the table labevents.

    The rows have no labevent_id yet. specimen_id numbers the blood draws from 0.
    """
    usual = _usual(rng, block)
    parts = [_inpatient(rng, block, stays, usual), _outpatient(rng, stays, usual)]
    rows = [_rows(rng, panels, stays) for panels in parts]
    rows[1]["specimen_id"] += len(parts[0].stay)
    return {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}


def lab_items() -> Columns:
    """Return the rows of the table d_labitems: the analytes that the laboratory measures."""
    return {
        "itemid": [*[lab.itemid for lab in LABS], NT_PROBNP],
        "label": [*[lab.label for lab in LABS], "NTproBNP"],
        "fluid": "Blood",
        "category": [*[lab.category for lab in LABS], "Chemistry"],
    }


def _usual(rng: np.random.Generator, block: Block) -> Floats:
    """Draw each patient's usual values (patients, labs), which depend on sex and not on risk."""
    mean, between = np.array([[lab.mean, lab.between] for lab in LABS]).T
    usual = mean + between * rng.normal(size=(len(block.patients), len(LABS)))
    male = ~block.patients["female"].to_numpy()
    usual[:, _HAEMOGLOBIN] += np.where(male, 1.0, 0.0)
    # at 0.9 and above, one decimal cannot turn a flat course into a trend
    usual[:, _CREATININE] = np.maximum(0.9, (0.95 + 0.2 * male) * np.exp(rng.normal(0, 0.22, len(male))))
    return np.asarray(np.maximum(usual, mean * 0.3))


def _inpatient(rng: np.random.Generator, block: Block, stays: pd.DataFrame, usual: Floats) -> Panels:
    """Draw the panels of the stays that have labs, over the whole episode."""
    whole = stays[stays["last"] & stays["labs"]]
    start = block.episodes["start"].to_numpy()[whole["episode"]]
    end = whole["end"].to_numpy()
    acuity = whole["acuity"].to_numpy()
    first = start + rng.integers(-2 * HOUR, 2 * HOUR, len(whole))
    final = end - rng.integers(5 * HOUR, np.where(end - start < 26 * HOUR, 6 * HOUR, 11 * HOUR))
    final = np.maximum(final, first + HOUR)
    n_draws = np.maximum(2, np.rint((final - first) / (PANEL_HOURS[acuity] * HOUR)).astype(np.int64) + 1)
    of = np.repeat(np.arange(len(whole)), n_draws)
    order = np.arange(len(of)) - np.repeat(np.cumsum(n_draws) - n_draws, n_draws)
    is_first, is_last = order == 0, order == n_draws[of] - 1
    jitter = np.where(is_first | is_last, 0, rng.uniform(-0.06, 0.06, len(of)))
    time = first[of] + ((final - first)[of] * (order + jitter) / (n_draws[of] - 1)).astype(np.int64)

    value = _course(rng, whole, usual, _Draws(of, time, first, final, is_first | is_last))
    second = whole.index.to_numpy()[of]
    # a draw before the second admission of an episode belongs to the first admission (the row above)
    split = (whole["start"].to_numpy() > start)[of] & (time < whole["start"].to_numpy()[of])
    stay = np.where(split, second - 1, second)
    before = time < start[of]
    nameless = (before & (rng.random(len(of)) < 0.5)) | (~is_last & (rng.random(len(of)) < 0.06))
    hadm = np.where(nameless, NULL, stays["hadm_id"].to_numpy()[stay])
    return Panels(stay, time, final[of], is_first, is_last, hadm, value)


class _Draws(NamedTuple):
    """The blood draws (m,) of some episodes (n,).

    Attributes:
        of: (m,), the episode of each draw.
        time: (m,), the time of each draw.
        first: (n,), the time of each episode's first draw.
        final: (n,), the time of each episode's last draw.
        at_an_end: (m,), whether the draw is the first or the last of its episode.
    """

    of: Ints
    time: Ints
    first: Ints
    final: Ints
    at_an_end: Any


def _course(rng: np.random.Generator, whole: pd.DataFrame, usual: Floats, draws: _Draws) -> Floats:
    """Draw the values (draws, labs): the facts at both ends, drift and jitter between, usual levels for other labs."""
    of, time, first, final, at_an_end = draws
    n, m = len(whole), len(of)
    within = np.array([lab.within for lab in LABS])
    value = usual[whole["patient"].to_numpy()][of] + within * rng.normal(size=(m, len(LABS)))
    remaining = (final[of] - time) / np.maximum(final - first, 1)[of]  # 1 at the first draw, 0 at the last
    noise = np.where(at_an_end, 0.0, 1.0)

    ends = ((_SODIUM, SODIUM, "sodium", 2.5), (_HAEMOGLOBIN, HAEMOGLOBIN, "haemoglobin", 0.9))
    for column, levels, name, drift in ends:
        low, high = levels[whole[name]].T
        ends_at = low + (high - low) * rng.random(n)
        value[:, column] = ends_at[of] + (drift * rng.normal(size=n))[of] * remaining
        value[:, column] += noise * within[column] * rng.normal(size=m)

    low, high = TREND_FOLD[whole["creatinine_trend"]].T
    fold = low + (high - low) * rng.random(n)
    # a patient who improves starts above the usual level and ends at it; one who worsens starts at it
    starts_at = usual[whole["patient"], _CREATININE] / np.where(fold < 0.8, fold, 1.0)
    span = np.minimum(final - first, TREND_HOURS * HOUR)
    done = np.clip(1 - (final[of] - time) / span[of], 0, 1)
    creatinine = starts_at[of] * fold[of] ** done
    value[:, _CREATININE] = creatinine * np.exp(noise * 0.04 * rng.normal(size=m))
    value[:, _COLUMN["Urea Nitrogen"]] *= (creatinine / usual[whole["patient"], _CREATININE][of]) ** 0.8
    value[:, _COLUMN["Chloride"]] += value[:, _SODIUM] - 139.5
    value[:, _COLUMN["Hematocrit"]] = 3 * value[:, _HAEMOGLOBIN] + 0.6 * rng.normal(size=m)
    value[:, _COLUMN["Lactate"]] += 0.4 * whole["acuity"].to_numpy()[of]
    value[:, _COLUMN["White Blood Cells"]] += 1.2 * whole["acuity"].to_numpy()[of]
    return np.asarray(value)


def _outpatient(rng: np.random.Generator, stays: pd.DataFrame, usual: Floats) -> Panels:
    """Draw clinic panels without hadm_id before an admission and after a discharge, at the patient's usual level."""
    patient = stays["patient"].to_numpy()
    same = patient[1:] == patient[:-1]
    start, end = stays["start"].to_numpy(), stays["end"].to_numpy()
    gap_before = np.concatenate([[200 * DAY], np.where(same, start[1:] - end[:-1], 200 * DAY)])
    room = np.minimum(gap_before, 200 * DAY) - 3 * DAY  # at least a day from either stay, and a day more
    n_draws = np.where(room > DAY, rng.poisson(2.0, len(stays)), 0)
    of = np.repeat(np.arange(len(stays)), n_draws)
    time = start[of] - 2 * DAY - (room[of] * rng.random(len(of))).astype(np.int64)
    within = np.array([lab.within for lab in LABS])
    value = usual[patient[of]] + within * rng.normal(size=(len(of), len(LABS)))
    nobody = np.zeros(len(of), dtype=bool)
    far = np.full(len(of), np.iinfo(np.int64).max)
    return Panels(of, time, far, nobody, nobody, np.full(len(of), NULL), value)


def _rows(rng: np.random.Generator, panels: Panels, stays: pd.DataFrame) -> dict[str, Any]:
    """Return one row per draw and analyte measured in it, with the irregularities of a real laboratory's records."""
    share = np.array([lab.share for lab in LABS])
    ends = panels.first | panels.last
    draw, lab = np.nonzero((rng.random(panels.value.shape) < share) | (ends[:, None] & (share >= 0.7)))
    decimals = np.array([lab.decimals for lab in LABS])[lab]
    scale = 10.0**decimals
    value = np.maximum(np.rint(panels.value[draw, lab] * scale) / scale, 1 / scale)
    unit = np.array([lab.unit for lab in LABS], dtype=object)[lab]
    plain = ends[draw]
    value, unit = _quirks(rng, lab, value, unit, plain)
    low, high = np.array([[lab.low, lab.high] for lab in LABS])[lab].T
    charttime = panels.charttime[draw]
    text = np.char.mod("%.6g", value).astype(object)
    cancelled = ~plain & (rng.random(len(lab)) < 0.002)
    return {
        "subject_id": stays["subject_id"].to_numpy()[panels.stay[draw]],
        "hadm_id": panels.hadm_id[draw],
        "specimen_id": draw,
        "itemid": np.array([lab.itemid for lab in LABS])[lab],
        "charttime": charttime,
        "storetime": _stored(rng, charttime, panels.last_charttime[draw], panels.last[draw]),
        "value": np.where(cancelled, "___", text),
        "valuenum": np.where(cancelled, np.nan, value),
        "valueuom": unit,
        "ref_range_lower": low,
        "ref_range_upper": high,
        "flag": np.array([None, "abnormal"], dtype=object)[((value < low) | (value > high)).astype(np.int64)],
        "priority": np.where(rng.random(len(lab)) < 0.58, "STAT", "ROUTINE").astype(object),
    }


def _quirks(rng: np.random.Generator, lab: Ints, value: Floats, unit: Any, plain: Any) -> tuple[Floats, Any]:
    """Add other spellings, other units with converted values, and impossible values, except in the `plain` rows."""
    chance = rng.random(len(lab))
    for column, others in _OTHER_UNITS.items():
        low = 0.0
        for other, factor, share in others:
            rows = (lab == column) & ~plain & (chance >= low) & (chance < low + share)
            value[rows] = np.round(value[rows] * factor, 1)
            unit[rows] = other
            low += share
    for column, impossible in _IMPOSSIBLE.items():
        value[(lab == column) & ~plain & (chance > 0.9995)] = impossible
    return value, unit


def _stored(rng: np.random.Generator, charttime: Ints, last_charttime: Ints, last: Any) -> Ints:
    """Draw the times when results reach the chart, half an hour to hours after the draw.

    No result of an earlier draw arrives after the last draw. The last value drawn is therefore the last to appear, and
    it appears within 4 h. Rarely, the storetime is before the draw or missing.
    """
    n = len(charttime)
    lag = np.clip(rng.lognormal(np.log(80), 0.6, n), 20, 12 * HOUR).astype(np.int64)
    lag = np.where(last, np.minimum(lag, 4 * HOUR), np.minimum(lag, np.maximum(last_charttime - charttime, 1)))
    lag = np.where(rng.random(n) < 0.003, -rng.integers(1, 20, n), lag)
    return np.where(rng.random(n) < P_NULL_STORETIME, NULL, charttime + lag)
