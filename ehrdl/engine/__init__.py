"""How work on files and tables is done: DuckDB, caches, atomic files, shards, messages. Nothing here knows medicine."""
