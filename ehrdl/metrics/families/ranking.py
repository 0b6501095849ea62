"""AUROC, average precision and expected calibration error of one model in many draws of subjects.

Letters of this file: n samples, S subjects, R draws. The samples are sorted once by their risk. Samples of equal risk
are one group: G groups, and D groups that hold a case (a sample with the outcome). The others have no outcome.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ehrdl.metrics.bootstrap import Counts
from ehrdl.metrics.calibration import N_BINS
from ehrdl.metrics.discrimination import Floats
from ehrdl.metrics.families.draws import Family, Places, parts_of, product, running

#: The type of sums of counts: a draw has at most 2**31 samples.
_SUM = np.int32
#: Draws x samples at once: what the processor's cache holds.
_BLOCK = 2**19
#: Half the width of a window around the edge of a bin, in standard deviations of the edge over the draws.
_WIDTH = 5.0


class Ranked(Family):
    """AUROC, average precision and expected calibration error, from the samples sorted once by their risk."""

    def __init__(self, label: Floats, prob: Floats, subject: Places, n_subjects: int) -> None:
        super().__init__(label, prob, subject, n_subjects)
        order = np.argsort(prob, kind="stable")
        ordered, is_case = prob[order], label[order] == 1
        begins = np.append(True, ordered[1:] > ordered[:-1])
        self.starts, self.risk = np.flatnonzero(begins), ordered[begins]
        self.sorted = subject[order]
        self.cases, self.others = self.sorted[is_case], self.sorted[~is_case]
        of_case = (np.cumsum(begins) - 1)[is_case]  # the group of each case
        self.first = np.flatnonzero(np.append(True, of_case[1:] > of_case[:-1])[: len(of_case)])
        holds_case = of_case[self.first]
        #: The number of D before each group and at the end (G + 1,).
        self.before = np.searchsorted(holds_case, np.arange(len(self.risk) + 1))
        below = running((~is_case)[None])[0].astype(np.intp)  # (n + 1,) others below each place
        ends = np.append(self.starts, len(prob))
        low, high = below[ends[holds_case]], below[ends[holds_case + 1]]
        edges = _Edges(self, ends)
        self.edges = edges if 2 * len(edges.subject) < len(prob) else None
        wanted = [low, high, below[ends[edges.first]]] if self.edges else [low, high]
        #: Others are summed between these places: all that is asked for is a running sum at one of them.
        self.cuts = np.unique(np.concatenate([[0], *wanted]))
        self.cuts = self.cuts[self.cuts < len(self.others)]
        self.low, self.high, *at = (np.searchsorted(self.cuts, places) for places in wanted)
        self.at_edges = at[0] if at else None

    def __call__(self, counts: Counts) -> dict[str, Floats]:
        """Return `auroc`, `auprc` and `ece`."""
        parts = parts_of(counts, len(self.label), _BLOCK)
        sums = product(counts, self.edges.between) if self.edges else np.empty((len(counts), 0))
        places = np.cumsum([len(part) for part in parts])[:-1]
        found = [self._values(part, some) for part, some in zip(parts, np.split(sums, places), strict=True)]
        values = map(np.concatenate, zip(*found, strict=True))
        return dict(zip(("auroc", "auprc", "ece"), values, strict=True))

    def _values(self, counts: Counts, sums: Floats) -> tuple[Floats, Floats, Floats]:
        cases, others = counts.take(self.cases, axis=1), counts.take(self.others, axis=1)
        if len(self.first) < cases.shape[1]:
            cases = np.add.reduceat(cases, self.first, axis=1, dtype=_SUM)
        cases_total = running(cases)
        others_total = running(np.add.reduceat(others, self.cuts, axis=1, dtype=_SUM))
        auroc, auprc = self._ranking(cases.astype(np.float64), cases_total, others_total)
        if self.edges is None or self.at_edges is None:
            return auroc, auprc, self._ece(counts, cases_total)
        before = others_total.take(self.at_edges, axis=1) + cases_total.take(self.before[self.edges.first], axis=1)
        ece = self.edges.ece(counts, sums, before, cases_total, others_total[:, -1] + cases_total[:, -1])
        lost = np.isnan(ece)
        if lost.any():
            ece[lost] = self._ece(counts[lost], cases_total[lost])
        return auroc, auprc, ece

    def _ranking(self, cases: Floats, cases_total: Floats, others_total: Floats) -> tuple[Floats, Floats]:
        n_cases, n_others = cases_total[:, -1:], others_total[:, -1:]
        below = others_total.take(self.low, axis=1)
        twice = below + others_total.take(self.high, axis=1)
        true, false = n_cases - cases_total[:, :-1], n_others - below
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = np.einsum("rd,rd->r", cases, twice) / (2 * n_cases * n_others)[:, 0]
            false += true
            true /= np.maximum(false, 1, out=false)  # 0 / 1 where nothing has weight
            auprc = np.einsum("rd,rd->r", cases, true) / n_cases[:, 0]
        return auroc, auprc

    def _ece(self, counts: Counts, cases_total: Floats) -> Floats:
        """Sum |observed - predicted| over bins of equal mass; a group belongs to the bin of its middle."""
        weight = counts.take(self.sorted, axis=1)
        if len(self.starts) < weight.shape[1]:
            weight = np.add.reduceat(weight, self.starts, axis=1, dtype=_SUM)
        total = np.cumsum(weight, axis=1, dtype=_SUM)
        found = np.full(len(weight), np.nan)
        for row, mass in enumerate(total[:, -1]):
            if mass:
                edges = edges_of(weight[row], total[row])
                predicted = weight[row] * self.risk
                sums = np.array([predicted[a:b].sum() for a, b in pairwise(edges)])
                found[row] = np.abs(np.diff(cases_total[row, self.before[edges]]) - sums).sum() / mass
        return found


class _Edges:
    """The edges of the bins of equal mass, searched in a window around their places in all samples.

    In a draw, an edge moves by some hundred samples of a million. Between the windows, the sums of risks are sums per
    subject, so one matrix product gives them for all draws.

    Args:
        of: the sorted samples.
        ends: the place of the first sample of each group, and n (G + 1,).
    """

    def __init__(self, of: Ranked, ends: Places) -> None:
        self.of = of
        edges = edges_of(np.diff(ends), ends[1:])[1:-1]
        clusters = np.bincount(of.subject, minlength=of.n_subjects).astype(np.float64)
        half = _WIDTH / 2 * np.sqrt(clusters @ clusters)  # at most half of the samples of a patient are on either side
        groups = len(of.risk)
        self.first = np.maximum(np.searchsorted(of.starts, ends[edges] - half, side="right") - 1, 0)
        self.last = np.minimum(np.searchsorted(of.starts, ends[edges] + half, side="right"), groups)
        sizes = np.diff(np.stack([ends[self.first], ends[self.last]]), axis=0)[0]
        self.subject = np.concatenate(
            [of.sorted[ends[a] : ends[b]] for a, b in zip(self.first, self.last, strict=True)]
        )
        self.places = np.append(0, np.cumsum(self.last - self.first))  # of the windows among the groups of all windows
        shift = np.append(0, np.cumsum(sizes))[:-1] - ends[self.first]
        self.starts = np.concatenate(
            [of.starts[a:b] + by for a, b, by in zip(self.first, self.last, shift, strict=True)]
        )
        self.between = self._between(ends)

    def _between(self, ends: Places) -> Floats:
        """Sum the risks (N_BINS, S) of each subject from the start of one window to the start of the next one."""
        of, cells = self.of, np.zeros(ends[-1], np.intp)
        for first in self.first:
            cells[ends[first] :] += of.n_subjects
        cells += of.sorted
        risk = np.repeat(of.risk, np.diff(ends))
        return np.bincount(cells, risk, N_BINS * of.n_subjects).astype(np.float64).reshape(N_BINS, -1)

    def ece(self, counts: Counts, sums: Floats, before: Floats, cases_total: Floats, mass: Floats) -> Floats:
        """Return the calibration error in each draw (R,); NaN if an edge is outside of its window.

        Args:
            counts: how often each subject was drawn (R, S).
            sums: the sums of `between` in each draw (R, N_BINS).
            before: the weight of all samples before each window (R, N_BINS - 1).
            cases_total: the running weight of the cases (R, D + 1).
            mass: the weight of all samples (R,).
        """
        weight = counts.take(self.subject, axis=1)
        if len(self.starts) < weight.shape[1]:
            weight = np.add.reduceat(weight, self.starts, axis=1, dtype=_SUM)
        least = -(-2 * mass[:, None].astype(np.int64) * np.arange(1, N_BINS) // N_BINS) - 2 * before.astype(np.int64)
        sums, cases, inside = sums.copy(), [np.zeros(len(counts))], (least > 0).all(1) & (mass > 0)
        for k, (first, last) in enumerate(zip(self.first, self.last, strict=True)):
            here = weight[:, self.places[k] : self.places[k + 1]]
            below = 2 * np.cumsum(here, axis=1, dtype=_SUM) - here < least[:, k, None]
            edge = np.count_nonzero(below, axis=1)
            inside &= (edge < last - first) | (last == len(self.of.risk))
            part = (here * below).astype(np.float64) @ self.of.risk[first:last]
            sums[:, k] += part
            sums[:, k + 1] -= part
            cases.append(cases_total[np.arange(len(counts)), self.of.before[first + edge]])
        observed = np.diff(np.stack([*cases, cases_total[:, -1]]), axis=0).T
        with np.errstate(invalid="ignore"):
            return np.where(inside, np.abs(observed - sums).sum(1) / mass, np.nan)


def edges_of(weight: Counts, total: Counts) -> Places:
    """Return the first group of each bin of equal mass, and G; a group belongs to the bin of its middle.

    Args:
        weight: the weight of each group (G,).
        total: the running weight up to and with each group (G,), at most 2**31.
    """
    least = -(-2 * int(total[-1]) * np.arange(1, N_BINS) // N_BINS)  # twice the running weight where a bin begins
    edges = np.searchsorted(total, -(-least // 2), side="left")
    edges += 2 * total[edges].astype(np.int64) - weight[edges] < least
    return np.concatenate([[0], edges, [len(total)]])
