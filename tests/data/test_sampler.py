import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from ehrdl.data.loading.balance import class_chances
from ehrdl.data.loading.sampler import LengthBuckets, Loader


def buckets(
    n=1000,
    batch_size=8,
    shuffle=True,
    samples_per_subject=None,
    seed=0,
    subjects=200,
    budget=None,
    rank=0,
    world_size=1,
):
    """`budget` is of padded length: samples x the longest."""
    rng = np.random.default_rng(7)
    subject = np.sort(rng.integers(0, subjects, n))
    length = rng.integers(1, 1000, n)

    def fits(rows):
        padded = np.arange(1, len(rows) + 1) * np.maximum.accumulate(length[rows // 2])
        return max(1, int((padded <= budget).sum()))

    options = {"fits": fits if budget else None, "rank": rank, "world_size": world_size}
    return LengthBuckets(subject, length, np.arange(n) * 2, batch_size, shuffle, samples_per_subject, seed, **options)


def loader(num_workers=0, **options):
    sampler = buckets(n=60, **options)
    return Loader(range(120), batch_sampler=sampler, num_workers=num_workers, persistent_workers=num_workers > 0)


def read(loader):
    return [batch.tolist() for batch in loader]


def test_the_order_is_a_function_of_seed_and_epoch():
    first = list(buckets())
    assert list(buckets()) == first
    assert list(buckets(seed=1)) != first
    later = buckets()
    later.epoch = 1
    assert list(later) != first


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_is_read_once_in_full_batches(shuffle):
    batches = list(buckets(n=1003, shuffle=shuffle))
    assert sorted(row for batch in batches for row in batch) == list(range(0, 2006, 2))
    assert sorted(map(len, batches), reverse=True) == [8] * 125 + [3]
    assert len(buckets(n=1003, shuffle=shuffle)) == len(batches) == 126


def test_without_shuffling_rows_keep_their_order():
    assert [row for batch in buckets(shuffle=False) for row in batch] == list(range(0, 2000, 2))


def test_batches_hold_samples_of_like_length():
    sampler = buckets(n=4000)
    spread = [np.ptp(sampler.length[np.array(batch) // 2]) for batch in sampler]
    assert np.median(spread) < 0.05 * np.ptp(sampler.length)


def test_a_subjects_samples_are_drawn_beside_each_other():
    sampler = buckets(n=5000, subjects=1000)
    owner = sampler.subject[sampler._drawn(np.random.default_rng(0))]
    assert 1 + (np.diff(owner) != 0).sum() == len(np.unique(owner))


def test_a_subjects_samples_of_like_length_share_a_batch():
    subject = np.repeat(np.arange(100), 4)
    sampler = LengthBuckets(subject, np.ones(400), np.arange(400), 8, True, None, 0)
    assert all(len(set(subject[batch])) == 2 for batch in sampler)


def test_a_fresh_draw_of_each_subject_is_made_every_epoch():
    sampler = buckets(samples_per_subject=2)
    epochs = []
    for epoch in range(3):
        sampler.epoch = epoch
        epochs.append([row for batch in sampler for row in batch])
        counts = np.unique(sampler.subject[np.array(epochs[-1]) // 2], return_counts=True)[1]
        have = np.unique(sampler.subject, return_counts=True)[1]
        assert counts.tolist() == np.minimum(have, 2).tolist()
        assert len(set(epochs[-1])) == len(epochs[-1])
        assert len(sampler) == -(-len(epochs[-1]) // 8)
    assert set(epochs[0]) != set(epochs[1]) != set(epochs[2])


def test_evaluation_reads_every_sample_whatever_the_cap():
    assert sum(map(len, buckets(shuffle=False, samples_per_subject=2))) == 1000


def test_no_rows_are_no_batches():
    for cap in (None, 2):
        empty = LengthBuckets(np.zeros(0, int), np.zeros(0), np.zeros(0, int), 8, True, cap, 0)
        assert (list(empty), len(empty)) == ([], 0)


def epochs_of(sampler, n=6):
    for epoch in range(n):
        sampler.epoch = epoch
        yield list(sampler)


@pytest.mark.parametrize("samples_per_subject", [None, 2])
@pytest.mark.parametrize("batch_size", [8, 500])
def test_with_a_budget_epochs_have_equally_many_batches_within_it_that_hold_every_sample(
    batch_size, samples_per_subject
):
    sampler = buckets(batch_size=batch_size, samples_per_subject=samples_per_subject, budget=4000)
    n_drawn = sum(map(len, buckets(samples_per_subject=samples_per_subject)))
    for batches in epochs_of(sampler):
        assert len(batches) == len(sampler)
        assert len({row for batch in batches for row in batch}) == sum(map(len, batches)) == n_drawn
        padded = [len(batch) * sampler.length[np.array(batch) // 2].max() for batch in batches]
        assert max(padded) <= 4000
        assert max(map(len, batches)) <= batch_size


def test_a_budget_fills_batches_of_short_samples_with_more_of_them():
    sampler = buckets(n=4000, batch_size=500, budget=20_000)
    padded = [len(batch) * sampler.length[np.array(batch) // 2].max() for batch in sampler]
    assert np.mean(padded) > 0.85 * 20_000
    assert max(map(len, sampler)) > 5 * min(map(len, sampler))


def test_a_sample_over_the_budget_is_a_batch_of_its_own():
    assert sorted(map(len, buckets(n=50, budget=1))) == [1] * 50


def test_with_a_budget_the_order_is_a_function_of_seed_and_epoch_and_another_every_epoch():
    first, second = epochs_of(buckets(budget=4000), 2)
    assert [first, second] == list(epochs_of(buckets(budget=4000), 2))
    assert first != second
    assert list(buckets(budget=4000, seed=1)) != first


def test_evaluation_with_a_budget_keeps_the_order_of_rows():
    sampler = buckets(shuffle=False, budget=4000)
    batches = list(sampler)
    assert [row for batch in batches for row in batch] == list(range(0, 2000, 2))
    assert len(sampler) == len(batches)
    assert sorted({len(batch) for batch in batches})[-1] == 8


def test_an_epoch_that_needs_more_batches_leaves_some_out_at_random():
    """The second epoch's batches hold half as many samples: it needs more batches than are spare."""
    sampler = buckets(n=100, budget=4000)
    n_batches, fits = len(sampler), sampler.fits
    sampler.fits = lambda rows: max(1, fits(rows) // 2)
    sampler.epoch = 1
    batches = list(sampler)
    assert len(batches) == n_batches
    assert len({row for batch in batches for row in batch}) == sum(map(len, batches)) < 100


def test_processes_that_train_together_share_the_batches_of_a_budget_equally():
    whole = [sorted(map(tuple, batches)) for batches in epochs_of(buckets(budget=4000))]
    shares = [buckets(budget=4000, rank=rank, world_size=3) for rank in range(3)]
    for batches, parts in zip(whole, zip(*map(epochs_of, shares), strict=True), strict=True):
        assert [len(part) for part in parts] == [len(batches) // 3] * 3
        seen = [tuple(batch) for part in parts for batch in part]
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(batches)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_pass_is_the_next_epoch(num_workers):
    ours = loader(num_workers)
    passes = [read(ours) for _ in range(3)]
    for epoch, batches in enumerate(passes):
        alone = loader()
        alone.load_state_dict({"epoch": epoch, "position": 0})
        assert read(alone) == batches
    assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("n_read", [0, 1, 5, 8, 11])
@pytest.mark.parametrize("options", [{}, {"budget": 3000, "samples_per_subject": 3, "subjects": 15}])
def test_a_resumed_loader_replays_exactly_the_rest(n_read, num_workers, options):
    whole = loader(**options)
    batches = read(whole) + read(whole)
    killed = loader(num_workers, **options)
    run = (batch for _ in range(2) for batch in killed)
    before = [next(run).tolist() for _ in range(n_read)]
    resumed = loader(num_workers, **options)
    resumed.load_state_dict(killed.state_dict())
    after = read(resumed)
    if len(before) + len(after) < len(batches):
        after += read(resumed)
    assert before + after == batches


def test_the_state_says_how_many_batches_the_consumer_has():
    ours = loader()
    assert ours.state_dict() == {"epoch": 0, "position": 0}
    run = iter(ours)
    next(run), next(run)
    assert ours.state_dict() == {"epoch": 0, "position": 2}
    for _ in range(6):
        next(run)
    assert ours.state_dict() == {"epoch": 1, "position": 0}


def test_a_pass_that_is_left_early_is_not_repeated():
    ours = loader()
    first = next(iter(ours)).tolist()
    assert ours.state_dict() == {"epoch": 0, "position": 1}
    assert read(ours)[0] != first
    assert ours.state_dict() == {"epoch": 2, "position": 0}


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs = []

    def on_train_epoch_start(self):
        self.epochs.append([])

    def training_step(self, batch, _):
        self.epochs[-1].append(batch.tolist())
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.parametrize("limit", [None, 3])
def test_lightning_trains_every_epoch_in_another_order(limit):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    module = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, limit_train_batches=limit, use_distributed_sampler=False, **quiet
    )
    trainer.fit(module, loader())
    alone = loader()
    assert module.epochs == [read(alone)[:limit] for _ in range(3)]
    assert module.epochs[0] != module.epochs[1] != module.epochs[2]


class Killed(Exception):
    pass


class Killer(Recorder):
    def __init__(self, after):
        super().__init__()
        self.after, self.read = after, []

    def training_step(self, batch, _):
        if len(self.read) == self.after:
            raise Killed
        self.read.append(batch.tolist())
        return self.weight * 1.0


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:.*exists and is not empty.*")
@pytest.mark.parametrize("saved_after", [3, 8, 11])
def test_lightning_goes_on_from_a_checkpoint_with_the_batches_that_were_left(tmp_path, saved_after):
    """8 batches an epoch, 2 epochs: saved within an epoch, at its end, and within the second."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def train(module, checkpoint=None):
        saver = pl.callbacks.ModelCheckpoint(tmp_path, "last", every_n_train_steps=saved_after, save_top_k=-1)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=2, callbacks=[saver], use_distributed_sampler=False, **quiet)
        trainer.fit(module, loader(), ckpt_path=checkpoint, weights_only=True)

    killed = Killer(after=saved_after + 1)
    with pytest.raises(Killed):
        train(killed)
    resumed = Killer(after=99)
    train(resumed, tmp_path / "last.ckpt")
    alone = loader()
    assert killed.read[:saved_after] + resumed.read == read(alone) + read(alone)


def test_processes_that_train_together_share_the_batches_equally():
    rows = np.arange(100)

    def batches(rank, world_size):
        return list(LengthBuckets(rows // 2, rows % 7, rows, 8, True, None, 0, rank, world_size))

    whole = sorted(map(tuple, batches(0, 1)))
    shares = [batches(rank, 3) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]  # 13 batches: one that not all could have is left out
    seen = [tuple(batch) for share in shares for batch in share]
    assert len(set(seen)) == 12
    assert set(seen) <= set(whole)


def balanced(n=2000, share=0.05, **options):
    """A sampler that balances a rare outcome, and who has it."""
    sampler = buckets(n=n, **options)
    label = (np.random.default_rng(3).random(n) < share).astype(float)
    sampler.chance = class_chances(label[:, None])
    return sampler, label


def test_balanced_draws_hold_both_classes_equally_and_as_many_rows():
    sampler, label = balanced()
    for batches in epochs_of(sampler, 3):
        rows = np.array([row for batch in batches for row in batch]) // 2
        assert len(rows) == 2000 and len(batches) == len(sampler) == 250
        assert label[rows].mean() == pytest.approx(0.5, abs=0.04)  # 3.6 standard errors
        assert set(rows[label[rows] == 1]) == set(np.flatnonzero(label))


def test_the_order_of_balanced_draws_is_a_function_of_seed_and_epoch():
    first, second = epochs_of(balanced()[0], 2)
    assert list(balanced()[0]) == first != second
    assert list(balanced(seed=1)[0]) != first


def test_copies_of_a_rare_row_are_spread_over_batches():
    sampler, _ = balanced(n=4000, share=0.02)
    batches = list(sampler)
    copies = np.bincount(np.concatenate(batches) // 2)
    assert copies.max() > 20
    twice = [len(batch) - len(set(batch)) for batch in batches]
    assert np.mean(twice) < 0.5  # of 8; beside each other, four of eight would be copies


def test_balanced_draws_keep_the_cap_of_each_subject_and_the_budget():
    sampler, label = balanced(samples_per_subject=2, budget=4000)
    for batches in epochs_of(sampler, 3):
        assert len(batches) == len(sampler)
        rows = np.array([row for batch in batches for row in batch]) // 2
        distinct = np.unique(rows)
        assert np.unique(sampler.subject[distinct], return_counts=True)[1].max() <= 2
        assert label[rows].mean() > 0.35


def test_processes_share_the_balanced_batches_equally():
    def batches(rank, world_size):
        return [tuple(batch) for batch in balanced(rank=rank, world_size=world_size)[0]]

    whole, shares = batches(0, 1), [batches(rank, 2) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == sorted(whole)


def test_a_resumed_balanced_loader_reads_the_rest():
    def made():
        sampler = balanced(n=60)[0]
        return Loader(range(120), batch_sampler=sampler, num_workers=0)

    alone = made()
    whole = read(alone) + read(alone)
    stopped = made()
    begun = iter(stopped)
    first = [next(begun).tolist() for _ in range(5)]
    resumed = made()
    resumed.load_state_dict(stopped.state_dict())
    assert first + read(resumed) + read(resumed) == whole


def test_chances_balance_each_output_and_leave_the_unknown_alone():
    label = np.array([[1, 0], [0, 0], [0, np.nan], [np.nan, 1]])
    #        output 1: 3 known, 1 case: 1.5, 0.75; output 2: 3 known, 1 case
    expected = [(1.5 + 0.75) / 2, 0.75, (0.75 + 1) / 2, (1 + 1.5) / 2]
    np.testing.assert_allclose(class_chances(label), expected)
    assert class_chances(np.zeros((3, 1))).tolist() == [1, 1, 1]
