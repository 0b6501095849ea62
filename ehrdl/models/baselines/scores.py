"""Clinical scores as models: points from a published table become a risk by logistic recalibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ehrdl.info import ModelInfo

#: The task that the scores were made for.
SCORED_TASK = "readmission"
#: Scores by name. The retrospective versions read the codes of the stay itself, which are assigned after discharge.
#: They show what such codes would be worth, but can never be used in practice.
INFOS = (
    ModelInfo("lace", "score", "clinical score: LACE, codes of earlier stays"),
    ModelInfo("hospital", "score", "clinical score: HOSPITAL, codes of earlier stays"),
    ModelInfo("lace_retrospective", "score", "not deployable: LACE with this stay's codes", deployable=False),
    ModelInfo("hospital_retrospective", "score", "not deployable: HOSPITAL with this stay's codes", deployable=False),
)
SCORES = tuple(info.name for info in INFOS)
NOT_DEPLOYABLE = tuple(info.name for info in INFOS if not info.deployable)


@dataclass(frozen=True)
class ScoreModel:
    """A clinical score as a model. The risk at a number of points is sigmoid(intercept + slope * points).

    Attributes:
        score: the name of the score, one of `SCORES`.
        intercept: the log odds at 0 points.
        slope: the log odds per point.
    """

    score: str
    intercept: float
    slope: float

    @classmethod
    def fit(cls, score: str, points: NDArray[np.int64], label: NDArray[np.float32]) -> ScoreModel:
        """Fit the intercept and the slope on training samples.

        A published score ranks patients well, but its published risks apply to another hospital. The fit replaces these
        risks.

        Args:
            score: the name of the score, one of `SCORES`.
            points: (n,) points of each sample.
            label: (n,) labels, 0 or 1; NaN = unknown, left out.
        """
        known = ~np.isnan(label)
        fitted = LogisticRegression(C=1e6).fit(points[known, None], label[known])  # practically without a penalty
        return cls(score, float(fitted.intercept_[0]), float(fitted.coef_[0, 0]))

    def predict(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the risk (n,) of samples with these points (n,)."""
        risk: NDArray[np.float64] = 1 / (1 + np.exp(-(self.intercept + self.slope * points)))
        return risk
