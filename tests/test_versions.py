"""A cached step whose code changed has a new VERSION, so that what the old code wrote is not read any more."""

import json
import runpy
from pathlib import Path

import pytest

STEPS = runpy.run_path(str(Path(__file__).with_name("update_step_versions.py")))
RECORD = json.loads(STEPS["RECORD"].read_text(encoding="utf-8"))


def test_every_step_is_recorded():
    assert RECORD.keys() == STEPS["STEPS"].keys()


@pytest.mark.parametrize("step", STEPS["STEPS"])
def test_a_cached_step_that_changed_has_a_new_version(step):
    file = next(iter(STEPS["STEPS"][step]))
    was, now = RECORD[step]["version"], STEPS["version"](step)
    if STEPS["code_hash"](step) != RECORD[step]["code"]:
        assert now > was, (
            f"{step}: its code changed; raise VERSION in {file}, then: python tests/update_step_versions.py"
        )
        pytest.fail(f"{step}: VERSION was raised; record it: python tests/update_step_versions.py")
    assert now == was, f"{step}: VERSION {now} is not recorded; run: python tests/update_step_versions.py"


CODE = """
VERSION = 1
WIDTH = 2
def inner(x):
    return x + WIDTH
def build(x):
    return inner(x)
def other():
    pass
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("return x + WIDTH", "return x - WIDTH", False),  # what the step calls
        ("WIDTH = 2", "WIDTH = 3", False),  # a constant that it reads
        ("    pass", "    return 1", True),  # what it does not reach
        ("def build(x):", 'def build(x):\n    """Says what it does."""\n    # why', True),
        ("VERSION = 1", "VERSION = 2", True),
    ],
)
def test_a_step_is_the_code_it_reaches_without_its_docstrings(old, new, same):
    reached = STEPS["reached"]
    assert (reached(CODE, ["build"]) == reached(CODE.replace(old, new), ["build"])) is same
