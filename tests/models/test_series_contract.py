"""What every series encoder promises, whichever it is: a new one is tested by being listed."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.series.channels import ChannelTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.models.series.gru_d import GRUD
from ehrdl.models.series.triplets import TripletTransformer
from ehrdl.models.series.window_summary import WindowSummary

SODIUM, CREATININE, DIALYSIS = 0, 1, 2
FACTS = [[(-40.0, SODIUM, 139.0), (-3.0, CREATININE, 2.0)], [(-1.0, DIALYSIS, 1.0)], []]
STEPPING = {
    "gru": partial(SeriesGRU, hidden=8),
    "gru_d": partial(GRUD, hidden=8),
    "triplets": partial(TripletTransformer, width=8, heads=2),
}
WHOLE = {
    "summary": partial(WindowSummary, per_channel=4),
    "channels": partial(ChannelTransformer, width=8, heads=2),
}
ENCODERS = STEPPING | WHOLE
each = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)


@each
def test_sample_without_observations_is_zero_and_absent(spec, make_batch, make):
    features, present = make(spec)(make_batch(FACTS))
    assert features.shape == (3, make(spec).width)
    assert present.tolist() == [True, True, False]
    assert features[2].abs().sum() == 0
    assert features[:2].isfinite().all() and (features[:2] != 0).any(dim=1).all()


@each
def test_a_batch_without_any_observation_has_finite_gradients(spec, make_batch, make):
    encoder = make(spec)
    features, present = encoder(make_batch([[], []], n_padding=3))
    features.sum().backward()
    assert not present.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@each
def test_neither_padding_nor_neighbours_have_an_influence(spec, make_batch, make):
    torch.manual_seed(0)
    encoder = make(spec).eval()
    plain, padded = make_batch(FACTS), make_batch(FACTS, n_padding=13)
    garbage = torch.where(padded.valid, padded.value, 1e6)
    padded = replace(padded, value=garbage, channel=torch.where(padded.valid, padded.channel, 2))
    features = encoder(plain)[0]
    assert torch.allclose(features, encoder(padded)[0], atol=1e-6)
    alone = replace(make_batch(FACTS[1:2]), static=plain.static[1:2])
    assert torch.allclose(features[1:2], encoder(alone)[0], atol=1e-6)


@each
def test_values_times_and_channels_all_matter(spec, make_batch, make):
    torch.manual_seed(0)
    encoder = make(spec).eval()
    changed = [(-40.0, SODIUM, 139.0), (-40.0, SODIUM, 145.0), (-4.0, SODIUM, 139.0), (-40.0, CREATININE, 1.0)]
    features = encoder(make_batch([[fact] for fact in changed]))[0]
    assert (torch.cdist(features, features) + torch.eye(4) > 1e-5).all()


@each
def test_every_parameter_learns(spec, random_batch, make):
    torch.manual_seed(0)
    encoder = make(spec)
    features, _ = encoder(random_batch(10))
    features.square().sum().backward()
    idle = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize("make", STEPPING.values(), ids=STEPPING)
def test_steps_of_a_sample_are_where_its_observations_are(spec, make_batch, make):
    steps = make(spec).eval().steps(make_batch(FACTS))
    assert steps.valid.any(dim=1).tolist() == [True, True, False]
    assert steps.states.shape == (*steps.valid.shape, 8)
    assert (steps.hours <= 0).all()


@pytest.mark.parametrize("make", STEPPING.values(), ids=STEPPING)
def test_hidden_channels_are_as_if_never_measured_in_training_alone(spec, make_batch, make):
    torch.manual_seed(0)
    encoder = make(spec, dropout=0.0, channel_dropout=0.5)
    batch = make_batch([FACTS[0]] * 64)
    varied, _ = encoder(batch)
    assert 1 < len(varied.round(decimals=4).unique(dim=0)) <= 4  # two channels, each there or not
    same, _ = encoder.eval()(batch)
    assert torch.allclose(same, same[:1].expand_as(same), atol=1e-6)


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_summaries_of_hidden_channels_are_left_out_in_training_alone(spec, make_batch, make):
    torch.manual_seed(0)
    encoder = make(spec, dropout=0.0, channel_dropout=0.5)
    batch = make_batch([*[FACTS[0]] * 64, *FACTS])  # the others give the numbers a spread
    batch.static[:] = batch.static[:1].clone()
    varied = encoder(batch)[0][:64]
    assert 1 < len(varied.round(decimals=4).unique(dim=0)) <= 8  # three channels, each read or not
    same = encoder.eval()(batch)[0][:64]
    assert torch.allclose(same, same[:1].expand_as(same), atol=1e-6)


@each
def test_an_impossible_share_and_data_without_channels_are_refused(spec, make):
    with pytest.raises(ConfigError, match=r"channel_dropout: 1\.0 is not at least 0 and below 1"):
        make(spec, channel_dropout=1.0)
    with pytest.raises(ConfigError, match="no series channels"):
        make(replace(spec, channels=()))
