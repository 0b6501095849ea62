"""Cross-attention against numbers worked out by hand, and the steps that it reads."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from ehrdl.errors import ConfigError
from ehrdl.models.base import Encoder, Steps
from ehrdl.models.fusion.cross_attention import CrossAttentionFusion, Listen, aged, readable
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.steps import lay_out
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU


def steps(states, valid, hours=None):
    states, valid = torch.tensor(states), torch.tensor(valid)
    hours = torch.zeros(valid.shape) if hours is None else torch.tensor(hours)
    return Steps(states[:, 0], valid.any(dim=1), states, hours, valid)


@pytest.fixture
def plain():
    """Attention of one head that reads the states as they are, and pools by their first number."""
    listen = Listen(own=2, other=2, width=2, heads=1, dropout=0.0).eval()
    eye = torch.eye(2)
    with torch.no_grad():
        for layer in (listen.own, listen.other):
            layer.weight.copy_(torch.cat([eye, torch.zeros(2, 1)], dim=1))
            layer.bias.zero_()
        listen.norms = nn.ModuleList(nn.Identity() for _ in range(3))
        listen.attention.in_proj_weight.copy_(eye.repeat(3, 1))
        listen.attention.out_proj.weight.copy_(eye)
        listen.score.weight.copy_(torch.tensor([[1.0, 0.0]]))
        listen.score.bias.zero_()
    return listen


BOTH = torch.tensor([True])


def test_what_is_heard_matches_a_computation_by_hand(plain):
    # Two bins, q and -q, hear two chunks, q and -q, with q = (1, -1); what is padding is far from both.
    own = steps([[[1.0, -1.0], [-1.0, 1.0], [50.0, 9.0]]], [[True, True, False]])
    other = steps([[[1.0, -1.0], [-1.0, 1.0], [70.0, 7.0]]], [[True, True, False]])
    # Scores are +-2 / sqrt(2), so each bin hears its like with tanh(sqrt(2)) and becomes (1 + tanh(sqrt(2))) times
    # itself; the pooling's scores are +- that.
    grown = 1 + math.tanh(math.sqrt(2))
    expected = grown * math.tanh(grown)
    assert plain(own, other, BOTH)[0].tolist() == pytest.approx([expected, -expected], abs=1e-5)


def test_a_single_chunk_is_heard_whole_and_a_single_bin_is_the_pool(plain):
    heard = plain(steps([[[3.0, 2.0]]], [[True]]), steps([[[0.5, -4.0]]], [[True]]), BOTH)
    assert heard[0].tolist() == pytest.approx([3.5, -2.0])


def test_where_one_of_the_two_is_absent_silence_is_heard(plain):
    some, none = steps([[[3.0, 2.0]]], [[True]]), steps([[[0.5, -4.0]]], [[False]])
    for heard in (plain(some, none, BOTH), plain(none, some, BOTH), plain(some, some, ~BOTH)):
        assert torch.equal(heard[0], plain.silence)


def test_age_tells_steps_apart():
    torch.manual_seed(0)
    listen = Listen(own=2, other=2, width=4, heads=2, dropout=0.0).eval()
    own = steps([[[1.0, 0.0]]], [[True]])
    chunks = [[[1.0, 2.0], [3.0, 4.0]]]
    heard = [listen(own, steps(chunks, [[True, True]], [hours]), BOTH) for hours in ([-1.0, -99.0], [-99.0, -1.0])]
    assert not torch.allclose(*heard, atol=1e-4)
    column = aged(steps([[[1.0, 0.0]] * 2], [[True, True]], [[-24.0, 5.0]]))[0, :, 2]
    assert column.tolist() == pytest.approx([math.log(2), 0.0])  # an hour after the prediction time counts as now


def test_attention_over_nothing_reads_something_so_that_its_softmax_is_a_number():
    assert readable(torch.tensor([[True, False], [False, False]])).tolist() == [[True, False], [True, True]]


def test_links_are_laid_out_by_sample_in_their_order(make_batch):
    notes = [[([1, 2], -1.0), ([3, 4], -2.0)], [], [([5, 6], -3.0)]]
    batch = make_batch([[]] * 3, notes)
    links = torch.arange(1.0, 9.0).unsqueeze(1)  # three chunks that are read, five fillers
    states, hours, valid = lay_out(links, batch)
    assert states.squeeze(-1).tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]]
    assert hours.tolist() == [[-1.0, -2.0], [0.0, 0.0], [-3.0, 0.0]]
    assert valid.tolist() == [[True, True], [False, False], [True, False]]


def test_links_without_any_note_are_one_step_that_is_not_there(make_batch):
    states, hours, valid = lay_out(torch.ones(8, 3), make_batch([[]] * 2))
    assert states.shape == (2, 1, 3) and hours.shape == (2, 1) and valid.tolist() == [[False], [False]]
    assert states.abs().sum() == 0


def test_gradient_of_a_step_is_that_of_its_link(make_batch):
    links = torch.zeros(8, 2, requires_grad=True)
    lay_out(links, make_batch([[]] * 2, [[([1], -1.0)], [([2], -1.0)]]))[0].sum().backward()
    assert links.grad.sum(dim=1).tolist() == [2.0, 2.0] + [0.0] * 6


@pytest.mark.parametrize("make", [partial(NoteTransformer, width=16, heads=2), partial(SeriesGRU, hidden=12)])
def test_steps_come_with_the_features_of_forward_and_are_as_wide(spec, random_batch, make):
    torch.manual_seed(0)
    encoder = make(spec).eval()
    batch = random_batch(10)
    found = encoder.steps(batch)
    features, present = encoder(batch)
    assert torch.equal(found.features, features) and torch.equal(found.present, present)
    assert found.states.shape[::2] == (10, encoder.width) and found.states.shape[:2] == found.valid.shape
    assert torch.equal(found.valid.any(dim=1), present)
    assert (found.hours <= 0).all()


def test_bins_with_an_observation_are_the_steps_of_a_series(spec, make_batch):
    found = SeriesGRU(spec, hidden=4).steps(make_batch([[(-48.0, 0, 139.0), (-3.0, 2, 1.0)], []]))
    assert found.valid.tolist() == [[True, False, False, True], [False] * 4]
    assert found.hours[0].tolist() == [-36.0, -24.0, -12.0, 0.0]  # where each bin of 12 hours ends


class Mean(nn.Module, Encoder):
    """An encoder without steps."""

    def __init__(self, spec):
        super().__init__()
        self.width = 1

    def forward(self, batch):
        return batch.value.mean(dim=1, keepdim=True), batch.valid.any(dim=1)


def test_an_encoder_without_steps_is_refused_by_name_where_the_fusion_reads_them(spec, random_batch):
    with pytest.raises(ConfigError, match=r"^model\.fusion: CrossAttentionFusion reads .* but Mean offers none"):
        MultimodalModel(spec, series=Mean, fusion=CrossAttentionFusion)
    assert MultimodalModel(spec, series=Mean)(random_batch(4)).shape == (4, 2)


@pytest.mark.parametrize(
    ("heads", "line"), [(3, "heads 3 does not divide the width of 128"), (0, "heads: 0 is not betw")]
)
def test_heads_that_do_not_divide_the_width_are_refused(spec, heads, line):
    with pytest.raises(ConfigError, match=line):
        CrossAttentionFusion(spec, [4, 4, 4], heads=heads)


def test_one_modality_has_no_pair_to_attend_and_two_have_one_each_way(spec):
    both = MultimodalModel(spec, fusion=CrossAttentionFusion)
    assert both.fusion.pairs == [(0, 1), (1, 0)]
    alone = MultimodalModel(spec.only("note"), fusion=CrossAttentionFusion)
    assert alone.fusion.pairs == [] and not any("listen" in key for key in alone.state_dict())
