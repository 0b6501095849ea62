import numpy as np
import pandas as pd
import pytest

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import STATICS
from ehrdl.data.features.table import RICH, RICH_OF_EVENTS, STATISTICS, tabulate, without_rich
from ehrdl.data.window import Window

ADMISSION, SODIUM, CREATININE, DRUG = 0, 2, 3, 4
HIDDEN = (0, 1)  # the stays, which the static features count


@pytest.fixture
def make(build):
    def dataset(at, facts=(), bodies=None, hidden=HIDDEN, **window):
        window = {"series_hours": 48, "note_hours": 100} | window
        notes = None if bodies is None else build.notes(bodies)
        static = np.tile(np.arange(len(STATICS), dtype=np.float32), (len(at), 1))
        channels = [channel for i, channel in enumerate(build.channels) if i not in hidden]
        return SampleDataset(build.samples(at), static, build.store(facts), notes, Window(**window), channels)

    return dataset


def test_statistics_of_one_channel_by_hand(make):
    facts = [(1, 76, 76, CREATININE, 1.0), (1, 88, 88, CREATININE, 2.0), (1, 100, 100, CREATININE, 1.5)]
    row = tabulate(make([(1, 102)], facts), np.array([0])).iloc[0]
    assert row.creatinine__last == 1.5
    assert row.creatinine__mean == 1.5
    assert (row.creatinine__min, row.creatinine__max) == (1.0, 2.0)
    assert row.creatinine__count == 3
    assert row.creatinine__hours_since_last == 2
    # Days -0.5, 0, 0.5 about the mean with values -0.5, 0.5, 0: slope = (0.25 + 0 + 0) / (0.25 + 0 + 0.25) = 0.5.
    assert row.creatinine__slope_per_day == pytest.approx(0.5)


def test_a_single_value_has_no_slope_and_none_has_no_statistics(make):
    row = tabulate(make([(1, 100)], [(1, 90, 90, SODIUM, 138)]), np.array([0])).iloc[0]
    assert np.isnan(row.sodium__slope_per_day)
    assert (row.sodium__last, row.sodium__count) == (138, 1)
    assert row.creatinine__count == 0
    assert row[[f"creatinine__{name}" for name in STATISTICS if name != "count"]].isna().all()


def test_values_at_one_time_have_no_slope(make):
    facts = [(1, 90, 90, SODIUM, 138), (1, 90, 91, SODIUM, 140)]
    row = tabulate(make([(1, 100)], facts), np.array([0])).iloc[0]
    assert np.isnan(row.sodium__slope_per_day)
    assert row.sodium__last == 140  # of two at one time, the one that was known later


def test_last_is_what_happened_last_not_what_was_known_last(make):
    facts = [(1, 95, 95, SODIUM, 140), (1, 90, 99, SODIUM, 130)]
    assert tabulate(make([(1, 100)], facts), np.array([0])).sodium__last.tolist() == [140]


def test_events_are_counted_and_hidden_channels_have_no_column(make):
    facts = [(1, 90, 90, DRUG, 1), (1, 99, 99, DRUG, 1), (1, 80, 80, ADMISSION, 1)]
    table = tabulate(make([(1, 100)], facts), np.array([0]))
    assert (table.outcome_drug__count[0], table.outcome_drug__hours_since_last[0]) == (2, 1)
    assert [c for c in table if c.startswith("outcome_drug")] == [
        "outcome_drug__count",
        "outcome_drug__hours_since_last",
    ]
    assert not [c for c in table if c.startswith(("admission__", "discharge__"))]
    hidden = tabulate(make([(1, 100)], facts, hidden=(0, 1, 3, 4)), np.array([0]))
    assert [c for c in hidden if "__" in c] == [f"sodium__{name}" for name in STATISTICS]


def test_text_is_the_visible_notes_oldest_first(make):
    bodies = [(1, 60, 60, "second"), (1, 50, 50, "first"), (1, 99, 101, "later"), (2, 50, 50, "other")]
    table = tabulate(make([(1, 100), (3, 100)], bodies=bodies), np.array([0, 1]))
    assert table.text.tolist() == ["first\n\nsecond", ""]
    assert tabulate(make([(1, 100)]), np.array([0])).text.tolist() == [""]


def test_static_features_stand_in_their_columns(make):
    table = tabulate(make([(1, 100)]), np.array([0]))
    assert table[list(STATICS)].iloc[0].tolist() == list(range(len(STATICS)))


def test_rows_come_in_the_order_asked_for(make):
    facts = [(s, 90, 90, SODIUM, 130 + s) for s in (1, 2, 3)]
    table = tabulate(make([(1, 100), (2, 100), (3, 100)], facts), np.array([2, 0]))
    assert table.sodium__last.tolist() == [133, 131]


def test_no_rows_give_the_same_columns(make):
    dataset = make([(1, 100)], [(1, 90, 90, SODIUM, 138)], [(1, 90, 90, "a")])
    none = tabulate(dataset, np.zeros(0, np.int64))
    assert len(none) == 0
    assert none.columns.tolist() == tabulate(dataset, np.array([0])).columns.tolist()


def slow(facts, at):
    """The definition in plain pandas: one sample, its visible facts, a group a channel."""
    frame = pd.DataFrame(facts, columns=["subject", "time", "available", "channel", "value"])
    seen = frame[(frame.subject == at[0]) & (frame.available <= at[1]) & (frame.time > at[1] - 48)]
    row = {}
    for channel, name in ((SODIUM, "sodium"), (CREATININE, "creatinine"), (DRUG, "outcome_drug")):
        group = seen[seen.channel == channel].sort_values(["time", "available", "value"])
        row[f"{name}__count"] = len(group)
        row[f"{name}__hours_since_last"] = at[1] - group.time.max()
        if channel == DRUG:
            continue
        row[f"{name}__last"] = group.value.iloc[-1] if len(group) else np.nan
        row |= {f"{name}__{how}": group.value.agg(how) for how in ("mean", "min", "max")}
        several = group.time.nunique() > 1
        row[f"{name}__slope_per_day"] = np.polyfit(group.time / 24, group.value, 1)[0] if several else np.nan
    return row


def test_the_table_equals_a_slow_one_in_pandas(make, monkeypatch):
    rng = np.random.default_rng(3)
    facts, at = [], sorted((s, float(rng.integers(20, 150))) for s in range(12) for _ in range(4))
    for subject in range(11):
        for _ in range(rng.integers(0, 40)):
            time, channel = float(rng.integers(0, 140)), int(rng.choice([SODIUM, CREATININE, DRUG]))
            value = 1.0 if channel == DRUG else float(np.float32(rng.normal(140, 5)))
            facts.append((subject, time, time + float(rng.integers(0, 10)), channel, value))
    monkeypatch.setattr("ehrdl.data.features.table._SAMPLES_A_BLOCK", 7)
    table = tabulate(make(at, facts), np.arange(len(at)))
    wanted = pd.DataFrame([slow(facts, sample) for sample in at])
    pd.testing.assert_frame_equal(table[wanted.columns], wanted, check_dtype=False, rtol=1e-5)


def rich_row(dataset):
    return tabulate(dataset, np.array([0]), rich=True).iloc[0]


def test_the_course_of_one_channel_by_hand(make):
    """Window (52, 100], quarters from 52, 64, 76 and 88 on."""
    at_hours = [(53, 1.0), (63, 2.0), (76, 4.0), (87.5, 6.0), (100, 8.0)]
    row = rich_row(make([(1, 100)], [(1, h, h, CREATININE, v) for h, v in at_hours]))
    assert (row.creatinine__first, row.creatinine__hours_since_first) == (1.0, 47)
    assert (row.creatinine__range, row.creatinine__change) == (7.0, 7.0)
    # Mean 4.2: squares 10.24, 4.84, 0.04, 3.24, 14.44 add up to 32.8; the sample variance is a quarter of it.
    assert row.creatinine__sd == pytest.approx(8.2**0.5)
    quarters = [row[f"creatinine__mean_quarter_{q}"] for q in (1, 2, 3, 4)]
    np.testing.assert_equal(quarters, [1.5, np.nan, 5.0, 8.0])


def test_change_has_a_sign_and_first_is_what_happened_first(make):
    row = rich_row(make([(1, 100)], [(1, 95, 95, SODIUM, 130), (1, 90, 99, SODIUM, 140)]))
    assert (row.sodium__first, row.sodium__last) == (140, 130)
    assert (row.sodium__change, row.sodium__range) == (-10, 10)


def test_of_two_values_at_the_first_time_the_one_that_was_known_first_counts(make):
    row = rich_row(make([(1, 100)], [(1, 90, 91, SODIUM, 140), (1, 90, 90, SODIUM, 138), (1, 95, 95, SODIUM, 139)]))
    assert row.sodium__first == 138


def test_a_single_value_has_no_spread_and_none_has_no_course(make):
    row = rich_row(make([(1, 100)], [(1, 90, 90, SODIUM, 138)]))
    assert np.isnan(row.sodium__sd)
    assert (row.sodium__first, row.sodium__range, row.sodium__change) == (138, 0, 0)
    assert row[[f"creatinine__{name}" for name in RICH]].isna().all()


def test_events_are_counted_by_quarter(make):
    row = rich_row(make([(1, 100)], [(1, h, h, DRUG, 1) for h in (53, 54, 76, 100)]))
    assert [row[f"outcome_drug__count_quarter_{q}"] for q in (1, 2, 3, 4)] == [2, 0, 1, 1]
    assert row.outcome_drug__hours_since_first == 47
    assert np.isnan(rich_row(make([(1, 100)])).outcome_drug__hours_since_first)


def test_the_plain_table_is_the_rich_one_without_what_it_adds(make):
    facts = [(s, h, h, c, 100 + h) for s in (1, 2) for h in (60, 70, 95) for c in (SODIUM, CREATININE, DRUG)]
    dataset, rows = make([(1, 100), (2, 100), (3, 100)], facts, [(1, 60, 60, "note")]), np.array([2, 0, 1])
    plain, rich = tabulate(dataset, rows), tabulate(dataset, rows, rich=True)
    pd.testing.assert_frame_equal(without_rich(rich), plain)
    pd.testing.assert_frame_equal(without_rich(plain), plain)
    assert rich.columns[: len(plain.columns)].tolist() == plain.columns.tolist()
    added = [f"{c}__{name}" for c in ("sodium", "creatinine") for name in RICH]
    added += [f"outcome_drug__{name}" for name in RICH_OF_EVENTS]
    assert rich.columns[len(plain.columns) :].tolist() == added
    none = tabulate(dataset, np.zeros(0, np.int64), rich=True)
    assert none.columns.tolist() == rich.columns.tolist() and len(none) == 0
