import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertModel

from ehrdl.errors import ConfigError
from ehrdl.models.notes.pool import LinkPool, softmax_or_nothing
from ehrdl.models.notes.transformer import NoteTransformer

NOTES = [[([2, 7, 8, 3], -1.0), ([2, 9, 3], -30.0)], [], [([2, 5, 5, 5, 6, 3], -2.0)]]
FACTS = [[], [], []]


@pytest.fixture
def encoder(spec):
    torch.manual_seed(0)
    return NoteTransformer(spec, width=16, heads=2).eval()


def test_softmax_or_nothing_matches_one_worked_out_by_hand():
    score = torch.tensor([0.0, 5.0, 0.6931472, -1.0])  # row 1 holds e^0 = 1 and e^ln 2 = 2, beside 1 for nothing
    weight = softmax_or_nothing(score, torch.tensor([1, 0, 1, 2]), n_rows=4)
    by_hand = [1 / 4, math.exp(5) / (1 + math.exp(5)), 2 / 4, math.exp(-1) / (1 + math.exp(-1))]
    assert weight.tolist() == pytest.approx(by_hand)


def test_softmax_or_nothing_stays_finite_for_extreme_scores():
    weight = softmax_or_nothing(torch.tensor([1e4, -1e4, 1e4, -1e4]), torch.tensor([0, 0, 0, 1]), n_rows=2)
    assert weight.tolist() == [0.5, 0.0, 0.5, 0.0]


def test_links_are_pooled_into_their_samples_and_fillers_dropped(make_batch):
    batch = make_batch(FACTS, NOTES)
    pool = _start()
    chunks = torch.randn(batch.tokens.shape[0], 4)
    pooled, present = pool(chunks, batch)
    assert present.tolist() == [True, False, True]
    of = math.exp(6)  # all are of this stay
    first, second = of / 2, of / 31  # notes of 1 and 30 hours ago
    assert torch.allclose(pooled[0], (chunks[0] * first + chunks[1] * second) / (1 + first + second), atol=1e-6)
    assert pooled[1].tolist() == [0.0] * 4
    assert torch.allclose(pooled[2], chunks[2] * (of / 3) / (1 + of / 3))


def test_notes_of_earlier_stays_alone_say_little(make_batch):
    notes = [[([2, 7, 3], -50.0)], [([2, 7, 3], -95.0)], [([2, 7, 3], -97.0)], [([2, 7, 3], -50.0), ([2, 9, 3], -97.0)]]
    batch = make_batch([[], [], [], []], notes)
    batch = replace(batch, link_own_stay=batch.link_own_stay & (batch.link_hours > -96))
    _, weight = _start().weigh(torch.zeros(batch.tokens.shape[0], 4), batch)
    own, old = math.exp(6), math.exp(2)
    assert weight[0].item() == pytest.approx(own / 51 / (1 + own / 51), rel=1e-4)
    assert weight[1].item() == pytest.approx(own / 96 / (1 + own / 96), rel=1e-4)
    assert weight[2].item() == pytest.approx(old / 98 / (1 + old / 98), rel=1e-4)
    both = weight[batch.link_sample == 3]
    assert sorted(both.tolist())[0] == pytest.approx(old / 98 / (1 + own / 51 + old / 98), rel=1e-4)


def _start():
    """A pool to which what is said is unseen: only what it starts with weighs."""
    pool = LinkPool(4)
    for parameter in [*pool.score.parameters(), *pool.age.parameters()]:
        torch.nn.init.zeros_(parameter)
    return pool


def test_sample_without_note_is_zero_and_absent(encoder, make_batch):
    features, present = encoder(make_batch(FACTS, NOTES))
    assert features.shape == (3, 16)
    assert present.tolist() == [True, False, True]
    assert features[1].abs().sum() == 0


def test_batch_of_fillers_alone_works(encoder, make_batch):
    features, present = encoder(make_batch(FACTS))
    assert not present.any()
    assert features.abs().sum() == 0


def test_filler_chunks_and_padding_have_no_influence(encoder, make_batch):
    plain, filled = make_batch(FACTS, NOTES), make_batch(FACTS, NOTES, n_fillers=16, n_padding=5)
    filled = replace(filled, tokens=torch.where(filled.token_valid, filled.tokens, 31))
    assert torch.allclose(encoder(plain)[0], encoder(filled)[0], atol=1e-6)


def test_order_of_chunks_and_links_has_no_influence(encoder, make_batch):
    batch = make_batch(FACTS, NOTES)
    order = torch.randperm(batch.tokens.shape[0], generator=torch.Generator().manual_seed(1))
    links = torch.randperm(len(batch.link_chunk), generator=torch.Generator().manual_seed(2))
    shuffled = replace(
        batch,
        tokens=batch.tokens[order],
        token_valid=batch.token_valid[order],
        link_chunk=order.argsort()[batch.link_chunk][links],
        link_sample=batch.link_sample[links],
        link_hours=batch.link_hours[links],
        link_own_stay=batch.link_own_stay[links],
    )
    assert torch.allclose(encoder(batch)[0], encoder(shuffled)[0], atol=1e-6)


def test_chunk_that_two_samples_read_counts_for_both(encoder, make_batch):
    batch = make_batch(FACTS, NOTES)
    shared = replace(
        batch,
        link_chunk=torch.cat([batch.link_chunk, torch.tensor([2])]),
        link_sample=torch.cat([batch.link_sample, torch.tensor([1])]),
        link_hours=torch.cat([batch.link_hours, torch.tensor([-2.0])]),
        link_own_stay=torch.cat([batch.link_own_stay, torch.tensor([True])]),
    )
    features, present = encoder(shared)
    assert present.tolist() == [True, True, True]
    assert torch.allclose(features[1], features[2], atol=1e-6)


def test_age_of_a_note_matters(encoder, make_batch):
    older = [[([2, 7, 8, 3], -1.0), ([2, 9, 3], -3000.0)], [], NOTES[2]]
    assert not torch.allclose(encoder(make_batch(FACTS, NOTES))[0][0], encoder(make_batch(FACTS, older))[0][0])


def test_order_of_words_matters(encoder, make_batch):
    swapped = [[([2, 8, 7, 3], -1.0), ([2, 9, 3], -30.0)], [], NOTES[2]]
    assert not torch.allclose(encoder(make_batch(FACTS, NOTES))[0][0], encoder(make_batch(FACTS, swapped))[0][0])


def test_attention_is_the_fused_one(encoder):
    assert encoder.encoder.config._attn_implementation == "sdpa"


@pytest.fixture
def folder(tmp_path):
    config = BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_pretrained_encoder_of_any_width_is_read_from_a_folder(spec, make_batch, folder):
    encoder = NoteTransformer(spec, pretrained=str(folder), width=16, heads=2)
    features, _ = encoder(make_batch(FACTS, NOTES))
    assert features.shape == (3, 16)
    features.sum().backward()
    reached = {name for name, weight in encoder.named_parameters() if weight.grad is not None}
    assert reached == {name for name, _ in encoder.named_parameters()}
    assert len(encoder.pretrained_parameters()) == len(list(encoder.encoder.parameters()))


def test_missing_pretrained_encoder_is_one_line_that_names_it(spec, tmp_path):
    with pytest.raises(ConfigError, match="no_such_folder") as error:
        NoteTransformer(spec, pretrained=str(tmp_path / "no_such_folder"))
    assert "\n" not in str(error.value)


def test_weights_that_are_not_safetensors_are_refused(spec, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        NoteTransformer(spec, pretrained=str(folder))


def test_code_from_the_models_own_repository_is_refused(spec, folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "elsewhere", "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        NoteTransformer(spec, pretrained=str(folder))


@pytest.mark.parametrize(("field", "value"), [("vocab_size", 61), ("chunk_tokens", 33)])
def test_pretrained_encoder_that_is_too_small_for_the_data_is_refused(spec, folder, field, value):
    with pytest.raises(ConfigError, match=rf"{field} of \d+, but the data need {value}"):
        NoteTransformer(replace(spec, **{field: value}), pretrained=str(folder), heads=2)


def test_heads_that_do_not_divide_the_width_are_refused(spec, folder):
    with pytest.raises(ConfigError, match="heads 5"):
        NoteTransformer(spec, pretrained=str(folder), heads=5)
    with pytest.raises(ConfigError, match="heads 3"):
        NoteTransformer(spec, width=16, heads=3)


def test_data_without_notes_are_refused(spec):
    with pytest.raises(ConfigError, match="no notes"):
        NoteTransformer(replace(spec, vocab_size=0))


def test_attention_over_a_samples_chunks_sums_to_less_than_one(spec, random_batch):
    torch.manual_seed(0)
    encoder, batch = NoteTransformer(spec, width=16, heads=2).eval(), random_batch(10)
    weight = encoder.attention(batch)
    assert weight.shape == batch.link_chunk.shape and (weight > 0).all()
    total = torch.zeros(11).index_add(0, batch.link_sample, weight)
    has_note = torch.zeros(11, dtype=torch.bool).index_fill(0, batch.link_sample, True)
    assert (total[has_note] < 1).all() and (total[~has_note] == 0).all()


def test_the_kind_of_a_note_counts_from_nothing_on_and_is_learned(spec, make_batch):
    batch = make_batch([[], []], [[([1, 2, 3], -5.0), ([4, 5], -1.0)], [([1, 2, 3], -5.0)]])
    told = replace(batch, kind=torch.tensor([1, 2, 2, 0, 0, 0, 0, 0]))
    known = replace(spec, note_kinds=("other", "discharge//DS", "radiology//RR"))
    encoders = []
    for one in (spec, known):
        torch.manual_seed(0)
        encoders.append(NoteTransformer(one, width=8, heads=2).eval())
    plain, kinds = encoders
    assert kinds(told)[0].equal(plain(batch)[0])
    kinds(told)[0].square().sum().backward()
    assert (kinds.kinds.weight.grad.abs().sum(dim=1) > 0).tolist() == [False, True, True]  # fillers are `other`
    with torch.no_grad():
        kinds.kinds.weight[1] = 1.0
    changed = (kinds(told)[0] - plain(batch)[0]).abs().sum(dim=1)
    assert changed[0] > 0 and changed[1] == 0
    assert set(kinds.state_dict()) - set(plain.state_dict()) == {"kinds.weight"}  # runs of old still load
