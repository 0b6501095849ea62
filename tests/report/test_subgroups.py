"""Subgroups in the report: one forest plot, gaps without a verdict, own groups, and nothing of few patients."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from known import info_of, summarize

from ehrdl.cli.main import main
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.metrics.calibration import sigmoid
from ehrdl.metrics.evaluate import evaluate
from ehrdl.options.training import ReportOptions
from ehrdl.report.groups import add_groups, add_subgroups, read_groups
from ehrdl.report.outcomes.subgroups import RATES
from ehrdl.report.page.html import render

N = 1200


def predictions(models=("fused", "lace", "random_forest"), n=N, **columns):
    rng = np.random.default_rng(0)
    risk = rng.normal(size=n) - 0.5
    base = pd.DataFrame({"sample_id": np.arange(n) + 7, "subject_id": np.arange(n) // 2 + 100, "split": "held_out"})
    base["prediction_time"], base["output"], base["seed"] = pd.Timestamp("2150-01-01"), "death", 0
    base["label"], base["value"] = (rng.random(n) < sigmoid(risk)).astype(float), np.nan
    base["group_sex"] = np.where(np.arange(n) // 2 % 2, "F", "M")
    base["group_race"] = rng.choice(["white", "black"], n)
    base = base.assign(**columns)
    parts = [
        base.assign(model=model, prob=sigmoid(risk + 0.5 * i * rng.normal(size=n))) for i, model in enumerate(models)
    ]
    return pd.concat(parts, ignore_index=True).assign(prob_calibrated=np.nan)


def scored(table, **options):
    options = ReportOptions(**options)
    metrics = evaluate(table, info=info_of(table), n_bootstrap=20)
    return add_subgroups(metrics, add_groups(table, options), options, info_of(table))


def summary_of(table, **options):
    return summarize(table, scored(table, **options), min_count=options.get("min_count", 10))


def text_of(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]).split())


def test_the_reference_the_best_baseline_and_the_score_of_today_are_scored():
    found = scored(predictions())["outputs"]["death"]["subgroups"]
    assert found["models"] == ["fused", "lace"] and list(found["columns"]) == ["sex", "race", "sex x race"]
    assert found["threshold"] == 0.1 and found["min_patients"] == 10
    assert scored(predictions(), risks=[0.4], min_count=30)["outputs"]["death"]["subgroups"]["threshold"] == 0.4
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_there_is_one_forest_plot_and_a_table_of_gaps_without_a_verdict():
    summary = summary_of(predictions())
    [output] = summary["outputs"]
    page = render(summary)
    assert page.count('aria-label="AUROC in each group of patients, with intervals"') == 1
    svg = next(part for part in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if "minus predicted" in part)
    drawn = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", svg))
    for table in output["groups"]:
        for row in table["rows"]:
            assert table["is_pair"] or (row["name"] in drawn and f"{row['n']:,} ({row['events']:,})" in drawn)
    gaps = output["subgroups"]["gaps"]
    assert [(row["column"], row["name"]) for row in gaps[:2]] == [("sex", "F"), ("race", "black")] and len(gaps) == 6
    part = page[page.index("Each group minus all other patients") : page.index("<h2>Limits")]
    assert "6 gaps were looked at for each number" in text_of("<body>" + part) and "Šidák 1967" in part
    assert not re.search(r"\b(fair|unfair|bias(ed)?|worse|better|significant)\b", part)


@pytest.mark.parametrize(("few", "is_shown"), [(9, False), (40, True)])
def test_a_pair_is_shown_only_if_every_combination_may_be(few, is_shown):
    table = predictions(group_race=np.where(np.arange(N) >= N - 2 * few, "black", "white"))
    table["group_sex"] = np.where((table.group_race == "black") & (table.subject_id % 2 == 0), "F", "M")
    table.loc[table.subject_id < 300, "group_sex"] = "F"
    summary = summary_of(table)
    [output] = summary["outputs"]
    pairs = [group["name"] for group in output["groups"] if group["is_pair"]]
    assert pairs == (["sex x race"] if is_shown else [])
    assert output["subgroups"]["not_shown"] == ([] if is_shown else ["sex x race"])
    assert ("F, black" in render(summary)) is is_shown
    assert (
        ("sex x race", "F, black") in [(row["column"], row["name"]) for row in output["subgroups"]["gaps"]]
    ) is is_shown
    everything = summary_of(table, min_count=1)["outputs"][0]
    assert [group["name"] for group in everything["groups"]] == ["sex", "race", "sex x race"]


def test_rates_that_would_reveal_few_patients_are_not_shown_in_a_group_nor_in_the_next():
    table = predictions()
    of_women = (table.model == "fused") & (table.group_sex == "F") & (table.label == 1)
    table.loc[table.model == "fused", "prob"] = table.prob.clip(lower=0.3)
    table.loc[table[of_women].drop_duplicates("subject_id").index[:3], "prob"] = (
        0.05  # three women whom the alarm misses
    )
    metrics, [output] = scored(table), summary_of(table)["outputs"]
    women = metrics["outputs"]["death"]["subgroups"]["columns"]["sex"]["F"]["models"]["fused"]
    assert women["patients"]["missed"] == 3 and women["sensitivity"]["value"] is not None
    sex = output["groups"][0]
    for row in sex["rows"]:
        assert all(row["rows"][0][rate] is None for rate in RATES) and row["rows"][0]["auroc"]["value"] is not None
    [gap] = [row for row in output["subgroups"]["gaps"] if row["column"] == "sex"]
    assert all(gap[rate] is None for rate in RATES) and gap["auroc"]["value"] is not None


def test_a_small_group_is_hidden_with_its_gaps_and_with_the_next_larger():
    race = np.select([np.arange(N) < 12, np.arange(N) < 400], ["green", "black"], "white")
    summary = summary_of(predictions(group_race=race))
    [output] = summary["outputs"]
    rows = {row["name"]: row for row in output["groups"][1]["rows"]}
    assert rows["green"]["n"] == "<10" and rows["green"]["rows"] == [] and rows["black"]["rows"] == []
    assert [row["name"] for row in output["subgroups"]["gaps"] if row["column"] == "race"] == ["white"]
    assert "<10" in text_of(render(summary)).replace("&lt;", "<")


def test_groups_that_are_sums_of_hidden_strata_are_left_out():
    present = np.where(np.arange(N) < 10, "series only", "notes and series")
    note = np.where(present == "series only", "no", "yes")
    [output] = summary_of(predictions(group_present=present, group_has_note=note))["outputs"]
    assert [group["name"] for group in output["groups"]] == ["sex", "race", "sex x race"]


def test_metrics_of_an_earlier_version_have_no_subgroups_and_the_page_has_none():
    table = predictions()
    metrics = evaluate(table, info=info_of(table), n_bootstrap=20)
    assert "Groups of patients" not in render(summarize(table, metrics))


def own(path, frame):
    frame.to_parquet(path, index=False) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["groups.csv", "groups.parquet"])
@pytest.mark.parametrize("key", ["subject_id", "sample_id"])
def test_own_groups_join_by_the_patient_or_the_sample(tmp_path, name, key):
    table = predictions()
    ids = table[key].unique()[5:]
    frame = pd.DataFrame({key: ids, "smoker": np.where(ids % 2, "yes", "no"), "group_stage": ids % 3 + 0.0})
    frame.loc[0, "smoker"] = None
    joined = add_groups(table, ReportOptions(group_file=str(own(tmp_path / name, frame))))
    expected = dict(zip(ids, frame.smoker, strict=True))
    first = joined.drop_duplicates(key).set_index(key)
    assert first.group_smoker.dropna().to_dict() == {one: of for one, of in expected.items() if isinstance(of, str)}
    assert set(first.group_stage.dropna()) == {"0", "1", "2"} or name == "groups.csv"
    assert first.group_smoker.isna().sum() == 6 and len(joined) == len(table)


def broken_files():
    ids = list(range(100, 150))
    yield (
        "no key",
        {"who": ids, "a": "x"},
        "needs one of the columns subject_id and sample_id, and not both; it has who, a",
    )
    yield "both", {"subject_id": ids, "sample_id": ids, "a": "x"}, "needs one of the columns subject_id and sample_id"
    yield "alone", {"subject_id": ids}, "has no column of groups beside subject_id"
    yield "text", {"subject_id": ["P1", *ids[1:]], "a": "x"}, "column subject_id, row 1: 'P1' is no whole number"
    yield "empty id", {"subject_id": [None, *ids[1:]], "a": "x"}, "column subject_id, row 1: '.*' is no whole number"
    yield "part", {"subject_id": [1.5, *ids[1:]], "a": "x"}, "row 1: '1.5' is no whole number"
    yield "twice", {"subject_id": [*ids[:-1], 100], "a": "x"}, "column subject_id, row 50: 100 is there twice"
    yield "numbers", {"subject_id": ids, "age": np.linspace(20, 80, 50)}, "column age: holds 50 different numbers"
    yield "others", {"subject_id": [i + 10**6 for i in ids], "a": "x"}, "none of its 50 ids is predicted .*1000100.*100"
    yield (
        "known",
        {"subject_id": ids, "sex": "x"},
        "column sex: the task has a column of groups of this name; rename it",
    )
    yield "reserved", {"subject_id": ids, "present": "x"}, "column present: the task has"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("name", "columns", "line"), [pytest.param(*row, id=row[0]) for row in broken_files()])
def test_a_bad_file_of_groups_is_refused_in_one_line(tmp_path, suffix, name, columns, line):
    frame = pd.DataFrame(columns)
    if name == "text" and suffix == "parquet":
        frame["subject_id"] = frame["subject_id"].astype(str)
    path = own(tmp_path / f"g.{suffix}", frame)
    with pytest.raises(SchemaError, match=line) as raised:
        add_groups(predictions(group_present="neither"), ReportOptions(group_file=str(path)))
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("none.csv", None, "there is no such file"),
        ("g.xlsx", b"PK", "is no Parquet file of groups, and its name is not that of a .csv or .tsv file"),
        ("g.parquet", b"PAR1 but not really", "is no Parquet file of groups"),
        ("g.csv", b"subject_id,a,a\n1,x,y\n", "cannot be read as a table|column a is there twice"),
        ("g.csv", b"subject_id,a\n", "has no column of groups beside subject_id, or no row"),
    ],
)
def test_a_damaged_file_of_groups_is_refused_in_one_line(tmp_path, name, content, line):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SchemaError, match=line):
        read_groups(tmp_path / name)


def test_a_finished_file_is_looked_at_anew_with_other_groups(tmp_path, capsys):
    table = predictions()
    table.to_parquet(tmp_path / "p.parquet")
    ids = table.subject_id.unique()
    own(tmp_path / "g.csv", pd.DataFrame({"subject_id": ids, "smoker": np.where(ids % 3, "yes", "no")}))
    out = ["--out", str(tmp_path / "out"), "--group-file", str(tmp_path / "g.csv")]
    main(["report", str(tmp_path / "p.parquet"), "--groups", "smoker", "smoker x sex", *out])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    found = metrics["outputs"]["death"]["subgroups"]["columns"]
    assert list(found) == ["smoker", "smoker x sex"] and found["smoker"]["no"]["subjects"] == (ids % 3 == 0).sum()
    assert "Smoker x sex" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path / "p.parquet"), "--groups", "smoking", *out])
    assert stopped.value.code == 2
    assert "'smoking' is no column of groups; there are: sex, race, smoker" in capsys.readouterr().err


def test_options_name_what_is_wrong():
    with pytest.raises(ConfigError, match=r"report.groups: \[\] is empty"):
        ReportOptions(groups=[])
    with pytest.raises(ConfigError, match=r"report.groups: 'ward' is no column of groups; there are: sex, race"):
        add_groups(predictions(), ReportOptions(groups=["ward"]))
