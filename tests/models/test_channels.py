from dataclasses import replace

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.series.channels import ChannelTransformer


def test_channels_exchange_what_they_know(spec, make_batch):
    torch.manual_seed(0)
    encoder = ChannelTransformer(spec, width=8, heads=2).eval()
    features, _ = encoder(make_batch([[(-3.0, 0, 141.0), (-3.0, 1, 1.0)], [(-3.0, 0, 141.0), (-3.0, 1, 4.0)]]))
    own = features[:, 16:].view(2, 3, -1)  # after the static token's state and the pooled one
    assert not torch.allclose(own[0, 0], own[1, 0])  # sodium hears of creatinine


def test_the_static_features_are_a_token(spec, make_batch):
    torch.manual_seed(0)
    encoder = ChannelTransformer(spec, width=8, heads=2).eval()
    batch = make_batch([[(-3.0, 0, 141.0)]])
    older = replace(batch, static=batch.static + 20)
    assert not torch.allclose(encoder(batch)[0], encoder(older)[0])


def test_sizes_that_cannot_work_are_refused(spec):
    with pytest.raises(ConfigError, match="heads 3 does not divide width 32"):
        ChannelTransformer(spec, heads=3)
    with pytest.raises(ConfigError, match=r"ChannelTransformer: bin_hours 7 .* 48 h"):
        ChannelTransformer(spec, bin_hours=7)
