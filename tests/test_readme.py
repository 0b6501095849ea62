"""What the README says can be done: its two commands, its configs, its links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_two_commands():
    commands = [line for line in README.splitlines() if line.startswith("pip install -c constraints.txt")]
    assert commands == [
        "pip install -c constraints.txt -e . && python train.py --config configs/quickstart.yaml",
        "pip install -c constraints.txt -e '.[dev]' && pytest",
    ]


def test_every_config_that_the_readme_names_exists():
    named = set(re.findall(r"--config[ =](configs/[\w./-]+)", README))
    assert "configs/quickstart.yaml" in named
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_relative_link_and_image_of_the_readme_exists():
    targets = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r"(?:src|href)=\"([^\"]+)\"", README)
    relative = [target.split("#")[0] for target in targets if not re.match(r"https?:|mailto:|#", target)]
    assert relative
    assert [path for path in relative if not (ROOT / path).exists()] == []


def test_the_commands_of_ehrdl_that_the_readme_shows_exist():
    from ehrdl.cli.commands import NAMES

    shown = set(re.findall(r"^ehrdl (\w+)", README, re.MULTILINE))
    assert {"predict", "report"} <= shown <= set(NAMES)
