"""PREDICTIONS of several models, and the other files of a run, from which tests make a report."""

import shutil

import numpy as np
import pandas as pd

from ehrdl.metrics.calibration import sigmoid
from ehrdl.quality import Finding
from ehrdl.tasks import Readmission

NOISE = {"fused": 0.35, "notes_only": 0.9, "series_only": 0.7, "gradient_boosting": 0.8, "logistic_regression": 0.9}
NOISE |= {"bag_of_words": 1.2, "tabular_and_words": 0.45, "random_forest": 0.75, "bayes": 0.0}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def fake_predictions(n_subjects=500, outputs=("readmission_30d",)):
    rng = np.random.default_rng(3)
    subject = np.repeat(np.arange(n_subjects) + 10_000_000, rng.integers(1, 4, n_subjects))
    n = len(subject)
    frailty = np.repeat(rng.normal(size=n_subjects), np.unique(subject, return_counts=True)[1])
    base = pd.DataFrame({"sample_id": np.arange(n), "subject_id": subject})
    base["prediction_time"] = pd.Timestamp("2150-01-01")
    base["split"] = "held_out"
    base["group_sex"] = rng.choice(["F", "M"], n)
    base["group_age_band"] = rng.choice(["18-44", "45-64", "65-79", "80+"], n)
    base["group_race"] = rng.choice(["WHITE", "BLACK", "ASIAN", "HISPANIC"], n, p=[0.7, 0.2, 0.07, 0.03])
    base.loc[rng.random(n) < 0.05, "group_race"] = None
    base["group_has_note"] = rng.choice(["yes", "no"], n, p=[0.9, 0.1])
    base["group_present"] = np.where(base["group_has_note"] == "yes", "notes and series", "series only")
    frames = []
    for output in outputs:
        risk = -2.4 + 1.0 * frailty + 0.5 * rng.normal(size=n)
        label = (rng.random(n) < sigmoid(risk)).astype(np.float32)
        label[:7] = np.nan
        for model, noise in {**NOISE, "prevalence": None}.items():
            for seed in (0, 1) if model in ("fused", "notes_only", "series_only") else (0,):
                prob = np.full(n, 0.14) if noise is None else sigmoid(risk + noise * rng.normal(size=n))
                rows = base.assign(model=model, seed=seed, output=output, label=label, prob=prob)
                frames.append(rows.assign(prob_calibrated=prob**1.1))
    return pd.concat(frames, ignore_index=True)


FLOW = {
    "steps": [
        {
            "step": "admissions",
            "rule": "all admissions with a discharge after their start",
            "admissions": 4012,
            "subjects": 2000,
        },
        {
            "step": "episode",
            "rule": "stays that follow on the same day are one episode",
            "admissions": 3890,
            "subjects": 2000,
        },
        {
            "step": "age",
            "rule": "at least 18 years old",
            "admissions": 3850,
            "subjects": 1990,
            "caveat": "12 % have no birth",
        },
        {"step": "alive", "rule": "left hospital alive", "admissions": 3600, "subjects": 1900},
    ],
    "notes": {
        "prevalence": {"all eligible": 0.1271, "without each patient's last admission (selects on the future)": 0.2213},
        "summary stored": {"by discharge": 900, "within 24 h": 2000, "later": 500, "never": 200},
        "caveats": ["Readmissions elsewhere <are invisible> & not counted."],
    },
    "caveats": ["This hospital has no emergency department."],
}
MANIFEST = {
    "ehrdl": "0.1.0",
    "git": "abc1234",
    "created": "2025-01-01T00:00:00",
    "task": "readmission",
    "task_info": vars(Readmission().info),
    "seeds": [0, 1],
    "wall_s": {"prepare": 31.2, "fit": 122.91},
    "versions": {"torch": "2.13.0", "python": "3.12.1"},
    "hardware": {"cpu": "4 cores", "memory_gib": 15.6},
    "source": {"class_path": "ehrdl.sources.synthetic.Synthetic", "init_args": {"n_patients": 2000}},
    "tables": {"hosp/labevents": 120_331},
    "missing": ["note/radiology: not in this source; radiology reports are not used"],
    "warnings": ["AUROC above 0.85 on MIMIC: probable leak <script>alert(1)</script>"],
    "data": {"n_samples": {"train": 2500, "tuning": 350, "held_out": 750}, "n_channels": 41, "truncated_samples": 3},
    "quality": [
        Finding("EVENTS", "ADMISSION_TYPE", "stays have an unknown word ('<b>')", 500, 1000, 0.05).to_dict(),
        Finding("series", "glucose", "values are left out", 3, 5000, 0.1).to_dict(),
    ],
}
CONFIG = {
    "task": {"class_path": "ehrdl.tasks.readmission.Readmission", "init_args": {"horizon_days": 30}},
    "seeds": [0, 1],
}
