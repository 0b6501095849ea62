"""A folder of others may name code of its own: it is never run, and nobody is asked whether it shall be."""

import ast
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from ehrdl.batch import DataSpec
from ehrdl.data.notes.vocabulary import fit_tokenizer, load_tokenizer
from ehrdl.errors import ConfigError
from ehrdl.models.notes.backbone import load, without_weights
from ehrdl.models.notes.masked import load_masked
from ehrdl.schema import OutputSpec

PACKAGE = Path(__file__).parents[1] / "ehrdl"
SIZE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
#: Which class of the folder's file each loader of transformers would be given.
AUTO_MAP = {
    "AutoConfig": "own.OwnConfig",
    "AutoModel": "own.OwnModel",
    "AutoModelForMaskedLM": "own.OwnModel",
    "AutoTokenizer": [None, "own.OwnTokenizer"],
}
NEVER = "brings code of its own, which ehrdl never runs"


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that code of a folder makes if it is run; whoever is asked on standard input says yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    return tmp_path / "was run"


def brings_code(folder, marker, known):
    """Make a folder ask for its own code; `known`: transformers has a class for it as well."""
    (folder / "own.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import BertConfig as OwnConfig, BertForMaskedLM as OwnModel, BertTokenizer as OwnTokenizer\n"
    )
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            content = json.loads(path.read_text()) | {"auto_map": AUTO_MAP}
            if not known:
                content |= {"model_type": "own", "tokenizer_class": "OwnTokenizer"}
            path.write_text(json.dumps(content))
    return str(folder)


@pytest.fixture
def tokenizer(build, tmp_path):
    folder = tmp_path / "tokenizer"
    fit_tokenizer(build.notes([(i, 0, 0, "chest pain") for i in range(30)]), np.arange(30), 100, folder)
    return folder


@pytest.fixture
def encoder(tmp_path):
    folder = tmp_path / "encoder"
    BertForMaskedLM(BertConfig(**SIZE, max_position_embeddings=16)).save_pretrained(folder)
    return folder


@pytest.fixture
def spec():
    rest = {"statics": (), "static_mean": (), "static_std": (), "channels": (), "window_hours": 24.0}
    outcome = {"outputs": (OutputSpec("outcome"),), "prevalence": (0.2,)}
    return DataSpec(modalities=("note",), vocab_size=40, pad_id=0, chunk_tokens=16, **rest, **outcome)


def test_the_code_of_a_tokenizer_is_not_run_and_the_line_says_so(tokenizer, marker):
    with pytest.raises(ConfigError, match=rf"^data\.notes\.tokenizer: '.*' cannot be loaded \(it {NEVER}"):
        load_tokenizer(brings_code(tokenizer, marker, known=False))
    assert not marker.exists()


def test_a_tokenizer_that_transformers_can_read_without_its_code_is_read_so_with_a_line(tokenizer, marker, capsys):
    assert load_tokenizer(brings_code(tokenizer, marker, known=True)).tokenize("chest pain") == ["chest", "pain"]
    assert not marker.exists()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("data.notes.tokenizer: ") and "brings code of its own, which is not run" in line


@pytest.mark.parametrize("known", [False, True])
def test_the_code_of_an_encoder_is_not_run(encoder, marker, spec, known, capsys):
    name = brings_code(encoder, marker, known)
    loaders = {"NoteTransformer": lambda: load(name, spec, None), "--from": lambda: load_masked(name, 16)}
    for key, loader in loaders.items():
        if known:
            loader()
            assert any(line.startswith(key) for line in capsys.readouterr().err.splitlines())
        else:
            with pytest.raises(ConfigError, match=f"{key}.*{NEVER}"):
                loader()
    assert not marker.exists()


def test_the_configuration_that_a_run_keeps_of_its_encoder_runs_no_code_either(encoder, marker, spec):
    kept = json.loads((encoder / "config.json").read_text()) | {"auto_map": AUTO_MAP}
    with without_weights({"gone": kept}):
        load("gone", spec, None)
    assert not marker.exists()


@pytest.mark.parametrize("where", ["option", "folder"])
def test_an_attention_that_a_repository_brings_is_refused(encoder, spec, where):
    if where == "folder":
        path = encoder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attn_implementation": "someone/attention"}))
        with pytest.raises(ConfigError, match=r"--from .*'someone/attention' is code of a repository"):
            load_masked(str(encoder), 16)
    option = "someone/attention" if where == "option" else None
    with pytest.raises(ConfigError, match="attention 'someone/attention' is code of a repository"):
        load(str(encoder), spec, option)


def test_weights_in_a_pickle_are_refused(encoder, spec):
    (encoder / "model.safetensors").unlink()
    torch.save(BertForMaskedLM(BertConfig(**SIZE)).state_dict(), encoder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        load(str(encoder), spec, None)
    with pytest.raises(ConfigError, match="safetensors"):
        load_masked(str(encoder), 16)


def calls() -> list[tuple[str, ast.Call]]:
    """Every call of the package by which transformers loads something or makes it from a configuration."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("from_pretrained", "from_config")
            ):
                found.append((f"{file.relative_to(PACKAGE)}:{node.lineno}", node))
    return found


def test_no_call_leaves_it_to_transformers_whether_code_of_a_folder_is_run():
    assert len(calls()) >= 5
    for where, call in calls():
        given = {word.arg: word.value for word in call.keywords}
        allows = given.get("trust_remote_code")
        assert isinstance(allows, ast.Constant) and allows.value is False, where
        loads_weights = call.func.attr == "from_pretrained" and "AutoModel" in ast.unparse(call.func)
        if loads_weights:
            assert ast.unparse(given.get("use_safetensors", ast.Constant(None))) == "True", where
