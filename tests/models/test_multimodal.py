from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from ehrdl.batch import Batch
from ehrdl.models.base import Network
from ehrdl.models.fusion.simple import GatedFusion
from ehrdl.models.head import MlpHead
from ehrdl.models.loss import masked_bce, predicted
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.schema import OutputSpec

SMALL = partial(
    MultimodalModel,
    note=partial(NoteTransformer, width=32, heads=2),
    series=partial(SeriesGRU, hidden=32),
    fusion=partial(GatedFusion, width=32),
)
VARIANTS = [("note", "series"), ("note",), ("series",)]


@pytest.fixture(params=VARIANTS, ids="+".join)
def model(request, spec):
    torch.manual_seed(0)
    return SMALL(spec.only(*request.param))


def test_spec_decides_which_encoders_are_built(spec):
    both, note, series = (SMALL(spec.only(*variant)) for variant in VARIANTS)
    assert (len(both.encoders), len(note.encoders), len(series.encoders)) == (3, 2, 2)
    assert note.series is None
    assert series.note is None


def test_logits_are_one_an_output_and_finite_whatever_is_missing(model, random_batch):
    logits = model(random_batch(10))
    assert logits.shape == (10, 2)
    assert logits.isfinite().all()


def test_every_parameter_gets_a_gradient(model, random_batch):
    model.loss(random_batch(20)).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_unknown_labels_have_no_influence_on_the_loss(model, random_batch):
    model.eval()
    batch = random_batch(10)
    batch.label[3] = float("nan")
    one_less = Batch(**{**vars(batch), "label": batch.label.clone()})
    assert torch.equal(model.loss(batch), model.loss(one_less))
    batch.label[:] = float("nan")
    assert model.loss(batch).item() == 0


def test_training_loss_adds_the_modalities_own_losses(spec, random_batch):
    torch.manual_seed(0)
    model = SMALL(spec).eval()
    batch = random_batch(10)
    plain = masked_bce(model(batch), batch.label)
    assert model.loss(batch) > plain
    model.unimodal_weight = 0.0
    assert torch.equal(model.loss(batch), plain)


def test_logits_are_the_evidence_of_each_modality_and_of_all_together(spec, random_batch):
    torch.manual_seed(0)
    model = SMALL(spec).eval()
    encoded = model.encode(random_batch(10))
    features, present = list(encoded.features.values()), list(encoded.present.values())
    together = model.head(model.fusion(features, present))
    own = [x @ model.unimodal_heads[name].logits.weight.T for name, x in encoded.features.items()]
    assert list(encoded.features) == ["note", "series", "static"]
    assert torch.allclose(model.logits(encoded), together + sum(own), atol=1e-6)
    present[0][:] = False
    without = model.head(model.fusion(features, present))
    assert torch.allclose(model.logits(encoded), without + sum(own[1:]), atol=1e-6)


def test_batches_as_captum_repeats_them_give_the_same_logits(model, random_batch):
    model.eval()
    batch = random_batch(6)
    assert torch.allclose(model(batch.repeat(3)), model(batch).repeat(3, 1), atol=1e-5)


def test_same_seed_gives_the_same_training(spec, random_batch):
    def train():
        torch.manual_seed(3)
        model = SMALL(spec)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step in range(3):
            optimizer.zero_grad()
            model.loss(random_batch(10, seed=step)).backward()
            optimizer.step()
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(train(), train())
    finally:
        torch.use_deterministic_algorithms(False)


def test_training_step_works_under_bfloat16_autocast(model, random_batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(random_batch(10))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_thirty_two_samples_are_learned_by_heart(spec, random_batch, variant):
    torch.manual_seed(0)
    model = SMALL(
        spec.only(*variant),
        note=partial(NoteTransformer, width=32, heads=2, dropout=0.0, token_dropout=0.0),
        series=partial(SeriesGRU, hidden=32, dropout=0.0),
        fusion=partial(GatedFusion, width=32, dropout=0.0, modality_dropout=0.0),
        head=partial(MlpHead, dropout=0.0),
    )
    batch = random_batch(32)
    batch.static[:] = 0.0  # or the ages alone would tell
    seen = torch.stack([has for name, has in model.encode(batch).present.items() if name != "static"]).any(dim=0)
    label = torch.randint(0, 2, (32, 2)).float()
    batch.label[:] = label.masked_fill(~seen.unsqueeze(1), float("nan"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert masked_bce(model.eval()(batch), batch.label) < 0.05


def test_numbers_are_learned_by_heart_beside_a_binary_output(spec, random_batch):
    torch.manual_seed(0)
    outputs = (OutputSpec("death"), OutputSpec("days", "regression", "d"))
    spec = replace(spec, outputs=outputs, prevalence=(0.5, 0.5), label_mean=(0.0, 5.0), label_std=(1.0, 3.0))
    model = SMALL(
        spec,
        note=partial(NoteTransformer, width=32, heads=2, dropout=0.0, token_dropout=0.0),
        series=partial(SeriesGRU, hidden=32, dropout=0.0),
        fusion=partial(GatedFusion, width=32, dropout=0.0, modality_dropout=0.0),
        head=partial(MlpHead, dropout=0.0),
    )
    batch = random_batch(32)
    batch.label[:, 0] = torch.randint(0, 2, (32,)).float()
    batch.label[:, 1] = 5 + 3 * torch.randn(32)
    batch.label[4, 1] = float("nan")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    prob, days = predicted(model.eval()(batch), spec).T
    known = ~batch.label[:, 1].isnan()
    assert (days - batch.label[:, 1])[known].abs().mean() < 0.3
    assert ((prob > 0.5) == (batch.label[:, 0] == 1)).all()
    assert days.isfinite().all()


def test_pretrained_parameters_are_those_of_the_encoders(spec):
    assert SMALL(spec).pretrained_parameters() == []
    assert isinstance(SMALL(spec), Network)
