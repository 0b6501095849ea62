"""The report: numbers in a dict first, then one page that shows each of them."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from known import evaluate, summarize

from ehrdl.metrics.calibration import sigmoid
from ehrdl.quality import Finding
from ehrdl.report.outcomes.binary import verdict
from ehrdl.report.page.html import estimate, fact, number, percent, render, write_report
from ehrdl.report.summary import LIMITS
from ehrdl.schema import PREDICTIONS, check
from ehrdl.tasks import Readmission

NOISE = {"fused": 0.35, "notes_only": 0.9, "series_only": 0.7, "gradient_boosting": 0.8, "logistic_regression": 0.9}
NOISE |= {"bag_of_words": 1.2, "tabular_and_words": 0.45, "random_forest": 0.75, "bayes": 0.0}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def fake_predictions(n_subjects=500, outputs=("readmission_30d",)):
    rng = np.random.default_rng(3)
    subject = np.repeat(np.arange(n_subjects) + 10_000_000, rng.integers(1, 4, n_subjects))
    n = len(subject)
    frailty = np.repeat(rng.normal(size=n_subjects), np.unique(subject, return_counts=True)[1])
    base = pd.DataFrame({"sample_id": np.arange(n), "subject_id": subject})
    base["prediction_time"] = pd.Timestamp("2150-01-01")
    base["split"] = "held_out"
    base["group_sex"] = rng.choice(["F", "M"], n)
    base["group_age_band"] = rng.choice(["18-44", "45-64", "65-79", "80+"], n)
    base["group_race"] = rng.choice(["WHITE", "BLACK", "ASIAN", "HISPANIC"], n, p=[0.7, 0.2, 0.07, 0.03])
    base.loc[rng.random(n) < 0.05, "group_race"] = None
    base["group_has_note"] = rng.choice(["yes", "no"], n, p=[0.9, 0.1])
    base["group_present"] = np.where(base["group_has_note"] == "yes", "notes and series", "series only")
    frames = []
    for output in outputs:
        risk = -2.4 + 1.0 * frailty + 0.5 * rng.normal(size=n)
        label = (rng.random(n) < sigmoid(risk)).astype(np.float32)
        label[:7] = np.nan
        for model, noise in {**NOISE, "prevalence": None}.items():
            for seed in (0, 1) if model in ("fused", "notes_only", "series_only") else (0,):
                prob = np.full(n, 0.14) if noise is None else sigmoid(risk + noise * rng.normal(size=n))
                rows = base.assign(model=model, seed=seed, output=output, label=label, prob=prob)
                frames.append(rows.assign(prob_calibrated=prob**1.1))
    return pd.concat(frames, ignore_index=True)


FLOW = {
    "steps": [
        {
            "step": "admissions",
            "rule": "all admissions with a discharge after their start",
            "admissions": 4012,
            "subjects": 2000,
        },
        {
            "step": "episode",
            "rule": "stays that follow on the same day are one episode",
            "admissions": 3890,
            "subjects": 2000,
        },
        {
            "step": "age",
            "rule": "at least 18 years old",
            "admissions": 3850,
            "subjects": 1990,
            "caveat": "12 % have no birth",
        },
        {"step": "alive", "rule": "left hospital alive", "admissions": 3600, "subjects": 1900},
    ],
    "notes": {
        "prevalence": {"all eligible": 0.1271, "without each patient's last admission (selects on the future)": 0.2213},
        "summary stored": {"by discharge": 900, "within 24 h": 2000, "later": 500, "never": 200},
        "caveats": ["Readmissions elsewhere <are invisible> & not counted."],
    },
    "caveats": ["This hospital has no emergency department."],
}
MANIFEST = {
    "ehrdl": "0.1.0",
    "git": "abc1234",
    "created": "2025-01-01T00:00:00",
    "task": "readmission",
    "task_info": vars(Readmission().info),
    "seeds": [0, 1],
    "wall_s": {"prepare": 31.2, "fit": 122.91},
    "versions": {"torch": "2.13.0", "python": "3.12.1"},
    "hardware": {"cpu": "4 cores", "memory_gib": 15.6},
    "source": {"class_path": "ehrdl.sources.synthetic.Synthetic", "init_args": {"n_patients": 2000}},
    "tables": {"hosp/labevents": 120_331},
    "missing": ["note/radiology: not in this source; radiology reports are not used"],
    "warnings": ["AUROC above 0.85 on MIMIC: probable leak <script>alert(1)</script>"],
    "data": {"n_samples": {"train": 2500, "tuning": 350, "held_out": 750}, "n_channels": 41, "truncated_samples": 3},
    "quality": [
        Finding("EVENTS", "ADMISSION_TYPE", "stays have an unknown word ('<b>')", 500, 1000, 0.05).to_dict(),
        Finding("series", "glucose", "values are left out", 3, 5000, 0.1).to_dict(),
    ],
}
CONFIG = {
    "task": {"class_path": "ehrdl.tasks.readmission.Readmission", "init_args": {"horizon_days": 30}},
    "seeds": [0, 1],
}


@pytest.fixture(scope="module")
def summary():
    predictions = fake_predictions()
    check(predictions, PREDICTIONS)
    return summarize(predictions, evaluate(predictions, n_bootstrap=100), FLOW, MANIFEST, CONFIG)


@pytest.fixture(scope="module")
def page(summary):
    return render(summary)


def test_findings_stand_in_the_page_and_the_loud_ones_are_warnings(page):
    _, _, section = page.partition("<h2>Quality of the data</h2>")
    _, loud, quiet = section.split("</tbody>")[0].split("<tbody>")[1].split("<tr>")
    assert "<strong>Warning:</strong> stays have an unknown word" in loud and "&lt;b&gt;" in loud and "50.0 %" in loud
    assert "Warning" not in quiet and "5,000" in quiet


class _Page(HTMLParser):
    """Tags left open, addresses that the page would fetch, ids, and the text."""

    VOID = ("meta", "br", "path", "use", "img", "link")

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.ids, self.words, self.tags = [], [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href", "data", "srcset")]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def parsed(page):
    parser = _Page()
    parser.feed(page)
    return parser


def text_of(parsed):
    return re.sub(r"\s+", " ", " ".join(parsed.words))


def test_summary_is_plain_json(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_page_is_whole_and_fetches_nothing(parsed, page):
    assert parsed.open == []
    assert all(address.startswith("#") for address in parsed.addresses)
    assert "script" not in parsed.tags and "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(parsed.ids) == len(set(parsed.ids)), "two elements share an id"


def test_page_names_every_model_and_every_number(summary, parsed):
    text = text_of(parsed)
    (output,) = summary["outputs"]
    for row in output["models"]:
        assert row["name"] in text
        for value in row["metrics"].values():
            assert estimate(value) in text
    for row in output["differences"]:
        for value in row["metrics"].values():
            assert estimate(value, signed=True) in text
    for group in output["groups"]:
        for row in group["rows"]:
            assert f"{number(row['n'])} {number(row['events'])} {percent(row['observed'])}" in text
    for step in summary["flow"]:
        assert step["rule"] in text and step["caveat"] in text and number(step["admissions"]) in text
    for part in [*summary["notes"], *summary["run"]]:
        for row in part["rows"]:
            assert row["name"] in text and fact(row["value"], part["name"] + row["name"]) in text
    for line in [*summary["limits"], *summary["missing"], *summary["warnings"], summary["sentence"], summary["title"]]:
        assert line in text


def test_text_from_outside_is_escaped(page):
    assert "<script>alert" not in page and html.escape("<script>alert(1)</script>") in page
    assert "&lt;are invisible&gt; &amp; not counted" in page


def test_limits_are_those_of_the_source_of_the_task_and_of_all(summary):
    assert summary["limits"][:2] == [*FLOW["caveats"], *FLOW["notes"]["caveats"]]
    assert summary["limits"][2:] == list(LIMITS)
    assert [step["caveat"] for step in summary["flow"]] == ["", "", "12 % have no birth", ""]


def test_flow_chart_gives_what_each_step_dropped(summary):
    assert [step["dropped_admissions"] for step in summary["flow"]] == [None, 122, 40, 250]
    assert [step["dropped_subjects"] for step in summary["flow"]] == [None, 0, 10, 90]


def test_headline_compares_fused_with_the_best_baseline(summary):
    (output,) = summary["outputs"]
    assert summary["title"] == "Unplanned readmission within 30 days"
    assert output["reference"] == "fused" and output["headline"]["baseline"] == "tabular_and_words"
    assert output["headline"]["difference"] == next(
        row["metrics"]["auroc"] for row in output["differences"] if row["other"] == "tabular_and_words"
    )
    assert [row["name"] for row in output["models"] if row["role"] == "ceiling"] == ["bayes"]
    aurocs = [row["metrics"]["auroc"]["value"] for row in output["models"]]
    assert aurocs == sorted(aurocs, reverse=True)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.03, "better"), (-0.03, -0.01, "worse"), (-0.01, 0.02, "not told apart"), (None, None, "no interval")],
)
def test_verdict_follows_the_interval_whatever_its_sign(low, high, said):
    assert verdict({"value": 0.0, "low": low, "high": high}) == said


def test_at_most_six_models_are_drawn_and_the_others_are_named(summary, parsed):
    curves = summary["outputs"][0]["curves"]
    drawn = [line["name"] for line in curves["lines"]]
    assert len(drawn) == 6 and drawn[0] == "fused" and drawn[-1] == "bayes" and "prevalence" not in drawn
    assert "Not drawn:" in text_of(parsed)


def test_a_group_of_everyone_is_named_and_is_no_table():
    same = fake_predictions().assign(group_language=None, group_sex="F")
    summary = summarize(same, evaluate(same, n_bootstrap=2))
    (output,) = summary["outputs"]
    assert output["one_group"] == [{"name": "sex", "value": "F"}, {"name": "language", "value": "unknown"}]
    assert not {"sex", "language"} & {group["name"] for group in output["groups"]}
    text = " ".join(render(summary).split())
    assert "Everyone is in one group, so there is no table: sex (F), language (unknown)." in text


def test_small_groups_get_no_auroc(summary):
    race = next(group for group in summary["outputs"][0]["groups"] if group["name"] == "race")
    assert sum(row["n"] for row in race["rows"]) == summary["outputs"][0]["n"]
    assert {row["name"]: row["auroc"] is None for row in race["rows"]}["HISPANIC"]
    assert "unknown" in [row["name"] for row in race["rows"]]


def test_a_score_that_nobody_could_have_used_is_marked_and_is_never_the_best_baseline_or_a_curve():
    predictions = fake_predictions(150)
    renamed = {"logistic_regression": "lace", "tabular_and_words": "lace_retrospective"}
    predictions = predictions[predictions["model"].isin(["fused", *renamed])].replace({"model": renamed})
    result = summarize(predictions, evaluate(predictions, n_bootstrap=20))
    [output] = result["outputs"]
    assert output["not_deployable"] == ["lace_retrospective"]
    assert output["headline"]["baseline"] == "lace"
    assert [line["name"] for line in output["curves"]["lines"]] == ["fused", "lace"]
    page = render(result)
    assert "not deployable: LACE with this stay" in page
    assert "<strong>Not deployable</strong>: <code>lace_retrospective</code>" in page


def test_rows_of_several_seeds_say_how_many_and_how_far_they_lie_apart(summary, page):
    rows = {row["name"]: row for row in summary["outputs"][0]["models"]}
    low, high = rows["fused"]["auroc_over_seeds"]
    assert [low, high] == sorted(rows["fused"]["metrics"]["auroc"]["per_seed"])
    assert rows["random_forest"]["auroc_over_seeds"] is None
    assert f"mean of 2 seeds, AUROC {low:.3f} to {high:.3f}" in " ".join(page.split())


def test_same_numbers_give_the_same_page(summary, page):
    assert render(summary) == page


def test_predictions_alone_are_enough_and_several_outputs_get_averages():
    predictions = fake_predictions(150, ("death", "sepsis"))
    predictions = predictions[predictions["model"].isin(["logistic_regression", "prevalence"])]
    predictions = predictions.drop(columns=[name for name in predictions if name.startswith("group_")])
    predictions["prob_calibrated"] = np.nan
    result = summarize(predictions, evaluate(predictions, n_bootstrap=20))
    text = render(result)
    assert [part["name"] for part in result["averages"]] == ["Mean over outputs (macro)", "All outputs pooled (micro)"]
    assert "Outcome: sepsis" in text and "Who was included" not in text and "Simulated patients" not in text


def test_file_is_replaced_whole_and_nothing_half_written_stays(summary, page, tmp_path):
    path = tmp_path / "run" / "report.html"
    assert write_report(summary, path) == path
    assert path.read_text(encoding="utf-8") == page
    with pytest.raises(KeyError):
        write_report({**summary, "outputs": [{}]}, path)
    (path.parent / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_report(summary, path.parent / "folder")
    (path.parent / "folder").rmdir()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_browser_lays_the_page_out_within_its_width(summary, tmp_path):
    path = write_report(summary, tmp_path / "report.html")
    probe = tmp_path / "probe.html"
    size = "'w' + document.documentElement.scrollWidth + ' h' + document.body.scrollHeight"
    script = f"<script>document.title = {size}</script>"
    probe.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --window-size=800,1000 --dump-dom"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    width, height = map(int, re.search(r"<title>w(\d+) h(\d+)</title>", dom).groups())
    assert width <= 800 and height > 2000
    assert dom.count("<svg") == 5 and "How the models compare" in dom
