"""bf16-true and 64-true train, keep the hours of a batch, and predict what a folder that is loaded again predicts."""

import functools
import math

import numpy as np
import pytest
import torch

from ehrdl.comparators.saved import load_deep
from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.errors import ConfigError
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.channels import ChannelTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.models.series.gru_d import GRUD
from ehrdl.models.series.triplets import TripletTransformer
from ehrdl.models.series.window_summary import WindowSummary
from ehrdl.options.training import Optim
from ehrdl.processes.trainer import check_trainer
from ehrdl.schema import TRAIN
from ehrdl.training.fit import fit
from ehrdl.training.precision import DoubleWeights, HalfWeights
from ehrdl.training.predict import predict
from ehrdl.training.setup import Fit, Training

NOTE = functools.partial(NoteTransformer, width=16, layers=1, dropout=0.0, token_dropout=0.0)


def small(spec):
    """A network without dropout, whose draws depend on the precision."""
    model = MultimodalModel(spec, note=NOTE, series=functools.partial(SeriesGRU, hidden=8))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture
def loaders(prepared):
    return ClinicalDataModule(prepared, BatchOptions(size=math.ceil(len(prepared.rows(TRAIN)) / 8)))


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16-true", 0.03), ("64-true", 1e-5)])
@pytest.mark.parametrize("selection", ["averaged", "best_tuning"])
def test_a_fit_moves_the_weights_and_its_checkpoint_predicts_nearly_the_same_in_32_bits(
    prepared, loaders, tmp_path, precision, tolerance, selection
):
    trainer = check_trainer({"max_epochs": 2, "accelerator": "cpu", "precision": precision})
    fitted = fit(
        Training(small, Optim(selection=selection, lr=0.01), trainer), loaders, prepared.spec, Fit(tmp_path, "fused", 0)
    )
    torch.manual_seed(0)
    fresh = dict(small(prepared.spec).named_parameters())
    assert not any(
        torch.equal(value, fresh[name]) for name, value in fitted.network.named_parameters() if value.ndim > 1
    )
    _, prob = predict(fitted, loaders.val_dataloader(), trainer)
    loaded = load_deep(tmp_path / "checkpoints" / "fused-seed0.ckpt", small)
    _, same = predict(loaded, loaders.val_dataloader(), trainer)
    np.testing.assert_array_equal(same, prob)
    _, full = predict(loaded, loaders.val_dataloader(), {"accelerator": "cpu"})
    np.testing.assert_allclose(prob, full, atol=tolerance)


@pytest.mark.parametrize("series", [SeriesGRU, GRUD, TripletTransformer, ChannelTransformer, WindowSummary])
@pytest.mark.parametrize("plugin", [HalfWeights, DoubleWeights])
def test_every_series_encoder_takes_a_step(prepared, loaders, series, plugin):
    torch.manual_seed(0)
    precision, model = plugin(), MultimodalModel(prepared.spec.only("series"), note=None, series=series)
    model = precision.convert_module(model)
    batch = precision.convert_input(next(iter(loaders.train_dataloader())))
    with precision.forward_context():
        loss = model.loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_half_weights_leave_the_batch_and_the_scalers_as_they_are(prepared, loaders):
    batch = next(iter(loaders.train_dataloader()))
    assert HalfWeights().convert_input(batch) is batch
    model = HalfWeights().convert_module(small(prepared.spec))
    assert {buffer.dtype for buffer in model.buffers() if buffer.is_floating_point()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if p.ndim > 1} == {torch.bfloat16}


def test_double_weights_leave_whole_numbers_as_they_are(loaders):
    batch = next(iter(loaders.train_dataloader()))
    double = DoubleWeights().convert_input(batch)
    assert (double.hours.dtype, double.tokens.dtype, double.valid.dtype) == (torch.float64, torch.int64, torch.bool)
    torch.testing.assert_close(double.hours, batch.hours.double())


def test_a_precision_that_is_not_ours_is_refused():
    with pytest.raises(ConfigError, match="precision: 16-true is not one of 32-true, bf16-mixed, bf16-true"):
        check_trainer({"precision": "16-true", "accelerator": "cpu"})
