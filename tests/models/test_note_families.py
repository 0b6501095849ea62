"""Encoders of every family, read from a folder: shapes, limits, and a sample that sees nothing but its own notes."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    ConvBertConfig,
    FNetConfig,
    GPT2Config,
    GPT2Model,
)

from ehrdl.errors import ConfigError
from ehrdl.models.notes.backbone import encode, position_limit, position_offset
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.pretrained import Pretrained

LENGTHS = [64, 9, 33, 1, 40, 64, 17, 5]


@pytest.fixture
def encoder(family):
    torch.manual_seed(0)
    return NoteTransformer(family.spec, pretrained=family.folder, width=16, heads=2).eval()


def test_features_have_the_width_that_was_asked_for(encoder, family):
    features, present = encoder(family.batch(LENGTHS))
    assert features.shape == (8, 16) and present.all() and features.isfinite().all()


def test_every_weight_of_the_encoder_is_loaded_and_gets_a_gradient(encoder, family):
    encoder(family.batch(LENGTHS))[0].square().sum().backward()
    weights = {name: weight for name, weight in encoder.named_parameters() if not name.startswith("link_pool")}
    assert {name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()} == set()
    assert len(encoder.pretrained_parameters()) == len(list(encoder.encoder.parameters()))


def test_a_note_reads_the_same_whatever_stands_beside_it(encoder, family):
    batch = family.batch(LENGTHS)
    together = encoder(batch)[0]
    for i, length in enumerate(LENGTHS):
        alone = family.batch([length] * 8)
        alone = replace(alone, tokens=batch.tokens[i : i + 1, :length].repeat(8, 1))
        assert torch.allclose(encoder(alone)[0][0], together[i], atol=1e-5)


def test_what_stands_in_padding_has_no_influence(encoder, family):
    batch = family.batch(LENGTHS)
    other = replace(batch, tokens=torch.where(batch.token_valid, batch.tokens, 7))
    assert torch.allclose(encoder(batch)[0], encoder(other)[0], atol=1e-6)


def test_states_are_those_of_token_ids_given_to_the_model_itself(encoder, family):
    """The family's own way in: ids, no positions. (Longformer's own way has no global token; compared below.)"""
    if family.name == "longformer":
        pytest.skip("its first token attends globally; the next test holds it")
    batch = family.batch([64] * 8)
    own = encoder.encoder(input_ids=batch.tokens, attention_mask=batch.token_valid.long()).last_hidden_state
    words = encoder.embeddings()(batch.tokens)
    assert torch.allclose(encode(encoder.encoder, words, batch.token_valid), own, atol=1e-5)


def test_longformers_first_token_attends_to_the_whole_note(families):
    family = families["longformer"]
    encoder = NoteTransformer(family.spec, pretrained=family.folder, width=16, heads=2).eval()
    batch = family.batch([60] * 8)  # a multiple of the window, so that the family pads nothing by itself
    first = torch.zeros_like(batch.tokens).index_fill(1, torch.tensor([0]), 1)
    own = encoder.encoder(input_ids=batch.tokens, attention_mask=torch.ones_like(first), global_attention_mask=first)
    words = encoder.embeddings()(batch.tokens)
    assert torch.allclose(encode(encoder.encoder, words, batch.token_valid), own.last_hidden_state, atol=1e-5)


def test_one_long_sequence_may_fill_every_position_and_not_one_more(family):
    assert position_limit(NoteTransformer(family.spec, pretrained=family.folder, heads=2).encoder) == 64
    with pytest.raises(ConfigError, match="chunk_tokens of 64, but the data need 65"):
        NoteTransformer(replace(family.spec, chunk_tokens=65), pretrained=family.folder, heads=2)


def test_roberta_and_its_heirs_count_positions_from_behind_the_padding(families):
    offsets = {
        name: position_offset(NoteTransformer(family.spec, pretrained=family.folder, heads=2).encoder)
        for name, family in families.items()
    }
    assert offsets == {"bert": 0, "roberta": 2, "modernbert": 0, "longformer": 2}


@pytest.mark.parametrize("changes", [{"vocab_size": 30}, {"pad_id": 3}], ids=str)
def test_tokens_of_another_tokenizer_are_refused(family, changes):
    with pytest.raises(ConfigError, match=r"set data\.notes\.tokenizer to the encoder's own"):
        NoteTransformer(replace(family.spec, **changes), pretrained=family.folder, heads=2)


@pytest.mark.parametrize("kind", ["bart", "gpt2", "decoder"])
def test_what_is_no_encoder_is_refused_in_one_line(spec, tmp_path, kind):
    tiny = {"vocab_size": 50}
    if kind == "bart":
        sizes = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "encoder_attention_heads": 2}
        model = BartModel(BartConfig(**tiny, **sizes, decoder_attention_heads=2))
    elif kind == "gpt2":
        model = GPT2Model(GPT2Config(**tiny, n_embd=16, n_layer=1, n_head=2))
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        model = BertModel(BertConfig(**tiny, **sizes, is_decoder=True))
    model.save_pretrained(tmp_path / kind)
    with pytest.raises(ConfigError, match=r"no bidirectional encoder|an encoder with a decoder") as error:
        NoteTransformer(spec, pretrained=str(tmp_path / kind))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [ConvBertConfig, FNetConfig])
def test_a_family_that_reads_the_padding_is_refused(spec, tmp_path, kind):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 16}
    torch.manual_seed(0)
    model = AutoModel.from_config(kind(vocab_size=50, pad_token_id=0, **sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="reads the padding behind a note"):
        NoteTransformer(spec, pretrained=str(tmp_path))


def test_a_folder_that_lacks_weights_is_refused_rather_than_filled_with_random_ones(families, tmp_path):
    from safetensors.torch import load_file, save_file

    family = families["bert"]
    BertModel.from_pretrained(family.folder).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 of the encoder's weights, such as encoder\.layer\.1"):
        NoteTransformer(family.spec, pretrained=str(tmp_path), heads=2)


def test_half_precision_weights_are_tuned_in_single(families, tmp_path):
    family = families["bert"]
    BertModel.from_pretrained(family.folder).bfloat16().save_pretrained(tmp_path)
    encoder = NoteTransformer(family.spec, pretrained=str(tmp_path), heads=2)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


def test_the_true_pretrained_encoder_gives_the_similarities_that_its_makers_publish(minilm):
    """Of the mean of the states: the numbers of the model's page on the Hugging Face hub."""
    tokenizer = AutoTokenizer.from_pretrained(minilm.folder)
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    found = tokenizer(texts, padding=True, return_tensors="pt")
    encoder = NoteTransformer(minilm.spec, pretrained=minilm.folder).eval()
    valid = found["attention_mask"].bool()
    states = encoder.states(found["input_ids"], valid, torch.zeros_like(valid))
    mean = (states * valid.unsqueeze(-1)).sum(dim=1) / valid.sum(dim=1, keepdim=True)
    assert torch.cosine_similarity(mean[:1], mean[1:]).tolist() == pytest.approx([0.6946, 0.9429, 0.2569], abs=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tune": "some"}, "tune: 'some' is not one of full, lora, frozen"),
        ({"padding": "none"}, "padding: 'none' is not one of groups, packed"),
        ({"tune": "lora", "lora_rank": 0}, "lora_rank: 0 is not between 1"),
        ({"tune": "frozen", "gradient_checkpointing": True}, "gradient_checkpointing: tune frozen"),
        ({"attention": "slow"}, "cannot be loaded: .*slow"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_named(families, options, reason):
    family = families["bert"]
    with pytest.raises(ConfigError, match=reason) as error:
        NoteTransformer(family.spec, heads=2, pretrained=Pretrained(family.folder, **options))
    assert "\n" not in str(error.value)
