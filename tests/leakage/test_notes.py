"""Kinds of notes, their sections and the choice of chunks know nothing of what is after the prediction time."""

import shutil
from dataclasses import fields, replace

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrdl.batch import Batch
from ehrdl.data.config import NoteOptions
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.chunks import Chunking
from ehrdl.data.loading.collate import Collate
from ehrdl.data.notes.build import collect, tokenize
from ehrdl.data.notes.store import Sections, open_notes
from ehrdl.data.notes.vocabulary import fit_tokenizer, load_tokenizer
from ehrdl.data.prepare import prepare
from ehrdl.data.window import Window
from ehrdl.engine.options import Prepare
from ehrdl.schema import HELD_OUT, TRAIN

CODES = ("NOTE//discharge//AD", "NOTE//discharge//DS", "NOTE//radiology//RR")
KINDS = ("other", "discharge//DS", "discharge//DS//a", "radiology//RR", "discharge//DS//chief complaint")
FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=6, max_chunks=3, kinds=KINDS)
CHOICES = ("latest", "first_and_last", "even")
WINDOW = Window(series_hours=24, note_hours=30, max_notes=4)
PEOPLE, HOURS, DELAYS = st.integers(1, 3), st.integers(0, 40), st.integers(0, 20)
AT = st.lists(st.tuples(PEOPLE, HOURS), min_size=1, max_size=3).map(sorted)


def note(text):
    """(subject, time, available, text), in hours."""
    return st.tuples(PEOPLE, HOURS, DELAYS, text).map(lambda n: (*n[:2], n[1] + n[2], n[3]))


def visible(row, at):
    return row[0] == at[0] and row[2] <= at[1]


def swapped(here, there, at):
    """What is visible of the one hospital, what is not of the other."""
    return [row for row in here if visible(row, at)] + [row for row in there if not visible(row, at)]


def bits(notes, samples, store, frame, row=0):
    static = np.zeros((len(samples), 1), np.float32)
    dataset = SampleDataset(samples, static, store, notes, WINDOW, [])
    batch = Collate(notes, frame)(dataset.__getitems__([row]))
    return {field.name: getattr(batch, field.name).numpy().tobytes() for field in fields(Batch)}


@pytest.fixture(scope="session")
def look(build):
    """What a sample reads of a hospital in memory; a text alone says its code, and a section begins at each b."""

    def look(bodies, at, row, choose):
        notes = build.notes(bodies)
        texts = notes.texts(np.arange(len(notes)))
        parts = [[part for part in text.replace("b", "|b").split("|") if part] for text in texts]
        flat = [part for note in parts for part in note]
        sections = Sections(
            np.r_[0, np.cumsum([len(note) for note in parts])].astype(np.int64),
            np.array([len(part) for part in flat], np.int32),
            np.array([1 if part[0] == "a" else 0 for part in flat], np.int32),
            ("", "a"),
        )
        code = np.array([len(text) % 3 for text in texts], np.int32)
        notes = replace(notes, sections=sections, code=code, codes=CODES)
        return bits(notes, build.samples(at), build.store([]), replace(FRAME, choose=choose), row)

    return look


BODIES = st.lists(note(st.text("abc", max_size=14)), max_size=8)


@pytest.mark.parametrize("choose", CHOICES)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(here=BODIES, there=BODIES, at=AT, data=st.data())
def test_what_is_not_visible_changes_no_kind_no_section_and_no_choice(look, choose, here, there, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    assert look(swapped(here, there, at[row]), at, row, choose) == look(here, at, row, choose)


@pytest.mark.parametrize("choose", CHOICES)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(here=BODIES, at=AT, data=st.data())
def test_which_sample_stands_beside_it_changes_no_choice(look, choose, here, at, data):
    row = data.draw(st.integers(0, len(at) - 1))
    alone, together = look(here, [at[row]], 0, choose), look(here, at, row, choose)
    same = set(alone) - {"row", "label"}
    assert {name: alone[name] for name in same} == {name: together[name] for name in same}


@pytest.mark.parametrize("choose", CHOICES)
def test_a_note_takes_part_in_the_choice_from_its_own_time_on(look, choose):
    bodies = [(1, 0, 0, "ccccaaaa"), (1, 1, 1, "cccc")]
    late = [*bodies, (1, 2, 9, "baaabccc")]
    before, there = look(bodies, [(1, 8)], 0, choose), look(late, [(1, 9)], 0, choose)
    assert look(late, [(1, 8)], 0, choose) == before
    assert there["tokens"] != before["tokens"] and there["kind"] != before["kind"]


LINES = ["Chief Complaint:", "Social History:", "Labs:", "FINDINGS: abc", "Service: ab", "abc cab", "secret", ""]
NOTES = st.lists(note(st.lists(st.sampled_from(LINES), max_size=8).map("\n".join)), max_size=5)


@pytest.fixture(scope="session")
def read(build, tmp_path_factory):
    """What a sample reads of a hospital that goes the whole way through files, split, masked and capped."""
    root = tmp_path_factory.mktemp("notes")
    fit_tokenizer(
        build.notes([(1, 0, 0, "\n".join(LINES))] * 3), np.array([1]), 100, root / "tokenizer", min_patients=1
    )
    tokenizer = load_tokenizer(str(root / "tokenizer"))
    ids = tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
    frame = replace(FRAME, pad_id=ids[0], cls_id=ids[1], sep_id=ids[2], choose="even")

    def read(bodies, at):
        shutil.rmtree(root / "hospital", ignore_errors=True)
        rows = [(s, t, CODES[len(text) % 3], None, text, a) for s, t, a, text in bodies]
        events = build.events(root / "hospital", rows, n_shards=2)
        for name in ("notes", "tokens"):
            (events / name).mkdir()
        collect(events, events / "notes", Prepare(), mask_sections=["Social History"])
        tokenize(open_notes(events / "notes"), tokenizer, events / "tokens", Prepare(), by_section=True)
        notes = open_notes(events / "notes", events / "tokens")
        return bits(notes, build.samples(at), build.store([]), frame)

    return read


@settings(max_examples=15, deadline=None, derandomize=True)
@given(here=NOTES, there=NOTES, at=AT)
def test_what_is_not_visible_changes_nothing_on_the_way_through_files(read, here, there, at):
    assert read(swapped(here, there, at[0]), at) == read(here, at)


OPTIONS = NoteOptions(split_sections=True, max_chunks=5, choose="even", chunk_tokens=48)


@pytest.fixture(scope="module")
def split(hospital):
    return prepare(replace(hospital.config, notes=OPTIONS), hospital.events, hospital.result)


def altered(hospital, name, select):
    """The EVENTS of the small hospital with every shard replaced by `select` over `shard`."""
    folder = hospital.events.with_name(name)
    shutil.copytree(hospital.events, folder)
    with duckdb.connect() as con:
        for file in (folder / "data").glob("*.parquet"):
            shard = con.from_arrow(pq.read_table(file))  # noqa: F841 - read by the query
            pq.write_table(con.sql(select).to_arrow_table(), file)
    return folder


def test_kinds_are_fitted_on_training_subjects_alone(hospital, split):
    samples = split.samples
    ids = ", ".join(map(str, samples.subject_id[samples.split == TRAIN].unique()))
    change = f"""SELECT * REPLACE (
        CASE WHEN subject_id IN ({ids}) THEN code ELSE replace(code, '//DS', '//AD') END AS code,
        CASE WHEN subject_id IN ({ids}) THEN text_value ELSE 'Labs:' || chr(10) || text_value END AS text_value)
        FROM shard"""
    again = prepare(replace(hospital.config, notes=OPTIONS), altered(hospital, "events-kinds", change), hospital.result)
    assert "labs" in again.dataset.notes.sections.names and "NOTE//discharge//AD" in again.dataset.notes.codes
    assert again.spec == split.spec and again.frame.kinds == split.frame.kinds


def test_the_future_of_every_held_out_subject_changes_no_chunk_of_its_first_sample(hospital, split):
    first = split.samples[split.samples.split == HELD_OUT].drop_duplicates("subject_id")
    ends = ", ".join(f"({s}, TIMESTAMP '{t}')" for s, t in zip(first.subject_id, first.prediction_time, strict=True))
    cut = f"""SELECT shard.* FROM shard LEFT JOIN (VALUES {ends}) AS ends(subject, t) ON subject = subject_id
        WHERE t IS NULL OR available_time IS NULL OR available_time <= t"""
    events = altered(hospital, "events-cut-notes", cut)
    again = prepare(replace(hospital.config, notes=OPTIONS), events, hospital.result)
    assert len(again.dataset.notes) < len(split.dataset.notes)
    n_chunks = []
    for row in first.index:
        ours, theirs = (Collate(p.dataset.notes, p.frame)(p.dataset.__getitems__([row])) for p in (split, again))
        for name in ("tokens", "token_valid", "kind", "link_chunk", "link_sample", "link_hours", "link_own_stay"):
            assert getattr(ours, name).equal(getattr(theirs, name))
        n_chunks.append(int((ours.link_sample == 0).sum()))
    assert max(n_chunks) == 5 and len(n_chunks) > 20
