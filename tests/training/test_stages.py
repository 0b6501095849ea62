"""Two-stage training: the single models first, then the fused one from their encoders."""

from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from transformers import BertConfig, BertModel

from ehrdl.data.config import BatchOptions
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.window import Window
from ehrdl.errors import ConfigError
from ehrdl.experiment import Experiment
from ehrdl.models.base import Network
from ehrdl.models.fusion.simple import LateFusion
from ehrdl.models.networks.multimodal import MultimodalModel
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.models.notes.words import WordEvidence
from ehrdl.models.series.gru import SeriesGRU
from ehrdl.options.training import Optim, RunOptions
from ehrdl.processes.trainer import check_trainer
from ehrdl.tasks.readmission import Readmission
from ehrdl.training import fit as fitting
from ehrdl.training.fit import fit
from ehrdl.training.lit import LitNetwork
from ehrdl.training.setup import Fit, Training

SMALL = partial(MultimodalModel, note=partial(NoteTransformer, width=8, heads=2), series=partial(SeriesGRU, hidden=4))
TRAINER = {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 3}
TWO = Optim(stages=2)


class Killed(BaseException):
    """What ends a process without warning."""


class Watch(Callback):
    """Keeps the weights before the first step; ends the process before step `kill`."""

    def __init__(self, kill=-1):
        self.kill, self.before = kill, {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 0:
            self.before = {name: value.clone() for name, value in module.network.state_dict().items()}
        if trainer.global_step == self.kill:
            raise Killed


@pytest.fixture
def watch(monkeypatch):
    """Watches the fits of a name from now on."""
    plain = fitting.make_callbacks

    def start(name, kill=-1):
        found = Watch(kill)

        def callbacks(optim, scratch, *more):
            return [*plain(optim, scratch, *more), *([found] if scratch.name == f".{name}-seed0" else [])]

        monkeypatch.setattr(fitting, "make_callbacks", callbacks)
        return found

    return start


@pytest.fixture
def run(hospital, tmp_path):
    """A whole run of a small network on the small hospital."""

    def start(name, optim=TWO, data=hospital.config, model=SMALL, overwrite=False, seeds=(0,)):
        where = RunOptions(name, str(tmp_path), overwrite)
        return Experiment(where, data, Readmission(), model, list(seeds), optim, TRAINER, ["prevalence"]).complete()

    return start


def weights(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items()}


def test_the_fused_model_starts_from_the_weights_that_the_single_ones_ended_with(run, watch, capsys):
    seen = watch("fused")
    folder = run("two")
    notes, series = (weights(folder / "checkpoints" / f"{name}-seed0.ckpt") for name in ("notes_only", "series_only"))
    taken = {key: value for key, value in notes.items() if key.startswith(("note.", "static."))}
    taken |= {key: value for key, value in series.items() if key.startswith("series.")}
    for name, single in (("note", notes), ("series", series), ("static", notes)):
        for key in (f"unimodal_heads.{name}.logits.{kind}" for kind in ("weight", "bias")):
            taken[key] = single[key]
    assert [key for key, value in taken.items() if not torch.equal(seen.before[key], value)] == []
    assert {key for key in seen.before if not key.startswith(("fusion.", "head."))} == taken.keys()
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "starts from" in line] == [
        "fused-seed0: starts from notes_only (note, static) and series_only (series)"
    ]
    models = list(dict.fromkeys(pd.read_parquet(folder / "predictions.parquet").model))
    assert sorted(models) == ["bayes", "fused", "notes_only", "prevalence", "series_only"]


def test_the_single_models_are_those_of_one_stage(run):
    one, two = run("one", Optim()), run("two")
    for name in ("notes_only-seed0.ckpt", "series_only-seed0.ckpt"):
        mine, other = (weights(folder / "checkpoints" / name) for folder in (one, two))
        assert [key for key in mine if not torch.equal(mine[key], other[key])] == []
    fused = [weights(folder / "checkpoints" / "fused-seed0.ckpt")["series.features.weight"] for folder in (one, two)]
    assert not torch.equal(*fused)


@pytest.mark.parametrize(("name", "step"), [pytest.param("series_only", 1, marks=pytest.mark.slow), ("fused", 2)])
def test_a_run_killed_in_either_stage_goes_on_and_ends_equal(run, watch, name, step):
    whole = pd.read_parquet(run("whole") / "predictions.parquet")
    watch(name, kill=step)
    with pytest.raises(Killed):
        run("killed")
    watch(name)
    pd.testing.assert_frame_equal(pd.read_parquet(run("killed") / "predictions.parquet"), whole)


@pytest.mark.slow
def test_overwrite_fits_both_stages_again_and_each_seed_starts_from_its_own(run, capsys):
    first = run("run", seeds=(0, 1))
    made = (first / "checkpoints" / "notes_only-seed1.ckpt").stat().st_mtime_ns
    said = capsys.readouterr().err
    assert "fused-seed0: starts from notes_only" in said and "fused-seed1: starts from notes_only" in said
    heads = [weights(first / "checkpoints" / f"notes_only-seed{seed}.ckpt")["head.logits.weight"] for seed in (0, 1)]
    assert not torch.equal(*heads)
    run("run", seeds=(0, 1), overwrite=True)
    assert (first / "checkpoints" / "notes_only-seed1.ckpt").stat().st_mtime_ns > made
    assert "fused-seed1: starts from notes_only" in capsys.readouterr().err


def test_late_fusion_takes_the_heads_too_and_starts_as_the_average_of_the_single_models(spec_pair, prepared):
    fused, notes, series = spec_pair(LateFusion)
    fused.start_from([notes, series])
    batch = next(iter(ClinicalDataModule(prepared, BatchOptions(size=16)).train_dataloader()))
    with torch.no_grad():
        features, present = fused.eval().encode(batch)[:2]
        found = {name: network.eval().encode(batch).features for name, network in (("note", notes), ("series", series))}
        said = {
            name: network.unimodal_heads[name](found[name][name])
            for name, network in (("note", notes), ("series", series))
        }
        said["static"] = notes.unimodal_heads["static"](found["note"]["static"])
        spoken = sum(said[name] * has.unsqueeze(1) for name, has in present.items())
        assert torch.allclose(
            fused(batch), spoken / torch.stack(list(present.values())).sum(dim=0).unsqueeze(1), atol=1e-5
        )
        assert len(features) == 3


def test_words_that_read_the_notes_are_taken_over_and_learn_at_the_lower_rate(prepared):
    torch.manual_seed(0)
    spec = prepared.spec
    fused, notes = (SMALL(which, note=None, words=WordEvidence) for which in (spec, spec.only("note")))
    torch.nn.init.normal_(notes.words.weight.weight)
    assert fused.start_from([notes]) == [["static", "words"]]
    assert torch.equal(fused.words.weight.weight, notes.words.weight.weight)
    rates = {
        id(parameter): group["lr"]
        for group in LitNetwork(fused, spec, Optim(lr=1.0, stage_lr_factor=0.1))._groups()
        for parameter in group["params"]
    }
    assert rates[id(fused.words.weight.weight)] == pytest.approx(0.1)
    assert rates[id(fused.fusion.absence)] == 1.0


@pytest.fixture
def spec_pair(prepared):
    """The fused network and the two single ones, each with weights of its own."""

    def make(fusion):
        torch.manual_seed(0)
        spec = prepared.spec
        return [SMALL(which, fusion=fusion) for which in (spec, spec.only("note"), spec.only("series"))]

    return make


def test_what_was_taken_learns_at_a_fraction_of_the_rate_and_the_rest_at_the_whole(spec_pair, prepared):
    fused, notes, series = spec_pair(LateFusion)
    optim = Optim(lr=0.01, stages=2, stage_lr_factor=0.25)
    assert {group["lr"] for group in LitNetwork(fused, prepared.spec, optim)._groups()} == {0.01}
    fused.start_from([series])
    rates = {
        id(parameter): group["lr"]
        for group in LitNetwork(fused, prepared.spec, optim)._groups()
        for parameter in group["params"]
    }
    slow = [*fused.series.parameters(), *fused.static.parameters(), *fused.unimodal_heads["series"].parameters()]
    assert {rates[id(parameter)] for parameter in slow} == {0.0025}
    assert {rates[id(parameter)] for parameter in fused.note.parameters()} == {0.01}
    assert notes.started_parameters() == []


def test_encoders_of_another_size_are_left_as_they_are(prepared, spec_pair, tmp_path, capsys):
    _, notes, _ = spec_pair(LateFusion)
    wide = partial(SMALL, note=partial(NoteTransformer, width=16, heads=2))
    data = ClinicalDataModule(prepared, BatchOptions(size=64))
    start = {"notes_only": LitNetwork(notes, prepared.spec.only("note"), TWO)}
    training = Training(wide, TWO, check_trainer(TRAINER))
    fit(training, data, prepared.spec, Fit(tmp_path, "fused", 0), start=start)
    assert "fused-seed0: starts from notes_only (static)" in capsys.readouterr().err


def test_data_of_one_modality_have_one_stage_and_a_line_says_so(run, hospital, capsys):
    blind = replace(hospital.config, window=Window(note_hours=0.001))
    folder = run("series", data=blind)
    said = capsys.readouterr().err
    assert "optim.stages: 2 needs notes and series; these data have series alone, so there is one stage" in said
    assert "starts from" not in said
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["series_only-seed0.ckpt"]


class Plain(nn.Module, Network):
    """A network that cannot start from others."""

    def __init__(self, spec):
        super().__init__()
        self.risk = nn.Linear(len(spec.statics), 1)

    def forward(self, batch):
        return self.risk(batch.static)


def test_a_network_that_cannot_start_from_others_is_refused_before_the_folder_is_made(run, tmp_path):
    with pytest.raises(ConfigError, match=r"^optim\.stages: 2, but Plain cannot start from other models .*; set it to"):
        run("plain", model=Plain)
    assert not (tmp_path / "plain").exists()


def test_pretraining_a_network_without_an_encoder_of_notes_is_refused_before_the_folder_is_made(run, tmp_path):
    with pytest.raises(ConfigError, match=r"^optim\.pretrain_epochs: Plain has no one encoder of notes"):
        run("plain", optim=Optim(pretrain_epochs=1), model=Plain)
    assert not (tmp_path / "plain").exists()


def test_pretraining_an_encoder_that_comes_pretrained_is_refused_before_the_folder_is_made(run, prepared, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=prepared.spec.vocab_size, **sizes)).save_pretrained(tmp_path / "encoder")
    note = partial(NoteTransformer, pretrained=str(tmp_path / "encoder"), width=8, heads=2)
    with pytest.raises(ConfigError, match=r"^optim\.pretrain_epochs: .*/encoder' is pretrained; set it to 0"):
        run("taught", Optim(pretrain_epochs=1), model=partial(SMALL, note=note))
    assert not (tmp_path / "taught").exists()


@pytest.mark.parametrize(("name", "value"), [("stages", 3), ("stage_lr_factor", 0.0), ("stage_lr_factor", 1.5)])
def test_an_option_that_cannot_work_is_named(name, value):
    with pytest.raises(ConfigError, match=rf"^optim\.{name}: {value}"):
        Optim(**{name: value})
