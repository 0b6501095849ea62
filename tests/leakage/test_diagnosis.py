"""Nothing that becomes known after the prediction time of the heart failure task reaches a sample, its codes least."""

import shutil
from dataclasses import fields

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from ehrdl.batch import Batch
from ehrdl.data.features.table import tabulate
from ehrdl.data.loading.collate import Collate
from ehrdl.data.prepare import find_samples, prepare
from ehrdl.schema import HELD_OUT
from ehrdl.tasks.heart_failure import HeartFailure

BILLED = "regexp_matches(code, '^(DIAGNOSIS//|DRG//|HCPCS//|PROCEDURE//ICD)')"


@pytest.fixture(scope="module")
def early(hospital):
    """The small synthetic hospital as this task sees it: its cohort, and what each sample sees."""
    result = find_samples(hospital.events, HeartFailure())
    return result, prepare(hospital.config, hospital.events, result)


def sight(prepared, row):
    """All that a deep model or a baseline gets of one sample."""
    batch = Collate(prepared.dataset.notes, prepared.frame)(prepared.dataset[row])
    seen = {field.name: getattr(batch, field.name).numpy().tobytes() for field in fields(Batch)}
    table = tabulate(prepared.dataset, np.array([row])).iloc[0]
    return seen | {"table": [value if isinstance(value, str) else value.tobytes() for value in table]}


def altered(hospital, name, samples, select):
    """A copy of the EVENTS in which every shard is `select` over `shard` and `samples` (subject, stay, t0)."""
    folder = hospital.events.with_name(name)
    shutil.copytree(hospital.events, folder)
    wanted = samples[["subject_id", "encounter_id", "prediction_time"]].set_axis(["subject", "stay", "t0"], axis=1)
    with duckdb.connect() as con:
        con.register("samples", wanted)
        for file in (folder / "data").glob("*.parquet"):
            con.register("shard", con.from_arrow(pq.read_table(file)))
            pq.write_table(con.sql(select).to_arrow_table(), file)
    return folder


#: Every event after t0 of patients in `samples` is deleted, and just after t0 the worst that could leak is added.
REWRITTEN = """
    WITH before AS (
        SELECT shard.* FROM shard LEFT JOIN samples ON subject = subject_id
        WHERE t0 IS NULL OR available_time IS NULL OR available_time <= t0),
    after AS (
        SELECT shard.* REPLACE (
            t0 - INTERVAL 1 HOUR AS time, t0 + INTERVAL 1 MICROSECOND AS available_time, stay AS encounter_id,
            added.code AS code, added.number AS numeric_value, added.body AS text_value)
        FROM (SELECT DISTINCT ON (subject_id) * FROM shard) AS shard JOIN samples ON subject = subject_id
        CROSS JOIN (VALUES ('DIAGNOSIS//ICD10//I509', 1, NULL), ('LAB//50963//pg/mL', 30000, NULL),
            ('LAB//50912//mg/dL', 9, NULL), ('NOTE//radiology//RR', NULL, 'Acute heart failure.'),
            ('NOTE//discharge//DS', NULL, 'Discharge Diagnosis: heart failure.')) AS added(code, number, body))
    FROM before UNION ALL FROM after
    ORDER BY subject_id, time NULLS FIRST, available_time, code"""


def test_changing_or_adding_any_event_after_t0_changes_nothing_of_what_a_sample_sees(hospital, early):
    result, ours = early
    held_out = ours.samples[ours.samples.split == HELD_OUT]
    first = held_out.drop_duplicates("subject_id")
    theirs = prepare(hospital.config, altered(hospital, "events-after-t0", first, REWRITTEN), result)
    assert len(first) > 20 and set(first.label_heart_failure) == {0.0, 1.0}
    assert len(theirs.dataset.store.value) != len(ours.dataset.store.value)
    assert any("heart failure." in text for text in theirs.dataset.notes.texts(range(len(theirs.dataset.notes))))
    assert theirs.spec == ours.spec
    for row in first.index:
        assert sight(theirs, row) == sight(ours, row)


def test_codes_without_any_coding_lag_still_come_with_the_discharge_and_change_nothing(hospital, early):
    result, ours = early
    now = f"SELECT * REPLACE (CASE WHEN {BILLED} THEN time ELSE available_time END AS available_time) FROM shard"
    folder = altered(hospital, "events-no-lag", ours.samples, now)
    with duckdb.connect() as con:
        con.register("samples", ours.samples)
        own = con.execute(f"""
            SELECT count(*), min(available_time - prediction_time) > INTERVAL 0 SECOND
            FROM read_parquet('{folder}/data/*.parquet') AS events JOIN samples USING (subject_id, encounter_id)
            WHERE {BILLED}""").fetchone()
    assert own[0] >= len(ours.samples) and own[1]
    theirs = prepare(hospital.config, folder, result)
    assert theirs.spec == ours.spec
    for row in range(0, len(ours.samples), 5):
        assert sight(theirs, row) == sight(ours, row)


def test_codes_are_hidden_by_name_too(hospital, early):
    """Where the discharge is written down as midnight, hours before the death, t0 can lie between the two."""
    with duckdb.connect() as con:
        events = con.read_parquet(f"{hospital.events}/data/*.parquet")
        billed = [code for (code,) in events.filter(BILLED).project("code").distinct().fetchall()]
    assert billed and all(code.startswith(early[0].hidden_codes) for code in billed)
