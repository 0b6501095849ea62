import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

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


def random_logits(seed=0):
    made = torch.Generator().manual_seed(seed)
    label = (torch.rand(40, 2, generator=made) < 0.2).float()
    label[::7, 0] = NAN
    return torch.randn(40, 2, generator=made, requires_grad=True), label


def test_weighted_loss_is_the_cross_entropy_with_the_odds_of_not_having_the_outcome(spec):
    logits, label = random_logits()
    reweighted = spec.trained(imbalance="weighted")
    assert reweighted.pos_weight == pytest.approx((0.88 / 0.12, 0.97 / 0.03))
    known = ~label.isnan()
    weight = torch.where(label == 1, torch.tensor([0.88 / 0.12, 0.97 / 0.03]), 1.0)
    prob = logits.sigmoid()
    each = -torch.where(label == 1, prob, 1 - prob).log() * weight
    expected = each[known].sum() / known.sum()
    assert masked_loss(logits, label, reweighted).item() == pytest.approx(expected.item(), rel=1e-5)


def test_focal_loss_is_its_formula_and_sends_finite_gradients(spec):
    """Lin et al., ICCV 2017, equation 4, with gamma = 2."""
    logits, label = random_logits()
    known = ~label.isnan()
    prob = logits.sigmoid()
    right = torch.where(label == 1, prob, 1 - prob)
    expected = (-((1 - right) ** 2) * right.log())[known].mean()
    focal = spec.trained(imbalance="focal")
    assert masked_loss(logits, label, focal).item() == pytest.approx(expected.item(), rel=1e-5)
    extreme = torch.tensor([[200.0, -200.0], [0.0, 0.0]], requires_grad=True)
    masked_loss(extreme, torch.tensor([[1.0, 1.0], [NAN, 0.0]]), focal).backward()
    assert extreme.grad.isfinite().all() and extreme.grad[1, 0] == 0
    assert extreme.grad[0, 0].abs() < 1e-6 < extreme.grad[0, 1].abs()


@pytest.mark.parametrize("imbalance", ["weighted", "focal"])
def test_a_number_keeps_its_loss_beside_a_reweighted_outcome(mixed, imbalance):
    label = torch.tensor([[NAN, 500.0], [NAN, -80.0]])
    logits = torch.tensor([[0.3, 1.0], [-0.2, 2.0]], requires_grad=True)
    loss = masked_loss(logits, label, mixed.trained(imbalance=imbalance))
    assert loss.item() == pytest.approx(masked_loss(logits, label, mixed).item())
    loss.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("imbalance", "starts"), [("weighted", 0.5), ("balanced", 0.5), ("focal", 0.12)])
def test_head_starts_at_the_prevalence_that_the_loss_sees(spec, imbalance, starts):
    bias = LinearHead(spec.trained(imbalance=imbalance), 4).logits.bias
    assert bias.sigmoid()[0].item() == pytest.approx(starts, rel=1e-5)


def test_what_the_loss_does_about_rare_outcomes_is_no_fact_about_the_data(spec):
    assert spec.trained(imbalance="weighted").to_dict().keys() == spec.to_dict().keys()
    assert not {"pos_weight", "focal"} & spec.to_dict().keys()
    assert spec.trained() is spec


def test_a_weighted_linear_network_is_scikit_learns_weighted_logistic_regression(spec):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2))
    label = (rng.random(4000) < 1 / (1 + np.exp(3 - x @ [0.8, -0.5]))).astype(np.float32)
    share = float(label.mean())
    one = torch.nn.Linear(2, 1).double()
    weighted = replace(spec, outputs=spec.outputs[:1], prevalence=(share,)).trained(imbalance="weighted")
    optimiser = torch.optim.LBFGS(one.parameters(), max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = masked_loss(one(torch.tensor(x)), torch.tensor(label)[:, None], weighted)
        loss.backward()
        return loss

    optimiser.step(closure)
    expected = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-8, max_iter=1000).fit(x, label)
    np.testing.assert_allclose(one.weight.detach().numpy(), expected.coef_, atol=2e-3)
    assert one.bias.item() == pytest.approx(expected.intercept_[0], abs=2e-3)
