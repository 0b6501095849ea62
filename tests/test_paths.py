"""DuckDB reads exactly the files that it is handed, whatever their names; and there is one way to hand them over."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ehrdl.batch import DataSpec
from ehrdl.cli.main import main
from ehrdl.data.config import DataConfig, NoteOptions
from ehrdl.data.prepare import read_events
from ehrdl.engine import paths
from ehrdl.engine.database import connect
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.training import RunOptions
from ehrdl.runs.folder import RunFolder
from ehrdl.schema import OutputSpec
from ehrdl.sources.diabetes130.source import Diabetes130
from ehrdl.sources.meds.source import Meds
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.sources.physionet2012.source import Physionet2012
from ehrdl.sources.physionet2019.source import Physionet2019
from ehrdl.sources.synthetic import Synthetic
from ehrdl.splits.files import read_split_files
from ehrdl.tasks.labels import Labels

PACKAGE = Path(__file__).parents[1] / "ehrdl"
NAMES = (
    "O'Brien", "a[1]", "a?b", "a*b", "**", "{a,b}", "a\\b", "a\\[b", "[\\", "$HOME", "year=2020", "~", "~root", "a%20b",
    "a b", "Zoë", "-x", "a;b", 'a"b', "s3:", "file:x", "[!a]", "[a", "a]b", "a#b", "x\ny", " lead", "trail ", "{uuid}",
)  # fmt: skip
#: What some of the names match as patterns.
DECOYS = ("a1", "axb", "ab", "a", "b", "!", "b1")


def rows(con, files):
    return con.execute(f"SELECT * FROM {paths.scan(files)} ORDER BY ALL").fetchall()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each name, with a file that has the same name, all side by side with what the names match."""
    root = tmp_path_factory.mktemp("names")
    for number, name in enumerate((*NAMES, *DECOYS)):
        (root / name).mkdir()
        pq.write_table(pa.table({"v": [number]}), root / name / "0.parquet")
        shutil.copy(root / name / "0.parquet", root / name / f"{name}.parquet")
    return root


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_whatever_it_and_its_folder_are_called(folders, name):
    number = NAMES.index(name)
    with duckdb.connect() as con:
        for file in (folders / name / "0.parquet", folders / name / f"{name}.parquet"):
            assert rows(con, file) == [(number,)]
            assert rows(con, [file, folders / "axb" / "0.parquet"]) == [(number,), (len(NAMES) + 1,)]


def test_a_relative_path_is_one_of_the_working_directory(folders, monkeypatch):
    monkeypatch.chdir(folders)
    with duckdb.connect() as con:
        assert rows(con, Path("s3:") / "0.parquet") == [(NAMES.index("s3:"),)]
        assert rows(con, Path("~") / "0.parquet") == [(NAMES.index("~"),)]


@pytest.mark.parametrize("name", NAMES)
def test_duckdb_writes_and_spills_under_any_name(tmp_path, name):
    (tmp_path / name).mkdir()
    with connect(Prepare(memory_gb=0.02, workers=1), tmp_path / name) as con:
        con.execute("SET threads = 1; CREATE TABLE t AS SELECT range AS v, hash(range) AS h FROM range(2_000_000)")
        con.execute(f"COPY (FROM t LIMIT 1) TO {paths.target(tmp_path / name / 't.parquet')}")
        spilled = [file for file in (tmp_path / name).rglob("*") if "duckdb_temp" in file.name]
    assert spilled and os.listdir(tmp_path) == [name]
    assert pq.read_table(tmp_path / name / "t.parquet").num_rows == 1


def test_links_end_with_the_process_and_not_with_its_forks(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from ehrdl.engine.paths import plain\n"
        "file = Path(sys.argv[1])\n"
        "link = plain(file)\n"
        "assert os.readlink(link) == str(file) and link == plain(file)\n"
        "pid = os.fork()\n"
        "if not pid: assert plain(file) != link; sys.exit()\n"
        "assert os.waitpid(pid, 0)[1] == 0 and os.path.islink(link)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a[1]" / "0.parquet")],
        check=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert os.listdir(tmp_path) == []


#: SQL that names a file by itself, and calls that hand one over.
_SQL = re.compile(r"\b(read_(parquet|csv|json|blob|text)\w*|parquet_scan|glob)\s*\(|\b(FROM|JOIN|TO|ATTACH)\s+'", re.I)
_CALLS = {"read_parquet", "from_parquet", "read_csv", "from_csv_auto", "read_csv_auto", "parquet_metadata", "read_json"}
_NOT_DUCKDB = {"pd", "csv", "arrow_csv", "pa.csv"}


def handed_over(source):
    """Lines of a source file in which a path reaches DuckDB, or a pattern a folder, not by `ehrdl.engine.paths`."""
    tree = ast.parse(source)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            if _SQL.search(node.value):
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = ast.unparse(node.func.value)
            pasted = any(isinstance(part, ast.FormattedValue) for arg in node.args for part in ast.walk(arg))
            is_glob = node.func.attr in ("glob", "rglob", "iglob")
            if (node.func.attr in _CALLS and of not in _NOT_DUCKDB) or (is_glob and (of == "glob" or pasted)):
                yield node.lineno


@pytest.mark.parametrize(
    "line",
    [
        "sql = f\"FROM read_parquet('{file}')\"",
        "sql = f\"SELECT * FROM '{file}'\"",
        "sql = f\"COPY rows TO '{file}'\"",
        "sql = 'SELECT * FROM ' + f'read_csv({name})'",
        "con.read_parquet(str(file))",
        "duckdb.read_csv(str(file))",
        "glob.glob(str(folder / '*.csv'))",
        "folder.glob(f'{name}-*.json')",
    ],
)
def test_what_hands_over_a_path_by_itself_is_found(line):
    assert list(handed_over(line)) == [1]


def test_no_other_way_to_hand_over_a_path_is_left():
    files = set(PACKAGE.rglob("*.py")) - {PACKAGE / "engine" / "paths.py"}
    found = {str(file): list(handed_over(file.read_text(encoding="utf-8"))) for file in files}
    assert {file: lines for file, lines in found.items() if lines} == {}


def test_a_tilde_is_the_home_folder_wherever_a_user_writes_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "labels").mkdir()
    for source in (Meds, Mimic4, Physionet2012, Physionet2019, Diabetes130):
        assert source(root="~/a").root == tmp_path / "a"
    assert Mimic4("~/a", note_root="~/b").note_root == tmp_path / "b"
    assert NoteOptions(tokenizer="~/words").tokenizer == str(tmp_path / "words")
    with pytest.raises(ConfigError, match=f"pretrained '{tmp_path}/encoder'"):
        NoteTransformer(
            DataSpec(("note",), (), (), (), (), 0.0, 9, 0, 8, (OutputSpec("one"),), (0.5,)), pretrained="~/encoder"
        )
    assert Prepare(cache="~/cache").cache == str(tmp_path / "cache")
    assert RunFolder(RunOptions("one", root="~/runs"), {}).folder == tmp_path / "runs" / "one"
    assert Labels("~/labels").path == tmp_path / "labels"
    with pytest.raises(ConfigError, match=f"{tmp_path}/splits/train.txt"):
        (tmp_path / "splits").mkdir()
        read_split_files("~/splits", int)


def test_a_tilde_after_an_option_is_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in (
        ["report", "~/p.parquet"],
        ["predict", "--run=~/p.parquet"],
        ["export", "--out=~/o", "--predictions=~/p.parquet"],
        ["train", "--config=~/p.parquet"],
    ):
        with pytest.raises(SystemExit):
            main(command)
        assert f"{tmp_path}/p.parquet" in capsys.readouterr().err


#: All that a run reads from and writes to lies under such a name.
ODD = "O'Brien [new] a*b?"


@pytest.mark.slow  # one whole run, and what is made of it
def test_a_whole_run_under_odd_names(tmp_path, monkeypatch):
    odd, cache = tmp_path / ODD, Prepare(cache=str(tmp_path / "plain"), workers=1)
    events = read_events(DataConfig(Synthetic(n_patients=200, seed=1, note_tokens=(40, 60)), prepare=cache))
    shutil.copytree(events, odd / "meds [1]")
    for decoy in ("O'Brien n aXbX", "O'Brien e a1b2"):  # matched by the pattern
        shutil.copytree(events, tmp_path / decoy / "meds 1")
    odd_config = odd / "config?.yaml"
    note = {"class_path": "ehrdl.models.notes.transformer.NoteTransformer", "init_args": {"width": 16}}
    series = {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 8}}
    meds = {"class_path": "ehrdl.sources.meds.source.Meds", "init_args": {"root": str(odd / "meds [1]")}}
    model = {
        "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
        "init_args": {"note": note, "series": series},
    }
    config = {
        "run": {"name": "a [run]'s *name?", "root": str(odd / "runs")},
        "data": {"source": meds, "prepare": {"cache": str(odd / "cache")}},
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": model,
        "trainer": {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu"},
        "baselines": ["prevalence", "hospital"],
    }
    odd_config.write_text(yaml.safe_dump(config))
    monkeypatch.chdir(odd)
    main(["train", "--config", str(odd_config)])
    run = odd / "runs" / config["run"]["name"]
    made = pd.read_parquet(run / "predictions.parquet")
    assert made.subject_id.is_unique is False and set(made.model) >= {"fused", "hospital"}
    main(["predict", "--run", str(run), "--out", str(odd / "again"), "--data.source.root", str(odd / "meds [1]")])
    main(["report", str(run / "predictions.parquet"), "--out", str(odd / "report [2]")])
    main(["export", "--config", str(odd_config), "--out", str(odd / "export*"), "--time", "available"])
    read = pq.read_table([str(file) for file in sorted((odd / "export*" / "data").iterdir())])
    assert len(set(read["subject_id"].to_pylist())) == 200
    assert {path.name for path in tmp_path.iterdir()} == {ODD, "plain", "O'Brien n aXbX", "O'Brien e a1b2"}
