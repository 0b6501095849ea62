"""The interface of a source, which reads a hospital's tables and writes EVENTS."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ehrdl.engine.options import Prepare
from ehrdl.options.bounds import Checked
from ehrdl.recorded import Recorded


class Source(Recorded, Checked, ABC, key="data.source"):
    """The base class of all sources. A source reads a hospital's tables in one layout, and writes them as EVENTS.

    The sources of ehrdl are in `ehrdl/sources/`. You can also write a class of your own.
    """

    #: Increased by one whenever `read` would write other bytes for the same input. `fingerprint` must include it.
    VERSION: int
    #: The CSV file, beside the class's own file, that maps this layout's codes to channels. None = the file in
    #: `ehrdl/clinical/`, for MIMIC-IV. It is read if `data.concepts` is null. An option may have the same name.
    concepts: str | None = None
    #: The limits of these data for any task, as sentences. Every report prints them under its limits.
    caveats: Sequence[str] = ()
    #: The hospitals and the kind of care that the data are of, as a sentence for the report. Empty = unknown.
    setting: str = ""
    #: Why the dates in these data are not the true ones, as a sentence for the report. Empty = they are true.
    dates: str = ""

    @abstractmethod
    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Read the source's tables, and write them as EVENTS into the folder `out`.

        EVENTS is a MEDS dataset with two more columns, available_time and encounter_id. A simulator knows the true
        risks. It also writes them to `out/truth.csv`: encounter_id, output, prob.

        Returns:
            A dict for the run's manifest. `tables` has for each table the number of `rows`, and the number of rows
            `on_fallback`, in which a default rule set available_time. `missing` has one line for each gap in the input,
            such as a missing table. `quality` exists if the source itself finds faults in its tables. It has the result
            of `ehrdl.quality.Finding.to_dict` for each fault.
        """

    @abstractmethod
    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return what identifies the input and the class's VERSION. It is the key of the result of `read` in the cache.

        Args:
            verify: `fast` uses each file's size, modification time, and first and last MiB; `full` uses all its bytes.

        Raises:
            SchemaError: the input is missing.
        """

    @classmethod
    def concepts_file(cls) -> Path | None:
        """Return the CSV file that maps this source's codes to channels; None if the class has no file of its own."""
        return Path(inspect.getfile(cls)).with_name(cls.concepts) if cls.concepts else None

    def has_splits(self) -> bool:
        """Return whether the data come with a split of the subjects, which `read` then writes into EVENTS."""
        return False

    def subject_of(self, record: str) -> int:
        """Return the subject_id of a record, given the name that the record has in the files of a published split.

        Raises:
            ValueError: no record can have that name.
        """
        return int(record)

    def n_bytes(self) -> int:
        """Return the size of the input [bytes]; 0 means that it is small.

        The size decides how many shards and processes are used.
        """
        return 0
