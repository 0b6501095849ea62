"""A score's risk is the logistic regression of the outcome on its points."""

import numpy as np
import pytest

from ehrdl.models.baselines.scores import NOT_DEPLOYABLE, SCORES, ScoreModel


def test_the_risk_at_each_point_is_what_was_observed_where_two_points_say_all():
    points = np.repeat([0, 5], 100)
    label = np.r_[np.arange(100) < 10, np.arange(100) < 40].astype(np.float32)
    model = ScoreModel.fit("lace", points, label)
    assert model.predict(np.array([0, 5])) == pytest.approx([0.1, 0.4], abs=1e-4)


def test_unknown_labels_are_left_out():
    points, label = np.repeat([0, 5], 100), np.tile([0, 0, 1, 0], 50).astype(np.float32)
    expected = ScoreModel.fit("lace", points, label)
    unknown = np.r_[label, np.full(10, np.nan, np.float32)]
    assert ScoreModel.fit("lace", np.r_[points, np.full(10, 19)], unknown) == expected


def test_only_retrospective_scores_are_not_deployable():
    assert NOT_DEPLOYABLE == ("lace_retrospective", "hospital_retrospective")
    assert set(NOT_DEPLOYABLE) < set(SCORES)
