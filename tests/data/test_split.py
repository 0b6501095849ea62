import numpy as np
import pytest

from ehrdl.errors import ConfigError
from ehrdl.splits.subjects import Split, assign

TRAIN, TUNING, HELD_OUT = "train", "tuning", "held_out"
IDS = np.array([1, 2, 3, 10_000_032, 10_000_084, 10_000_007, 19_999_987, -5, 2**62])
#: Worked out with Python's unbounded integers from the published finaliser.
PINNED = [TRAIN, TRAIN, HELD_OUT, HELD_OUT, TRAIN, TUNING, TRAIN, HELD_OUT, HELD_OUT]


def test_the_split_never_changes_silently():
    assert assign(IDS, Split()).tolist() == PINNED


def test_a_subject_falls_into_one_split_whoever_stands_beside_it():
    everyone = np.arange(10_000_000, 10_005_000)
    together = assign(everyone, Split())
    assert (assign(everyone[::-1], Split())[::-1] == together).all()
    assert (assign(everyone[1234:1240], Split()) == together[1234:1240]).all()
    assert assign(np.array([7, 7, 7]), Split()).tolist() == assign(np.array([7]), Split()).tolist() * 3


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_shares_are_those_asked_for(step):
    names = assign(np.arange(0, 100_000 * step, step), Split())
    for name, share in ((TRAIN, 0.7), (TUNING, 0.1), (HELD_OUT, 0.2)):
        assert (names == name).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 100_000))


def test_a_larger_tuning_share_leaves_the_held_out_subjects_as_they_are():
    ids = np.arange(10_000)
    few, many = assign(ids, Split()), assign(ids, Split(tuning=0.3))
    assert ((few == HELD_OUT) == (many == HELD_OUT)).all()


def test_another_seed_gives_an_unrelated_split():
    ids = np.arange(100_000)
    first, second = assign(ids, Split()) == HELD_OUT, assign(ids, Split(seed=1)) == HELD_OUT
    assert (first & second).mean() == pytest.approx(0.04, abs=0.003)


def test_no_subjects_get_no_split():
    assert assign(np.zeros(0, np.int64), Split()).tolist() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tuning": 0.0}, r"data\.split\.tuning: 0\.0"),
        ({"held_out": 1.0}, r"data\.split\.held_out: 1\.0"),
        ({"tuning": 0.5, "held_out": 0.5}, "leave nothing to train on"),
        ({"seed": -1}, r"data\.split\.seed: -1 is below 0"),
    ],
)
def test_an_impossible_split_is_refused_by_its_key(options, says):
    with pytest.raises(ConfigError, match=says):
        Split(**options)


def folds(ids, fold, n_folds=5, **options):
    return assign(ids, Split("folds", n_folds=n_folds, fold=fold, **options))


@pytest.mark.parametrize("n_folds", [2, 5, 10])
def test_every_subject_is_held_out_in_exactly_one_fold(n_folds):
    ids = np.arange(132_000, 144_000)
    held_out = np.stack([folds(ids, fold, n_folds) == HELD_OUT for fold in range(n_folds)])
    assert (held_out.sum(axis=0) == 1).all()
    assert held_out.mean(axis=1) == pytest.approx(np.full(n_folds, 1 / n_folds), abs=0.02)


def test_the_tuning_share_is_of_those_who_are_not_held_out_whatever_the_fold():
    ids = np.arange(100_000)
    names = [folds(ids, fold, tuning=0.25) for fold in range(4)]
    for name in names:
        rest = name != HELD_OUT
        assert (name[rest] == TUNING).mean() == pytest.approx(0.25, abs=0.01)
    both = (names[0] != HELD_OUT) & (names[1] != HELD_OUT)
    assert (names[0][both] == names[1][both]).all()


def test_the_folds_never_change_silently():
    """By hand: floor(5 u) of the published finaliser's u, as in PINNED: u < 0.2 is the first fold."""
    assert (folds(IDS, 0) == HELD_OUT).tolist() == [name == HELD_OUT for name in PINNED]
    assert (folds(np.arange(1000), 2, seed=1) != folds(np.arange(1000), 2)).any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "folds", "fold": 0}, r"data\.split\.n_folds: null, but data\.split\.kind folds needs n_folds"),
        ({"kind": "folds", "n_folds": 5}, r"data\.split\.fold: null"),
        ({"kind": "folds", "n_folds": 1, "fold": 0}, r"data\.split\.n_folds: 1 is below 2"),
        ({"kind": "folds", "n_folds": 5, "fold": 5}, r"data\.split\.fold: 5 is not one of 0 to 4"),
        ({"n_folds": 5}, r"data\.split\.n_folds: 5 belongs to data\.split\.kind folds"),
        ({"fold": 0}, r"data\.split\.fold: 0 belongs to data\.split\.kind folds"),
    ],
)
def test_folds_that_cannot_be_are_refused_by_their_key(options, says):
    with pytest.raises(ConfigError, match=says):
        Split(**options)
