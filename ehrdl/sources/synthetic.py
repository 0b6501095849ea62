"""The synthetic hospital: invented patients in MIMIC-IV's layout, with a known true 30-day risk of readmission.

The modules of `ehrdl.simulator` make the parts of the hospital. `risk` defines the true risk, and `stays` draws the
patients' lives. `series`, `vitals` and `text` turn facts into measurements and words. `records` and `illness` write the
other tables. `heart` adds the first-day signs of heart failure.
"""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ehrdl.engine import messages
from ehrdl.engine.cache import cached
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError
from ehrdl.events.source import Source
from ehrdl.options.bounds import Count, Seed
from ehrdl.simulator import heart as failure
from ehrdl.simulator import illness, records, series, text, vitals
from ehrdl.simulator.files import TRUTH, HospitalWriter
from ehrdl.simulator.stays import simulate
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.mimic4.tables import TABLES
from ehrdl.sources.packed import find

BLOCK_PATIENTS = 2000
MAX_NOTE_TOKENS = 3000


class Synthetic(Source):
    """A synthetic hospital, written in MIMIC-IV's layout and read by the reader of MIMIC-IV.

    Args:
        n_patients: the number of patients.
        seed: the random seed. Another seed gives other patients from the same distribution.
        note_tokens: the smallest and the largest number of words of a discharge summary.
    """

    VERSION = 3
    setting = "A simulated general hospital with wards and intensive care units. No patient is real."
    dates = "The patients are simulated, and so are all dates."

    def __init__(self, n_patients: Count = 2000, seed: Seed = 0, note_tokens: tuple[Count, Count] = (40, 120)) -> None:
        self.n_patients, self.seed, self.note_tokens = n_patients, seed, note_tokens
        _check(n_patients, seed, note_tokens)

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return all that decides the result of `read` (the options and the versions of the code), as its cache key."""
        reader = Mimic4(root=".")
        return {"source": "synthetic", "hospital": self._key(), "reader": reader.versions()}

    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Simulate the hospital, and write its EVENTS table and true risks into the folder `out`; see `Source.read`."""
        hospital = cached(
            prepare,
            "hospital",
            self._key(),
            lambda folder: write_hospital(folder, self.n_patients, self.seed, self.note_tokens),
        )
        tables = [name for name in TABLES if find(hospital, name)]  # fewer than in a real hospital, which is no fault
        facts = Mimic4(root=str(hospital), tables=tables).read(out, prepare)
        _copy_truth(hospital / "truth.csv", out / "truth.csv")
        return facts

    def _key(self) -> dict[str, Any]:
        return {
            "version": self.VERSION,
            "n_patients": self.n_patients,
            "seed": self.seed,
            "note_tokens": list(self.note_tokens),
        }


def _copy_truth(hospital: Path, out: Path) -> None:
    """Copy the true probability of each index stay to `out`, in the columns of the file that a run reads."""
    with hospital.open(newline="") as source, out.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["encounter_id", "output", "prob"])
        for row in csv.DictReader(source):
            if row["prob"]:
                writer.writerow([row["hadm_id"], "readmission", row["prob"]])


def write_hospital(
    root: Path,
    n_patients: int = 2000,
    seed: int = 0,
    note_tokens: tuple[int, int] = (40, 120),
    progress: bool = True,
) -> None:
    """Write a hospital of `n_patients` under `root`: `hosp/`, `icu/`, `note/` as MIMIC-IV has them, and `truth.csv`.

    The same arguments give the same bytes. Blocks of patients are drawn and written one after another, so memory does
    not grow with the number of patients.

    Args:
        root: the folder to make; it must be empty if it exists.
        n_patients: the number of patients, > 0.
        seed: the random seed of all draws, >= 0.
        note_tokens: the smallest and the largest number of words of a discharge summary, at most 3000. Facts are
            written even if they need more words. Another length changes only the notes.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: an argument is out of range, or `root` is not empty.
    """
    _check(n_patients, seed, note_tokens)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(f"{root} exists and is not an empty folder; give another one to write the hospital to")
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with HospitalWriter(partial, records.TRUTH_SPEC) as writer:
            _write_items(writer)
            _write_blocks(writer, n_patients, seed, note_tokens, progress)
        if root.exists():
            root.rmdir()
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(n_patients: int, seed: int, note_tokens: tuple[int, int]) -> None:
    if n_patients < 1:
        raise ConfigError(f"data.source.n_patients: {n_patients} is below 1")
    if seed < 0:
        raise ConfigError(f"data.source.seed: {seed} is below 0")
    if len(note_tokens) != 2 or not 1 <= note_tokens[0] <= note_tokens[1] <= MAX_NOTE_TOKENS:
        allowed = f"[low, high] with 1 <= low <= high <= {MAX_NOTE_TOKENS}"
        raise ConfigError(f"data.source.note_tokens: {list(note_tokens)} is not {allowed}")


def _write_items(writer: HospitalWriter) -> None:
    for table, values in (
        ("hosp/d_labitems", series.lab_items()),
        ("icu/d_items", vitals.chart_items()),
        ("hosp/d_icd_diagnoses", illness.code_titles()),
    ):
        writer.write(table, values, len(next(iter(values.values()))))


def _write_blocks(
    writer: HospitalWriter, n_patients: int, seed: int, note_tokens: tuple[int, int], progress: bool
) -> None:
    firsts = range(0, n_patients, BLOCK_PATIENTS)
    seeds = np.random.SeedSequence(seed).spawn(len(firsts))
    counts = {"stay": 0, "icu": 0, "transfer": 0, "lab": 0, "specimen": 0}
    with messages.progress(quiet=not progress) as bar:
        for first, child in zip(bar.track(firsts, description="synthetic hospital"), seeds, strict=True):
            _write_block(writer, child, first, min(BLOCK_PATIENTS, n_patients - first), note_tokens, counts)


def _write_block(
    writer: HospitalWriter,
    seed: np.random.SeedSequence,
    first: int,
    n_patients: int,
    note_tokens: tuple[int, int],
    counts: dict[str, int],
) -> None:
    """Draw and write one block, and update `counts`, the ids used so far."""
    # one generator per part: longer notes leave the patients and their labs unchanged
    lives, admin, measured, words, heart = map(np.random.default_rng, seed.spawn(5))
    block = simulate(lives, first, n_patients, counts["stay"])
    stays = records.stay_frame(block)
    conditions = illness.draw_conditions(admin, block)
    admissions = records.admissions(admin, block, stays)
    icu = records.icu_stays(admin, stays)
    icu["stay_id"] = 30_000_000 + counts["icu"] + np.arange(len(icu))
    transfers = dict(records.transfers(admin, stays, admissions, icu, conditions))
    transfers["transfer_id"] = 40_000_000 + counts["transfer"] + np.arange(len(transfers["subject_id"]))
    kinds = failure.kind(conditions, stays["episode"].to_numpy())
    labs = _joined(series.labs(measured, block, stays), failure.labs(heart, stays, kinds))
    labs["labevent_id"] = 1 + counts["lab"] + np.arange(len(labs["itemid"]))
    labs["specimen_id"] = labs["specimen_id"] + counts["specimen"]
    counts["stay"] += len(stays)
    counts["icu"] += len(icu)
    counts["transfer"] += len(transfers["subject_id"])
    counts["lab"] += len(labs["itemid"])
    counts["specimen"] = int(labs["specimen_id"].max(initial=counts["specimen"])) + 1

    tables: dict[str, Any] = {
        "hosp/patients": records.patients(block),
        "hosp/admissions": admissions,
        "hosp/transfers": transfers,
        "hosp/services": records.services(admin, stays, conditions),
        "hosp/diagnoses_icd": illness.diagnoses(admin, block, conditions),
        "hosp/labevents": labs,
        "icu/icustays": records.icu_columns(icu),
        "icu/chartevents": vitals.chart(measured, icu),
        "note/discharge": text.discharge(words, stays, conditions, admissions["discharge_location"], note_tokens),
        "note/radiology": text.radiology(words, stays, conditions, failure.films(heart, stays, conditions, kinds)),
        TRUTH: records.truth(stays),
    }
    for table, values in tables.items():
        writer.write(table, values, len(values["subject_id"]))


def _joined(first: Any, second: Any) -> dict[str, Any]:
    """Join the labs of two generators. The specimens of the second are numbered after those of the first."""
    second = {**second, "specimen_id": second["specimen_id"] + int(first["specimen_id"].max(initial=-1)) + 1}
    return {name: np.concatenate([first[name], second[name]]) for name in first}
