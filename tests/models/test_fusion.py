import torch

from ehrdl.models.fusion import GatedFusion


def _inputs(n=4):
    torch.manual_seed(0)
    present = [torch.tensor([True, True, False, True] * (n // 4)), torch.ones(n, dtype=torch.bool)]
    return [torch.randn(n, 6), torch.randn(n, 3)], present


def test_fused_width_does_not_depend_on_the_modalities(spec):
    features, present = _inputs()
    assert GatedFusion(spec, [6, 3], width=16)(features, present).shape == (4, 16)
    assert GatedFusion(spec, [6], width=16)(features[:1], present[:1]).shape == (4, 16)


def test_features_of_an_absent_modality_have_no_influence(spec):
    features, present = _inputs()
    fusion = GatedFusion(spec, [6, 3]).eval()
    before = fusion(features, present)
    features[0][2] = 1e3
    assert torch.equal(fusion(features, present), before)


def test_absence_of_a_modality_is_learned(spec):
    features, present = _inputs()
    fusion = GatedFusion(spec, [6, 3])
    fusion(features, present).square().sum().backward()
    assert fusion.absence.grad is not None
    assert fusion.absence.grad[0].abs().sum() > 0


def test_modality_dropout_takes_one_present_modality_and_never_the_last(spec):
    torch.manual_seed(0)
    fusion = GatedFusion(spec, [6, 3, 2], modality_dropout=1.0)
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False]]).repeat(200, 1)
    kept = fusion._drop(present)
    assert (kept & ~present).sum() == 0
    assert kept.sum(dim=1).view(200, 3).unique(dim=0).tolist() == [[2, 1, 1]]
    assert (kept[0::3].float().mean(dim=0) < 0.8).all()  # each of the three is dropped about a third of the time


def test_modality_dropout_is_off_in_evaluation(spec):
    features, present = _inputs()
    fusion = GatedFusion(spec, [6, 3], modality_dropout=1.0).eval()
    assert torch.equal(fusion(features, present), fusion(features, present))
    assert torch.equal(fusion._drop(torch.stack(present, dim=1)), torch.stack(present, dim=1))
