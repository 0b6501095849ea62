"""The interface of a source: a hospital's tables in, EVENTS out."""

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

    #: Increased by one whenever `read` would write other bytes for the same input; `fingerprint` must include it.
    VERSION: int
    #: The CSV beside the class's file that maps this layout's codes to channels; None = the one in `ehrdl/clinical/`,
    #: for MIMIC-IV. It is read if `data.concepts` is null. An option may have the same name.
    concepts: str | None = None
    #: The limits of these data for any task: sentences that every report prints under its limits.
    caveats: Sequence[str] = ()

    @abstractmethod
    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Write EVENTS (a MEDS dataset with the extension columns) into the folder `out`.

        A simulator, which knows the answer, also writes `out/truth.csv`: encounter_id, output, prob.

        Returns:
            What was read, for the manifest: `tables` (for each table the numbers of `rows` and of rows `on_fallback`),
            `missing` (one line per missing thing) and, if the source itself finds faults in its tables, `quality`
            (`ehrdl.quality.Finding.to_dict` of each).
        """

    @abstractmethod
    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """The identity of the input, and VERSION: the cache key of `read`. Raises SchemaError if the input is missing.

        Args:
            verify: `fast` checks each file's size, time and ends; `full` checks all its bytes.
        """

    @classmethod
    def concepts_file(cls) -> Path | None:
        """The file of the class's own table of concepts; None = it has none."""
        return Path(inspect.getfile(cls)).with_name(cls.concepts) if cls.concepts else None

    def has_splits(self) -> bool:
        """Whether the source itself splits subjects into training, tuning and held-out, and writes that into EVENTS."""
        return False

    def subject_of(self, record: str) -> int:
        """The subject_id of a record by its publisher's name for it, as the files of a split list it.

        Raises:
            ValueError: no record can have that name.
        """
        return int(record)

    def n_bytes(self) -> int:
        """Size of the input [bytes], which decides the numbers of shards and processes; 0 = small."""
        return 0
