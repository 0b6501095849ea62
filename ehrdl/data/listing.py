"""Which files a MEDS dataset is, listed once for all who fingerprint, check or read them."""

from __future__ import annotations

from pathlib import Path

from meds import schema as meds


def shard_files(root: Path) -> list[Path]:
    """The shards of a MEDS dataset or an EVENTS folder, sorted; none where there are none."""
    return sorted((root / meds.data_subdirectory).glob("**/*.parquet"))
