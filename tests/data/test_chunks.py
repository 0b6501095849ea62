"""Cutting notes into chunks, and which of them a sample reads."""

from dataclasses import replace

import numpy as np
import pytest

from ehrdl.data.config import BatchOptions, NoteOptions
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.budget import TokenBudget
from ehrdl.data.loading.chunks import Chunker, Chunking, chosen, n_chunks, n_tokens
from ehrdl.data.loading.collate import Collate
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.notes.store import Sections
from ehrdl.data.notes.vocabulary import fit_kinds
from ehrdl.data.prepare import prepare
from ehrdl.data.window import Window
from ehrdl.errors import ConfigError
from ehrdl.schema import TRAIN
from ehrdl.training.pretrain import Chunks

FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=8)  # room for 6
DS, AD, RR = "NOTE//discharge//DS", "NOTE//discharge//AD", "NOTE//radiology//RR"
CODES = ("NOTE//discharge//AD", "NOTE//discharge//DS", "NOTE//radiology//RR")


def typed(notes, codes):
    """Notes with their codes, in the order of the notes."""
    return replace(notes, code=np.array([CODES.index(code) for code in codes], np.int32), codes=CODES)


def split(notes, parts):
    """Notes with sections: a list of (name, tokens) a note."""
    flat = [part for note in parts for part in note]
    names = ("", *sorted({name for name, _ in flat} - {""}))
    sections = Sections(
        np.r_[0, np.cumsum([len(note) for note in parts])].astype(np.int64),
        np.array([n for _, n in flat], np.int32),
        np.array([names.index(name) for name, _ in flat], np.int32),
        names,
    )
    return replace(notes, sections=sections)


@pytest.fixture
def dataset(build):
    def make(at, bodies, codes=None, parts=None):
        notes = build.notes(bodies)
        notes = typed(notes, codes) if codes else notes
        notes = split(notes, parts) if parts else notes
        window = Window(series_hours=1000, note_hours=1000, max_notes=9)
        return SampleDataset(build.samples(at), np.zeros((len(at), 1), np.float32), build.store([]), notes, window, [])

    return make


def read_by(batch, sample):
    """The texts of a sample's chunks, oldest first, and their kinds."""
    chunks = batch.link_chunk[batch.link_sample == sample].tolist()
    texts = ["".join(map(chr, batch.tokens[c][batch.token_valid[c]].tolist()[1:-1])) for c in chunks]
    return texts, batch.kind[chunks].tolist()


def collated(samples, frame):
    return Collate(samples.notes, frame)(samples.__getitems__(range(len(samples))))


@pytest.mark.parametrize(
    ("choose", "at_most", "places"),
    [
        ("latest", 3, [7, 8, 9]),
        ("first_and_last", 4, [0, 1, 8, 9]),
        ("first_and_last", 5, [0, 1, 7, 8, 9]),
        ("first_and_last", 2, [0, 9]),
        ("even", 2, [0, 9]),
        ("even", 4, [0, 3, 6, 9]),
        ("even", 5, [0, 2, 4, 6, 9]),
        ("even", 9, [0, 1, 2, 3, 4, 5, 6, 7, 9]),
        *((choose, 1, [9]) for choose in ("latest", "first_and_last", "even")),
        *((choose, n, list(range(10))) for choose in ("latest", "first_and_last", "even") for n in (10, 11)),
    ],
)
def test_of_ten_chunks_the_stated_ones_are_kept(choose, at_most, places):
    place, n = chosen(np.array([10, 0, 10]), at_most, choose)
    assert place.tolist() == places * 2
    assert n.tolist() == [len(places), 0, len(places)]


@pytest.mark.parametrize("choose", ["latest", "first_and_last", "even"])
def test_a_choice_is_of_so_many_distinct_chunks_in_order_and_holds_the_latest(choose):
    for n in range(40):
        for at_most in range(1, 40):
            place, (kept,) = chosen(np.array([n]), at_most, choose)
            assert kept == len(place) == min(n, at_most)
            assert (np.diff(place) > 0).all()
            assert n == 0 or place[-1] == n - 1
            assert choose == "latest" or at_most == 1 or n == 0 or place[0] == 0


BODIES = [(1, 10, 10, "aaaaaabbbbbbcc"), (1, 20, 20, "ddddddee"), (1, 90, 90, "ffffffgggggghhhhhhi")]


@pytest.mark.parametrize(
    ("choose", "texts"),
    [
        ("latest", ["gggggg", "hhhhhh", "i"]),
        ("first_and_last", ["aaaaaa", "hhhhhh", "i"]),
        ("even", ["aaaaaa", "ee", "i"]),
    ],
)
def test_a_sample_reads_the_chosen_of_all_chunks_of_its_notes(dataset, choose, texts):
    """Nine chunks in three notes; chunks that no sample reads are not in the batch."""
    batch = collated(dataset([(1, 100)], BODIES), replace(FRAME, max_chunks=3, choose=choose))
    assert read_by(batch, 0)[0] == texts
    assert (batch.link_sample == 0).sum() == 3
    assert batch.tokens.shape == (8, 8)
    hours = {"a": -90, "e": -80, "g": -10, "h": -10, "i": -10}
    assert batch.link_hours[:3].tolist() == [hours[text[0]] for text in texts]


def test_each_sample_chooses_among_what_it_sees_and_a_shared_chunk_stands_once(dataset):
    samples = dataset([(1, 15), (1, 30), (1, 100)], BODIES)
    batch = collated(samples, replace(FRAME, max_chunks=2, choose="first_and_last"))
    assert [read_by(batch, i)[0] for i in range(3)] == [["aaaaaa", "cc"], ["aaaaaa", "ee"], ["aaaaaa", "i"]]
    assert batch.link_chunk[:6].tolist() == [0, 1, 0, 2, 0, 3]
    alone = Collate(samples.notes, replace(FRAME, max_chunks=2, choose="first_and_last"))(samples[1])
    assert read_by(alone, 0) == read_by(batch, 1)


def test_a_cap_that_cuts_nothing_changes_nothing(dataset):
    samples = dataset([(1, 15), (1, 30), (1, 100)], BODIES)
    plain, capped = collated(samples, FRAME), collated(samples, replace(FRAME, max_chunks=9, choose="even"))
    assert all(getattr(plain, name).equal(getattr(capped, name)) for name in vars(plain) if name != "label")


@pytest.mark.parametrize("choose", ["latest", "first_and_last", "even"])
@pytest.mark.parametrize("max_chunks", [1, 3, 7, None])
def test_what_is_counted_beforehand_is_what_is_read(dataset, choose, max_chunks):
    rng = np.random.default_rng(0)
    at = sorted((int(s), int(t)) for s, t in rng.integers((1, 1), (9, 100), (40, 2)))
    bodies = [(int(s), int(t), int(t), "x" * int(n)) for s, t, n in rng.integers((1, 1, 0), (9, 100, 40), (50, 3))]
    samples, frame = dataset(at, bodies), replace(FRAME, max_chunks=max_chunks, choose=choose)
    of_notes, read = n_chunks(samples, frame), n_tokens(samples, frame)
    for row in range(len(at)):
        texts, _ = read_by(Collate(samples.notes, frame)(samples[row]), 0)
        assert len(texts) == min(of_notes[row], max_chunks or 999)
        assert sum(map(len, texts)) == read[row]
        before = sum(-(-int(samples.notes.tokens.lengths[note]) // 6) for note in samples.note_rows(row))
        assert of_notes[row] == before
    collate = Collate(samples.notes, frame)
    rows = rng.permutation(40)[:25]
    sizes = []
    for n in range(1, len(rows) + 1):
        batch = collate(samples.__getitems__(rows[:n]))
        sizes.append(batch.value.numel() + batch.tokens.numel())
    for tokens in (500, 900, 1500):
        assert TokenBudget(samples, frame, tokens)(rows) == max(1, sum(size <= tokens for size in sizes))


def test_chunks_do_not_cross_sections_and_know_theirs(dataset):
    codes = [DS, RR, AD]
    parts = [[("", 2), ("physical exam", 8), ("x", 4)], [("findings", 8)], [("", 0), ("physical exam", 19)]]
    samples = dataset([(1, 100)], BODIES, codes, parts)
    kinds = ("other", "discharge//DS", "discharge//DS//physical exam", "radiology//RR//findings")
    frame = replace(FRAME, kinds=kinds)
    texts, kind = read_by(collated(samples, frame), 0)
    assert texts == ["aa", "aaaabb", "bb", "bbcc", "dddddd", "ee", "ffffff", "gggggg", "hhhhhh", "i"]
    assert kind == [1, 2, 2, 0, 3, 3, 0, 0, 0, 0]
    pieces = Chunker(samples.notes, frame).cut(np.array([2, 0]))
    assert pieces.n.tolist() == [4, 4]
    assert pieces.start.tolist() == [0, 6, 12, 18, 0, 2, 8, 10]
    assert pieces.length.tolist() == [6, 6, 6, 1, 2, 6, 2, 4]
    assert pieces.kind.tolist() == [0, 0, 0, 0, 1, 2, 2, 0]


def test_a_kind_is_the_type_of_the_note_where_notes_are_not_split(dataset):
    samples = dataset([(1, 100)], BODIES, [DS, RR, AD])
    frame = replace(FRAME, kinds=("other", "discharge//AD", "discharge//DS"))
    assert read_by(collated(samples, frame), 0)[1] == [2, 2, 2, 0, 0, 1, 1, 1, 1]
    assert collated(samples, FRAME).kind.tolist() == [0] * 16


def test_pretraining_reads_the_very_chunks_of_batches(dataset):
    parts = [[("", 2), ("a", 12)], [("a", 8)], [("b", 19)]]
    samples = dataset([(1, 100)], BODIES, [DS, RR, AD], parts)
    chunks = Chunks(samples.notes, FRAME, np.array([1]))
    texts, _ = read_by(collated(samples, FRAME), 0)
    assert ["".join(map(chr, chunks[i][1:-1])) for i in range(len(chunks))] == texts
    assert chunks.lengths.tolist() == [len(text) + 2 for text in texts]


def test_kinds_are_those_that_enough_training_notes_have(build):
    bodies = [(s, i, i, "x") for s in (1, 2) for i in range(45)]
    codes = ([DS] * 20 + [RR] * 25) + ([AD] * 45)
    notes = typed(build.notes(bodies), codes)
    assert fit_kinds(notes, np.array([1]), 1) == ("other", "discharge//DS", "radiology//RR")
    assert fit_kinds(notes, np.array([2]), 1) == ("other", "discharge//AD")
    parts = [[("", 1), ("findings", 0)] if i % 2 else [("exam", 1)] for i in range(90)]
    assert fit_kinds(split(notes, parts), np.array([1, 2]), 1) == (
        "other", "discharge//AD", "discharge//AD//exam", "discharge//AD//findings"
    )  # fmt: skip
    assert fit_kinds(build.notes(bodies), np.array([1])) == ("other",)


def test_a_heading_that_too_few_patients_have_is_no_kind_however_often_it_stands(build):
    notes = typed(build.notes([(s, i, i, "x") for s in range(12) for i in range(30)]), [DS] * 360)
    parts = [[("mr jones" if i // 30 < 9 else "plan", 1), ("exam", 0)] for i in range(360)]
    train = np.arange(12)
    assert fit_kinds(split(notes, parts), train) == ("other", "discharge//DS//exam")
    assert fit_kinds(split(notes, parts), train, 9) == ("other", "discharge//DS//exam", "discharge//DS//mr jones")
    assert fit_kinds(split(notes, parts), train[1:], 9) == ("other", "discharge//DS//exam")


def test_the_spec_names_the_kinds_and_batches_count_them(prepared):
    assert prepared.spec.note_kinds == ("other", "discharge//DS", "radiology//RR")
    seen = {
        int(kind) for batch in ClinicalDataModule(prepared, BatchOptions()).train_dataloader() for kind in batch.kind
    }
    assert seen == {0, 1, 2}


def test_samples_that_are_cut_are_counted(hospital):
    options = NoteOptions(max_chunks=2, choose="first_and_last", chunk_tokens=64)
    again = prepare(replace(hospital.config, notes=options), hospital.events, hospital.result)
    n_cut = again.facts["data"]["samples_cut_to_max_chunks"]
    assert n_cut == (n_chunks(again.dataset, again.frame) > 2).sum() > 100
    assert hospital.prepared.facts["data"]["samples_cut_to_max_chunks"] == 0
    module = ClinicalDataModule(again, BatchOptions(size=32))
    for batch in module.train_dataloader():
        per_sample = np.bincount(batch.link_sample, minlength=batch.batch_size + 1)[:-1]
        assert per_sample.max() == 2
    assert len(again.rows(TRAIN))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_chunks": 0}, r"data\.notes\.max_chunks: 0 is below 1"),
        (
            {"max_chunks": 3, "choose": "first"},
            r"data\.notes\.choose: 'first' is not one of latest, first_",
        ),
        ({"choose": "even"}, r"data\.notes\.choose: even cuts nothing without data\.notes\.max_chunks"),
        (
            {"keep_sections": ["Physical Exam"], "mask_sections": ["PHYSICAL EXAMINATION"]},
            r"data\.notes\.keep_sections: 'Physical Exam' is among data\.notes\.mask_sections too",
        ),
        ({"keep_sections": ["Physical Exam:"]}, r"data\.notes\.keep_sections: .* is no header"),
    ],
)
def test_an_option_that_cannot_work_is_refused_by_its_key(options, said):
    with pytest.raises(ConfigError, match=said):
        NoteOptions(**options)
