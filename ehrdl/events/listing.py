"""Lists the shards of a MEDS dataset or an EVENTS folder, in one place for all readers."""

from __future__ import annotations

from pathlib import Path

from meds import schema as meds

from ehrdl.engine.parquet import Listing, list_parquet


def list_shards(root: Path) -> Listing:
    """List the content of `data/`; nothing if there is no such folder."""
    data = root / meds.data_subdirectory
    return list_parquet(data) if data.is_dir() else Listing()


def shard_files(root: Path) -> list[Path]:
    """Return the shards, sorted; empty if there are none."""
    return list_shards(root).files
