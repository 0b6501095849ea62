"""A config that is spoilt at random is either valid or refused in one line, before any data are read."""

import copy
import math
import random
import re
import string
from itertools import pairwise

import pytest
import yaml

from ehrdl.cli.configured import configured, train_parser
from ehrdl.cli.start import one_line_errors
from ehrdl.experiment import BASELINES, Settings

_ENCODER = {
    "class_path": "ehrdl.models.series.gru.SeriesGRU",
    "init_args": {"hidden": 8, "bin_hours": 12.0, "dropout": 0.1},
}
_NOTE = {
    "class_path": "ehrdl.models.notes.transformer.NoteTransformer",
    "init_args": {"width": 16, "layers": 1, "token_dropout": 0.1},
}
_FUSION = {"class_path": "ehrdl.models.fusion.simple.GatedFusion", "init_args": {"width": 8, "modality_dropout": 0.1}}
CONFIG = {
    "run": {"name": "run", "root": "runs", "overwrite": False},
    "seeds": [0, 1],
    "data": {
        "source": {
            "class_path": "ehrdl.sources.mimic4.source.Mimic4",
            "init_args": {"root": "hospital", "coding_lag_days": 7},
        },
        "window": {"series_hours": 168, "note_hours": 8760, "max_observations": 64, "max_notes": 4},
        "split": {"tuning": 0.1, "held_out": 0.2, "seed": 0},
        "notes": {"vocab_size": 500, "chunk_tokens": 64, "mask_sections": ["Discharge Disposition"], "max_chunks": 4},
        "batch": {"size": 16, "num_workers": 0},
        "prepare": {"cache": "cache", "memory_gb": 1.0, "workers": 1, "verify": "fast"},
    },
    "task": {"class_path": "ehrdl.tasks.readmission.Readmission", "init_args": {"min_age": 18, "horizon_days": 30}},
    "model": {
        "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
        "init_args": {"series": _ENCODER, "note": _NOTE, "fusion": _FUSION},
    },
    "optim": {"lr": 0.001, "weight_decay": 0.01, "warmup": 0.1, "selection": "averaged", "shift_hours": 0.0},
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "gradient_clip_val": 1.0, "max_time": "00:01:00:00"},
    "baselines": ["prevalence", "logistic_regression"],
    "baseline_params": {"gradient_boosting": {"max_leaf_nodes": 7}, "lightgbm": {"num_leaves": 7}},
    "boosting": {"trials": 2},
    "combine": {"models": ["ensemble"], "members": ["fused"]},
    "logger": {"project": "ehrdl", "tags": ["a"]},
    "tune": {"space": {"optim.lr": {"low": 0.1, "high": 1.0}}, "n_trials": 3, "name": "a"},
}
NONSENSE = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    -1,
    0,
    1e30,
    10**30,
    True,
    "",
    " ",
    "x" * 400,
    "a\nb",
    "\0",
    [],
    {},
    [1],
]
NONSENSE += [
    {"a": 1},
    ["a", "a"],
    [[[[1]]]],
    "ehrdl.errors",
    "class_path",
    "\u2028",
    -0.0,
    "1e400",
    "~",
    "!!x",
    1.5,
    "ä" * 200,
]


def places(part, path=()):
    """The keys of a configuration, and the mappings around them."""
    for name, value in part.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


PLACES = list(places(CONFIG))


def misspelt(name, draw):
    at = draw.randrange(len(name))
    return draw.choice(
        [name[:at] + name[at + 1 :], name[:at] + draw.choice(string.ascii_lowercase) + name[at:], name[::-1]]
    )


def mutated(seed):
    """The configuration with one thing wrong, or at least another, as YAML, and what was done."""
    draw = random.Random(seed)
    config, path = copy.deepcopy(CONFIG), PLACES[draw.randrange(len(PLACES))]
    part = config
    for name in path[:-1]:
        part = part[name]
    kind = draw.choice(["value", "value", "value", "value", "drop", "misspell", "beside", "deep", "duplicate"])
    value = copy.deepcopy(draw.choice(NONSENSE))
    if kind == "value":
        part[path[-1]] = value
    elif kind == "drop":
        del part[path[-1]]
    elif kind == "misspell":
        part[misspelt(path[-1], draw)] = part.pop(path[-1])
    elif kind == "beside":
        part["another"] = value
    elif kind == "deep":
        part[path[-1]] = "DEEP"
    text = yaml.safe_dump(config, allow_unicode=True)
    if kind == "duplicate":
        text += f"{draw.choice(list(CONFIG))}: 1\n"
    return text.replace("DEEP", "[" * 2000 + "]" * 2000), f"{kind} {'.'.join(path)} {value!r:.40}"


def drive(file, *argv):
    """The command line as far as no data are needed."""
    from ehrdl.comparators.check import check_config

    with one_line_errors():
        made, _ = configured(train_parser(), ["--config", str(file), *argv])
        Settings(**{name: value for name, value in vars(made).items() if name != "config"})
        check_config(made.task.name, made.trainer, made.baselines, BASELINES, made.combine, made.baseline_params)


def outcome(file, capsys, *argv):
    """`valid`, or the one line that it is refused with."""
    try:
        drive(file, *argv)
    except SystemExit as stop:
        lines = capsys.readouterr().err.strip().splitlines()
        assert (stop.code, len(lines), lines[-1][:7]) == (2, 1, "ehrdl: ")
        assert len(lines[0]) < 1500
        return lines[0].removeprefix("ehrdl: ")
    return "valid"


def check_seeds(seeds, tmp_path, capsys):
    outcomes = []
    for seed in seeds:
        text, done = mutated(seed)
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            outcomes.append(outcome(file, capsys))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {done}") from error
    assert not (tmp_path / "cache").exists()
    return outcomes


def test_a_config_spoilt_at_random_is_valid_or_refused_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = check_seeds(range(40), tmp_path, capsys)
    assert sum(line != "valid" for line in outcomes) > 25


@pytest.mark.slow
def test_hundreds_of_spoilt_configs_are_valid_or_refused_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = check_seeds(range(40, 400), tmp_path, capsys)
    assert sum(line != "valid" for line in outcomes) > 220


#: Ten times ten, seven times over.
MULTIPLIED = "a: &a [1]\n" + "".join(f"{y}: &{y} [{f'*{x}, ' * 10}]\n" for x, y in pairwise("abcdefgh"))
LOOPS = {
    "a list that holds itself": ("seeds: &a [*a]\n", "holds itself, or is repeated too often"),
    "a mapping that holds itself": ("optim: &a {lr: *a}\n", "holds itself, or is repeated too often"),
    "anchors that multiply": (MULTIPLIED, "holds itself, or is repeated too often"),
    "2,000 lists": ("seeds: " + "[" * 2000 + "]" * 2000 + "\n", "nested over 64 levels deep"),
    "2,000 mappings": ("optim: " + "{a: " * 2000 + "1" + "}" * 2000 + "\n", "nested over 64 levels deep"),
    "2,000 indents": ("".join(" " * i + "a:\n" for i in range(2000)), "nested over 64 levels deep"),
    "10,000 digits": ("seeds: [" + "1" * 10_000 + "]\n", "holds a value that cannot be read"),
    "a tag that makes an object": (
        "seeds: !!python/object/apply:os.system [ls]\n",
        "could not determine a constructor",
    ),
    "a byte that is no text": ("run: {name: \x07}\n", "is not YAML"),
    "a key that is a list": ("? [a]\n: 1\n", "is not YAML"),
    "keys that are no words": ("1: 2\nnull: 3\n", "there is no such key"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_yaml_that_no_config_can_be_is_one_line(tmp_path, capsys, name):
    text, says = LOOPS[name]
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert says in outcome(file, capsys)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--seeds=" + "[" * 2000 + "]" * 2000], "seeds: expected list"),
        (["--seeds=[" + "1" * 10_000 + "]"], "seeds"),
        (["--trainer.max_epoch=3"], "did you mean max_epochs?"),
        (["--trainer.max_epochs", "two"], "trainer.max_epochs: expected int or null, got 'two'"),
        (["--trainer.max_time.hours=1", "--trainer.acelerator=cpu"], "did you mean accelerator?"),
        (["--optim.lrr", "3"], "optim.lrr: there is no such key; did you mean lr?"),
        (["--optim.lr=.nan"], "optim.lr: nan is not finite"),
        (["--optim.lr="], "optim.lr"),
        (["--baselines=[lightgmb]"], "did you mean lightgbm?"),
        (["--run.name="], "run.name: '' is empty"),
        (
            ["--model.init_args.series.init_args.hidden=-3"],
            "init_args.hidden: -3 is not between",
        ),
    ],
)
def test_an_option_that_cannot_be_is_one_line(tmp_path, capsys, argv, says):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    assert says in outcome(file, capsys, *argv)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.pretrained_lr_factor", -1),
        ("optim.shift_hours", 1e30),
        ("optim.value_noise", math.inf),
        ("optim.imbalance", "smote"),
        ("optim.imbalance", True),
        ("calibrate", "beta"),
        ("calibrate", None),
        ("calibrate", ["platt"]),
        ("baseline_params.gradient_boosting.class_weight", "balanced"),
        ("optim.lr", math.inf),
        ("optim.lr", math.nan),
        ("optim.weight_decay", -1),
        ("model.init_args.series.init_args.dropout", 1.0),
        ("model.init_args.note.init_args.layers", 0),
        ("model.init_args.fusion.init_args.modality_dropout", math.nan),
        ("optim.auxiliary_weight", math.inf),
        ("run.root", ""),
        ("run.name", "x" * 300),
        ("run.name", ".."),
        ("run.name", "a "),
        ("run.name", "ä" * 150),
        ("trainer", None),
        ("trainer.max_time", 0),
        ("trainer.max_time", "00:00:00:00"),
        ("trainer.limit_train_batches", math.nan),
        ("trainer.max_epochs", True),
        ("data.window.series_hours", -1),
        ("data.window.note_hours", math.nan),
        ("data.split.tuning", math.nan),
        ("data.split.held_out", 0.95),
        ("data.prepare.cache", ""),
        ("data.source.init_args.root", ""),
        ("data.source.init_args.coding_lag_days", math.inf),
        ("task.init_args.horizon_days", 0),
        ("task.init_args.min_age", -1),
        ("baseline_params.lightgbm.num_leaves", 1),
        ("baseline_params.gradient_boosting.max_leaf_nodes", -1),
        ("seeds", [-1]),
        ("seeds", [0, 0]),
        ("seeds", []),
    ],
)
def test_nonsense_is_refused_by_its_key_before_any_data_are_read(tmp_path, capsys, key, value):
    config = copy.deepcopy(CONFIG)
    *path, last = key.split(".")
    part = config
    for name in path:
        part = part[name]
    part[last] = value
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    line = outcome(file, capsys)
    top = key.split(".")[0]
    assert re.match(rf"({re.escape(key)}|data\.split|{top}\.[\w.]+): ", line), line


def test_the_config_that_is_spoilt_is_right(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    assert outcome(file, capsys) == "valid"
