import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from ehrdl.errors import ConfigError
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.pretrained import Pretrained
from ehrdl.options.training import Optim
from ehrdl.processes.trainer import quiet
from ehrdl.schema import TRAIN
from ehrdl.training.pretrain import Chunks, pretrain

TRAINER = {"accelerator": "cpu"}
MAKE = functools.partial(NoteTransformer, width=16, dropout=0.0)


def pretrained(prepared, path, epochs, seed=0):
    torch.manual_seed(0)
    encoder = MAKE(prepared.spec)
    with quiet():
        pretrain(encoder, prepared, Optim(pretrain_epochs=epochs, pretrain_lr=0.01), TRAINER, path, seed)
    return encoder


def told(capsys):
    """Nats a hidden token, as the last line says."""
    return float(capsys.readouterr().err.strip().splitlines()[-1].split(", ")[-1].split()[0])


def test_hidden_words_are_guessed_better_with_every_pass(prepared, tmp_path, capsys):
    pretrained(prepared, tmp_path / "one.pt", 1)
    first = told(capsys)
    pretrained(prepared, tmp_path / "four.pt", 4)
    assert told(capsys) < first - 0.5
    assert first < np.log(prepared.spec.vocab_size)


def test_the_same_seed_gives_the_same_weights_and_a_second_call_loads_them(prepared, tmp_path, capsys):
    a, b = (pretrained(prepared, tmp_path / name, 1).state_dict() for name in ("a.pt", "b.pt"))
    said = capsys.readouterr().err
    again = pretrained(prepared, tmp_path / "a.pt", 1).state_dict()
    assert said.count("pretrained on") == 2 and capsys.readouterr().err == ""
    for name in a:
        assert torch.equal(a[name], b[name]) and torch.equal(a[name], again[name])
    other = pretrained(prepared, tmp_path / "c.pt", 1, seed=1).state_dict()
    assert any(not torch.equal(a[name], other[name]) for name in a)


def test_only_training_subjects_notes_are_read(prepared):
    train = np.unique(prepared.samples.subject_id[prepared.samples.split == TRAIN])
    notes = prepared.dataset.notes
    chunks = Chunks(notes, prepared.frame, train)
    owner = np.repeat(notes.subjects, np.diff(notes.offsets))
    assert set(owner[chunks.note]) <= set(train)
    assert set(chunks.note) == set(np.flatnonzero(np.isin(owner, train) & (notes.tokens.lengths > 0)))


def test_chunks_cover_every_note_whole_and_in_order(prepared):
    notes, frame = prepared.dataset.notes, replace(prepared.frame, chunk_tokens=10)
    chunks = Chunks(notes, frame, notes.subjects[:5])
    for note in np.unique(chunks.note):
        pieces = [chunks[row] for row in np.flatnonzero(chunks.note == note)]
        assert all(piece[0] == frame.cls_id and piece[-1] == frame.sep_id and len(piece) <= 10 for piece in pieces)
        assert np.concatenate([piece[1:-1] for piece in pieces]).tolist() == notes.tokens[int(note)].tolist()
    tokens, valid = chunks.collate([chunks[0], chunks[len(chunks) - 1]])
    assert valid.sum(dim=1).tolist() == [len(chunks[0]), len(chunks[len(chunks) - 1])]
    assert (tokens[~valid] == frame.pad_id).all()


def test_an_encoder_that_cannot_guess_words_is_refused(prepared, tmp_path):
    with pytest.raises(ConfigError, match=r"optim\.pretrain_epochs: Linear cannot be pretrained"):
        pretrain(torch.nn.Linear(1, 1), prepared, Optim(pretrain_epochs=1), TRAINER, tmp_path / "x.pt", 0)


@pytest.mark.parametrize("tune", ["full", "frozen"])
def test_an_encoder_that_comes_pretrained_is_refused(prepared, tmp_path, tune):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    spec, folder = replace(prepared.spec, chunk_tokens=64), tmp_path / "encoder"
    BertModel(BertConfig(vocab_size=spec.vocab_size, **sizes)).save_pretrained(folder)
    encoder = NoteTransformer(spec, pretrained=Pretrained(str(folder), tune))
    with pytest.raises(ConfigError, match=r"^optim\.pretrain_epochs: .* is pretrained; set it to 0.*pretrain --from"):
        pretrain(encoder, prepared, Optim(pretrain_epochs=1), TRAINER, tmp_path / "x.pt", 0)


@pytest.mark.parametrize(("name", "value"), [("pretrain_epochs", -1), ("pretrain_lr", 0.0)])
def test_impossible_options_name_their_key(name, value):
    with pytest.raises(ConfigError, match=rf"optim\.{name}"):
        Optim(**{name: value})
