"""A configuration names classes of known modules alone; any other is refused before its module is imported."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from ehrdl.cli.allowed import allowed_modules, config_files, take_option
from ehrdl.cli.commands.train import run as train
from ehrdl.cli.configured import train_parser
from ehrdl.cli.main import main
from ehrdl.errors import ConfigError

#: An encoder as CONTRIBUTING.md describes one, without a single type; it leaves a mark when it is imported.
ENCODER = """
from pathlib import Path

import torch

from ehrdl.models.base import Encoder

Path(__file__).with_suffix(".mark").touch()


class Mine(Encoder, torch.nn.Module):
    def __init__(self, spec, width=8, scale=None):
        super().__init__()
        self.width = width
        self.weight = torch.nn.Parameter(torch.zeros(width))

    def forward(self, batch):
        present = torch.ones(batch.batch_size, dtype=torch.bool)
        return self.weight.expand(batch.batch_size, -1), present
"""
MODEL = "ehrdl.models.networks.multimodal.MultimodalModel"
#: A class of a module of Python that opens a web page when it is imported.
OTHER = "antigravity.Page"


def config(series, **more):
    return {
        "run": {"name": "run"},
        "data": {"source": {"class_path": "ehrdl.sources.synthetic.Synthetic", "init_args": {"n_patients": 20}}},
        "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
        "model": {"class_path": MODEL, "init_args": {"series": series}},
    } | more


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module and a config beside it, which is not the current one; what is imported is forgotten."""
    known, path = set(sys.modules), list(sys.path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place = tmp_path / "configs"
    place.mkdir()
    (place / "mine_beside.py").write_text(ENCODER)
    yield place
    assert [entry for entry in sys.path if entry not in path and "site" not in entry] == []
    for name in set(sys.modules) - known:
        if name.startswith("mine_"):
            del sys.modules[name]


@pytest.fixture
def refused(folder, capsys):
    """The one line of a command that is refused; nothing was imported for it."""

    def run(content, *argv, command="train"):
        file = folder / "config.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([command, "--config", str(file), *argv])
        [line] = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2
        assert "antigravity" not in sys.modules and not list(folder.glob("*.mark"))
        return line.removeprefix(f"ehrdl: {file}: ").removeprefix("ehrdl: ")

    return run


def instantiated(folder, content, *argv):
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    names, rest = take_option(["--config", str(file), *argv])
    contents = {name: yaml.safe_load(Path(name).read_text()) for name in config_files(rest)}
    with allowed_modules(names, contents, rest):
        parser = train_parser()
        return parser.instantiate(parser.parse_args(rest))


GOOD = {"class_path": "ehrdl.models.series.gru.SeriesGRU"}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (config({"class_path": OTHER}), "model.init_args.series.class_path"),
        (config(OTHER), "model.init_args.series"),
        (config(GOOD, task={"class_path": OTHER}), "task.class_path"),
        (config(GOOD, task=OTHER), "task"),
        (config(GOOD, model=OTHER), "model"),
        (config(GOOD, trainer={"plugins": [{"class_path": OTHER}]}), "trainer.plugins.0.class_path"),
        (config(GOOD, trainer={"strategy": {"class_path": OTHER}}), "trainer.strategy.class_path"),
        (config(GOOD, tune={"space": {"task": [{"class_path": OTHER}]}}), "tune.space.task.0.class_path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("command", ["train", "prepare", "pretrain", "tune"])
def test_a_class_of_another_module_is_refused_at_any_depth_of_a_file(refused, content, key, command):
    assert refused(content, command=command).startswith(f"{key}: {OTHER!r} is not imported: a configuration may name ")


def test_export_refuses_it_too(refused):
    line = refused(config(GOOD, task=OTHER), "--out", "out", command="export")
    assert line.startswith(f"task: {OTHER!r} is not imported")


@pytest.mark.parametrize(
    "argv",
    [
        ["--task", OTHER],
        [f"--task.class_path={OTHER}"],
        ["--model.init_args.series", OTHER],
        [f"--model.init_args.series={json.dumps({'class_path': OTHER})}"],
        ["--trainer.plugins", json.dumps([{"class_path": OTHER}])],
        ["--data.source.help", OTHER],
    ],
    ids=" ".join,
)
def test_a_class_of_another_module_is_refused_on_the_command_line(refused, argv):
    assert f"{OTHER!r} is not imported" in refused(config(GOOD), *argv)


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "ehrdl.cli.start.os.system", "torch.os.system"])
def test_what_a_known_module_merely_passes_on_is_refused(refused, name):
    assert "is not imported" in refused(config(GOOD), "--model", name)


def test_the_line_says_how_to_allow_the_module(refused):
    assert refused(config("their.models.Net")).endswith("if you trust this one: --allow-module their.models")


def test_yaml_that_makes_objects_is_no_yaml(refused):
    line = refused(yaml.safe_dump(config(GOOD)) + "trainer: !!python/object/apply:antigravity.Page []\n")
    assert "is not YAML: could not determine a constructor for the tag" in line


def test_a_module_beside_the_config_is_found_and_an_encoder_needs_no_types(folder):
    objects = instantiated(folder, config({"class_path": "mine_beside.Mine", "init_args": {"scale": [1, 2]}}))
    series = objects.model.keywords["series"]
    assert series.keywords == {"width": 8, "scale": [1, 2]}
    assert (folder / "mine_beside.mark").exists()


def test_a_module_beside_the_config_may_be_named_on_the_command_line_and_import_its_neighbours(folder):
    (folder / "mine_second.py").write_text("from mine_beside import Mine as Base\nclass Second(Base):\n    pass\n")
    objects = instantiated(folder, config(GOOD), "--model.init_args.series", "mine_second.Second")
    assert objects.model.keywords["series"].keywords["width"] == 8


def test_a_module_beside_the_config_hides_nothing(folder, refused):
    (folder / "torch.py").write_text(ENCODER)
    (folder / "json.py").write_text(ENCODER)
    assert instantiated(folder, config(GOOD)).model.keywords["series"]
    line = refused(config({"class_path": "json.Mine"}))
    assert "'json.Mine' is not imported" in line and "the one beside the config is hidden by " in line


@pytest.mark.parametrize("written", ["manifest.json", "spec.json", "flow.json", "checkpoints/x"])
def test_the_folder_of_a_run_is_no_place_for_code(folder, refused, written):
    (folder / written).parent.mkdir(exist_ok=True)
    (folder / written).touch()
    assert "'mine_beside.Mine' is not imported" in refused(config({"class_path": "mine_beside.Mine"}))


def test_predict_imports_nothing_that_lies_beside_a_runs_config(folder):
    content = config({"class_path": "mine_beside.Mine"})
    with (
        pytest.raises(ConfigError, match=r"series\.class_path: 'mine_beside\.Mine' is not imported"),
        allowed_modules([], {str(folder / "config.yaml"): content}, beside=False),
    ):
        pass
    assert not (folder / "mine_beside.mark").exists()


def test_a_module_that_the_command_line_allows_is_looked_for_in_the_current_folder_last(folder, tmp_path):
    (tmp_path / "elsewhere" / "mine_here.py").write_text(ENCODER)
    content = config({"class_path": "mine_here.Mine"})
    assert instantiated(folder, content, "--allow-module", "mine_here").model.keywords["series"]
    with pytest.raises(ConfigError, match=r"'mine_here\.Mine' is not imported"):  # for that one command
        instantiated(folder, content)


def test_a_plug_in_that_is_installed_may_be_named(folder, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "mine_plugin-1.0.dist-info").mkdir(parents=True)
    (site / "mine_plugin.py").write_text(ENCODER)
    (site / "mine_plugin-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-plugin\n")
    (site / "mine_plugin-1.0.dist-info" / "entry_points.txt").write_text("[ehrdl.plugins]\nmine = mine_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    assert instantiated(folder, config({"class_path": "mine_plugin.Mine"})).model.keywords["series"]


@pytest.mark.parametrize("form", ["file", "line"])
def test_a_module_that_is_nowhere_is_named_with_its_key(refused, form):
    named = {"class_path": "mine_nowhere.Mine"} if form == "file" else GOOD
    argv = ["--model.init_args.series", "mine_nowhere.Mine"] if form == "line" else []
    line = refused(config(named), *argv, "--allow-module", "mine_nowhere")
    assert line.startswith(
        "model.init_args.series.class_path: 'mine_nowhere.Mine' is no Encoder (No module named 'mine_nowhere')"
    )


def test_a_class_that_a_module_lacks_is_named(refused):
    line = refused(config(GOOD), "--model", "ehrdl.models.networks.multimodal.Nothing")
    assert line.startswith("model.class_path: 'ehrdl.models.networks.multimodal.Nothing' is no Network (module ")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def f(:\n", "mine_broken: cannot be imported (SyntaxError: invalid syntax (mine_broken.py, line 1))"),
        ("\nnonsense\n", "mine_broken: cannot be imported (NameError: name 'nonsense' is not defined; "),
        ("import mine_missing\n", "model.init_args.series.class_path: 'mine_broken.Mine' is no Encoder (No module"),
    ],
)
def test_a_module_whose_code_is_broken_is_one_line(folder, refused, code, why):
    (folder / "mine_broken.py").write_text(code)
    assert refused(config({"class_path": "mine_broken.Mine"})).startswith(why)


@pytest.mark.parametrize("name", ["jsonargparse", "jsonargparse.x", "", "a-b", "a..b"])
def test_what_cannot_be_allowed_is_refused(name):
    with pytest.raises(ConfigError, match=r"^--allow-module: .* is no module that can be allowed"):
        take_option(["--allow-module", name])


def test_a_config_cannot_allow_itself_anything(refused):
    assert "there is no such key" in refused(config(GOOD) | {"allow_module": "antigravity"})


def test_the_help_says_what_may_be_named(capsys):
    with pytest.raises(SystemExit):
        train(["--help"])
    assert "--allow-module NAME" in capsys.readouterr().out
