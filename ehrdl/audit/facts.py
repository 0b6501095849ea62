"""Copies of the EVENTS of a few patients, one as they are and one in which everything after the cut is changed.

A copy begins at EVENTS, so that all later steps (series store, notes, records, static features, tables, tensors) are
made again from it. The copy is written into the cache, which holds the same patients' data anyway.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ehrdl.engine.database import connect
from ehrdl.engine.options import Prepare
from ehrdl.engine.paths import scan
from ehrdl.events.listing import shard_files
from ehrdl.schema import EVENTS, EVENTS_ORDER, HELD_OUT

#: The largest number of patients whose facts are copied.
MOST_PATIENTS = 200
#: Codes that hospitals assign after the discharge of the stay: ICD diagnoses and procedures, DRGs and HCPCS codes.
BILLED = "regexp_matches(code, '^(DIAGNOSIS|DRG|HCPCS)//|^PROCEDURE//ICD')"
_COLUMNS = ", ".join(EVENTS.names())
_FACTS = f"""
    CREATE TEMP TABLE found AS
        SELECT e.*, t0, stay FROM {{rows}} AS e JOIN chosen ON e.subject_id = chosen.subject;
    CREATE TEMP TABLE stays AS
        SELECT subject_id, encounter_id, max(time) AS ended FROM found
        WHERE starts_with(code, 'DISCHARGE//') AND encounter_id IS NOT NULL GROUP BY ALL;
    CREATE TEMP TABLE fact AS
        SELECT found.*, coalesce({BILLED} AND encounter_id = stay AND ended >= t0, false) AS own,
            coalesce(available_time > t0, false) AS later,
            row_number() OVER (ORDER BY {", ".join(f"found.{name}" for name in EVENTS_ORDER)}) AS number
        FROM found LEFT JOIN stays USING (subject_id, encounter_id);
    -- Of each family of codes, those that are added after the cut, with a value that stands out.
    CREATE TEMP TABLE added AS
        SELECT code, 1.5 * median(numeric_value) + 1 AS numeric_value,
            CASE WHEN count(text_value) > 0 THEN 'Added after the prediction: ' || code END AS text_value
        FROM fact WHERE time IS NOT NULL GROUP BY code
        QUALIFY row_number() OVER (PARTITION BY split_part(code, '//', 1) ORDER BY count(*) DESC, code) <= 20;
"""
_UNCHANGED = f"SELECT {_COLUMNS} FROM fact"
#: What is not visible is deleted or changed, and facts are added that happened before the cut and came after it.
_CHANGED = f"""
    SELECT {_COLUMNS} FROM fact WHERE NOT later AND NOT own
    UNION ALL
    SELECT {_COLUMNS} FROM (SELECT * REPLACE (CAST(1.7 * numeric_value + 3 AS FLOAT) AS numeric_value,
        'Changed after the prediction. ' || reverse(text_value) AS text_value) FROM fact)
    WHERE later AND NOT own AND number % 2 = 0
    UNION ALL
    SELECT subject AS subject_id, t0 - INTERVAL 1 HOUR AS time, code, CAST(numeric_value AS FLOAT) AS numeric_value,
        text_value, t0 + INTERVAL 1 MICROSECOND AS available_time, stay AS encounter_id FROM chosen CROSS JOIN added
"""


@dataclass(frozen=True)
class Copies:
    """The two copies of the EVENTS of some patients, and what was counted in them.

    Attributes:
        chosen: the samples whose predictions are compared, one per patient: rows of SAMPLES.
        unchanged, changed: the EVENTS folders.
        counts: `n_facts`, `n_early`, `n_codes`, `n_visible` and `n_changed`.
        examples: a family of codes for `n_early` and `n_visible`, by the name of their checks.
    """

    chosen: pd.DataFrame
    unchanged: Path
    changed: Path
    counts: dict[str, int]
    examples: dict[str, str]


def choose(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return one random held-out sample of each of at most `MOST_PATIENTS` random patients, in the order of SAMPLES."""
    shuffled = samples[samples.split == HELD_OUT].sample(frac=1, random_state=np.random.default_rng(seed))
    return shuffled.drop_duplicates("subject_id").head(MOST_PATIENTS).sort_index()


def copy_facts(events: Path, chosen: pd.DataFrame, out: Path, prepare: Prepare) -> Copies:
    """Write both copies of the facts of the chosen samples' patients into `out`, and count what the checks need.

    Args:
        events: the EVENTS folder of the run.
        chosen: the samples, one per patient.
        out: the folder of the copies.
        prepare: the options of data preparation.
    """
    names = {"subject_id": "subject", "encounter_id": "stay", "prediction_time": "t0"}
    with connect(prepare, out) as con:
        con.register("chosen", chosen[list(names)].rename(columns=names))
        con.execute(_FACTS.format(rows=scan(shard_files(events))))
        unchanged = _write(con, _UNCHANGED, events, out / "events-unchanged")
        changed = _write(con, _CHANGED, events, out / "events-changed")
        counts, examples = _count(con)
    return Copies(chosen, unchanged, changed, counts, examples)


def _write(con: duckdb.DuckDBPyConnection, rows: str, events: Path, folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    order = ", ".join(f"{name} NULLS FIRST" for name in EVENTS_ORDER)
    pq.write_table(con.sql(f"FROM ({rows}) ORDER BY {order}").to_arrow_table(), folder / "data" / "0.parquet")
    shutil.copyfile(events / "source.json", folder / "source.json")
    return folder


def _count(con: duckdb.DuckDBPyConnection) -> tuple[dict[str, int], dict[str, str]]:
    early, visible = "available_time < time", "own AND NOT later"
    [numbers] = con.execute(f"""
        SELECT count(*) FILTER (time IS NOT NULL), count(*) FILTER ({early}), count(*) FILTER (own),
            count(*) FILTER ({visible}), count(*) FILTER (later OR own) + (SELECT count(*) FROM added, chosen),
            min(split_part(code, '//', 1)) FILTER ({early}), min(split_part(code, '//', 1)) FILTER ({visible})
        FROM fact""").fetchall()
    counts = dict(zip(("n_facts", "n_early", "n_codes", "n_visible", "n_changed"), numbers, strict=False))
    return counts, {"early": numbers[5] or "", "own_codes": numbers[6] or ""}
