"""A finished run whose files were cut, emptied, overwritten, deleted or swapped: one line, or the same predictions."""

import json
import os
import random
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ehrdl.cli.main import main
from ehrdl.sources.synthetic import write_hospital

CONFIG = """
run: {{name: small, root: {root}}}
seeds: [3, 4]
data:
  source:
    class_path: ehrdl.sources.mimic4.source.Mimic4
    init_args: {{root: {hospital}}}
  prepare: {{cache: {cache}}}
  notes: {{vocab_size: 500, chunk_tokens: 64}}
task: {{class_path: ehrdl.tasks.readmission.Readmission}}
model:
  class_path: ehrdl.models.networks.multimodal.MultimodalModel
  init_args:
    note: {{class_path: ehrdl.models.notes.transformer.NoteTransformer, init_args: {{width: 16}}}}
    series: {{class_path: ehrdl.models.series.gru.SeriesGRU, init_args: {{hidden: 8, bin_hours: 24}}}}
trainer: {{max_epochs: 1, accelerator: cpu}}
baselines: [prevalence, logistic_regression, bag_of_words, lace]
combine: {{models: [ensemble, stack], members: [fused, logistic_regression]}}
"""
KEYS = ["model", "seed", "output", "sample_id"]
#: So many mutations are drawn; the seed makes them the same everywhere.
N_MUTATIONS, SEED = 60, 15
DAMAGE = ("cut", "empty", "garbage", "flip", "deleted", "other type", "folder", "swapped")
pytestmark = pytest.mark.slow  # a whole run, and predictions of it


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Hospital, config and cache of a run that was made with the umask 027."""
    root = tmp_path_factory.mktemp("made")
    write_hospital(root / "hospital", n_patients=200, seed=4, progress=False)
    text = CONFIG.format(root=root / "runs", hospital=root / "hospital", cache=root / "cache")
    (root / "config.yaml").write_text(text)
    before = os.umask(0o027)
    try:
        main(["train", "--config", str(root / "config.yaml")])
    finally:
        os.umask(before)
    return root


@pytest.fixture(scope="module")
def expected(made) -> pd.DataFrame:
    main(["predict", "--run", str(made / "runs" / "small"), "--out", str(made / "expected")])
    return table(made / "expected")


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet").sort_values(KEYS).reset_index(drop=True)


def test_every_file_of_a_run_has_the_mode_that_the_umask_gives(made):
    for path in (made / "runs").rglob("*"):
        if path.is_file():
            assert (path.name, path.stat().st_mode & 0o777) == (path.name, 0o640)


def damaged(run: Path, name: str, how: str, rng: random.Random) -> None:
    path = run / name
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "swapped":
        others = [other for other in path.parent.iterdir() if other.is_file() and other != path]
        other = rng.choice(sorted(others)) if others else run / "config.yaml"
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        spoiled = bytearray(content)
        for _ in range(8):
            spoiled[rng.randrange(len(spoiled))] ^= 1 + rng.randrange(255)
        new = {"cut": content[: len(content) // 2], "empty": b"", "garbage": rng.randbytes(300), "flip": bytes(spoiled)}
        path.write_bytes(new.get(how, b"[1, 2]"))


def outcome(capsys, *argv: str) -> str | None:
    """The line of an error; None where the command ended well. Anything else fails the test."""
    capsys.readouterr()
    try:
        main(list(argv))
    except SystemExit as stop:
        assert stop.code == 2, argv
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ehrdl: ")]
        assert len(lines) == 1
        return lines[0]
    return None


def test_sixty_mutations_end_in_one_line_or_change_no_prediction(made, expected, tmp_path, capsys):
    rng = random.Random(SEED)
    whole = made / "runs" / "small"
    names = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith("curves/")]  # which nothing reads
    chosen = [(rng.choice(names), rng.choice(DAMAGE)) for _ in range(N_MUTATIONS)]
    refused = 0
    for name, how in chosen:
        run, out = tmp_path / "run", tmp_path / "out"
        shutil.copytree(whole, run)
        damaged(run, name, how, rng)
        line = outcome(capsys, "predict", "--run", str(run), "--out", str(out))
        if line is None:
            pd.testing.assert_frame_equal(table(out), expected)
        else:
            assert str(run) in line, (name, how, line)
            assert not out.exists(), (name, how)
        refused += line is not None
        for folder in (run, out):
            shutil.rmtree(folder, ignore_errors=True)
    assert refused > N_MUTATIONS / 2


MODELS = ("checkpoints", "models", "tokenizer", "config.yaml", "spec.json", "calibration.json", "manifest.json")


@pytest.mark.parametrize("how", ["cut", "deleted", "garbage"])
@pytest.mark.parametrize("part", MODELS)
def test_training_again_is_not_done_by_a_folder_that_is_damaged(made, part, how, capsys, tmp_path):
    rng = random.Random(SEED)
    root = tmp_path / "runs"
    shutil.copytree(made / "runs" / "small", root / "small")
    here = root / "small" / part
    path = here if here.is_file() else sorted(here.iterdir())[0]
    if (part, how) == ("manifest.json", "deleted"):
        pytest.skip("a run without a manifest is not finished, and is finished by the same command")
    damaged(root / "small", path.relative_to(root / "small").as_posix(), how, rng)
    line = outcome(capsys, "train", "--config", str(made / "config.yaml"), "--run.root", str(root))
    assert line is not None and (path.name in line or "is no run of ehrdl" in line)


@pytest.mark.parametrize("name", ["predictions.parquet", "manifest.json", "flow.json", "config.yaml"])
@pytest.mark.parametrize("how", [how for how in DAMAGE if how not in ("swapped", "deleted")])
def test_a_report_of_damaged_files_is_one_line(made, name, how, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for kept in ("predictions.parquet", "manifest.json", "flow.json", "config.yaml"):
        shutil.copy(made / "runs" / "small" / kept, run / kept)
    damaged(run, name, how, random.Random(SEED))
    line = outcome(capsys, "report", str(run))
    if line is None:  # a flipped letter may leave another text, and a folder is no file of the run
        assert how in ("flip", "folder") and name != "config.yaml"
    else:
        assert name in line and not (run / "report.html").exists()


def test_places_that_cannot_be_written_are_told_before_any_work(made, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    run, config = str(made / "runs" / "small"), str(made / "config.yaml")
    for argv, key in (
        (["predict", "--run", run, "--out", str(taken)], "--out"),
        (["predict", "--run", run, "--out", str(taken / "below")], "--out"),
        (["report", run, "--out", str(taken / "below")], "--out"),
        (["train", "--config", config, "--run.root", str(taken)], "run.root"),
        (["train", "--config", config, "--run.root", str(tmp_path), "--run.name", "taken"], "run.root"),
        (
            ["train", "--config", config, f"--run.root={tmp_path}", f"--data.prepare.cache={taken}"],
            "data.prepare.cache",
        ),
    ):
        line = outcome(capsys, *argv)
        assert line is not None and line.startswith(f"ehrdl: {key}: {taken} is no folder"), (argv, line)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"] and taken.read_text() == "a file"


def test_overwrite_leaves_a_folder_alone_that_is_no_run(made, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.txt").write_text("precious")
    options = ["--run.root", str(tmp_path), "--run.name", "thesis", "--run.overwrite", "true"]
    line = outcome(capsys, "train", "--config", str(made / "config.yaml"), *options)
    assert line is not None and "is no run of ehrdl" in line
    assert (tmp_path / "thesis" / "text.txt").read_text() == "precious"


def test_a_changed_seed_in_the_manifest_is_refused(made, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(made / "runs" / "small", run)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"seeds": [4, 3]}))
    assert "manifest.json: was changed" in str(outcome(capsys, "predict", "--run", str(run)))
