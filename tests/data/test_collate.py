import numpy as np
import pytest
import torch

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.chunks import Chunking
from ehrdl.data.loading.collate import Collate
from ehrdl.data.window import Window

SODIUM = 2
FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=8)


@pytest.fixture
def collated(build):
    def make(at, facts=(), bodies=None):
        notes = None if bodies is None else build.notes(bodies)
        static = np.ones((len(at), 2), np.float32)
        window = Window(series_hours=1000, note_hours=1000, max_observations=100, max_notes=9)
        dataset = SampleDataset(build.samples(at), static, build.store(facts), notes, window, build.channels)
        return Collate(notes, FRAME if notes else None)(dataset.__getitems__(range(len(at))))

    return make


def text_of(batch, chunk):
    return "".join(chr(token) for token in batch.tokens[chunk][batch.token_valid[chunk]].tolist()[1:-1])


def test_observations_stand_first_and_padding_is_invalid_and_0(collated):
    batch = collated([(1, 100), (2, 100), (3, 100)], [(1, 90, 90, SODIUM, 138), (1, 99, 99, 3, 2), (2, 100, 100, 0, 1)])
    assert batch.value.shape == (3, 32)
    assert batch.valid.sum(dim=1).tolist() == [2, 1, 0]
    assert batch.value[0, :3].tolist() == [138, 2, 0]
    assert batch.hours[0, :3].tolist() == [-10, -1, 0]
    assert batch.channel[0, :3].tolist() == [2, 3, 0]
    for tensor in (batch.value, batch.hours, batch.channel):
        assert (tensor[~batch.valid] == 0).all()


def test_types_are_those_of_the_contract(collated):
    batch = collated([(1, 100)], [(1, 90, 90, SODIUM, 138)], [(1, 5, 5, "a")])
    for name in ("row", "channel", "tokens", "link_chunk", "link_sample"):
        assert getattr(batch, name).dtype == torch.int64
    for name in ("value", "hours", "static", "link_hours", "label"):
        assert getattr(batch, name).dtype == torch.float32
    assert batch.valid.dtype == batch.token_valid.dtype == torch.bool
    assert batch.row.tolist() == [0]
    assert batch.label.tolist() == [[0.0]]


def test_a_note_is_cut_into_framed_chunks_and_none_of_it_is_lost(collated):
    batch = collated([(1, 100)], bodies=[(1, 40, 40, "abcdefghijklmn")])
    assert [text_of(batch, chunk) for chunk in range(3)] == ["abcdef", "ghijkl", "mn"]
    assert batch.tokens.shape == (8, 8)
    assert batch.tokens[0].tolist() == [1, *map(ord, "abcdef"), 2]
    assert batch.tokens[2].tolist() == [1, ord("m"), ord("n"), 2, 0, 0, 0, 0]
    assert batch.link_sample.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert batch.link_hours[:3].tolist() == [-60, -60, -60]


def test_a_chunk_that_two_samples_read_stands_once(collated):
    batch = collated([(1, 50), (1, 100)], bodies=[(1, 40, 40, "abc"), (1, 60, 60, "later")])
    chunks = {chunk: text_of(batch, chunk) for chunk in range(2)}
    assert chunks == {0: "abc", 1: "later"}
    links = list(zip(*(getattr(batch, f"link_{name}").tolist() for name in ("chunk", "sample", "hours")), strict=True))
    assert links[:3] == [(0, 0, -10), (0, 1, -60), (1, 1, -40)]
    assert links[3:] == [(chunk, 2, 0) for chunk in range(2, 8)]


@pytest.mark.parametrize("n_notes", [0, 1, 8, 9])
def test_chunks_are_a_positive_multiple_of_8_filled_up_with_one_valid_token_each(collated, n_notes):
    batch = collated([(1, 100), (2, 100)], bodies=[(1, t, t, "x") for t in range(n_notes)] + [(9, 0, 0, "other")])
    assert batch.tokens.shape[0] == max(8, -(-n_notes // 8) * 8)
    filler = batch.link_chunk[batch.link_sample == 2]
    assert sorted(filler.tolist()) == list(range(n_notes, batch.tokens.shape[0]))
    assert batch.token_valid[filler].sum(dim=1).tolist() == [1] * len(filler)
    assert (batch.link_sample == 1).sum() == 0  # a sample without notes has no link


def test_an_empty_note_has_no_chunk(collated):
    batch = collated([(1, 100)], bodies=[(1, 40, 40, "")])
    assert (batch.link_sample == 0).sum() == 0


def test_a_hospital_without_notes_still_gives_one_group_of_filler(collated):
    batch = collated([(1, 100)], [(1, 90, 90, SODIUM, 138)])
    assert batch.tokens.shape[0] == 8
    assert batch.link_sample.tolist() == [1] * 8
    assert batch.token_valid.sum() == 8


def test_the_order_of_samples_changes_only_their_order(collated, build):
    facts = [(s, 90 + s, 90 + s, SODIUM, 130 + s) for s in (1, 2, 3)]
    one, three = collated([(2, 100)], facts), collated([(1, 100), (2, 100), (3, 100)], facts)
    assert torch.equal(one.value[0], three.value[1])
    assert torch.equal(one.hours[0], three.hours[1])
