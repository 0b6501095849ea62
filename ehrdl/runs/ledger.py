"""Records how a run's settings were chosen, and which other settings were scored on its held-out samples.

A run writes two entries into its manifest. `choices` records on which samples each choice was made. `held_out` records
which samples were held out, and which other settings had been scored on them before. The latter come from the ledger, a
file beside the runs. A results table needs this evidence: whoever fits ten models, looks at ten held-out scores and
shows one has chosen by those scores, even if the config does not record it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.engine.files import digest
from ehrdl.schema import HELD_OUT, TRAIN, TUNING

#: The ledger: one line per finished run, in the folder that holds the runs.
LEDGER = ".held_out.jsonl"
#: Keys on the place of a run, its subjects and its repetitions. All other keys of a configuration are its settings.
_NOT_SETTINGS = ("run", "seeds", "data", "baselines", "logger", "tune", "report")
_NOT_DATA = ("source", "split", "prepare")


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that a user could choose by its score.

    The data source, the split and the seeds are left out.
    """
    data = {key: value for key, value in (config.get("data") or {}).items() if key not in _NOT_DATA}
    rest = {key: value for key, value in config.items() if key not in _NOT_SETTINGS and value != {}}
    return rest | {"data": data}


def subjects_digest(samples: pd.DataFrame, split: str) -> str:
    """Hash the set of subjects in one split of the SAMPLES table. The order of the rows does not count."""
    return digest(np.unique(samples.subject_id[samples.split == split]).tolist())


def asked_digest(samples: pd.DataFrame, outputs: Iterable[str]) -> str:
    """Hash what is predicted: the outputs, and the subject and prediction time of every sample in all splits.

    The hash identifies data better than the name of the EVENTS folder. That name changes with the number of shards, and
    when files are copied. Labels are not hashed: a study of `ehrdl tune` records the hash, and must not depend on
    labels of held-out samples.

    Args:
        samples: the SAMPLES table, in any order.
        outputs: the names of the outputs.
    """
    time = samples["prediction_time"].to_numpy("datetime64[us]").astype("<i8")
    rows = np.column_stack([samples["subject_id"].to_numpy("<i8"), time])
    rows = rows[np.lexsort(rows.T[::-1])]
    return digest([sorted(outputs), hashlib.sha256(rows.tobytes()).hexdigest()])


def same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two records of runs are of the same data: the same EVENTS folder, or the same `asked_digest`.

    The folder counts because older versions recorded only the folder. It also counts because a user may choose a cohort
    by its score, and two cohorts from one folder have different digests.
    """
    asked = one.get("asked")
    return one["events"] == other["events"] or (asked is not None and asked == other.get("asked"))


def choices(config: dict[str, Any]) -> dict[str, Any]:
    """Return on which split a run fitted its models, and selected epochs, baselines and calibrations.

    The entry `epoch` is `none` if training has a fixed schedule. The entry `tuned` has the choices of `ehrdl tune`, one
    mapping per study.
    """
    tuned = (config.get("tune") or {}).get("chosen") or []
    selection = (config.get("optim") or {}).get("selection")
    epoch = {"averaged": "none", "best_tuning": TUNING}.get(str(selection), str(selection))
    return {"fitted": TRAIN, "epoch": epoch, "baselines": TUNING, "calibration": TUNING, "tuned": tuned}


def held_out(
    folder: Path, config: dict[str, Any], events: str, task: str, samples: pd.DataFrame, outputs: Iterable[str]
) -> dict[str, Any]:
    """Return a record of the run and its held-out subjects, and of other runs that were scored on the same data.

    Args:
        folder: the run's folder; the ledger is beside it.
        config: the resolved configuration.
        events: the name of the EVENTS folder.
        task: the name of the task.
        samples: the SAMPLES table, with the split of each sample.
        outputs: the names of the outputs.

    Returns:
        The record of this run: `run`, `events`, `asked` (from `asked_digest`), `task`, `settings` (a hash), `seeds` and
        `subjects` (a hash of the held-out subjects). `others` has the ledger's records of runs with the same data and
        task, but other settings, seeds or held-out subjects.
    """
    own = {
        "run": folder.name,
        "events": events,
        "asked": asked_digest(samples, outputs),
        "task": task,
        "settings": digest(settings(config)),
        "seeds": list(config["seeds"]),
        "subjects": subjects_digest(samples, HELD_OUT),
    }
    same = [row for row in read_ledger(folder.parent) if row["task"] == task and same_data(row, own)]
    others = [row for row in same if any(row[key] != own[key] for key in ("settings", "seeds", "subjects"))]
    return own | {"others": others}


def read_ledger(root: Path) -> list[dict[str, Any]]:
    """Read the ledger: the records of all runs finished in the folder `root`, even if replaced or deleted since."""
    path = root / LEDGER
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # its process was killed while writing the line
            continue
        rows.append(row)
    return rows


def enter(root: Path, own: dict[str, Any]) -> None:
    """Add the record of a run to the ledger in the folder `root`, unless it is there already.

    Args:
        root: the folder of the runs.
        own: the record from `held_out`; `others` is left out.
    """
    row = {key: value for key, value in own.items() if key != "others"}
    if row in read_ledger(root):
        return
    line = "\n" + json.dumps(row, sort_keys=True)  # the newline first, to end a line that a kill cut short
    descriptor = os.open(root / LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
