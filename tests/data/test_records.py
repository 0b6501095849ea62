"""Records as notes in the whole preparation: which texts are read, what is counted, and the same for new patients."""

from dataclasses import replace

import numpy as np
import pytest

from ehrdl.cli.main import main
from ehrdl.data.apply import Fitted, apply
from ehrdl.data.config import NoteOptions, RecordOptions
from ehrdl.data.features.table import tabulate
from ehrdl.data.loading.collate import Collate
from ehrdl.data.notes.store import Notes
from ehrdl.data.prepare import prepare
from ehrdl.errors import ConfigError
from ehrdl.schema import TRAIN
from ehrdl.training.pretrain import Chunks


@pytest.fixture(scope="module")
def prepared_as(hospital):
    """The small synthetic hospital with another source of notes; each is prepared once."""
    made = {}

    def make(source):
        if source not in made:
            config = replace(hospital.config, notes=NoteOptions(source=source))
            made[source] = config, prepare(config, hospital.events, hospital.result)
        return made[source]

    return make


def test_a_record_alone_is_the_only_text_of_each_sample(prepared_as):
    _, data = prepared_as("record")
    n = len(data.samples)
    assert len(data.dataset.notes) == data.dataset.notes.n_records == n
    assert set(data.dataset.notes.text["code"]) == {"NOTE//record"}
    assert [data.dataset.note_rows(row).tolist() for row in range(n)] == [[row] for row in range(n)]
    assert set(data.samples.group_has_note) == {"yes"}
    assert (data.facts["data"]["n_notes"], data.facts["data"]["n_records"]) == (0, n)


def test_notes_that_cannot_leave_are_not_even_collected(hospital, tmp_path):
    options = replace(hospital.config.prepare, cache=str(tmp_path))
    config = replace(hospital.config, notes=NoteOptions(source="record"), prepare=options)
    prepare(config, hospital.events, hospital.result)
    steps = {path.name.split("-")[0] for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert steps == {"series", "coded", "records", "tokenizer", "tokens"}


def test_both_is_the_notes_and_the_record_behind_them(hospital, prepared_as):
    plain, (_, both), (_, alone) = hospital.prepared.dataset, prepared_as("both"), prepared_as("record")
    notes = both.dataset.notes
    assert (notes.first_record, notes.n_records) == (len(plain.notes), len(both.samples))
    for row in range(0, len(both.samples), 7):
        *own, record = both.dataset.note_rows(row)
        assert own == plain.note_rows(row).tolist()
        assert notes.texts([record]) == alone.dataset.notes.texts([row])
    rows = np.arange(0, len(both.samples), 7)
    batch = Collate(notes, both.frame)(both.dataset.__getitems__(rows))
    assert set(batch.link_sample[batch.link_sample < len(rows)].tolist()) == set(range(len(rows)))
    assert (both.dataset.n_tokens() > 0).all()


def test_baselines_of_words_read_the_record(prepared_as):
    _, data = prepared_as("record")
    rows = data.rows(TRAIN)[:20]
    assert tabulate(data.dataset, rows).text.tolist() == data.dataset.notes.texts(rows)


def test_an_encoder_is_pretrained_on_records_of_training_subjects_alone(prepared_as):
    _, data = prepared_as("both")
    train = np.unique(data.samples.subject_id[data.samples.split == TRAIN])
    chunks = Chunks(data.dataset.notes, data.frame, train)
    read = np.unique(chunks.note[chunks.note >= data.dataset.notes.first_record]) - data.dataset.notes.first_record
    assert read.tolist() == data.rows(TRAIN).tolist()


@pytest.mark.parametrize("source", ["record", "both"])
def test_new_patients_are_read_as_the_run_read_its_own(hospital, prepared_as, source):
    config, data = prepared_as(source)
    known, _ = apply(config, hospital.events, hospital.result, Fitted(data.spec, data.tokenizer, hospital.events.name))
    assert len(known.samples) == len(data.samples)
    for row in range(0, len(data.samples), 7):
        texts = [d.dataset.notes.texts(d.dataset.note_rows(row)) for d in (known, data)]
        tokens = [d.dataset.notes.tokens.flat(d.dataset.note_rows(row)).tolist() for d in (known, data)]
        assert texts[0] == texts[1] and tokens[0] == tokens[1]


def test_a_channel_that_the_run_never_saw_is_not_told_of_new_patients(hospital, prepared_as):
    config, data = prepared_as("record")
    fewer = replace(data.spec, channels=tuple(c for c in data.spec.channels if c.name != "creatinine"))
    new, _ = apply(config, hospital.events, hospital.result, Fitted(fewer, data.tokenizer, "events-elsewhere"))
    told = "".join(new.dataset.notes.texts(range(len(new.samples))))
    assert "sodium" in told and "creatinine" not in told
    assert "creatinine" in "".join(data.dataset.notes.texts(range(len(data.samples))))


def test_records_are_written_anew_only_where_something_of_them_changes(hospital, prepared_as):
    config, _ = prepared_as("record")

    def written():
        return {path.name for path in hospital.events.parent.glob("records-*")}

    prepare(config, hospital.events, hospital.result)
    before = written()
    prepare(replace(config, notes=NoteOptions(source="both", chunk_tokens=64)), hospital.events, hospital.result)
    assert written() == before
    short = NoteOptions(source="record", record=RecordOptions(sections=["laboratory"]))
    prepare(replace(config, notes=short), hospital.events, hospital.result)
    prepare(replace(config, window=replace(config.window, series_hours=48)), hospital.events, hospital.result)
    half = replace(hospital.result, samples=hospital.result.samples.iloc[:-1])
    prepare(config, hospital.events, half)
    prepare(config, hospital.events, replace(hospital.result, hidden_codes=("DIAGNOSIS//ICD9//428",)))
    assert len(written() - before) == 4


def test_a_dataset_refuses_records_that_are_not_of_its_samples(prepared_as):
    _, data = prepared_as("record")
    notes: Notes = replace(data.dataset.notes, record_subjects=data.dataset.notes.record_subjects[:-1])
    with pytest.raises(ValueError, match="verbalised records for"):
        type(data.dataset)(data.samples, data.dataset.static, data.dataset.store, notes, data.dataset.window, [])


def test_a_source_that_is_none_is_refused_by_its_key():
    with pytest.raises(ConfigError, match=r"data\.notes\.source: 'record_text' is not one of notes, record, both"):
        NoteOptions(source="record_text")


def test_the_line_that_ends_preparing_counts_the_records(hospital, capsys):
    cache = f"--data.prepare.cache={hospital.events.parent}"
    source = ["--data.source=ehrdl.sources.synthetic.Synthetic", "--data.source.init_args.n_patients=300"]
    task = ["--task=ehrdl.tasks.readmission.Readmission", "--model=ehrdl.models.networks.multimodal.MultimodalModel"]
    run = ["--run.name=records", "--data.source.init_args.seed=1", "--data.notes.source=record"]
    main(["prepare", *source, *task, cache, *run])
    assert f"0 notes, {len(hospital.prepared.samples):,} verbalised records; samples" in capsys.readouterr().err
