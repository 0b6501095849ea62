"""A network learns, a fit that was stopped goes on to the same weights, a wrong trainer is refused in one line."""

import copy
import dataclasses
import functools
import math
import types

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from sklearn.metrics import average_precision_score

from ehrdl.batch import AuxiliarySpec
from ehrdl.comparators.saved import load_deep
from ehrdl.data.config import BatchOptions
from ehrdl.data.loading.collate import Collate
from ehrdl.data.module import ClinicalDataModule
from ehrdl.errors import ConfigError
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import Optim
from ehrdl.processes.trainer import check_trainer
from ehrdl.schema import HELD_OUT, REGRESSION, TRAIN, TUNING, OutputSpec
from ehrdl.training import checkpoint
from ehrdl.training import fit as fitting
from ehrdl.training.callbacks import _horizon
from ehrdl.training.fit import fit
from ehrdl.training.lit import LitNetwork
from ehrdl.training.predict import predict
from ehrdl.training.setup import Fit, Training

SMALL = functools.partial(MultimodalModel, series=functools.partial(SeriesGRU, hidden=4))


class Stop(Callback):
    """Raises before the step of this number."""

    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise self.error


class Killed(BaseException):
    """What ends a process without warning."""


@pytest.fixture
def fit_series(prepared, tmp_path, monkeypatch):
    """Fits a small network of the series, two epochs of eight steps; with `stop_at`, only up to that step."""
    monkeypatch.setattr(checkpoint, "_CHECKPOINT_STEPS", 3)
    plain = fitting.make_callbacks

    def run(folder, selection="averaged", stop_at=-1, error=Killed, epochs=2):
        monkeypatch.setattr(fitting, "make_callbacks", lambda *args: [*plain(*args), Stop(stop_at, error)])
        (tmp_path / folder).mkdir(exist_ok=True)
        data = ClinicalDataModule(prepared, BatchOptions(size=math.ceil(len(prepared.rows(TRAIN)) / 8)))
        assert len(data.train_dataloader()) == 8
        trainer = check_trainer({"max_epochs": epochs, "accelerator": "cpu"})
        spec = prepared.spec.only("series")
        return fit(
            Training(SMALL, Optim(selection=selection), trainer), data, spec, Fit(tmp_path / folder, "series_only", 0)
        )

    return run


# Checkpoints follow steps 1, 4, 7 of each epoch; 8 is the first step after the validation of the first epoch.
@pytest.mark.parametrize(
    ("selection", "step"), [("averaged", 5), ("averaged", 8), ("best_tuning", 8), ("best_tuning", 13)]
)
def test_a_fit_killed_within_an_epoch_goes_on_and_ends_with_equal_weights(fit_series, selection, step):
    whole = fit_series("whole", selection).state_dict()
    with pytest.raises(Killed):
        fit_series("killed", selection, stop_at=step)
    resumed = fit_series("killed", selection).state_dict()
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(resumed[name], whole[name])] == []


def test_the_weights_that_are_kept_are_the_moving_average_of_those_of_the_steps(prepared, tmp_path):
    seen = []

    class Record(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(copy.deepcopy(dict(module.named_parameters())))

    data = ClinicalDataModule(prepared, BatchOptions(size=math.ceil(len(prepared.rows(TRAIN)) / 8)))
    trainer = check_trainer({"max_epochs": 3, "accelerator": "cpu"})
    spec, optim = prepared.spec.only("series"), Optim(ema_decay=0.5)
    kept = fit(Training(SMALL, optim, trainer), data, spec, Fit(tmp_path, "series_only", 0), watch=[Record()])
    assert len(seen) == 24
    average = seen[0]
    for now in seen[1:]:
        average = {name: torch.lerp(value, now[name], 0.5) for name, value in average.items()}
    for name, weight in kept.named_parameters():
        torch.testing.assert_close(weight, average[name])
    moved = [not torch.allclose(weight, seen[-1][name]) for name, weight in kept.named_parameters()]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [
        ({"max_epochs": 8}, 80.0),  # a tenth of 800 steps
        ({"max_epochs": 80}, 100.0),  # 1 / (1 - 0.99)
        ({"max_epochs": -1, "max_steps": 500}, 50.0),
        ({"max_epochs": 8, "max_steps": 300}, 30.0),
        ({"max_epochs": -1, "max_time": "00:01:00:00"}, 100.0),
        ({"max_epochs": 1, "max_steps": 3}, 2.0),
    ],
)
def test_the_average_looks_back_a_tenth_of_the_run_at_most(trainer, steps):
    assert _horizon(Optim(ema_decay=0.99), 100, trainer) == pytest.approx(steps)


def test_tuning_scores_do_not_depend_on_how_samples_fall_into_batches(prepared):
    # All logits of the first batch lie within [0, 1], as probabilities do.
    outputs = len(prepared.spec.outputs)
    model = LitNetwork(SMALL(prepared.spec.only("series")), prepared.spec.only("series"), Optim())
    label = torch.tensor([0.0, 1.0, 0.0, 1.0])
    logits = torch.tensor([0.2, 0.9, -3.0, 3.0])
    for rows in (slice(0, 2), slice(2, 4)):
        model._update(logits[rows, None].expand(-1, outputs), label[rows, None].expand(-1, outputs))
    scores = model.scores.compute()
    assert [float(value) for name, value in scores.items() if "auroc" in name] == [1.0] * outputs


def test_an_output_of_one_class_in_the_tuning_split_has_no_score_and_enters_no_mean(prepared, monkeypatch, capsys):
    spec = dataclasses.replace(
        prepared.spec.only("series"),
        outputs=(OutputSpec("rare"), OutputSpec("common")),
        prevalence=(0.1, 0.5),
        label_mean=(0.0, 0.0),
        label_std=(1.0, 1.0),
    )
    model = LitNetwork(SMALL(spec), spec, Optim())
    logged = {}
    model._trainer = types.SimpleNamespace(sanity_checking=False, is_global_zero=True)
    monkeypatch.setattr(model, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(model, "log_dict", lambda found, **_: logged.update({k: float(v) for k, v in found.items()}))
    logits = torch.tensor([[0.1, -1.0], [0.2, 2.0], [0.3, 1.0]])
    model._update(logits, torch.tensor([[0.0, 0.0], [0.0, 1.0], [math.nan, math.nan]]))
    model.on_validation_epoch_end()
    assert logged == {"tuning/auroc_common": 1.0, "tuning/auprc_common": 1.0, "tuning/auprc": 1.0}
    assert "tuning: auprc_rare: unknown" in capsys.readouterr().err
    logged.clear()
    model._update(logits, torch.zeros(3, 2))
    model.on_validation_epoch_end()
    assert list(logged) == ["tuning/auprc"] and math.isnan(logged["tuning/auprc"])


def test_without_a_tuning_score_no_epoch_is_selected_and_none_is_stopped_early(prepared, tmp_path, capsys):
    dataset = copy.copy(prepared.dataset)
    dataset.label = np.where((prepared.samples.split == TUNING).to_numpy()[:, None], np.float32(0), dataset.label)
    data = ClinicalDataModule(dataclasses.replace(prepared, dataset=dataset), BatchOptions())
    trainer = check_trainer({"max_epochs": 3, "accelerator": "cpu"})
    optim = Optim(selection="best_tuning", patience=1)
    fit(Training(SMALL, optim, trainer), data, prepared.spec.only("series"), Fit(tmp_path, "series_only", 0))
    said = capsys.readouterr().err
    assert "no epoch has a tuning score to be selected by; the last one's weights are kept" in said
    assert "series_only-seed0: 3 epochs, tuning AUPRC nan" in said and "inf" not in said


def test_a_fit_that_goes_on_takes_only_the_steps_that_are_left_and_keeps_its_old_curves(fit_series, tmp_path):
    with pytest.raises(Killed):
        fit_series("killed", stop_at=8)
    with pytest.raises(Killed):
        fit_series("killed", stop_at=8)
    with pytest.raises(AssertionError, match="not again"):
        fit_series("killed", stop_at=7, error=AssertionError("not again"))
    fit_series("killed", stop_at=6, error=AssertionError("never again"))
    assert len(list((tmp_path / "killed" / "curves").iterdir())) == 4


def test_ctrl_c_reaches_the_caller_and_the_fit_goes_on_later(fit_series, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit_series("run", stop_at=5, error=KeyboardInterrupt)
    assert (tmp_path / "run" / "checkpoints" / ".series_only-seed0" / "last.ckpt").is_file()
    fit_series("run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["series_only-seed0.ckpt"]


@pytest.mark.parametrize("selection", ["averaged", "best_tuning"])
def test_the_final_checkpoint_loads_without_pickle_and_predicts_the_same(fit_series, prepared, tmp_path, selection):
    model = fit_series("run", selection)
    state = torch.load(tmp_path / "run" / "checkpoints" / "series_only-seed0.ckpt", weights_only=True)
    assert state["hyper_parameters"]["spec"] == prepared.spec.only("series").to_dict()
    loaded = fit_series("run", selection, stop_at=0, error=AssertionError("fitted again"))
    data = ClinicalDataModule(prepared, BatchOptions(size=48))
    expected = predict(model, data.predict_dataloader(), {"accelerator": "cpu"})[1]
    np.testing.assert_array_equal(predict(loaded, data.predict_dataloader(), {"accelerator": "cpu"})[1], expected)


def test_averaged_weights_leave_the_buffers_as_they_were(fit_series, prepared, tmp_path):
    fitted = dict(fit_series("run", epochs=6).named_buffers())  # a decay of 0.79, no sum of powers of two
    fresh = dict(SMALL(prepared.spec.only("series")).named_buffers(prefix="network"))
    assert {"network.series.numeric", "network.series.event"} <= fresh.keys()
    assert [name for name in fresh if not torch.equal(fitted[name], fresh[name])] == []


def test_an_auxiliary_output_is_learned_and_never_predicted(prepared, tmp_path):
    extra = AuxiliarySpec(OutputSpec("days", REGRESSION, "d"), 0.5, 4.0, 2.0)
    spec = dataclasses.replace(prepared.spec.only("series"), auxiliary=(extra,))

    def fitted(name, days, weight=0.3):
        dataset = copy.copy(prepared.dataset)
        dataset.label = np.concatenate([dataset.label, np.full((len(dataset), 1), days, np.float32)], axis=1)
        data = ClinicalDataModule(dataclasses.replace(prepared, dataset=dataset), BatchOptions(size=200))
        trainer = check_trainer({"max_epochs": 2, "accelerator": "cpu"})
        model = fit(
            Training(SMALL, Optim(lr=0.05, auxiliary_weight=weight), trainer), data, spec, Fit(tmp_path, name, 0)
        )
        return model, predict(model, data.predict_dataloader(), {"accelerator": "cpu"})[1]

    (high, prob), (low, _) = fitted("high", 6.0), fitted("low", 2.0)
    k = len(spec.outputs)
    assert prob.shape[1] == k and high.network.spec.weights == (1.0,) * k + (0.3,)
    learned = [model.network.head.logits.bias[k].item() for model in (high, low)]
    assert learned[0] > 0 > learned[1]
    loaded = load_deep(tmp_path / "checkpoints" / "high-seed0.ckpt", SMALL)
    assert loaded.network.spec == high.network.spec


def test_seeds_differ_and_one_seed_repeats_itself(prepared, tmp_path):
    def weights(name, seed):
        data = ClinicalDataModule(prepared, BatchOptions(size=200))
        trainer = check_trainer({"max_epochs": 1, "accelerator": "cpu"})
        return fit(
            Training(SMALL, Optim(), trainer), data, prepared.spec.only("series"), Fit(tmp_path, name, seed)
        ).state_dict()

    first, again, other = weights("first", 3), weights("again", 3), weights("other", 4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.head.logits.weight"], other["network.head.logits.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("modalities", [("note", "series"), ("note",), ("series",)])
def test_a_network_learns_32_samples_by_heart(prepared, tmp_path, modalities):
    samples = prepared.samples
    complete = ((samples.group_has_note == "yes") & (samples.group_has_series == "yes")).to_numpy()
    positive = samples.label_readmission.to_numpy() == 1
    cost = prepared.dataset.n_tokens()  # short notes learn as well as long ones, and faster
    chosen = [np.flatnonzero(complete & (positive == wanted)) for wanted in (True, False)]
    rows = np.sort(np.concatenate([few[np.argsort(cost[few], kind="stable")[:16]] for few in chosen]))
    split = np.where(np.isin(np.arange(len(samples)), rows), TRAIN, HELD_OUT)
    split[np.flatnonzero(split == HELD_OUT)[:40]] = TUNING
    data = ClinicalDataModule(dataclasses.replace(prepared, samples=samples.assign(split=split)), BatchOptions(size=32))
    note = functools.partial(NoteTransformer, width=16, dropout=0.0, token_dropout=0.0)
    make = functools.partial(MultimodalModel, note=note, series=functools.partial(SeriesGRU, hidden=16, dropout=0.0))
    trainer = check_trainer({"max_epochs": 60, "accelerator": "cpu", "check_val_every_n_epoch": 60})
    spec = prepared.spec.only(*modalities)
    model = fit(Training(make, Optim(lr=0.01, weight_decay=0.0), trainer), data, spec, Fit(tmp_path, "heart", 0)).eval()
    batch = Collate(prepared.dataset.notes, prepared.frame)(prepared.dataset.__getitems__(rows.tolist()))
    with torch.no_grad():
        prob = torch.sigmoid(model(batch)).numpy().ravel()
    assert np.abs(prob - batch.label.numpy().ravel()).max() < 0.2


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({"max_epoch": 3}, "trainer.max_epoch: not an argument of pytorch_lightning.Trainer"),
        ({"max_epochs": "many"}, "trainer.max_epochs: expected int or null, got 'many'"),
        ({"logger": False}, "trainer.logger: set by ehrdl; leave it out"),
        ({"precision": "16-mixed", "accelerator": "cpu"}, "trainer.precision: 16-mixed needs a GPU, and this runs on"),
        ({"precision": 16, "accelerator": "cpu"}, "trainer.precision: 16 needs a GPU"),
        ({"precision": "fp8"}, "trainer.precision: 'fp8' does not fit"),
        ({"precision": "transformer-engine"}, "trainer: Requirement 'transformer_engine"),
        ({"strategy": "dpp"}, "trainer: You selected an invalid strategy name: `strategy='dpp'`"),
        ({"strategy": "fsdp", "accelerator": "cpu"}, "trainer: The strategy `fsdp` requires a GPU accelerator"),
        ({"accelerator": "quantum"}, "trainer: You selected an invalid accelerator name"),
        ({"devices": 0, "accelerator": "cpu"}, "trainer: .*devices=0"),
        ({"num_nodes": 0}, "trainer.num_nodes: 0 is below 1"),
        ({"fast_dev_run": True}, "trainer.fast_dev_run: keeps no checkpoint"),
        ({"max_epochs": 0}, "trainer.max_epochs: 0 is below 1"),
        ({"max_epochs": -1}, "trainer.max_epochs: -1 never ends"),
        ({"max_steps": 0}, "trainer.max_steps: 0 is below 1"),
        ({"limit_train_batches": 0}, "trainer.limit_train_batches: 0 is not above 0"),
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches: 0 is not above 0"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch: 0 is not above 0"),
    ],
    ids=str,
)
def test_a_wrong_trainer_argument_is_refused_in_one_line(trainer, line):
    with pytest.raises(ConfigError, match="^" + line) as refused:
        check_trainer(trainer)
    assert "\n" not in str(refused.value)


def test_more_devices_than_the_machine_has_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ConfigError, match=r"^trainer: You requested gpu: \[0, 1, 2, 3\] But your machine only has: \[0\]"
    ):
        check_trainer({"accelerator": "gpu", "devices": 4})


def test_a_fit_without_a_number_of_epochs_may_end_by_steps():
    assert check_trainer({"max_epochs": -1, "max_steps": 5, "accelerator": "cpu"})["max_steps"] == 5


def _scored(text):
    return float(text.strip().splitlines()[-1].rpartition(" ")[2])


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["averaged", "best_tuning"])
def test_the_line_after_a_fit_gives_the_tuning_auprc_of_the_weights_that_are_kept(
    fit_series, prepared, selection, capsys
):
    model = fit_series("run", selection, epochs=6)
    said = _scored(capsys.readouterr().err)
    data = ClinicalDataModule(prepared, BatchOptions(size=48))
    rows, prob = predict(model, data.predict_dataloader(), {"accelerator": "cpu"})
    tuning = np.isin(rows, prepared.rows(TUNING))
    label = prepared.samples.label_readmission.to_numpy()[rows[tuning]]
    assert said == pytest.approx(average_precision_score(label, prob[tuning, 0]), abs=6e-4)


def test_what_the_user_says_wins_over_our_defaults():
    merged = check_trainer({"max_epochs": 3, "precision": "bf16-mixed"})
    assert merged["max_epochs"] == 3
    assert merged["precision"] == "bf16-mixed"
    assert merged["use_distributed_sampler"] is False
