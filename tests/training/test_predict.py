"""Predictions belong to samples by their row, whatever the order of batches, and are calibrated on tuning alone."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.errors import SchemaError
from ehrdl.models.base import Network
from ehrdl.options.training import Optim
from ehrdl.schema import HELD_OUT, PREDICTIONS, TRAIN, TUNING, check
from ehrdl.training.lit import LitNetwork
from ehrdl.training.predict import predict, prediction_rows, write_predictions


class Age(nn.Module, Network):
    """Its logit is the first static feature: what it says of a sample can be looked up."""

    def forward(self, batch):
        return batch.static[:, :1] / 100


def test_predictions_are_joined_by_row_whatever_the_order_of_batches(prepared):
    data = ClinicalDataModule(prepared, BatchOptions(size=16))
    model = LitNetwork(Age(), prepared.spec, Optim())
    rows, prob = predict(model, data.train_dataloader(), {"accelerator": "cpu"})  # training batches are shuffled
    assert (np.diff(rows) < 0).any()
    assert sorted(rows.tolist()) == prepared.rows(TRAIN).tolist()
    expected = torch.sigmoid(torch.from_numpy(prepared.dataset.static[rows, :1] / 100).float()).numpy()
    np.testing.assert_allclose(prob, expected, atol=1e-6)


def test_predictions_do_not_depend_on_the_batch_size(prepared):
    model = LitNetwork(Age(), prepared.spec, Optim())
    loaders = [ClinicalDataModule(prepared, BatchOptions(size=size)).predict_dataloader() for size in (7, 64)]
    (rows, prob), (other_rows, other_prob) = (predict(model, loader, {"accelerator": "cpu"}) for loader in loaders)
    np.testing.assert_array_equal(rows, other_rows)
    np.testing.assert_allclose(prob, other_prob, rtol=0, atol=1e-6)
    assert set(rows) == {*prepared.rows(TUNING), *prepared.rows(HELD_OUT)}


@pytest.fixture
def evaluated(prepared):
    """Rows of tuning and held out in a random order, and a probability for each, too high on purpose."""
    rows = np.concatenate([prepared.rows(TUNING), prepared.rows(HELD_OUT)])
    rows = np.random.default_rng(0).permutation(rows)
    label = prepared.samples.label_readmission.to_numpy()[rows]
    noise = np.random.default_rng(1).normal(size=len(rows))
    return rows, 1 / (1 + np.exp(-(np.nan_to_num(label) + noise)))


def test_rows_say_the_same_whatever_their_order(prepared, evaluated):
    rows, prob = evaluated
    table = prediction_rows(prepared.samples, ["readmission"], "fused", 0, rows, prob[:, None])
    order = np.argsort(rows)
    again = prediction_rows(prepared.samples, ["readmission"], "fused", 0, rows[order], prob[order, None])
    exact = table.drop(columns="prob_calibrated").reset_index(drop=True)
    pd.testing.assert_frame_equal(exact, again.drop(columns="prob_calibrated").reset_index(drop=True))
    np.testing.assert_allclose(table.prob_calibrated, again.prob_calibrated, atol=1e-6)
    looked_up = dict(zip(rows.tolist(), prob.tolist(), strict=True))
    assert table.prob.tolist() == [looked_up[sample] for sample in table.sample_id]


def test_calibration_on_tuning_gives_the_mean_risk_of_tuning_and_keeps_the_ranking(prepared, evaluated):
    rows, prob = evaluated
    table = prediction_rows(prepared.samples, ["readmission"], "fused", 0, rows, prob[:, None])
    tuning = table[(table.split == TUNING) & table.label.notna()]
    assert tuning.prob.mean() > tuning.label.mean() + 0.2
    assert tuning.prob_calibrated.mean() == pytest.approx(tuning.label.mean(), abs=1e-3)
    ranked = table.sort_values("prob")
    assert (ranked.prob_calibrated.diff().dropna() >= 0).all()


def test_held_out_labels_have_no_say_in_the_calibration(prepared, evaluated):
    rows, prob = evaluated
    turned = prepared.samples.copy()
    held_out = turned.split == HELD_OUT
    turned.loc[held_out, "label_readmission"] = 1 - turned.label_readmission[held_out]
    tables = [prediction_rows(s, ["readmission"], "fused", 0, rows, prob[:, None]) for s in (prepared.samples, turned)]
    np.testing.assert_array_equal(tables[0].prob_calibrated, tables[1].prob_calibrated)


def test_written_predictions_are_read_as_they_were_and_pass_the_check(prepared, evaluated, tmp_path):
    rows, prob = evaluated
    parts = [prediction_rows(prepared.samples, ["readmission"], name, 0, rows, prob[:, None]) for name in ("a", "b")]
    written = write_predictions(parts, tmp_path / "predictions.parquet")
    table = pq.read_table(tmp_path / "predictions.parquet")
    check(table, PREDICTIONS)
    assert table.column_names[: len(PREDICTIONS.names())] == PREDICTIONS.names()
    np.testing.assert_array_equal(table["prob"].to_numpy(), written.prob)
    assert set(table["model"].to_pylist()) == {"a", "b"}
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]


def test_a_probability_above_one_is_refused_and_nothing_is_written(prepared, evaluated, tmp_path):
    rows, prob = evaluated
    part = prediction_rows(prepared.samples, ["readmission"], "a", 0, rows, prob[:, None])
    part.loc[3, "prob"] = 1.5
    with pytest.raises(SchemaError, match="prob"):
        write_predictions([part], tmp_path / "predictions.parquet")
    assert list(tmp_path.iterdir()) == []
