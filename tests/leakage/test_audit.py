"""The leak audit finds what is planted, in whole runs, and nothing in honest ones; and it changes nothing of a run."""

import leaking
import numpy as np
import pytest

from ehrdl.audit.credible import check_credible, lines_above, scored
from ehrdl.audit.permuted import judge, permuted_scores, scores_of
from ehrdl.audit.splits import fingerprints
from ehrdl.data.features.table import tabulate
from ehrdl.runs.leak_audit import FAIL, KINDS, NOT_VERIFIED, PASS, PROVED, read_audit
from ehrdl.schema import HELD_OUT, TRAIN
from ehrdl.sources.synthetic import Synthetic


def planted(name):
    """The run in which something is planted, by its name."""
    return lambda root, patch: leaking.run_of(getattr(leaking, name)(300, seed=1), root)


def patched(name):
    def run(root, patch):
        getattr(leaking, name)(patch)
        return leaking.run_of(Synthetic(300, seed=1), root)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "caught"),
    [
        (planted("CodesAtAdmission"), {"own_codes", "future"}),
        (patched("split_by_stay"), {"subjects"}),
        (planted("OutcomeAsValue"), {"single", "credible"}),
        (patched("cut_by_time"), {"future"}),
        (planted("Doubled"), {"persons", "rows", "notes"}),
        (planted("OutcomeAsPresence"), {"shadow", "single", "credible"}),
    ],
    ids=["own codes", "split by stay", "outcome as value", "cut by time", "doubled", "outcome as presence"],
)
def test_a_run_that_leaks_on_purpose_is_caught_and_the_report_says_so(run, caught, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        made = run(tmp_path, patch)
    found = leaking.statuses(made)
    assert set(found[found == FAIL].index) == caught
    said, page = capsys.readouterr().err, " ".join((made.folder / "report.html").read_text().split())
    for check in read_audit(made.folder)["checks"]:
        if check["status"] == FAIL:
            assert "warning: leak audit: " in said or check["name"] == "credible"
            assert f"check &#39;{check['title']}&#39;" in page.partition("</header>")[0] or check["name"] == "credible"
    assert "<strong>fail</strong>" in page


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One honest run with the audit, and one without."""
    root = tmp_path_factory.mktemp("audited")
    return [
        leaking.run_of(Synthetic(300, seed=1), root, name, audit=audit)
        for name, audit in (("with", True), ("off", False))
    ]


@pytest.mark.slow
def test_an_honest_run_fails_no_check(runs):
    found = leaking.statuses(runs[0])
    assert list(found.index) == list(KINDS)
    assert found.drop("credible").eq(PASS).all()
    assert found["credible"] == NOT_VERIFIED  # the outcome is simulated
    assert runs[0].manifest["warnings"] == []
    assert "leak_audit.json" in runs[0].manifest["files"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 5))
def test_honest_runs_of_other_seeds_fail_no_check(seed, tmp_path):
    found = leaking.statuses(leaking.run_of(Synthetic(300, seed=seed), tmp_path, seeds=[seed]))
    assert found.drop("credible").eq(PASS).all(), found


@pytest.mark.slow
def test_the_audit_changes_no_other_file_of_a_run(runs):
    audited, off = (made.folder for made in runs)
    for name in ("predictions.parquet", "metrics.json", "calibration.json", "spec.json", "flow.json"):
        assert (audited / name).read_bytes() == (off / name).read_bytes(), name
    assert not (off / "leak_audit.json").exists()
    page = (off / "report.html").read_text()
    assert page.count("The leak audit was turned off (audit: false).") == len(KINDS)


@pytest.mark.slow
def test_the_same_run_gets_the_same_audit(runs, tmp_path):
    again = leaking.run_of(Synthetic(300, seed=1), tmp_path)
    assert (again.folder / "leak_audit.json").read_bytes() == (runs[0].folder / "leak_audit.json").read_bytes()


@pytest.fixture(scope="module")
def tables(prepared):
    """Features and labels of training and held-out samples."""
    found = []
    for split in (TRAIN, HELD_OUT):
        rows = prepared.rows(split)
        found.append(tabulate(prepared.dataset, rows).drop(columns="text"))
        found.append(prepared.samples.label_readmission.to_numpy()[rows])
    return found


def test_permuted_labels_score_a_half_and_labels_that_are_not_permuted_do_not(tables):
    train, label, others, truth = tables
    assert not judge(permuted_scores(train, label, others, truth, 0))["off"]
    truly = np.stack(
        [label, *[np.where(np.random.default_rng(i).random(len(label)) < 0.1, 0, label) for i in range(5)]], 1
    )
    assert judge(scores_of(train, truly, others, truth))["off"]


def test_a_patient_is_known_again_under_another_id_and_at_another_date(build):
    def facts(subject, start, last):
        values = [(hour, 2, 40 + 3 * hour) for hour in range(12)] + [(13, 3, last)]
        return [(subject, start + hour, start + hour + 1, channel, value) for hour, channel, value in values]

    store = build.store([*facts(1, 0, 7), *facts(2, 5000, 7), *facts(3, 0, 8), (4, 0, 1, 2, 50)])
    found = fingerprints(store, np.array([1, 2, 3, 4, 5]))
    assert found.keys() == {1, 2, 3}  # a single value is no one's own, and the fifth has no fact
    assert found[1] == found[2] != found[3]


METRICS = {
    "outputs": {
        "death": {
            "bayes_auroc": None,
            "prevalence": 0.1,
            "models": {name: {"auroc": {"value": value}} for name, value in (("a", 0.97), ("b", 0.8), ("c", None))},
        }
    }
}


def test_an_auroc_that_nobody_reached_is_named():
    found = scored(METRICS, lambda output: 0.93)
    assert [(one.model, one.auroc) for one in found] == [("a", 0.97), ("b", 0.8)]
    check = check_credible(found)
    assert check.status == FAIL and "AUROC 0.970 of a is above 0.930" in check.finding
    assert len(lines_above(found)) == 1
    assert check_credible(scored(METRICS, lambda output: 0.98)).status == PASS
    assert check_credible(scored(METRICS, lambda output: None)).status == NOT_VERIFIED


def test_the_tests_that_the_audit_names_are_there(request):
    files = {file for _, tests in PROVED for file in tests}
    assert [file for file in files if not (request.config.rootpath / file).is_file()] == []
