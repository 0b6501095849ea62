"""Runs that leak on purpose: sources whose EVENTS leak, and patches of ehrdl that leak. The audit must catch each."""

from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

import ehrdl
from ehrdl.audit.facts import BILLED
from ehrdl.data.prepare import find_samples
from ehrdl.data.series import store
from ehrdl.events.listing import shard_files
from ehrdl.schema import EVENTS, EVENTS_ORDER
from ehrdl.sources.synthetic import Synthetic
from ehrdl.splits.subjects import assign
from ehrdl.tasks.readmission import Readmission

COLUMNS = ", ".join(EVENTS.names())
ORDER = ", ".join(f"{name} NULLS FIRST" for name in EVENTS_ORDER)


class Leaking(Synthetic):
    """A synthetic hospital whose EVENTS are rewritten so that they leak. Its true risks are left out."""

    def fingerprint(self, verify="fast"):
        return super().fingerprint(verify) | {"leak": type(self).__name__}

    def read(self, out, prepare):
        facts = super().read(out, prepare)
        (out / "truth.csv").unlink()
        for file in shard_files(out):
            with duckdb.connect() as con:
                con.register("shard", pq.read_table(file))
                con.register("samples", self.labelled(out))
                table = con.sql(f"SELECT {COLUMNS} FROM ({self.REWRITTEN}) ORDER BY {ORDER}").to_arrow_table()
            pq.write_table(table, file.with_suffix(".new"))
        for file in shard_files(out):  # all labels are found before the first shard is replaced
            file.with_suffix(".new").rename(file)
        return facts

    def labelled(self, out):
        samples = find_samples(out, Readmission()).samples
        return samples[["subject_id", "encounter_id", "prediction_time", "label_readmission"]]


class CodesAtAdmission(Leaking):
    """Kind 1: the codes of a stay are there from its admission on."""

    REWRITTEN = f"""
        SELECT shard.* REPLACE (
            CASE WHEN {BILLED} THEN coalesce(admitted, time) ELSE time END AS time,
            CASE WHEN {BILLED} THEN coalesce(admitted, available_time) ELSE available_time END AS available_time)
        FROM shard LEFT JOIN (SELECT encounter_id, min(time) AS admitted FROM shard
            WHERE code LIKE 'ADMISSION//%' GROUP BY ALL) USING (encounter_id)"""


#: A laboratory value an hour before the prediction, of some samples.
ADDED = """SELECT * FROM shard WHERE {kept} UNION ALL BY NAME
    SELECT subject_id, prediction_time - INTERVAL 1 HOUR AS time, '{code}' AS code, {value} AS numeric_value,
        NULL AS text_value, prediction_time - INTERVAL 1 HOUR AS available_time, encounter_id
    FROM samples WHERE {where} AND subject_id IN (SELECT subject_id FROM shard)"""


class OutcomeAsValue(Leaking):
    """Kind 3: a laboratory value is computed from the outcome."""

    REWRITTEN = ADDED.format(code="LAB//50912//mg/dL", value="1 + 2 * label_readmission", where="true", kept="true")


class OutcomeAsPresence(Leaking):
    """Kind 6: a laboratory value, always the same, is measured in those who will have the outcome alone."""

    REWRITTEN = ADDED.format(
        code="CHART//220739//", value="4", where="label_readmission = 1", kept="code <> 'CHART//220739//'"
    )


class Doubled(Leaking):
    """Kind 5: half of the patients are there a second time under other ids."""

    REWRITTEN = """SELECT * FROM shard UNION ALL
        SELECT * REPLACE (subject_id + 1000000007 AS subject_id, encounter_id + 1000000007 AS encounter_id)
        FROM shard WHERE subject_id % 2 = 0"""


def split_by_stay(patch):
    """Kind 2: a hash of the stay decides the split, and not of the patient. ehrdl refuses that, so its check is off."""

    def split(samples, options, events, subject_of):
        return samples.assign(split=assign(samples.encounter_id.to_numpy(np.int64), options)), {"kind": "subject"}

    patch.setattr("ehrdl.data.prepare.split_samples", split)
    patch.setattr("ehrdl.data.prepare.check", lambda table, schema: table)


def cut_by_time(patch):
    """Kind 4: the cut ignores available_time: a fact is seen as soon as it happened."""
    patch.setattr(store, "_FACTS", store._FACTS.replace("epoch_us(available_time)", "epoch_us(time)"))


def run_of(source, root: Path, name: str = "small", **options) -> ehrdl.Run:
    """A whole run of a source: a small network, a model of the table, a clinical score."""
    cohort = ehrdl.load(
        source, prepare={"cache": str(root / "cache")}, notes={"vocab_size": 500, "chunk_tokens": 64}, window=WINDOW
    )
    return ehrdl.fit(cohort, SMALL, name=name, root=root / "runs", **(OPTIONS | options))


WINDOW = {"series_hours": 240, "note_hours": 2160}
SMALL = partial(
    ehrdl.models.MultimodalModel,
    note=partial(ehrdl.models.NoteTransformer, width=16),
    series=partial(ehrdl.models.SeriesGRU, hidden=8, bin_hours=24),
)
OPTIONS = {
    "trainer": {"max_epochs": 1, "limit_train_batches": 3, "accelerator": "cpu"},
    "baselines": ["prevalence", "gradient_boosting", "lace"],
}


def statuses(run: ehrdl.Run) -> pd.Series:
    """The status of each check of a run's leak audit, by name."""
    from ehrdl.runs.leak_audit import read_audit

    return pd.Series({check["name"]: check["status"] for check in read_audit(run.folder)["checks"]})
