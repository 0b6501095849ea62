"""What chose a run's settings, and which others were scored on its held-out samples: evidence for a results table.

A run writes two things into its manifest. `choices` says on which samples each of its choices was made. `held_out` says
which samples were held out and, by a ledger beside the runs, which other settings had been scored on them before: who
fits ten models, looks at ten held-out scores and shows one has chosen by them, whatever the config says.
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

#: One line a finished run, in the folder that holds the runs.
LEDGER = ".held_out.jsonl"
#: What says who runs where, on whom and how often; the rest of a configuration are its settings.
_NOT_SETTINGS = ("run", "seeds", "data", "baselines", "logger", "tune", "report")
_NOT_DATA = ("source", "split", "prepare")


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """What of a resolved configuration could be chosen by a score: not whose data, which split, which seeds."""
    data = {key: value for key, value in (config.get("data") or {}).items() if key not in _NOT_DATA}
    rest = {key: value for key, value in config.items() if key not in _NOT_SETTINGS and value != {}}
    return rest | {"data": data}


def subjects_digest(samples: pd.DataFrame, split: str) -> str:
    """A hash of the subjects of a split; the same for the same patients, however their samples are stored."""
    return digest(np.unique(samples.subject_id[samples.split == split]).tolist())


def asked_digest(samples: pd.DataFrame, outputs: Iterable[str]) -> str:
    """A hash of what was asked of whom and when: outputs, and subject and prediction time of the samples of all splits.

    It tells data apart where the EVENTS folder cannot, whose name changes with shards, copied files and their times.
    Labels are not in it: a study, which carries it, must not depend on those of held-out samples.

    Args:
        samples: SAMPLES, in any order.
        outputs: names of what is predicted.
    """
    time = samples["prediction_time"].to_numpy("datetime64[us]").astype("<i8")
    rows = np.column_stack([samples["subject_id"].to_numpy("<i8"), time])
    rows = rows[np.lexsort(rows.T[::-1])]
    return digest([sorted(outputs), hashlib.sha256(rows.tobytes()).hexdigest()])


def same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records are of the same data: of one EVENTS folder, or, where both know, the same was asked.

    The folder still counts: older versions recorded nothing else, and a cohort may be chosen by its score as well.
    """
    asked = one.get("asked")
    return one["events"] == other["events"] or (asked is not None and asked == other.get("asked"))


def choices(config: dict[str, Any]) -> dict[str, Any]:
    """On which samples a run's choices were made: `none` where the schedule is fixed, else the split.

    `tuned` has what `ehrdl tune` chose, a mapping a study.
    """
    tuned = (config.get("tune") or {}).get("chosen") or []
    selection = (config.get("optim") or {}).get("selection")
    epoch = {"averaged": "none", "best_tuning": TUNING}.get(str(selection), str(selection))
    return {"fitted": TRAIN, "epoch": epoch, "baselines": TUNING, "calibration": TUNING, "tuned": tuned}


def held_out(
    folder: Path, config: dict[str, Any], events: str, task: str, samples: pd.DataFrame, outputs: Iterable[str]
) -> dict[str, Any]:
    """Who was held out, and what the ledger knows of them.

    Args:
        folder: of the run; the ledger is beside it.
        config: the resolved configuration.
        events: name of the EVENTS folder.
        task: name of the task.
        samples: SAMPLES with their split.
        outputs: names of what is predicted.

    Returns:
        `events`, `asked` (`asked_digest`), `task`, `settings` (a hash) and `seeds` of this run, `subjects`: a hash of
        those held out, and `others`: what the ledger has of other settings, seeds or splits with the same data and
        task.
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
    """The runs that were ever finished in a folder of runs, those too that have been replaced or deleted since."""
    path = root / LEDGER
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the process that wrote it was killed in the line
            continue
        rows.append(row)
    return rows


def enter(root: Path, own: dict[str, Any]) -> None:
    """Add a run to the ledger, in one write; a run that is there already is not added twice."""
    row = {key: value for key, value in own.items() if key != "others"}
    if row in read_ledger(root):
        return
    line = "\n" + json.dumps(row, sort_keys=True)  # first the newline: a line that a kill cut short ends there
    descriptor = os.open(root / LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
