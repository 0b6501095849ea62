"""The readmission cohort of the MIMIC-IV demo, counted a second time in plain SQL, from the definition alone.

Nothing is shared with the task: no EVENTS, no code sets, no episodes; self-joins on the raw files, not running sums.
"""

import os
from pathlib import Path

import duckdb
import pytest

from ehrdl.engine.options import Prepare
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.tasks.readmission import Readmission

DEMO = Path(os.environ.get("EHRDL_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "mimic-iv-demo-2.2"

pytestmark = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")

TYPES = {
    "admissions": ", types = {'deathtime': 'TIMESTAMP'}",
    "patients": ", types = {'dod': 'DATE'}",
    "diagnoses_icd": ", types = {'icd_code': 'VARCHAR'}",
}
# An episode begins where no earlier stay of the patient reaches this admission or its calendar day.
EPISODES = """
WITH valid AS (SELECT * FROM admissions WHERE dischtime > admittime),
starts AS (
    SELECT subject_id, admittime AS begins, lead(admittime) OVER (PARTITION BY subject_id ORDER BY admittime) AS follows
    FROM valid AS a
    WHERE NOT EXISTS (
        FROM valid AS b
        WHERE b.subject_id = a.subject_id AND b.admittime < a.admittime
            AND (b.dischtime >= a.admittime OR CAST(b.dischtime AS DATE) = CAST(a.admittime AS DATE))))
SELECT row_number() OVER (ORDER BY s.subject_id, s.begins) AS episode, s.subject_id, s.begins,
    max(dischtime) AS ends,
    list(hadm_id) AS stays,
    arg_max(hadm_id, dischtime) AS hadm_id,
    list(admission_type ORDER BY admittime) AS types,
    max(hospital_expire_flag) = 1 OR count(deathtime) > 0 OR count(*) FILTER (discharge_location = 'DIED') > 0 AS died
FROM starts AS s JOIN valid AS v
    ON v.subject_id = s.subject_id AND v.admittime >= s.begins AND (s.follows IS NULL OR v.admittime < s.follows)
GROUP BY s.subject_id, s.begins
"""
OBSERVATION = "('EU OBSERVATION', 'AMBULATORY OBSERVATION', 'DIRECT OBSERVATION')"
INPATIENT = f"""
SELECT *, list_filter(types, lambda t: t NOT IN {OBSERVATION})[1] AS type FROM episodes WHERE type IS NOT NULL
"""
# arg_max skips nulls, and a null disposition counts: it is looked up by its stay.
DISPOSITION = "(SELECT discharge_location FROM admissions AS a WHERE a.hadm_id = e.hadm_id)"
PRINCIPAL = """EXISTS (FROM diagnoses_icd AS d WHERE d.hadm_id = e.hadm_id AND seq_num = 1 AND (
    icd_version = 9 AND regexp_matches(icd_code, '{icd9}')
    OR icd_version = 10 AND regexp_matches(icd_code, '{icd10}')))"""
PSYCHIATRIC = PRINCIPAL.format(icd9="^(29[5-9]|30[0-2]|30[6-9]|31[0-4])", icd10="^(F[2-6][0-9]|F8[0-9]|F9[0-9]|R45851)")
REHABILITATION = PRINCIPAL.format(icd9="^V57", icd10="^Z5189")
CANCER = PRINCIPAL.format(icd9="^(1[4-9][0-9]|20[0-8]|209[0-3]|V58[01])", icd10="^(C[0-8][0-9A-Z]|C9[0-6A-Z]|Z51[01])")
SURGERY = """EXISTS (FROM services AS s WHERE list_contains(e.stays, s.hadm_id) AND curr_service IN
    ('CSURG', 'DENT', 'ENT', 'EYE', 'GU', 'GYN', 'NSURG', 'ORTHO', 'PSURG', 'SURG', 'TRAUM', 'TSURG', 'VSURG'))"""
DELIVERY = """EXISTS (FROM diagnoses_icd AS d WHERE list_contains(e.stays, d.hadm_id) AND (
    icd_version = 9 AND regexp_matches(icd_code, '^(650|V27)')
    OR icd_version = 10 AND regexp_matches(icd_code, '^(O80|O82|Z37)')))"""
EXCLUDED = f"coalesce({DISPOSITION} IN ('ACUTE HOSPITAL', 'AGAINST ADVICE', 'HOSPICE'), false)"

RULES = {
    "age": "anchor_age + year(begins) - anchor_year >= 18",
    "alive": "NOT died AND (dod IS NULL OR dod >= CAST(ends AS DATE))",
    "excluded: disposition": f"NOT {EXCLUDED}",
    "excluded: psychiatric": f"NOT {PSYCHIATRIC}",
    "excluded: rehabilitation": f"NOT {REHABILITATION}",
    "excluded: cancer": f"NOT ({CANCER} AND NOT {SURGERY})",
    "excluded: delivery": f"NOT {DELIVERY}",
}
AT_RISK = """(dod IS NULL OR dod > CAST(e.ends + INTERVAL 24 HOUR AS DATE)) AND NOT EXISTS (
    FROM inpatient AS n WHERE n.subject_id = e.subject_id AND n.begins > e.ends
        AND n.begins <= e.ends + INTERVAL 24 HOUR)"""
LABELS = """
SELECT e.hadm_id, e.ends + INTERVAL {hours} HOUR, coalesce((
    SELECT n.type NOT IN ('ELECTIVE', 'SURGICAL SAME DAY ADMISSION') AND n.begins <= e.ends + INTERVAL 30 DAY
    FROM inpatient AS n WHERE n.subject_id = e.subject_id AND n.begins > e.ends ORDER BY n.begins LIMIT 1), false)
FROM cohort AS e WHERE {at_risk} ORDER BY e.subject_id, e.ends
"""


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    out = tmp_path_factory.mktemp("events")
    tables = ["hosp/services", "hosp/diagnoses_icd", "icu/icustays"]
    Mimic4(root=str(DEMO), tables=tables).read(out, Prepare(cache=str(tmp_path_factory.mktemp("tables"))))
    with duckdb.connect() as con:
        yield con.read_parquet(str(out / "data" / "**" / "*.parquet"))


@pytest.fixture(scope="module")
def raw():
    with duckdb.connect() as con:
        for table in ("admissions", "patients", "services", "diagnoses_icd"):
            con.execute(f"CREATE VIEW {table} AS FROM read_csv('{DEMO}/hosp/{table}.csv.gz' {TYPES.get(table, '')})")
        con.execute(f"CREATE TABLE episodes AS {EPISODES}")
        con.execute(f"CREATE TABLE inpatient AS {INPATIENT}")
        con.execute("CREATE TABLE cohort AS SELECT * FROM inpatient JOIN patients USING (subject_id)")
        yield con


@pytest.fixture(scope="module")
def flow(raw):
    """Admissions and subjects after each step; the table `cohort` is what is left."""

    def count(table, where="true"):
        return raw.execute(f"SELECT count(*), count(DISTINCT subject_id) FROM {table} WHERE {where}").fetchone()

    counts = {
        "admissions": count("admissions"),
        "dated": count("admissions", "dischtime > admittime"),
        "episode": count("episodes"),
        "inpatient": count("inpatient"),
    }
    for step, rule in RULES.items():
        raw.execute(f"CREATE OR REPLACE TABLE cohort AS SELECT * FROM cohort AS e WHERE {rule}")
        counts[step] = count("cohort")
    return counts


def same(samples, expected):
    columns = samples[["encounter_id", "prediction_time", "label_readmission"]].itertuples(index=False)
    assert [(stay, time.to_pydatetime(), label == 1) for stay, time, label in columns] == expected
    assert sum(label for *_, label in expected) > 0


def test_the_flow_chart_and_labels_of_the_demo_equal_those_of_plain_sql(events, flow, raw):
    result = Readmission().label(events)
    assert {step.step: (step.admissions, step.subjects) for step in result.flow} == flow
    same(result.samples, raw.execute(LABELS.format(hours=0, at_risk="true")).fetchall())


def test_note_complete_of_the_demo_equals_plain_sql(events, flow, raw):
    result = Readmission(variant="note_complete").label(events)
    expected = raw.execute(LABELS.format(hours=24, at_risk=AT_RISK)).fetchall()
    assert (result.flow[-1].step, result.flow[-1].admissions) == ("at risk at t0", len(expected))
    assert 0 < len(expected) < flow["excluded: delivery"][0]
    same(result.samples, expected)
