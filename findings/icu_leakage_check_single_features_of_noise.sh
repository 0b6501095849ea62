#!/usr/bin/env bash
# icu-leakage-check 0.1.0 reports leakage in pure noise: its check of single features needs 30 rows with a value, and no number of events.
# A laboratory value that 40 patients have, one of whom had the outcome, separates them "perfectly" wherever that one is highest or lowest.
# Seen: 1,000 patients, 2.5 % with the outcome, 200 random columns that 5 % of them have: the verdict is "Leakage detected" (4 columns at an AUROC of 1.0).
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q icu-leakage-check==0.1.0 numpy==2.4.6 pandas==3.1.1 scikit-learn==1.9.1
"$work/venv/bin/python" - <<'PY'
import numpy as np
import pandas as pd
from icu_leakage_check import audit

draw = np.random.default_rng(0)
n = 1000
noise = np.where(draw.random((n, 200)) < 0.05, draw.standard_normal((n, 200)), np.nan)
table = pd.DataFrame(noise, columns=[f"lab_{i}" for i in range(200)])
table = table.assign(label=(draw.random(n) < 0.025).astype(int), split=np.where(draw.random(n) < 0.8, "train", "test"))
found = audit(table.assign(patient=np.arange(n)), label="label", split="split", patient_id="patient").to_frame()
failed = found[(found.check_id == "single_feature_dominance") & (found.status == "fail")]
print(*failed.message, sep="\n")
assert len(failed) == 1, "icu-leakage-check has changed"
PY
