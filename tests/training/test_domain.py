"""Masks of batches: how many tokens, of what kind, in which order, the same whenever they are drawn."""

import numpy as np
import pytest
import torch

from ehrdl.data.notes.vocabulary import load_tokenizer
from ehrdl.errors import ConfigError
from ehrdl.options.training import Pretraining
from ehrdl.pretraining.domain import MaskedNotes
from ehrdl.schema import TRAIN, TUNING
from ehrdl.training.pretrain import Chunks


@pytest.fixture
def masked(prepared):
    """Loaders of the small hospital's notes."""

    def make(**options):
        subject, split = prepared.samples.subject_id, prepared.samples.split
        notes, frame = prepared.dataset.notes, prepared.frame
        train, tuning = (Chunks(notes, frame, np.unique(subject[split == name])) for name in (TRAIN, TUNING))
        return MaskedNotes(train, tuning, load_tokenizer(prepared.tokenizer), Pretraining(**options))

    return make


def original(batch):
    return batch["input_ids"].where(batch["labels"] == -100, batch["labels"])


def test_fifteen_percent_of_the_words_are_asked_for_and_of_these_80_10_10_hidden_replaced_kept(masked):
    data = masked()
    words = data.words
    special = torch.tensor(words.all_special_ids)
    n_words, asked, hidden, kept = 0, 0, 0, 0
    for batch in data.train_dataloader():
        truth, guessed = original(batch), batch["labels"] != -100
        is_word = ~torch.isin(truth, special)
        assert not (guessed & ~is_word).any()  # neither frames nor padding
        assert (batch["attention_mask"] == 1)[is_word].all()
        n_words += int(is_word.sum())
        asked += int(guessed.sum())
        hidden += int((batch["input_ids"] == words.mask_token_id).sum())
        kept += int(((batch["input_ids"] == truth) & guessed).sum())
    assert asked > 10_000

    def error(share, n):
        return 4 * (share * (1 - share) / n) ** 0.5

    assert asked / n_words == pytest.approx(0.15, abs=error(0.15, n_words))
    assert hidden / asked == pytest.approx(0.8, abs=error(0.8, asked))
    assert kept / asked == pytest.approx(0.1, abs=error(0.1, asked))


def test_every_chunk_comes_once_an_epoch_in_batches_within_the_budget(masked):
    data = masked(tokens=2000)
    for chunks, loader in ((data.train, data.train_dataloader()), (data.tuning, data.val_dataloader())):
        read = []
        for batch in loader:
            n_chunks, width = batch["input_ids"].shape
            assert width % 8 == 0 and (n_chunks * width <= 2000 or n_chunks == 1)
            for row, valid in zip(original(batch), batch["attention_mask"].bool(), strict=True):
                read.append(tuple(row[valid].tolist()))
        assert sorted(read) == sorted(tuple(chunks[i].tolist()) for i in range(len(chunks)))


def test_little_of_a_batch_is_padding(masked):
    valid = torch.cat([batch["attention_mask"].flatten() for batch in masked(tokens=2000).train_dataloader()])
    assert 1 - valid.float().mean() < 0.08


def test_masks_are_new_every_epoch_and_the_same_for_the_same_seed_wherever_reading_begins(masked):
    loader, again = masked().train_dataloader(), masked().train_dataloader()
    first, second = list(loader), list(loader)
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0]["labels"].flatten()[:200], second[0]["labels"].flatten()[:200])
    late = masked().train_dataloader()
    late.load_state_dict({"epoch": 1, "position": 3})
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(second[3:], late, strict=True))
    other = masked(seed=1).train_dataloader()
    assert not torch.equal(next(iter(other))["labels"].flatten()[:200], first[0]["labels"].flatten()[:200])


def test_the_masks_of_the_tuning_notes_are_the_same_in_every_pass(masked):
    loader = masked().val_dataloader()
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(list(loader), list(loader), strict=True))


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"epochs": 0}, "pretrain.epochs: 0 is below 1"),
        ({"lr": 0.0}, "pretrain.lr: 0.0 is not above 0 and at most 10"),
        ({"lr": float("nan")}, "pretrain.lr: nan is not finite"),
        ({"tokens": 0}, "pretrain.tokens: 0 is below 1"),
        ({"mask_share": 0.0}, "pretrain.mask_share: 0.0 is not above 0 and below 1"),
        ({"mask_share": 1.0}, "pretrain.mask_share: 1.0 is not above 0 and below 1"),
        ({"warmup": 1.0}, "pretrain.warmup: 1.0 is not at least 0 and below 1"),
        ({"weight_decay": -0.1}, "pretrain.weight_decay: -0.1 is not between 0 and 10"),
        ({"seed": -1}, "pretrain.seed: -1 is not between 0 and 4294967295"),
        ({"layers": 0}, "pretrain.layers: 0 is not between 1 and 256"),
        ({"width": 0}, "pretrain.width: 0 is not between 1 and 65536"),
        ({"heads": 0}, "pretrain.heads: 0 is not between 1 and 65536"),
        ({"heads": 3}, "pretrain.heads: 3 does not divide pretrain.width 256"),
        ({"dropout": 1.0}, "pretrain.dropout: 1.0 is not at least 0 and below 1"),
    ],
    ids=str,
)
def test_an_option_that_cannot_work_is_named(option, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        Pretraining(**option)
