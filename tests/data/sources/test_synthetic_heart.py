"""Heart failure gives itself away on the first day, and not by what raises the risk of readmission."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.simulator.heart import NT_PROBNP
from ehrdl.sources.synthetic import write_hospital

FAILURE = ("42833", "I5033")
HOUR = pd.Timedelta(hours=1)


def read(root, table, *times):
    return pd.read_csv(root / f"{table}.csv.gz", parse_dates=list(times), low_memory=False, dtype={"icd_code": str})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("heart") / "h"
    write_hospital(root, n_patients=2000, seed=3, progress=False)
    return root


@pytest.fixture(scope="module")
def stays(root):
    """Admissions with their principal code, NT-proBNP and chest film, if any."""
    codes = read(root, "hosp/diagnoses_icd")
    principal = codes[codes.seq_num == 1].set_index("hadm_id").icd_code
    labs = read(root, "hosp/labevents", "charttime", "storetime")
    tests = labs[labs.itemid == NT_PROBNP].set_index("hadm_id")
    notes = read(root, "note/radiology", "charttime", "storetime")
    films = notes[notes.text.str.contains("CHEST (PA AND LAT)", regex=False)].set_index("hadm_id")
    stays = read(root, "hosp/admissions", "admittime", "dischtime").set_index("hadm_id")
    return stays.assign(
        failure=principal.reindex(stays.index).isin(FAILURE),
        has_labs=stays.index.isin(labs.hadm_id),
        probnp=tests.valuenum.reindex(stays.index),
        tested=tests.storetime.reindex(stays.index),
        film=films.text.reindex(stays.index),
        filmed=films.storetime.reindex(stays.index),
    )


def test_nt_probnp_is_ordered_more_often_and_higher_in_heart_failure(stays):
    able = stays[stays.has_labs]
    share = able.groupby("failure").probnp.apply(lambda values: values.notna().mean())
    assert share[True] == pytest.approx(0.60, abs=0.06)
    assert 0.1 < share[False] < 0.35
    median = able.groupby("failure").probnp.median()
    assert median[True] == pytest.approx(3400, rel=0.2)
    assert median[False] == pytest.approx(380, rel=0.2)


def test_films_name_it_with_misses_and_false_alarms(stays):
    seen = stays.film.dropna().str.contains("consistent with heart failure")
    named = seen.groupby(stays.failure).mean()
    assert named[True] == pytest.approx(0.8, abs=0.07)
    assert named[False] == pytest.approx(0.08, abs=0.04)
    assert stays.film.dropna().str.contains("No ", regex=False).any()  # denials stand beside


def test_both_are_known_within_fourteen_hours_of_admission(stays):
    for column in ("tested", "filmed"):
        lag = (stays[column] - stays.admittime).dropna()
        assert lag.min() > pd.Timedelta(0) and lag.max() < 14 * HOUR


def test_the_risk_of_readmission_has_nothing_to_do_with_it(root, stays):
    truth = pd.read_csv(root / "truth.csv").set_index("hadm_id").dropna(subset=["prob"])
    prob = truth.prob.groupby(stays.probnp.reindex(truth.index).notna())
    error = np.sqrt((prob.std() ** 2 / prob.size()).sum())
    assert abs(prob.mean().diff().iloc[-1]) < 4 * error
