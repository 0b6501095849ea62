import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrdl.data.window import Window, bounds, inside
from ehrdl.errors import ConfigError

ONE = np.array([0, 3]), np.array([7]), np.array([7])


def seen(t, window=None):
    start, stop = bounds(np.array([10, 20, 30]), *ONE, np.array([t]), window)
    return np.array([10, 20, 30])[start[0] : stop[0]].tolist()


def test_a_fact_is_visible_at_the_moment_it_becomes_available_and_not_one_microsecond_before():
    assert seen(9) == []
    assert seen(10) == [10]
    assert seen(29) == [10, 20]
    assert seen(30) == [10, 20, 30]


def test_a_window_leaves_out_what_was_available_at_its_beginning():
    assert seen(30, window=20) == [20, 30]
    assert seen(30, window=21) == [10, 20, 30]
    assert seen(30, window=1) == [30]


def test_a_window_is_open_at_its_beginning_and_closed_at_its_end():
    assert inside(np.array([9, 10, 11, 30]), 30, 20).tolist() == [False, False, True, True]


def test_a_subject_without_facts_sees_nothing():
    for subject in (1, 8):
        start, stop = bounds(np.array([10, 20, 30]), ONE[0], ONE[1], np.array([subject]), np.array([99]))
        assert (start, stop) == (0, 0)


def test_no_samples_and_no_subjects_are_empty_not_errors():
    none = np.zeros(0, np.int64)
    assert [len(part) for part in bounds(none, np.zeros(1, np.int64), none, none, none)] == [0, 0]
    assert bounds(none, np.zeros(1, np.int64), none, np.array([1]), np.array([5]))[1].tolist() == [0]


def test_microseconds_survive_far_dates():
    t = np.datetime64("2214-12-31T23:59:59.999999").astype(np.int64)
    start, stop = bounds(np.array([t - 1, t, t + 1]), *ONE, np.array([t]), 1)
    assert (start[0], stop[0]) == (1, 2)


TIMES = st.lists(st.integers(0, 12), max_size=8)
HOSPITAL = st.dictionaries(st.integers(0, 5), TIMES, max_size=4)
SAMPLES = st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 14)), max_size=8)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(HOSPITAL, SAMPLES, st.one_of(st.none(), st.integers(1, 14)))
def test_bounds_are_the_facts_that_the_definition_names(hospital, samples, window):
    subjects = np.array(sorted(hospital), np.int64)
    facts = [(s, a) for s in sorted(hospital) for a in sorted(hospital[s])]
    offsets = np.r_[0, np.cumsum([len(hospital[s]) for s in sorted(hospital)])].astype(np.int64)
    samples = sorted(samples)
    who, t = (np.array([sample[i] for sample in samples], np.int64) for i in (0, 1))
    start, stop = bounds(np.array([a for _, a in facts], np.int64), offsets, subjects, who, t, window)
    for i, (subject, at) in enumerate(samples):
        wanted = [
            j for j, (s, a) in enumerate(facts) if s == subject and a <= at and (window is None or a > at - window)
        ]
        assert list(range(start[i], stop[i])) == wanted


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=8), st.integers(0, 14), st.integers(1, 14))
def test_slice_and_mask_together_are_all_visible_facts_of_the_window(facts, t, window):
    """Facts are (time, delay): the slice by availability never loses one that happened in the window."""
    facts = sorted((time + delay, time) for time, delay in facts)
    available, time = (np.array([fact[i] for fact in facts], np.int64) for i in (0, 1))
    start, stop = bounds(available, np.array([0, len(facts)]), *ONE[1:], np.array([t]), window)
    got = np.arange(start[0], stop[0])[inside(time[start[0] : stop[0]], t, window)]
    assert got.tolist() == [i for i, (a, happened) in enumerate(facts) if a <= t and happened > t - window]


@pytest.mark.parametrize("key", ["series_hours", "note_hours", "max_observations", "max_notes"])
def test_a_window_that_holds_nothing_is_refused_by_its_key(key):
    with pytest.raises(ConfigError, match=rf"data\.window\.{key}: 0 is (not above 0|below 1)"):
        Window(**{key: 0})
