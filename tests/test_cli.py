"""The command line says what is wrong in one line, with exit status 2, and leaves nothing behind."""

import copy
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ehrdl import __version__
from ehrdl.cli.commands.train import run as train
from ehrdl.cli.configs import with_shipped
from ehrdl.cli.configured import train_parser
from ehrdl.cli.main import main
from ehrdl.cli.parser import carried_over
from ehrdl.errors import ConfigError

ROOT = Path(__file__).parents[1]
PATIENTS = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
ADMISSIONS = (
    "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admission_location,discharge_location,insurance,"
    "language,marital_status,race,edregtime,edouttime,hospital_expire_flag\n"
)


@pytest.fixture
def hospital(tmp_path):
    """Patients of 60 years with one stay each, in MIMIC-IV's two tables that must be there."""
    folder = tmp_path / "hospital" / "hosp"
    folder.mkdir(parents=True)
    patients = [f"{n},F,60,2150,2011 - 2013,\n" for n in range(1, 31)]
    stays = [f"{n},{n},2150-01-01 10:00:00,2150-01-05 10:00:00,,URGENT,,HOME,,,,,,,0\n" for n in range(1, 31)]
    (folder / "patients.csv").write_text(PATIENTS + "".join(patients))
    (folder / "admissions.csv").write_text(ADMISSIONS + "".join(stays))
    return folder


@pytest.fixture
def config(tmp_path):
    """A configuration that is right, for a test to spoil."""
    source = {"root": str(tmp_path / "hospital"), "tables": []}
    series = {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"hidden": 8}}
    return {
        "run": {"name": "run", "root": str(tmp_path / "runs")},
        "data": {
            "source": {"class_path": "ehrdl.sources.mimic4.source.Mimic4", "init_args": source},
            "prepare": {"cache": str(tmp_path / "cache"), "n_shards": 1},
        },
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission", "init_args": {"min_age": 18}},
        "model": {"class_path": "ehrdl.models.networks.multimodal.MultimodalModel", "init_args": {"series": series}},
        "optim": {"lr": 0.001},
        "trainer": {"max_epochs": 1},
    }


@pytest.fixture
def refusal(tmp_path, capsys):
    """Run a configuration that is refused; its one line."""

    def run(content, *argv, leaves_run=False):
        file = tmp_path / "config.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with pytest.raises(SystemExit) as caught:
            train(["--config", str(file), *argv])
        lines = capsys.readouterr().err.strip().splitlines()
        assert caught.value.code == 2
        assert (tmp_path / "runs").exists() == leaves_run
        assert [path.name for path in tmp_path.glob("cache/.*") if path.name != ".locks"] == []
        assert lines[-1].startswith("ehrdl: ")
        assert len(lines[-1]) < 1000
        return lines[-1].removeprefix("ehrdl: ").replace(f"{tmp_path}/", "")

    return run


def spoilt(config, key, value):
    """The configuration with one key, `a.b.c`, set."""
    spoilt = copy.deepcopy(config)
    *path, last = key.split(".")
    part = spoilt
    for name in path:
        part = part.setdefault(name, {})
    part[last] = value
    return spoilt


def without(config, key):
    spoilt = copy.deepcopy(config)
    *path, last = key.split(".")
    part = spoilt
    for name in path:
        part = part[name]
    del part[last]
    return spoilt


# ------------------------------------------------------------------------------------------------ keys

SERIES = "model.init_args.series"


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (
            "seed",
            "seed: there is no such key; did you mean seeds? Allowed: audit, baseline_params, baselines, boosting, ",
        ),
        ("optimm.lr", "optimm: there is no such key; did you mean optim? Allowed: audit, baseline_params, baselines, "),
        (
            "optim.lrr",
            "optim.lrr: there is no such key; did you mean lr? Allowed: auxiliary_weight, ema_decay, hide_",
        ),
        ("data.sorce", "data.sorce: there is no such key; did you mean source? Allowed: batch, concepts, notes, "),
        (
            "data.split.tunning",
            "data.split.tunning: there is no such key; did you mean tuning? Allowed: cut_year, ",
        ),
        ("data.source.init_args.rot", "data.source.init_args.rot: there is no such key; did you mean root? Allowed: "),
        ("task.init_args.minage", "task.init_args.minage: there is no such key; did you mean min_age? Allowed: "),
        ("model.init_args.serie", "model.init_args.serie: there is no such key; did you mean series? Allowed: "),
        (
            f"{SERIES}.init_args.hiden",
            f"{SERIES}.init_args.hiden: there is no such key; did you mean hidden? Allowed: ",
        ),
        (
            "trainer.max_epoch",
            "trainer.max_epoch: not an argument of pytorch_lightning.Trainer; did you mean max_epochs? A",
        ),
    ],
)
@pytest.mark.parametrize("where", ["file", "command line"])
def test_misspelt_key_is_named_with_its_path_and_its_siblings(refusal, hospital, config, key, line, where):
    said = refusal(spoilt(config, key, 1)) if where == "file" else refusal(config, f"--{key}=1")
    assert said.startswith(line)


def test_misspelt_part_of_a_class_is_named(refusal, config):
    said = refusal(spoilt(config, "task.initargs", {"min_age": 1}))
    assert said == "config.yaml: task.initargs: there is no such key. Allowed: class_path, init_args"


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("run.name", "run.name: missing; give --config"),
        ("data.source", "data.source: missing; give --config"),
        ("task", "task: missing; give --config"),
        ("model", "model: missing; give --config"),
        ("data.source.init_args.root", "data.source.init_args.root: missing; give --config"),
    ],
)
def test_missing_key_is_named(refusal, config, key, line):
    assert refusal(without(config, key)).startswith(line)


def test_no_config_at_all_names_what_must_be_given(capsys):
    with pytest.raises(SystemExit):
        train([])
    assert capsys.readouterr().err.startswith("ehrdl: run.name, data.source, task, model: missing; give --config (for")


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("seeds", "many", "seeds: expected list, got 'many'"),
        ("seeds", ["one"], "seeds: expected int, got 'one'"),
        ("optim.lr", "fast", "optim.lr: expected float, got 'fast'"),
        ("optim.selection", "best", "optim.selection: expected one of 'averaged', 'best_tuning', got 'best'"),
        ("run.overwrite", "maybe", "run.overwrite: expected bool, got 'maybe'"),
        ("data.batch.size", 1.5, "data.batch.size: expected int, got '1.5'"),
        ("data.batch.samples_per_subject", "x", "data.batch.samples_per_subject: expected int or null, got 'x'"),
        (
            "data.source.init_args.coding_lag_days",
            "x",
            "data.source.init_args.coding_lag_days: expected float, got 'x'",
        ),
        ("data.source.init_args.tables", "x", "data.source.init_args.tables: expected list[str] or null, got 'x'"),
        ("task.init_args.min_age", "old", "task.init_args.min_age: expected int or null, got 'old'"),
        (
            "task.init_args.death",
            "x",
            "task.init_args.death: expected one of 'negative', 'exclude', 'composite', got 'x'",
        ),
        (f"{SERIES}.init_args.hidden", "big", f"{SERIES}.init_args.hidden: expected int, got 'big'"),
        ("trainer", [1], "trainer: expected dict, got [1]; {} leaves all to ehrdl"),
        ("trainer", None, "trainer: expected dict, got None; {} leaves all to ehrdl"),
        ("trainer.max_epochs", "two", "trainer.max_epochs: expected int or null, got 'two'"),
        ("trainer.precision", "bf8", "trainer.precision: 'bf8' does not fit pytorch_lightning.Trainer"),
        ("trainer.logger", True, "trainer.logger: set by ehrdl; leave it out"),
        ("baselines", "prevalence", "baselines: expected list, got 'prevalence'"),
        ("baselines", ["magic"], "baselines: 'magic' is not one of prevalence, "),
        ("run", "nothing.yaml", "run: expected the keys name, overwrite, root, or a config file, got 'nothing.yaml'"),
        ("optim", [1], "config.yaml: optim: expected the keys auxiliary_weight, ema_decay, hide_observations, "),
        (
            "data.split",
            None,
            "config.yaml: data.split: expected the keys cut_year, files, fold, held_out, kind, last_year, n_folds, ",
        ),
        ("task.init_args", [1], "config.yaml: task.init_args: expected dict, got [1]"),
        ("run.name", "a/b", "run.name: 'a/b' is not a folder name"),
        ("optim.lr", -1, "optim.lr: -1.0 is not above 0"),
        (
            "data.source.init_args.coding_lag_days",
            -1,
            "data.source.init_args.coding_lag_days: -1.0 is not at least 0 and below 36525; codes",
        ),
        (
            "data.source.init_args.tables",
            ["hosp/labs"],
            "data.source.tables: 'hosp/labs' is not one of hosp/patients, ",
        ),
    ],
)
def test_value_that_does_not_fit_is_named_with_what_does(refusal, hospital, config, key, value, line):
    assert refusal(spoilt(config, key, value)).startswith(line)


SOURCES = ", ".join(
    f"ehrdl.sources.{name}" for name in ("Diabetes130", "Meds", "Mimic4", "Physionet2012", "Physionet2019", "Synthetic")
)
TASKS = ", ".join(
    f"ehrdl.tasks.{name}"
    for name in (
        *("DiabetesReadmission", "HeartFailure", "HourlySepsis", "Joint", "Labels", "LengthOfStay"),
        *("Mortality", "Readmission"),
    )
)
NETWORKS = ", ".join(f"ehrdl.models.{name}" for name in ("Committee", "Ensemble", "MultimodalModel"))


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "data.source",
            "ehrdl.sources.mimic9.M",
            "is no Source (module 'ehrdl.sources' has no attribute 'm",
        ),
        (
            "data.source",
            "ehrdl.sources.mimic4.source.M",
            "is no Source (module 'ehrdl.sources.mimic4.source' has no attri",
        ),
        ("data.source", "ehrdl.events.source.Source", "is no Source (is abstract); there are " + SOURCES),
        ("task", "ehrdl.sources.mimic4.source.Mimic4", f"is no Task; there are {TASKS}"),
        ("task", "ehrdl.errors", f"is no Task; there are {TASKS}"),
        ("task", "Readmissions", f"is no Task; there are {TASKS}"),
        ("model", "ehrdl.models.series.gru.SeriesGRU", f"is no Network; there are {NETWORKS}"),
        (
            SERIES,
            "ehrdl.models.series.gru.GRU",
            "is no Encoder (module 'ehrdl.models.series.gru' has no attribute 'GRU'); there are",
        ),
        (
            SERIES,
            "ehrdl.models.fusion.simple.GatedFusion",
            "is no Encoder; there are ehrdl.models.ChannelTransformer, ehrdl.models.ConcatEncoder",
        ),
    ],
)
def test_class_that_does_not_exist_or_is_of_another_kind_is_named_with_those_that_are(
    refusal, config, key, value, line
):
    said = refusal(spoilt(config, key, {"class_path": value}))
    assert said.startswith(f"{key}.class_path: {value!r} {line}")


# ------------------------------------------------------------------------------------------------ config files


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("run: {name: a\nseeds: [0]\n", "config.yaml: line 2: is not YAML: expected ',' or '}', but got ':'"),
        ("run:\n\tname: a\n", "config.yaml: line 2: is not YAML: found character '\\t' that cannot start any token"),
        ("seeds: [0]\nseeds: [1]\n", "config.yaml: line 2: is not YAML: the key seeds stands twice"),
        ("", "config.yaml: has no keys; a config looks like configs/quickstart.yaml"),
        ("- a\n", "config.yaml: has no keys; a config looks like configs/quickstart.yaml"),
    ],
)
def test_config_file_that_is_no_yaml_is_named_with_the_line(refusal, text, line):
    assert refusal(text) == line


def test_config_file_that_is_missing_is_named(refusal, config):
    assert refusal(config, "--config", "gone.yaml") == "--config gone.yaml: cannot be read (No such file or directory)"


def test_later_config_and_command_line_override_earlier_ones(config, tmp_path):
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    files[0].write_text(yaml.safe_dump(config))
    files[1].write_text(yaml.safe_dump({"optim": {"lr": 0.5, "patience": 9}}))
    argv = [f"--config={file}" for file in files]
    argv += ["--optim.lr=0.25", "--data.source.root", "elsewhere", f"--{SERIES}.init_args.hidden=256"]
    parsed = train_parser().parse_args([*argv, "--trainer.max_epochs=3", "--seeds=[1,2]"])
    assert (parsed.optim.lr, parsed.optim.patience, parsed.optim.warmup) == (0.25, 9, 0.1)
    assert parsed.data.source.init_args.root == "elsewhere"
    assert parsed.data.source.init_args.tables == []
    assert parsed.model.init_args.series.init_args.hidden == 256
    assert (parsed.trainer["max_epochs"], parsed.seeds) == (3, [1, 2])


# ------------------------------------------------------------------------------------------------ data


@pytest.mark.parametrize("name", ["ehrdl.models.GRUD", "ehrdl.models.series.gru_d.GRUD", "GRUD"])
@pytest.mark.parametrize("form", ["in the file", "in one word", "by an option", "as JSON"])
def test_a_class_has_its_own_defaults_and_not_those_of_the_class_that_it_stands_for(config, tmp_path, name, form):
    file, key = tmp_path / "config.yaml", "model.init_args.series"
    if form in ("in the file", "in one word"):
        config["model"]["init_args"]["series"] = {"class_path": name} if form == "in the file" else name
        argv = []
    else:
        del config["model"]["init_args"]["series"]
        argv = [f"--{key}={name}" if form == "by an option" else f'--{key}={{"class_path": "{name}"}}']
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    series = train_parser().parse_args(["--config", str(file), *argv]).model.init_args.series
    assert vars(series.init_args) == {"hidden": 64, "bin_hours": 2.0, "dropout": 0.1, "channel_dropout": 0.0}


@pytest.mark.parametrize("task", ["HeartFailure", "ehrdl.tasks.HeartFailure", "ehrdl.tasks.heart_failure.HeartFailure"])
def test_a_class_is_named_by_one_word_by_its_package_or_by_its_module(config, tmp_path, task):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    parser = train_parser()
    parsed = parser.parse_args(["--config", str(file), f"--task={task}"])
    assert yaml.safe_load(parser.dump(parsed))["task"]["class_path"] == "ehrdl.tasks.HeartFailure"
    assert parser.instantiate(parsed).task.name == "heart_failure"


def test_values_that_a_class_takes_over_from_the_class_before_it_are_said(config, tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    series = {"class_path": "ehrdl.models.series.gru.SeriesGRU", "init_args": {"dropout": 0.5, "hidden": 32}}
    config["model"]["init_args"]["series"] = series
    first.write_text(yaml.safe_dump(config), encoding="utf-8")
    grud = "ehrdl.models.series.gru_d.GRUD"
    second.write_text(yaml.safe_dump({"model": {"init_args": {"series": {"class_path": grud}}}}), encoding="utf-8")
    key = "model.init_args.series"
    for argv, kept in (
        (["--config", str(first)], []),
        (["--config", str(first), f"--{key}.class_path={grud}"], ["hidden 32", "dropout 0.5"]),
        (["--config", str(first), "--config", str(second)], ["hidden 32", "dropout 0.5"]),
        (
            ["--config", str(first), f"--{key}.class_path", grud, f"--{key}.init_args.dropout", "0.2"],
            ["hidden 32"],
        ),
    ):
        lines = carried_over(argv, train_parser().parse_args(argv))
        assert len(lines) == bool(kept)
        for line in lines:
            assert line.startswith(f"note: {key}: GRUD takes over from the class before it: ")
            assert [part.split(" (")[0] for part in line.split(": ", 3)[3].split("), ")] == kept


def test_missing_root_is_named(refusal, config):
    said = refusal(config)
    assert said == "data.source.root: the folder hospital does not exist; give the one that holds hosp/"


def test_missing_table_is_named(refusal, hospital, config):
    (hospital / "admissions.csv").unlink()
    assert refusal(config).startswith("hospital/hosp/admissions.csv.gz: the table is missing (looked for .csv.gz, .csv")


def test_missing_column_is_named(refusal, hospital, config):
    (hospital / "patients.csv").write_text(PATIENTS.replace("anchor_age,", ""))
    assert refusal(config).startswith(
        "hospital/hosp/patients.csv: column anchor_age is missing (the file has subject_i"
    )


def test_bad_cell_is_named(refusal, hospital, config):
    with (hospital / "admissions.csv").open("a") as file:
        file.write("31,31,yesterday,2150-01-05 10:00:00,,URGENT,,HOME,,,,,,,0\n")
    assert refusal(config).startswith(
        "hospital/hosp/admissions.csv: row 31, column admittime: 'yesterday' is not a time without a zone"
    )


def test_empty_cohort_shows_the_flow_chart(refusal, hospital, config):
    said = refusal(spoilt(config, "task.init_args.min_age", 100))
    assert said.startswith("task.readmission: no index stay is left: admissions: 30 after, dated: 30 after, ")
    assert "age: 0 after" in said


def test_one_class_in_a_split_is_named(refusal, hospital, config):
    said = refusal(config)
    assert said.startswith("SAMPLES: split train, output readmission: ")
    assert "0 positive; both classes are needed" in said


# ------------------------------------------------------------------------------------------------ the run folder


def test_folder_that_is_no_run_is_left_alone(refusal, config, tmp_path):
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "thesis.doc").write_text("all of it")
    assert refusal(config, leaves_run=True) == "runs/run: exists and is no run of ehrdl; choose another run.name"
    assert os.listdir(tmp_path / "runs" / "run") == ["thesis.doc"]


def test_run_of_another_config_is_left_alone(refusal, config, tmp_path):
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "config.yaml").write_text(yaml.safe_dump(spoilt(config, "optim.lr", 0.5)))
    said = refusal(config, leaves_run=True)
    assert said.startswith("runs/run: was made with another config (")
    assert said.endswith("; choose another run.name, or --run.overwrite true")
    assert os.listdir(tmp_path / "runs" / "run") == ["config.yaml"]


# ------------------------------------------------------------------------------------------------ the console


def test_console_knows_its_version_and_commands(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"ehrdl {__version__}\n"
    for argv in ([], ["-h"], ["--help"]):
        main(argv)
        assert capsys.readouterr().out.startswith("usage: ehrdl COMMAND [--help]\n\n  init        Write a config")


def test_help_is_a_screen_and_all_keys_are_explained_on_request(capsys):
    outputs = []
    for argv in (["--help"], ["--help", "all"]):
        with pytest.raises(SystemExit) as caught:
            main(["train", *argv])
        assert caught.value.code == 0
        outputs.append(capsys.readouterr().out)
    short, whole = outputs
    assert len(short.splitlines()) <= 60
    for words in ("ehrdl train --config quickstart", "  data.window          series_hours, note_hours", "--help all"):
        assert words in short
    assert "length of the window of labs, vitals and events before the prediction time" in " ".join(whole.split())


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("task", "  ehrdl.tasks.Mortality            Death in hospital of ICU patients, predicted"),
        ("data.source", "  ehrdl.sources.Meds"),
        ("model", "  ehrdl.models.MultimodalModel"),
    ],
)
def test_the_classes_that_a_key_takes_are_listed(capsys, key, line):
    with pytest.raises(SystemExit) as caught:
        main(["train", f"--{key}.help"])
    assert caught.value.code == 0 and f"\n{line}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["train", "--optim.help"])
    assert caught.value.code == 2 and "--optim.help: optim takes no class" in capsys.readouterr().err


def test_python_m_is_the_console_command():
    command = [sys.executable, "-m", "ehrdl", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"ehrdl {__version__}\n"


def test_a_shipped_config_is_written_to_edit_and_never_over_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["init", "physionet2012"])
    assert capsys.readouterr().out == ("physionet2012.yaml: edit it, then: ehrdl train --config physionet2012.yaml\n")
    written = (tmp_path / "physionet2012.yaml").read_text(encoding="utf-8")
    shipped = (ROOT / "configs" / "benchmarks" / "physionet2012.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(written) == yaml.safe_load(shipped)
    assert "ehrdl train --config physionet2012.yaml" in written
    for argv, says in (
        (["physionet2012"], "physionet2012.yaml is there already"),
        (["nothing"], "init nothing: is no shipped config; those are diabetes130, "),
        (["quickstart", "--out", "no/such.yaml"], "the folder no does not exist"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["init", *argv])
        assert caught.value.code == 2 and says in capsys.readouterr().err
    main(["init"])
    assert "  quickstart                 30-day unplanned readmission" in capsys.readouterr().out


def test_a_shipped_config_is_named_by_its_word_and_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = str(ROOT / "configs" / "quickstart.yaml")
    assert with_shipped(["--config", "quickstart", "--config=quickstart"]) == [
        "--config",
        shipped,
        f"--config={shipped}",
    ]
    others = ["--config", "a/quickstart", "--config=b.yaml", "--run.name", "quickstart"]
    assert with_shipped(others) == others
    with pytest.raises(
        ConfigError, match="--config quickstrat: is no file, and no shipped config; those are diabetes130"
    ):
        with_shipped(["--config", "quickstrat"])
    (tmp_path / "quickstart").touch()
    assert with_shipped(["--config", "quickstart"]) == ["--config", "quickstart"]


def test_train_finds_a_shipped_config(capsys):
    for name, line in (
        ("quickstart", "ehrdl: optim.lr: -1.0 is not above 0"),
        ("quick", "ehrdl: --config quick: is no"),
    ):
        with pytest.raises(SystemExit):
            main(["train", "--config", name, "--optim.lr=-1"])
        assert capsys.readouterr().err.startswith(line)


def test_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["trian"])
    assert (caught.value.code, capsys.readouterr().err) == (
        2,
        "ehrdl: 'trian' is not a command; the commands are init, train, prepare, pretrain, tune, predict, report, "
        "compare, export, trail, completion\n",
    )


def test_console_train_is_the_train_of_the_script(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ehrdl train ")


def test_help_is_quick_and_imports_no_torch():
    code = (
        "import sys; from ehrdl.cli.commands.train import run as train\n"
        "try: train(['--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  data                 source, concepts" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0  # CPU, so that load does not count


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--config", "gone.yaml"], "ehrdl: --config gone.yaml: cannot be read (No such file or directory)\n"),
        (["--optim.lr=fast"], "ehrdl: optim.lr: expected float, got 'fast'\n"),
    ],
)
def test_script_prints_one_line_and_nothing_else(argv, line):
    command = [sys.executable, "train.py", *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_interrupted_run_says_how_to_go_on(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ehrdl.cli.commands.train.train_parser", stop)
    with pytest.raises(SystemExit) as caught:
        train([])
    assert (caught.value.code, capsys.readouterr().err) == (
        130,
        "ehrdl: stopped; the same command resumes\n",
    )


PRETRAINED = "model.init_args.note.init_args.pretrained"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["=x", ".tune=lora"], f"{PRETRAINED}.name: missing"),
        (["={name: x, tune: lor}"], f"{PRETRAINED}.tune: expected one of 'full', 'lora', 'frozen', got 'lor'"),
        (["={name: x, tunes: lora}"], f"{PRETRAINED}.tunes: there is no such key; did you mean tune? Allowed: name, "),
        (["={name: x, lora_rank: 0}"], "NoteTransformer: pretrained.lora_rank: 0 is not between 1 and"),
        (["={name: x, tune: frozen, gradient_checkpointing: true}"], "pretrained.gradient_checkpointing: tune frozen"),
        (["=[a]"], f"{PRETRAINED}: expected str, Pretrained or null, got"),
    ],
)
def test_options_within_a_class_are_named_with_their_keys(capsys, options, line):
    given = [f"--model.note.pretrained{option}" for option in options]
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", "quickstart", "--model.note=NoteTransformer", *given])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and line in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("until=death", "task.init_args.icu.until: expected one of 'unit', 'discharge', got 'death'"),
        ("untill=death", "task.init_args.icu.untill: there is no such key; did you mean until? Allowed: drop_stepdown"),
    ],
)
def test_an_option_of_a_group_within_a_class_is_named_with_its_key(capsys, option, line):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", "quickstart", "--task=LengthOfStay", f"--task.icu.{option}"])
    assert caught.value.code == 2 and line in capsys.readouterr().err


def test_a_class_named_by_one_word_is_explained(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--task.help", "Mortality"])
    assert caught.value.code == 0 and "--task.hours" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["train", "--task.help", "Mortal"])
    assert caught.value.code == 2
    assert "--task.help: Mortal is no class of ehrdl; --task.help lists them" in capsys.readouterr().err
