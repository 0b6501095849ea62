import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.series.triplets import NumberEmbedding, TripletTransformer, latest

SODIUM, CREATININE = 0, 1


def test_only_the_latest_triplets_are_read(spec, make_batch):
    torch.manual_seed(0)
    encoder = TripletTransformer(spec, width=8, heads=2, max_triplets=2).eval()
    old, new = [(-40.0, SODIUM, 120.0)], [(-9.0, SODIUM, 139.0), (-3.0, CREATININE, 2.0)]
    features, _ = encoder(make_batch([old + new, new]))
    assert torch.allclose(features[0], features[1], atol=1e-6)


def test_padding_between_observations_takes_no_place():
    valid = torch.tensor([[True, False, True, True, False, False]])
    assert latest(valid, 2).tolist() == [[2, 3]]
    assert latest(valid, 9).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_the_order_of_triplets_with_other_times_does_not_matter(spec, make_batch):
    torch.manual_seed(0)
    encoder = TripletTransformer(spec, width=8, heads=2).eval()
    facts = [(-9.0, SODIUM, 139.0), (-3.0, CREATININE, 2.0), (-2.0, SODIUM, 141.0)]
    features, _ = encoder(make_batch([facts, facts[::-1]]))
    assert torch.allclose(features[0], features[1], atol=1e-6)


def test_a_number_is_embedded_by_the_formula_of_the_paper():
    torch.manual_seed(0)
    embed = NumberEmbedding(9)
    first, _, second = embed.layers
    number = torch.tensor([0.3, -2.0])
    expected = torch.tanh(number.unsqueeze(1) * first.weight.T + first.bias) @ second.weight.T
    assert first.out_features == 3  # the square root of the width
    assert torch.allclose(embed(number), expected)


@pytest.mark.parametrize(
    ("options", "message"), [({"heads": 3}, "heads 3 does not divide width 32"), ({"max_triplets": 0}, "below 1")]
)
def test_sizes_that_cannot_work_are_refused(spec, options, message):
    with pytest.raises(ConfigError, match=message):
        TripletTransformer(spec, **options)
