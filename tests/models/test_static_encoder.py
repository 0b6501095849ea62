from dataclasses import replace

import torch

from ehrdl.models.static import StaticMlp


def test_static_features_are_always_present(spec, make_batch):
    features, present = StaticMlp(spec, width=8)(make_batch([[], []]))
    assert features.shape == (2, 8)
    assert present.tolist() == [True, True]


def test_static_features_are_standardised_with_the_spec(spec, make_batch):
    batch = make_batch([[], []])  # ages 60 and 61, male 0 and 1
    torch.manual_seed(0)
    raw = StaticMlp(spec).eval()
    torch.manual_seed(0)
    scaled = StaticMlp(replace(spec, static_mean=(0.0, 0.0), static_std=(1.0, 1.0))).eval()
    values = torch.tensor([[0.0, -1.0], [1 / 15, 1.0]])
    assert torch.allclose(raw(batch)[0], scaled(replace(batch, static=values))[0])


def test_source_without_static_features_works(spec, make_batch):
    batch = replace(make_batch([[], []]), static=torch.zeros(2, 0))
    features, _ = StaticMlp(replace(spec, statics=(), static_mean=(), static_std=()))(batch)
    assert features.isfinite().all()
