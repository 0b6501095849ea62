"""kill -9 at random moments of `ehrdl prepare`, then the same command: does it end byte for byte as if undisturbed?

    python benchmarks/crash.py --kills 20 --json crash.json

writes a synthetic hospital, prepares it once undisturbed, and then once for every kill in a cache of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import show

from ehrdl.sources.synthetic import write_hospital

_CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
_SECONDS_A_LOOK = 0.02


def command(hospital: Path, cache: Path, workers: int) -> list[str]:
    """`ehrdl prepare` of a hospital with a cache."""
    return [
        sys.executable,
        "-c",
        "from ehrdl.cli.main import main; main()",
        "prepare",
        f"--config={_CONFIG}",
        "--data.source=ehrdl.sources.mimic4.source.Mimic4",
        f"--data.source.root={hospital}",
        f"--data.prepare.cache={cache}",
        f"--data.prepare.workers={workers}",
    ]


def undisturbed(build: list[str], cache: Path) -> tuple[float, float]:
    """Seconds until the first file stands in the cache, and until the end."""
    began = time.monotonic()
    with subprocess.Popen(build, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not cache.exists() and process.poll() is None:
            time.sleep(_SECONDS_A_LOOK)
        first = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"the undisturbed build failed: {' '.join(build)}")
    return first, time.monotonic() - began


def killed(build: list[str], after: float) -> bool:
    """Start the build and kill it after so many seconds; whether it had not ended by then."""
    process = subprocess.Popen(build, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def contents(cache: Path) -> dict[str, str]:
    """The hash of every file under a cache, hidden ones too, but for the locks."""
    files = [path for path in cache.rglob("*") if path.is_file() and path.parent.name != ".locks"]
    return {str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def crash(folder: Path, patients: int, kills: int, workers: int, seed: int) -> dict[str, Any]:
    """Kill as many builds, go on with each, and count those that end equal to an undisturbed one."""
    hospital = folder / "hospital"
    write_hospital(hospital, n_patients=patients, seed=seed, progress=False)
    first, last = undisturbed(command(hospital, folder / "whole", workers), folder / "whole")
    whole = contents(folder / "whole")
    draw = random.Random(seed)
    equal = 0
    for i in range(kills):
        cache = folder / f"killed-{i}"
        build = command(hospital, cache, workers)
        while not killed(build, draw.uniform(first, last)):  # it had ended: the machine is faster now
            shutil.rmtree(cache)
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        equal += contents(cache) == whole
        shutil.rmtree(cache)
    return {"kills": kills, "equal": equal, "undisturbed_s": round(last, 1)}


def main() -> None:
    """Print a table; exit status 1 where a build ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--patients", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ehrdl-crash-") as folder:
        found = crash(Path(folder), options.patients, options.kills, options.workers, options.seed)
    show("crash", found, options.json)
    raise SystemExit(found["equal"] != found["kills"])


if __name__ == "__main__":
    main()
