"""A small spec, and batches that a test writes down."""

from collections.abc import Callable, Sequence

import pytest
import torch

from ehrdl.batch import Batch, ChannelSpec, DataSpec
from ehrdl.schema import OutputSpec

CHANNELS = (
    ChannelSpec("sodium", "numeric", "mEq/L", 140.0, 4.0, 100.0, 180.0),
    ChannelSpec("creatinine", "numeric", "mg/dL", 1.0, 0.5, 0.0, 20.0),
    ChannelSpec("dialysis", "event", "", 0.0, 1.0, 0.0, 1.0),
)
#: (hours, channel, value)
Fact = tuple[float, int, float]
Note = tuple[list[int], float]


@pytest.fixture(scope="session")
def spec() -> DataSpec:
    return DataSpec(
        modalities=("note", "series"),
        channels=CHANNELS,
        statics=("age", "male"),
        static_mean=(60.0, 0.5),
        static_std=(15.0, 0.5),
        window_hours=48.0,
        vocab_size=50,
        pad_id=0,
        chunk_tokens=16,
        outputs=(OutputSpec("readmission"), OutputSpec("death")),
        prevalence=(0.12, 0.03),
    )


def _series(facts: Sequence[Sequence[Fact]], n_padding: int) -> dict[str, torch.Tensor]:
    n = max([len(sample) for sample in facts] + [1]) + n_padding
    hours, value = torch.zeros(len(facts), n), torch.zeros(len(facts), n)
    channel, valid = torch.zeros(len(facts), n, dtype=torch.int64), torch.zeros(len(facts), n, dtype=torch.bool)
    for i, sample in enumerate(facts):
        for j, (hour, which, number) in enumerate(sample):
            hours[i, j], channel[i, j], value[i, j], valid[i, j] = hour, which, number, True
    return {"hours": hours, "channel": channel, "value": value, "valid": valid}


def _notes(notes: Sequence[Sequence[Note]], n_padding: int, n_fillers: int) -> dict[str, torch.Tensor]:
    chunks = [(tokens, i, hours) for i, sample in enumerate(notes) for tokens, hours in sample]
    n_chunks = max(8, -(-len(chunks) // 8) * 8) + n_fillers
    length = max([len(tokens) for tokens, _, _ in chunks] + [1]) + n_padding
    chunks += [([0], len(notes), 0.0)] * (n_chunks - len(chunks))
    tokens, valid = torch.zeros(n_chunks, length, dtype=torch.int64), torch.zeros(n_chunks, length, dtype=torch.bool)
    for i, (ids, _, _) in enumerate(chunks):
        tokens[i, : len(ids)], valid[i, : len(ids)] = torch.tensor(ids), True
    return {
        "tokens": tokens,
        "token_valid": valid,
        "kind": torch.zeros(n_chunks, dtype=torch.int64),
        "link_chunk": torch.arange(n_chunks),
        "link_sample": torch.tensor([sample for _, sample, _ in chunks]),
        "link_hours": torch.tensor([hours for _, _, hours in chunks]),
    }


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """Makes a batch of each sample's facts and notes; padding and fillers as asked."""

    def make(
        facts: Sequence[Sequence[Fact]],
        notes: Sequence[Sequence[Note]] | None = None,
        n_outputs: int = 2,
        n_padding: int = 0,
        n_fillers: int = 0,
    ) -> Batch:
        n = len(facts)
        return Batch(
            row=torch.arange(n),
            **_series(facts, n_padding),
            static=torch.tensor([[60.0 + i, float(i % 2)] for i in range(n)]),
            **_notes(notes or [[]] * n, n_padding, n_fillers),
            label=torch.tensor([[float(i % 2)] * n_outputs for i in range(n)]),
        )

    return make


@pytest.fixture(scope="session")
def random_batch(make_batch: Callable[..., Batch]) -> Callable[..., Batch]:
    """Makes `n` samples of random facts and notes; every fifth lacks facts, every fifth lacks notes."""

    def make(n: int, seed: int = 0) -> Batch:
        draw = torch.Generator().manual_seed(seed)

        def number(low: int, high: int) -> int:
            return int(torch.randint(low, high, (1,), generator=draw))

        facts = [
            sorted(
                (-float(number(0, 48)), number(0, 3), float(number(0, 9))) for _ in range(number(3, 9) * (i % 5 != 1))
            )
            for i in range(n)
        ]
        notes = [
            [([number(1, 50) for _ in range(number(3, 12))], -float(number(0, 99))) for _ in range(2 * (i % 5 != 3))]
            for i in range(n)
        ]
        return make_batch(facts, notes)

    return make
