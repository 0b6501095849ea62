"""The HOSPITAL score, item by item, as table 3 of Donzé 2013 gives its points."""

import numpy as np
import pytest

from ehrdl.clinical.hospital import hospital

NOTHING = {
    "hemoglobin": 13.0,
    "oncology": False,
    "sodium": 140.0,
    "procedure": False,
    "nonelective": False,
    "admissions": 0,
    "length_of_stay_days": 1,
}


@pytest.mark.parametrize(
    ("item", "points"),
    [
        ({}, 0),
        ({"hemoglobin": 11.99}, 1),
        ({"hemoglobin": 12.0}, 0),
        ({"hemoglobin": np.nan}, 0),
        ({"oncology": True}, 2),
        ({"sodium": 134.9}, 1),
        ({"sodium": 135.0}, 0),
        ({"sodium": np.nan}, 0),
        ({"procedure": True}, 1),
        ({"nonelective": True}, 1),
        ({"admissions": 1}, 2),
        ({"admissions": 5}, 2),
        ({"admissions": 6}, 5),
        ({"length_of_stay_days": 4}, 0),
        ({"length_of_stay_days": 5}, 2),
    ],
    ids=str,
)
def test_points_of_each_item(item, points):
    assert hospital(**{name: [value] for name, value in (NOTHING | item).items()}).tolist() == [points]


def test_all_items_together_are_13_points():
    assert hospital([9.0], [True], [120.0], [True], [True], [8], [30]).tolist() == [13]
