"""Any MEDS 0.4 dataset as EVENTS: another hospital's, MIMIC-IV's own export, or the EVENTS of ehrdl itself.

Its own `available_time` is used as it is. Where it has none, a fact is available at its time plus the delay of the
first pattern that matches its code (`meds_codes.DELAYS` after the user's own), and what no pattern knows waits a week
and is counted. Codes become those that tasks and channels know by `rename`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl.data import events, staging
from ehrdl.data.listing import shard_files
from ehrdl.data.sources.base import Source
from ehrdl.data.sources.meds_check import check_columns, damaged
from ehrdl.data.sources.meds_codes import DEFAULT_DELAY, CodeRules, Delay
from ehrdl.data.sources.meds_stage import Staged, StageFile
from ehrdl.data.timing import name_some
from ehrdl.engine import Prepare, check_disk, fingerprint, read_json, say
from ehrdl.errors import ConfigError, LeakageError, SchemaError
from ehrdl.shards import Tally, map_shards

_ENCOUNTER = "encounter_id"
#: Disk that a byte of a dataset takes at the most: its staged rows; EVENTS, series and notes with what they are made
#: from. Measured on labs drawn at random, the worst to compress.
_DISK_STAGED, _DISK_AFTER = 2.1, 3.5
_METADATA = (meds.code_metadata_filepath, meds.subject_splits_filepath, meds.dataset_metadata_filepath)


class Meds(Source):
    r"""A MEDS 0.4 dataset: `data/**/*.parquet`, and `metadata/` where it has one.

    Patterns are Python's regular expressions and match a whole code; of a mapping the first that matches decides.

    Args:
        root: folder that holds `data/`.
        rename: by pattern of the dataset's codes, the code of EVENTS, a list of codes, or an empty list to leave the
            rows out. `\1` is what the first group matched, `{column}` the row's value in that column. Codes that no
            pattern matches stay as they are.
        notes: patterns of codes whose text_value is a note; they become `NOTE//…`.
        encounter: column that names the hospital stay, such as hadm_id or visit_id; null reads `encounter_id` where the
            dataset has it, and else numbers each subject's stays from the admissions and discharges.
        delays: by pattern of the dataset's codes, or of what they are renamed to, how long after its time a fact can be
            seen [h], where the dataset has no available_time. Tried before the shipped ones (`meds_codes.DELAYS`).
        default_delay_hours: the same for codes that no pattern matches [h]; their rows are counted.
    """

    VERSION = 2
    caveats = ("Whom a MEDS dataset holds, and how they were chosen, only those who made it can tell.",)

    def __init__(
        self,
        root: str,
        rename: dict[str, str | list[str]] | None = None,
        notes: list[str] | None = None,
        encounter: str | None = None,
        delays: dict[str, Delay] | None = None,
        default_delay_hours: Delay = DEFAULT_DELAY,
    ) -> None:
        self.root = Path(root)
        self.encounter = encounter
        listed = {pattern: [code] if isinstance(code, str) else code for pattern, code in (rename or {}).items()}
        self.rules = CodeRules(listed, notes or [], delays or {}, default_delay_hours)

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """The files and the options that decide the result of `read`."""
        files = [*self._files(), *(self.root / name for name in _METADATA if (self.root / name).is_file())]
        return {
            "source": "meds",
            "version": self.versions(),
            "files": {str(file.relative_to(self.root)): fingerprint(file, verify) for file in files},
            "rules": self.rules.key(),
            "encounter": self.encounter,
        }

    def versions(self) -> list[Any]:
        """What of the code decides the result of `read`."""
        return [self.VERSION, events.VERSION, staging.VERSION]

    def n_bytes(self) -> int:
        """Size of the files that are read."""
        return sum(file.stat().st_size for file in self._files())

    def has_splits(self) -> bool:
        """Whether the dataset says who trains, tunes and is held out."""
        return (self.root / meds.subject_splits_filepath).is_file()

    def read(self, out: Path, prepare: Prepare | None = None) -> dict[str, Any]:
        """Write EVENTS into `out`; see `Source.read`."""
        prepare = prepare or Prepare()
        files = self._files()
        encounter = self._check({file: check_columns(file) for file in files})
        splits, descriptions = read_splits(self.root), _descriptions(self.root)
        writer = events.EventsWriter(out, prepare)
        staged = self._stage(files, encounter, prepare, out)
        events.refuse_shared(files, [part.subjects for part in staged])
        for number, part in enumerate(staged):
            writer.add(f"file-{number}", part.folder / "rows", part.counts)
        total = {name: sum(part.counts[name] for part in staged) for name in staged[0].counts}
        if not total["rows"]:
            raise SchemaError(f"{self.root}: no row is left to read; data.source.rename leaves all of them out")
        new = self.rules.apply(sorted(set().union(*(part.codes for part in staged))))
        pairs = zip(new.source, new.code, strict=True)
        texts = {code: descriptions[source] for source, code in pairs if source in descriptions}
        writer.finish(lambda code: texts.get(code, ""), _name(self.root))
        if splits is not None:
            pq.write_table(splits, out / meds.subject_splits_filepath)
        if not prepare.keep:
            for part in staged:
                shutil.rmtree(part.folder)
        return {"tables": {"data": {"files": len(files), **total}}, "missing": self._say(total, staged)}

    def _stage(self, files: list[Path], encounter: str | None, prepare: Prepare, out: Path) -> list[Staged]:
        """Check and stage every file, each at most once, whatever stopped a run."""
        rows = out / ".rows"
        rows.mkdir(exist_ok=True)
        n_bytes = self.n_bytes()
        job = StageFile(
            prepare,
            self.rules,
            encounter,
            {file: fingerprint(file, prepare.verify) for file in files},
            self.versions(),
            share=min(prepare.processes(n_bytes), len(files)),
            tally=Tally(rows),
        )
        unread = sum(file.stat().st_size for file in files if not job.is_staged(file))
        check_disk(prepare, round(_DISK_STAGED * unread + _DISK_AFTER * n_bytes))
        staged: list[Staged] = map_shards(job, files, prepare, n_bytes, "read files", job.tally)
        shutil.rmtree(rows)
        return staged

    def _files(self) -> list[Path]:
        if not self.root.is_dir():
            raise SchemaError(f"data.source.root: the folder {self.root} does not exist; give the one that holds data/")
        files = shard_files(self.root)
        if not files:
            raise SchemaError(f"{self.root}: no data/**/*.parquet; this is not a MEDS dataset")
        return files

    def _check(self, columns: Mapping[Path, Sequence[str]]) -> str | None:
        """The column that names the stay; None where the stays are to be numbered."""
        every = set().union(*columns.values())
        for name in self.rules.columns:
            if name not in every:
                raise ConfigError(f"data.source.rename: no file under {self.root} has the column {{{name}}}")
        name = self.encounter or _ENCOUNTER
        if name in every:
            return name
        if self.encounter:
            raise ConfigError(
                f"data.source.encounter: no file under {self.root} has the column {name}; null numbers the stays"
            )
        return None

    def _say(self, total: Mapping[str, int], staged: Sequence[Staged]) -> list[str]:
        """Say what the counts mean, and give back what a report must repeat."""
        if total["duplicates"]:
            say(f"{self.root}: {total['duplicates']:,} rows are equal to another row; they are kept")
        if not total["on_fallback"]:
            return []
        families: Counter[str] = Counter()
        for part in staged:
            families.update(part.on_fallback)
        hours = f"{self.rules.default_delay:g} h"
        line = (
            f"available_time: {total['on_fallback']:,} rows match no pattern of delays and wait {hours}, the default: "
            f"{name_some(families)}; give them a delay in data.source.delays"
        )
        say(line)
        return [line]


def read_splits(root: Path) -> pa.Table | None:
    """Who trains, tunes and is held out by a MEDS dataset's own word, by subject; None where it says nothing.

    Raises:
        SchemaError: the file is damaged or has other columns.
        LeakageError: a subject stands in two splits.
    """
    file = root / meds.subject_splits_filepath
    table = _read(file, ["subject_id", "split"])
    if table is None:
        return None
    try:
        table = meds.SubjectSplitSchema.align(table.group_by(["subject_id", "split"]).aggregate([]))
    except Exception as error:
        raise SchemaError(f"{file}: {' '.join(str(error).split())}") from None
    table = table.sort_by([("subject_id", "ascending"), ("split", "ascending")])
    subjects = table["subject_id"].to_numpy()
    twice = np.flatnonzero(subjects[1:] == subjects[:-1])
    if len(twice):
        first, second = table["split"][twice[0]], table["split"][twice[0] + 1]
        raise LeakageError(f"{file}: subject {subjects[twice[0]]} stands in two splits, {first} and {second}")
    return table


def _descriptions(root: Path) -> dict[str, str]:
    table = _read(root / meds.code_metadata_filepath, ["code"], ["description"])
    if table is None or "description" not in table.column_names:
        return {}
    pairs = zip(table["code"].to_pylist(), table["description"].to_pylist(), strict=True)
    return {code: text for code, text in pairs if text}


def _read(file: Path, required: list[str], optional: Sequence[str] = ()) -> pa.Table | None:
    if not file.is_file():
        return None
    try:
        names = pq.read_schema(file).names
        for name in required:
            if name not in names:
                raise SchemaError(f"{file}: column {name} is missing (the file has {', '.join(names)})")
        return pq.read_table(file, columns=[name for name in (*required, *optional) if name in names])
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, error) from None


def _name(root: Path) -> str:
    file = root / meds.dataset_metadata_filepath
    try:
        return str(read_json(file).get("dataset_name") or "MEDS") if file.is_file() else "MEDS"
    except (ValueError, AttributeError) as error:
        raise SchemaError(f"{file}: is no JSON object ({error})") from None
