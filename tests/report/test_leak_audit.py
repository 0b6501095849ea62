"""The leak audit in the report: words for each status, small numbers hidden, and `not verified` for a foreign file."""

import pandas as pd
import pytest

from ehrdl.report.leak_audit import audit_rows
from ehrdl.report.remake import remake
from ehrdl.report.suppress import Shown
from ehrdl.runs.leak_audit import FAIL, KINDS, PASS, Check, not_verified, read_audit, write_audit

CHECKS = [
    Check("subjects", FAIL, {"n_subjects": 279, "n_shared": 3}),
    Check(
        "single", PASS, {"output": "death", "n_features": 839, "feature": "sodium__min", "auroc": 0.7533, "limit": 0.85}
    ),
    not_verified("notes", "The run reads no notes; /data/ann/hospital is empty."),
]


@pytest.fixture
def audit(tmp_path):
    write_audit(tmp_path, [check.to_dict() for check in CHECKS])
    return read_audit(tmp_path)


def test_a_finding_is_a_sentence_with_its_numbers():
    assert CHECKS[0].finding == "3 of 279 patients are in two splits."
    assert CHECKS[1].finding == (
        "death: of 839 features, sodium__min comes closest to its limit: AUROC 0.753, limit 0.850."
    )


def test_every_check_has_both_sentences_and_the_numbers_that_they_name():
    for name, kind in KINDS.items():
        for text in (kind.title, kind.how, kind.passed, kind.failed):
            assert text and text == " ".join(text.split()), name


def test_small_numbers_and_paths_are_hidden(audit):
    rows = audit_rows(audit, Shown(10))["checks"]
    assert rows[0]["finding"] == "<10 of 279 patients are in two splits."
    assert rows[2]["finding"] == "The run reads no notes; PATH is empty."
    assert audit_rows(audit, Shown(1))["checks"][0]["finding"].startswith("3 of 279")


def test_what_labels_say_is_hidden_where_an_output_is(audit):
    rows = audit_rows(audit, Shown(10), hidden=True)["checks"]
    assert "Not shown" in rows[1]["finding"] and rows[1]["status"] == PASS
    assert "Not shown" not in rows[0]["finding"]


def predictions(n=200):
    label = [i % 4 == 0 for i in range(n)]
    risk = [(0.6 if one else 0.3) + (i % 7) / 20 for i, one in enumerate(label)]
    return pd.DataFrame({"subject_id": range(n), "label": label, "prob": risk})


def test_a_file_of_other_origin_verifies_nothing(tmp_path):
    predictions().to_csv(tmp_path / "theirs.csv", index=False)
    predictions().to_parquet(tmp_path / "theirs.parquet")
    page = " ".join(remake(tmp_path / "theirs.parquet").read_text().split())
    assert page.count("<td>not verified</td>") == len(KINDS)
    assert "Proved by the tests" not in page
