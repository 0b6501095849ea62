"""The house: imports go strictly down, and packages on one floor never import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ehrdl"
#: On the ground floor modules stand on each other, in this order.
GROUND = [
    "errors",
    "bounds",
    "schema",
    "paths",
    "parquet_files",
    "folders",
    "engine",
    "shards",
    "foreign",
    "allowed",
    "quality",
    "recorded",
    "clinical",
    "batch",
]
FLOOR = {
    **dict.fromkeys((*GROUND, "signatures"), 0),
    **dict.fromkeys(("data", "tasks", "models", "metrics"), 1),
    **dict.fromkeys(("training", "processes", "explain"), 2),
    "report": 3,
    **dict.fromkeys(("experiment", "scoring"), 4),
    **dict.fromkeys(("tune", "stress", "serve", "parser", "pretraining"), 5),
    "cli": 6,
}


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """The `ehrdl` modules that a module imports anywhere, functions and TYPE_CHECKING included."""
    found = set()
    base = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return {name for name in found if name == "ehrdl" or name.startswith("ehrdl.")}


def broken(module: str, imports: set[str]) -> list[str]:
    """The imports that do not go strictly down."""
    wrong, here = [], module.split(".")[1] if "." in module else None
    for name in imports:
        there = name.split(".")[1] if "." in name else None
        if there in (None, here, "__version__", "__all__"):
            continue
        if there not in FLOOR:
            wrong.append(f"{module}: {name} is on no floor")
        elif here is None or FLOOR[there] > FLOOR[here]:
            wrong.append(f"{module}: {name} is above it")
        elif FLOOR[there] == FLOOR[here] and not (here in GROUND and GROUND.index(there) < GROUND.index(here)):
            wrong.append(f"{module}: {name} is on its own floor")
    return wrong


FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_strictly_down(file):
    module = name_of(file)
    assert broken(module, imported(file.read_text(), module, file.stem == "__init__")) == []


def test_every_part_of_the_house_has_its_floor():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} <= set(FLOOR)


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("ehrdl.data.store", "from ehrdl.training import fit", "is above it"),
        ("ehrdl.data.store", "def f():\n    import ehrdl.models.head", "is on its own floor"),
        ("ehrdl.data.store", "from ..tasks import base", "is on its own floor"),
        ("ehrdl.data.store", "from .. import tasks", "is on its own floor"),
        ("ehrdl.data.sources.raw", "from ...metrics.bootstrap import draw", "is on its own floor"),
        ("ehrdl.data.store", "from ehrdl.utils import f", "is on no floor"),
        ("ehrdl.schema", "from ehrdl.batch import Batch", "is on its own floor"),
        ("ehrdl.errors", "import ehrdl.cli", "is above it"),
        ("ehrdl", "from ehrdl.errors import EhrdlError", "is above it"),
    ],
)
def test_what_does_not_go_down_is_found(module, source, says):
    wrong = broken(module, imported(source, module, is_package=module == "ehrdl"))
    assert len(wrong) == 1 and says in wrong[0]


@pytest.mark.parametrize(
    "source",
    [
        "from ehrdl import __version__",
        "from .window import bounds",
        "from ..errors import SchemaError",
        "from .sources.base import Source",
        "import numpy",
    ],
)
def test_what_goes_down_or_stays_at_home_is_allowed(source):
    assert broken("ehrdl.data.store", imported(source, "ehrdl.data.store", is_package=False)) == []
