"""The synthetic hospital says what it claims: its tables, its outcomes, its exact risks, and its quirks."""

import gzip
import hashlib
import os
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ehrdl.errors import ConfigError
from ehrdl.simulator import phrases, risk
from ehrdl.simulator.files import columns
from ehrdl.simulator.illness import CONDITIONS
from ehrdl.simulator.stays import simulate
from ehrdl.simulator.text import summary
from ehrdl.sources.synthetic import write_hospital

DEMO = Path(os.environ.get("EHRDL_DATA", "../shared/data")) / "mimic-iv-demo-2.2"
OBSERVED_ONLY = ("EU OBSERVATION", "AMBULATORY OBSERVATION", "DIRECT OBSERVATION")
PLANNED = ("ELECTIVE", "SURGICAL SAME DAY ADMISSION")
TABLES = [
    *(f"hosp/{name}" for name in ("patients", "admissions", "labevents", "diagnoses_icd", "services", "transfers")),
    *("hosp/d_labitems", "hosp/d_icd_diagnoses", "icu/icustays", "icu/chartevents", "icu/d_items"),
]
DAY = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("hospital") / "h"
    write_hospital(root, n_patients=2500, seed=11, progress=False)
    return root


def read(root, table, *times):
    return pd.read_csv(root / f"{table}.csv.gz", parse_dates=list(times), low_memory=False)


@pytest.fixture(scope="module")
def truth(root):
    return pd.read_csv(root / "truth.csv").set_index("hadm_id")


@pytest.fixture(scope="module")
def episodes(root):
    """Episodes by the rule of the task, written from its definition alone: a plain loop over the admissions."""
    table = read(root, "hosp/admissions", "admittime", "dischtime", "deathtime")
    table = table[table.dischtime > table.admittime].sort_values(["subject_id", "admittime"])
    found: list[dict] = []
    for stay in table.itertuples():
        here = found[-1] if found and found[-1]["subject_id"] == stay.subject_id else None
        if here and (stay.admittime <= here["end"] or stay.admittime.date() == here["end"].date()):
            here["stays"].append(stay)
            here["end"] = max(here["end"], stay.dischtime)
        else:
            found.append(
                {"subject_id": stay.subject_id, "start": stay.admittime, "end": stay.dischtime, "stays": [stay]}
            )
    for episode in found:
        stays = episode.pop("stays")
        inpatient = [stay for stay in stays if stay.admission_type not in OBSERVED_ONLY]
        episode["hadm_id"], episode["n_stays"] = stays[-1].hadm_id, len(stays)
        episode["type"] = inpatient[0].admission_type if inpatient else None
        episode["place"] = stays[-1].discharge_location
        episode["died"] = any(
            stay.hospital_expire_flag or stay.discharge_location == "DIED" or pd.notna(stay.deathtime) for stay in stays
        )
    return pd.DataFrame(found)


@pytest.fixture(scope="module")
def index(episodes, truth):
    """Inpatient episodes that end alive, their label by the rule of the task, and the truth."""
    kept = episodes[episodes.type.notna()].copy()
    following = kept.groupby("subject_id")[["start", "type"]].shift(-1)
    gap = following.start - kept.end
    kept["label"] = ((gap > 0 * DAY) & (gap <= 30 * DAY) & ~following.type.isin(PLANNED)).astype(int)
    return kept[~kept.died].join(truth.drop(columns="subject_id"), on="hadm_id")


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    def digest(name, seed):
        write_hospital(tmp_path / name, n_patients=40, seed=seed, progress=False)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        assert len(files) == 14
        return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]

    assert digest("a", 3) == digest("b", 3)
    assert digest("a2", 3) != digest("c", 4)


def test_note_length_changes_nothing_but_the_discharge_notes(tmp_path):
    write_hospital(tmp_path / "short", n_patients=30, note_tokens=(40, 60), progress=False)
    write_hospital(tmp_path / "long", n_patients=30, note_tokens=(1500, 1600), progress=False)
    for table in (*TABLES, "note/radiology"):
        short, long = ((tmp_path / name / f"{table}.csv.gz").read_bytes() for name in ("short", "long"))
        assert table == "note/radiology" or short == long
    words = read(tmp_path / "long", "note/discharge").text.str.split().str.len()
    assert 1450 < words.min() < words.max() < 1700


@pytest.mark.skipif(not DEMO.exists(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")
@pytest.mark.parametrize("table", TABLES)
def test_columns_are_those_of_the_real_demo(root, table):
    def header(folder):
        with gzip.open(folder / f"{table}.csv.gz", "rt") as file:
            return file.readline().strip().split(",")

    assert header(root) == header(DEMO) == columns(table)


@pytest.mark.skipif(not DEMO.exists(), reason=f"the MIMIC-IV demo is not at {DEMO}; set EHRDL_DATA")
@pytest.mark.parametrize(("table", "key"), [("hosp/d_labitems", ["itemid"]), ("icu/d_items", ["itemid"]),
                                            ("hosp/d_icd_diagnoses", ["icd_code", "icd_version"])])  # fmt: skip
def test_dictionary_rows_are_those_of_the_real_demo(root, table, key):
    ours, real = (
        pd.read_csv(folder / f"{table}.csv.gz", dtype={"icd_code": str}).set_index(key) for folder in (root, DEMO)
    )
    name = "long_title" if "long_title" in ours else "label"
    assert (ours[name] == real.loc[ours.index, name]).all()


def test_label_by_the_rule_of_the_task_equals_the_drawn_outcome(index):
    assert index.outcome.notna().all()
    assert (index.label == index.outcome).all()
    assert index.label.sum() > 400


def test_truth_has_one_row_an_admission_and_is_blank_off_the_index_episodes(root, truth, index):
    admissions = read(root, "hosp/admissions")
    assert sorted(truth.index) == sorted(admissions.hadm_id)
    assert truth.index.is_unique
    others = truth.drop(index.hadm_id)
    assert len(others) > 300
    assert others.drop(columns="subject_id").isna().all(axis=None)
    assert index.prob.between(0, 1).all()


def test_prevalence_and_aurocs_are_in_the_promised_bands(index):
    eligible = index[~index.place.isin(["ACUTE HOSPITAL", "AGAINST ADVICE", "HOSPICE"])]
    auroc = {
        name: roc_auc_score(eligible.label, eligible[name])
        for name in ("prob", "prob_notes", "prob_series", "prob_notes_removed_30")
    }
    assert 0.10 < eligible.label.mean() < 0.15
    assert 0.78 < auroc["prob"] < 0.84
    assert 0.66 < auroc["prob_notes"] < auroc["prob"] - 0.03
    assert 0.66 < auroc["prob_series"] < auroc["prob"] - 0.03
    assert auroc["prob_series"] < auroc["prob_notes_removed_30"] < auroc["prob"]
    assert 2.2 < len(eligible) / 2500 < 2.9


@pytest.mark.parametrize("name", ["prob", "prob_notes", "prob_series", "prob_notes_removed_30"])
def test_probabilities_are_calibrated_on_many_patients(name):
    episodes = simulate(np.random.default_rng(5), 0, 40_000, 0).episodes.query("indexed")
    bins = episodes.groupby(pd.qcut(episodes[name], 8, duplicates="drop"), observed=True)
    expected, observed = bins[name].mean(), bins.outcome.mean()
    error = np.sqrt(expected * (1 - expected) / bins.size())
    # exact for what the outcome is drawn from; the others see a population that risk itself has shaped a little
    allowed = 4 * error if name == "prob" else 4 * error + 0.01
    assert (abs(observed - expected) < allowed).all()


def test_population_auroc_and_prevalence_by_many_patients():
    episodes = simulate(np.random.default_rng(6), 0, 40_000, 0).episodes.query("indexed")
    assert 0.115 < episodes.outcome.mean() < 0.130
    assert roc_auc_score(episodes.outcome, episodes.prob) == pytest.approx(0.82, abs=0.008)
    assert roc_auc_score(episodes.outcome, episodes.prob_notes) == pytest.approx(0.735, abs=0.01)
    assert roc_auc_score(episodes.outcome, episodes.prob_series) == pytest.approx(0.735, abs=0.01)


def test_risk_given_the_note_equals_brute_force_over_states_and_series():
    note = dict.fromkeys(risk.NOTE_NAMES, 0) | {"missed_medication": 1, "follow_up": 2, "lives_alone": 1}
    record = {"age_band": 2, "stay_band": 1}
    by_name = {fact.name: fact for fact in (*risk.NOTE_FACTS, *risk.SERIES_FACTS, risk.STAY_FACT)}
    weighted = total = 0.0
    for z, state in enumerate(np.ndindex(3, 3, 3)):
        chronic, frailty, severity = state
        prior = risk.P_CHRONIC[2][chronic] * risk.P_FRAILTY[2][frailty] * risk.P_SEVERITY[severity]
        for name, level in {**note, "stay_band": 1}.items():
            prior *= by_name[name].given_state()[z, level]
        for series in np.ndindex(3, 3, 3, 3):
            facts = note | record | dict(zip(risk.SERIES_NAMES, series, strict=True))
            chance = prior * (1 - risk.P_DEATH[facts["acuity"]] * risk.DEATH_AGE_FACTOR[2])
            for name in risk.SERIES_NAMES:
                chance *= by_name[name].given_state()[z, facts[name]]
            total += chance
            logit = risk.logit({name: np.array(level) for name, level in facts.items()})
            weighted += chance / (1 + np.exp(-float(logit)))
    as_arrays = {name: np.array([level]) for name, level in (note | record).items()}
    expected = risk.risk().notes[risk.note_index(as_arrays), risk.record_index(as_arrays)][0]
    assert weighted / total == pytest.approx(expected, rel=1e-9)


def test_risk_of_one_patient_by_hand():
    facts = dict.fromkeys((*risk.NOTE_NAMES, *risk.SERIES_NAMES, *risk.RECORD_NAMES), 0)
    facts |= {"missed_medication": 1, "creatinine_trend": 2, "follow_up": 2, "sodium": 2}
    arrays = {name: np.array([level]) for name, level in facts.items()}
    # -5.15 + missed 0.95 + rising 0.95 + both 0.90 + low sodium 0.70 + not arranged with it 1.40
    assert risk.logit(arrays)[0] == pytest.approx(-0.25)
    facts |= {"sodium": 0}
    assert risk.logit({name: np.array([level]) for name, level in facts.items()})[0] == pytest.approx(-2.35)


def test_documentation_lists_every_effect_with_its_size():
    text = " ".join(risk.__doc__.split())
    assert f"the intercept is {risk.INTERCEPT}" in text
    for name, level, size in risk.EFFECTS:
        assert f"{name}={level} {size:+.2f}" in text
    for first, first_level, second, second_level, size in risk.INTERACTIONS:
        assert f"{first}={first_level} and {second}={second_level} {size:+.2f}" in text


def test_summary_is_visible_at_discharge_exactly_where_the_truth_says_so(root, index):
    notes = read(root, "note/discharge", "charttime", "storetime").set_index("hadm_id")
    assert notes.index.is_unique
    assert (notes.charttime == notes.charttime.dt.normalize()).all()
    available = notes.storetime.fillna(notes.charttime + DAY).reindex(index.hadm_id).to_numpy()
    visible = available <= index.end.to_numpy()
    assert (visible == (index.note_visible == 1)).all()
    assert 0.87 < visible.mean() < 0.93
    assert set(index.columns) > set(risk.NOTE_NAMES)
    assert index.loc[index.note_visible == 0, list(risk.NOTE_NAMES)].isna().all(axis=None)


@pytest.fixture(scope="module")
def stay_labs(root, index):
    """Every lab of the subjects in an index episode, from 3 h before admission, with its available time."""
    labs = read(root, "hosp/labevents", "charttime", "storetime").merge(
        index[["subject_id", "hadm_id", "start", "end"]], on="subject_id", suffixes=("", "_index")
    )
    later = labs.storetime.where(labs.storetime >= labs.charttime, labs.charttime)
    labs["available"] = later.where(labs.storetime.notna(), labs.charttime + pd.Timedelta(hours=4))
    inside = (labs.charttime >= labs.start - pd.Timedelta(hours=3)) & (labs.charttime <= labs.end)
    return labs[inside].sort_values(["hadm_id_index", "charttime"])


def test_stays_without_labs_have_none_and_no_icu(root, index, stay_labs):
    with_labs = set(stay_labs.hadm_id_index)
    assert with_labs == set(index.hadm_id[index.labs_present == 1])
    assert 0.87 < index.labs_present.mean() < 0.93
    assert set(read(root, "icu/icustays").hadm_id) <= set(read(root, "hosp/labevents").hadm_id.dropna())


@pytest.mark.parametrize(
    ("itemid", "fact", "edges"), [(51222, "haemoglobin", [8.5, 11]), (50983, "sodium", [130.5, 135.5])]
)
def test_last_visible_lab_shows_the_level_that_the_truth_names(index, stay_labs, itemid, fact, edges):
    one = stay_labs[stay_labs.itemid == itemid]
    drawn_last = one.groupby("hadm_id_index").last()
    seen_last = one.sort_values(["hadm_id_index", "available"]).groupby("hadm_id_index").last()
    assert (one.available <= one.end).all()
    assert (seen_last.valuenum == drawn_last.valuenum).all()
    level = 2 - np.searchsorted(edges, seen_last.valuenum)
    assert (level == index.set_index("hadm_id")[fact].loc[seen_last.index]).all()


def test_last_over_first_creatinine_shows_the_trend_that_the_truth_names(index, stay_labs):
    one = stay_labs[stay_labs.itemid == 50912].groupby("hadm_id_index")
    assert (one.valueuom.last() == "mg/dL").all()
    trend = np.searchsorted([0.8, 1.25], one.valuenum.last() / one.valuenum.first())
    assert (trend == index.set_index("hadm_id").creatinine_trend.loc[one.valuenum.last().index]).all()


def test_sicker_stays_are_drawn_more_often_and_go_to_an_icu(root, index, stay_labs):
    hours = (index.end - index.start).dt.total_seconds() / 3600
    draws = stay_labs[stay_labs.itemid == 50912].groupby("hadm_id_index").size()
    pace = (draws.reindex(index.hadm_id).to_numpy() - 1) / hours * 24
    by_acuity = pace.groupby(index.acuity).median()
    assert by_acuity.round(0).tolist() == [1, 2, 3]
    icu = index.hadm_id.isin(read(root, "icu/icustays").hadm_id).groupby(index.acuity).mean()
    assert icu[0] == 0
    assert 0.05 < icu[1] < 0.2
    assert icu[2] == 1


def test_the_quirks_of_the_real_tables_are_there(root, episodes):
    labs = read(root, "hosp/labevents", "charttime", "storetime")
    assert 0.2 < labs.hadm_id.isna().mean() < 0.3
    assert 0.02 < labs.storetime.isna().mean() < 0.04
    assert 0 < (labs.storetime < labs.charttime).mean() < 0.01
    assert set(labs.valueuom[labs.itemid == 50912]) == {"mg/dL", "mg/dl", "umol/L"}
    assert set(labs.valueuom[labs.itemid == 50931]) == {"mg/dL", "mg/dl", "mmol/L"}
    assert labs.valuenum[labs.itemid == 50983].max() == 1400
    chart = read(root, "icu/chartevents")
    assert {223761, 223762} < set(chart.itemid)
    assert chart.valuenum[chart.itemid == 220045].max() == 999
    assert (chart.value == "Obeys Commands").any()
    admissions = read(root, "hosp/admissions", "admittime", "dischtime", "edregtime")
    assert {*OBSERVED_ONLY, *PLANNED, "OBSERVATION ADMIT", "EW EMER."} <= set(admissions.admission_type)
    assert {"DIED", "HOSPICE", "AGAINST ADVICE", "ACUTE HOSPITAL"} <= set(admissions.discharge_location.dropna())
    assert admissions.discharge_location.isna().any()
    through_ed = admissions[admissions.edregtime.notna()]
    assert 0.3 < len(through_ed) / len(admissions) < 0.8
    assert (through_ed.edregtime < through_ed.admittime).all()
    assert 0.015 < (episodes.n_stays == 2).mean() < 0.06
    assert read(root, "note/radiology").hadm_id.isna().mean() > 0.05


def test_ages_and_years_agree_and_nobody_dies_before_leaving(root, episodes):
    patients = read(root, "hosp/patients", "dod").set_index("subject_id")
    first = episodes.groupby("subject_id").start.min()
    assert (first.dt.year == patients.anchor_year).all()
    assert patients.anchor_age.between(18, 91).all()
    assert 90 not in set(patients.anchor_age)
    last = episodes.groupby("subject_id").end.max()
    assert (patients.dod.dropna() >= last.loc[patients.dod.dropna().index].dt.normalize()).all()


def rendered(facts, seed, note_tokens=(60, 120)):
    return summary(random.Random(seed), facts, bool(seed % 2), CONDITIONS[seed % 10], "HOME", note_tokens)


def mentions(text, wordings):
    """How many of the wordings stand in the text, whatever their slots were filled with."""
    return sum(bool(re.search(re.sub(r"\\{\w+\\}", "[A-Za-z]+", re.escape(wording)), text)) for wording in wordings)


@pytest.mark.parametrize("name", risk.NOTE_NAMES)
def test_fact_that_holds_is_stated_once_and_one_that_does_not_is_denied_half_the_time(name):
    wording = phrases.WORDINGS[name]
    absent, present = (dict.fromkeys(risk.NOTE_NAMES, 0) | {name: level} for level in (0, max(wording.stated)))
    if name == "follow_up":
        absent[name] = 1  # not mentioned
    stated = [text for texts in wording.stated.values() for text in texts]
    assert all(len(texts) >= 8 for texts in wording.stated.values())
    denied = 0
    for seed in range(200):
        assert mentions(rendered(present, seed), wording.stated[max(wording.stated)]) == 1
        assert mentions(rendered(present, seed), wording.negated) == 0
        assert mentions(rendered(absent, seed), stated) == 0
        denied += mentions(rendered(absent, seed), wording.negated)
    assert denied == 0 if name == "follow_up" else 70 < denied < 130


def test_all_facts_are_written_however_short_the_note():
    text = rendered(dict.fromkeys(risk.NOTE_NAMES, 1) | {"follow_up": 2}, 3, note_tokens=(1, 1))
    assert all(mentions(text, w.stated[max(w.stated)]) == 1 for w in phrases.WORDINGS.values())


@pytest.mark.parametrize(("argument", "value"), [("n_patients", 0), ("seed", -1), ("note_tokens", (50, 40)),
                                                 ("note_tokens", (40, 4000))])  # fmt: skip
def test_bad_argument_is_one_line_that_names_it_and_leaves_nothing(tmp_path, argument, value):
    with pytest.raises(ConfigError, match=argument) as caught:
        write_hospital(tmp_path / "h", **{argument: value})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_hospital(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
