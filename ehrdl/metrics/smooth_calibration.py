"""Calibration without bins: the smooth calibration error, and the calibration curve with its band.

Source: Błasiok & Nakkiran, Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing, ICLR 2024. A
Gaussian kernel, reflected at 0 and 1, smooths the residuals (outcome minus risk) along the axis of the risk. The smooth
calibration error at a bandwidth is the mean absolute smoothed residual. It falls as the bandwidth grows. The reported
error is the one that equals its own bandwidth, so the data choose the bandwidth.

Each risk is split between its two neighbours on a grid (Wand, J Comput Graph Stat 3 (1994) 433). The reflected kernel
then is a product in the space of cosines.

Letters of this file: n samples, S subjects, R draws, G points of the grid. The three masses of a grid point are the
samples, the outcomes and the risks near it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct, idct
from scipy.sparse import csc_matrix

from ehrdl.metrics.bootstrap import Counts, interval, subject_counts
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.evaluate import Outcome
from ehrdl.schema import BINARY

#: G, the points of the grid on the risks from 0 to 1.
N_POINTS = 1001
_POINTS: Floats = np.linspace(0, 1, N_POINTS)
#: The smallest bandwidth, below which the grid is too coarse for the kernel.
LEAST = 0.002
#: Number of draws of subjects.
N_DRAWS = 400
#: Halvings of the interval of a bandwidth in the draws: they leave it known to one part in 256.
_HALVINGS = 8
#: Draws of subjects that are counted at once: one line of the processor's cache per subject.
_BLOCK = 8
#: The most samples x draws that are counted. More samples get fewer draws, though never fewer than 200.
_WORK = 2 * 10**8


class Curve(NamedTuple):
    """A calibration curve at the points of the grid.

    Attributes:
        predicted: the risks (G,).
        observed: the smoothed share with the outcome (G,); NaN where there is no prediction.
        low: the lower end of its 95 % interval (G,).
        high: the upper end of its 95 % interval (G,).
        near: the number of samples with and without the outcome near each point (2, G), weighted by the kernel, whose
            height is 1.
        bandwidth: the bandwidth of the curve.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    near: Floats
    bandwidth: float


def smooth_ece(label: ArrayLike, prob: ArrayLike, bandwidth: float | None = None) -> float:
    """Return the smooth calibration error, from 0 (calibrated) to 1.

    Args:
        label: the labels (n,), 0 or 1.
        prob: the risks (n,).
        bandwidth: the standard deviation of the kernel, at least `LEAST`; None = the bandwidth that equals the error.

    >>> round(smooth_ece([0, 0, 1, 1] * 50, [0.7] * 200), 2)
    0.2
    """
    risk = np.asarray(prob, np.float64)
    sums = _per_subject(risk, np.zeros(len(risk), np.intp), 1, np.asarray(label, np.float64) - risk)
    residual, total = _on_grid(sums, np.ones((1, 1), np.uint8), 1)[:, 0], np.array([float(len(risk))])
    sigma = _own_bandwidth(residual, total, 30) if bandwidth is None else np.array([bandwidth])
    return float(_error(residual, total, sigma)[0])


def smooth_curve(
    label: Floats, prob: Floats, subject: NDArray[np.int64], least: float = LEAST, n_draws: int = N_DRAWS, seed: int = 0
) -> Curve:
    """Return the calibration curve of one model with its band.

    The band is the percentile interval over draws of subjects, all at one bandwidth. It follows Silverman's rule of
    thumb (Density Estimation for Statistics and Data Analysis, 1986, eq. 3.31), for as many samples as there are
    patients in the smaller class. The bandwidth of the smooth calibration error would not do: it is wide where a model
    is badly calibrated, and would hide the shape of the curve.

    Args:
        label: the labels (n,), 0 or 1.
        prob: the risks (n,), or (seeds, n), whose masses are averaged.
        subject: the subject (n,) of each sample.
        least: the smallest bandwidth of the curve, such as one that is wide enough for many patients.
        n_draws: number of draws of subjects; fewer if there are very many samples.
        seed: random seed of the draws, the same as those of `evaluate`.
    """
    subjects, place = np.unique(subject, return_inverse=True)
    ones = np.ones(len(label))
    fits = [_per_subject(row, place, len(subjects), ones, label, row) for row in np.atleast_2d(prob)]
    sums = sum(fits[1:], fits[0]) / len(fits)
    masses = np.concatenate([_on_grid(sums, counts, 3) for counts in _draws(len(subjects), len(label), n_draws, seed)])
    bandwidth = max(_rule_of_thumb(label, np.atleast_2d(prob)[0], place), least)
    smooth = _shares(masses, bandwidth)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")  # far from any prediction
        low, high = np.nanpercentile(smooth, [2.5, 97.5], axis=0)
    return Curve(_POINTS, smooth[0], low, high, _near(masses[0], bandwidth), bandwidth)


def smooth_eces(outcome: Outcome, reference: str | None, n_draws: int = N_DRAWS, seed: int = 0) -> dict[str, Any]:
    """Return the smooth calibration error of every model, with subject-clustered 95 % intervals and paired differences.

    A bootstrap draw repeats samples, which makes the error of a draw slightly too large. The intervals are therefore
    shifted by the mean excess of the draws (Davison & Hinkley, Bootstrap Methods and their Application, 1997, ch. 2).

    Args:
        outcome: the predictions of a binary output.
        reference: the model that all others are compared with; None = there are no differences.
        n_draws: number of draws of subjects; fewer if there are very many samples.
        seed: random seed of the draws, the same as those of `evaluate`.

    Returns:
        `draws`; `models`: model -> value, low, high, as means over seeds; `differences`: `reference - model` -> same.
    """
    subjects, place = np.unique(outcome.rows["subject_id"].to_numpy(), return_inverse=True)
    size = np.bincount(place).astype(np.float64)
    sums = {
        name: [_per_subject(row, place, len(subjects), outcome.label - row) for row in seeds]
        for name, seeds in outcome.prob.items()
    }
    blocks: list[dict[str, Floats]] = [
        {name: np.mean([_own_error(one, counts, counts @ size) for one in fits], axis=0) for name, fits in sums.items()}
        for counts in _draws(len(subjects), len(place), n_draws, seed)
    ]
    found = {name: np.concatenate([block[name] for block in blocks]) for name in sums}
    for name, values in found.items():
        values[0] = np.mean([smooth_ece(outcome.label, row) for row in outcome.prob[name]])  # to full precision
    others = [name for name in found if name != reference] if reference else []
    pairs = {f"{reference} - {name}": found[str(reference)] - found[name] for name in others}
    return {
        "draws": len(next(iter(found.values()))) - 1,
        "models": {name: _estimate(values, 0.0) for name, values in found.items()},
        "differences": {name: _estimate(values, -1.0) for name, values in pairs.items()},
    }


def add_smooth(metrics: Mapping[str, Any], outcomes: Iterable[Outcome], reference: str | None) -> dict[str, Any]:
    """Return metrics.json with the smooth calibration errors of each binary output as its `smooth_ece`."""
    found = {o.output: {"smooth_ece": smooth_eces(o, reference)} for o in outcomes if o.kind == BINARY}
    outputs = {name: values | found.get(name, {}) for name, values in metrics["outputs"].items()}
    return {**metrics, "outputs": outputs}


def _estimate(values: Floats, least: float) -> dict[str, float]:
    """Return the first of some values, and the interval of the others without their mean excess over it."""
    low, high = interval(values[1:] - (values[1:].mean() - values[0]))
    return {"value": float(values[0]), "low": max(low, least), "high": high}


def _own_error(sums: csc_matrix, counts: Counts, total: Floats) -> Floats:
    """Return the smooth calibration error (R,) in draws (R, S) of `total` samples (R,), from sums of residuals."""
    residual = _on_grid(sums, counts, 1)[:, 0]
    return _error(residual, total, _own_bandwidth(residual, total, _HALVINGS))


def _draws(n_subjects: int, n_samples: int, n_draws: int, seed: int) -> Iterator[Counts]:
    """Yield counts (R, S) in small blocks: every subject once, and then the draws."""
    n_draws = int(np.clip(_WORK // max(n_samples, 1), min(n_draws, 200), n_draws))
    for block in subject_counts(n_subjects, n_draws, seed, all_first=True):
        yield from (block[first : first + _BLOCK] for first in range(0, len(block), _BLOCK))


def _per_subject(prob: Floats, place: NDArray[np.intp], n_subjects: int, *columns: Floats) -> csc_matrix:
    """Sum columns (n,) over each subject's samples, each split between two grid points -> (columns x G, S)."""
    point, share = _split(prob)
    value = [part for column in columns for part in (column * (1 - share), column * share)]
    row = [k * N_POINTS + point + above for k in range(len(columns)) for above in (0, 1)]
    where = (np.concatenate(row), np.tile(place, len(row)))
    return csc_matrix((np.concatenate(value), where), shape=(len(columns) * N_POINTS, n_subjects))


def _on_grid(sums: csc_matrix, counts: Counts, n_columns: int) -> Floats:
    """Return the masses (R, columns, G) in each draw (R, S)."""
    found = sums @ np.ascontiguousarray(counts.T, dtype=np.float64)
    return np.ascontiguousarray(found.T).reshape(len(counts), n_columns, N_POINTS)


def _split(prob: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return the grid point (n,) below each risk, and the share (n,) of the risk that belongs to the point above it."""
    scaled = np.clip(prob, 0, 1) * (N_POINTS - 1)
    point = np.minimum(scaled.astype(np.intp), N_POINTS - 2)
    return point, scaled - point


def _smooth(mass: Floats, sigma: Floats) -> Floats:
    """Smooth masses (R, ..., G) by the reflected kernel of each bandwidth (R,); they become densities of the risk."""
    waves = dct(_doubled(mass), type=1, axis=-1)
    damped = np.exp(-0.5 * (np.pi * np.arange(N_POINTS) * sigma[:, None]) ** 2)
    damped = damped.reshape(len(sigma), *(1,) * (mass.ndim - 2), N_POINTS)
    return np.asarray(idct(waves * damped, type=1, axis=-1)) * (N_POINTS - 1)


def _doubled(mass: Floats) -> Floats:
    """Double the masses at 0 and 1, each of which is its own mirror image and would lose one half."""
    found = mass.copy()
    found[..., [0, -1]] *= 2
    return found


def _integral(density: Floats) -> Floats:
    """Integrate along the axis of the risk (trapezoid rule)."""
    return np.asarray((density.sum(-1) - 0.5 * (density[..., 0] + density[..., -1])) / (N_POINTS - 1))


def _error(residual: Floats, total: Floats, sigma: Floats) -> Floats:
    """Return the smooth calibration error (R,) of residuals (R, G) of `total` samples (R,) at bandwidths (R,)."""
    return np.asarray(_integral(np.abs(_smooth(residual, sigma))) / total)


def _own_bandwidth(residual: Floats, total: Floats, halvings: int) -> Floats:
    """Return the bandwidth (R,) that equals the smooth calibration error at this bandwidth, by halving intervals.

    The error falls with the bandwidth, so the error at the smallest bandwidth is an upper bound, and the error at this
    bound is a lower one.
    """
    high = np.maximum(_error(residual, total, np.full(len(residual), LEAST)), LEAST)
    low = np.maximum(_error(residual, total, high), LEAST)
    for _ in range(halvings):
        middle = (low + high) / 2
        above = _error(residual, total, middle) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(low)


def _shares(masses: Floats, bandwidth: float) -> Floats:
    """Return the smoothed share with the outcome (R, G); NaN where there is no prediction."""
    sigma = np.full(len(masses), bandwidth)
    all_, had = (_smooth(masses[:, k], sigma) for k in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(all_ > 1e-9 * masses[:, 0].sum(-1, keepdims=True), had / all_, np.nan), 0, 1)


def _rule_of_thumb(label: Floats, prob: Floats, place: NDArray[np.intp]) -> float:
    quartiles = np.percentile(prob, [25, 75])
    spread = min(float(prob.std()), float(np.diff(quartiles)[0]) / 1.34 or np.inf)
    smaller = max(min(len(np.unique(place[label == value])) for value in (0, 1)), 1)
    return max(float(0.9 * spread * smaller**-0.2), LEAST)


def _near(masses: Floats, bandwidth: float) -> Floats:
    """Return the samples with and without the outcome (2, G) under the kernel of each point, weighted by its height."""
    both = np.stack([masses[1], masses[0] - masses[1]])[None]
    return np.asarray(_smooth(both, np.array([bandwidth]))[0] * np.sqrt(2 * np.pi) * bandwidth)
