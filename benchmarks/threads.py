"""How much slower a fit is beside processes that keep the cores busy: medians of runs, quiet and loaded in turn.

    python benchmarks/threads.py --json threads.json
    python benchmarks/threads.py --spin 300000     # as OpenMP waits where nothing tells it otherwise

The load is made here: `--busy` processes that only count. Each fit has a process of its own. `quiet_s` and `loaded_s`
are seconds of the fit alone, `ratio` is loaded by quiet. With as many busy processes as cores a fit has half of them,
so 2 is what a fair share gives.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import show

_ROOT = Path(__file__).resolve().parents[1]
_FITS = {
    "gradient_boosting": """
from ehrdl.models.baselines.tabular import candidates
made = candidates("gradient_boosting", 0)[1]
def fit():
    made.fit(table, label)
""",
    "lightgbm": """
from ehrdl.models.baselines.boosted import LIBRARIES
made = LIBRARIES["lightgbm"]
parts = made.bin((table, label), (table[:2000], label[:2000]))
def fit():
    made.fit(dict(made.first), *parts, "binary", 0)
""",
    "xgboost": """
from ehrdl.models.baselines.boosted import LIBRARIES
made = LIBRARIES["xgboost"]
parts = made.bin((table, label), (table[:2000], label[:2000]))
def fit():
    made.fit(dict(made.first), *parts, "binary", 0)
""",
    "torch": """
import torch
gru, head = torch.nn.GRU(40, 64, batch_first=True), torch.nn.Linear(64, 1)
optimizer = torch.optim.AdamW([*gru.parameters(), *head.parameters()])
x, y = torch.randn(64, 60, 40), torch.rand(64, 1).round()
def fit():
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(gru(x)[0][:, -1]), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
""",
}
_PROBE = """
import time
import ehrdl
import numpy as np
import pandas as pd
rng = np.random.default_rng(0)
table = pd.DataFrame(rng.normal(size=({rows}, 40))).rename(columns=lambda i: f"x{{i}}")
label = (table.x0 + table.x1 * table.x2 + rng.normal(size={rows}) > 1).astype(float)
{fit}
began = time.perf_counter()
fit()
print(time.perf_counter() - began)
"""


def seconds(name: str, rows: int, spin: int | None) -> float:
    """Seconds of one fit, in a process of its own."""
    environment = dict(os.environ) | ({} if spin is None else {"GOMP_SPINCOUNT": str(spin)})
    code = _PROBE.format(rows=rows, fit=_FITS[name])
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=_ROOT, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Processes beside us that use a core each."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Quiet and loaded seconds of a fit, and their ratio."""
    quiet, loaded = [], []
    for _ in range(options.runs):
        quiet.append(seconds(name, options.rows, options.spin))
        with busy(options.busy):
            loaded.append(seconds(name, options.rows, options.spin))
    alone, beside = statistics.median(quiet), statistics.median(loaded)
    return {"quiet_s": round(alone, 3), "loaded_s": round(beside, 3), "ratio": round(beside / alone, 2)}


def main() -> None:
    """Fit, load, fit, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", nargs="+", default=list(_FITS), choices=_FITS, metavar="FIT", help=", ".join(_FITS))
    parser.add_argument("--runs", type=int, default=3, help="of each kind")
    parser.add_argument("--rows", type=int, default=20_000, help="of the table")
    parser.add_argument("--busy", type=int, default=2, help="processes that make the load")
    parser.add_argument("--spin", type=int, help="GOMP_SPINCOUNT; by default ehrdl's own setting")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    found: dict[str, Any] = {"runs": options.runs, "rows": options.rows, "busy": options.busy}
    for name in options.fits:
        found |= {f"{name}_{key}": value for key, value in measure(name, options).items()}
    show("threads", found, options.json)


if __name__ == "__main__":
    main()
