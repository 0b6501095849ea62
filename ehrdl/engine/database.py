"""DuckDB with a memory limit, and a folder for data that exceed it."""

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
    """Open a DuckDB connection with a memory limit; its temporary files are removed when it closes.

    Args:
        prepare: the options, with the memory limit.
        spill: the folder for temporary files, which must exist.
        share: the number of processes of this machine that work at the same time. Each gets an equal share of the
            memory and the cores. A cluster worker has its own memory, and one core.
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
