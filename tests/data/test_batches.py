"""Every batch is, bit for bit, what the definition says, written here plainly and slowly: fact by fact."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ehrdl.batch import Batch
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.chunks import Chunking
from ehrdl.data.loading.collate import Collate
from ehrdl.data.window import Window
from ehrdl.schema import HOUR

FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=24)
SEEDS = range(60)


class Hospital:
    """Random facts, notes and samples of a few subjects, in hours; some have none of a kind."""

    def __init__(self, build, seed):
        rng = np.random.default_rng(seed)
        self.build = build
        self.facts = []
        for s, c, v in rng.integers((1, 0, 1), (6, 5, 99), (int(rng.integers(0, 400)), 3)).tolist():
            time = rng.integers(0, 400) / 4
            self.facts.append((s, time, time + rng.integers(0, 30) / 4, c, v))
        self.bodies = None if seed % 5 == 0 else []
        for s in rng.integers(1, 5, int(rng.integers(0, 25))).tolist() if self.bodies is not None else []:
            time = rng.integers(0, 400) / 4
            length = int(rng.choice([0, 1, 21, 22, 23, int(rng.integers(1, 120))]))
            text = "".join(map(chr, rng.integers(97, 123, length)))
            self.bodies.append((s, time, time + rng.integers(0, 30) / 4, text))
        at = rng.integers((1, 0), (8, 110), (int(rng.integers(1, 30)), 2)).tolist()
        self.at = sorted((s, t + 0.25) for s, t in at)
        self.shown = sorted(rng.permutation(5)[: rng.integers(1, 6)].tolist(), reverse=bool(seed % 2))
        self.window = Window(
            series_hours=float(rng.integers(1, 90)),
            note_hours=float(rng.integers(1, 90)),
            max_observations=int(rng.choice([3, 40, 1000])),
            max_notes=int(rng.choice([1, 2, 9])),
        )
        self.static = rng.normal(size=(len(self.at), 3)).astype(np.float32)
        self.since = rng.integers(0, 200, len(self.at)) / 4

    def dataset(self):
        notes = None if self.bodies is None else self.build.notes(self.bodies)
        channels = [self.build.channels[i] for i in self.shown]
        samples, store = self.build.samples(self.at), self.build.store(self.facts)
        return SampleDataset(samples, self.static, store, notes, self.window, channels, self.since)

    def frame(self):
        return None if self.bodies is None else FRAME

    def observations(self, row):
        """(hours, channel, value) of what a sample sees, in the order of availability."""
        subject, t = self.at[row]
        ordered = sorted((a, time, c, v) for s, time, a, c, v in self.facts if s == subject)
        seen = [
            (time - t, self.shown.index(c), v)
            for a, time, c, v in ordered
            if a <= t and time > t - self.window.series_hours and c in self.shown
        ]
        return seen[-self.window.max_observations :]

    def notes(self, row):
        """(row of the note, hours, text) of what a sample reads."""
        subject, t = self.at[row]
        ordered = enumerate(sorted((s, a, time, text) for s, time, a, text in self.bodies or []))
        seen = [
            (note, time - t, text)
            for note, (s, a, time, text) in ordered
            if s == subject and a <= t and time > t - self.window.note_hours
        ]
        return seen[-self.window.max_notes :]

    def batch(self, rows):
        seen = [self.observations(row) for row in rows]
        width = up(max(len(one) for one in seen), 32)
        series = {name: [[0] * width for _ in rows] for name in ("value", "hours", "channel", "valid")}
        for i, one in enumerate(seen):
            for j, (hours, channel, value) in enumerate(one):
                for name, number in (("hours", hours), ("channel", channel), ("value", value), ("valid", 1)):
                    series[name][i][j] = number
        label = [[row % 2] for row in rows]
        return Batch(
            row=torch.tensor(rows),
            value=torch.tensor(series["value"], dtype=torch.float32),
            hours=torch.tensor(series["hours"], dtype=torch.float32),
            channel=torch.tensor(series["channel"], dtype=torch.int64),
            valid=torch.tensor(series["valid"], dtype=torch.bool),
            static=torch.from_numpy(self.static[rows]),
            label=torch.tensor(label, dtype=torch.float32),
            **self.links(rows),
        )

    def links(self, rows):
        chunks, of_note, links = [], {}, []
        for i, row in enumerate(rows):
            for note, hours, text in self.notes(row):
                if note not in of_note:
                    ids = [ord(letter) for letter in text]
                    of_note[note] = range(len(chunks), len(chunks) - (-len(ids) // 22))
                    chunks += [[1, *ids[at : at + 22], 2] for at in range(0, len(ids), 22)]
                own = -hours <= self.since[row] + 24
                links += [(chunk, i, hours, own) for chunk in of_note[note]]
        n_chunks = up(len(chunks), 8)
        links += [(chunk, len(rows), 0, False) for chunk in range(len(chunks), n_chunks)]
        width = up(max(map(len, chunks), default=0), 16)
        width = width if self.bodies is None else min(width, 24)
        padded = [chunk + [0] * (width - len(chunk)) for chunk in chunks] + [[0] * width] * (n_chunks - len(chunks))
        lengths = [len(chunk) for chunk in chunks] + [1] * (n_chunks - len(chunks))
        chunk, sample, hours, own = zip(*links, strict=True)
        return {
            "tokens": torch.tensor(padded),
            "token_valid": torch.tensor([[j < n for j in range(width)] for n in lengths]),
            "kind": torch.zeros(n_chunks, dtype=torch.int64),
            "link_chunk": torch.tensor(chunk),
            "link_sample": torch.tensor(sample),
            "link_hours": torch.tensor(hours, dtype=torch.float32),
            "link_own_stay": torch.tensor([bool(one) for one in own]),
        }


def up(n, step):
    return max(1, -(-n // step)) * step


def bits(batch):
    found = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    return {name: (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in found.items()}


def draws(hospital, seed):
    """Some batches of rows: all, one, a few in any order."""
    n = len(hospital.at)
    order = np.random.default_rng(seed).permutation(n).tolist()
    return [list(range(n)), order[:1], order[: n // 2 + 1]]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_is_what_the_definition_says(build, seed):
    hospital = Hospital(build, seed)
    dataset = hospital.dataset()
    rows = draws(hospital, seed)
    loader = DataLoader(dataset, batch_sampler=rows, collate_fn=Collate(dataset.notes, hospital.frame()))
    for wanted, batch in zip(rows, loader, strict=True):
        assert bits(batch) == bits(hospital.batch(wanted))


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_samples_read_one_by_one_make_the_same_batch(build, seed):
    hospital = Hospital(build, seed)
    dataset = hospital.dataset()
    for rows in draws(hospital, seed):
        batch = Collate(dataset.notes, hospital.frame())(dataset.__getitems__(rows))
        assert bits(batch) == bits(hospital.batch(rows))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_counted_beforehand_is_what_is_read(build, seed):
    hospital = Hospital(build, seed)
    dataset, rows = hospital.dataset(), range(len(hospital.at))
    assert dataset.has_series().tolist() == [len(hospital.observations(row)) > 0 for row in rows]
    assert dataset.has_note().tolist() == [len(hospital.notes(row)) > 0 for row in rows]
    assert dataset.n_tokens().tolist() == [sum(len(text) for *_, text in hospital.notes(row)) for row in rows]
    assert all(n >= len(hospital.observations(row)) for row, n in enumerate(dataset.n_observations()))


def test_the_hospitals_have_what_can_go_wrong(build):
    """Otherwise the tests above would pass by seeing nothing."""
    found = set()
    for seed in SEEDS:
        hospital = Hospital(build, seed)
        seen = [(hospital.observations(row), hospital.notes(row)) for row in range(len(hospital.at))]
        cut = hospital.window.max_observations
        found |= {"no observation" for facts, _ in seen if not facts} | {
            "cut" for facts, _ in seen if len(facts) == cut
        }
        found |= {"no note" for _, notes in seen if not notes} | {"notes" for _, notes in seen if len(notes) > 1}
        found |= {"long" for _, notes in seen for *_, text in notes if len(text) > 44}
        found |= {"empty" for _, notes in seen for *_, text in notes if not text}
        ages = [(-hours, hospital.since[row]) for row, (_, notes) in enumerate(seen) for _, hours, _ in notes]
        found |= {"own stay" if age <= since + 24 else "earlier stay" for age, since in ages}
        read = [note for _, notes in seen for note, *_ in notes]
        found |= {"shared"} if len(set(read)) < len(read) else set()
        found |= {"hidden"} if len(hospital.shown) < 5 else set()
    assert found == {
        "no observation",
        "cut",
        "no note",
        "notes",
        "long",
        "empty",
        "shared",
        "hidden",
        "own stay",
        "earlier stay",
    }


def test_hours_are_rounded_once(build):
    dataset = SampleDataset(
        build.samples([(1, 100)]),
        np.zeros((1, 1), np.float32),
        build.store([(1, 100 / 3, 40, 2, 1)]),
        None,
        Window(),
        build.channels,
    )
    wanted = np.float32((round(100 / 3 * HOUR) - 100 * HOUR) / HOUR)
    assert dataset.__getitems__([0]).hours.tolist() == dataset[0].hours.tolist() == [wanted]
