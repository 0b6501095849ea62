"""Every option refuses what it cannot be: by its annotation, when it is made, in one line that names the key."""

import importlib
import inspect
import math
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ehrdl.data.config import BatchOptions, NoteOptions, RecordOptions
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder
from ehrdl.options.bounds import Bound, Checked, Filled, FolderName, FolderPath, Options, _hints, wrong
from ehrdl.options.search import TuneOptions
from ehrdl.options.training import Boosting, Combine, LoggerOptions, Optim, Pretraining, ReportOptions, RunOptions
from ehrdl.splits.subjects import Split

NUMBER = re.compile(r"\b(int|float)\b")
ROOT = Path(__file__).parents[1]
OPTIONS = [RunOptions, Optim, Boosting, Combine, LoggerOptions, Pretraining, TuneOptions, NoteOptions, RecordOptions]
OPTIONS += [BatchOptions, Split, Window, Prepare, ReportOptions]


def named_classes():
    """Every class of ehrdl that a configuration can name."""
    for file in sorted((ROOT / "ehrdl").rglob("*.py")):
        if file.parent.name in ("models", "tasks", "sources"):
            module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
            for name, kind in inspect.getmembers(module, inspect.isclass):
                if issubclass(kind, Checked) and kind.__module__ == module.__name__ and not inspect.isabstract(kind):
                    yield pytest.param(kind, id=name)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", [0, 0.5, math.nextafter(1, 0)], [-1e-12, 1, 2]),
        ("(0, 1]", [1e-12, 1], [0, -1, 1.1]),
        ("(0, inf)", [1e-300, 1e300], [0, -1]),
        ("[1, inf)", [1, 10**9], [0, 0.5]),
        ("[1900, 2100]", [1900, 2100], [1899, 2101]),
    ],
)
def test_a_bound_holds_up_to_its_ends(interval, inside, outside):
    assert [Bound(interval).broken(value) for value in inside] == [None] * len(inside)
    assert all(Bound(interval).broken(value) for value in outside)


@pytest.mark.parametrize(
    ("value", "hint", "line"),
    [
        (math.inf, float, "inf is not finite"),
        (-math.inf, float | None, "-inf is not finite"),
        (10**400, float, "is too large"),
        (2**63, int, "9223372036854775808 is too large"),
        (1.5, int, "expected int, got 1.5"),
        (None, int, "expected int, got None"),
        (False, float, "expected float, got False"),
        (1, bool, "expected true or false, got 1"),
        (1, Literal["1"], "1 is not one of 1"),
        (True, Literal[1, 2], "True is not one of 1, 2"),
        ("", str, "'' is empty"),
        ("a\nb", str, "has a line break"),
        ("a\0b", str, "has a line break"),
        ("a\ud800", str, "has a line break"),
        (5, str | None, "expected text, got 5"),
        ("ab", list[str], "expected a list, got 'ab'"),
        (["a", "a"], list[str], "'a' stands 2 times"),
        ([1, math.nan], list[float], "nan is not finite"),
        ([], Annotated[list[str], Filled(2)], "[] is empty"),
        (["a"], Annotated[list[str], Filled(2)], "['a'] has 1 of at least 2"),
        ({"lab": -1}, dict[str, Annotated[float, Bound("[0, inf)")]], "'lab': -1 is below 0"),
        ((1, -1), tuple[Annotated[int, Bound("[0, 9]")], Annotated[int, Bound("[0, 9]")]], "-1 is not between 0 and 9"),
        ("a" * 300, Annotated[str, FolderPath()], "is too long for a path"),
        (" ", Annotated[str, FolderPath()], "is blank"),
    ],
)
def test_what_a_value_cannot_be_is_told_with_the_value(value, hint, line):
    assert line in wrong(value, hint)
    assert "\n" not in wrong(value, hint) and len(wrong(value, hint)) < 300
    assert wrong(10**5000, int) == "what cannot be shown is too large"  # more digits than Python writes


@pytest.mark.parametrize("name", ["run", "a b", "été", "心", "v1.2", "[a] *", "a" * 200, "console", "company"])
def test_a_folder_name_is_left_alone(name):
    assert FolderName().broken(name) is None


@pytest.mark.parametrize("options", OPTIONS)
def test_every_number_of_the_options_is_finite_and_no_boolean(options):
    needed = {"name": "a"} if options is RunOptions else {}
    hints = _hints(options)
    numbers = [field.name for field in fields(options) if NUMBER.search(str(hints[field.name]))]
    for name in numbers:
        if "Bound" not in str(hints[name]) and "Literal" not in str(hints[name]):
            assert name == "fold", f"{options.__name__}.{name} has no bounds"
        for value in (math.nan, math.inf, -math.inf, True, "1", [], 10**30):
            with pytest.raises(ConfigError, match=rf"\.{name}: "):
                options(**needed | {name: value})


@pytest.mark.parametrize("kind", list(named_classes()))
def test_every_number_of_a_class_that_a_configuration_names_has_bounds(kind):
    hints = _hints(kind.__init__)
    for name in list(inspect.signature(kind.__init__).parameters)[1:]:
        assert name in hints, f"{kind.__name__}.{name}: its annotation cannot be read"
        text = str(hints[name])
        if NUMBER.search(text) and "Callable" not in text and name not in ("width", "widths"):  # of what it is given
            assert "Bound" in text, f"{kind.__name__}.{name} has no bounds"


def test_a_custom_class_has_its_annotations_checked_too():
    class Tiny(Encoder):
        def __init__(self, spec: object, width: Annotated[int, Bound("[1, 8]")] = 4, share: float = 0.5) -> None:
            self.width = width

        def forward(self, batch):
            return batch, batch

    assert Tiny(None, 8).width == 8
    with pytest.raises(ConfigError, match=r"^Tiny\.width: 9 is not between 1 and 8$"):
        Tiny(None, 9)
    with pytest.raises(ConfigError, match=r"^Tiny\.share: nan is not finite$"):
        Tiny(None, share=math.nan)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'spec'"):
        Tiny()


def test_options_are_dataclasses_all_the_way_down():
    """The parser takes a class for a group of keys only if all that it inherits from are dataclasses."""
    assert all(is_dataclass(kind) for option in OPTIONS for kind in option.__mro__[:-1])
    assert issubclass(Optim, Options)


def test_a_path_from_python_is_as_good_as_its_text():
    from ehrdl.engine.options import Prepare
    from ehrdl.recorded import describe
    from ehrdl.sources.mimic4.source import Mimic4

    assert describe(Mimic4(root=Path("hospital"))) == describe(Mimic4(root="hospital"))
    assert Prepare(cache=Path("cache")) == Prepare(cache="cache")
