"""Length of ICU stay and mortality in the MIMIC-IV demo, counted a second time in plain SQL on the raw files."""

import os
from pathlib import Path

import duckdb
import pytest

from ehrdl.engine.options import Prepare
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.tasks.length_of_stay import IcuStays, LengthOfStay
from ehrdl.tasks.mortality import Mortality

DEMO = Path(os.environ.get("EHRDL_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "mimic-iv-demo-2.2"

pytestmark = pytest.mark.skipif(not DEMO.is_dir(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")

COUNTED = """
WITH stays AS (
    SELECT i.subject_id, i.hadm_id, i.intime, i.intime + INTERVAL 24 HOUR AS t0, i.outtime, a.deathtime, p.dod,
        row_number() OVER (PARTITION BY i.hadm_id ORDER BY i.intime) AS number,
        anchor_age + year(admittime) - anchor_year AS age
    FROM read_csv('{root}/icu/icustays.csv.gz') AS i
    JOIN read_csv('{root}/hosp/admissions.csv.gz', types = {{'deathtime': 'TIMESTAMP'}}) AS a USING (hadm_id)
    JOIN read_csv('{root}/hosp/patients.csv.gz', types = {{'dod': 'DATE'}}) AS p ON p.subject_id = i.subject_id)
SELECT hadm_id, epoch(outtime - t0) / 86400 AS days FROM stays
WHERE ({every} OR number = 1) AND age >= 18 AND outtime > t0
    AND (deathtime IS NULL OR deathtime > t0) AND (dod IS NULL OR dod >= CAST(t0 AS DATE))
ORDER BY stays.subject_id, t0
"""


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    Mimic4(str(DEMO)).read(root, Prepare(cache=str(root), n_shards=1))
    return duckdb.sql(f"SELECT * FROM read_parquet('{root}/data/**/*.parquet')")


@pytest.mark.parametrize("every", [False, True])
def test_it_is_the_time_from_a_day_after_intime_to_outtime(events, every):
    expected = duckdb.execute(COUNTED.format(root=DEMO, every=every)).df()
    samples = LengthOfStay(icu=IcuStays(first_only=not every)).label(events).samples
    assert len(expected) > 80
    assert samples.encounter_id.tolist() == expected.hadm_id.tolist()
    assert samples.label_length_of_stay.tolist() == pytest.approx(expected.days.tolist(), abs=1e-4)
    assert samples.label_over_3_days.tolist() == (expected.days > 3).tolist()


@pytest.mark.parametrize("hours", [24, 48])
def test_mortality_is_the_hospital_expire_flag_of_those_who_are_still_in_the_icu(events, hours):
    counted = COUNTED.replace("INTERVAL 24 HOUR", f"INTERVAL {hours} HOUR")
    counted = counted.replace("a.deathtime, p.dod", "a.deathtime, p.dod, a.hospital_expire_flag AS died")
    counted = counted.replace("epoch(outtime - t0) / 86400 AS days", "died")
    expected = duckdb.execute(counted.format(root=DEMO, every=False)).df()
    samples = Mortality(hours=hours).label(events).samples
    assert len(expected) > 40 and expected.died.sum() > 5
    assert samples.encounter_id.tolist() == expected.hadm_id.tolist()
    assert samples.label_mortality.tolist() == expected.died.tolist()
