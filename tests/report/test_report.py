"""The report: numbers in a dict first, then one page that shows each of them."""

import base64
import hashlib
import html
import json
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from known import evaluate, summarize
from made_report import CHROMIUM, CONFIG, FLOW, MANIFEST, fake_predictions

from ehrdl.report.outcomes.ranking import verdict
from ehrdl.report.overview import general_use, use
from ehrdl.report.page.html import estimate, fact, number, percent, render, write_report
from ehrdl.report.summary import LIMITS
from ehrdl.schema import PREDICTIONS, check


@pytest.fixture(scope="module")
def summary():
    predictions = fake_predictions()
    check(predictions, PREDICTIONS)
    return summarize(predictions, evaluate(predictions, n_bootstrap=100), FLOW, MANIFEST, CONFIG)


@pytest.fixture(scope="module")
def page(summary):
    return render(summary)


def test_findings_stand_in_the_page_and_the_loud_ones_are_warnings(page):
    _, _, section = page.partition("<h3>Quality of the data</h3>")
    _, loud, quiet = section.split("</tbody>")[0].split("<tbody>")[1].split("<tr>")
    assert "<strong>Warning:</strong> stays have an unknown word" in loud and "&lt;b&gt;" in loud and "50.0 %" in loud
    assert "Warning" not in quiet and "5,000" in quiet


class _Page(HTMLParser):
    """Tags left open, addresses that the page would fetch, ids, and the text."""

    VOID = ("meta", "br", "path", "use", "img", "link", "input")

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
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(parsed.ids) == len(set(parsed.ids)), "two elements share an id"


def test_the_page_allows_its_own_script_and_no_other(page):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (own,) = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{own}'"
    assert len(re.findall("<script", page)) == 1 + page.count('<script type="application/json">')


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
    text = re.sub("<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8"))  # it allows no other script
    probe.write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --window-size=800,1000 --dump-dom"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    width, height = map(int, re.search(r"<title>w(\d+) h(\d+)</title>", dom).groups())
    assert width <= 800 and height > 2000
    drawn = dom.count("<svg") - dom.count('<svg class="consort"')
    assert drawn == 7 and "How the models compare" in dom


def told(**change):
    """What speaks for and against the use of a model, by its first words."""
    rate = {"value": 0.05, "low": 0.03, "high": 0.07}
    first = {"baseline": "lace", "verdict": "better", "calibration": []} | change
    gain = {"models": {"fused": {"net_benefit": rate}}, "over_all": {"fused": change.get("over_all", rate)}}
    output = {"headline": first, "reference": "fused", "alarms": [{"rows": [{"name": "fused"}]}]}
    rows = use(output, {"decisions": {"risk 0.1": {"kind": "risk", "at": 0.1} | gain}})
    return [row["state"] for row in rows]


@pytest.mark.parametrize(
    ("change", "states"),
    [
        ({}, ["Supported", "Supported", "Supported"]),
        ({"verdict": "worse"}, ["Not supported", "Supported", "Supported"]),
        ({"verdict": "not told apart"}, ["Not supported", "Supported", "Supported"]),
        ({"verdict": None}, ["Supported", "Supported"]),
        ({"calibration": ["too low on average"]}, ["Supported", "Not supported", "Supported"]),
        ({"calibration": None}, ["Supported", "Open", "Supported"]),
        ({"over_all": {"value": 0.01, "low": -0.01, "high": 0.03}}, ["Supported", "Supported", "Not supported"]),
        ({"over_all": {"value": 0.01, "low": None, "high": None}}, ["Supported", "Supported"]),
    ],
)
def test_what_speaks_for_the_use_of_a_model_follows_the_intervals(change, states):
    assert told(**change) == states


def test_a_leak_or_its_absence_speaks_about_the_use_of_every_model():
    checks = [{"title": "Facts after the cut", "status": "pass"}, {"title": "Rows", "status": "fail"}]
    [leak, elsewhere, help_] = general_use({"checks": checks}, False)
    assert leak == {"state": "Not supported", "text": "Checks of the leak audit failed: Rows."}
    assert elsewhere["state"] == help_["state"] == "Open"
    [clean, _] = general_use({"checks": [checks[0], {"title": "Notes", "status": "not verified"}]}, True)
    assert clean["text"] == "No leak was found by 1 of the checks; 1 could not be made."
    [unknown, *_] = general_use({"checks": []}, True)
    assert unknown["state"] == "Open"
