import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ehrdl.data.notes.build import collect, tokenize
from ehrdl.data.notes.store import TokenLists, bodies, open_notes
from ehrdl.engine.options import Prepare
from ehrdl.schema import HOUR

ROWS = [
    (2, 0, "NOTE//discharge//DS", None, "second", 30),
    (2, 5, "NOTE//radiology//RR", None, "first", 6),
    (1, 1, "NOTE//discharge//DS", None, "only one two three", 2),
    (2, 0, "NOTE//discharge//DS", None, "before its twin", 30),
    (3, 0, "NOTE//discharge//DS", None, None, 30),
    (3, 0, "LAB//50912//mg/dL", 1.0, "no note", 30),
]


@pytest.fixture
def folder(build, tmp_path):
    events = build.events(tmp_path / "events", ROWS, n_shards=2)
    (tmp_path / "notes").mkdir()
    collect(events, tmp_path / "notes", Prepare())
    return tmp_path / "notes"


def words():
    vocabulary = {
        word: i for i, word in enumerate(["[UNK]", "[PAD]", "only", "one", "two", "three", "first", "second"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_notes_are_ordered_by_subject_availability_and_text(folder):
    notes = open_notes(folder)
    assert len(notes) == 4
    assert notes.texts(np.arange(4)) == ["only one two three", "first", "before its twin", "second"]
    assert notes.subjects.tolist() == [1, 2]
    assert notes.offsets.tolist() == [0, 1, 4]
    assert (notes.available / HOUR).tolist() == [2, 6, 30, 30]
    assert (notes.time / HOUR).tolist() == [1, 5, 0, 0]
    assert notes.texts([]) == []


def test_bodies_come_in_order_and_only_where_wanted(folder):
    notes = open_notes(folder)
    assert [text for batch in bodies(notes, np.array([False, True, False, True])) for text in batch] == [
        "first",
        "second",
    ]


def test_every_word_of_a_note_is_tokenised(folder, tmp_path):
    tokenize(
        open_notes(folder), PreTrainedTokenizerFast(tokenizer_object=words(), unk_token="[UNK]"), tmp_path, Prepare()
    )
    notes = open_notes(folder, tmp_path)
    assert [notes.tokens[i].tolist() for i in range(4)] == [[2, 3, 4, 5], [6], [0, 0, 0], [7]]
    assert notes.tokens.lengths.tolist() == [4, 1, 3, 1]


def test_a_tokenizer_that_was_saved_with_truncation_and_padding_still_reads_the_whole_note(folder, tmp_path):
    cutting = words()
    cutting.enable_truncation(2)
    cutting.enable_padding(pad_id=1, pad_token="[PAD]", length=3)
    tokenize(
        open_notes(folder), PreTrainedTokenizerFast(tokenizer_object=cutting, unk_token="[UNK]"), tmp_path, Prepare()
    )
    notes = open_notes(folder, tmp_path)
    assert [notes.tokens[i].tolist() for i in range(2)] == [[2, 3, 4, 5], [6]]


def test_a_hospital_without_notes_opens_as_empty(build, tmp_path):
    events = build.events(tmp_path / "events", ROWS[-1:])
    (tmp_path / "notes").mkdir()
    collect(events, tmp_path / "notes", Prepare())
    notes = open_notes(tmp_path / "notes")
    assert len(notes) == 0
    assert notes.offsets.tolist() == [0]


def test_token_lists_find_their_row_across_chunks_without_a_copy():
    parts = [[[1, 2], []], [], [[3], [4, 5, 6]]]
    column = pa.chunked_array([pa.array(part, pa.list_(pa.int32())) for part in parts])
    lists = TokenLists(column)
    assert [lists[i].tolist() for i in range(4)] == [[1, 2], [], [3], [4, 5, 6]]
    assert np.shares_memory(lists[3], column.chunk(2).values.to_numpy())


def test_token_lists_of_several_rows_stand_one_after_the_other_in_any_order():
    parts = [[[1, 2], []], [], [[3], [4, 5, 6]]]
    lists = TokenLists(pa.chunked_array([pa.array(part, pa.list_(pa.int32())) for part in parts]))
    assert lists.flat(np.array([3, 0, 1, 2, 0])).tolist() == [4, 5, 6, 1, 2, 3, 1, 2]
    assert lists.flat(np.zeros(0, np.int64)).tolist() == []
