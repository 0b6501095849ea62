"""Facts that are timed exactly at a prediction are named, whether or not they are seen by it."""

import pandas as pd
import pytest

from ehrdl.events.timing import describe_timing, timed_at_prediction

HOUR = pd.Timedelta(hours=1)


@pytest.fixture
def timed(build, tmp_path):
    """Predictions for subject 1 at the hours 24 and 48, and for subject 2 at 24, the last one twice."""
    rows = [
        (1, None, "GENDER//F", None, None, None),
        (1, 24, "DISCHARGE//HOME", None, None, 24),
        (1, 24, "DIAGNOSIS//ICD10//I509", None, None, 192),
        (1, 24, "DIAGNOSIS//ICD10//N179", None, None, 192),
        (1, 25, "LAB//1//", 1.0, None, 29),
        (1, 48, "LAB//1//", 1.0, None, 48),
        (2, 48, "LAB//1//", 1.0, None, 48),
        (2, 24, "LAB//1//", 1.0, None, 28),
    ]
    samples = build.samples([(1, 24), (1, 48), (2, 24), (2, 24)])
    return timed_at_prediction(build.events(tmp_path / "events", rows, n_shards=2), samples)


def test_rows_at_the_very_time_of_a_prediction_are_counted_by_family(timed):
    assert timed == {
        "DIAGNOSIS": {"rows": 2, "visible": 0},
        "LAB": {"rows": 2, "visible": 1},
        "DISCHARGE": {"rows": 1, "visible": 1},
    }


def test_the_line_tells_what_is_seen_from_what_a_delay_hides(timed):
    assert describe_timing(timed) == (
        "warning: codes are timed exactly at a prediction; seen by it: LAB (1), DISCHARGE (1); hidden by their delay: "
        "DIAGNOSIS (2), LAB (1). What is written later than its time needs a delay in data.source.delays"
    )


def test_where_nothing_is_timed_so_there_is_no_line():
    assert describe_timing({}) is None
    assert "seen by it" not in describe_timing({"DRG": {"rows": 1, "visible": 0}})
