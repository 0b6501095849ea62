import numpy as np
import pytest

from ehrdl.data.dataset import SampleDataset
from ehrdl.data.window import Window

SODIUM, CREATININE, DRUG = 2, 3, 4


@pytest.fixture
def make(build):
    def dataset(at, facts=(), bodies=None, hidden=(), **window):
        window = {"series_hours": 24, "note_hours": 100} | window
        notes = None if bodies is None else build.notes(bodies)
        static = np.arange(2 * len(at), dtype=np.float32).reshape(-1, 2)
        channels = [channel for i, channel in enumerate(build.channels) if i not in hidden]
        return SampleDataset(build.samples(at), static, build.store(facts), notes, Window(**window), channels)

    return dataset


def test_a_sample_is_its_facts_with_hours_before_the_prediction_time(make):
    facts = [(1, 80, 82, SODIUM, 138), (1, 90, 90, CREATININE, 1.5), (2, 90, 90, SODIUM, 150)]
    item = make([(1, 100)], facts)[0]
    assert item.value.tolist() == [138, 1.5]
    assert item.hours.tolist() == [-20, -10]
    assert item.channel.tolist() == [SODIUM, CREATININE]
    assert (item.row.tolist(), item.static.tolist(), item.label.tolist()) == ([0], [[0, 1]], [[0]])
    assert (item.value.dtype, item.hours.dtype, item.label.dtype) == (np.float32,) * 3


def test_hours_are_taken_in_integers_before_they_are_rounded(make):
    far = 24 * 365 * 200  # in float32 a fact this far from 1970 is hours off
    item = make([(1, far)], [(1, far - 0.001, far - 0.001, SODIUM, 138)])[0]
    assert item.hours.tolist() == [pytest.approx(-0.001, rel=1e-6)]


def test_facts_on_the_edges_of_the_window(make):
    facts = [
        (1, 76, 90, SODIUM, 1),  # happened at t - 24 h: outside
        (1, 76.5, 90, SODIUM, 2),
        (1, 70, 76, SODIUM, 3),  # available at t - 24 h: outside
        (1, 99, 100, SODIUM, 4),  # available at t: inside
        (1, 99, 100.001, SODIUM, 5),
    ]
    assert make([(1, 100)], facts)[0].value.tolist() == [2, 4]


def test_a_hidden_channel_is_never_loaded(make):
    facts = [(1, 90, 90, SODIUM, 138), (1, 91, 91, DRUG, 1), (1, 92, 92, SODIUM, 139)]
    assert make([(1, 100)], facts)[0].channel.tolist() == [SODIUM, DRUG, SODIUM]
    assert make([(1, 100)], facts, hidden=[DRUG])[0].value.tolist() == [138, 139]


@pytest.mark.parametrize("channel", [SODIUM, DRUG])
def test_of_too_many_observations_the_latest_are_kept(make, channel):
    facts = [(1, 80 + i, 80 + i, SODIUM, 130 + i) for i in range(5)] + [(1, 79, 89, channel, 1)]
    dataset = make([(1, 100)], facts, hidden=[DRUG], max_observations=3)
    wanted = [133, 134, 1] if channel == SODIUM else [132, 133, 134]
    assert dataset[0].value.tolist() == wanted
    assert dataset.n_observations().tolist() == [3]


def test_of_too_many_notes_the_latest_are_kept_oldest_first(make):
    bodies = [(1, t, t, f"{t}") for t in (10, 50, 60, 70)] + [(2, 60, 60, "other")]
    dataset = make([(1, 55), (1, 100), (3, 100)], bodies=bodies, max_notes=2, note_hours=45)
    assert [dataset.notes.texts(dataset.note_rows(row)) for row in range(3)] == [["50"], ["60", "70"], []]
    assert dataset[1].note_hours.tolist() == [-40, -30]
    assert dataset.n_tokens().tolist() == [2, 4, 0]


def test_a_note_written_in_the_window_but_stored_after_t_is_not_seen(make):
    bodies = [(1, 90, 101, "late"), (1, 90, 100, "now")]
    dataset = make([(1, 100)], bodies=bodies)
    assert dataset.notes.texts(dataset.note_rows(0)) == ["now"]


def test_a_hospital_without_notes_or_facts_gives_empty_samples(make):
    dataset = make([(1, 100), (2, 5)])
    assert len(dataset) == 2
    item = dataset[1]
    assert [len(part) for part in (item.value, item.hours, item.channel, item.note, item.note_hours)] == [0] * 5
    assert dataset.n_tokens().tolist() == dataset.n_observations().tolist() == [0, 0]
