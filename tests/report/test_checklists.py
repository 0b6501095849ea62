"""Checklists and model card: each answer is shown by a line of the finished run, and changes when the run does."""

import hashlib
import json
import re
import shutil
from collections import Counter
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from ehrdl.engine.files import read_json, write_json
from ehrdl.errors import ConfigError
from ehrdl.experiment import Experiment
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import RunOptions
from ehrdl.report.checklists import probast, tripod
from ehrdl.report.checklists.evidence import RunFiles, json_lines, yaml_lines
from ehrdl.report.checklists.facts import Facts
from ehrdl.report.checklists.fill import fill
from ehrdl.report.checklists.model_card import model_card, plain
from ehrdl.report.remake import remake
from ehrdl.report.summary import summarize
from ehrdl.runs.files import read_manifest
from ehrdl.tasks.readmission import Readmission

#: TRIPOD+AI, as Collins et al. (BMJ 2024;385:e078378) number it: how many parts each of the 27 items has.
PARTS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
#: PROBAST+AI (Moons et al., BMJ 2025;388:e082505): questions by part and domain.
QUESTIONS = {"D": (3, 4, 4, 5), "E": (3, 4, 4, 7)}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def run(hospital, tmp_path_factory):
    """A small run that is killed just before its report, and resumed by another experiment with the same settings."""
    root = tmp_path_factory.mktemp("checked")

    def experiment():
        where = RunOptions("small", str(root / "runs"))
        note, series = partial(NoteTransformer, width=8, heads=1), partial(SeriesGRU, hidden=4, bin_hours=24)
        model = partial(MultimodalModel, note=note, series=series)
        trainer = {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 2, "num_sanity_val_steps": 0}
        baselines = ["prevalence", "logistic_regression", "lace", "lace_retrospective"]
        return Experiment(where, hospital.config, Readmission(), model, trainer=trainer, baselines=baselines)

    def kill(*_):
        raise Killed

    first = experiment()
    first.fit()
    first.evaluate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ehrdl.experiment.results.write_report", kill)
        with pytest.raises(Killed):
            first.write_report()
    there = {path.name for path in (root / "runs" / "small").iterdir()}
    return SimpleNamespace(folder=experiment().write_report().parent, killed=there, root=root)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(run.folder, tmp_path / "copy")


def facts_of(folder, min_count=10):
    files = RunFiles.read(folder)
    parts = [read_json(folder / name) for name in ("metrics.json", "flow.json", "manifest.json")]
    table, config = (
        pd.read_parquet(folder / "predictions.parquet"),
        yaml.safe_load((folder / "config.yaml").read_text()),
    )
    return Facts(files, summarize(table, *parts, config, min_count), min_count)


def items_of(checklists):
    return [item for part in checklists.values() for item in part["items"]]


def change(folder, name, *keys, value):
    """Write another value at a place of a JSON file."""
    content = read_json(folder / name)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    write_json(folder / name, content)


def answer(folder, item):
    texts = [path.read_bytes() for path in sorted(folder.glob("*.*")) if path.suffix != ".html"]
    return _answers(folder, hashlib.sha256(b"".join(texts)).hexdigest())[item]


@cache
def _answers(folder, content):
    """The items of a folder by their numbers; filled anew when the content of its files has changed."""
    return {item["id"]: item for item in items_of(fill(facts_of(folder)))}


# ------------------------------------------------------------------------------------------------------------- lines


def test_a_line_of_json_is_found_by_its_place():
    value = {"a": [1, {"b": 'x "{[,:\n'}, []], "c": {}, 'd"e': {"f": None, "g": "\U0001f600"}}
    lines = json.dumps(value, indent=2).splitlines()
    found = json_lines("\n".join(lines))
    assert set(found) == {
        ("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("a", 2), ("c",), ('d"e',), ('d"e', "f"), ('d"e', "g"),
    }  # fmt: skip
    for place, line in found.items():
        shown = json.dumps(place[-1]) if isinstance(place[-1], str) else ("1", "{", "[]")[place[-1]]
        assert lines[line - 1].strip().startswith(shown)


def test_a_line_of_yaml_is_found_by_its_place():
    text = yaml.safe_dump({"a": {"b": ["x", {"c": 1}]}, "d": {}, "e": "two\n\nlines: 1\n", "f": 0}, sort_keys=False)
    lines = text.splitlines()
    found = yaml_lines(text)
    for place, shown in {
        ("a", "b"): "  b:", ("a", "b", 0): "  - x", ("a", "b", 1, "c"): "  - c: 1", ("e",): "e: ", ("f",): "f: 0",
    }.items():  # fmt: skip
        assert lines[found[place] - 1].startswith(shown)


def test_a_file_on_one_line_has_all_its_places_there():
    assert json_lines('{"a": [1, 2], "b": {"c": 3}}') == dict.fromkeys(
        [("a",), ("a", 0), ("a", 1), ("b",), ("b", "c")], 1
    )


# --------------------------------------------------------------------------------------------------- the finished run


def test_a_run_killed_before_its_report_is_not_finished(run):
    assert {"checklists.json", "model_card.md"} <= run.killed
    assert not {"manifest.json", "report.html"} & run.killed


def test_every_line_named_as_evidence_shows_its_key_in_the_finished_folder(run):
    checklists = read_json(run.folder / "checklists.json")
    named = [evidence for item in items_of(checklists) for evidence in item["evidence"]]
    assert {one["file"] for one in named} >= {"manifest.json", "config.yaml", "flow.json", "metrics.json", "spec.json"}
    for one in named:
        line = (run.folder / one["file"]).read_text().splitlines()[one["line"] - 1]
        last = one["key"].rpartition(".")[2] if one["file"] != "manifest.json" else one["key"]
        shown = [part for part in (last, one["key"].rpartition(".")[2]) if f'"{part}"' in line or f"{part}:" in line]
        entry = last.isdigit() and re.match(r"\s*(\{|\[|-|[\d.e-]+,?$)", line)
        file_name = one["key"].startswith("files.") and line.split('"')[1] in one["key"]
        assert shown or entry or file_name, (one, line)


def test_evidence_in_the_manifest_is_of_the_sealed_manifest(run):
    manifest = read_manifest(run.folder)  # refuses a manifest that was changed after it was sealed
    files = RunFiles.read(run.folder)
    assert files.get("manifest.json") == manifest
    place = files.find("manifest.json", "choices", "calibration")
    line = (run.folder / "manifest.json").read_text().splitlines()[place.line - 1]
    assert line.strip() == f'"calibration": "{manifest["choices"]["calibration"]}",'


def test_every_item_of_both_checklists_is_there():
    expected = []
    for number in range(1, 28):
        parts = PARTS.get(number)
        expected += [f"{number}{letter}" for letter in "abcdefg"[:parts]] if parts else [str(number)]
    assert [item.id for item in tripod.ITEMS] == expected and len(expected) == 52
    asked = [f"{part} {d}.{q}" for part, ns in QUESTIONS.items() for d, n in enumerate(ns, 1) for q in range(1, n + 1)]
    assert [item.id for item in probast.ITEMS] == asked and len(asked) == 16 + 18
    applies = Counter(item.applies for item in tripod.ITEMS)
    assert applies == {"both": 40, "development": 8, "evaluation": 4}


def test_every_answered_item_has_evidence_and_every_status_is_one_of_three(run):
    for part in read_json(run.folder / "checklists.json").values():
        assert Counter(item["status"] for item in part["items"]) == {k: n for k, n in part["tally"].items() if n}
        for item in part["items"]:
            assert item["status"] in ("answered", "for the author", "failed")
            assert item["evidence"] or item["status"] == "for the author", item
            assert item["answer"].endswith((".", ")")) or item["id"] == "1", item


@pytest.mark.parametrize("item", ["3b", "6a", "8c", "17", "18a", "18b", "18c", "18d", "19", "27b", "D 1.2", "E 3.3"])
def test_what_no_run_shows_is_left_to_the_author(run, item):
    found = answer(run.folder, item)
    assert found["status"] == "for the author" and found["evidence"] == []
    assert found["answer"] == "The run does not show this."


def test_answers_hold_the_numbers_of_the_run(run):
    manifest, metrics = read_json(run.folder / "manifest.json"), read_json(run.folder / "metrics.json")
    n = manifest["data"]["n_samples"]
    assert f"{n['train']} samples" in answer(run.folder, "12a")["answer"]
    scored = metrics["outputs"]["readmission"]
    assert f"{scored['events']} of {scored['n']} scored" in answer(run.folder, "E 4.2")["answer"]
    auroc = scored["models"]["fused"]["auroc"]
    assert (
        f"AUROC {auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})" in answer(run.folder, "23a")["answer"]
    )
    steps = read_json(run.folder / "flow.json")["steps"]
    assert f"{steps[0]['admissions']:,} admissions" in answer(run.folder, "20a")["answer"]
    assert manifest["git"] is None or manifest["git"] in answer(run.folder, "18f")["answer"]
    assert answer(run.folder, "D 3.4")["answer"] == "The outcome counts within 30 days after the prediction."


def test_a_report_that_is_made_again_has_the_same_checklists(run, copy):
    before = [(run.folder / name).read_bytes() for name in ("checklists.json", "model_card.md")]
    remake(copy)
    assert [(copy / name).read_bytes() for name in ("checklists.json", "model_card.md")] == before


# ------------------------------------------------------------------------------------------------ a run that is changed


def test_few_events_fail_and_enough_do_not(copy):
    assert {answer(copy, item)["status"] for item in ("10", "E 4.2")} == {"failed"}
    table = pd.read_parquet(copy / "predictions.parquet")
    many = [
        table.assign(subject_id=table.subject_id + 10**9 * i, sample_id=table.sample_id + 10**6 * i) for i in range(30)
    ]
    pd.concat(many).to_parquet(copy / "predictions.parquet")
    for key in ("n", "events", "subjects"):
        before = read_json(copy / "metrics.json")["outputs"]["readmission"][key]
        change(copy, "metrics.json", "outputs", "readmission", key, value=before * 30)
    assert {answer(copy, item)["status"] for item in ("10", "E 4.2")} == {"answered"}


def test_without_calibration_the_performance_fails(copy):
    for item in ("12e", "23a", "E 4.7"):
        assert answer(copy, item)["status"] == "answered"
    nothing = {"value": None, "low": None, "high": None, "per_seed": [None]}
    change(copy, "metrics.json", "outputs", "readmission", "models", "fused", "calibration_slope", value=nothing)
    for item in ("12e", "23a", "E 4.7"):
        found = answer(copy, item)
        assert found["status"] == "failed" and "No calibration is reported for readmission" in found["answer"]


def test_without_net_benefit_the_measures_of_probast_fail(copy):
    change(copy, "metrics.json", "outputs", "readmission", "decisions", value={})
    assert answer(copy, "E 4.7")["answer"] == "No net benefit is reported for readmission."


def test_without_intervals_the_performance_fails(copy):
    value = {"value": 0.7, "low": None, "high": None, "per_seed": [0.7]}
    change(copy, "metrics.json", "outputs", "readmission", "models", "fused", "auroc", value=value)
    assert answer(copy, "23a")["answer"] == "The scores of fused have no interval."


def test_other_settings_on_the_same_held_out_patients_fail(copy):
    own = read_json(copy / "manifest.json")["held_out"]
    bare = {key: value for key, value in own.items() if key != "others"}
    change(copy, "manifest.json", "held_out", "others", value=[bare | {"seeds": [7]}])
    assert answer(copy, "E 4.5")["status"] == answer(copy, "12c")["status"] == "answered"
    change(copy, "manifest.json", "held_out", "others", value=[bare | {"settings": "other"}])
    for item in ("E 4.5", "12c"):
        found = answer(copy, item)
        assert found["status"] == "failed" and found["answer"].startswith("1 other setting was scored on the same")
        assert found["evidence"][0]["key"] == "held_out.others.0"


def test_a_warning_of_a_leak_fails(copy):
    change(copy, "manifest.json", "warnings", value=["readmission: the AUROC 0.990 of fused is above 0.9"])
    assert answer(copy, "E 4.5")["status"] == "failed"


def test_a_cohort_that_is_chosen_by_the_future_fails(copy):
    assert answer(copy, "6b")["status"] == "answered"
    change(copy, "flow.json", "steps", 2, "rule", value="not died in the horizon (selects on the future)")
    for item in ("6b", "D 1.3", "E 1.3"):
        found = answer(copy, item)
        assert found["status"] == "failed" and found["evidence"][0]["key"] == "steps.2.rule"


def test_a_reference_that_reads_later_facts_fails(copy):
    models = read_json(copy / "manifest.json")["models"]
    place = next(i for i, one in enumerate(models) if one["name"] == "fused")
    change(copy, "manifest.json", "models", place, "deployable", value=False)
    assert answer(copy, "E 2.4")["answer"] == "fused reads what is not known at the prediction time."


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ([{"name": "future", "status": "pass"}, {"name": "rows", "status": "not verified"}], "answered"),
        ([{"name": "future", "status": "pass"}, {"name": "rows", "status": "fail"}], "failed"),
        ([{"name": "future", "status": "not verified"}, {"name": "rows", "status": "pass"}], "for the author"),
    ],
)
def test_the_leak_audit_decides_whether_predictors_were_known_in_time(copy, checks, status):
    (copy / "leak_audit.json").unlink()
    assert answer(copy, "E 2.4")["status"] == "for the author"
    write_json(copy / "leak_audit.json", {"checks": checks})
    for item in ("E 2.3", "E 2.4"):
        found = answer(copy, item)
        assert found["status"] == status and found["evidence"][0]["file"] == "leak_audit.json"
    assert answer(copy, "E 4.5")["status"] == ("failed" if status == "failed" else "answered")


def test_reweighted_classes_need_a_recalibration(copy):
    config = yaml.safe_load((copy / "config.yaml").read_text())
    assert answer(copy, "13")["answer"].startswith("No method against class imbalance was used")
    config["baseline_params"] = {"logistic_regression": {"class_weight": "balanced"}}
    (copy / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    found = answer(copy, "D 4.4")
    assert found["status"] == "answered" and "class_weight of logistic_regression shifts the risks" in found["answer"]
    change(copy, "manifest.json", "choices", "calibration", value=None)
    assert answer(copy, "D 4.4")["status"] == "failed"


def test_scores_on_the_patients_of_the_fit_fail(copy):
    table = pd.read_parquet(copy / "predictions.parquet")
    table["split"] = table["split"].replace("held_out", "train")
    table.to_parquet(copy / "predictions.parquet")
    change(copy, "metrics.json", "split", value="train")
    assert answer(copy, "E 4.1")["status"] == "failed"


def test_few_training_events_per_predictor_fail(copy):
    assert answer(copy, "D 4.1")["status"] == "failed"
    change(copy, "manifest.json", "data", "n_samples", "train", value=100_000)
    assert answer(copy, "D 4.1")["status"] == "answered"


def test_dates_and_setting_are_answered_from_the_description_of_the_cohort(copy):
    write_json(
        copy / "cohort.json",
        {
            "setting": {"setting": "Two wards.", "dates": ""},
            "dates": {"kind": "real", "years": {"train": [2015, 2019]}},
            "characteristics": [{"name": "age"}],
            "predictors": {},
        },
    )
    known = facts_of(copy)
    told = {"setting": "Two wards.", "dates": "Predictions are of these years: training 2015 to 2019."}
    facts = Facts(known.files, {**known.summary, "cohort": told}, known.min_count)
    items = {item["id"]: item for item in items_of(fill(facts))}
    assert items["5b"]["answer"] == told["dates"] and items["6a"]["answer"] == told["setting"]
    assert {items[name]["status"] for name in ("5b", "6a", "20b", "20c")} == {"answered"}
    change(copy, "cohort.json", "dates", "kind", value="not_real")
    facts = Facts(RunFiles.read(copy), facts.summary, known.min_count)
    assert [item["status"] for item in items_of(fill(facts)) if item["id"] == "5b"] == ["for the author"]


def test_predictions_for_another_hospital_are_an_external_evaluation(run, tmp_path):
    manifest = read_json(run.folder / "manifest.json")
    kept = ("ehrdl", "git", "seeds", "versions", "task", "task_info", "outputs", "models", "source")
    lacks = "2 channels that the models know are absent here"
    facts = {key: manifest[key] for key in kept} | {"run": str(run.folder), "missing": [lacks], "warnings": []}
    write_json(tmp_path / "manifest.json", facts)
    for name in ("predictions.parquet", "flow.json"):
        shutil.copy(run.folder / name, tmp_path / name)
    remake(tmp_path)
    items = {item["id"]: item for item in items_of(read_json(tmp_path / "checklists.json"))}
    assert items["16"]["answer"] == f"The new data differ: {lacks}."
    assert items["E 4.1"]["answer"].startswith("A finished run made the predictions for other data.")
    for item in ("E 4.1", "12a", "12c", "13", "22", "D 4.1", "D 4.4", "D 4.5", "E 4.5"):
        assert items[item]["status"] == "for the author", items[item]
    assert str(run.root) not in (tmp_path / "model_card.md").read_text() + json.dumps(items)


def test_a_damaged_file_of_a_run_is_one_line(copy):
    (copy / "spec.json").write_text('{"channels": ')
    with pytest.raises(ConfigError, match=r"spec\.json: is damaged, no JSON"):
        remake(copy)


# ------------------------------------------------------------------------------------------------------------ privacy


def test_neither_checklists_nor_card_name_a_path_or_a_patient(run):
    table = pd.read_parquet(run.folder / "predictions.parquet")
    for name in ("checklists.json", "model_card.md"):
        text = (run.folder / name).read_text()
        assert str(run.root) not in text and "/tmp" not in text
        numbers = set(re.findall(r"\d{5,}", text))
        assert not numbers & set(table.subject_id.astype(str))


def test_hidden_results_are_in_neither_checklists_nor_card(run):
    facts = facts_of(run.folder, min_count=10_000)
    share = read_json(run.folder / "spec.json")["prevalence"][0]
    checklists = fill(facts)
    assert {item["status"] for item in items_of(checklists) if item["id"] in ("10", "23a", "E 4.2")} == {"failed"}
    card = model_card(facts, checklists)
    text = json.dumps([[item["answer"], item["left"]] for item in items_of(checklists)]) + card
    text = re.sub(r"[0-9a-f]{12,}|\d+(\.\d+){2,}|\d{4}-\d\d-\d\d", "", text)  # hashes, versions and dates
    exact = read_json(run.folder / "metrics.json")["outputs"]["readmission"]
    auroc = exact["models"]["fused"]["auroc"]["value"]
    assert f"{auroc:.3f}" not in text
    assert not any(f"{value:.1%}".replace("%", " %") in text for value in (exact["prevalence"], share))
    sizes = read_json(run.folder / "manifest.json")["data"]
    steps = read_json(run.folder / "flow.json")["steps"]
    for n in (*sizes["n_samples"].values(), *sizes["n_subjects"].values(), steps[-1]["admissions"]):
        found = re.search(rf"(?<![\w.,]){n}(?![\w.,]*\w)", text)
        assert not found, text[found.start() - 60 : found.end() + 20]


# --------------------------------------------------------------------------------------------------- the card, the page


def test_the_model_card_is_markdown_with_whole_tables_and_all_headings(run):
    tokens = MarkdownIt().enable("table").parse((run.folder / "model_card.md").read_text())
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == [
        "Model card: Unplanned readmission within 30 days", "Model details", "Intended use", "Data", "Inputs",
        "Performance", "Groups of patients", "Limits", "How to reproduce",
    ]  # fmt: skip
    rows, n = [], 0
    for token in tokens:
        n = 0 if token.type == "tr_open" else n + (token.type in ("th_open", "td_open"))
        if token.type == "tr_close":
            rows.append(n)
    assert Counter(rows)[3] == 7 and set(rows) <= {3, 6}  # six metrics and a head; groups
    assert not any("|" in token.content for token in tokens if token.type == "inline")


def test_the_model_card_holds_the_numbers_of_the_report(run):
    card = (run.folder / "model_card.md").read_text()
    scores = read_json(run.folder / "metrics.json")["outputs"]["readmission"]["models"]
    for metric in ("auroc", "calibration_slope", "calibration_intercept"):
        score = scores["fused"][metric]
        assert f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})" in card
    manifest = read_json(run.folder / "manifest.json")
    assert manifest["files"]["config.yaml"]["sha256"] in card
    assert "Intended use\n\nFor the author" in card and 300 < len(card.split()) < 1300


def test_a_name_cannot_break_the_markdown():
    row = f"| {plain('a|b <i>')} | 1 |"
    tokens = MarkdownIt().enable("table").parse(f"| g | n |\n|---|---|\n{row}\n")
    cells = [token.content for token in tokens if token.type == "inline"]
    assert len(cells) == 4 and "<i>" not in MarkdownIt().enable("table").render(f"| g | n |\n|---|---|\n{row}\n")


def test_the_report_shows_both_checklists_with_their_tally_and_places(run):
    page = " ".join((run.folder / "report.html").read_text().split())
    for part in read_json(run.folder / "checklists.json").values():
        tally = part["tally"]
        assert f"{tally['answered']} answered from the run, {tally['for the author']} for the author" in page
        for item in part["items"]:
            assert f'<th scope="row">{item["id"]}</th>' in page
            for one in item["evidence"]:
                assert f"<code>{one['file']}:{one['line']}</code>" in page


def test_a_file_of_predictions_answers_only_what_it_shows(run, tmp_path):
    shutil.copy(run.folder / "predictions.parquet", tmp_path / "mine.parquet")
    shutil.copy(run.folder / "config.yaml", tmp_path / "config.yaml")  # of unknown origin, and therefore not read
    remake(tmp_path / "mine.parquet")
    checklists = read_json(tmp_path / "checklists.json")
    items = {item["id"]: item for item in items_of(checklists)}
    assert {one["file"] for item in items.values() for one in item["evidence"]} == {"metrics.json"}
    shown = {name for name, item in items.items() if item["status"] != "for the author"}
    assert shown == {"10", "11", "12e", "15", "20a", "21", "23a", "D 4.3", "E 4.2", "E 4.3", "E 4.7"}
    assert (
        items["E 4.1"]["answer"]
        == "The file says that its rows are of the split held_out, not on whom the models were fitted."
    )
    card = (tmp_path / "model_card.md").read_text()
    assert "The predictions belong to no run of ehrdl, so how they were made is for the author." in card
    for one in items["23a"]["evidence"]:
        line = (tmp_path / "metrics.json").read_text().splitlines()[one["line"] - 1]
        assert f'"{one["key"].rpartition(".")[2]}"' in line


def test_a_number_needs_no_calibration_and_has_its_own_measures(tmp_path):
    rng = np.random.default_rng(0)
    days = rng.gamma(2, 3, 200)
    table = pd.DataFrame({"subject_id": range(200), "label": days, "value": days + rng.normal(size=200)})
    table.assign(output="days").to_csv(tmp_path / "stay.csv", index=False)
    remake(tmp_path / "stay.csv")
    items = {item["id"]: item for item in items_of(read_json(tmp_path / "checklists.json"))}
    assert items["12e"]["answer"] == "Measures: MAE, RMSE and R²."
    assert items["E 4.2"]["status"] == "for the author" and items["E 4.2"]["answer"] == "days: 200 predictions."
    assert items["23a"]["status"] == "answered" and items["15"]["answer"] == "The models give days as a number."
    assert "| MAE | " in (tmp_path / "model_card.md").read_text()
