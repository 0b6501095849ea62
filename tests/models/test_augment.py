"""Augmentation: what is hidden, blurred and moved in training, and that nothing of it comes nearer or is done later."""

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.options.training import Optim
from ehrdl.training.augment import Augment


def test_nothing_changes_in_evaluation_or_where_nothing_is_asked_for(spec, random_batch):
    batch = random_batch(6)
    assert Augment(spec, Optim(hide_observations=0.5, value_noise=1.0, shift_hours=9.0)).eval()(batch) is batch
    assert Augment(spec, Optim()).train()(batch) is batch


def test_about_the_share_of_observations_is_hidden_and_none_appears(spec, random_batch):
    torch.manual_seed(0)
    batch = random_batch(400)
    seen = Augment(spec, Optim(hide_observations=0.3)).train()(batch).valid
    assert not (seen & ~batch.valid).any()
    hidden = Augment(spec, Optim(hide_observations=0.3, value_noise=1.0)).train()(batch)
    assert (hidden.value[~hidden.valid] == 0).all()
    assert (seen.sum() / batch.valid.sum()).item() == pytest.approx(0.7, abs=0.04)


def test_values_are_blurred_by_their_channel_and_events_stay_one(spec, random_batch):
    torch.manual_seed(0)
    batch = random_batch(400)
    added = Augment(spec, Optim(value_noise=0.5)).train()(batch).value - batch.value
    for i, channel in enumerate(spec.channels):
        own = added[batch.valid & (batch.channel == i)]
        wanted = 0.5 * channel.std if channel.kind == "numeric" else 0.0
        assert own.std().item() == pytest.approx(wanted, rel=0.2)


def test_a_series_moves_into_the_past_as_one_and_leaves_the_window_at_its_far_end(spec, random_batch):
    torch.manual_seed(0)
    batch = random_batch(50)
    moved = Augment(spec, Optim(shift_hours=24.0)).train()(batch)
    back = batch.hours - moved.hours
    assert (back >= 0).all()
    assert (back <= 24).all()
    torch.testing.assert_close(back, back[:, :1].expand_as(back))
    assert back[:, 0].std() > 3
    assert torch.equal(moved.valid, batch.valid & (moved.hours > -spec.window_hours))


@pytest.mark.parametrize(("key", "value"), [("hide_observations", 1.0), ("value_noise", -0.1), ("shift_hours", -1.0)])
def test_what_cannot_be_is_refused_with_its_key(key, value):
    with pytest.raises(ConfigError, match=f"^optim.{key}: {value}"):
        Optim(**{key: value})
