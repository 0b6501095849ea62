#!/usr/bin/env bash
# dcurves 1.1.7 and statkit 1.1.0 give another net benefit for the same predictions: a risk equal to the threshold is an alarm for dcurves and
# none for statkit. A score of few values, such as LACE, puts many patients at exactly the threshold.
# Seen: 100 patients, half of them at a risk of 0.2 (20 with the outcome). At a threshold of 0.2, dcurves says 0.125 and statkit 0.0.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q dcurves==1.1.7 statkit==1.1.0
"$work/venv/bin/python" -W ignore - <<'PY'
import dcurves
import numpy as np
import pandas as pd
from statkit.decision import net_benefit

label = np.repeat([1, 0, 1, 0], [20, 30, 10, 40])
risk = np.repeat([0.2, 0.2, 0.1, 0.1], [20, 30, 10, 40])
table = dcurves.dca(data=pd.DataFrame({"y": label, "risk": risk}), outcome="y", modelnames=["risk"], thresholds=[0.2])
one = float(table.loc[table.model == "risk", "net_benefit"].iloc[0])
other = float(net_benefit(label, risk, thresholds=np.array([0.2]))[1][0])
print("net benefit at 0.2: dcurves", round(one, 6), "statkit", round(other, 6))
assert abs(one - 0.125) < 1e-9 and abs(other) < 1e-9, "dcurves or statkit has changed"
PY
