"""Every fusion, in a whole network: what is missing, what was dropped. A new one is tested by being listed."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from ehrdl.batch import Batch
from ehrdl.errors import ConfigError
from ehrdl.models.fusion.cross_attention import CrossAttentionFusion
from ehrdl.models.fusion.simple import ConcatFusion, GatedFusion, LateFusion, ModalityDropout
from ehrdl.models.head import MlpHead
from ehrdl.models.loss import masked_bce
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.notes.words import WordEvidence
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.models.static import StaticMlp

SMALL = {"width": 16}
FUSIONS = {
    "gated": partial(GatedFusion, **SMALL),
    "concat": partial(ConcatFusion, **SMALL),
    "cross-attention": partial(CrossAttentionFusion, **SMALL, heads=2),
    "late": LateFusion,
}
JOINS_FEATURES = ["gated", "concat"]
VARIANTS = [("note", "series"), ("note",), ("series",)]
FACTS = [(-40.0, 0, 139.0), (-3.0, 1, 2.0), (-2.0, 2, 1.0)]
NOTES = [([3, 4, 5, 6], -1.0), ([9, 8, 7], -30.0), ([11, 12], -90.0)]


def network(spec, name, seed=0, dropout=0.1, words=None, encoder=True, **options):
    torch.manual_seed(seed)
    if name != "late":
        options["dropout"] = dropout
    return MultimodalModel(
        spec,
        note=partial(NoteTransformer, width=16, heads=2, dropout=dropout, token_dropout=dropout) if encoder else None,
        series=partial(SeriesGRU, hidden=12, dropout=dropout),
        static=partial(StaticMlp, width=8, dropout=dropout),
        fusion=partial(FUSIONS[name], **options),
        head=partial(MlpHead, dropout=dropout),
        words=words,
    )


def part(batch, rows):
    """Some samples of a batch, in the order of `rows`."""
    place = {row: i for i, row in enumerate(rows)}
    links = [i for i, row in enumerate(batch.link_sample.tolist()) if row in place or row == batch.batch_size]
    sample = [place.get(int(batch.link_sample[i]), len(rows)) for i in links]
    own = {
        name: getattr(batch, name)[rows] for name in ("row", "value", "hours", "channel", "valid", "static", "label")
    }
    linked = {name: getattr(batch, name)[links] for name in ("link_chunk", "link_hours", "link_own_stay")}
    return replace(batch, **own, **linked, link_sample=torch.tensor(sample))


@pytest.fixture(params=FUSIONS)
def name(request):
    return request.param


@pytest.mark.parametrize("variant", VARIANTS, ids="+".join)
def test_logits_are_finite_and_every_parameter_gets_a_gradient_whatever_is_missing(spec, name, variant, random_batch):
    model = network(spec.only(*variant), name)
    batch = random_batch(20)
    assert model(batch).shape == (20, 2)
    model.loss(batch).backward()
    assert [key for key, weight in model.named_parameters() if weight.grad is None] == []
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(
    ("facts", "notes"),
    [([FACTS] * 3, [[]] * 3), ([[]] * 3, [NOTES] * 3), ([[]] * 3, [[]] * 3), ([FACTS, [], []], [[], NOTES, []])],
    ids=["no notes", "no series", "neither", "never both"],
)
def test_a_batch_in_which_a_modality_is_missing_throughout_trains(spec, name, make_batch, facts, notes):
    model = network(spec, name)
    model.loss(make_batch(facts, notes)).backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
    assert model.eval()(make_batch(facts, notes)).isfinite().all()


def test_present_content_matters_and_absent_content_has_no_influence_at_all(spec, name, random_batch):
    model = network(spec, name).eval()
    batch = random_batch(10)
    encoded = model.encode(batch)
    features, steps = encoded.features, encoded.steps
    before = model.logits(encoded)
    for m, name in enumerate(("note", "series")):
        has = encoded.present[name]
        assert has.any() and not has.all()

        def changed(rows, m=m, name=name):
            other = features | {name: torch.where(rows.unsqueeze(1), 1e3, features[name])}
            walked = [*steps]
            if steps:
                states = torch.where(rows.view(-1, 1, 1), 1e3, steps[m].states)
                walked[m] = replace(steps[m], features=other[name], states=states)
            return model.logits(encoded._replace(features=other, steps=walked))

        assert torch.equal(changed(~has), before)
        assert not torch.isclose(changed(has), before)[has].any()


def test_order_of_the_samples_does_not_matter_and_a_batch_of_one_equals_its_row(spec, name, random_batch):
    model = network(spec, name).eval()
    batch = random_batch(11)
    whole = model(batch)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1)).tolist()
    assert torch.allclose(model(part(batch, order)), whole[order], atol=1e-5)
    for row in range(5):  # all present, no facts, all present, no notes, all present
        assert torch.allclose(model(part(batch, [row])), whole[[row]], atol=1e-5)


def test_padding_and_fillers_have_no_influence(spec, name, make_batch):
    model = network(spec, name).eval()
    facts, notes = [FACTS, [], FACTS[:1]], [NOTES, NOTES[:1], []]
    wide = make_batch(facts, notes, n_padding=7, n_fillers=8)
    assert torch.allclose(model(wide), model(make_batch(facts, notes)), atol=1e-5)


def test_copies_of_a_batch_as_captum_makes_them_give_the_same_logits(spec, name, random_batch):
    model = network(spec, name).eval()
    batch = random_batch(6)
    assert torch.allclose(model(batch.repeat(3)), model(batch).repeat(3, 1), atol=1e-5)


def test_each_encoder_reads_a_batch_once(spec, name, random_batch):
    model = network(spec, name)
    calls = []
    model.series.gru.register_forward_hook(lambda *_: calls.append("series"))
    model.note.chunks = lambda *given, plain=model.note.chunks: [calls.append("note"), plain(*given)][1]
    model.static.hidden.register_forward_hook(lambda *_: calls.append("static"))
    model.loss(random_batch(4))
    assert sorted(calls) == ["note", "series", "static"]


def test_same_seed_gives_the_same_training(spec, name, random_batch):
    def train():
        model = network(spec, name, seed=3, modality_dropout=0.5)
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


def test_training_step_works_under_bfloat16_autocast(spec, name, random_batch):
    model = network(spec, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(random_batch(10))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_thirty_two_samples_are_learned_by_heart(spec, name, random_batch):
    model = network(spec, name, dropout=0.0, modality_dropout=0.0)
    batch = random_batch(32)
    batch.static[:] = 0.0  # or the ages alone would tell
    batch.label[:] = torch.randint(0, 2, (32, 2)).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert masked_bce(model.eval()(batch), batch.label) < 0.05


# ------------------------------------------------------------------------------------------- modality dropout


def test_modality_dropout_takes_one_present_modality_and_never_the_last():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False]]).repeat(200, 1)
    kept = ModalityDropout(1.0)(present)
    assert (kept & ~present).sum() == 0
    assert kept.sum(dim=1).view(200, 3).unique(dim=0).tolist() == [[2, 1, 1]]
    assert (kept[0::3].float().mean(dim=0) < 0.8).all()  # each of the three is dropped about a third of the time


def test_every_fusion_drops_modalities_in_training_and_none_in_evaluation(spec, name, random_batch):
    # Without any other dropout, whatever differs between two passes is a modality that was dropped.
    model = network(spec, name, dropout=0.0, modality_dropout=1.0)
    batch = random_batch(5)
    passes = torch.stack([model(batch) for _ in range(20)])
    assert (passes.std(dim=0) > 0).all()
    assert torch.equal(model.eval()(batch), model(batch))
    model.train()
    model.fusion.drop.probability = 0.0
    assert torch.allclose(model(batch), model.eval()(batch), atol=1e-6)


@pytest.mark.parametrize(("words", "encoder"), [(None, True), (WordEvidence, True), (WordEvidence, False)])
def test_a_dropped_modality_says_nothing_at_all(spec, name, random_batch, monkeypatch, words, encoder):
    # Neither through the fusion nor by its own linear head nor by its words: the note is not read.
    model = network(spec, name, dropout=0.0, modality_dropout=1.0, words=words, encoder=encoder)
    if words:
        nn.init.normal_(model.words.weight.weight)
    lost = torch.tensor([False] + [True] * 2)
    monkeypatch.setattr(ModalityDropout, "forward", lambda self, present: present & lost if self.training else present)
    batch = random_batch(6)
    other = replace(batch, tokens=batch.tokens.flip(1) % 7 + 3)
    assert torch.equal(model.train()(batch), model(other))
    assert not torch.allclose(model.eval()(batch), model(other))


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_a_modality_dropout_that_is_no_probability_is_refused(spec, name, probability):
    with pytest.raises(ConfigError, match=r"Fusion\.modality_dropout: .* is not between 0 and 1"):
        FUSIONS[name](spec, [6, 3, 2], modality_dropout=probability)


# --------------------------------------------------------------------------------------------- what each one does


def _inputs(n=4):
    torch.manual_seed(0)
    present = [torch.tensor([True, True, False, True] * (n // 4)), torch.ones(n, dtype=torch.bool)]
    return [torch.randn(n, 6), torch.randn(n, 3)], present


@pytest.mark.parametrize("name", JOINS_FEATURES)
def test_fused_width_does_not_depend_on_the_modalities(spec, name):
    features, present = _inputs()
    assert FUSIONS[name](spec, [6, 3])(features, present).shape == (4, 16)
    assert FUSIONS[name](spec, [6])(features[:1], present[:1]).shape == (4, 16)


@pytest.mark.parametrize("name", JOINS_FEATURES)
def test_absence_of_a_modality_is_learned(spec, name):
    features, present = _inputs()
    fusion = FUSIONS[name](spec, [6, 3])
    fusion(features, present).square().sum().backward()
    assert fusion.absence.grad[0].abs().sum() > 0


def test_concat_sets_the_modalities_or_their_absence_side_by_side(spec):
    features, present = _inputs()
    fusion = ConcatFusion(spec, [6, 3], width=5).eval()
    joined = torch.cat([fusion.project[0](features[0]), fusion.project[1](features[1])], dim=1)
    joined[2, :5] = fusion.absence[0]
    assert torch.allclose(fusion(features, present), nn.functional.gelu(fusion.layer[0](joined)))


def test_late_fusion_averages_the_logits_of_what_is_present(spec):
    fusion = LateFusion(spec, [6, 3, 2]).eval()
    logits = [torch.tensor([[4.0, 1.0]] * 3), torch.tensor([[2.0, 3.0]] * 3), torch.tensor([[0.0, -1.0]] * 3)]
    present = [torch.tensor(has) for has in ([True, True, False], [True, False, False], [True, True, True])]
    assert fusion(logits, present).tolist() == [[2.0, 1.0], [2.0, 0.0], [0.0, -1.0]]


def test_late_fusion_has_no_head_and_its_logits_are_the_average_of_the_linear_heads(spec, random_batch):
    model = network(spec, "late").eval()
    assert isinstance(model.head, nn.Identity)
    assert not any(key.startswith(("head.", "fusion.")) for key in model.state_dict())
    encoded = model.encode(batch := random_batch(10))
    own = [model.unimodal_heads[name](x) for name, x in encoded.features.items()]
    logits = model(batch)
    for row in range(10):
        spoken = [logit[row] for logit, has in zip(own, encoded.present.values(), strict=True) if has[row]]
        assert torch.allclose(logits[row], sum(spoken) / len(spoken), atol=1e-6)


def test_the_default_fusion_and_the_names_of_its_weights_are_those_of_earlier_checkpoints(spec):
    model = MultimodalModel(spec)
    own = {key.removeprefix("fusion.") for key in model.state_dict() if key.startswith("fusion.")}
    layers = {f"project.{m}.{i}.{kind}" for m in range(3) for i in range(2) for kind in ("weight", "bias")}
    assert own == layers | {"absence", "gate.weight", "gate.bias"}
    assert isinstance(model.fusion, GatedFusion) and isinstance(model.head, MlpHead)


def test_batches_stay_as_they_are(spec, name, random_batch):
    batch = random_batch(6)
    before = Batch(**{key: value.clone() for key, value in vars(batch).items()})
    network(spec, name).loss(batch)
    assert all(torch.equal(getattr(batch, key), value) for key, value in vars(before).items())
