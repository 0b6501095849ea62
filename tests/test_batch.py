import json
from dataclasses import fields, replace

import pytest
import torch

from ehrdl.batch import AuxiliarySpec, Batch, ChannelSpec, DataSpec
from ehrdl.schema import REGRESSION, OutputSpec

SPEC = DataSpec(
    modalities=("note", "series"),
    channels=(ChannelSpec("sodium", "numeric", "mEq/L", 138.5, 4.2, 50, 225),),
    statics=("age_years", "age_missing"),
    static_mean=(63.0, 0.0),
    static_std=(17.0, 1.0),
    window_hours=48.0,
    vocab_size=100,
    pad_id=0,
    chunk_tokens=16,
    outputs=(OutputSpec("death"), OutputSpec("readmission")),
    prevalence=(0.05, 0.12),
    note_kinds=("other", "discharge//DS"),
)


def batch(**changes):
    """Two samples; chunks 0 and 1 are read by sample 0, chunk 1 by sample 1 too; chunks 2 to 7 are filler."""
    tensors = {
        "row": torch.tensor([4, 9]),
        "value": torch.tensor([[138.0, 0.0, 0.0], [140.0, 1.0, 0.0]]),
        "hours": torch.tensor([[-2.0, 0.0, 0.0], [-5.0, -1.0, 0.0]]),
        "channel": torch.tensor([[0, 0, 0], [0, 1, 0]]),
        "valid": torch.tensor([[True, False, False], [True, True, False]]),
        "static": torch.zeros(2, 2),
        "tokens": torch.arange(32).reshape(8, 4),
        "token_valid": torch.ones(8, 4, dtype=torch.bool),
        "kind": torch.tensor([2, 1, 0, 0, 0, 0, 0, 0]),
        "link_chunk": torch.tensor([0, 1, 1, 2, 3, 4, 5, 6, 7]),
        "link_sample": torch.tensor([0, 0, 1, 2, 2, 2, 2, 2, 2]),
        "link_hours": torch.tensor([-9.0, -1.0, -3.0, 0, 0, 0, 0, 0, 0]),
        "link_own_stay": torch.tensor([False, True, True, *[False] * 6]),
        "label": torch.tensor([[1.0], [float("nan")]]),
    }
    return Batch(**(tensors | changes))


WRONG = {
    "row": torch.zeros(3, dtype=torch.int64),
    "hours": torch.zeros(2, 4),
    "channel": torch.zeros(2, 2, dtype=torch.int64),
    "valid": torch.zeros(3, 3, dtype=torch.bool),
    "static": torch.zeros(2),
    "token_valid": torch.ones(8, 5, dtype=torch.bool),
    "kind": torch.zeros(9, dtype=torch.int64),
    "link_sample": torch.zeros(8, dtype=torch.int64),
    "link_hours": torch.zeros(10),
    "link_own_stay": torch.zeros(8, dtype=torch.bool),
    "label": torch.zeros(3, 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_tensor_of_another_shape_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"Batch.{name} has shape"):
        batch(**{name: WRONG[name]})


@pytest.mark.parametrize("n_chunks", [0, 7, 12])
def test_the_number_of_chunks_is_a_positive_multiple_of_8(n_chunks):
    tokens = torch.zeros(n_chunks, 4, dtype=torch.int64)
    kind = torch.zeros(n_chunks, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"{n_chunks} chunks"):
        batch(tokens=tokens, token_valid=tokens > 0, kind=kind)


def test_a_batch_without_static_features_or_labels_has_width_0():
    empty = batch(static=torch.zeros(2, 0), label=torch.zeros(2, 0))
    assert empty.batch_size == 2


def test_to_applies_a_floating_type_to_floating_tensors_alone():
    half = batch().to(torch.float16)
    kinds = {item.name: getattr(half, item.name).dtype for item in fields(Batch)}
    assert {name for name, kind in kinds.items() if kind == torch.float16} == {
        "value", "hours", "static", "link_hours", "label"
    }  # fmt: skip
    assert {kinds[name] for name in ("row", "channel", "tokens", "kind", "link_chunk", "link_sample")} == {torch.int64}
    assert {kinds[name] for name in ("valid", "token_valid")} == {torch.bool}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_pin_memory_pins_every_tensor():
    pinned = batch().pin_memory()
    assert all(getattr(pinned, item.name).is_pinned() for item in fields(Batch))


def test_repeat_copies_in_order_and_offsets_links():
    twice = batch().repeat(2)
    assert twice.row.tolist() == [4, 9, 4, 9]
    assert twice.value.shape == (4, 3)
    assert twice.tokens.shape == (16, 4)
    assert twice.kind.tolist() == [2, 1, 0, 0, 0, 0, 0, 0] * 2
    assert twice.link_chunk.tolist() == [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15]
    # Fillers pool into row 2 B = 4 of the repeated batch; the second copy's samples are 2 and 3.
    assert twice.link_sample.tolist() == [0, 0, 1, 4, 4, 4, 4, 4, 4, 2, 2, 3, 4, 4, 4, 4, 4, 4]
    assert twice.label[:2].nan_to_num(-1).tolist() == twice.label[2:].nan_to_num(-1).tolist()


def test_each_copy_pools_what_the_original_pools():
    def pooled(b):
        rows = torch.zeros(b.batch_size + 1, 4).index_add(0, b.link_sample, b.tokens[b.link_chunk].float())
        return rows[:-1]

    once, thrice = pooled(batch()), pooled(batch().repeat(3))
    assert torch.equal(thrice, once.repeat(3, 1))


def test_repeat_once_is_the_batch():
    for item in fields(Batch):
        ours, again = getattr(batch(), item.name), getattr(batch().repeat(1), item.name)
        assert torch.equal(ours.nan_to_num() if ours.is_floating_point() else ours,
                           again.nan_to_num() if ours.is_floating_point() else again)  # fmt: skip


def test_a_spec_survives_json_and_a_weights_only_checkpoint(tmp_path):
    assert DataSpec.from_dict(json.loads(json.dumps(SPEC.to_dict(), allow_nan=False))) == SPEC
    torch.save({"spec": SPEC.to_dict()}, tmp_path / "model.ckpt")
    assert DataSpec.from_dict(torch.load(tmp_path / "model.ckpt", weights_only=True)["spec"]) == SPEC


def test_the_spec_of_a_run_of_before_there_were_kinds_of_notes_still_loads():
    old = {name: value for name, value in SPEC.to_dict().items() if name != "note_kinds"}
    assert DataSpec.from_dict(old) == replace(SPEC, note_kinds=())


def test_only_narrows_the_modalities_and_nothing_else():
    assert SPEC.only("note") == replace(SPEC, modalities=("note",))
    assert SPEC.only("series").modalities == ("series",)
    assert SPEC.only("note").only("series").modalities == ()


def test_a_spec_that_was_written_before_there_were_regression_outputs_is_read():
    old = SPEC.to_dict()
    del old["label_mean"], old["label_std"]
    old["outputs"] = [{"name": "death", "kind": "binary"}, {"name": "readmission", "kind": "binary"}]
    assert DataSpec.from_dict(old) == SPEC
    assert SPEC.regression == ()


def test_a_regression_output_keeps_its_kind_unit_and_scale():
    outputs = (OutputSpec("death"), OutputSpec("days", "regression", "d"))
    spec = replace(SPEC, outputs=outputs, label_mean=(0.0, 4.5), label_std=(1.0, 2.5))
    assert spec.regression == (1,)
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(ValueError, match="label_mean and label_std need a value for each of the 2 outputs"):
        replace(SPEC, outputs=outputs)


DAYS = AuxiliarySpec(OutputSpec("days", REGRESSION, "d"), 0.5, 3.0, 2.0)


def test_a_network_is_built_for_the_outputs_and_behind_them_the_auxiliary_ones():
    trained = replace(SPEC, auxiliary=(DAYS,)).trained(0.3)
    assert [output.name for output in trained.outputs] == ["death", "readmission", "days"]
    assert (trained.prevalence, trained.label_mean, trained.label_std) == ((0.05, 0.12, 0.5), (0, 0, 3), (1, 1, 2))
    assert trained.weights == (1.0, 1.0, 0.3) and trained.auxiliary == () and trained.regression == (2,)
    assert SPEC.trained(0.3) is SPEC


def test_a_spec_with_auxiliary_outputs_survives_json_and_one_of_before_is_read():
    spec = replace(SPEC, auxiliary=(DAYS,))
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    old = {name: value for name, value in SPEC.to_dict().items() if name not in ("auxiliary", "weights")}
    assert DataSpec.from_dict(old) == SPEC
