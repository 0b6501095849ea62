from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, gelu

from ehrdl.errors import ConfigError
from ehrdl.models.loss import masked_loss
from ehrdl.models.networks.committee import Committee, mean_member
from ehrdl.models.networks.members import MemberHead
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.models.series.window_summary import WindowSummary
from ehrdl.schema import REGRESSION, OutputSpec

NOTE = partial(NoteTransformer, width=16, layers=1, heads=2)
SMALL = {"members": 3, "width": 8}


@pytest.fixture
def series_spec(spec):
    return spec.only("series")


def test_each_member_is_a_network_of_its_own(spec):
    torch.manual_seed(0)
    head = MemberHead(spec, n_features=5, members=3, width=4, layers=2, dropout=0.5).eval()
    features = torch.randn(6, 5)
    for m in range(3):
        state = features
        for layer in head.layers:
            weight = layer.after.weight[m].unsqueeze(1) * layer.shared.weight * layer.before.weight[m]
            state = gelu(state @ weight.T + layer.bias.weight[m])
        expected = state @ head.weight[m] + head.bias.weight[m]
        assert torch.allclose(head(features)[:, m], expected, atol=1e-6)


def test_members_differ_and_start_near_the_prevalence(spec):
    torch.manual_seed(0)
    logits = MemberHead(spec, n_features=40, members=16, width=32, layers=2, dropout=0.0)(torch.randn(50, 40))
    assert logits.std(dim=1).min() > 0.001
    assert torch.sigmoid(logits).mean(dim=(0, 1)).tolist() == pytest.approx(list(spec.prevalence), rel=0.2)


def test_the_prediction_is_the_mean_probability_of_the_members(series_spec, random_batch):
    torch.manual_seed(0)
    network = Committee(series_spec, [WindowSummary, partial(SeriesGRU, hidden=8)], **SMALL).eval()
    batch = random_batch(7)
    members = network.members(batch)
    assert members.shape == (7, 6, 2)
    assert torch.allclose(torch.sigmoid(network(batch)), torch.sigmoid(members).mean(dim=1), atol=1e-6)


def test_extreme_members_have_a_finite_mean(spec):
    assert mean_member(torch.tensor([[[200.0, -200.0]], [[-200.0, 200.0]]]), spec).isfinite().all()


def test_the_loss_is_the_mean_over_members_of_what_is_known(series_spec, random_batch):
    torch.manual_seed(0)
    network = Committee(series_spec, **SMALL).eval()
    batch = random_batch(7)
    label = batch.label.clone()
    label[2, 1] = float("nan")
    logits = network.members(batch)
    known = [masked_loss(logits[:, m], label).item() for m in range(3)]
    assert network.loss(replace(batch, label=label)).item() == pytest.approx(sum(known) / 3, rel=1e-5)


def test_a_regression_output_is_the_mean_of_the_members_values(series_spec, random_batch):
    outputs = (OutputSpec("death"), OutputSpec("days", REGRESSION))
    spec = replace(series_spec, outputs=outputs, prevalence=(0.1, 0.5), label_mean=(0.0, 4.0), label_std=(1.0, 3.0))
    torch.manual_seed(0)
    network, batch = Committee(spec, **SMALL).eval(), random_batch(4)
    assert torch.allclose(network(batch)[:, 1], network.members(batch)[..., 1].mean(dim=1))


@pytest.mark.parametrize("modalities", [("note", "series"), ("note",), ("series",), ()])
def test_it_reads_what_the_data_have(spec, random_batch, modalities):
    torch.manual_seed(0)
    network = Committee(spec.only(*modalities), [partial(SeriesGRU, hidden=8)], NOTE, **SMALL)
    assert len(network.encoders) == len(modalities)
    batch = random_batch(10)
    assert network(batch).shape == (10, 2)
    network.loss(batch).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_it_learns_an_interaction_that_no_single_number_shows(series_spec, make_batch):
    torch.manual_seed(0)
    draw = torch.rand(256, 2)
    facts = [[(-9.0, 0, 132.0 + 16.0 * a), (-3.0, 1, 2.0 * b)] for a, b in draw.tolist()]
    both = (draw > 0.5).sum(dim=1) == 1
    batch = make_batch(facts)
    batch = replace(batch, label=both.float().unsqueeze(1).expand(-1, 2))
    network = Committee(series_spec, members=4, width=32, dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        network.loss(batch).backward()
        optimizer.step()
    loss = binary_cross_entropy_with_logits(network.eval()(batch), batch.label)
    assert loss < 0.2  # chance is 0.69


def test_sizes_that_cannot_work_are_refused(series_spec):
    with pytest.raises(ConfigError, match="members: 0 is not between 1"):
        Committee(series_spec, members=0)
    with pytest.raises(ConfigError, match=r"series: \[\] is empty"):
        Committee(series_spec, [])
