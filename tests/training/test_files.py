"""The files of a run folder: recorded when the run ends, and compared before a model is read from them."""

import json

import pytest

from ehrdl.errors import ConfigError
from ehrdl.options.training import RunOptions
from ehrdl.runs.files import check_files, copy_folder, read_manifest, reading
from ehrdl.runs.folder import RunFolder

CONFIG = {"run": {"name": "small"}, "seeds": [0, 1]}
FILES = ("spec.json", "models/lace-death.json", "checkpoints/fused-seed0.ckpt", "checkpoints/fused-seed1.ckpt")


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(RunOptions("small", root=str(tmp_path)), CONFIG)
    run.open()
    for name in FILES:
        (run.folder / name).parent.mkdir(exist_ok=True)
        (run.folder / name).write_text(f"the content of {name}")
    (run.folder / "report.html").write_text("may be made again")
    run.finish(run.manifest({}))
    return run.folder


def refused(folder):
    with pytest.raises(ConfigError) as caught:
        check_files(folder, read_manifest(folder))
    assert "\n" not in str(caught.value)
    assert "copy the run's folder again" in str(caught.value)
    return str(caught.value)


def test_an_untouched_run_has_all_its_files(folder, capsys):
    (folder / "report.html").write_text("made again")
    assert check_files(folder, read_manifest(folder)) == {*FILES, "config.yaml"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [*FILES, "config.yaml"])
def test_a_file_that_is_missing_cut_or_swapped_is_named(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:4])
    assert f"{name} has 4 bytes, not the {len(whole)} that the run wrote" in refused(folder)
    (folder / name).write_bytes(bytes(len(whole)))
    assert f"{name} is not as the run wrote it" in refused(folder)
    (folder / name).unlink()
    assert f"{name} is missing" in refused(folder)


def test_two_seeds_that_were_swapped_are_both_named(folder):
    one, other = (folder / name for name in FILES[2:])
    texts = one.read_text(), other.read_text()
    one.write_text(texts[1])
    other.write_text(texts[0])
    assert "fused-seed0.ckpt is not as" in (line := refused(folder)) and "fused-seed1.ckpt is not as" in line


def test_many_missing_files_are_counted_in_one_line(folder):
    for name in (*FILES, "config.yaml"):
        (folder / name).unlink()
    assert "and 1 more;" in refused(folder)


def test_a_model_that_the_run_did_not_write_is_left_out_with_a_line(folder, capsys):
    (folder / "checkpoints" / "fused-seed2.ckpt").write_text("of another run")
    assert "checkpoints/fused-seed2.ckpt" not in check_files(folder, read_manifest(folder))
    assert "fused-seed2.ckpt: is not of this run, and is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "\0", '{"seeds": NaN}', '{"seeds": []}', '{"seeds": ["a"]}']
)
def test_a_damaged_manifest_is_one_line(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ConfigError, match=r"manifest\.json: (is damaged|holds|has no seeds)"):
        read_manifest(folder)


def test_a_manifest_that_was_changed_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"seeds": [1, 0]}))
    with pytest.raises(ConfigError, match=r"manifest\.json: was changed after the run had written it"):
        read_manifest(folder)


def test_a_run_that_recorded_no_files_is_read_as_it_lies_there(folder, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"], manifest["digest"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / FILES[0]).unlink()
    assert check_files(folder, read_manifest(folder)) == {*FILES[1:], "config.yaml"}
    assert "recorded no list of its files" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("spec"), ValueError("two\nlines"), EOFError(), RuntimeError("zip")])
def test_whatever_a_damaged_file_raises_is_one_line_that_names_it(folder, error):
    message = rf"spec\.json: is no spec .*{type(error).__name__}"
    with pytest.raises(ConfigError, match=message) as caught, reading(folder / "spec.json", "spec"):
        raise error
    assert "\n" not in str(caught.value)


def test_copied_files_have_the_modes_of_new_ones(tmp_path):
    source = tmp_path / "cache"
    source.mkdir()
    (source / "tokenizer.json").write_text("{}")
    (source / "tokenizer.json").chmod(0o600)
    copy_folder(source, tmp_path / "run")
    (tmp_path / "new").write_text("")
    assert (tmp_path / "run" / "tokenizer.json").stat().st_mode == (tmp_path / "new").stat().st_mode
