"""Length groups and packing: what they cost, and that documents in one row never see each other."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.notes.backbone import encode
from ehrdl.models.notes.packing import DEVICE_RUN_COST, RUN_COST, length_groups, pack, round_up
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.pretrained import Pretrained

LENGTHS = [64, 9, 33, 1, 40, 63, 17, 5]


@pytest.fixture(params=["bert", "roberta", "modernbert", "minilm"])
def family(request, families):
    return request.getfixturevalue("minilm") if request.param == "minilm" else families[request.param]


def _encoder(family, **options):
    torch.manual_seed(0)
    return NoteTransformer(family.spec, width=16, heads=2, pretrained=Pretrained(family.folder, **options)).eval()


def _states(encoder, batch):
    """The valid tokens' states of each chunk."""
    groups = encoder._encoded(batch.tokens, batch.token_valid)
    found = {}
    for rows, states, real in groups:
        found |= {int(row): states[i, real[i]] for i, row in enumerate(rows)}
    return [found[row] for row in range(len(found))]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_states_are_those_of_each_chunk_alone(family, attention):
    encoder, batch = _encoder(family, padding="packed", attention=attention), family.batch(LENGTHS)
    for state, tokens, length in zip(_states(encoder, batch), batch.tokens, LENGTHS, strict=True):
        words = encoder.embeddings()(tokens[:length]).unsqueeze(0)
        alone = encode(encoder.encoder, words, torch.ones(1, length, dtype=torch.bool))[0]
        assert torch.allclose(state, alone, atol=1e-5)


def test_packed_vectors_are_those_of_groups(family):
    batch = family.batch(LENGTHS)
    packed, grouped = _encoder(family, padding="packed"), _encoder(family)
    assert torch.allclose(packed(batch)[0], grouped(batch)[0], atol=1e-5)


def test_tokens_of_one_document_change_no_other_documents_vector(family):
    encoder, batch = _encoder(family, padding="packed"), family.batch(LENGTHS)
    other = family.batch(LENGTHS, seed=1)
    before = encoder.chunks(batch)
    for changed in range(len(LENGTHS)):
        tokens = batch.tokens.clone()
        tokens[changed] = other.tokens[changed]
        difference = (encoder.chunks(replace(batch, tokens=tokens)) - before).abs().amax(dim=1)
        assert (difference > 1e-6).tolist() == [row == changed for row in range(len(LENGTHS))]


def test_packing_without_the_mask_leaks(family):
    """What the test above would find: tokens side by side, each document with its own positions, and no mask."""
    encoder, batch = _encoder(family), family.batch([20, 20, 20, 20, 20, 20, 20, 20])

    def first(second):
        row = torch.cat([batch.tokens[0], second]).unsqueeze(0)
        position = torch.arange(20).repeat(2).unsqueeze(0) + (2 if family.name == "roberta" else 0)
        states = encoder.encoder(
            inputs_embeds=encoder.embeddings()(row), attention_mask=torch.ones_like(row), position_ids=position
        ).last_hidden_state
        return states[0, :20]

    assert not torch.allclose(first(batch.tokens[1]), first(batch.tokens[2]), atol=1e-3)


def test_one_mask_for_all_layers_of_modernbert_would_be_wrong(families):
    """transformers hands a mask (R, 1, P, P) to sliding layers as it is, which then see the whole document."""
    encoder = _encoder(families["modernbert"])
    batch = families["modernbert"].batch([64] * 8)
    words = encoder.embeddings()(batch.tokens)
    everything = torch.ones(8, 1, 64, 64, dtype=torch.bool)
    naive = encoder.encoder(inputs_embeds=words, attention_mask=everything).last_hidden_state
    assert not torch.allclose(naive, encode(encoder.encoder, words, batch.token_valid), atol=1e-2)


def test_packing_gives_the_gradients_of_groups(families):
    batch, gradients = families["modernbert"].batch(LENGTHS), []
    for padding in ("packed", "groups"):
        encoder = _encoder(families["modernbert"], padding=padding)
        encoder.chunks(batch).square().sum().backward()
        gradients.append([weight.grad for weight in encoder.encoder.parameters()])
    for packed, grouped in zip(*gradients, strict=True):
        assert torch.allclose(packed, grouped, atol=1e-4, rtol=1e-4)


def test_a_family_that_cannot_be_packed_is_refused(families):
    with pytest.raises(ConfigError, match="padding packed is not safe for longformer"):
        _encoder(families["longformer"], padding="packed")


def test_packed_rows_hold_every_chunk_once_without_overlap():
    draw = np.random.default_rng(0)
    for _ in range(20):
        lengths = draw.integers(1, 257, draw.integers(1, 200))
        found = pack(lengths)
        taken = np.zeros((found.n_rows, found.capacity), int)
        for row, start, length in zip(found.row, found.start, lengths, strict=True):
            taken[row, start : start + length] += 1
            assert start + length <= found.capacity
        assert taken.max() == 1 and taken.sum() == lengths.sum()
        assert found.n_rows <= 1.1 * lengths.sum() / found.capacity + 2


def test_groups_are_the_cheapest_of_all_ways_to_cut():
    draw = np.random.default_rng(1)

    def cost(groups):
        return sum(len(group) * round_up(lengths[group].max()) + 64 for group in groups)

    for _ in range(20):
        lengths = draw.integers(1, 300, 9)
        order = np.argsort(lengths, kind="stable")
        ways = [np.split(order, cuts) for n in range(9) for cuts in combinations(range(1, 9), n)]
        found = length_groups(lengths, run_cost=64)
        assert sorted(np.concatenate(found).tolist()) == list(range(9))
        assert cost(found) == min(map(cost, ways))


@pytest.mark.parametrize("cost", [RUN_COST, DEVICE_RUN_COST])
@pytest.mark.parametrize("longest", [254, 8190])
def test_little_of_a_batch_of_discharge_summaries_is_padding(longest, cost):
    """Discharge summaries of MIMIC: 2,267 tokens on average, standard deviation 914; in chunks of 256, or whole."""
    draw = np.random.default_rng(2)
    real = laid = 0
    for _ in range(50):
        notes = np.clip(draw.normal(2267, 914, 32), 50, 8190).astype(int)
        n = -(-notes // longest)
        rest = notes - (n - 1) * longest
        lengths = np.concatenate([np.full(int((n - 1).sum()), longest), rest]) + 2
        real += lengths.sum()
        laid += sum(len(group) * int(round_up(lengths[group].max())) for group in length_groups(lengths, cost))
    assert 1 - real / laid < 0.05
