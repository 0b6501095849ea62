"""Probes of the split: is a held-out patient, sample or note also in training, under its own id or another one?

A share of equal rows and notes is allowed, because records of few values and texts of templates are equal by chance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ehrdl.audit.audited import Audited
from ehrdl.data.series.store import Store
from ehrdl.runs.leak_audit import FAIL, PASS, Check, not_verified
from ehrdl.schema import HELD_OUT, TRAIN

#: The number of facts by which a patient is known again, and how many numbers, and different ones, must be among them.
FIRST, LEAST_NUMBERS, LEAST_DIFFERENT = 40, 10, 5
#: The share of held-out patients who may have a double in another split. Real hospitals give a few people two ids.
MOST_PERSONS = 0.001
#: The fewest values of a row of features, and words of a note, that are compared, and the share that may be equal.
LEAST_VALUES, LEAST_WORDS, MOST_EQUAL = 5, 50, 0.01
_MOST_TEXTS = 5000


def probe_splits(run: Audited) -> list[Check]:
    """Make the checks `subjects`, `persons`, `rows` and `notes`."""
    return [_subjects(run), _persons(run), _rows(run), _notes(run)]


def _subjects(run: Audited) -> Check:
    splits = run.samples.groupby("subject_id").split.nunique()
    shared = int((splits > 1).sum())
    return Check("subjects", FAIL if shared else PASS, {"n_subjects": len(splits), "n_shared": shared})


def _persons(run: Audited) -> Check:
    """Look for held-out patients whose record begins as that of a patient in another split."""
    samples = run.samples
    held_out = np.unique(samples.subject_id[samples.split == HELD_OUT])
    others = np.unique(samples.subject_id[samples.split != HELD_OUT])
    store = run.cohort.prepared.dataset.store
    ours, theirs = fingerprints(store, held_out), fingerprints(store, others)
    owner = {one: subject for subject, one in theirs.items()}
    if not ours:
        return not_verified(
            "persons", f"No held-out patient has {LEAST_NUMBERS} numbers among the first {FIRST} facts."
        )
    shared = sum(owner.get(one, subject) != subject for subject, one in ours.items())
    evidence = {"n_shared": shared, "n_compared": len(ours), "first": FIRST, "percent": 100 * MOST_PERSONS}
    return Check("persons", FAIL if shared > MOST_PERSONS * len(ours) else PASS, evidence)


def fingerprints(store: Store, subjects: np.ndarray) -> dict[int, bytes]:
    """Return the first facts of each subject as bytes: channel, value, and time since the first fact.

    Args:
        store: the series store.
        subjects: the subject_id of each subject, without repetition.

    Returns:
        The bytes by subject_id. Subjects with too few numbers to be told apart are left out.
    """
    numeric = np.array([channel.kind == "numeric" for channel in store.channels])
    found = {}
    for subject, at in zip(subjects.tolist(), np.searchsorted(store.subjects, subjects).tolist(), strict=True):
        if at == len(store.subjects) or store.subjects[at] != subject:
            continue
        own = slice(int(store.offsets[at]), min(int(store.offsets[at]) + FIRST, int(store.offsets[at + 1])))
        channel, value, time = store.channel[own], store.value[own], store.available[own]
        numbers = value[numeric[channel]]
        if len(numbers) >= LEAST_NUMBERS and len(np.unique(numbers)) >= LEAST_DIFFERENT:
            found[subject] = channel.tobytes() + value.tobytes() + (time - time[0]).tobytes()
    return found


def _rows(run: Audited) -> Check:
    """Look for held-out rows of features that equal a training row of another patient."""
    hashes = {}
    for split in (TRAIN, HELD_OUT):
        table = run.values(split)
        means = [name for name in table.columns if name.endswith("__mean")]
        enough = table[means].notna().sum(axis=1).to_numpy() >= LEAST_VALUES
        hashed = pd.util.hash_pandas_object(table, index=False).to_numpy()
        hashes[split] = pd.DataFrame({"subject": run.subjects(split), "hash": hashed})[enough]
    if not len(hashes[HELD_OUT]):
        return not_verified("rows", f"No held-out sample has {LEAST_VALUES} measured values.")
    share = len(run.rows[TRAIN]) / len(run.cohort.prepared.rows(TRAIN))
    return _judge("rows", hashes[TRAIN], hashes[HELD_OUT], MOST_EQUAL * share, LEAST_VALUES)


def _notes(run: Audited) -> Check:
    """Look for notes of held-out samples that equal a note of another patient that training samples see."""
    dataset = run.cohort.prepared.dataset
    notes = dataset.notes
    if notes is None or not notes.first_record:
        return not_verified("notes", "The run reads no notes of the hospital.")
    owner, hashes, share = notes.owners(), {}, 1.0
    for split, rows in run.rows.items():
        seen = np.unique(dataset.seen_notes(rows)[0])
        seen = seen[seen < notes.first_record]
        if len(seen) > _MOST_TEXTS:
            share *= _MOST_TEXTS / len(seen) if split == TRAIN else 1.0
            seen = np.sort(np.random.default_rng(run.seed).choice(seen, _MOST_TEXTS, replace=False))
        texts = pd.Series(notes.texts(seen), dtype=str)
        enough = texts.str.count(r"\S+").to_numpy() >= LEAST_WORDS
        hashed = pd.util.hash_pandas_object(texts, index=False).to_numpy()
        hashes[split] = pd.DataFrame({"subject": owner[seen], "hash": hashed})[enough]
    if not len(hashes[HELD_OUT]) or not len(hashes[TRAIN]):
        return not_verified("notes", f"No held-out or no training note has {LEAST_WORDS} words.")
    share *= len(run.rows[TRAIN]) / len(run.cohort.prepared.rows(TRAIN))
    return _judge("notes", hashes[TRAIN], hashes[HELD_OUT], MOST_EQUAL * share, LEAST_WORDS)


def _judge(name: str, train: pd.DataFrame, held_out: pd.DataFrame, limit: float, least: int) -> Check:
    """Count the held-out hashes that are those of another patient in training. Each frame has subject and hash."""
    owner = train.groupby("hash").subject.agg(["first", "nunique"])
    found = held_out.join(owner, on="hash")
    shared = int(((found["first"] != found.subject) & (found["nunique"] > 0) | (found["nunique"] > 1)).sum())
    evidence: dict[str, float] = {
        "n_shared": shared,
        "n_compared": len(held_out),
        "n_train": len(train),
        "least": least,
    }
    evidence["percent"] = 100 * limit
    return Check(name, FAIL if shared > limit * len(held_out) else PASS, evidence)
