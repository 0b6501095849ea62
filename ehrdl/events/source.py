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
    """A hospital's data in one layout: a folder of `ehrdl/sources/`, or a class of your own."""

    #: Increased by one whenever `read` would write other bytes for the same input. `fingerprint` must include it.
    VERSION: int
    #: The CSV file, beside the class's own file, that maps this layout's codes to channels. None = the file in
    #: `ehrdl/clinical/`, for MIMIC-IV. It is read if `data.concepts` is null. An option may have the same name.
    concepts: str | None = None
    #: The limits of these data for any task, as sentences. Every report prints them under its limits.
    caveats: Sequence[str] = ()

    @abstractmethod
    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Write EVENTS (a MEDS dataset with the extension columns) into the folder `out`.

        A simulator, which knows the true risk, also writes `out/truth.csv`: encounter_id, output, prob.

        Returns:
            What was read, for the manifest. `tables`: for each table, the numbers of `rows` and of rows `on_fallback`.
            `missing`: one line per missing thing. `quality`, if the source itself finds faults in its tables: the
            result of `ehrdl.quality.Finding.to_dict` for each.
        """

    @abstractmethod
    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """Return the identity of the input with VERSION, as the cache key of `read`.

        Args:
            verify: `fast` checks each file's size, time and ends; `full` checks all its bytes.

        Raises:
            SchemaError: the input is missing.
        """

    @classmethod
    def concepts_file(cls) -> Path | None:
        """Return the file of the class's own table of concepts; None = it has none."""
        return Path(inspect.getfile(cls)).with_name(cls.concepts) if cls.concepts else None

    def has_splits(self) -> bool:
        """Return whether the source splits subjects into training, tuning and held-out, and writes that into EVENTS."""
        return False

    def subject_of(self, record: str) -> int:
        """Return the subject_id of a record, given its publisher's name for it, as used in the files of a split.

        Raises:
            ValueError: no record can have that name.
        """
        return int(record)

    def n_bytes(self) -> int:
        """Return the size of the input [bytes], which decides the numbers of shards and processes; 0 = small."""
        return 0
