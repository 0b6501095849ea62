"""The script that `ehrdl completion` prints, in a real bash."""

import shutil
import subprocess

import pytest

from ehrdl.cli.commands import NAMES
from ehrdl.cli.main import main


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "ehrdl.bash"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda text, **_: lines.append(text))
        main(["completion", "bash"])
    file.write_text(lines[0])
    return file


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["pre"], ["predict", "prepare", "pretrain"]),
        (["init", "quick"], ["quickstart"]),
        (["train", "--optim.l"], ["--optim.lr"]),
        (["prepare", "--data.window.s"], ["--data.window.series_hours"]),
        (["tune", "--n"], ["--n-trials"]),
        (["report", "--min"], ["--min-count"]),
    ],
)
def test_words_are_completed(script, words, found):
    typed = " ".join(["ehrdl", *words])
    code = f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _shtab_ehrdl; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == found


def test_every_command_is_completed(script):
    assert [name for name in NAMES if f"_shtab_ehrdl_{name}" not in script.read_text()] == []
