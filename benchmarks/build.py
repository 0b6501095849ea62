"""Raw tables to EVENTS, series store and notes: rows/s and peak memory; then tokens/s of the tokenising step.

    python benchmarks/build.py --rows 30000000 --json build.json

writes a hospital of about so many raw rows in MIMIC-IV's layout and proportions (`hospital.py`) into a temporary
folder, unless `--root` names one that was written before, and builds it with an empty cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hospital
from measure import PeakMemory, disk_mb, show

from ehrdl.data.config import DataConfig
from ehrdl.data.notes import store as notes
from ehrdl.data.notes import vocabulary as vocab
from ehrdl.data.prepare import build_store, load_concepts, read_events
from ehrdl.data.prepare_notes import collect_notes, tokenized
from ehrdl.engine.options import Prepare
from ehrdl.schema import TRAIN
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.splits.subjects import Split, assign

_NOTES_FITTED = 20_000


@dataclass(frozen=True)
class Timed:
    """Seconds of a step, and the most memory that the whole process tree took in it."""

    seconds: float
    peak_mb: float


def build(data: DataConfig) -> tuple[dict[str, Any], Path]:
    """EVENTS, series store and notes of `data`, timed step by step; the folder of EVENTS."""
    steps: dict[str, Timed] = {}

    def timed(name: str, step: Any) -> Any:
        began = time.perf_counter()
        with PeakMemory() as memory:
            found = step()
        steps[name] = Timed(time.perf_counter() - began, memory.peak_mb)
        return found

    events = timed("events", lambda: read_events(data))
    timed("series", lambda: build_store(data, events, load_concepts(data)))
    timed("notes", lambda: collect_notes(data, events))
    found: dict[str, Any] = {f"{name}_s": round(step.seconds, 1) for name, step in steps.items()}
    found |= {f"{name}_peak_mb": round(step.peak_mb) for name, step in steps.items()}
    found["wall_s"] = round(sum(step.seconds for step in steps.values()), 1)
    found["peak_mb"] = round(max(step.peak_mb for step in steps.values()))
    return found, events


def tokenise(data: DataConfig, events: Path, folder: Path) -> dict[str, Any]:
    """Tokens/s of all notes under a WordPiece tokenizer that was fitted on some of them; the fit is not timed."""
    opened = notes.open_notes(collect_notes(data, events)[0])
    subjects = opened.subjects[assign(opened.subjects, Split()) == TRAIN]
    few = subjects[: max(1, len(subjects) * _NOTES_FITTED // max(len(opened), 1))]
    folder.mkdir()
    vocab.fit_tokenizer(opened, few, data.notes.vocab_size, folder, min_patients=1)  # few may be fewer than ten
    began = time.perf_counter()
    with PeakMemory() as memory:
        words, _ = tokenized(data, events, str(folder))
    seconds = time.perf_counter() - began
    n_tokens = int(words.tokens.lengths.sum())
    return {
        "tokens": n_tokens,
        "tokens_per_s": round(n_tokens / seconds),
        "tokens_peak_mb": round(memory.peak_mb),
    }


def main() -> None:
    """Write a hospital, build it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="raw rows of all tables, about")
    parser.add_argument("--root", type=Path, help="where the hospital is, or is written and left")
    parser.add_argument("--workers", type=int, help="processes; default one a core")
    parser.add_argument("--memory-gb", type=float, default=Prepare().memory_gb, help="as data.prepare.memory_gb")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ehrdl-build-") as folder:
        root = options.root or Path(folder) / "hospital"
        raw = hospital.write(root, options.rows)
        prepare = Prepare(cache=f"{folder}/cache", workers=options.workers, memory_gb=options.memory_gb)
        data = DataConfig(Mimic4(str(root)), prepare=prepare)
        found, events = build(data)
        found = {"rows": raw.rows, "raw_mb": round(raw.bytes / 1e6)} | found
        found["rows_per_s"] = round(raw.rows / found["wall_s"])
        found["disk_mb"] = disk_mb(Path(prepare.cache))
        found |= tokenise(data, events, Path(folder) / "tokenizer")
    show("build", found, options.json)


if __name__ == "__main__":
    main()
