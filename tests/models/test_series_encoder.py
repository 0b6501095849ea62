from dataclasses import replace

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.series.gru import SeriesGRU, grid, summarise
from ehrdl.models.series.observations import Scale

SODIUM, CREATININE, DIALYSIS = 0, 1, 2


def test_grid_matches_one_worked_out_by_hand(make_batch):
    facts = [
        (-48.0, SODIUM, 1.0),
        (-37.0, SODIUM, 2.0),
        (-36.0, SODIUM, 3.0),
        (-5.0, DIALYSIS, 1.0),
        (0.0, SODIUM, 4.0),
    ]
    batch = make_batch([facts])
    cells = grid(batch.value, batch, n_channels=3, n_bins=4, bin_hours=12.0)
    # Bins end at -36, -24, -12 and 0; a value at -36 opens the second, one at 0 is in the last.
    assert cells.value[0, :, SODIUM].tolist() == [2.0, 3.0, 3.0, 4.0]
    assert cells.observed[0, :, SODIUM].tolist() == [True, True, False, True]
    assert cells.count[0, :, SODIUM].tolist() == [2.0, 1.0, 0.0, 1.0]
    assert cells.since[0, :, SODIUM].tolist() == pytest.approx([1 / 48, 12 / 48, 24 / 48, 0.0])
    assert cells.since[0, :, CREATININE].tolist() == [1.0] * 4
    assert cells.value[0, :, CREATININE].tolist() == [0.0] * 4
    assert cells.count[0, :, DIALYSIS].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_of_two_values_at_one_hour_the_later_position_wins(make_batch):
    batch = make_batch([[(-5.0, SODIUM, 7.0), (-5.0, SODIUM, 9.0)]])
    assert grid(batch.value, batch, 3, 4, 12.0).value[0, -1, SODIUM] == 9.0
    assert summarise(batch.value, batch, 3, 48.0)[0, 0] == 9.0


def test_summaries_match_those_worked_out_by_hand(make_batch):
    batch = make_batch([[(-48.0, SODIUM, 1.0), (-24.0, SODIUM, 3.0), (-12.0, SODIUM, 2.0)], []])
    last, mean, low, high, slope, count, since, change = (
        summarise(batch.value, batch, 3, 48.0).view(2, 3, 8)[0, SODIUM].tolist()
    )
    assert (last, mean, low, high) == (2.0, 2.0, 1.0, 3.0)
    # Days -2, -1, -1/2 about -7/6 and values -1, 1, 0 about 2: covariance 1, squares 7/6, ridge 1/4.
    assert slope == pytest.approx(1 / (7 / 6 + 1 / 4))
    assert count == pytest.approx(torch.tensor(3.0).log1p().item())
    assert since == 12 / 48
    assert change == last - 1.0  # the first value
    assert summarise(batch.value, batch, 3, 48.0).view(2, 3, 8)[1].tolist() == [[0.0] * 6 + [1.0, 0.0]] * 3


def test_values_are_standardised_by_channel_and_clipped(spec, make_batch):
    batch = make_batch([[(-1.0, SODIUM, 144.0), (-1.0, CREATININE, 50.0), (-1.0, DIALYSIS, 1.0)]])
    assert Scale(spec)(batch.value, batch.channel).tolist() == [[1.0, 5.0, 1.0]]


@pytest.mark.parametrize("summaries", [True, False])
def test_padding_has_no_influence_bit_for_bit(spec, make_batch, summaries):
    facts = [[(-40.0, SODIUM, 139.0), (-3.0, CREATININE, 2.0)], [(-1.0, DIALYSIS, 1.0)], []]
    torch.manual_seed(0)
    encoder = SeriesGRU(spec, hidden=8, summaries=summaries).eval()
    plain, padded = make_batch(facts), make_batch(facts, n_padding=13)
    garbage = torch.where(padded.valid, padded.value, 1e6)
    padded = replace(padded, value=garbage, channel=torch.where(padded.valid, padded.channel, 2))
    assert torch.equal(encoder(plain)[0], encoder(padded)[0])


def test_neighbours_in_the_batch_have_no_influence(spec, make_batch):
    facts = [[(-40.0, SODIUM, 139.0)], [(-1.0, DIALYSIS, 1.0)]]
    torch.manual_seed(0)
    encoder = SeriesGRU(spec, hidden=8).eval()
    together, alone = encoder(make_batch(facts))[0], encoder(make_batch(facts[1:]))[0]
    assert torch.allclose(together[1], alone[0], atol=1e-6)


def test_sample_without_observations_is_zero_and_absent(spec, make_batch):
    features, present = SeriesGRU(spec, hidden=8)(make_batch([[(-1.0, SODIUM, 140.0)], []]))
    assert features.shape == (2, 8)
    assert present.tolist() == [True, False]
    assert features[1].abs().sum() == 0


def test_several_layers_and_other_bins_work(spec, random_batch):
    features, _ = SeriesGRU(spec, hidden=8, layers=2, bin_hours=6)(random_batch(5))
    assert features.isfinite().all()


def test_bins_that_do_not_divide_the_window_are_refused(spec):
    with pytest.raises(ConfigError, match=r"bin_hours 7 .* 48 h"):
        SeriesGRU(spec, bin_hours=7)


def test_data_without_channels_are_refused(spec):
    with pytest.raises(ConfigError, match="no series channels"):
        SeriesGRU(replace(spec, channels=()))
