"""The report's tables of alarms: who is in them, what is hidden, and what the page says of them."""

import re

import numpy as np
import pandas as pd
import pytest

from ehrdl.info import ModelInfo, RunInfo
from ehrdl.metrics.alarms import Rule
from ehrdl.metrics.decisions import decide
from ehrdl.metrics.evaluate import line_up
from ehrdl.options.training import ReportOptions
from ehrdl.report.outcomes.alarms import alarm_tables
from ehrdl.report.page.html import per_hundred
from ehrdl.report.remake import _options, remake
from ehrdl.report.suppress import Shown

INFO = RunInfo(
    {
        "fused": ModelInfo("fused", "deep", "both"),
        "forest": ModelInfo("forest", "classical", "trees"),
        "lace": ModelInfo("lace", "score", "LACE"),
        "prevalence": ModelInfo("prevalence", "constant", "prevalence"),
    }
)
RULES = [Rule("risk", 0.25), Rule("sensitivity", 0.8), Rule("alarms", 0.1)]


def predictions(n=800, models=("fused", "forest", "lace", "prevalence"), splits=("tuning", "held_out")):
    rng = np.random.default_rng(0)
    parts = []
    for i, split in enumerate(splits):
        risk = rng.beta(2, 6, n)
        columns = {"sample_id": np.arange(n) + n * i, "subject_id": np.arange(n) + n * i, "split": split, "seed": 0}
        columns |= {"label": (rng.random(n) < risk).astype(float), "output": "death", "value": np.nan}
        for model in models:
            prob = np.full(n, 0.25) if model == "prevalence" else np.clip(risk + rng.normal(0, 0.05, n), 0, 1)
            parts.append(pd.DataFrame(columns | {"model": model, "prob": prob, "prob_calibrated": np.nan}))
    return pd.concat(parts, ignore_index=True)


def tables(table, rules=RULES, min_count=10, info=INFO):
    [outcome] = line_up(table, "held_out")
    scores = {"decisions": decide(table, "held_out", rules, 20)["death"]}
    return alarm_tables(scores, outcome, list(outcome.prob), Shown(min_count, info))


def test_each_rule_has_a_table_of_the_models_without_the_constant_one():
    risk, sensitivity, budget = tables(predictions())
    assert [row["name"] for row in sensitivity["rows"]] == ["fused", "forest", "lace"]
    assert [row["name"] for row in risk["rows"]] == ["fused", "forest", "lace", ""]
    assert (risk["cost"], risk["chosen_on"], sensitivity["chosen_on"]) == (3.0, "", "tuning")
    assert budget["title"] == "At most 10 alarms per 100 predictions"
    assert all(row["alarms"]["value"] < 0.15 and 0 < row["threshold"] < 1 for row in budget["rows"])


def test_scores_in_use_today_are_always_shown():
    many = [f"model{i}" for i in range(9)]
    info = RunInfo({name: ModelInfo(name, "classical", "") for name in many} | {"lace": INFO.models["lace"]})
    [table] = tables(predictions(models=(*many, "lace")), [Rule("sensitivity", 0.8)], info=info)
    assert [row["name"] for row in table["rows"]] == [*many[:5], "lace"]


def test_a_model_whose_alarms_would_reveal_few_patients_is_left_out_and_counted():
    table = predictions(models=("fused", "forest"))
    held = (table.split == "held_out") & (table.model == "fused")
    case = table.index[held & (table.label == 1)][:3]
    table.loc[held, "prob"] = 0.1
    table.loc[case, "prob"] = 0.9  # three patients with the outcome and an alarm
    [shown] = tables(table, [Rule("risk", 0.5)], min_count=1)
    assert [row["name"] for row in shown["rows"]] == ["fused", "forest", ""]
    [hidden] = tables(table, [Rule("risk", 0.5)], min_count=10)
    assert "fused" not in [row["name"] for row in hidden["rows"]] and hidden["left_out"] >= 1


def test_without_decisions_there_is_no_table():
    table = predictions()
    [outcome] = line_up(table, "held_out")
    assert alarm_tables({}, outcome, list(outcome.prob), Shown(10, INFO)) == []


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (("tuning", "held_out"), "Each model's threshold was chosen on the tuning split."),
        (("held_out",), "Each model's threshold was chosen on these rows, which flatters it."),
    ],
)
def test_the_page_says_where_thresholds_come_from(tmp_path, splits, says):
    predictions(splits=splits).to_parquet(tmp_path / "p.parquet")
    page = remake(tmp_path / "p.parquet", tmp_path / "out", risks=[0.3]).read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split()).replace("&#39;", "'")
    assert says in text and "Alarm at a risk of 30 % or more" in text and "an alarm for everyone" in text
    assert "At this risk, 2.3 false alarms are accepted for a true one." in text


def test_numbers_per_hundred_have_their_interval_if_there_is_one():
    assert per_hundred({"value": 0.1234, "low": 0.1, "high": 0.15}) == "12.3 (10.0 to 15.0)"
    assert per_hundred({"value": None, "low": None, "high": None}) == "n/a"


@pytest.mark.parametrize("damaged", [3, [1], {"risks": "many"}, {"min_count": "ten"}, None])
def test_damaged_options_of_a_run_give_the_defaults(damaged):
    assert _options({"report": damaged}) == ReportOptions()


def test_options_of_a_run_are_kept():
    assert _options({"report": {"risks": [0.3], "older": 1}}).risks == [0.3]


def test_the_reference_is_compared_with_every_other_model_in_net_benefit():
    table = predictions()
    [outcome] = line_up(table, "held_out")
    found = decide(table, "held_out", RULES, 20, info=INFO)["death"]
    for part in alarm_tables({"decisions": found}, outcome, list(outcome.prob), Shown(10, INFO)):
        assert part["reference"] == "fused"
        rows = {row["name"]: row for row in part["rows"]}
        gain = rows["lace"]["gain"]
        assert gain["value"] == pytest.approx(
            rows["fused"]["net_benefit"]["value"] - rows["lace"]["net_benefit"]["value"]
        )
        assert gain["low"] < gain["value"] < gain["high"] and rows["fused"]["gain"] is None
    assert all(part["reference"] == "" for part in tables(table))


def test_no_model_is_compared_with_a_reference_that_is_left_out():
    table = predictions(models=("fused", "lace"))
    held = (table.split == "held_out") & (table.model == "fused")
    table.loc[held, "prob"] = 0.1
    table.loc[table.index[held & (table.label == 1)][:3], "prob"] = 0.9
    [outcome] = line_up(table, "held_out")
    found = {"decisions": decide(table, "held_out", [Rule("risk", 0.5)], 20, info=INFO)["death"]}
    [part] = alarm_tables(found, outcome, list(outcome.prob), Shown(10, INFO))
    assert part["reference"] == "" and all(row["gain"] is None for row in part["rows"])
