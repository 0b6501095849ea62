"""The heart failure cohort of the MIMIC-IV demo, counted a second time in plain SQL, from the definition alone.

Nothing is shared with the task: no EVENTS, no code sets; self-joins on the raw files, not running minima.
"""

import os
from pathlib import Path

import duckdb
import pytest

from ehrdl.engine.options import Prepare
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.tasks.heart_failure import HeartFailure

DEMO = Path(os.environ.get("EHRDL_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "mimic-iv-demo-2.2"

pytestmark = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")

TABLES = {
    "admissions": ("hosp/admissions", "types = {'deathtime': 'TIMESTAMP'}"),
    "patients": ("hosp/patients", "types = {'dod': 'DATE'}"),
    "diagnoses": ("hosp/diagnoses_icd", "types = {'icd_code': 'VARCHAR'}"),
    "labs": ("hosp/labevents", "types = {'value': 'VARCHAR'}"),
    "drugs": ("hosp/prescriptions", "all_varchar = true"),
    "infusions": ("icu/inputevents", "types = {'starttime': 'TIMESTAMP'}"),
}
FAILURE = """(icd_version = 9 AND regexp_matches(icd_code, '^(428|402[019]1|404[019][13]|39891)')
    OR icd_version = 10 AND regexp_matches(icd_code, '^(I50|I110|I13[02]|I0981)'))"""
STAYS = f"""
SELECT a.*, p.dod, anchor_age + year(admittime) - anchor_year AS age, admittime + INTERVAL 24 HOUR AS t0,
    greatest(dischtime, coalesce(deathtime, dischtime)) AS ends,
    EXISTS (FROM diagnoses AS d WHERE d.hadm_id = a.hadm_id AND {FAILURE}) AS failed,
    EXISTS (FROM diagnoses AS d WHERE d.hadm_id = a.hadm_id AND seq_num = 1 AND {FAILURE}) AS failed_first
FROM admissions AS a JOIN patients AS p USING (subject_id)
"""
EARLIER = "(FROM stays AS b WHERE b.subject_id = a.subject_id AND b.admittime < a.admittime {})"
RULES = {
    "age": "age >= 18",
    "in hospital": "ends > t0",
    "alive": "(deathtime IS NULL OR deathtime > t0) AND (dod IS NULL OR dod >= CAST(t0 AS DATE))",
    "no earlier heart failure": f"NOT EXISTS {EARLIER.format('AND failed')}",
    "incident": f"EXISTS {EARLIER.format('')}",
}
EVIDENCE = {
    "evidence: note": "true",
    "evidence: nt_probnp": """NOT EXISTS (FROM labs WHERE subject_id = a.subject_id AND itemid = 50963
            AND charttime <= t0)""",
    "evidence: iv_loop_diuretic": """NOT EXISTS (FROM infusions WHERE subject_id = a.subject_id AND starttime <= t0
            AND itemid IN (221794, 228340, 229639))
        AND NOT EXISTS (FROM drugs WHERE CAST(subject_id AS BIGINT) = a.subject_id
            AND CAST(starttime AS TIMESTAMP) <= t0 AND route IN ('IV', 'IV DRIP', 'IV BOLUS')
            AND regexp_matches(lower(drug), '^(furosemide|bumetanide|torsemide|ethacryn)'))""",
}


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    out = tmp_path_factory.mktemp("events")
    tables = ["hosp/diagnoses_icd", "icu/icustays", "hosp/labevents", "hosp/prescriptions", "icu/inputevents"]
    Mimic4(root=str(DEMO), tables=tables).read(out, Prepare(cache=str(tmp_path_factory.mktemp("tables"))))
    with duckdb.connect() as con:
        yield con.read_parquet(str(out / "data" / "**" / "*.parquet"))


@pytest.fixture(scope="module")
def raw():
    with duckdb.connect() as con:
        for name, (path, options) in TABLES.items():
            con.execute(f"CREATE VIEW {name} AS FROM read_csv('{DEMO}/{path}.csv.gz', {options})")
        con.execute(f"CREATE TABLE stays AS {STAYS}")
        yield con


def counted(raw, rules):
    """Admissions and subjects after each step, and the stays that are left, with their label in both positions."""
    steps, where = {"admissions": "true"}, []
    counts = {}
    for step, rule in (steps | rules).items():
        where.append(f"({rule})")
        kept = f"FROM stays AS a WHERE {' AND '.join(where)}"
        counts[step] = raw.execute(f"SELECT count(*), count(DISTINCT subject_id) {kept}").fetchone()
    rows = raw.execute(f"SELECT hadm_id, t0, failed, failed_first {kept} ORDER BY subject_id, t0, hadm_id").fetchall()
    return counts, rows


@pytest.mark.parametrize("position", ["any", "principal"])
@pytest.mark.parametrize("exclude_evidence", [False, True])
def test_the_flow_chart_and_labels_of_the_demo_equal_those_of_plain_sql(events, raw, position, exclude_evidence):
    result = HeartFailure(position=position, exclude_evidence=exclude_evidence).label(events)
    counts, rows = counted(raw, RULES | (EVIDENCE if exclude_evidence else {}))
    assert {step.step: (step.admissions, step.subjects) for step in result.flow} == counts
    samples = result.samples[["encounter_id", "prediction_time", "label_heart_failure"]]
    expected = [(stay, t0, any_place if position == "any" else first) for stay, t0, any_place, first in rows]
    assert [(stay, t0.to_pydatetime(), label == 1) for stay, t0, label in samples.itertuples(index=False)] == expected
    assert sum(label for *_, label in expected) > 0 or position == "principal"


def test_first_stays_of_the_demo_equal_those_of_plain_sql(events, raw):
    rules = RULES | {"first stay": RULES["incident"].replace("EXISTS", "NOT EXISTS")}
    del rules["incident"]
    result = HeartFailure(cohort="first_stay").label(events)
    counts, rows = counted(raw, rules)
    assert {step.step: (step.admissions, step.subjects) for step in result.flow} == counts
    assert result.samples["label_heart_failure"].tolist() == [float(failed) for _, _, failed, _ in rows]
