"""300 seeded mutations of a small hospital: is each read to the same cohort and facts, refused in a line, or reported?

    python benchmarks/mutate_hospital.py --n 300 --json mutations.json

Each mutation does to one table of a synthetic hospital in MIMIC-IV's layout what exports, copies and people do to real
ones. What comes of it must be one of

    same       the same cohort, and facts that differ in less than 1 %
    refused    one line of an EhrdlError
    reported   another cohort or other facts, and a line that the clean hospital does not give

Two more are faults: `silent`, another result without a line, and `traceback`.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import csv
import gzip
import io
import lzma
import random
import re
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import show

from ehrdl.cohort import prepare
from ehrdl.data.config import DataConfig
from ehrdl.engine.options import Prepare
from ehrdl.errors import EhrdlError
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.synthetic import write_hospital
from ehrdl.tasks.readmission import Readmission

_PATIENTS, _SEED = 150, 3
#: Facts may differ so much without a word [share].
_TOLERATED = 0.01


@dataclass
class Table:
    """A table, and how its file is written."""

    name: str
    header: list[str]
    rows: list[list[str]]
    suffix: str = ".csv.gz"
    delimiter: str = ","
    newline: str = "\n"
    encoding: str = "utf-8"
    quoting: int = csv.QUOTE_MINIMAL
    pack: list[Callable[[bytes], bytes]] = field(default_factory=lambda: [gzip.compress])
    spoil: Callable[[bytes], bytes] = bytes

    def write(self, root: Path) -> None:
        """Write the file."""
        path = root / f"{self.name}{self.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.suffix == ".parquet":
            columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.header)
            arrays = [pa.array([cell or None for cell in column], pa.string()) for column in columns]
            pq.write_table(pa.table(arrays, names=self.header), path)
            return
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.delimiter, lineterminator=self.newline, quoting=self.quoting)
        writer.writerows([self.header, *self.rows])
        data = text.getvalue().encode(self.encoding)
        for pack in self.pack:
            data = pack(data)
        path.write_bytes(self.spoil(data))

    def column(self, name: str) -> int:
        """The place of a column."""
        return self.header.index(name)

    def change(self, names: list[str], change: Callable[[str], str], share: float, rng: random.Random) -> None:
        """Change a share of the cells that are not empty in some columns."""
        for place in map(self.column, names):
            for row in self.rows:
                if row[place] and rng.random() < share:
                    row[place] = change(row[place])


def read_table(root: Path, file: Path) -> Table:
    """A table of the clean hospital."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as opened:
        header, *rows = csv.reader(opened)
    return Table(str(file.relative_to(root)).removesuffix(".csv.gz"), header, rows)


#: Columns that a cohort, its features or its labels are made of.
_WORDS = {
    "hosp/admissions": ["admission_type", "discharge_location", "race", "insurance", "language"],
    "hosp/patients": ["gender"],
    "hosp/labevents": ["valueuom"],
    "hosp/diagnoses_icd": ["icd_code"],
    "hosp/transfers": ["eventtype", "careunit"],
    "hosp/services": ["curr_service"],
    "icu/chartevents": ["valueuom"],
    "icu/icustays": ["first_careunit"],
    "note/discharge": ["note_type"],
}
_WHEN = {
    "hosp/admissions": ["admittime", "dischtime"],
    "hosp/labevents": ["charttime", "storetime"],
    "hosp/transfers": ["intime", "outtime"],
    "icu/chartevents": ["charttime", "storetime"],
    "icu/icustays": ["intime", "outtime"],
    "note/discharge": ["charttime", "storetime"],
}
_NUMBERS = {
    "hosp/labevents": ["valuenum"],
    "icu/chartevents": ["valuenum"],
    "hosp/patients": ["anchor_age", "anchor_year"],
}
_IDS = {
    "hosp/admissions": ["subject_id", "hadm_id"],
    "hosp/patients": ["subject_id"],
    "hosp/labevents": ["subject_id", "hadm_id", "itemid"],
    "hosp/diagnoses_icd": ["subject_id", "hadm_id", "icd_version"],
    "hosp/transfers": ["subject_id", "hadm_id"],
    "icu/chartevents": ["subject_id", "hadm_id", "stay_id", "itemid"],
    "icu/icustays": ["subject_id", "hadm_id", "stay_id"],
    "note/discharge": ["subject_id", "hadm_id"],
}
Change = Callable[[str], str]
_WORD_CHANGES: dict[str, Change] = {
    "trailing blanks": lambda cell: cell + "   ",
    "leading blank": lambda cell: " " + cell,
    "no-break space": lambda cell: cell.replace(" ", "\u00a0") + "\u00a0",
    "tab": lambda cell: cell + "\t",
    "lower case": str.lower,
    "title case": str.title,
    "doubled blanks": lambda cell: cell.replace(" ", "  "),
    "upper case": str.upper,
    "the word NULL": lambda _: "NULL",
    "another word": lambda _: "SOMETHING ELSE",
    "a question mark": lambda _: "?",
    "three underscores": lambda _: "___",
    "accented": lambda cell: cell + "é",
    "emptied": lambda _: "",
}
_TIME_CHANGES: dict[str, Change] = {
    "ISO": lambda cell: cell.replace(" ", "T"),
    "zoned": lambda cell: cell + "+05:30",
    "UTC": lambda cell: cell.replace(" ", "T") + "Z",
    "day first": lambda cell: f"{cell[8:10]}/{cell[5:7]}/{cell[:4]}{cell[10:]}",
    "US": lambda cell: f"{cell[5:7]}/{cell[8:10]}/{cell[:4]}{cell[10:]}",
    "fractions": lambda cell: cell + ".000",
    "date alone": lambda cell: cell[:10],
    "the year 1800": lambda cell: "1800" + cell[4:],
    "the year 0": lambda cell: "0000" + cell[4:],
    "the year 9999": lambda cell: "9999" + cell[4:],
    "30 years later": lambda cell: f"{int(cell[:4]) + 30}{cell[4:]}",
    "10 years before": lambda cell: f"{int(cell[:4]) - 10}{cell[4:]}",
    "the word NULL": lambda _: "NULL",
    "\\N": lambda _: "\\N",
    "emptied": lambda _: "",
    "seconds since 1970": lambda _: "4769971200",
    "blanks around": lambda cell: f" {cell} ",
    "no day of February": lambda cell: cell[:4] + "-02-30" + cell[10:],
}
_NUMBER_CHANGES: dict[str, Change] = {
    "a thousand times": lambda cell: str(float(cell) * 1000),
    "negative": lambda cell: f"-{cell}",
    "decimal comma": lambda cell: cell.replace(".", ",") if "." in cell else cell + ",0",
    "comparator": lambda cell: f">{cell}",
    "nan": lambda _: "nan",
    "inf": lambda _: "inf",
    "NA": lambda _: "NA",
    "exponent": lambda cell: f"{float(cell):e}",
    "with a unit": lambda cell: f"{cell} mg",
    "blanks around": lambda cell: f" {cell} ",
    "emptied": lambda _: "",
    "zero": lambda _: "0",
    "999999": lambda _: "999999",
}
_ID_CHANGES: dict[str, Change] = {
    "with a fraction": lambda cell: f"{cell}.0",
    "half": lambda cell: f"{cell}.5",
    "leading zeros": lambda cell: f"000{cell}",
    "negative": lambda cell: f"-{cell}",
    "blanks around": lambda cell: f" {cell} ",
    "another number": lambda cell: str(int(float(cell)) + 7_000_000),
    "eleven": lambda _: "11",
    "hexadecimal": lambda cell: hex(int(cell)),
    "with a letter": lambda cell: f"P{cell}",
    "exponent": lambda cell: f"{float(cell):.8e}",
    "thousands": lambda cell: f"{int(cell):,}",
    "emptied": lambda _: "",
    "null word": lambda _: "NULL",
}


def _cells(columns: dict[str, list[str]], changes: dict[str, Change]) -> Callable[[Any, random.Random], str]:
    def mutate(tables: dict[str, Table], rng: random.Random) -> str:
        name = rng.choice(sorted(columns))
        chosen = rng.sample(columns[name], rng.randint(1, len(columns[name])))
        what = rng.choice(sorted(changes))
        share = rng.choice([1.0, 1.0, 0.5, 0.02])
        tables[name].change(chosen, changes[what], share, rng)
        return f"{name} {', '.join(chosen)}: {what} in {share:.0%}"

    return mutate


def _doubled(table: Table) -> None:
    table.rows = [row for row in table.rows for _ in range(2)]


def _half_header(table: Table) -> None:
    table.header = [f" {name.title()} " for name in table.header]


_FILES: dict[str, Callable[[Table, random.Random], None]] = {
    "plain": lambda table, _: _set(table, suffix=".csv", pack=[]),
    "plain named .csv.gz": lambda table, _: _set(table, pack=[]),
    "gzipped named .csv": lambda table, _: _set(table, suffix=".csv"),
    "gzipped twice": lambda table, _: _set(table, pack=[gzip.compress, gzip.compress]),
    "two gzip members": lambda table, _: _set(table, pack=[_members]),
    ".csv.zst": lambda table, _: _set(table, suffix=".csv.zst", pack=[lambda data: pa.compress(data, "zstd", True)]),
    ".csv.bz2": lambda table, _: _set(table, suffix=".csv.bz2", pack=[bz2.compress]),
    ".csv.xz": lambda table, _: _set(table, suffix=".csv.xz", pack=[lzma.compress]),
    ".CSV": lambda table, _: _set(table, suffix=".CSV", pack=[]),
    ".csv.GZ": lambda table, _: _set(table, suffix=".csv.GZ"),
    ".tsv": lambda table, _: _set(table, suffix=".tsv", delimiter="\t", pack=[]),
    ".parquet": lambda table, _: _set(table, suffix=".parquet"),
    "semicolons": lambda table, _: _set(table, delimiter=";"),
    "tabs": lambda table, _: _set(table, delimiter="\t"),
    "CRLF": lambda table, _: _set(table, newline="\r\n"),
    "CR": lambda table, _: _set(table, newline="\r"),
    "BOM": lambda table, _: _set(table, encoding="utf-8-sig"),
    "UTF-16": lambda table, _: _set(table, encoding="utf-16"),
    "all quoted": lambda table, _: _set(table, quoting=csv.QUOTE_ALL),
    "cut": lambda table, rng: _set(table, spoil=lambda data: data[: int(len(data) * rng.uniform(0.1, 0.95))]),
    "emptied": lambda table, _: _set(table, spoil=lambda _: b""),
    "garbage after": lambda table, _: _set(table, spoil=lambda data: data + b"garbage" * 50),
    "NULs after": lambda table, _: _set(table, spoil=lambda data: data + bytes(512)),
    "a byte flipped": lambda table, rng: _set(table, spoil=lambda data: _flipped(data, rng)),
    "header alone": lambda table, _: _set(table, rows=[]),
    "missing": lambda table, _: _set(table, suffix=".csv.gz.part"),
    "columns in another order": lambda table, rng: _reordered(table, rng),
    "header in title case with blanks": lambda table, _: _half_header(table),
    "a column more": lambda table, _: _set(
        table, header=[*table.header, "site"], rows=[[*row, "A"] for row in table.rows]
    ),
    "a column less": lambda table, rng: _less(table, rng),
    "a header of two columns swapped": lambda table, rng: _swapped(table, rng),
    "rows twice": lambda table, _: _doubled(table),
    "rows shuffled": lambda table, rng: rng.shuffle(table.rows),
    "header repeated in the middle": lambda table, _: table.rows.insert(len(table.rows) // 2, list(table.header)),
    "a total below": lambda table, _: table.rows.append(["Total", *[""] * (len(table.header) - 1)]),
    "an empty row below": lambda table, _: table.rows.append([""] * len(table.header)),
    "a cell less in a row": lambda table, rng: rng.choice(table.rows).pop(),
}


def _set(table: Table, **values: Any) -> None:
    for name, value in values.items():
        setattr(table, name, value)


def _members(data: bytes) -> bytes:
    cut = data.index(b"\n", len(data) // 2) + 1
    return gzip.compress(data[:cut]) + gzip.compress(data[cut:])


def _flipped(data: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(data)
    spoilt[rng.randrange(20, len(spoilt))] ^= 0x55
    return bytes(spoilt)


def _reordered(table: Table, rng: random.Random) -> None:
    order = rng.sample(range(len(table.header)), len(table.header))
    table.header = [table.header[place] for place in order]
    table.rows = [[row[place] for place in order] for row in table.rows]


def _less(table: Table, rng: random.Random) -> None:
    place = rng.randrange(len(table.header))
    for row in [table.header, *table.rows]:
        del row[place]


def _swapped(table: Table, rng: random.Random) -> None:
    one, other = rng.sample(range(len(table.header)), 2)
    table.header[one], table.header[other] = table.header[other], table.header[one]


def _file(tables: dict[str, Table], rng: random.Random) -> str:
    name, what = rng.choice(sorted(tables)), rng.choice(sorted(_FILES))
    _FILES[what](tables[name], rng)
    return f"{name}: {what}"


_KINDS = (
    (_cells(_WORDS, _WORD_CHANGES), 3),
    (_cells(_WHEN, _TIME_CHANGES), 3),
    (_cells(_NUMBERS, _NUMBER_CHANGES), 2),
    (_cells(_IDS, _ID_CHANGES), 2),
    (_file, 4),
)


@dataclass(frozen=True)
class Read:
    """What was read from a hospital.

    Attributes:
        cohort: subject, stay, prediction time and label of every sample.
        facts: (channel, subject, time, value), each with how often it stands.
        n_notes: notes.
        lines: what was said, without times and counts of this machine.
    """

    cohort: set[tuple[Any, ...]]
    facts: Counter[tuple[Any, ...]]
    n_notes: int
    lines: list[str]


def read(root: Path, cache: Path) -> Read:
    """Read and prepare a hospital as `ehrdl prepare` does."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        config = DataConfig(Mimic4(root=str(root)), prepare=Prepare(cache=str(cache), workers=1))
        cohort = prepare(config, Readmission())
        prepared, result = cohort.prepared, cohort.result
    columns = ["subject_id", "encounter_id", "prediction_time", *(f"label_{o.name}" for o in result.outputs)]
    cohort = set(result.samples[columns].astype(str).itertuples(index=False, name=None))
    series = prepared.dataset.store
    names = np.array([channel.name for channel in series.channels])
    subject = np.repeat(series.subjects, np.diff(series.offsets))
    facts = Counter(
        zip(
            names[series.channel].tolist(),
            subject.tolist(),
            np.asarray(series.time).tolist(),
            np.round(series.value, 4).tolist(),
            strict=True,
        )
    )
    lines = said.getvalue().replace(str(root), "ROOT").replace(str(cache), "CACHE").splitlines()
    return Read(cohort, facts, prepared.facts["data"]["n_notes"], lines)


def outcome(clean: Read, root: Path, cache: Path) -> tuple[str, str]:
    """What became of a mutated hospital, with a line on it."""
    try:
        found = read(root, cache)
    except EhrdlError as error:
        return "refused", " ".join(str(error).split())
    except Exception:
        return "traceback", traceback.format_exc()[-600:]
    new = unheard(clean.lines, found.lines)
    n_facts = clean.facts.total()
    moved = ((clean.facts - found.facts).total() + (found.facts - clean.facts).total()) / 2 / n_facts
    lost = abs(clean.n_notes - found.n_notes) / clean.n_notes
    cohort = len(clean.cohort ^ found.cohort)
    what = f"{cohort} samples differ, {moved:.1%} of facts, {lost:.1%} of notes"
    if not cohort and max(moved, lost) <= _TOLERATED:
        return "same", what
    return ("reported" if new else "silent"), f"{what}; {new[:3]}"


#: A finding of the data-quality block: what it is about, and in how many of how many it is found.
_FINDING = re.compile(r"(?:warning: )?(.+: )([\d,]+) of ([\d,]+) \([^)]*\)(.*)")
#: A step of the flow chart: that it changes tells nobody why.
_FLOW = re.compile(r"admissions +[\d,]+ subjects")


def unheard(clean: list[str], lines: list[str]) -> list[str]:
    """The lines that the clean hospital does not give: other words, or a finding in clearly more of the data."""
    known = {_heard(line)[0]: _heard(line)[1] for line in clean}
    new = []
    for line in lines:
        words, share = _heard(line)
        if not _FLOW.search(line) and (words not in known or share > known[words] + _TOLERATED):
            new.append(line.strip())
    return new


def _heard(line: str) -> tuple[str, float]:
    """The words of a line without its numbers, and the share that a finding is about."""
    match = _FINDING.fullmatch(line.strip())
    words = match[1] + match[4] if match else line.strip()
    share = int(match[2].replace(",", "")) / max(int(match[3].replace(",", "")), 1) if match else 0.0
    return re.sub(r"\d[\d,.]*", "#", words), share


def mutated(clean: Path, root: Path, seed: int) -> str:
    """Write the hospital with one mutation; says which."""
    rng = random.Random(seed)
    tables = {table.name: table for file in sorted(clean.rglob("*.csv.gz")) for table in [read_table(clean, file)]}
    mutate = rng.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])[0]
    what = mutate(tables, rng)
    for table in tables.values():
        table.write(root)
    return what


def main() -> None:
    """Mutate, read, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--all", action="store_true", help="print every outcome, not the faults alone")
    args = parser.parse_args()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_hospital(home / "clean", _PATIENTS, _SEED)
        clean = read(home / "clean", home / "clean-cache")
        for seed in range(args.first, args.first + args.n):
            root, cache = home / "hospital", home / "cache"
            what = mutated(home / "clean", root, seed)
            kind, line = outcome(clean, root, cache)
            found[kind] += 1
            if args.all or kind in ("silent", "traceback"):
                print(f"{seed}: {kind}: {what}: {line}", flush=True)
            shutil.rmtree(root)
            shutil.rmtree(cache, ignore_errors=True)
    show("mutations of a hospital", {"mutations": args.n, **dict(sorted(found.items()))}, args.json)
    raise SystemExit(bool(found["silent"] or found["traceback"]))


if __name__ == "__main__":
    main()
