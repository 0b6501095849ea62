"""The first-day signs of heart failure in the synthetic hospital, for the task of early diagnosis.

A patient admitted with heart failure has a heart failure code as the principal diagnosis. Within hours of admission,
such patients more often have NT-proBNP measured than others, and have higher values. They also more often have a chest
film that shows heart failure. Other patients with a chest complaint are tested too. As secondary diagnoses, heart
failure codes occur by chance, without any of these signs. The reason for admission does not depend on the latent states
of `risk`, so none of this changes the risk of readmission.

The blood test and the chest film are drawn separately. The probability of each in the first 10 h is 0.60 with heart
failure, 0.45 with another chest complaint and 0.08 otherwise. NT-proBNP is log-normal. Its median is 3,400 pg/mL with
heart failure (log sd 0.8) and 380 pg/mL otherwise (log sd 1.1). The numbers are invented, but of the size seen in
emergency departments.
"""

import random
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.simulator.illness import CONDITIONS
from ehrdl.simulator.risk import Ints
from ehrdl.simulator.stays import HOUR

NT_PROBNP = 50963
_FAILURE = "heart failure"
_CHEST = ("dyspnea", "shortness of breath", "cough, fever", "palpitations", "chest pain")
_P_TESTED = (0.08, 0.45, 0.60)  # other, chest complaint, heart failure
_MEDIAN, _LOG_SD = (380.0, 380.0, 3400.0), (1.1, 1.1, 0.8)
_STUDY = "CHEST (PA AND LAT)"
_FINDINGS = (
    "Mild pulmonary edema.",
    "Interstitial edema with cephalization.",
    "Cardiomegaly with vascular congestion.",
    "Bilateral effusions, fluid overload.",
    "Kerley B lines are seen.",
    "Enlarged cardiac silhouette.",
)
_NOTHING = (
    "No pulmonary edema.",
    "No evidence of volume overload.",
    "Cardiac silhouette is normal.",
    "No effusion or congestion.",
    "Heart is not enlarged.",
    "Edema seen on prior has resolved.",
)


def kind(conditions: Ints, episode: Ints) -> Ints:
    """Return the kind of each stay, by its reason for admission: 0 other, 1 chest complaint, 2 heart failure.

    Args:
        conditions: the reason for admission of each episode, as a row number of `CONDITIONS`.
        episode: the episode of each stay, as a row number of `conditions`.
    """
    failure = np.array([condition.name == _FAILURE for condition in CONDITIONS])
    chest = np.array([condition.complaint in _CHEST for condition in CONDITIONS])
    of_condition = np.where(failure, 2, np.where(chest, 1, 0))
    return np.asarray(of_condition[conditions[episode]])


def labs(rng: np.random.Generator, stays: pd.DataFrame, kinds: Ints) -> dict[str, Any]:
    """Draw the rows of NT-proBNP for the table labevents, at most one per stay.

    The rows have no labevent_id yet. specimen_id numbers the blood samples from 0.
    """
    tested = np.flatnonzero((rng.random(len(stays)) < np.array(_P_TESTED)[kinds]) & stays["labs"].to_numpy())
    group = kinds[tested]
    value = np.rint(np.exp(np.log(_MEDIAN)[group] + np.array(_LOG_SD)[group] * rng.standard_normal(len(tested))))
    value = np.clip(value, 5, 70_000)
    charttime = stays["start"].to_numpy()[tested] + rng.integers(10, 10 * HOUR, len(tested))
    return {
        "subject_id": stays["subject_id"].to_numpy()[tested],
        "hadm_id": stays["hadm_id"].to_numpy()[tested],
        "specimen_id": np.arange(len(tested)),
        "itemid": np.full(len(tested), NT_PROBNP),
        "charttime": charttime,
        "storetime": charttime + rng.integers(HOUR // 2, 3 * HOUR, len(tested)),
        "value": np.char.mod("%d", value.astype(np.int64)).astype(object),
        "valuenum": value,
        "valueuom": np.full(len(tested), "pg/mL", dtype=object),
        "ref_range_lower": np.zeros(len(tested)),
        "ref_range_upper": np.full(len(tested), 450.0),
        "flag": np.array([None, "abnormal"], dtype=object)[(value > 450).astype(np.int64)],
        "priority": np.full(len(tested), "STAT", dtype=object),
    }


def films(rng: np.random.Generator, stays: pd.DataFrame, conditions: Ints, kinds: Ints) -> dict[str, Any]:
    """Draw the reports of chest films from the first hours of stays.

    Returns:
        One value per film in each column: stay (a row number of `stays`), charttime, storetime and text.
    """
    made = np.flatnonzero(rng.random(len(stays)) < np.array(_P_TESTED)[kinds])
    charttime = stays["start"].to_numpy()[made] + rng.integers(10, 10 * HOUR, len(made))
    pick = random.Random(int(rng.integers(2**62)))
    female = stays["female"].to_numpy()[made].tolist()
    complaint = [CONDITIONS[row].complaint for row in conditions[stays["episode"].to_numpy()[made]]]
    texts = [_film(pick, *about) for about in zip(kinds[made].tolist(), female, complaint, strict=True)]
    return {
        "stay": made,
        "charttime": charttime,
        "storetime": charttime + rng.integers(HOUR // 2, 4 * HOUR, len(made)),
        "text": texts,
    }


def _film(pick: random.Random, group: int, female: bool, complaint: str) -> str:
    shown = pick.random() < (0.8 if group == 2 else 0.08)  # a film can miss heart failure, or show it wrongly
    found = " ".join(pick.sample(_FINDINGS if shown else _NOTHING, 2))
    who = "woman" if female else "man"
    impression = "Findings consistent with heart failure." if shown else "No acute cardiopulmonary process."
    return (
        f"EXAMINATION:  {_STUDY}\n\nINDICATION:  ___ year old {who} with {complaint}\n\n"
        f"FINDINGS: \n{found}\n\nIMPRESSION: \n{impression}\n"
    )
