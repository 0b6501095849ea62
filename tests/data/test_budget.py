import numpy as np
import pytest

from ehrdl.data.config import BatchOptions
from ehrdl.data.dataset import SampleDataset
from ehrdl.data.loading.budget import TokenBudget
from ehrdl.data.loading.chunks import Chunking
from ehrdl.data.loading.collate import Collate
from ehrdl.data.module import ClinicalDataModule
from ehrdl.data.window import Window
from ehrdl.errors import ConfigError
from ehrdl.schema import TRAIN, TUNING

SODIUM = 2
FRAME = Chunking(pad_id=0, cls_id=1, sep_id=2, chunk_tokens=32)


@pytest.fixture
def dataset(build):
    def make(at, facts=(), bodies=None):
        notes = None if bodies is None else build.notes(bodies)
        static = np.zeros((len(at), 1), np.float32)
        return SampleDataset(build.samples(at), static, build.store(facts), notes, Window(), build.channels)

    return make


def size(batch):
    return batch.value.numel() + batch.tokens.numel()


def test_observations_are_counted_with_their_padding(dataset):
    """1, 33 and 1 observations: padded to 32, 64 and 64; the filler of a batch without notes is 8 x 16."""
    facts = [(1, 90, 90, SODIUM, 1), (3, 90, 90, SODIUM, 1)] + [(2, 1 + i, 1 + i, SODIUM, 1) for i in range(33)]
    samples = dataset([(1, 100), (2, 100), (3, 100)], facts)
    rows = np.arange(3)
    for tokens, n in [(1, 1), (32 + 128, 1), (128 + 127, 1), (128 + 128, 2), (192 + 127, 2), (192 + 128, 3)]:
        assert TokenBudget(samples, None, tokens)(rows) == n


def test_a_note_that_several_samples_read_is_counted_once(dataset):
    """One subject, three samples, one note of 9 chunks (16 with fillers) of 32 tokens; then a second of one chunk."""
    bodies = [(1, 10, 10, "x" * 9 * 30), (1, 90, 90, "y" * 30)]
    samples = dataset([(1, 20), (1, 21), (1, 100)], bodies=bodies)
    rows = np.arange(3)
    for tokens, n in [(32 + 16 * 32, 1), (2 * 32 + 16 * 32, 2), (3 * 32 + 16 * 32, 3)]:
        assert TokenBudget(samples, FRAME, tokens)(rows) == n


@pytest.mark.parametrize("tokens", [300, 1000, 5000])
def test_as_many_samples_fit_as_the_collated_batches_say(dataset, tokens):
    rng = np.random.default_rng(0)
    at = sorted((int(s), int(t)) for s, t in rng.integers((1, 1), (20, 100), (60, 2)))
    facts = [(int(s), int(t), int(t), SODIUM, 1) for s, t in rng.integers((1, 1), (20, 100), (900, 2))]
    bodies = [(int(s), int(t), int(t), "x" * int(n)) for s, t, n in rng.integers((1, 1, 0), (20, 100, 200), (60, 3))]
    samples = dataset(at, facts, bodies)
    collate = Collate(samples.notes, FRAME)
    for begin in range(40):
        rows = rng.permutation(60)[: begin + 1]
        sizes = [size(collate(samples.__getitems__(rows[:n]))) for n in range(1, len(rows) + 1)]
        assert TokenBudget(samples, FRAME, tokens)(rows) == max(1, sum(n <= tokens for n in sizes))


@pytest.mark.parametrize("tokens", [4000, 20_000])
@pytest.mark.parametrize("split", [TRAIN, TUNING])
def test_no_batch_is_over_the_budget_and_every_sample_is_read(prepared, tokens, split):
    module = ClinicalDataModule(prepared, BatchOptions(size=512, tokens=tokens))
    loader = module.train_dataloader() if split == TRAIN else module.val_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader)
    assert all(size(batch) <= tokens or batch.batch_size == 1 for batch in batches)
    assert sorted(row for batch in batches for row in batch.row.tolist()) == prepared.rows(split).tolist()
    assert np.mean([size(batch) for batch in batches]) > 0.5 * tokens


def test_size_stays_the_upper_bound_of_samples(prepared):
    module = ClinicalDataModule(prepared, BatchOptions(size=5, tokens=10**9))
    assert max(batch.batch_size for batch in module.train_dataloader()) == 5


def test_a_budget_of_nothing_is_refused_by_its_key():
    with pytest.raises(ConfigError, match=r"data\.batch\.tokens: 0 is below 1"):
        BatchOptions(tokens=0)
