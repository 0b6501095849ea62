"""Reads any MEDS 0.4 dataset into the EVENTS table: another hospital's, MIMIC-IV's own export, or ehrdl's own EVENTS.

The dataset's own `available_time` is used unchanged. A fact without one is available at its time plus a delay. The
first pattern that matches its code sets the delay: the user's own patterns come first, then `codes.DELAYS`. If no
pattern matches, the delay is a week, and such rows are counted. The option `rename` turns the dataset's codes into the
codes that tasks and channels know.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from meds import schema as meds

from ehrdl.engine.cache import check_disk
from ehrdl.engine.files import fingerprint
from ehrdl.engine.messages import say
from ehrdl.engine.options import Prepare
from ehrdl.engine.parquet import name_paths
from ehrdl.engine.paths import expanded
from ehrdl.engine.shards import Tally, map_shards
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.events import staging
from ehrdl.events import writer as events
from ehrdl.events.listing import list_shards
from ehrdl.events.source import Source
from ehrdl.events.timing import name_some
from ehrdl.options.bounds import Location
from ehrdl.sources.meds.codes import DEFAULT_DELAY, CodeRules, Delay
from ehrdl.sources.meds.columns import Columns, describe_columns, read_columns, stay_column
from ehrdl.sources.meds.metadata import dataset_name, read_descriptions, read_splits, unknown_splits
from ehrdl.sources.meds.stage import Staged, StageFile

#: The largest disk space needed per byte of a dataset: first for its staged rows, then for EVENTS, series and notes
#: with their inputs. Measured on labs drawn at random, which compress worst.
_DISK_STAGED, _DISK_AFTER = 2.1, 3.5
_METADATA = (meds.code_metadata_filepath, meds.subject_splits_filepath, meds.dataset_metadata_filepath)


class Meds(Source):
    r"""Any MEDS 0.4 dataset: `data/**/*.parquet` and, if it exists, `metadata/`.

    Patterns are Python's regular expressions and match a whole code. In a mapping, the first pattern that matches
    decides.

    Args:
        root: the folder that holds `data/`.
        rename: maps each pattern of the dataset's codes to an EVENTS code, a list of codes, or an empty list, which
            drops the rows. `\1` becomes the text that the first group matched, and `{NAME}` the row's value in the
            column NAME. Codes that no pattern matches stay unchanged.
        notes: the patterns of codes for which text_value is a note. These codes become `NOTE//…`.
        encounter: the column that names the hospital stay, such as hadm_id or visit_id. If null, `encounter_id` is used
            if the dataset has it. Otherwise each subject's stays are numbered from the admissions and discharges.
        delays: for each pattern, the delay from a fact's time until the fact becomes visible [h]. A pattern may match
            the dataset's code or the new code. The delays apply only to facts without available_time. Their patterns
            are tried before the shipped ones (`ehrdl.sources.meds.codes.DELAYS`).
        default_delay_hours: the delay for codes that no pattern matches [h]. The number of such rows is reported.
    """

    VERSION = 4
    caveats = ("Whom a MEDS dataset holds, and how they were chosen, only those who made it can tell.",)

    def __init__(
        self,
        root: Location,
        rename: dict[str, str | list[str]] | None = None,
        notes: list[str] | None = None,
        encounter: str | None = None,
        delays: dict[str, Delay] | None = None,
        default_delay_hours: Delay = DEFAULT_DELAY,
    ) -> None:
        self.root = expanded(root)
        self.encounter = encounter
        listed = {pattern: [code] if isinstance(code, str) else code for pattern, code in (rename or {}).items()}
        self.rules = CodeRules(listed, notes or [], delays or {}, default_delay_hours)

    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return all that decides the result of `read` (files, options, versions of the code), as its cache key."""
        files = [*self._files(), *(self.root / name for name in _METADATA if (self.root / name).is_file())]
        unread = [str(file.relative_to(self.root)) for file in list_shards(self.root).unread]
        return {
            "source": "meds",
            "version": self.versions(),
            "files": {str(file.relative_to(self.root)): fingerprint(file, verify) for file in files},
            "rules": self.rules.key(),
            "encounter": self.encounter,
            **({"unread": unread} if unread else {}),
        }

    def versions(self) -> list[Any]:
        """Return the version numbers of the code that decides the result of `read`."""
        return [self.VERSION, events.VERSION, staging.VERSION]

    def n_bytes(self) -> int:
        """Return the size of the files that are read [bytes]."""
        return sum(file.stat().st_size for file in self._files())

    def has_splits(self) -> bool:
        """Return whether the dataset has its own split of subjects into train, tuning and held_out."""
        return (self.root / meds.subject_splits_filepath).is_file()

    def read(self, out: Path, prepare: Prepare | None = None) -> dict[str, Any]:
        """Read the dataset, and write the EVENTS table into the folder `out`; see `Source.read`."""
        prepare = prepare or Prepare()
        columns = self._columns()
        files = list(columns)
        encounter = stay_column(columns, self.encounter)
        name, splits, descriptions = dataset_name(self.root), read_splits(self.root), read_descriptions(self.root)
        lines = [*self._describe_files(columns), *describe_columns(columns, self.rules.columns)]
        lines += unknown_splits(self.root, splits)
        writer = events.EventsWriter(out, prepare)
        staged = self._stage(files, encounter, prepare, out)
        events.refuse_shared(files, [part.subjects for part in staged])
        for number, part in enumerate(staged):
            writer.add(f"file-{number}", part.folder / "rows", part.counts)
        total = {name: sum(part.counts[name] for part in staged) for name in staged[0].counts}
        if not total["rows"]:
            raise SchemaError(f"{self.root}: no row is left to read; data.source.rename leaves all of them out")
        texts = self._texts(staged, descriptions)
        writer.finish(lambda code: texts.get(code, ""), name)
        if splits is not None:
            pq.write_table(splits, out / meds.subject_splits_filepath)
        if not prepare.keep:
            for part in staged:
                shutil.rmtree(part.folder)
        lines += self._describe_rows(total, staged)
        equal = f"{self.root}: {total['duplicates']:,} rows are equal to another row; they are kept"
        for line in [*lines, equal] if total["duplicates"] else lines:
            say(line)
        return {"tables": {"data": {"files": len(files), **total}}, "missing": lines}

    def _stage(self, files: list[Path], encounter: str | None, prepare: Prepare, out: Path) -> list[Staged]:
        """Check and stage every file. A file that an earlier, stopped run has staged is not read again."""
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
        listing = list_shards(self.root)
        if not listing.files:
            unread = name_paths(listing.unread, self.root)
            lies = f"; {unread} cannot be read, write it as parquet" if unread else ""
            above = "; give the folder that holds data/" if self.root.name == meds.data_subdirectory else ""
            raise SchemaError(f"{self.root}: no data/**/*.parquet; this is not a MEDS dataset{lies}{above}")
        return listing.files

    def _columns(self) -> dict[Path, Columns]:
        """Return the columns of each file that has a row."""
        files = self._files()
        every = {file: read_columns(file) for file in files}
        columns = {file: found for file, found in every.items() if found.rows}
        if not columns:
            raise SchemaError(f"{self.root}: none of its {len(files)} files under data/ has a row")
        names = {name for found in columns.values() for name in found.kinds}
        for name in self.rules.columns:
            if name not in names:
                raise ConfigError(f"data.source.rename: no file under {self.root} has the column {{{name}}}")
        return columns

    def _texts(self, staged: Sequence[Staged], descriptions: Mapping[str, str]) -> dict[str, str]:
        """Describe EVENTS codes by the dataset's descriptions of the codes from which they were made."""
        new = self.rules.apply(sorted(set().union(*(part.codes for part in staged))))
        pairs = zip(new.source, new.code, strict=True)
        return {code: descriptions[source] for source, code in pairs if source in descriptions}

    def _describe_files(self, columns: Mapping[Path, Columns]) -> list[str]:
        """Describe, in one line each, the files that are not read and the files without a row."""
        listing, data = list_shards(self.root), self.root / meds.data_subdirectory
        empty = [file for file in listing.files if file not in columns]
        lines = [f"{data}: {len(empty)} files have no row ({name_paths(empty, data)})"] if empty else []
        return [*([left_out] if (left_out := listing.describe(data)) else []), *lines]

    def _describe_rows(self, total: Mapping[str, int], staged: Sequence[Staged]) -> list[str]:
        """Explain the counts of rows, one line each."""
        lines = []
        if not total["numbers"]:
            lines.append(f"{self.root}: no row has a number: column numeric_value is missing or empty")
        if n := total["admissions_without_stay"]:
            lines.append(
                f"{self.root}: {n:,} of {total['admissions']:,} admissions name no stay, and belong to no sample; "
                "see data.source.encounter"
            )
        if total["on_fallback"]:
            families: Counter[str] = Counter()
            for part in staged:
                families.update(part.on_fallback)
            hours = f"{self.rules.default_delay:g} h"
            lines.append(
                f"available_time: {total['on_fallback']:,} rows match no pattern of delays and wait {hours}, the "
                f"default: {name_some(families)}; give them a delay in data.source.delays"
            )
        return lines
