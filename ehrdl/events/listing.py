"""Lists the shards (Parquet files) of a MEDS dataset or an EVENTS folder, for all code that reads them."""

from __future__ import annotations

from pathlib import Path

from meds import schema as meds

from ehrdl.engine.parquet import Listing, list_parquet


def list_shards(root: Path) -> Listing:
    """List the contents of the folder `data` in `root`. The list is empty if there is no such folder."""
    data = root / meds.data_subdirectory
    return list_parquet(data) if data.is_dir() else Listing()


def shard_files(root: Path) -> list[Path]:
    """Return the sorted paths of the shards (Parquet files) of a MEDS dataset or an EVENTS folder."""
    return list_shards(root).files
