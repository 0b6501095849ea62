from functools import partial

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.networks.committee import Committee
from ehrdl.models.networks.ensemble import Ensemble
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU

MULTIMODAL = partial(
    MultimodalModel, note=partial(NoteTransformer, width=8, heads=2), series=partial(SeriesGRU, hidden=8)
)
SMALL = partial(Committee, members=2, width=8)


@pytest.fixture
def ensemble(spec):
    torch.manual_seed(0)
    return Ensemble(
        spec, [MULTIMODAL, partial(SMALL, note=partial(NoteTransformer, width=8, heads=2))], copies=2
    ).eval()


def test_the_prediction_is_the_mean_probability_of_networks_that_differ(ensemble, random_batch):
    batch = random_batch(7)
    each = torch.stack([network(batch) for network in ensemble.networks])
    assert [type(network).__name__ for network in ensemble.networks] == ["MultimodalModel"] * 2 + ["Committee"] * 2
    assert (each[0] - each[1]).abs().min() > 1e-6
    assert torch.allclose(torch.sigmoid(ensemble(batch)), torch.sigmoid(each).mean(dim=0), atol=1e-6)


def test_each_network_is_trained_by_its_own_loss_alone(ensemble, random_batch):
    batch = random_batch(7)
    own = [network.loss(batch) for network in ensemble.networks]
    assert torch.allclose(ensemble.loss(batch), torch.stack(own).mean())
    ensemble.loss(batch).backward()
    first = next(ensemble.networks[0].parameters()).grad.clone()
    ensemble.zero_grad()
    (own[0] / 4).backward()
    assert torch.allclose(next(ensemble.networks[0].parameters()).grad, first)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in ensemble.networks[1].parameters())


def test_no_network_and_no_copy_are_refused(spec):
    with pytest.raises(ConfigError, match=r"networks: \[\] is empty"):
        Ensemble(spec, [])
    with pytest.raises(ConfigError, match="copies: 0"):
        Ensemble(spec, [MULTIMODAL], copies=0)
