"""The split by time, on patients made by hand, just inside and just outside each boundary."""

import numpy as np
import pandas as pd
import pytest

from ehrdl.data.config import DataConfig
from ehrdl.data.temporal_split import describe_notes, describe_split, split_samples
from ehrdl.errors import ConfigError, SchemaError
from ehrdl.schema import HELD_OUT, TRAIN, TUNING
from ehrdl.sources.mimic4.source import Mimic4
from ehrdl.splits.subjects import Split, assign

#: The shifted year 2150 may stand for 2014, 2015 or 2016.
GROUP, ANCHOR = "2014 - 2016", 2150


@pytest.fixture
def record(build, tmp_path):
    """Samples and EVENTS of stays (subject, shifted year of admission); stays are numbered 100, 101, …"""

    def record(stays, group=GROUP, days_to_prediction=0):
        rows, samples = [], []
        for number, (subject, year) in enumerate(stays):
            admitted = pd.Timestamp(year, 12, 31, 23)
            hours = (admitted - pd.Timestamp(1970, 1, 1)) / pd.Timedelta(hours=1)
            rows.append((subject, hours, "ADMISSION//EMERGENCY ROOM", None, None, hours, 100 + number))
            samples.append((subject, 100 + number, admitted + pd.Timedelta(days=days_to_prediction)))
        if group:
            people = {subject for subject, _ in stays}
            rows += [(subject, None, f"ANCHOR_YEAR_GROUP//{group}", ANCHOR, None, None, None) for subject in people]
        return numbered(samples), write(build, tmp_path / "events", rows)

    return record


def numbered(rows):
    samples = pd.DataFrame(rows, columns=["subject_id", "encounter_id", "prediction_time"])
    samples = samples.sort_values(["subject_id", "prediction_time", "encounter_id"], ignore_index=True)
    return samples.assign(sample_id=np.arange(len(samples)), encounter_id=samples.encounter_id.astype("Int64"))


def write(build, root, rows):
    """EVENTS with the encounters that `Build.events` leaves out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = build.events(root, [row[:6] for row in rows]) / "data" / "0.parquet"
    table = pq.read_table(file).to_pandas()
    known = {(row[0], row[1], row[2]): row[6] for row in rows}
    epoch = pd.Timestamp(1970, 1, 1)
    hours = ((table["time"] - epoch) / pd.Timedelta(hours=1)).astype(object).where(table["time"].notna(), None)
    keys = zip(table["subject_id"], hours, table["code"], strict=True)
    table["encounter_id"] = pd.array([known[key] for key in keys], dtype="Int64")
    pq.write_table(pa.Table.from_pandas(table, pq.read_schema(file), preserve_index=False), file)
    return root


def names(samples, events, **options):
    """The split of each stay that is left, and the facts."""
    split = Split(kind="temporal", **{"tuning": 1e-12, "cut_year": 2017} | options)
    left, facts = split_samples(samples, split, events)
    return dict(zip(left.encounter_id, left.split, strict=True)), facts


@pytest.mark.parametrize(
    ("year", "split"),
    [
        (2150, TRAIN),  # 2014 to 2016
        (2151, None),  # 2015 to 2017
        (2152, None),  # 2016 to 2018
        (2153, HELD_OUT),  # 2017 to 2019
    ],
)
def test_the_latest_year_trains_below_the_cut_and_the_earliest_is_held_out_from_it(record, year, split):
    found, facts = names(*record([(1, year), (2, 2149), (3, 2154)]))
    assert found == {101: TRAIN, 102: HELD_OUT} | ({100: split} if split else {})
    assert facts["dropped_years_reach_over_the_cut"] == (split is None)


def test_the_year_is_that_of_the_admission_not_of_the_prediction(record):
    found, _ = names(*record([(1, 2150)], days_to_prediction=5))
    assert found == {100: TRAIN}


def test_a_subject_in_both_keeps_only_what_is_held_out(record):
    found, facts = names(*record([(1, 2149), (1, 2153), (2, 2149), (2, 2151)]))
    assert found == {101: HELD_OUT, 102: TRAIN}
    assert facts["dropped_before_the_cut_of_held_out_subjects"] == 1
    assert facts["dropped_years_reach_over_the_cut"] == 1
    line = describe_split(facts)
    assert line.startswith("temporal split at 2017: 1 samples dropped whose years reach over the cut, 1 from before it")


@pytest.mark.parametrize(("last_year", "split"), [(None, HELD_OUT), (2019, HELD_OUT), (2017, HELD_OUT)])
def test_years_are_capped_at_the_last_of_the_release(record, last_year, split):
    """2160 may stand for 2024 to 2026, which is after the release: it was in its last year."""
    found, _ = names(*record([(1, 2160)]), last_year=last_year)
    assert found == {100: split}


@pytest.mark.parametrize(
    ("year", "last_year", "n"), [(2153, 2022, 0), (2154, 2022, 1), (2154, 2019, 0), (2154, None, 1)]
)
def test_stays_that_may_be_after_the_last_notes_are_said(record, year, last_year, n):
    """2153 may stand for 2017 to 2019, the last year of MIMIC-IV-Note 2.2, and 2154 for 2018 to 2020."""
    _, facts = names(*record([(1, year), (2, 2149)]), last_year=last_year)
    assert facts["stays_that_may_be_after_the_last_notes"] == n
    line = describe_notes(facts)
    assert line.startswith("notes: 1 samples may be of stays after 2019") if n else line is None


def test_samples_are_numbered_anew_in_their_order(record):
    samples, events = record([(1, 2149), (2, 2151), (3, 2153), (4, 2149)])
    left, _ = split_samples(samples, Split("temporal", cut_year=2017), events)
    assert left.encounter_id.tolist() == [100, 102, 103]
    assert left.sample_id.tolist() == left.index.tolist() == [0, 1, 2]


def test_tuning_is_a_share_of_the_training_subjects_by_their_hash(record):
    stays = [(subject, year) for subject in range(2000) for year in ((2148, 2149) if subject % 4 else (2154,))]
    samples, events = record(stays)
    left, _ = split_samples(samples, Split("temporal", tuning=0.25, cut_year=2017), events)
    by_subject = left.groupby("subject_id").split.agg(["first", "nunique"])
    assert (by_subject["nunique"] == 1).all()
    before = by_subject.loc[by_subject.index % 4 > 0, "first"]
    assert set(before) == {TRAIN, TUNING}
    assert (before == TUNING).mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 1500))
    other, _ = split_samples(samples, Split("temporal", tuning=0.25, cut_year=2017, seed=1), events)
    assert (other.split == HELD_OUT).equals(left.split == HELD_OUT)
    assert not (other.split == TUNING).equals(left.split == TUNING)


def test_a_split_by_subject_reads_no_years_and_drops_nothing(record, tmp_path):
    samples, _ = record([(1, 2149), (1, 2160), (2, 2149)], group=None)
    left, facts = split_samples(samples, Split(), tmp_path / "nowhere")
    assert left.split.tolist() == assign(samples.subject_id.to_numpy(), Split()).tolist()
    assert (facts, describe_split(facts)) == ({"kind": "subject"}, None)


def test_a_patient_without_a_year_group_is_named(record):
    samples, events = record([(7, 2149), (7, 2150)], group=None)
    with pytest.raises(SchemaError, match=r"subject 7 \(stay 100\) has no ANCHOR_YEAR_GROUP event.*2 of 2 samples"):
        names(samples, events)


def test_a_year_group_that_is_no_range_is_no_year_group(record):
    with pytest.raises(SchemaError, match=r"subject 7 .* has no ANCHOR_YEAR_GROUP event that gives its years"):
        names(*record([(7, 2149)], group="later"))


@pytest.mark.parametrize("encounter", [None, 999])
def test_a_sample_whose_admission_is_not_known_is_named(record, encounter):
    samples, events = record([(7, 2149)])
    samples["encounter_id"] = pd.array([encounter], dtype="Int64")
    with pytest.raises(SchemaError, match=rf"subject 7 \(stay {encounter or 'none'}\) has no ADMISSION event"):
        names(samples, events)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "random"}, "data.split.kind: 'random' is not one of subject, temporal, source"),
        ({"kind": "temporal"}, "data.split.cut_year: null, but data.split.kind temporal needs the first held-out year"),
        ({"kind": "temporal", "cut_year": 17}, "data.split.cut_year: 17 is not between 1900 and 2100"),
        ({"kind": "temporal", "cut_year": 2017, "last_year": 2016}, "data.split.cut_year: 2017 is after .* 2016"),
        ({"cut_year": 2017}, "data.split.cut_year: 2017 belongs to data.split.kind temporal"),
        ({"last_year": 2019}, "data.split.last_year: 2019 belongs to data.split.kind temporal"),
    ],
)
def test_impossible_years_are_refused_by_their_key(options, says):
    with pytest.raises(ConfigError, match=says):
        Split(**options)


# ------------------------------------------------------------------------------------------------ the source's own


def with_splits(events, **subjects):
    ids = [subject for part in subjects.values() for subject in part]
    names = [name for name, part in subjects.items() for _ in part]
    (events / "metadata").mkdir()
    pd.DataFrame({"subject_id": ids, "split": names}).to_parquet(events / "metadata" / "subject_splits.parquet")


def test_the_sources_own_split_is_taken_and_who_is_in_none_of_it_is_dropped_and_counted(record):
    samples, events = record([(1, 2149), (1, 2160), (2, 2149), (3, 2149), (4, 2149), (5, 2149)], group=None)
    with_splits(events, train=[1, 9], tuning=[2], held_out=[3], other=[4])
    left, facts = split_samples(samples, Split("source"), events)
    assert dict(zip(left.encounter_id, left.split, strict=True)) == {100: TRAIN, 101: TRAIN, 102: TUNING, 103: HELD_OUT}
    assert left.sample_id.tolist() == [0, 1, 2, 3]
    assert facts == {"kind": "source", "dropped_in_no_split": 2}
    assert describe_split(facts) == (
        "the source's split: 2 samples dropped of subjects in none of train, tuning, held_out"
    )
    assert describe_split(facts | {"dropped_in_no_split": 0}) is None


def test_a_split_that_the_source_does_not_have_is_refused_before_any_work():
    config = DataConfig(Mimic4(root="/nowhere"), split=Split("source"))
    with pytest.raises(
        ConfigError, match=r"data\.split\.kind: source, but data\.source has no subject_splits of its own"
    ):
        config.check()
