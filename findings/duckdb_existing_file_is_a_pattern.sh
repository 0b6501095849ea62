#!/usr/bin/env bash
# DuckDB 2.0.1: a path handed to read_parquet is a pattern, also where a file of exactly that name exists.
# Seen: two files, `ward[1]/x.parquet` (140) and `ward1/x.parquet` (420); asked for the first, DuckDB reads the second.
# What helps: `[[]` for each `[` (likewise `[*]`, `[?]`), with which the named file is read.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q duckdb==2.0.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import os

import duckdb

for folder, value in (("ward[1]", 140), ("ward1", 420)):
    os.makedirs(folder)
    duckdb.execute(f"COPY (SELECT {value} AS value) TO '{folder}/x.parquet'")
assert os.path.isfile("ward[1]/x.parquet")
read = duckdb.execute("SELECT value FROM read_parquet('ward[1]/x.parquet')").fetchall()
escaped = duckdb.execute("SELECT value FROM read_parquet('ward[[]1]/x.parquet')").fetchall()
print("asked for ward[1]/x.parquet (140), read:", read, "; with [[] for [:", escaped)
assert read == [(420,)] and escaped == [(140,)], "DuckDB has changed"
PY
