"""How long it takes to import ehrdl, and to ask `train.py` for help: medians of several runs.

    python benchmarks/startup.py --json startup.json

`import_s` is the import alone; `help_s` the whole process, of which `python_s` is an interpreter that does nothing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import show

_ROOT = Path(__file__).resolve().parents[1]
_IMPORT = "import time; began = time.perf_counter(); import ehrdl; print(time.perf_counter() - began)"


def run(arguments: list[str]) -> tuple[float, str]:
    """Seconds and output of a process of this Python, in the repository."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=_ROOT, check=True, capture_output=True, text=True)
    return time.perf_counter() - began, done.stdout


def main() -> None:
    """Start, ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="of each kind, after one that is not counted")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"import_s": [], "help_s": [], "python_s": []}
    for _ in range(1 + options.runs):
        seconds["import_s"].append(float(run(["-c", _IMPORT])[1]))
        seconds["help_s"].append(run(["train.py", "--help"])[0])
        seconds["python_s"].append(run(["-c", ""])[0])
    found: dict[str, Any] = {"runs": options.runs}
    found |= {name: round(statistics.median(values[1:]), 4) for name, values in seconds.items()}
    show("startup", found, options.json)


if __name__ == "__main__":
    main()
