"""A verbalised record says what its sample may see and nothing else, as text, as tokens, in a Batch and in a table.

As in test_series: hospitals are drawn at random; what a sample may not see is changed, added and deleted. Facts are
(subject, time, available, channel, value), coded facts (subject, time, available, code), notes (subject, time,
available, text); times are hours.
"""

import shutil
from dataclasses import fields, replace

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrdl.batch import Batch
from ehrdl.data.config import NoteOptions, RecordOptions
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.features.static import static_features
from ehrdl.data.features.table import tabulate
from ehrdl.data.loading.collate import Chunking, Collate
from ehrdl.data.notes.store import with_records
from ehrdl.data.notes.vocabulary import load_tokenizer
from ehrdl.data.prepare import prepare
from ehrdl.data.record.coded import FAMILIES, Coded
from ehrdl.data.record.text import verbalize
from ehrdl.data.window import Window
from ehrdl.schema import HELD_OUT, HOUR, TRAIN

SODIUM, DRUG, MICROSECOND = 2, 4, 1 / HOUR
WINDOW = Window(series_hours=24, note_hours=30, max_observations=6, max_notes=2)
FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=64)
EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
CODES = ["DIAGNOSIS//ICD10//I500", "DIAGNOSIS//ICD10//N179", "DRUG_START//Furosemide//IV", "TRANSFER_IN//Medicine"]
HIDDEN = ("DIAGNOSIS//ICD10//I50",)

PEOPLE, HOURS, DELAYS = st.integers(1, 3), st.integers(0, 40), st.integers(0, 20)
FACT = st.tuples(PEOPLE, HOURS, DELAYS, st.integers(0, 4), st.integers(1, 99)).map(
    lambda f: (*f[:2], f[1] + f[2], *f[3:])
)
CODED = st.tuples(PEOPLE, HOURS, DELAYS, st.integers(0, 3)).map(lambda f: (*f[:2], f[1] + f[2], f[3]))
NOTE = st.tuples(PEOPLE, HOURS, DELAYS, st.text("abc", min_size=1, max_size=9)).map(
    lambda n: (*n[:2], n[1] + n[2], n[3])
)
EVENTS = st.tuples(st.lists(FACT, max_size=20), st.lists(CODED, max_size=12), st.lists(NOTE, max_size=5))
AT = st.lists(st.tuples(PEOPLE, HOURS), min_size=1, max_size=3).map(sorted)


def coded(rows):
    """The opened facts of each section, in memory."""
    found = {}
    for section, heads in FAMILIES.items():
        own = sorted(
            (s, round(a * HOUR), round(t * HOUR), -code)
            for s, t, a, code in rows
            if CODES[code].split("//")[0] in heads
        )
        subject, available, time, code = np.array(own, np.int64).reshape(-1, 4).T
        subjects, first = np.unique(subject, return_index=True)
        names = [code.partition("//")[2] for code in CODES]
        found[section] = Coded(available, time, -code, subjects, np.r_[first, len(own)], names, CODES)
    return found


@pytest.fixture(scope="session")
def read(build):
    """The dataset of a hospital built in memory whose samples read their records beside the notes."""
    shown = [channel for i, channel in enumerate(build.channels) if i not in (0, 1, DRUG)]
    nobody = pd.DataFrame({"birth": [], "birth_available": [], "sex": []})

    def read(hospital, at):
        facts, codes, bodies = hospital
        samples, store = build.samples(at), build.store(facts)
        static = static_features(samples, nobody, store)
        blind = SampleDataset(samples, static, store, None, WINDOW, shown)
        texts = verbalize(blind, coded(codes), range(len(at)), hidden_codes=HIDDEN)
        own = build.notes([(s, t, t, text) for (s, t), text in zip(at, texts, strict=True)])
        return SampleDataset(samples, static, store, with_records(build.notes(bodies), own), WINDOW, shown)

    return read


def sight(dataset, row, frame=FRAME):
    """The texts that a sample reads, and what the models get of them."""
    batch = Collate(dataset.notes, frame)(dataset.__getitems__([row]))
    return {
        "texts": dataset.notes.texts(dataset.note_rows(row)),
        "batch": {field.name: getattr(batch, field.name).numpy().tobytes() for field in fields(Batch)},
        "table": tabulate(dataset, np.array([row])).text[0],
    }


def visible(row, at):
    return row[0] == at[0] and row[2] <= at[1]


@EXAMPLES
@given(here=EVENTS, other=EVENTS, at=AT, data=st.data())
def test_whatever_is_not_visible_changes_no_record(read, here, other, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    swapped = [
        [r for r in ours if visible(r, at[row])] + [r for r in theirs if not visible(r, at[row])]
        for ours, theirs in zip(here, other, strict=True)
    ]
    assert sight(read(swapped, at), row) == sight(read(here, at), row)


@EXAMPLES
@given(here=EVENTS, at=AT, data=st.data(), code=st.sampled_from([1, 2, 3]))
def test_a_fact_moved_across_t_appears_and_disappears(read, here, at, data, code):
    row = data.draw(st.integers(0, len(at) - 1))
    subject, t = at[row]
    facts, _, bodies = here

    def moved(moment):
        more = [*facts, (subject, t, moment, SODIUM, 50)], [(subject, t, moment, code)], bodies
        return sight(read(more, at), row)

    without, on_time, late = sight(read((facts, [], bodies), at), row), moved(t), moved(t + MICROSECOND)
    assert late == without
    name = CODES[code].partition("//")[2]
    assert name in on_time["texts"][-1] and name not in without["texts"][-1]
    assert "low sodium 50 mEq/L" in on_time["texts"][-1]
    assert all(on_time[part] != without[part] for part in ("batch", "table"))


@EXAMPLES
@given(here=EVENTS, other=EVENTS, at=AT, data=st.data())
def test_hidden_codes_and_channels_change_no_record(read, here, other, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    swapped = [
        [r for r in ours if r[3] != hidden] + [r for r in theirs if r[3] == hidden]
        for ours, theirs, hidden in zip(here[:2], other[:2], (DRUG, 0), strict=True)
    ]
    after = sight(read((*swapped, here[2]), at), row)
    assert after == sight(read(here, at), row)
    assert "I500" not in after["table"] and "outcome drug" not in after["table"]


@EXAMPLES
@given(here=EVENTS, at=AT)
def test_each_sample_reads_its_own_record_and_no_other_beside_its_notes(build, read, here, at):
    dataset = read(here, at)
    plain = SampleDataset(
        build.samples(at), dataset.static, dataset.store, build.notes(here[2]), WINDOW, dataset.channels
    )
    for row in range(len(at)):
        *notes, own = dataset.note_rows(row)
        assert own == dataset.notes.first_record + row
        assert notes == plain.note_rows(row).tolist()  # a record takes the place of no note
        assert dataset[row].note_hours[-1] == 0
    batch = Collate(dataset.notes, FRAME)(dataset.__getitems__(range(len(at))))
    lengths = dataset.notes.tokens.lengths[dataset.notes.first_record :]
    n_notes = sum(-(-len(text) // FRAME.room) for row in range(len(at)) for text in sight(dataset, row)["texts"][:-1])
    linked = batch.link_sample[batch.link_sample < len(at)]
    assert len(linked) == n_notes + (-(-lengths // FRAME.room)).sum()


@settings(EXAMPLES, max_examples=20)
@given(here=EVENTS, at=AT, data=st.data())
def test_which_sample_stands_beside_it_changes_no_record(read, here, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    alone, together = sight(read(here, [at[row]]), 0), sight(read(here, at), row)
    assert (alone["texts"], alone["table"]) == (together["texts"], together["table"])


def test_two_samples_of_one_subject_at_one_time_have_a_record_each(read):
    dataset = read(([(1, 1, 1, SODIUM, 90)], [], []), [(1, 5), (1, 5)])
    assert [dataset.note_rows(row).tolist() for row in range(2)] == [[0], [1]]


@pytest.fixture(scope="module", params=["record", "both"])
def written(hospital, request):
    """The small synthetic hospital whose samples read their records."""
    config = replace(hospital.config, notes=NoteOptions(source=request.param))
    return config, prepare(config, hospital.events, hospital.result)


def altered(hospital, name, select):
    """The EVENTS of the small hospital with every shard replaced by `select` over `shard`."""
    folder = hospital.events.with_name(name)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(hospital.events, folder)
    with duckdb.connect() as con:
        for file in (folder / "data").glob("*.parquet"):
            shard = con.from_arrow(pq.read_table(file))  # noqa: F841 - read by the query
            pq.write_table(con.sql(select).to_arrow_table(), file)
    return folder


def test_the_future_of_every_held_out_subject_can_be_deleted_from_the_files(hospital, written):
    config, ours = written
    first = ours.samples[ours.samples.split == HELD_OUT].drop_duplicates("subject_id")
    ends = ", ".join(f"({s}, TIMESTAMP '{t}')" for s, t in zip(first.subject_id, first.prediction_time, strict=True))
    cut = f"""SELECT shard.* FROM shard LEFT JOIN (VALUES {ends}) AS ends(subject, t) ON subject = subject_id
        WHERE t IS NULL OR available_time IS NULL OR available_time <= t"""
    folder = altered(hospital, f"events-records-cut-{config.notes.source}", cut)
    again = prepare(config, folder, hospital.result)
    assert len(again.dataset.store.value) < len(ours.dataset.store.value)
    for row in first.index:
        assert sight(again.dataset, row, again.frame) == sight(ours.dataset, row, ours.frame)


def test_the_tokenizer_of_records_is_fitted_on_training_subjects_alone(hospital, written):
    config, ours = written
    ids = ", ".join(map(str, ours.samples.subject_id[ours.samples.split == TRAIN].unique()))
    change = f"""SELECT * REPLACE (
        CASE WHEN subject_id IN ({ids}) OR NOT starts_with(code, 'DIAGNOSIS') THEN code ELSE 'DIAGNOSIS//Zyxglub' END
            AS code,
        CASE WHEN subject_id IN ({ids}) THEN text_value ELSE reverse(text_value) END AS text_value,
        CASE WHEN subject_id IN ({ids}) THEN numeric_value ELSE numeric_value * 1.2 END AS numeric_value) FROM shard"""
    again = prepare(config, altered(hospital, f"events-records-others-{config.notes.source}", change), hospital.result)
    assert any("Zyxglub" in text for text in again.dataset.notes.texts(range(len(again.dataset.notes))))
    words = [load_tokenizer(data.tokenizer).backend_tokenizer.to_str() for data in (again, ours)]
    assert words[0] == words[1]


def test_codes_that_define_the_outcome_are_in_no_record(hospital):
    config = replace(hospital.config, notes=NoteOptions(source="record", record=RecordOptions(max_diagnoses=99)))
    every = prepare(config, hospital.events, hospital.result)
    result = replace(hospital.result, hidden_codes=("LAB//50912", "DIAGNOSIS//ICD9//428"))
    again = prepare(config, hospital.events, result)

    def texts(data):
        return "\n".join(data.dataset.notes.texts(range(len(data.dataset.notes)))).lower()

    for word in ("creatinine", "congestive heart failure, unspecified"):  # the title of ICD-9 428.0 alone
        assert word in texts(every) and word not in texts(again)
    assert "diagnoses" in texts(again) and "sodium" in texts(again)
