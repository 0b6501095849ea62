"""Word evidence: which phrases count, once a chunk, less with age, and beside the encoders of a network."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.fusion.cross_attention import CrossAttentionFusion
from ehrdl.models.fusion.simple import ConcatFusion, GatedFusion, LateFusion
from ehrdl.models.loss import masked_bce
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.notes.words import WordEvidence, hashed_phrases


def test_a_phrase_is_counted_once_a_chunk_and_padding_never() -> None:
    tokens = torch.tensor([[5, 6, 5, 6, 0, 0], [7, 0, 0, 0, 0, 0]])
    valid = torch.tensor([[True] * 4 + [False] * 2, [True] + [False] * 5])
    phrases = hashed_phrases(tokens, valid, 2, 10**6)
    # 5, 6, "5 6" and "6 5"; then 7 alone
    assert (phrases > 0).sum(dim=1).tolist() == [4, 1]
    assert len(phrases.unique()) == 6


def test_the_order_of_two_words_makes_another_phrase() -> None:
    valid = torch.ones(2, 2, dtype=torch.bool)
    phrases = hashed_phrases(torch.tensor([[5, 6], [6, 5]]), valid, 2, 10**6)
    assert len(set(phrases[0].tolist()) & set(phrases[1].tolist())) == 2  # the two words, not the pairs


def test_an_old_note_counts_less_than_a_new_one(spec) -> None:
    words = WordEvidence(spec)
    weight = words.age_weight(torch.zeros(4, dtype=torch.long), torch.tensor([0.0, 24.0, 48.0, 1e4]))
    assert weight.tolist() == pytest.approx([0.982, 0.982, 0.5, 0.047], abs=1e-3)


def test_a_sample_without_a_note_gets_no_word_evidence(spec, random_batch) -> None:
    batch = random_batch(10)
    words = WordEvidence(spec)
    torch.nn.init.constant_(words.weight.weight, 1.0)
    features, present = words(batch)
    added = words.logits(features)
    has_note = torch.zeros(batch.batch_size + 1, dtype=torch.bool)
    has_note[batch.link_sample] = True
    assert added.shape == (batch.batch_size, len(spec.outputs))
    assert ((added != 0).any(dim=1) == has_note[:-1]).all() and torch.equal(present, has_note[:-1])


def test_words_are_added_to_the_logits_and_fitted_with_them(spec, random_batch) -> None:
    batch = random_batch(10)
    model = MultimodalModel(spec, words=functools.partial(WordEvidence, penalty=2.0)).eval()
    before = model(batch)
    assert model.words.penalty() == 0
    torch.nn.init.constant_(model.words.weight.weight, 0.1)
    torch.testing.assert_close(model(batch), before + model.words.logits(model.words(batch)[0]))
    n_weights = model.words.weight.weight.numel()
    torch.testing.assert_close(model.words.penalty(), torch.tensor(n_weights * 0.2))
    model.loss(batch).backward()
    assert model.words.weight.weight.grad.abs().sum() > 0
    assert model.words.age_curve.weight.grad.abs().sum() > 0


def test_words_alone_may_read_the_notes(spec, random_batch) -> None:
    batch = random_batch(10)
    model = MultimodalModel(spec, note=None, words=WordEvidence).eval()
    assert model.note is None
    before = model(batch)
    torch.testing.assert_close(before, model.logits(model.encode(batch)))
    torch.nn.init.constant_(model.words.weight.weight, 0.1)
    torch.testing.assert_close(model(batch), before + model.words.logits(model.words(batch)[0]))
    model.loss(batch).backward()
    assert model.words.weight.weight.grad.abs().sum() > 0


def test_words_that_interact_say_something_else_where_the_series_is_another(spec, random_batch) -> None:
    torch.manual_seed(0)
    batch = random_batch(10)
    other = dataclasses.replace(batch, value=batch.value * 1.1)
    makers = (None, NoteTransformer)
    for note, interactions in itertools.product(makers, (0, 3)):
        words = functools.partial(WordEvidence, interactions=interactions)
        model = MultimodalModel(spec, note=note, words=words).eval()
        silent = [model(x) for x in (batch, other)]
        torch.nn.init.normal_(model.words.weight.weight)
        if interactions:
            torch.nn.init.normal_(model.words.vector.weight)
        said = [model(x) - before for x, before in zip((batch, other), silent, strict=True)]
        assert torch.allclose(*said, atol=1e-4) == (interactions == 0)
        model.loss(batch).backward()
        assert interactions == 0 or model.words.vector.weight.grad.abs().sum() > 0


def test_an_absent_series_is_not_read_by_the_words_and_an_absent_note_says_nothing(spec, make_batch) -> None:
    torch.manual_seed(0)
    notes = [[([3, 4, 5], -1.0)], []]
    batch = make_batch([[], [(-3.0, 0, 139.0)]], notes)
    model = MultimodalModel(spec, note=None, words=functools.partial(WordEvidence, interactions=2)).eval()
    before = model(batch)
    torch.nn.init.normal_(model.words.vector.weight)
    with torch.no_grad():
        model.context.weight[:, model.series.width :] = 0.0
        model.context.bias[:] = 0.0
    assert torch.equal(model(batch), before)  # the first has no series to be read, the second no words to read it
    torch.nn.init.ones_(model.context.bias)
    assert ((model(batch) != before).any(dim=1)).tolist() == [True, False]


def test_vectors_start_at_nothing_and_a_strong_group_lasso_keeps_them_there(spec, random_batch) -> None:
    batch = random_batch(64)
    lengths = []
    for penalty in (10.0, 0.0):
        torch.manual_seed(0)
        words = functools.partial(WordEvidence, interactions=2, interaction_penalty=penalty)
        model = MultimodalModel(spec, note=None, words=words)
        assert model.words.vector.weight.abs().sum() == 0
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
        lengths.append(model.words.vector.weight.norm(dim=1).max().item())
    assert lengths[0] < 0.05 < lengths[1]


def test_words_alone_go_with_every_fusion(spec, random_batch) -> None:
    batch = random_batch(10)
    for fusion in (ConcatFusion, CrossAttentionFusion, GatedFusion, LateFusion):
        model = MultimodalModel(spec, note=None, fusion=fusion, words=WordEvidence).eval()
        assert model(batch).isfinite().all()
        assert MultimodalModel(spec.only("note"), note=None, fusion=fusion, words=WordEvidence)(batch).isfinite().all()


def test_notes_that_nothing_reads_are_refused(spec) -> None:
    with pytest.raises(ConfigError, match="nothing reads the notes"):
        MultimodalModel(spec, note=None)
    assert MultimodalModel(spec.only("series"), note=None).note is None


def test_the_lasso_keeps_weights_near_nothing(spec, random_batch) -> None:
    batch = random_batch(64)
    strong, none = (WordEvidence(spec, penalty=penalty) for penalty in (1.0, 0.0))
    for words in (strong, none):
        optimizer = torch.optim.Adam(words.parameters(), lr=0.01)
        for _ in range(40):
            loss = masked_bce(words.logits(words(batch)[0]), batch.label) + words.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    largest = [words.weight.weight.abs().max().item() for words in (strong, none)]
    assert largest[0] < 0.05 < largest[1]


def test_words_are_left_out_where_no_notes_are_read(spec) -> None:
    assert MultimodalModel(spec.only("series"), words=WordEvidence).words is None
    assert MultimodalModel(spec).words is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("phrase", 0), ("buckets", 1), ("penalty", -1.0), ("interactions", -1), ("interaction_penalty", -0.1)],
)
def test_an_option_that_cannot_be_is_named(spec, option, value) -> None:
    with pytest.raises(ConfigError, match=rf"WordEvidence\.{option}: {value}"):
        WordEvidence(spec, **{option: value})


def test_words_without_notes_are_refused(spec) -> None:
    with pytest.raises(ConfigError, match="no notes"):
        WordEvidence(dataclasses.replace(spec, vocab_size=0))
