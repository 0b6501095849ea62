"""Records each cached step's code beside its VERSION; run it when a VERSION was raised."""

import ast
import hashlib
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).resolve().with_name("step_versions.json")


def _sources(name: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"ehrdl/sources/{name}/*.py"))


_RAW = ("ehrdl/sources/raw.py", "ehrdl/sources/packed.py")
_NO_CODE = {"VERSION", "caveats", "setting", "dates"}
_TYPES = "ehrdl/sources/arrow_types.py"
_ARCHIVE = {"physionet2012": ["ehrdl/sources/archive.py"], "physionet2019": ["ehrdl/sources/archive.py"]}
_OPEN = {name: [*_sources(name), *_ARCHIVE.get(name, [])] for name in ("diabetes130", "physionet2012", "physionet2019")}
_SIMULATOR = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("ehrdl/simulator/*.py"))
#: Step: the file that holds its VERSION, then the files of its code with the names it starts from (none = all).
STEPS = {
    "events": {"ehrdl/events/writer.py": ["EventsWriter"], "ehrdl/events/typed.py": []},
    "staging": {"ehrdl/events/staging.py": []},
    "series": {"ehrdl/data/series/store.py": ["build"]},
    "quality": {"ehrdl/events/findings.py": ["find_in_events"]},
    "notes": {
        "ehrdl/data/notes/build.py": ["collect", "tokenize"],
        "ehrdl/data/notes/store.py": ["write_sections"],
        "ehrdl/data/notes/sections.py": [],
    },
    "coded": {"ehrdl/data/record/coded.py": ["build"]},
    "records": {"ehrdl/data/record/text.py": [], "ehrdl/data/record/store.py": [], "ehrdl/clinical/reference.py": []},
    "tokenizer": {"ehrdl/data/notes/vocabulary.py": ["fit_tokenizer"], "ehrdl/data/notes/shared_words.py": []},
    "mimic4": {path: [] for path in ("ehrdl/sources/mimic4/source.py", *_sources("mimic4"), *_RAW, _TYPES)},
    "meds": {path: [] for path in ("ehrdl/sources/meds/source.py", *_sources("meds"), _TYPES)},
    **{name: {path: [] for path in (f"ehrdl/sources/{name}/source.py", *more)} for name, more in _OPEN.items()},
    "synthetic": {"ehrdl/sources/synthetic.py": []} | {path: [] for path in _SIMULATOR},
}


def version(step: str) -> int:
    """VERSION in the step's first file."""
    found = re.search(
        r"^ *VERSION = (\d+)$", (ROOT / next(iter(STEPS[step]))).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found, f"{step}: no VERSION"
    return int(found[1])


def code_hash(step: str) -> str:
    """Of the syntax trees of all that the step's names reach within their file: comments and docstrings are no code."""
    trees = [tree for path, names in STEPS[step].items() for tree in reached((ROOT / path).read_text("utf-8"), names)]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:16]


def reached(source: str, names: list[str]) -> list[str]:
    """Dumps of the top-level definitions that `names` (or all) reach, without docstrings and VERSION, in file order."""
    defined = {}
    for node in ast.parse(source).body:
        for name in _names(node):
            defined[name] = node
    todo, seen = list(names or defined), set()
    while todo:
        name = todo.pop()
        if name in defined and name not in seen:
            seen.add(name)
            todo += [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
    nodes = sorted({defined[name] for name in seen - {"VERSION"}}, key=lambda node: node.lineno)
    return [ast.dump(_bare(node)) for node in nodes]


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _bare(node: ast.AST) -> ast.AST:
    """Without what changes no byte of a step: docstrings, VERSION, and the sentences that the report prints."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            inner.body = [part for part in inner.body if not (_is_text(part) or _NO_CODE & set(_names(part)))]
    return node


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def main() -> None:
    """Write the record."""
    record = {step: {"version": version(step), "code": code_hash(step)} for step in STEPS}
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
