"""The house: imports go strictly down, rooms on one floor never import each other, and nothing imports in a circle."""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ehrdl"
#: The rooms, from the ground up; those of one line stand side by side.
FLOORS = [
    ("errors", "lazy", "simulator"),
    ("clinical", "info", "options", "schema"),
    ("batch", "engine", "metrics"),
    ("models", "processes", "quality", "recorded", "splits"),
    ("events", "tasks"),
    ("data", "sources"),
    ("runs",),
    ("report", "training"),
    ("cohort", "comparators"),
    ("audit",),
    ("compare", "experiment", "scoring"),
    ("pretraining", "tune"),
    ("cli",),
    ("__main__", "api"),
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
#: Rooms that do not import each other though one stands above the other.
APART = {("report", room) for room in ("models", "data", "tasks", "training", "processes")}
MOST_MODULES, MOST_OF_THE_LINES = 14, 0.2


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """The `ehrdl` names that a module imports anywhere, functions and TYPE_CHECKING included."""
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


def room_of(name: str) -> str | None:
    return name.split(".")[1] if "." in name else None


def broken(module: str, imports: set[str]) -> list[str]:
    """The imports that do not go strictly down."""
    wrong, here = [], room_of(module)
    for name in imports:
        there = room_of(name)
        if there in (None, here, "__version__", "__all__"):
            continue
        if there not in FLOOR:
            wrong.append(f"{module}: {name} is on no floor")
        elif FLOOR[there] > (FLOOR[here] if here else 0):
            wrong.append(f"{module}: {name} is above it")
        elif here and FLOOR[there] == FLOOR[here]:
            wrong.append(f"{module}: {name} is on its own floor")
        elif (here, there) in APART:
            wrong.append(f"{module}: {name} is to be left alone")
    return wrong


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = {module: imported(file.read_text(), module, file.stem == "__init__") for module, file in FILES.items()}


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The nodes that lie on a circle: those that are left when what nobody needs, or needs nobody, is taken away."""
    left = {node: {other for other in others if other in graph and other != node} for node, others in graph.items()}
    while True:
        needed = set().union(*left.values()) if left else set()
        gone = {node for node, others in left.items() if not others or node not in needed}
        if not gone:
            return sorted(left)
        left = {node: others - gone for node, others in left.items() if node not in gone}


def module_graph() -> dict[str, set[str]]:
    """Which module imports which; a name that is imported stands for the module that it is of."""

    def module(name: str) -> str:
        while name not in FILES:
            name = name.rpartition(".")[0]
        return name

    return {here: {module(name) for name in names} - {here, "ehrdl"} for here, names in IMPORTS.items()}


def folder_graph(folder: str) -> dict[str, set[str]]:
    """Which part of a folder, a module or a folder in it, imports which other part."""
    depth = folder.count(".") + 2

    def part(name: str) -> str:
        return ".".join(name.split(".")[:depth])

    graph: dict[str, set[str]] = {}
    for here, names in module_graph().items():
        if here.startswith(f"{folder}."):
            graph.setdefault(part(here), set()).update(part(name) for name in names if name.startswith(f"{folder}."))
    return graph


@pytest.mark.parametrize("module", FILES)
def test_imports_go_strictly_down(module):
    assert broken(module, IMPORTS[module]) == []


def test_no_module_is_imported_in_a_circle():
    assert circles(module_graph()) == []


@pytest.mark.parametrize("folder", sorted({name for name, file in FILES.items() if file.stem == "__init__"}))
def test_no_parts_of_a_folder_import_each_other(folder):
    assert circles(folder_graph(folder)) == []


def test_no_room_is_most_of_the_house():
    lines = Counter({module: len(file.read_text().splitlines()) for module, file in FILES.items()})
    rooms = Counter()
    for module, n in lines.items():
        rooms[room_of(module)] += n
    room, most = rooms.most_common(1)[0]
    assert most <= MOST_OF_THE_LINES * lines.total(), room


def test_no_folder_holds_more_modules_than_are_seen_at_a_glance():
    held = Counter(file.parent for file in FILES.values() if file.stem != "__init__")
    assert {str(folder): n for folder, n in held.items() if n > MOST_MODULES} == {}


def test_every_part_of_the_house_has_its_floor():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("ehrdl.data.dataset", "from ehrdl.training import fit", "is above it"),
        ("ehrdl.events.writer", "def f():\n    import ehrdl.tasks.joint", "is on its own floor"),
        ("ehrdl.models.head", "from ..splits import files", "is on its own floor"),
        ("ehrdl.models.head", "from .. import splits", "is on its own floor"),
        ("ehrdl.models.notes.pool", "from ...splits.files import read_split_files", "is on its own floor"),
        ("ehrdl.report.page.html", "from ehrdl.models import head", "is to be left alone"),
        ("ehrdl.data.dataset", "from ehrdl.utils import f", "is on no floor"),
        ("ehrdl.schema", "from ehrdl.batch import Batch", "is above it"),
        ("ehrdl.errors", "import ehrdl.cli", "is above it"),
        ("ehrdl", "from ehrdl.schema import EVENTS", "is above it"),
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
        "from .notes.store import Notes",
        "import numpy",
    ],
)
def test_what_goes_down_or_stays_at_home_is_allowed(source):
    assert broken("ehrdl.data.dataset", imported(source, "ehrdl.data.dataset", is_package=False)) == []


def test_a_circle_is_found_with_what_lies_on_it_and_nothing_else():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"e"}, "e": set()}
    assert circles(graph) == ["b", "c"]
    assert circles({"a": {"b"}, "b": set()}) == []
