"""LACE, item by item, as the figure of van Walraven 2010 gives its points."""

import numpy as np
import pytest

from ehrdl.clinical.charlson import NAMES
from ehrdl.clinical.lace import COMORBIDITY_WEIGHTS, lace


@pytest.mark.parametrize(
    ("days", "points"),
    [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (6, 4), (7, 5), (13, 5), (14, 7), (200, 7)],
)
def test_length_of_stay(days, points):
    assert lace([days], [False], [0], [0]).tolist() == [points]


@pytest.mark.parametrize(("burden", "points"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (17, 5)])
def test_comorbidity(burden, points):
    assert lace([0], [False], [burden], [0]).tolist() == [points]


@pytest.mark.parametrize(("visits", "points"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_emergency_visits(visits, points):
    assert lace([0], [False], [0], [visits]).tolist() == [points]


def test_an_acute_admission_has_three_points_and_the_whole_goes_from_0_to_19():
    assert lace([0, 0, 14], [True, False, True], [0, 0, 4], [0, 0, 4]).tolist() == [3, 0, 19]
    assert lace(np.array([5]), np.array([True]), np.array([2]), np.array([1])).tolist() == [4 + 3 + 2 + 1]


def test_weights_name_comorbidities_that_there_are():
    assert set(NAMES) - set(COMORBIDITY_WEIGHTS) == {"peptic_ulcer", "paralysis"}
    assert set(COMORBIDITY_WEIGHTS) <= set(NAMES)
