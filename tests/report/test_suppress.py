"""Small groups are not shown, and do not come back by subtraction."""

import itertools

import numpy as np
import pandas as pd
import pytest
from known import evaluate, summarize

from ehrdl.report.page.html import render
from ehrdl.report.places import in_command, in_config, in_text
from ehrdl.report.suppress import (
    WITHHELD,
    Shown,
    hidden_outcomes,
    hidden_parts,
    hide_counts,
    hide_sizes,
    hide_steps,
    joined,
    joined_histogram,
    patients,
)


@pytest.mark.parametrize("seed", range(20))
def test_hidden_parts_are_at_least_two_and_together_not_small(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.05, rng.integers(2, 9)).tolist()
    hidden = hidden_parts(sizes, 10)
    assert {i for i, n in enumerate(sizes) if n < 10} <= hidden
    if hidden and len(hidden) < len(sizes):
        assert len(hidden) > 1 and sum(sizes[i] for i in hidden) >= 10
    if not hidden:
        assert min(sizes) >= 10


def test_outcomes_are_hidden_where_few_had_it_or_few_had_it_not():
    assert hidden_outcomes([50, 60, 4], [60, 70, 40], 10, set()) == {0, 2}
    assert hidden_outcomes([50, 60], [60, 70], 10, set()) == set()
    assert hidden_outcomes([0, 60], [60, 70], 10, set()) == {0, 1}


def steps(*numbers):
    pairs = list(itertools.pairwise([None, *numbers]))
    return [
        {"step": str(i), "subjects": n, "dropped_subjects": None if before is None else before - n}
        | {"admissions": 2 * n, "dropped_admissions": None if before is None else 2 * (before - n)}
        for i, (before, n) in enumerate(pairs)
    ]


def shown(numbers, key="subjects"):
    return [(step[key], step[f"dropped_{key}"]) for step in hide_steps(steps(*numbers), Shown())]


def test_a_step_that_leaves_out_few_is_not_told_by_its_neighbours():
    assert shown([200, 180, 180, 150]) == [(200, None), (180, 20), (180, 0), (150, 30)]
    # 3 patients were left out: neither the number before can be shown with the one after, nor what both dropped
    assert shown([200, 197, 150]) == [(200, None), (WITHHELD, "<10"), (150, WITHHELD)]
    assert shown([200, 150, 147]) == [(200, None), (WITHHELD, WITHHELD), (147, "<10")]
    assert shown([8, 3]) == [("<10", None), ("<10", "<10")]


@pytest.mark.parametrize("seed", range(50))
def test_no_two_numbers_of_a_flow_chart_differ_by_few(seed):
    rng = np.random.default_rng(seed)
    numbers = np.maximum(0, 300 - np.cumsum(rng.integers(0, 25, 12))).tolist()
    found = shown(numbers)
    exact = [n for n, _ in found if isinstance(n, int)]
    assert all(a == b or abs(a - b) >= 10 for a, b in itertools.pairwise(exact))
    assert all(isinstance(dropped, str) or not dropped or dropped >= 10 for _, dropped in found)
    for i, (n, dropped) in enumerate(found[1:], 1):  # a number that is withheld is not given by a neighbour's drop
        if isinstance(dropped, int) and dropped:
            assert isinstance(n, int) and isinstance(found[i - 1][0], int)
    if numbers[-1] >= 10:
        assert found[-1][0] == numbers[-1]


def test_bars_of_a_histogram_are_empty_or_hold_enough_patients():
    rng = np.random.default_rng(0)
    value, subject = rng.beta(1, 6, 500), np.arange(500) // 2
    edges = np.linspace(0, 1, 26)
    bars = joined_histogram(value, edges, subject, 10)
    for low, high in itertools.pairwise(bars["edges"]):
        n = patients(subject, (value >= low) & (value < high))
        assert n == 0 or n >= 10
    assert np.dot(bars["share"], np.diff(bars["edges"])) == pytest.approx(edges[1])  # the area stays
    exact = joined_histogram(value, edges, subject, 1)
    np.testing.assert_allclose(exact["share"], np.histogram(value, edges)[0] / 500)


def test_bins_are_joined_until_each_is_enough():
    bins = np.array([0, 0, 1, 2, 2, 2, 3])
    assert joined(bins, lambda rows: rows.sum() >= 3).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert joined(bins, lambda rows: rows.sum() >= 9).tolist() == [0] * 7


def test_counts_of_notes_are_hidden_and_shares_that_stand_for_few():
    notes = {"censored": 3, "deaths": 14, "nobody": 0, "kind": "x", "part": {"n": 4, "with": 0.5}}
    assert hide_counts(notes, Shown(), 400) == {
        "censored": "<10", "deaths": 14, "nobody": 0, "kind": "x", "part": {"n": "<10", "with": WITHHELD},
    }  # fmt: skip
    stored = {"discharge": 0.9, "within": 0.09, "later": 0.01}
    assert hide_counts(stored, Shown(), 400) == {"discharge": 0.9, "within": WITHHELD, "later": "<2.5 %"}


def test_sizes_of_splits_are_hidden_with_a_second_one():
    data = {"n_samples": {"train": 300, "tuning": 4, "held_out": 90}, "n_channels": 3, "samples_cut": 2}
    found = hide_sizes(data, Shown(), all_sizes=False)
    assert found["n_samples"] == {"train": 300, "tuning": "<10", "held_out": WITHHELD}
    assert found["n_channels"] == 3 and found["samples_cut"] == "<10"


def predictions(n=400, rare=6):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"sample_id": np.arange(n), "subject_id": np.arange(n)})
    table["prediction_time"], table["model"], table["seed"] = pd.Timestamp("2150-01-01"), "fused", 0
    table["split"], table["output"] = "held_out", "death"
    table["prob"] = table["prob_calibrated"] = rng.random(n)
    table["value"] = np.nan
    table["label"] = (rng.random(n) < table["prob"]).astype(float)
    table["group_language"] = np.where(np.arange(n) < rare, "ice", np.where(np.arange(n) % 3 == 0, "de", "en"))
    return table


def test_a_rare_group_is_hidden_with_the_next_larger_and_nothing_gives_it_away():
    table = predictions()
    summary = summarize(table, evaluate(table, n_bootstrap=20))
    [group] = summary["outputs"][0]["groups"]
    rows = {row["name"]: row for row in group["rows"]}
    assert rows["ice"]["n"] == "<10" and rows["ice"]["events"] == WITHHELD and rows["ice"]["predicted"] is None
    assert rows["de"]["n"] == WITHHELD and rows["de"]["observed"] is None
    assert isinstance(rows["en"]["n"], int)
    page = render(summary)
    assert "&lt;10" in page
    all_shown = summarize(table, evaluate(table, n_bootstrap=20), min_count=1)
    assert {row["name"]: row["n"] for row in all_shown["outputs"][0]["groups"][0]["rows"]}["ice"] == 6


@pytest.mark.parametrize("events", [4, 396])
def test_an_outcome_that_few_had_or_few_had_not_is_not_shown(events):
    table = predictions()
    table["label"] = (np.arange(400) < events).astype(float)
    summary = summarize(table, evaluate(table, n_bootstrap=20))
    assert set(summary["outputs"][0]) == {"name", "kind", "ours", "hidden"}
    page = render(summary)
    assert "No number of <code>death</code>" in page and "AUROC" not in page[page.index("<body>") :]


def test_many_samples_of_few_patients_are_few():
    table = predictions()
    table["subject_id"] = np.where(table.group_language == "de", 1, table.subject_id)
    summary = summarize(table, evaluate(table, n_bootstrap=20))
    rows = {row["name"]: row for row in summary["outputs"][0]["groups"][0]["rows"]}
    assert rows["de"]["n"] == "<10"


def test_a_report_names_no_place_of_the_machine():
    table = predictions()
    manifest = {
        "command": "/home/ann/.venv/bin/ehrdl train --config /home/ann/c.yaml --run.root=/data/ann",
        "missing": ["icd codes: not under /home/ann/mimic/hosp; the run goes on without"],
        "warnings": ["C:\\Users\\ann\\x is odd"],
    }
    config = {"data": {"source": {"init_args": {"root": "/home/ann/mimic"}}, "prepare": {"cache": "~/cache"}}}
    page = render(summarize(table, evaluate(table, n_bootstrap=20), None, manifest, config))
    assert "ann" not in page[page.index("<body>") :].replace("channel", "").replace("planned", "").replace("cannot", "")
    assert "--config c.yaml" in page


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("values in mg/dL, 120/80 mmHg, and/or none; beats /min", True),
        ("not under /srv/data/x", False),
        ("s3://bucket/key", False),
        ("see ../other/place", False),
        ("\\\\server\\share", False),
        ("hosp/procedures_icd, icu/inputevents", True),
    ],
)
def test_units_are_no_paths(text, kept):
    assert (in_text(text) == text) is kept


def test_names_on_a_hub_and_class_paths_stay():
    config = {"class_path": "ehrdl.sources.mimic4.source.Mimic4", "pretrained": "org/model", "files": ["a/b/c", "d"]}
    assert in_config(config) == config | {"files": ["PATH", "PATH"]}
    assert in_command("ehrdl train --model.pretrained org/model --data.source.root data") == (
        "ehrdl train --model.pretrained org/model --data.source.root PATH"
    )
