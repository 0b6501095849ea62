import math

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.series.concat import ConcatEncoder
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.models.series.window_summary import RunningScale, WindowSummary, summaries

SODIUM, CREATININE, DIALYSIS = 0, 1, 2


def test_summaries_match_those_worked_out_by_hand(make_batch):
    facts = [(-48.0, SODIUM, 1.0), (-36.0, SODIUM, 2.0), (-24.0, SODIUM, 6.0), (-6.0, DIALYSIS, 1.0)]
    batch = make_batch([facts, []], n_padding=2)
    numbers, known = summaries(batch.value, batch, n_channels=3, window_hours=48.0, parts=2)
    sodium = numbers[0, SODIUM].tolist()
    assert sodium[:5] == [6.0, 1.0, 3.0, 1.0, 6.0]  # last, first, mean, least, greatest
    assert sodium[5] == pytest.approx(math.sqrt(14 / 3))  # deviations -2, -1, 3
    # Days -1/2, 0, 1/2 about their mean: covariance 5/6, variance 1/6.
    assert sodium[6] == pytest.approx((5 / 6) / (1 / 6 + 0.02), rel=1e-5)
    assert sodium[7:11] == pytest.approx([math.log(4), 0.5, 1.0, 1.0])  # log count, times of last and first, any
    # Two halves; what falls on the middle is in the second.
    assert sodium[11:] == pytest.approx([1.5, math.log(3), 1.0, 6.0, math.log(2), 1.0])
    assert known[0, SODIUM].all()
    assert numbers[0, CREATININE].abs().sum() == numbers[1].abs().sum() == 0
    # Of what was never seen only the counts are known, and that there is none.
    assert known[0, CREATININE].nonzero().flatten().tolist() == [7, 10, 12, 13, 15, 16]
    assert numbers[0, DIALYSIS, [11, 13, 14, 16]].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_running_statistics_are_those_of_all_samples_so_far():
    torch.manual_seed(0)
    numbers, known = torch.randn(30, 2, 3) * 3 + 1, torch.rand(30, 2, 3) < 0.7
    known[:8, 1, 2] = False  # a batch that has none of them
    scale = RunningScale(2, 3).train()
    for part in (slice(0, 8), slice(8, 20), slice(20, 30)):
        scale(numbers[part], known[part])
    for i in range(2):
        for j in range(3):
            seen = numbers[known[:, i, j], i, j]
            assert scale.mean[i, j].item() == pytest.approx(seen.mean().item(), abs=1e-5)
            assert scale.variance[i, j].item() == pytest.approx(seen.var(correction=0).item(), rel=1e-5)
    fixed = scale.eval()(numbers * 100, known)
    assert scale.count.sum() == known.sum()
    assert fixed.abs().max() == 5 and (fixed[~known] == 0).all()


def test_channels_are_put_to_their_means_in_training_alone(spec, random_batch):
    torch.manual_seed(0)
    encoder, batch = WindowSummary(spec, per_channel=2, channel_dropout=0.5), random_batch(40)
    plain = WindowSummary(spec, per_channel=2, channel_dropout=0.0)
    plain.load_state_dict(encoder.state_dict())
    units, expected = encoder(batch)[0].view(40, 3, 2), plain(batch)[0].view(40, 3, 2)
    means = torch.nn.functional.gelu(encoder.units.bias.weight).expand_as(units)
    there = batch.valid.any(dim=1).view(-1, 1, 1)
    hidden = (torch.isclose(units, means * there, atol=1e-6)).all(dim=2, keepdim=True)
    assert 0.3 < hidden[there.flatten()].float().mean() < 0.7
    assert torch.allclose(units, torch.where(hidden, means * there, expected), atol=1e-6)
    assert torch.allclose(encoder.eval()(batch)[0], plain.eval()(batch)[0])


def test_parts_that_cannot_be_are_refused(spec):
    with pytest.raises(ConfigError, match="parts: 0 is not between 1"):
        WindowSummary(spec, parts=0)


def test_encoders_side_by_side_give_the_features_of_each(spec, make_batch):
    torch.manual_seed(0)
    joined = ConcatEncoder(spec, [lambda s: SeriesGRU(s, hidden=8), lambda s: WindowSummary(s, per_channel=2)]).eval()
    batch = make_batch([[(-3.0, SODIUM, 141.0)], []])
    features, present = joined(batch)
    gru, summary = joined.encoders
    assert joined.width == 8 + 2 * 3
    assert torch.equal(features, torch.cat([gru(batch)[0], summary(batch)[0]], dim=1))
    assert present.tolist() == [True, False]
    with pytest.raises(ConfigError, match=r"ConcatEncoder\.encoders: \[\] is empty"):
        ConcatEncoder(spec, [])
