"""Encoders that guess hidden words: the loss is that of transformers, whatever the family; what cannot work is said."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LongformerConfig,
    LongformerForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from ehrdl.errors import ConfigError
from ehrdl.models.notes.masked import fit_vocabulary, guess, load_masked, masked_from_scratch

SIZE = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
#: RoBERTa counts positions from the padding's on.
FAMILIES = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZE, max_position_embeddings=32)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SIZE, max_position_embeddings=34, pad_token_id=1)),
    "longformer": lambda: LongformerForMaskedLM(
        LongformerConfig(**SIZE, max_position_embeddings=34, attention_window=8, pad_token_id=1)
    ),
    "modernbert": lambda: ModernBertForMaskedLM(
        ModernBertConfig(
            **SIZE,
            max_position_embeddings=32,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=3,
            cls_token_id=2,
            sep_token_id=3,
        )
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_the_guesses_is_that_of_transformers(family):
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    tokens = torch.randint(5, 60, (4, 16))
    valid = (torch.arange(16) < torch.tensor([[16], [9], [12], [3]])).long()
    tokens[valid == 0] = 1
    asked = (torch.rand(4, 16) < 0.4) & valid.bool()
    label = torch.randint(5, 60, (4, 16))
    expected = model(input_ids=tokens, attention_mask=valid, labels=label.where(asked, -100)).loss
    logits = guess(model, tokens, valid, asked)
    assert logits.shape == (int(asked.sum()), 60)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, label[asked]), expected)
    assert model(input_ids=tokens, attention_mask=valid).logits.shape == (4, 16, 60)  # nothing of it stays


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_reads_as_many_tokens_as_it_has_positions_for(family, tmp_path):
    FAMILIES[family]().save_pretrained(tmp_path)
    model = load_masked(str(tmp_path), 32)
    assert model.config.model_type == family
    assert all(module.training for module in model.modules())  # with dropout
    with pytest.raises(ConfigError, match=r"data\.notes\.chunk_tokens: 33 is more than the 32 tokens that --from "):
        load_masked(str(tmp_path), 33)


def test_weights_that_were_saved_in_half_precision_are_trained_in_full(tmp_path):
    FAMILIES["bert"]().half().save_pretrained(tmp_path)
    assert {weight.dtype for weight in load_masked(str(tmp_path), 32).parameters()} == {torch.float32}


def test_an_encoder_without_a_layer_to_guess_with_gets_one_and_a_line_says_so(tmp_path, capsys):
    FAMILIES["bert"]().bert.save_pretrained(tmp_path)
    capsys.readouterr()
    model = load_masked(str(tmp_path), 32)
    assert model(torch.tensor([[5, 6]])).logits.shape == (1, 2, 60)
    err = capsys.readouterr().err
    assert err == f"--from {tmp_path}: has no layer that guesses words; a new one starts from scratch\n"


def test_a_model_that_is_no_encoder_and_one_that_lacks_weights_are_refused(tmp_path):
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=10)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ConfigError, match="gpt2: cannot be loaded as an encoder that guesses words"):
        load_masked(str(tmp_path / "gpt2"), 8)
    model = FAMILIES["bert"]()
    model.save_pretrained(tmp_path / "bert")
    model.config.num_hidden_layers = 2
    model.config.save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"bert: lacks 16 weights of its encoder, such as bert\.encoder\.layer\.1\."):
        load_masked(str(tmp_path / "bert"), 8)
    with pytest.raises(ConfigError, match="empty: cannot be loaded"):
        (tmp_path / "empty").mkdir()
        load_masked(str(tmp_path / "empty"), 8)


def test_weights_that_are_a_pickle_are_refused(tmp_path):
    model = FAMILIES["bert"]()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_masked(str(tmp_path), 8)


def test_tokens_that_are_new_to_a_model_get_embeddings_and_the_others_keep_theirs(capsys):
    model = masked_from_scratch(30, 0, 16, layers=1, width=8, heads=2, dropout=0.0)
    before = model.get_input_embeddings().weight.detach().clone()
    fit_vocabulary(model, 30)
    assert capsys.readouterr().err == ""
    fit_vocabulary(model, 32)
    assert capsys.readouterr().err == "encoder: 2 tokens of the tokenizer are new to it\n"
    assert model.get_input_embeddings().weight.shape == (32, 8) and model.config.vocab_size == 32
    assert torch.equal(model.get_input_embeddings().weight[:30], before)
    assert model(torch.tensor([[31]])).logits.shape == (1, 1, 32)
