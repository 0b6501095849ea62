"""Hooks of the documentation's site: pages that are made of the code, and links that lead out of `docs/`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
#: `](../path)`: a file of the repository, which the site does not hold.
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?!reference/)[^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of commands and configs."""
    pages = {"reference/commands.md": _commands(), "reference/configs.md": _configs()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Show a link to a file of the repository as its text alone."""
    return _OUTSIDE.sub(r"\1", markdown) if not page.file.src_uri.startswith("reference/") else markdown


def _help(*command: str, more: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ehrdl", *command, "--help", *more.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return f"```\n{done.stdout.rstrip()}\n```\n"


def _commands() -> str:
    overview = _help()
    names = re.findall(r"^  (\w+) ", overview, re.MULTILINE)
    parts = ["# Commands\n", overview, *(f"## ehrdl {name}\n\n{_help(name)}" for name in names)]
    return "\n".join([*parts, "## All keys\n", _help("train", more="all")])


def _configs() -> str:
    parts = ["# Configs\n\n`ehrdl init NAME` writes one to edit; `ehrdl train --config NAME` runs it.\n"]
    for file in sorted((ROOT / "configs").rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        head = text.split("\nrun:")[0]
        rows: list[str] = []
        for line in head.splitlines():
            key, _, value = line.removeprefix("#").strip().partition(":")
            if re.match(r"# \w+:", line):
                rows.append(f"- **{key}**: {value.strip()}")
            elif rows:
                rows[-1] += f" {line.removeprefix('#').strip()}"
        keys = text.removeprefix(head).strip()
        parts.append(f"## {file.stem}\n\n" + "\n".join(rows) + f"\n\n```yaml\n{keys}\n```\n")
    return "\n".join(parts)
