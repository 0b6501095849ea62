"""A word that fewer patients have than asked for is in no vocabulary, however often it stands in their notes."""

import json
import random

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from ehrdl.data.notes import vocabulary as vocab
from ehrdl.data.notes.shared_words import shared_words, split_words
from ehrdl.data.notes.store import with_records
from ehrdl.data.notes.vocabulary import fit_tokenizer, load_tokenizer
from ehrdl.errors import ConfigError

#: Which patients, of 0 to 19, have which words; each stands in three notes of each.
WHO = {
    "chest": range(20),
    "pain": range(20),
    "Zorblatt": [7],
    "jane": range(9),
    "john": range(10),
    "5550123": range(3, 12),
    "Øre†": [1, 2],
    "naïve": range(20),
}


@pytest.fixture(scope="module")
def bert():
    return vocab._wordpiece(Tokenizer(models.WordPiece(unk_token="[UNK]")))


@pytest.fixture(scope="module")
def notes(build):
    has = {who: " ".join(word for word, patients in WHO.items() if who in patients) for who in range(20)}
    return build.notes([(who, i, i, f"{text}, {text}.") for who, text in has.items() for i in range(3)])


def test_patients_are_counted_and_not_notes(notes, bert):
    found = shared_words(notes, np.arange(20), bert, 10)
    assert found.counts == {",": 60, ".": 60, "chest": 120, "john": 60, "naive": 120, "pain": 120}
    assert (found.n_left_out, found.n_patients) == (5, 20)  # zorblatt, jane, 5550123, øre†
    assert "jane" in shared_words(notes, np.arange(20), bert, 9).counts


def test_only_the_given_subjects_count(notes, bert):
    assert "john" not in shared_words(notes, np.arange(1, 20), bert, 10).counts


def test_a_patients_notes_and_records_count_once(build, bert):
    texts = [(who, 0, 0, "chest") for who in range(5)]
    both = with_records(build.notes(texts), build.notes(texts))
    assert shared_words(both, np.arange(5), bert, 5).counts == {"chest": 10}
    assert shared_words(both, np.arange(5), bert, 6).counts == {}


@pytest.mark.parametrize("alphabet", [range(128), [*range(32, 127), 0xE9, 0x2013, 0x4E2D, 0x130, 0xDF, 0xA0]])
def test_words_are_those_of_the_tokenizer_itself(bert, alphabet):
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(map(chr, draw.choices(list(alphabet), k=40)))
        normal = bert.normalizer.normalize_str(text)
        assert split_words(text, bert) == [word for word, _ in bert.pre_tokenizer.pre_tokenize_str(normal)]


def test_nothing_of_a_rare_word_is_in_the_tokenizers_folder(notes, tmp_path):
    fit_tokenizer(notes, np.arange(20), 300, tmp_path)
    everything = "\n".join(path.read_text("utf-8") for path in tmp_path.iterdir()).lower()
    for word in ("zorblatt", "jane", "5550123", "øre", "†", "ø"):
        assert word not in everything
    words = load_tokenizer(str(tmp_path))
    assert words.tokenize("john") == ["john"]
    assert words.tokenize("Zorblatt") == ["[UNK]"]  # no word of the ten patients has a z
    assert words.tokenize("Jane") == ["j", "##a", "##n", "##e"]


def test_letters_of_rare_words_are_not_letters_of_the_vocabulary(notes, tmp_path):
    fit_tokenizer(notes, np.arange(20), 300, tmp_path)
    tokens = load_tokenizer(str(tmp_path)).get_vocab()
    assert {token for token in tokens if any(c in token for c in "zb5øl†")} == set()


def test_what_was_left_out_is_counted_in_the_folder(notes, tmp_path):
    fit_tokenizer(notes, np.arange(20), 300, tmp_path)
    assert json.loads((tmp_path / "vocabulary.json").read_text()) == {
        "min_patients": 10, "patients": 20, "words": 6, "words_left_out": 5
    }  # fmt: skip


def test_a_vocabulary_without_a_word_is_one_line_that_says_what_to_do(notes, tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.notes\.min_patients: .* of 10 training patients, of whom 8 have"):
        fit_tokenizer(notes, np.arange(8), 300, tmp_path)


def test_many_words_are_shown_to_the_trainer_as_a_share_of_their_number(notes, bert, monkeypatch):
    found = shared_words(notes, np.arange(20), bert, 10)
    assert " ".join(found.texts()).split().count("chest") == 120
    monkeypatch.setattr("ehrdl.data.notes.shared_words._SHOWN", 60)
    shown = " ".join(found.texts()).split()
    assert {word: shown.count(word) for word in found.counts} == {
        ",": 7, ".": 7, "chest": 14, "john": 7, "naive": 14, "pain": 14
    }  # fmt: skip
