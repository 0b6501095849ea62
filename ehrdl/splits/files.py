"""Reads a published split from train.txt, tuning.txt and held_out.txt.

Each line of a file is the name of one record, as the publisher of the data writes it. A record belongs to one subject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ehrdl.engine.paths import expanded
from ehrdl.errors import ConfigError, LeakageError, SchemaError
from ehrdl.schema import SPLITS

_KEY = "data.split.files"


@dataclass(frozen=True)
class SplitFiles:
    """The content of train.txt, tuning.txt and held_out.txt.

    Attributes:
        folder: the folder that holds the files.
        subjects: for each split, the subject_id of each record in its file, in the file's order.
        names: for each split, the names of the same records as written in its file, in the same order.
        sha256: for each split, the SHA-256 hash of its file.
    """

    folder: Path
    subjects: dict[str, np.ndarray]
    names: dict[str, list[str]]
    sha256: dict[str, str]

    def split_of(self) -> pd.Series:
        """Return the name of each subject's split, indexed by subject_id."""
        names = [name for name, ids in self.subjects.items() for _ in ids]
        return pd.Series(names, np.concatenate(list(self.subjects.values())), dtype=object)


def read_split_files(folder: str, subject_of: Callable[[str], int]) -> SplitFiles:
    """Read and check train.txt, tuning.txt and held_out.txt. Empty lines are skipped.

    Args:
        folder: the folder that holds train.txt, tuning.txt and held_out.txt.
        subject_of: a function that returns the subject_id of a record, given its name. It raises ValueError if no
            record can have the name.

    Raises:
        ConfigError: the folder or a file is missing, a file is empty or not text, or a line is not a record's name. It
            is also raised if two lines of a file name the same record.
        LeakageError: a record is in two files.
    """
    root = expanded(folder)
    if not root.is_dir():
        raise ConfigError(f"{_KEY}: the folder {folder} does not exist; give one that holds train.txt and so on")
    subjects: dict[str, np.ndarray] = {}
    names: dict[str, list[str]] = {}
    sha256: dict[str, str] = {}
    where: dict[int, tuple[Path, int]] = {}
    for split in SPLITS:
        file = root / f"{split}.txt"
        lines = _lines(file)
        ids = [_subject(file, number, name, subject_of, where) for number, name in lines]
        if not ids:
            raise ConfigError(f"{file}: lists no record; a split needs somebody in each of its files")
        subjects[split], names[split] = np.array(ids, np.int64), [name for _, name in lines]
        sha256[split] = hashlib.sha256(file.read_bytes()).hexdigest()
    return SplitFiles(root, subjects, names, sha256)


def _subject(
    file: Path, number: int, name: str, subject_of: Callable[[str], int], where: dict[int, tuple[Path, int]]
) -> int:
    """Return the subject of a line, and note the line in `where`; refuse a subject that is already listed there."""
    try:
        subject = subject_of(name)
    except ValueError:
        raise ConfigError(f"{file}: line {number}: {name[:40]!r} is not the name of a record") from None
    if subject in where:
        other, line = where[subject]
        if other == file:
            raise ConfigError(f"{file}: line {number}: record {name} stands in line {line} already")
        raise LeakageError(f"{file}: line {number}: record {name} stands in {other.name}, line {line}, too")
    where[subject] = file, number
    return subject


def _lines(file: Path) -> list[tuple[int, str]]:
    """Return the number and text of each line that is not empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{_KEY}: {file} is missing; it lists one record a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_KEY}: {file} cannot be read as text ({error})") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def split_by_files(samples: pd.DataFrame, files: SplitFiles, known: np.ndarray) -> tuple[pd.Series, dict[str, Any]]:
    """Assign each sample to the split that lists its subject.

    Args:
        samples: the SAMPLES table without a split.
        files: the subjects of each split, from `read_split_files`.
        known: (n,) subject_id of all subjects in the data.

    Returns:
        The name of each sample's split, missing if its subject is in no file; and a dict for the run's manifest. The
        dict has the hashes of the files, and the numbers of records and samples that are left out.

    Raises:
        SchemaError: a file lists no subject that has a sample.
    """
    split = samples.subject_id.map(files.split_of())
    facts: dict[str, Any] = {"kind": "files", "folder": str(files.folder), "sha256": files.sha256}
    facts["listed"] = {name: len(ids) for name, ids in files.subjects.items()}
    unknown: list[str] = []
    without = 0
    for name, ids in files.subjects.items():
        is_known, sampled = np.isin(ids, known), np.isin(ids, samples.subject_id)
        if not sampled.any():
            raise SchemaError(
                f"{_KEY}: {files.folder / name}.txt: none of its {len(ids):,} records has a sample here "
                f"({int(is_known.sum()):,} of them are in the data); are these the files of another data set?"
            )
        unknown += [record for record, here in zip(files.names[name], is_known, strict=True) if not here]
        without += int((is_known & ~sampled).sum())
    facts |= {"unknown_records": len(unknown), "first_unknown": unknown[0] if unknown else None}
    return split, facts | {"records_without_sample": without, "dropped_in_no_file": int(split.isna().sum())}


def describe_split_files(facts: dict[str, Any]) -> str:
    """Describe in one line how many records the split files list, and how many records and samples are left out.

    Args:
        facts: the dict that `split_by_files` returned.
    """
    listed = ", ".join(f"{name} {n:,}" for name, n in facts["listed"].items())
    parts = [f"split of {facts['folder']}: {listed} records"]
    if n := facts["unknown_records"]:
        parts.append(f"{n:,} of them are not in the data, such as {facts['first_unknown']}")
    if n := facts["records_without_sample"]:
        parts.append(f"{n:,} are not in the cohort")
    if n := facts["dropped_in_no_file"]:
        parts.append(f"{n:,} samples stand in no file and are left out")
    return "; ".join(parts)
