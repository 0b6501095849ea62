"""What the docs say of tables and delays is what the code declares."""

from dataclasses import asdict
from pathlib import Path

import pytest

from ehrdl.clinical import concepts
from ehrdl.options.training import Pretraining
from ehrdl.schema import EVENTS, PREDICTIONS, SAMPLES, TableSchema
from ehrdl.sources.meds.codes import DEFAULT_DELAY, DELAYS

TEXT = (Path(__file__).parents[1] / "docs" / "tables.md").read_text(encoding="utf-8")


def _part(title: str) -> str:
    return TEXT.split(f"## {title}")[1].split("\n## ")[0]


@pytest.mark.parametrize("schema", [EVENTS, SAMPLES, PREDICTIONS], ids=lambda schema: schema.name)
def test_every_column_of_a_table_is_explained(schema: TableSchema) -> None:
    part = _part(schema.name)

    assert [name for name in schema.names() if f"`{name}`" not in part] == []


def test_every_column_of_the_concepts_is_explained() -> None:
    path = Path(concepts.__file__).with_name("concepts.csv")
    columns = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    part = _part("The concepts")

    assert [name for name in columns if f"`{name}`" not in part] == []


def test_every_shipped_delay_is_listed_in_its_order() -> None:
    text = (Path(__file__).parents[1] / "docs" / "meds.md").read_text(encoding="utf-8").replace(r"\|", "|")
    part = text.split("## When facts are available")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| `")]

    for (pattern, hours), row in zip(DELAYS.items(), rows, strict=True):
        assert row.startswith(f"| `{pattern}`") and row.endswith(f"| {hours} |")
    assert f"`default_delay_hours` | {DEFAULT_DELAY:g} |" in part


def test_every_option_of_the_pretraining_is_listed_with_its_default() -> None:
    text = (Path(__file__).parents[1] / "docs" / "pretraining.md").read_text(encoding="utf-8")
    options = asdict(Pretraining()) | Pretraining().sizes | {"dropout": 0.1}
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `--pretrain.")]
    listed = {
        name.strip("| `").removeprefix("--pretrain."): default
        for names, defaults, *_ in rows
        for name, default in zip(names.split(", "), defaults.split(", "), strict=True)
    }

    assert listed == {name: "null" if value is None else f"{value}" for name, value in options.items()}


def test_the_reading_of_physionet_2012_is_told_with_the_counts_that_the_tests_of_the_real_data_have() -> None:
    docs = (Path(__file__).parents[1] / "docs" / "open_data.md").read_text(encoding="utf-8")
    tests = Path(__file__).with_name("test_physionet2012.py").read_text(encoding="utf-8").replace("_", "")
    for number in ("4,505", "4,003", "7,705", "308", "2,990"):
        assert f"| {number} |" in docs and f"== {number.replace(',', '')}" in tests
