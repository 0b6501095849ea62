"""DuckDB connections with a memory limit. Data that exceed the limit go to temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ehrdl.engine.files import SPILL
from ehrdl.engine.options import Prepare, n_cores
from ehrdl.engine.paths import plain

if TYPE_CHECKING:
    import duckdb


@contextmanager
def connect(prepare: Prepare, spill: Path | None = None, share: int = 1) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB connection with a memory limit. Temporary files are removed when the connection closes.

    Args:
        prepare: the options of data preparation, which set the memory limit.
        spill: the folder for temporary files, which must exist; None = the temporary folder of the system.
        share: the number of processes on this machine that work at the same time. Each gets an equal share of the
            memory and the cores. A worker of a cluster always has the full memory limit and one core.
    """
    import duckdb

    on_cluster = prepare.engine != "local"
    memory_gb = prepare.memory_gb if on_cluster else prepare.memory_gb / share

    with tempfile.TemporaryDirectory(prefix=SPILL, dir=spill) as folder:
        config: dict[str, Any] = {
            "memory_limit": f"{round(memory_gb * 1000)}MB",
            "temp_directory": plain(Path(folder)),
            "preserve_insertion_order": False,
        }
        if on_cluster or share > 1:
            config["threads"] = 1 if on_cluster else max(1, n_cores() // share)
        con = duckdb.connect(config=config)
        try:
            yield con
        finally:
            con.close()
