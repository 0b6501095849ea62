"""The data-quality block: what is loud, what is quiet, and what strict refuses."""

import pytest

from ehrdl.errors import SchemaError
from ehrdl.quality import Finding, block, from_dicts, ordered, refuse_loud, tell


def finding(n, of=1000, limit=0.01, column="DISCHARGE"):
    return Finding("EVENTS", column, "stand before their admission", n, of, limit)


@pytest.mark.parametrize(
    ("n", "of", "limit", "loud"),
    [
        (10, 1000, 0.01, False),  # at the limit
        (11, 1000, 0.01, True),
        (9, 10, 0.01, False),  # too few to mean a broken column
        (10, 10, 0.01, True),
        (1000, 1000, 1.0, False),  # never
        (0, 0, 0.01, False),
    ],
)
def test_a_finding_is_loud_above_its_limit_where_ten_or_more_are_found(n, of, limit, loud):
    assert finding(n, of, limit).is_loud is loud


def test_the_block_gives_loud_findings_first_and_counts_the_quiet_ones_that_it_leaves_out():
    lines = block([*(finding(n, column=f"c{n}") for n in range(1, 8)), finding(500), finding(0)])
    assert lines[:2] == [
        "data quality: 1 above their limit, 7 below",
        "  warning: EVENTS, DISCHARGE: 500 of 1,000 (50 %) stand before their admission",
    ]
    assert lines[2].startswith("  EVENTS, c7: 7 of 1,000 (0.70 %)")
    assert len(lines) == 8 and lines[-1] == "  and 2 more, in the manifest and the report"


def test_findings_survive_the_manifest():
    found = [finding(500), finding(3)]
    assert from_dicts(one.to_dict() for one in found) == found
    assert [one.to_dict()["level"] for one in found] == ["warning", "note"]


def test_the_order_is_the_same_whatever_order_findings_come_in():
    found = [finding(3, column="b"), finding(3, column="a"), finding(500)]
    assert ordered(found) == ordered(reversed(found)) == [found[2], found[1], found[0]]


def test_strict_refuses_a_loud_finding_and_lets_quiet_ones_pass(capsys):
    assert tell([finding(3)], strict=True)[0]["n"] == 3
    with pytest.raises(SchemaError, match=r"data.prepare.strict: EVENTS, b: 600 .* \(and 1 more findings above"):
        refuse_loud([finding(500), finding(600, column="b")])
    assert "data quality: 0 above their limit, 1 below" in capsys.readouterr().err
