import math
from dataclasses import replace

import pytest
import torch

from ehrdl.models.head import LinearHead, MlpHead, masked_bce

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
