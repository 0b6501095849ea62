"""The clinical scores LACE and HOSPITAL: their items from the patient's record, then points, then a risk.

An item that is not in the record gives no points, as when a nurse counts from the same chart. The length of a stay is
its number of midnights. `lace` and `hospital` read only what was available at the prediction time. Their diagnoses and
procedures therefore come from earlier stays. `lace_retrospective` and `hospital_retrospective` also read the codes of
the stay itself, and could not have been computed at the prediction time.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.clinical import charlson
from ehrdl.clinical.codes import PLANNED_ADMISSIONS
from ehrdl.clinical.hospital import hospital
from ehrdl.clinical.lace import COMORBIDITY_WEIGHTS, lace
from ehrdl.data.features.history import last_since, read_history, seen
from ehrdl.data.prepare import Prepared
from ehrdl.data.series.store import Store
from ehrdl.engine.files import read_json, write_json
from ehrdl.models.baselines.scores import NOT_DEPLOYABLE, ScoreModel
from ehrdl.options.training import Calibrate
from ehrdl.runs.files import reading
from ehrdl.schema import HELD_OUT, TRAIN, TUNING
from ehrdl.tasks.common.stays import build_episodes
from ehrdl.training.predict import prediction_rows

_DAY = 86_400_000_000  # [µs]
_YEAR, _HALF_YEAR = 365 * _DAY, 183 * _DAY
#: OMED is the oncology service of MIMIC-IV, although the documentation names it differently. In the demo, its most
#: frequent principal diagnoses are chemotherapy and leukaemia.
ONCOLOGY_SERVICES = ("OMED",)


def fit_scores(
    names: list[str], prepared: Prepared, folder: Path, seed: int, calibrate: Calibrate = "platt"
) -> list[pd.DataFrame]:
    """Fit the risk of each clinical score as a function of its points, and write it to a file.

    The file is `folder/models/<name>-<output>.json`.

    Args:
        names: the names of the scores.
        prepared: the prepared data; the risk is fitted to the training samples.
        folder: the run's folder.
        seed: the seed that is written into PREDICTIONS.
        calibrate: the method of recalibration.

    Returns:
        The PREDICTIONS table of the tuning and held-out samples, one for each score.
    """
    if not names:
        return []
    [output] = [output.name for output in prepared.spec.outputs]
    label = prepared.samples[f"label_{output}"].to_numpy()
    train = prepared.rows(TRAIN)
    rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
    history = read_history(prepared.events)
    (folder / "models").mkdir(exist_ok=True)
    parts = []
    for name in names:
        points = score_points(name, history, prepared.samples, prepared.dataset.store)
        model = ScoreModel.fit(name, points[train], label[train])
        write_json(folder / "models" / f"{name}-{output}.json", asdict(model))
        prob = model.predict(points[rows])[:, None]
        parts.append(prediction_rows(prepared.samples, [output], name, seed, rows, prob, calibrate))
    return parts


def load_score(path: Path) -> ScoreModel:
    """Read a clinical score that `fit_scores` wrote.

    Raises:
        ConfigError: the file is damaged, or is not a clinical score.
    """
    with reading(path, "clinical score"):
        found = read_json(path, dict)
        return ScoreModel(str(found["score"]), float(found["intercept"]), float(found["slope"]))


def score_points(name: str, history: pd.DataFrame, samples: pd.DataFrame, store: Store) -> np.ndarray:
    """Return the points of a clinical score for each sample, (n_samples,) int64.

    Args:
        name: the name of the score, one of `ehrdl.models.baselines.scores.SCORES`.
        history: facts about stays, diagnoses and procedures, from `read_history`.
        samples: the SAMPLES table, sorted by subject_id and prediction_time; encounter_id is the stay that ends.
        store: the stored labs and vitals.
    """
    items = score_items(history, samples, store, retrospective=name in NOT_DEPLOYABLE)
    if name.startswith("lace"):
        burden = charlson.index(charlson.flags(items.comorbidity.to_numpy()), COMORBIDITY_WEIGHTS)
        return lace(items.length_of_stay_days, items.acute, burden, items.emergency_visits)
    return hospital(
        items.hemoglobin,
        items.oncology,
        items.sodium,
        items.procedure,
        items.acute,
        items.admissions,
        items.length_of_stay_days,
    )


def score_items(
    history: pd.DataFrame, samples: pd.DataFrame, store: Store, retrospective: bool = False
) -> pd.DataFrame:
    """Return the items of the clinical scores about each sample's stay, one row per sample.

    Args:
        history: facts about stays, diagnoses and procedures, from `read_history`.
        samples: the SAMPLES table.
        store: the stored labs and vitals.
        retrospective: whether a code of a diagnosis or procedure counts from the time when it happened. Otherwise it
            counts from the time when it became available.

    Returns:
        Columns start (the episode's admission) [µs], arrived (arrival in the emergency department) [µs],
        length_of_stay_days, acute, oncology, comorbidity (bits), procedure, emergency_visits (in 183 days), admissions
        (in 365 days, without observation stays), hemoglobin [g/dL], sodium [mEq/L].
    """
    is_code = history.kind.isin(["DIAGNOSIS", "PROCEDURE"])
    other = seen(history[~is_code], samples)
    coded = seen(history[is_code], samples, "time" if retrospective else "available")
    blocks = [_items(samples[rows], facts, codes) for (rows, facts), (_, codes) in zip(other, coded, strict=True)]
    items = pd.concat(blocks)
    subject, t = samples.subject_id.to_numpy(), _micros(samples.prediction_time)
    for channel in ("hemoglobin", "sodium"):
        items[channel] = last_since(store, channel, subject, items.arrived.to_numpy(), t)
    return items


def _items(samples: pd.DataFrame, facts: pd.DataFrame, codes: pd.DataFrame) -> pd.DataFrame:
    """Return all items of a block except the labs; `row` in facts and codes is a row of the whole SAMPLES."""
    samples = samples.set_axis(samples.sample_id)
    t = pd.Series(_micros(samples.prediction_time), samples.index)
    stays = _stays(facts, samples.encounter_id, t)
    episodes = build_episodes(stays).set_index("subject_id")  # each sample acts as a subject with its own stays
    episodes = episodes.assign(start=_micros(episodes.admittime), end=_micros(episodes.dischtime))
    index = episodes[episodes.encounter_id == samples.encounter_id.reindex(episodes.index)]
    start = index.start.reindex(samples.index).fillna(t).astype(np.int64)
    end = index.end.reindex(samples.index).fillna(t).astype(np.int64)
    kind = index.admission_type.reindex(samples.index)
    visits = _of(facts, "ED_IN", start)
    admitted = stays.set_index(["subject_id", "encounter_id"]).admittime
    led = _micros(admitted.reindex(pd.MultiIndex.from_frame(visits[["row", "encounter_id"]]))) >= visits.start
    services = _of(facts, "SERVICE_IN", start)
    services = services[services.time >= services.start].sort_values("time", kind="stable")
    earlier = episodes[~episodes.observation_only].start.rename_axis("row").reset_index(name="time")
    earlier["start"] = start.reindex(earlier.row).to_numpy()
    procedures = _of(codes, "PROCEDURE", start)
    arrived = visits[led].groupby("row").time.min().reindex(samples.index).fillna(start)
    return pd.DataFrame(
        {
            "start": start,
            "arrived": np.minimum(arrived, start).astype(np.int64),
            "length_of_stay_days": end // _DAY - start // _DAY,
            "acute": (kind.notna() & ~kind.isin(PLANNED_ADMISSIONS)).to_numpy(dtype=bool),
            "oncology": services.groupby("row").text.last().reindex(samples.index).isin(ONCOLOGY_SERVICES),
            "comorbidity": _union(codes, samples.index),
            "procedure": samples.index.isin(procedures.row[procedures.time >= procedures.start]),
            "emergency_visits": _count(visits[~led], _HALF_YEAR, samples.index),
            "admissions": _count(earlier, _YEAR, samples.index),
        }
    )


def _stays(facts: pd.DataFrame, encounter: pd.Series, t: pd.Series) -> pd.DataFrame:
    """Return the stays that each sample sees, in the format of `read_stays`, with the sample as subject."""

    def of(kind: str, column: str) -> Any:
        return facts[facts.kind == kind].groupby(["row", "encounter_id"])[column]

    stays: pd.DataFrame = of("ADMISSION", "time").min().rename("admittime").to_frame()
    stays["dischtime"] = of("DISCHARGE", "time").max()
    stays["admission_type"] = of("ADMISSION_TYPE", "text").max()
    stays = stays.reset_index().rename(columns={"row": "subject_id"})
    # If the record lacks the end of the stay in question, the stay ends at the prediction time.
    own = stays.encounter_id == encounter.reindex(stays.subject_id).to_numpy()
    stays["dischtime"] = stays.dischtime.where(~own, stays.dischtime.fillna(stays.subject_id.map(t)))
    stays = stays[stays.dischtime > stays.admittime]
    for name in ("admittime", "dischtime"):
        stays[name] = pd.to_datetime(stays[name].astype(np.int64), unit="us")
    stays["summary_time"] = np.datetime64("NaT", "us")
    return stays.assign(died=False, delivery=False, surgical=False)


def _of(facts: pd.DataFrame, kind: str, start: pd.Series) -> pd.DataFrame:
    """Return the facts of a kind, each with the start of the sample's stay."""
    rows = facts[facts.kind == kind]
    return rows.assign(start=start.reindex(rows.row).to_numpy(dtype=np.int64))


def _count(rows: pd.DataFrame, span: int, index: pd.Index) -> pd.Series:
    """Return the number of rows of each sample in [start - span, start)."""
    inside = rows[(rows.time >= rows.start - span) & (rows.time < rows.start)]
    return inside.groupby("row").size().reindex(index, fill_value=0)


def _union(codes: pd.DataFrame, index: pd.Index) -> pd.Series:
    """Return the comorbidities of each sample, as bits."""
    bits = charlson.flags(codes.comorbidity.to_numpy())
    present = pd.DataFrame(bits).groupby(codes.row.to_numpy()).any().reindex(index, fill_value=False)
    return pd.Series(present.to_numpy(dtype=np.int64) @ (1 << np.arange(bits.shape[1])), index)


def _micros(times: pd.Series) -> np.ndarray:
    """Return microseconds since 1970; a missing time becomes the smallest integer."""
    micros: np.ndarray = times.to_numpy().astype("datetime64[us]").astype(np.int64)
    return micros
