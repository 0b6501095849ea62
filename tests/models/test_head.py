import math
from dataclasses import replace

import pytest
import torch

from ehrdl.models.head import LinearHead, MlpHead
from ehrdl.models.loss import masked_bce, masked_loss, predicted
from ehrdl.schema import OutputSpec

NAN = float("nan")


def test_loss_is_the_mean_over_known_labels_alone():
    logits = torch.tensor([[0.0, 2.0], [-1.0, 5.0]])
    label = torch.tensor([[1.0, 0.0], [0.0, NAN]])
    by_hand = (math.log(2) + math.log(1 + math.exp(2)) + math.log(1 + math.exp(-1))) / 3
    assert masked_bce(logits, label).item() == pytest.approx(by_hand, rel=1e-6)


def test_unknown_label_sends_no_gradient_to_its_logit():
    logits = torch.zeros(2, 1, requires_grad=True)
    masked_bce(logits, torch.tensor([[1.0], [NAN]])).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.5], [0.0]]


def test_loss_without_any_known_label_is_zero_and_still_has_a_graph():
    logits = torch.ones(2, 1, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 1), NAN))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_loss_of_half_precision_logits_is_computed_in_single_precision():
    assert masked_bce(torch.zeros(1, 1, dtype=torch.bfloat16), torch.ones(1, 1)).dtype == torch.float32


@pytest.mark.parametrize("head", [LinearHead, MlpHead])
def test_head_starts_at_the_training_prevalence_of_each_output(spec, head):
    made = head(spec, 8).eval()
    torch.nn.init.zeros_(made.logits.weight)
    prob = made(torch.randn(5, 8)).sigmoid()
    assert prob.shape == (5, 2)
    assert torch.allclose(prob, torch.tensor([0.12, 0.03]).expand(5, 2))


def test_head_of_an_outcome_without_positives_starts_finite(spec):
    assert LinearHead(replace(spec, prevalence=(0.0, 1.0)), 4).logits.bias.isfinite().all()


MIXED = (OutputSpec("death"), OutputSpec("days", "regression", "d"))


@pytest.fixture
def mixed(spec):
    """A binary output, and a regression output of mean 4 and standard deviation 2."""
    return replace(spec, outputs=MIXED, prevalence=(0.1, 0.5), label_mean=(0.0, 4.0), label_std=(1.0, 2.0))


def test_loss_of_a_number_is_half_the_squared_error_of_its_standardised_value(mixed):
    logits = torch.tensor([[0.0, 1.5], [2.0, -1.0], [9.0, 9.0]])
    label = torch.tensor([[1.0, 5.0], [NAN, 4.0], [NAN, NAN]])
    by_hand = (math.log(2) + (1.5 - 0.5) ** 2 / 2 + (-1.0 - 0.0) ** 2 / 2) / 3
    assert masked_loss(logits, label, mixed).item() == pytest.approx(by_hand, rel=1e-6)


def test_gradient_of_either_kind_is_prediction_minus_label_and_unknown_sends_none(mixed):
    logits = torch.tensor([[0.0, 1.5], [3.0, 0.5]], requires_grad=True)
    masked_loss(logits, torch.tensor([[1.0, 5.0], [NAN, NAN]]), mixed).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.25, 0.5], [0.0, 0.0]]


def test_loss_of_numbers_without_any_known_label_is_zero_and_still_has_a_graph(mixed):
    logits = torch.ones(2, 2, requires_grad=True)
    loss = masked_loss(logits, torch.full((2, 2), NAN), mixed)
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and logits.grad.abs().sum() == 0


def test_an_output_of_less_weight_counts_less_in_the_average(spec, mixed):
    logits = torch.tensor([[0.0, 1.5], [2.0, -1.0]])
    numbers = torch.tensor([[1.0, 5.0], [NAN, 4.0]])
    by_hand = (math.log(2) + 0.25 * ((1.5 - 0.5) ** 2 / 2 + (-1.0) ** 2 / 2)) / 1.5
    assert masked_loss(logits, numbers, replace(mixed, weights=(1.0, 0.25))).item() == pytest.approx(by_hand, rel=1e-6)
    labels = torch.tensor([[1.0, 1.0], [NAN, 0.0]])
    by_hand = (math.log(2) + 0.25 * (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(-1.0)))) / 1.5
    assert masked_loss(logits, labels, replace(spec, weights=(1.0, 0.25))).item() == pytest.approx(by_hand, rel=1e-6)


def test_loss_of_binary_outputs_is_the_cross_entropy_to_the_last_bit(spec):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 2, generator=draw)
    label = (torch.rand(64, 2, generator=draw) < 0.3).float().masked_fill(torch.rand(64, 2, generator=draw) < 0.2, NAN)
    assert torch.equal(masked_loss(logits, label, spec), masked_bce(logits, label))
    assert torch.equal(masked_loss(logits, label), masked_bce(logits, label))


def test_logits_become_probabilities_and_values_on_the_labels_own_scale(spec, mixed):
    logits = torch.tensor([[0.0, 1.5], [2.0, -1.0]])
    expected = torch.tensor([[0.5, 7.0], [torch.sigmoid(torch.tensor(2.0)), 2.0]])
    assert torch.equal(predicted(logits, mixed), expected)
    assert torch.equal(predicted(logits, spec), logits.sigmoid())
    assert predicted(logits.bfloat16(), mixed).dtype == torch.float32


@pytest.mark.parametrize("head", [LinearHead, MlpHead])
def test_head_starts_at_the_training_mean_of_a_number(mixed, head):
    assert head(mixed, 8).logits.bias.tolist() == [pytest.approx(math.log(0.1 / 0.9)), 0.0]
