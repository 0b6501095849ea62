"""The report on the data: no small number can be computed, facts are sentences, and a flow chart is drawn."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from ehrdl.data.description.cohort import describe_cohort
from ehrdl.report.cohort.consort import consort
from ehrdl.report.cohort.facts import data_facts, task_facts
from ehrdl.report.cohort.hyperparameters import hyperparameters
from ehrdl.report.cohort.parts import _cohort
from ehrdl.report.cohort.predictors import predictor_tables
from ehrdl.report.cohort.table1 import by_outcome, table_1
from ehrdl.report.cohort.validation import validation
from ehrdl.report.page.consort import draw_consort
from ehrdl.report.suppress import WITHHELD, Shown
from ehrdl.runs.validation import rate, relation
from ehrdl.tasks.readmission import Readmission

SHOWN = Shown(10)


def cohort_of(levels, columns, outcome=None):
    """The content of a cohort.json with one characteristic, whose samples and patients are the same."""
    sizes = {key: {"samples": sum(values), "patients": sum(values)} for key, values in columns.items()}
    values = {key: {"samples": list(counts), "patients": list(counts)} for key, counts in columns.items()}
    row = {"name": "race", "title": "Race", "kind": "categories", "levels": levels, "values": values}
    return {"columns": sizes, "characteristics": [row | {"smd": {"splits": 0.123}}], "outcomes": outcome or []}


def cells(table, name):
    [row] = [row for row in table["rows"] if row["name"].startswith(name)]
    return {level["name"]: level["cells"] for level in row["levels"]}


def test_table_1_shows_counts_and_shares_by_split():
    columns = {"all": [60, 140], "train": [40, 100], "tuning": [10, 20], "held_out": [10, 20]}

    table = table_1(cohort_of(["A", "B"], columns), SHOWN, counts=True)

    assert cells(table, "Race")["A"] == ["60 (30.0 %)", "40 (28.6 %)", "10 (33.3 %)", "10 (33.3 %)"]
    assert [column["name"] for column in table["columns"]] == ["All", "Training", "Tuning", "Held-out"]
    assert table["rows"][0]["smd"] == "0.12"


def test_a_category_that_is_small_in_one_split_is_joined_with_another_in_all():
    columns = {"all": [100, 43, 60], "train": [60, 30, 30], "tuning": [20, 3, 15], "held_out": [20, 10, 15]}

    found = cells(table_1(cohort_of(["A", "B", "C"], columns), SHOWN, counts=True), "Race")

    assert list(found) == ["A", "2 smaller groups"]
    assert found["2 smaller groups"][2] == "18 (47.4 %)"


def test_categories_that_are_small_in_tuning_alone_are_hidden_there_and_in_training():
    columns = {"all": [100, 43], "train": [60, 30], "tuning": [20, 3], "held_out": [20, 10]}

    found = cells(table_1(cohort_of(["A", "B"], columns), SHOWN, counts=True), "Race")

    assert found["B"] == ["43 (30.1 %)", WITHHELD, WITHHELD, "10 (33.3 %)"]


def test_categories_of_which_none_can_be_shown_leave_no_row():
    columns = {"all": [100, 43], "train": [60, 36], "tuning": [20, 3], "held_out": [20, 4]}

    assert table_1(cohort_of(["A", "B"], columns), SHOWN, counts=True)["rows"] == []


@pytest.mark.parametrize("seed", range(20))
def test_no_cell_of_table_1_is_small_nor_the_difference_of_a_total_and_the_cells(seed):
    rng = np.random.default_rng(seed)
    parts = {key: rng.integers(0, 60, 6) for key in ("train", "tuning", "held_out")}
    columns = {"all": sum(parts.values())} | parts
    columns = {key: values.tolist() for key, values in columns.items()}
    table = table_1(cohort_of(list("ABCDEF"), columns), SHOWN, counts=True)
    if not table["rows"]:
        return
    keys = ["all", *parts] if len(table["columns"]) > 1 else ["all"]
    rows = cells(table, "Race").values()
    there = [i for i in range(len(keys)) if all(row[i] != WITHHELD for row in rows)]
    found = np.array([[int(row[i].split(" ")[0]) for i in there] for row in rows])
    hidden = np.array([sum(columns[keys[i]]) for i in there]) - found.sum(axis=0)
    if len(there) < len(keys) and len(keys) > 1:
        rest = found[:, 0] - found[:, 1]  # all minus held-out gives training and tuning together
        assert [keys[i] for i in there] == ["all", "held_out"] and (rest >= 10).all()

    assert (found >= 10).all() and ((hidden == 0) | (hidden >= 10)).all()


def test_a_split_of_few_patients_hides_all_splits():
    columns = {"all": [60, 40], "train": [50, 34], "tuning": [3, 3], "held_out": [7, 3]}

    table = table_1(cohort_of(["A", "B"], columns), SHOWN, counts=True)

    assert [column["name"] for column in table["columns"]] == ["All"] and table["smd"] == ""


def test_a_small_cohort_has_no_table_1():
    assert table_1(cohort_of(["A", "B"], {"all": [4, 5]}), SHOWN, counts=True) is None


def test_without_counts_only_whole_percentages_are_shown():
    table = table_1(cohort_of(["A", "B"], {"all": [60, 140], "train": [60, 140]}), SHOWN, counts=False)

    assert cells(table, "Race") == {"A": ["30 %"], "B": ["70 %"]}
    assert table["columns"][0]["size"] == ""


def outcome(**values):
    """The row of an outcome: (with, without, unknown) by column."""
    names = ("with", "without", "unknown")
    found = {
        key: dict(zip(names, v, strict=True)) | dict(zip([f"patients_{n}" for n in names], v, strict=True))
        for key, v in values.items()
    }
    return [{"name": "death", "kind": "binary", "unit": "", "values": found}]


def test_an_outcome_that_is_rare_in_tuning_is_hidden_there_and_in_training():
    columns = {"all": [90, 90], "train": [50, 50], "tuning": [20, 20], "held_out": [20, 20]}
    rows = outcome(all=(55, 125, 0), train=(40, 60, 0), tuning=(3, 37, 0), held_out=(12, 28, 0))

    found = cells(table_1(cohort_of(["A", "B"], columns, rows), SHOWN, counts=True), "Outcome: death")

    assert found[""] == ["55 (30.6 %)", WITHHELD, WITHHELD, "12 (30 %)"]


def test_few_unknown_outcomes_hide_the_counts_from_which_they_follow():
    columns = {"all": [90, 90], "train": [90, 90]}
    rows = outcome(all=(55, 120, 5), train=(55, 120, 5))
    cohort = cohort_of(["A", "B"], columns | {"with:death": [30, 25], "without:death": [60, 60]}, rows)

    assert cells(table_1(cohort, SHOWN, counts=True), "Outcome: death")[""] == ["31.4 %"]
    assert by_outcome(cohort, SHOWN, counts=True) == []


def test_table_1_by_outcome_is_of_training_samples_and_needs_enough_patients():
    columns = {"all": [90, 90], "train": [90, 90], "with:death": [30, 25], "without:death": [60, 65]}
    rows = outcome(all=(55, 125, 0), train=(55, 125, 0))

    [table] = by_outcome(cohort_of(["A", "B"], columns, rows), SHOWN, counts=True)

    assert table["output"] == "death" and cells(table, "Race")["A"] == ["30 (54.5 %)", "60 (48.0 %)"]
    assert by_outcome(cohort_of(["A", "B"], columns | {"with:death": [3, 4]}, rows), SHOWN, counts=True) == []
    assert by_outcome(cohort_of(["A", "B"], columns, rows), SHOWN, counts=False) == []


def test_table_1_by_outcome_reveals_nothing_that_table_1_by_split_hides_of_training():
    tuning = {"all": [100, 43], "train": [60, 30], "tuning": [20, 3], "held_out": [20, 10]}
    by_label = {"with:death": [30, 15], "without:death": [30, 15]}
    common = outcome(all=(63, 80, 0), train=(45, 45, 0), tuning=(11, 12, 0), held_out=(15, 15, 0))
    rare = outcome(all=(63, 80, 0), train=(45, 45, 0), tuning=(3, 20, 0), held_out=(15, 15, 0))

    [table] = by_outcome(cohort_of(["A", "B"], tuning | by_label, common), SHOWN, counts=True)

    assert table["rows"] == []
    assert by_outcome(cohort_of(["A", "B"], tuning | by_label, rare), SHOWN, counts=True) == []
    small = tuning | {"tuning": [2, 3]} | by_label
    assert by_outcome(cohort_of(["A", "B"], small, common), SHOWN, counts=True) == []


def predictor(name, samples, patients, without, **more):
    row = {"name": name, "title": name, "unit": "mg", "kind": "numeric", "samples": samples, "patients": patients}
    return row | {"patients_without": without, "q1": 1.0, "median": 2.0, "q3": 3.0} | more


def test_predictors_give_bounds_where_few_have_or_lack_them():
    series = [
        predictor("usual", 500, 100, 300),
        predictor("rare", 5, 4, 400),
        predictor("nearly all", 995, 400, 4),
        predictor("never", 0, 0, 400),
        predictor("event", 200, 90, 300, kind="event", q1=None, median=None, q3=None),
    ]
    found = {"n_samples": 1000, "drawn": False, "series_hours": 24.0, "note_hours": 8760.0}

    tables = predictor_tables({"predictors": found | {"series": series, "static": [], "notes": []}}, SHOWN)

    rows = {row["name"]: (row["has"], row["values"]) for row in tables["tables"][0]["rows"]}
    assert rows == {
        "nearly all": (">99 %", "2 (1 to 3)"),
        "usual": ("50 %", "2 (1 to 3)"),
        "event": ("20 %", ""),
        "rare": ("<10 patients", "<10"),
    }
    assert tables["absent"] == ["never"] and "24 hours" in tables["tables"][0]["title"]


def test_facts_of_a_task_are_sentences_of_the_task():
    stored = {"by dischtime": 0.894, "within 24 h": 0.05, "later": 0.046, "never": 0.01}
    flow = {
        "steps": [{"admissions": 10_000, "subjects": 5000}],
        "notes": {"summary_stored": stored, "planned_next": 4, "prevalence": {"all eligible": 0.127}, "caveats": ["x"]},
    }

    lines = task_facts(flow, {"task_info": vars(Readmission().info)}, SHOWN)

    assert lines[0].startswith("89.4 % of the discharge summaries were stored by discharge, 5 % within")
    assert lines[1].startswith("<10 stays were followed by a planned admission")
    assert lines[2] == "Prevalence of the outcome: 12.7 % (all eligible)." and len(lines) == 3


def test_a_note_without_a_sentence_is_shown_with_its_name():
    flow = {"notes": {"stays_with_pets": 1234, "deep": {"share": 0.5}}}

    assert task_facts(flow, {}, SHOWN) == ["Stays with pets: 1,234.", "Deep, share: 50 %."]


def test_facts_of_the_data_are_sentences():
    data = {
        "n_samples": {"held_out": 143, "train": 480, "tuning": 70},
        "n_subjects": {"held_out": 56, "train": 198, "tuning": 25},
        "n_channels": 41,
        "samples_cut_to_max_notes": 3,
        "split": {"kind": "subject"},
    }

    lines = data_facts({"data": data}, SHOWN, all_sizes=False)

    assert lines[0] == (
        "Samples: 480 of 198 patients for training, 70 of 25 patients for tuning and 143 of 56 patients held out."
    )
    assert "no patient is in two splits" in lines[1] and lines[2] == "The series have 41 channels."
    assert lines[3].startswith("<10 samples have more notes")


STEPS = [
    {"step": "Admissions", "rule": "every stay in the data", "admissions": 4012, "subjects": 2000},
    {"step": "Age", "rule": "age at admission >= 18 years & known", "admissions": 3850, "subjects": 1990},
    {"step": "Alive", "rule": "left alive", "admissions": 3845, "subjects": WITHHELD},
]
for _step, _dropped in zip(STEPS, [(None, None), (162, 10), ("<10", WITHHELD)], strict=True):
    _step |= {"caveat": "", "task": "", "dropped_admissions": _dropped[0], "dropped_subjects": _dropped[1]}
SIZES = {"data": {"n_samples": {"train": 2000, "tuning": 845, "held_out": 1000}, "n_subjects": {"train": 1000}}}


def test_the_flow_chart_has_what_each_step_left_out_and_the_splits():
    [chart] = consort(STEPS, SIZES, SHOWN, all_sizes=False)

    assert chart["boxes"][1]["left_out"] == "Left out: 162 admissions, all of 10 patients"
    assert chart["boxes"][2]["left_out"] == f"Left out: <10 admissions, all of patients {WITHHELD}"
    assert chart["boxes"][2]["numbers"] == f"3,845 admissions, patients {WITHHELD}"
    assert chart["splits"][0] == {"name": "Training", "numbers": "2,000 samples, 1,000 patients"}


def boxes_of(drawing):
    namespace = "{http://www.w3.org/2000/svg}"
    root = ET.fromstring(drawing)
    rects = [{key: float(r.get(key)) for key in ("x", "y", "width", "height")} for r in root.iter(f"{namespace}rect")]
    texts = [(float(t.get("x")), float(t.get("y")), t.text) for t in root.iter(f"{namespace}text")]
    return root, rects, texts


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_the_drawing_has_alternative_text_and_no_box_overlaps_another(layout):
    [drawn] = draw_consort(consort(STEPS, SIZES, SHOWN, all_sizes=False))

    root, rects, texts = boxes_of(drawn[layout])

    width, height = map(float, root.get("viewBox").split()[2:])
    assert root.get("role") == "img" and len(rects) == 3 + 2 + 3
    title, desc = root[0].text, root[1].text
    assert title == "Flow chart of the cohort" and "age at admission >= 18 years & known" in desc
    for i, one in enumerate(rects):
        assert one["x"] >= 0 and one["x"] + one["width"] <= width and one["y"] + one["height"] <= height
        for other in rects[i + 1 :]:
            apart_x = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            apart_y = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
            assert apart_x or apart_y
    for x, y, text in texts:
        [box] = [r for r in rects if r["x"] <= x < r["x"] + r["width"] and r["y"] <= y < r["y"] + r["height"]]
        assert x + 7 * len(text) <= box["x"] + box["width"]
    assert {"Held-out", "4,012 admissions, 2,000 patients"} <= {text for *_, text in texts}


def test_the_drawing_takes_its_colours_from_the_page_and_its_letters_are_large_enough_on_a_phone():
    [drawn] = draw_consort(consort(STEPS, SIZES, SHOWN, all_sizes=False))

    assert set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\([^)]*\)", "", drawn["wide"]))) == set()
    width = float(re.search(r'viewBox="0 0 (\d+)', drawn["narrow"])[1])
    size = float(re.search(r'font-size="(\d+)"', drawn["narrow"])[1])
    assert size * min(1, (360 - 2 * 18) / width) >= 12


def test_a_hostile_name_of_a_step_is_escaped():
    steps = [STEPS[0] | {"step": "<script>alert(1)</script>", "rule": '"&"'}]

    [drawn] = draw_consort(consort(steps, {}, SHOWN, all_sizes=False))

    assert "<script>" not in drawn["wide"] and "&lt;script&gt;" in drawn["wide"]


def test_hyperparameters_name_classes_and_leave_out_paths_and_nulls():
    config = {
        "model": {"class_path": "ehrdl.models.MultimodalModel", "init_args": {"width": 64, "note": None}},
        "optim": {"lr": 0.002, "epochs": None},
        "data": {"notes": {"tokenizer": "/home/ann/words"}},
        "seeds": [0, 1],
    }

    parts = {part["title"]: part["rows"] for part in hyperparameters(config, {"parameters": {"fused": 1_234_567}})}

    assert parts["Network"] == [{"name": "class", "value": "MultimodalModel"}, {"name": "width", "value": "64"}]
    assert parts["Optimiser and schedule"] == [{"name": "lr", "value": "0.002"}]
    assert parts["Models"][0] == {"name": "parameters", "value": "fused: 1,234,567"}
    assert parts["Models"][1]["value"] == "0, 1" and "ann" not in str(parts)
    assert hyperparameters({}, {}) == []


def test_the_report_of_a_run_shows_its_cohort(hospital):
    described = describe_cohort(hospital.prepared, hospital.config.source)

    found = _cohort(described, {"task_info": vars(Readmission().info)}, SHOWN, counts=True)

    assert found["setting"].startswith("A simulated general hospital") and "simulated" in found["dates"]
    assert found["outcome"].startswith("An admission that was not planned counts")
    assert cells(found["table_1"], "Sex").keys() == {"F", "M"}
    assert {"sodium", "creatinine"} <= {row["name"] for row in found["predictors"]["tables"][1]["rows"]}


NEW = {
    "events": "events-new",
    "setting": {"source": "Mimic4", "setting": "Another hospital.", "dates": ""},
    "dates": {"kind": "real", "years": {"all": [2020, 2021]}},
    "columns": {"all": {"samples": 400, "patients": 300}},
}


@pytest.fixture
def run(tmp_path, hospital):
    """The files of a run that `relation` reads, with the hospital's held-out samples as its predictions."""
    own = hospital.prepared.samples.rename(columns={"label_readmission": "label"})
    own = own[own.split == "held_out"][["subject_id", "prediction_time", "label"]].assign(output="readmission")
    own.to_parquet(tmp_path / "predictions.parquet")
    return tmp_path


def related(run, hospital, samples, events="events-old", **more):
    manifest = {"events": events, "source": "Synthetic", "data": {"n_samples": {"train": 480}}}
    manifest["data"]["n_subjects"] = {"train": 198}
    return relation(run, manifest, hospital.prepared.spec, NEW, samples, ["2 channels are absent here"], **more)


def test_other_patients_are_external_validation_and_the_report_says_so(run, hospital):
    samples = hospital.prepared.samples
    others = samples.assign(subject_id=samples.subject_id + 10**6)

    facts = related(run, hospital, others)
    told = validation({"validation": facts}, SHOWN, few=False)

    assert facts["kind"] == "external" and told["title"] == "External validation"
    text = " ".join(told["lines"])
    assert "fitted on Synthetic (480 training samples of 198 patients) and scored on Mimic4 (400 samples of 300" in text
    assert "Nothing was fitted, calibrated or chosen on these patients." in text
    assert "The outcome readmission happened in 12.7 %" in text and "no difference can be told" in text
    assert "2 channels are absent here" in text


def test_later_patients_of_the_same_hospital_are_temporal_validation_if_the_user_says_so(run, hospital):
    samples = hospital.prepared.samples
    others = samples.assign(prediction_time=samples.prediction_time + pd.Timedelta(days=5000))

    facts = related(run, hospital, others, same_hospital=True)

    assert facts["kind"] == "temporal"
    assert validation({"validation": facts}, SHOWN, few=False)["title"] == "Temporal validation"


def test_patients_of_the_run_are_found_and_are_no_external_validation(run, hospital):
    facts = related(run, hospital, hospital.prepared.samples, same_hospital=True)
    told = validation({"validation": facts}, SHOWN, few=False)

    n = int((hospital.prepared.samples.split == "held_out").sum())
    assert facts["kind"] == "overlapping" and facts["shared_samples"] == n
    assert f"{n} samples here are also among the run's own" in " ".join(told["lines"])


def test_the_very_data_of_the_run_are_called_so(run, hospital):
    facts = related(run, hospital, hospital.prepared.samples, events="events-new")

    text = " ".join(validation({"validation": facts}, SHOWN, few=False)["lines"])

    assert facts["kind"] == "same" and "no external validation" in text and "Nothing was fitted" not in text


def test_an_outcome_that_is_more_frequent_is_told(run, hospital):
    samples = hospital.prepared.samples
    others = samples.assign(subject_id=samples.subject_id + 10**6, label_readmission=1.0)

    told = validation({"validation": related(run, hospital, others)}, SHOWN, few=False)
    few = validation({"validation": related(run, hospital, others)}, SHOWN, few=True)

    assert "it is more frequent here" in " ".join(told["lines"])
    assert "happened in" not in " ".join(few["lines"]) and "400" not in " ".join(few["lines"])


def test_the_interval_of_a_rate_is_wilsons():
    from scipy.stats import binomtest

    label = pd.Series([1.0] * 17 + [0.0] * 63)
    known = binomtest(17, 80).proportion_ci(method="wilson")

    found = rate(label)

    assert (found["low"], found["high"]) == pytest.approx((known.low, known.high), abs=1e-12)


def test_a_run_of_its_own_is_no_validation():
    assert validation({"task": "readmission"}, SHOWN, few=False) is None
