"""What a source is: a hospital's tables in, EVENTS out."""

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

    #: Raised by one whenever `read` would write other bytes for the same input; `fingerprint` must hold it.
    VERSION: int
    #: The CSV beside the class's file that says which of this layout's codes is which channel; None = the one of
    #: `ehrdl/clinical/`, for MIMIC-IV. Read where `data.concepts` is null. An option may have the same name.
    concepts: str | None = None
    #: What these data cannot tell, whatever the task: sentences that every report prints under its limits.
    caveats: Sequence[str] = ()

    @abstractmethod
    def read(self, out: Path, prepare: Prepare) -> dict[str, Any]:
        """Write EVENTS (a MEDS dataset with the extension columns) into the folder `out`.

        A simulator, which knows the answer, also writes `out/truth.csv`: encounter_id, output, prob.

        Returns:
            What was read, for the manifest: `tables` (a table each: its numbers of `rows`, and of rows `on_fallback`),
            `missing` (a line on each thing that is not there), and where the source itself finds what its tables cannot
            mean, `quality` (`ehrdl.quality.Finding.to_dict` of each).
        """

    @abstractmethod
    def fingerprint(self, verify: str = "fast") -> dict[str, Any]:
        """What the input is, and VERSION: the cache key of `read`. Raises SchemaError if the input is not there.

        Args:
            verify: `fast` looks at each file's size, time and ends; `full` at all its bytes.
        """

    @classmethod
    def concepts_file(cls) -> Path | None:
        """The file of the class's own table of concepts; None = it has none."""
        return Path(inspect.getfile(cls)).with_name(cls.concepts) if cls.concepts else None

    def has_splits(self) -> bool:
        """Whether the source itself says who trains, tunes and is held out, and writes it into EVENTS."""
        return False

    def subject_of(self, record: str) -> int:
        """The subject_id of a record by the name that the data's publisher gives it, as files of a split list it.

        Raises:
            ValueError: there can be no record of that name.
        """
        return int(record)

    def n_bytes(self) -> int:
        """Size of the input [bytes], which decides over shards and processes; 0 = little."""
        return 0
