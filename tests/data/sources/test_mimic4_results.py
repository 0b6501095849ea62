"""What a lab's result is where valuenum is empty: a number, a bound, a word, or nothing."""

import pytest

NONE = {"valuenum": "", "value": ""}


def result(mimic, **cells):
    """(numeric_value, text_value) of the only lab, or None where there is no event."""
    mimic.columns_of_labs = [*mimic.columns["hosp/labevents"], "comments"]
    mimic.lab(**cells)
    mimic.write()
    mimic.write_table("hosp/labevents", columns=[*dict.fromkeys(mimic.columns_of_labs)])
    frame = mimic.read(write=False).frame
    labs = frame[frame.code.str.startswith("LAB//")]
    if labs.empty:
        return None
    (row,) = labs.itertuples()
    assert str(row.available_time) == "2150-01-02 07:00:00"  # storetime, whatever column the result stands in
    number, text = row.numeric_value, row.text_value
    return (None if number != number else round(number, 4), text if isinstance(text, str) else None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (">8", (8.0, ">8")),
        ("< 0.5", (0.5, "< 0.5")),
        (">=1.035", (1.035, ">=1.035")),
        ("\u2264 3", (3.0, "\u2264 3")),
        ("LESS THAN 10", (10.0, "LESS THAN 10")),
        ("12", (12.0, "12")),
        ("-1.5", (-1.5, "-1.5")),
        ("12 mg/dL", (12.0, "12 mg/dL")),
        ("12 mmol/L", (None, "12 mmol/L")),  # another unit than the column's
        ("5-10", (None, "5-10")),
        ("1+", (None, "1+")),
        ("35/.", (None, "35/.")),
        ("NEG", (None, "NEG")),
        ("1e300", (None, "1e300")),
        ("9" * 60, (None, "9" * 60)),
        ("___", None),
        (" ", None),
        ("", None),
    ],
)
def test_a_value_without_valuenum(mimic, value, expected):
    assert result(mimic, value=value, valuenum="") == expected


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("NEG.", (None, "NEG.")),
        ("<1.", (1.0, "<1.")),
        (">182*.", (182.0, ">182*.")),
        ("<0.01.  CTROPNT > 0.10 NG/ML SUGGESTS ACUTE MI.", (0.01, "<0.01.  CTROPNT > 0.10 NG/ML SUGGESTS ACUTE MI.")),
        ("GREATER THAN 500.  VERIFIED.", (500.0, "GREATER THAN 500.  VERIFIED.")),
        ("NEG.  80 (THESE UNITS) = 0.08", (None, "NEG.  80 (THESE UNITS) = 0.08")),
        ("HOLD.  DISCARD GREATER THAN 4 HOURS OLD.", (None, "HOLD.  DISCARD GREATER THAN 4 HOURS OLD.")),
        ("5 of 10 fields", (None, "5 of 10 fields")),
        ("1+*.", (None, "1+*.")),
        ("___", None),
    ],
)
def test_a_result_that_stands_in_the_comment_alone(mimic, comment, expected):
    assert result(mimic, comments=comment, **NONE) == expected


@pytest.mark.parametrize("value", ["", "___"])
def test_a_blanked_value_leaves_the_result_to_the_comment(mimic, value):
    assert result(mimic, comments="7", valuenum="", value=value) == (7.0, "7")


def test_a_comment_beside_a_result_is_a_remark(mimic):
    assert result(mimic, comments="HEMOLYZED. 99", value="1.5") == (1.5, None)


def test_a_comment_beside_a_word_is_a_remark(mimic):
    assert result(mimic, comments="7", value="NEG", valuenum="") == (None, "NEG")


def test_what_is_read_from_comments_and_bounds_is_counted_and_a_finding(mimic):
    result(mimic, comments="<5", **NONE)
    mimic.lab(value=">8", valuenum="").lab(comments="NEG", **NONE).lab()
    mimic.write_table("hosp/labevents", columns=[*dict.fromkeys(mimic.columns_of_labs)])
    mimic.read(write=False)
    assert mimic.facts["tables"]["hosp.labevents"] == {
        "rows": 4,
        "on_fallback": 0,
        "from_comments": 2,
        "from_bounds": 2,
        "without_number": 1,
    }
    found = {one["what"].split(",")[0]: (one["column"], one["n"], one["of"]) for one in mimic.facts["quality"]}
    assert found["results stand in the comment alone"] == ("comments", 2, 4)
    assert found["results are a bound such as >300"] == ("value", 2, 4)
    assert found["results hold no number: no channel has them"] == ("valuenum", 1, 4)


def test_a_table_without_comments_is_read(mimic):
    mimic.lab(value=">8", valuenum="")
    columns = [name for name in mimic.columns["hosp/labevents"] if name != "comments"]
    mimic.write()
    mimic.write_table("hosp/labevents", columns=columns)
    frame = mimic.read(write=False).frame
    assert frame[frame.code.str.startswith("LAB//")].numeric_value.tolist() == [8.0]
