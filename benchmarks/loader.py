"""Samples/s from the store to collated batches, in one process; series alone, and with notes.

    python benchmarks/loader.py --mean-observations 200 --mean-tokens 2000 --json loader.json

writes a random cohort (`cohort.py`) into a temporary folder and reads it in the order of training. With
`--peer-python`, the Python of an environment that holds meds-torch-data 0.9, the same facts and samples are written as
MEDS, prepared by its own `MTD_preprocess`, and read by its own dataset and loader at the same longest sequence.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import cohort
import numpy as np
import torch
from cohort import Cohort, channel_specs
from measure import show

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import STATICS
from ehrdl.data.loading.chunks import Chunking
from ehrdl.data.loading.collate import Collate
from ehrdl.data.loading.sampler import LengthBuckets, Loader
from ehrdl.data.notes.store import Notes
from ehrdl.data.window import Window

_BATCH = 64
_WINDOW = Window(max_notes=64)
_FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=256)
_TOKENS_A_FACT = 0.2  # as ClinicalDataModule sorts samples by length
_PASSES = 3


def read(data: Cohort, notes: Notes | None, n_samples: int) -> dict[str, float]:
    """Samples/s and CPU seconds a thousand samples, the median of three passes; observations and tokens a sample."""
    static = np.zeros((len(data.samples), len(STATICS)), np.float32)
    dataset = SampleDataset(data.samples, static, data.store(), notes, _WINDOW, channel_specs())
    cost = dataset.n_tokens() + _TOKENS_A_FACT * dataset.n_observations()
    buckets = LengthBuckets(dataset.subject, cost, np.arange(len(dataset)), _BATCH, True, None, 0)
    loader = Loader(dataset, batch_sampler=buckets, collate_fn=Collate(notes, _FRAME if notes else None))
    passes = [_pass(loader, n_samples) for _ in range(_PASSES)]
    seen = {"observations": dataset.n_observations(), "tokens": dataset.n_tokens()}
    found = {name: statistics.median(one[name] for one in passes) for name in passes[0]}
    return found | {name: round(float(n.mean()), 1) for name, n in seen.items()}


def _pass(loader: Loader, n_samples: int) -> dict[str, float]:
    n_read = 0
    began, cpu = time.perf_counter(), time.process_time()
    while n_read < n_samples:  # epoch after epoch
        for batch in loader:
            n_read += batch.batch_size
            if n_read >= n_samples:
                break
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {"per_s": round(n_read / seconds), "cpu_s_per_1000": round(1000 * cpu_s / n_read, 4)}


def read_peer(data: Cohort, python: Path, n_samples: int) -> dict[str, float]:
    """The same through meds-torch-data."""
    meds, tensors = data.folder / "meds", data.folder / "tensors"
    cohort.write_meds(data, meds)
    began = time.perf_counter()
    _run(python.parent, ["MTD_preprocess", f"MEDS_dataset_dir={meds}", f"output_dir={tensors}"])
    prepared_s = time.perf_counter() - began
    reader = Path(__file__).with_name("peer.py")
    where = ["--cohort", tensors, "--labels", meds / "labels"]
    sizes = ["--length", _WINDOW.max_observations, "--batch", _BATCH, "--samples", n_samples]
    found = json.loads(_run(python.parent, [python, reader, *where, *sizes]).splitlines()[-1])
    return {
        "per_s": round(found["samples"] / found["seconds"]),
        "cpu_s_per_1000": round(1000 * found["cpu_s"] / found["samples"], 4),
        "observations": round(found["observations"] / found["samples"], 1),
        "prepare_s": round(prepared_s, 1),
    }


def _run(programs: Path, command: list[Any]) -> str:
    """What a command of the other environment prints; its programs call each other by name."""
    names = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    names["PATH"] = f"{programs}{os.pathsep}{names.get('PATH', '')}"
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=names)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """Write a cohort, read it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mean-observations", type=int, default=200, help="a sample")
    parser.add_argument("--mean-tokens", type=int, default=2000, help="of notes, a sample")
    parser.add_argument("--subjects", type=int, default=20_000, help="one sample each")
    parser.add_argument("--samples", type=int, default=60_000, help="read a pass")
    parser.add_argument("--peer-python", type=Path, help="of an environment with meds-torch-data 0.9")
    parser.add_argument("--peer-samples", type=int, default=5_000, help="read through the peer")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    if options.peer_python and not (options.peer_python.parent / "MTD_preprocess").is_file():
        parser.error(f"--peer-python {options.peer_python}: no MTD_preprocess beside it; install meds-torch-data there")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ehrdl-loader-") as folder:
        data = cohort.write(Path(folder), options.subjects, options.mean_observations, options.mean_tokens)
        found: dict[str, Any] = {"samples": options.samples}
        kinds = {"series": read(data, None, options.samples), "both": read(data, data.notes(), options.samples)}
        if options.peer_python:
            kinds["peer"] = read_peer(data, options.peer_python.absolute(), options.peer_samples)
    found |= {f"{kind}_{name}": value for kind, numbers in kinds.items() for name, value in numbers.items()}
    if "peer" in kinds:
        found["cpu_ratio"] = round(kinds["series"]["cpu_s_per_1000"] / kinds["peer"]["cpu_s_per_1000"], 4)
    show("loader", found, options.json)


if __name__ == "__main__":
    main()
