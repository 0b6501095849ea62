import math

import pytest
import torch

from ehrdl.errors import ConfigError
from ehrdl.models.series.gru_d import GRUD, DecayCell, intervals

SODIUM, CREATININE, DIALYSIS = 0, 1, 2


def _reference(cell: DecayCell, values, masks, times, events):
    """GRU-D of one sample as Che et al. (2018) write it: one step, one variable, one unit at a time, in plain Python.

    values, masks: lists of T lists of H; values count only where the mask is 1. times: T. The empirical mean is 0.
    """
    weights = {name: parameter.double().tolist() for name, parameter in cell.named_parameters()}
    n, hidden = len(values[0]), len(weights["state_decay.bias"])
    delta, last, state, states = [0.0] * n, [0.0] * n, [0.0] * hidden, []

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    def dot(row, vector):
        return sum(a * b for a, b in zip(row, vector, strict=True))

    for t in range(len(values)):
        for d in range(n):
            if t > 0:
                gap = times[t] - times[t - 1]
                delta[d] = gap if masks[t - 1][d] else gap + delta[d]
        x = []
        for d in range(n):
            gamma = math.exp(-max(0.0, weights["input_decay"][d] * delta[d] + weights["input_decay_bias"][d]))
            mean = 0.0
            x.append(values[t][d] if masks[t][d] else gamma * last[d] + (1 - gamma) * mean)
            if masks[t][d]:
                last[d] = values[t][d]
        decayed = []
        for j in range(hidden):
            rate = dot(weights["state_decay.weight"][j], delta) + weights["state_decay.bias"][j]
            decayed.append(math.exp(-max(0.0, rate)) * state[j])
        row = x + [float(m) for m in masks[t]] + list(events[t])
        inner = [dot(w, row) + b for w, b in zip(weights["inputs.weight"], weights["inputs.bias"], strict=True)]
        z = [sigmoid(inner[j] + dot(weights["gates.weight"][j], decayed)) for j in range(hidden)]
        r = [sigmoid(inner[hidden + j] + dot(weights["gates.weight"][hidden + j], decayed)) for j in range(hidden)]
        reset = [a * b for a, b in zip(r, decayed, strict=True)]
        new = [math.tanh(inner[2 * hidden + j] + dot(weights["candidate.weight"][j], reset)) for j in range(hidden)]
        state = [(1 - z[j]) * decayed[j] + z[j] * new[j] for j in range(hidden)]
        states.append(state)
    return states


def test_states_equal_a_loop_over_the_equations_of_the_paper(spec, make_batch):
    torch.manual_seed(0)
    encoder = GRUD(spec, hidden=4, bin_hours=12.0).eval()
    torch.nn.init.normal_(encoder.cell.state_decay.bias)  # some rates above, some below 0
    torch.nn.init.normal_(encoder.cell.input_decay_bias, std=0.1)
    facts = [(-47.0, SODIUM, 148.0), (-40.0, DIALYSIS, 1.0), (-20.0, SODIUM, 136.0), (-16.0, CREATININE, 2.0)]
    # Bins end at -36, -24, -12 and 0 h. Standardised: 148 -> 2, 136 -> -1; 2.0 -> 2.
    values = [[2.0, 0.0], [0.0, 0.0], [-1.0, 2.0], [0.0, 0.0]]
    masks = [[1, 0], [0, 0], [1, 1], [0, 0]]
    events = [[math.log(2)], [0.0], [0.0], [0.0]]
    expected = _reference(encoder.cell, values, masks, [0.0, 0.5, 1.0, 1.5], events)
    states = encoder.steps(make_batch([facts])).states[0]
    assert torch.allclose(states.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6)


def test_random_series_equal_the_loop_too():
    torch.manual_seed(1)
    cell = DecayCell(n_inputs=5, hidden=3, n_events=2).double()
    observed = (torch.rand(2, 9, 5) < 0.4).double()
    value, events = torch.randn(2, 9, 5).double(), torch.rand(2, 9, 2).double()
    last = value.clone()
    for t in range(9):
        before = last[:, t - 1] if t else torch.zeros(2, 5).double()
        last[:, t] = torch.where(observed[:, t] > 0, value[:, t], before)
    states = cell(last, observed, intervals(observed, 0.25), events)
    for i in range(2):
        times = [0.25 * t for t in range(9)]
        expected = _reference(cell, value[i].tolist(), observed[i].tolist(), times, events[i].tolist())
        assert torch.allclose(states[i], torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_an_old_value_decays_to_the_mean_and_a_new_one_does_not(spec, make_batch):
    cell = GRUD(spec, hidden=4, bin_hours=12.0).eval().cell
    with torch.no_grad():
        cell.input_decay.fill_(50.0)  # forgets within a bin
        cell.state_decay.weight.fill_(0.0)
        cell.state_decay.bias.fill_(-1.0)
    observed = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    none = torch.zeros(1, 2, 1)
    high, low = torch.tensor([[[3.0, 0.0], [3.0, 0.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 0.0]]])
    decayed, mean = (cell(x, observed, intervals(observed, 0.5), none) for x in (high, low))
    assert torch.allclose(decayed, mean, atol=1e-6)
    assert not torch.allclose(decayed, cell(-high, observed, intervals(observed, 0.5), none), atol=1e-2)


def test_bins_that_do_not_divide_the_window_are_refused(spec):
    with pytest.raises(ConfigError, match=r"GRUD: bin_hours 7 .* 48 h"):
        GRUD(spec, bin_hours=7)
