"""Tools for files and tables: DuckDB, caches, atomic writes, shards, messages. None of them is specific to medicine."""

from ehrdl.lazy import lazily

_WHERE = {
    **dict.fromkeys(("cache_folder", "cached", "check_disk"), "cache"),
    **dict.fromkeys(("building", "digest", "fingerprint", "free_folder", "read_json", "sweep", "whole"), "files"),
    **dict.fromkeys(("write_json", "write_text"), "files"),
    **dict.fromkeys(("has_terminal", "mute", "progress", "say", "staged"), "messages"),
    **dict.fromkeys(("Engine", "Prepare", "n_cores"), "options"),
    "connect": "database",
}
__all__ = [*_WHERE]
__getattr__, __dir__ = lazily(__name__, _WHERE)
