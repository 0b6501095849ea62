#!/usr/bin/env bash
# torchmetrics 1.9.0: the average precision of labels without a single positive is -0.0. It is unknown: a mean over outputs that takes it in,
# such as the score that chooses an epoch, is pulled down by an output that nobody could have ranked.
# Seen: -0.0 with ignore_index, the sign included, though the warning beside it says that recall was set to one.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import math

import torch
from torchmetrics.classification import BinaryAveragePrecision

metric = BinaryAveragePrecision(ignore_index=-1)
metric.update(torch.tensor([0.2, 0.7, 0.4]), torch.tensor([0, 0, -1]))
value = float(metric.compute())
print("average precision without a positive:", value)
assert value == 0 and math.copysign(1, value) == -1, "torchmetrics has changed"
PY
