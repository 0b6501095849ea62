"""Predictions that somebody else made: read as they are, or refused by one line that names the column and the row."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from ehrdl.errors import SchemaError
from ehrdl.report.predictions import read_predictions
from ehrdl.report.remake import remake

N = 200


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    prob = rng.random(N)
    label = (rng.random(N) < prob).astype(int)
    return pd.DataFrame({"label": label, "prob": prob.round(4)})


def written(frame, path):
    if ".parquet" in path.name:
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ";" if "semicolon" in path.name else ",")
    return path


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.csv.gz", "p.tsv", "p.tsv.gz", "semicolon.csv"])
def test_two_columns_are_enough_in_any_format(frame, tmp_path, name):
    read = read_predictions(written(frame, tmp_path / name))
    assert read.independent
    table = read.table
    np.testing.assert_allclose(table.prob, frame.prob)
    np.testing.assert_array_equal(table.label, frame.label)
    assert (table.sample_id == np.arange(N)).all() and (table.subject_id == table.sample_id).all()
    assert (table[["seed", "split", "output"]] == [0, "held_out", "outcome"]).all().all()
    assert set(table.model) == {name.split(".")[0]}
    said = " ".join(read.assumed)
    assert "no column subject_id: intervals take the rows as independent" in said and "no column split" in said


def test_csv_gives_what_parquet_gives(frame, tmp_path):
    frame = frame.assign(subject_id=np.arange(N) // 3 + 10_000_000, model="mine", group_sex="F", output="death")
    frame.loc[:4, "label"] = np.nan
    frame.loc[3:9, "group_sex"] = None
    frame["prediction_time"] = pd.Timestamp("2150-01-01 08:00")
    one, other = (read_predictions(written(frame, tmp_path / name)) for name in ("p.parquet", "p.csv"))
    pd.testing.assert_frame_equal(one.table, other.table, check_dtype=False)
    assert one.assumed == other.assumed and not one.independent


def test_ids_and_labels_may_be_words(frame, tmp_path):
    frame["label"] = frame["label"].map({0: "False", 1: "True"})
    frame["subject_id"] = [f"patient-{i // 2}" for i in range(N)]
    table = read_predictions(written(frame, tmp_path / "p.csv")).table
    assert table.subject_id.nunique() == N // 2 and (table.subject_id.to_numpy() == np.arange(N) // 2).all()
    assert set(table.label) == {0.0, 1.0}


def refusal(frame, path):
    with pytest.raises(SchemaError) as caught:
        read_predictions(written(frame, path))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_all_missing_columns_are_named_at_once_with_what_they_may_be(frame, tmp_path):
    other = frame.rename(columns={"label": "y_true", "prob": "y_score"}).assign(age=50)
    assert refusal(other, tmp_path / "p.csv") == (
        "columns label and prob are missing (y_true may be label, y_score may be prob: rename); "
        "the file has y_true, y_score, age"
    )
    for name in ("probability", "pred", "Prob", "probs", "y_pred", "Predicted Boolean Probability"):
        assert f"{name} may be prob: rename" in refusal(frame.rename(columns={"prob": name}), tmp_path / "p.csv")
    assert "column label is missing; the file has prob" in refusal(frame[["prob"]], tmp_path / "p.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("prob", 1.5, "column prob, row 8: 1.5 is no probability in [0, 1]"),
        ("prob", -2.0, "column prob, row 8: -2 is no probability in [0, 1] (log odds become one by 1 / (1 + exp(-x)))"),
        ("prob", np.nan, "column prob, row 8: nan is empty"),
        ("prob", np.inf, "column prob, row 8: inf is no probability"),
        ("label", 2, "column label, row 8: 2 is neither 0, 1 nor empty"),
        ("label", 0.5, "column label, row 8: 0.5 is neither 0, 1 nor empty"),
        ("label", "yes", "column label, row 8: 'yes' is no number"),
        ("split", "test", "column split, row 8: 'test' is not one of train, tuning, held_out"),
        ("seed", 0.5, "column seed, row 8: 0.5 is no whole number"),
        ("subject_id", "", "column subject_id, row 8: '' is empty"),
        ("prediction_time", "soon", "column prediction_time, row 8: 'soon' is no time"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_row(frame, tmp_path, suffix, column, value, said):
    rest = {"split": "held_out", "seed": 0.0, "subject_id": "a", "prediction_time": "2150-01-01"}
    if column in rest:
        frame[column] = rest[column]
    if isinstance(value, str) and column == "label":
        frame[column] = frame[column].astype(str)
    frame[column] = frame[column].astype(object if isinstance(value, str) else float)
    frame.loc[7, column] = value
    assert refusal(frame, tmp_path / f"p{suffix}").startswith(said)


def test_bad_rows_beyond_the_first_are_counted(frame, tmp_path):
    frame["prob"] = np.log(frame["prob"])
    assert "so are 199 more rows" in refusal(frame, tmp_path / "p.parquet")


def test_several_models_are_lined_up_by_sample_or_refused(frame, tmp_path):
    both = pd.concat([frame.assign(model="a"), frame.iloc[::-1].assign(model="b")], ignore_index=True)
    assert "column sample_id is missing; several models" in refusal(both, tmp_path / "p.csv")
    both["subject_id"] = [*range(N), *reversed(range(N))]
    table = read_predictions(written(both, tmp_path / "p.csv")).table
    a, b = (table[table.model == name].set_index("sample_id") for name in "ab")
    np.testing.assert_array_equal(a.prob, b.prob.reindex(a.index))


@pytest.mark.parametrize("content", [b"", b"junk", b"\x1f\x8bjunk", b"\xff\xfe\x00", b"label,prob\n1"])
def test_a_file_that_is_no_table_is_one_line(tmp_path, content):
    for name in ("p.csv", "p.csv.gz", "p.parquet", "p.xlsx"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SchemaError, match=rf"{name}: ") as caught:
            read_predictions(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_refused(frame, tmp_path):
    (tmp_path / "p.csv").write_text("label,prob,prob\n1,0.5,0.6\n")
    with pytest.raises(SchemaError, match="prob is there twice"):
        read_predictions(tmp_path / "p.csv")


NAMES = ["$\\frac{1}$", "_hidden", "<b>&\"'", "a\nb", "模型", "x" * 300, "bayes", "fused", "lace_retrospective"]


def test_any_name_of_a_model_is_drawn_and_nothing_unknown_is_claimed(frame, tmp_path):
    rng = np.random.default_rng(1)
    base = frame.assign(sample_id=range(N))
    parts = [
        base.assign(model=name, prob=(base.prob * 0.7 + 0.3 * rng.random(N)).round(4))
        for name in [*NAMES, *(f"model {i}" for i in range(31))]
    ]
    path = written(pd.concat(parts), tmp_path / "p.parquet")
    page = remake(path).read_text(encoding="utf-8")
    body = page[page.index("<body>") :]
    for claim in (
        "no model was trained on",
        "the chance of",
        "Simulated",
        "Not deployable",
        "deep:",
        "ceiling",
        "age, sex",
    ):
        assert claim not in body
    for shown in ("\\frac{1}$", "_hidden", "&lt;b&gt;&amp;", "模型", "intervals take the rows as independent"):
        assert shown.lower() in page.lower()
    assert str(tmp_path) not in page
    assert len(json.loads((tmp_path / "metrics.json").read_text())["outputs"]["outcome"]["models"]) == 40


def test_a_name_that_begins_with_an_underscore_stands_in_the_legends(frame, tmp_path):
    page = remake(written(frame, tmp_path / "_mine.csv")).read_text(encoding="utf-8")
    assert page.count("\N{NO-BREAK SPACE}_mine") >= 3  # ROC, precision and recall, calibration


def test_a_gzipped_file_with_another_name_is_read(frame, tmp_path):
    (tmp_path / "p.csv").write_bytes(gzip.compress(frame.to_csv(index=False).encode("utf-8-sig")))
    assert len(read_predictions(tmp_path / "p.csv").table) == N


@pytest.mark.parametrize("name", ["manifest.json", "flow.json", "config.yaml"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"outputs": [3], "steps": [3]}'])
def test_a_damaged_file_of_a_run_is_one_line_or_read(frame, tmp_path, name, content):
    from ehrdl.errors import EhrdlError

    path = written(frame, tmp_path / "predictions.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    try:
        remake(path)
    except EhrdlError as error:
        assert name in str(error) and "\n" not in str(error)
        assert not (tmp_path / "report.html").exists()
    else:
        assert name == "config.yaml" and content.startswith(b'{"outputs')


@pytest.mark.parametrize("kind", [int, float, str])
def test_a_group_column_of_measured_numbers_is_refused_and_one_of_codes_is_not(tmp_path, kind):
    frame = pd.DataFrame({"label": [0, 1] * 50, "prob": np.linspace(0, 1, 100), "group_age": range(100)})
    frame["group_age"] = frame["group_age"].astype(kind)
    frame.to_parquet(tmp_path / "p.parquet")
    with pytest.raises(SchemaError, match=r"column group_age: holds 100 different numbers, such as 0"):
        read_predictions(tmp_path / "p.parquet")
    frame.assign(group_age=np.arange(100) % 30).to_parquet(tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").table.group_age.nunique() == 30
    frame.assign(group_age=[f"ward {i}" for i in range(100)]).to_parquet(tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").table.group_age.nunique() == 100


def held_out(**columns):
    rng = np.random.default_rng(0)
    prob = rng.random(N).round(4)
    label = (rng.random(N) < prob).astype(float)
    base = {"sample_id": range(N), "subject_id": range(N), "model": "m", "seed": 0, "split": "held_out", "label": label}
    return pd.DataFrame(base | {"prob": prob} | columns)


BAD = {
    "one class": (held_out(label=0), "one class only"),
    "no known label held out": (
        held_out(split=["train", "held_out"] * 100, label=[1.0, np.nan] * 100),
        "column label: split held_out, output outcome has no known label",
    ),
    "duplicates": (pd.concat([held_out(), held_out().tail(1)]), "predicts a sample twice .*: sample 199"),
    "no held-out row": (held_out(split="train"), "column split: no row is held_out"),
    "no rows": (held_out().head(0), "has no rows"),
    "one row": (held_out().head(1), "one class only"),
    "percentages": (held_out(prob=np.linspace(0, 100, N)), "row 3: .*percentages become one by division by 100"),
    "a value beside a risk": (held_out(value=3.0), "column value, row 1: 3 stands beside a prob"),
    "an infinite value": (held_out(value=np.inf, prob=np.nan), "column value, row 1: inf is not finite"),
    "two kinds of one output": (
        pd.concat([held_out(), held_out(model="n", value=3.0, prob=np.nan)]),
        "column prob, row 1: .* is of an output that other rows predict a value of",
    ),
    "another label": (pd.concat([held_out(), held_out(model="n", label=1)]), "column label: model n, seed 0"),
    "another patient": (
        pd.concat([held_out(), held_out(model="n", subject_id=7)]),
        "column subject_id: model n, seed 0",
    ),
    "other samples": (
        pd.concat([held_out(), held_out(model="n").head(9)]),
        r"column sample_id: model n, seed 0 \(9 rows",
    ),
    "a huge seed": (held_out(seed=1e30), "column seed, row 1: 1e[+]30 is no whole number"),
    "a list as a group": (held_out(group_sex=[["F"]] * N), "column group_sex, row 1: .* is a list"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_predictions_that_cannot_be_scored_are_one_line_that_names_the_file(tmp_path, name):
    frame, said = BAD[name]
    frame.to_parquet(tmp_path / "p.parquet")
    with pytest.raises(SchemaError, match=said) as caught:
        remake(tmp_path / "p.parquet")
    assert str(caught.value).startswith(f"{tmp_path / 'p.parquet'}: ") and "\n" not in str(caught.value)
    assert not (tmp_path / "metrics.json").exists()
