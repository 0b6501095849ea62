"""The size of functions: what a reader can hold in mind at once."""

import ast
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "ehrdl").rglob("*.py"))
MOST_ARGUMENTS, MOST_LINES = 7, 45


def functions(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def n_arguments(function):
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def n_lines(function):
    """The lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_functions_are_short_and_take_few_arguments(file):
    for function in functions(file):
        assert n_arguments(function) <= MOST_ARGUMENTS, function.name
        assert n_lines(function) <= MOST_LINES, function.name
