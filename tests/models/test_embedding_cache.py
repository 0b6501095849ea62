"""The frozen encoder's cache: the same numbers in every epoch and process, and never a wrong one."""

import copy
import gc
import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from ehrdl.batch import DataSpec
from ehrdl.models.notes.embedding_cache import EmbeddingCache, chunk_keys, encoder_hash
from ehrdl.models.notes.transformer import NoteTransformer
from ehrdl.options.pretrained import Pretrained

LENGTHS = [64, 9, 33, 1, 40, 64, 17, 5]


def _numbers(n, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 2**63, (n, 2)).astype(np.uint64), draw.normal(size=(n, 12)).astype(np.float16)


def _count(encoder):
    """Chunks that the transformer itself has encoded since."""
    seen = []
    encoder.encoder.register_forward_hook(
        lambda _, __, kwargs, ___: seen.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    return seen


@pytest.fixture
def make(family, tmp_path):
    def encoder(cache=str(tmp_path), **options):
        torch.manual_seed(0)
        frozen = Pretrained(family.folder, "frozen", cache=cache)
        return NoteTransformer(family.spec, pretrained=frozen, **{"width": 16} | options)

    return encoder


def test_a_second_epoch_and_a_second_process_see_the_first_ones_vectors_and_encode_nothing(make, family):
    encoder, batch = make(), family.batch(LENGTHS)
    seen = _count(encoder)
    first = encoder.summaries(batch.tokens, batch.token_valid)
    assert sum(seen) == 8
    assert torch.equal(encoder.summaries(batch.tokens, batch.token_valid), first)
    encoder.eval()  # what was made is written
    assert torch.equal(encoder.summaries(batch.tokens, batch.token_valid), first)
    another = make()
    seen += _count(another)
    assert torch.equal(another.summaries(batch.tokens, batch.token_valid), first)
    assert sum(seen) == 8


def test_the_cached_vectors_are_first_mean_and_maximum_of_the_states(make, family):
    encoder, batch = make(), family.batch(LENGTHS)
    found = encoder.summaries(batch.tokens, batch.token_valid).float()
    for i, length in enumerate(LENGTHS):
        tokens = batch.tokens[i : i + 1, :length]
        real = torch.ones_like(tokens, dtype=torch.bool)
        states = encoder.states(tokens, real, ~real)[0]
        expected = torch.cat([states[0], states.mean(dim=0), states.amax(dim=0)])
        assert torch.allclose(found[i], expected, atol=5e-3, rtol=1e-3)


def test_without_a_folder_the_features_are_the_same(make, family):
    batch = family.batch(LENGTHS)
    assert torch.equal(make().eval()(batch)[0], make(cache=None).eval()(batch)[0])


def test_vectors_are_kept_where_the_data_are_unless_a_folder_is_named(families, tmp_path, monkeypatch):
    family = families["bert"]
    batch = family.batch(LENGTHS)
    monkeypatch.chdir(tmp_path)

    def folder_of(where, **options):
        spec = replace(family.spec, cache=where)
        encoder = NoteTransformer(spec, pretrained=Pretrained(family.folder, "frozen", **options))
        encoder.summaries(batch.tokens, batch.token_valid)
        encoder.flush()
        return sorted({path.parents[1].name for path in tmp_path.glob("*/embeddings-*/*.bin")})

    assert folder_of(None) == []
    assert folder_of("prepared") == ["prepared"]
    assert folder_of("later", cache="named") == ["named", "prepared"]
    assert folder_of("later", cache=None) == ["named", "prepared"]


def test_a_place_of_this_machine_is_in_no_file_that_holds_the_spec(families):
    spec = replace(families["bert"].spec, cache="somewhere")
    assert "somewhere" not in str(spec.to_dict()) and DataSpec.from_dict(spec.to_dict()) == families["bert"].spec


def test_packed_and_grouped_make_the_same_vectors(families, tmp_path):
    family = families["bert"]
    batch, found = family.batch(LENGTHS), []
    for padding in ("packed", "groups"):
        torch.manual_seed(0)
        options = {"tune": "frozen", "padding": padding, "cache": str(tmp_path / padding)}
        encoder = NoteTransformer(family.spec, pretrained=Pretrained(family.folder, **options))
        found.append(encoder.eval()(batch)[0])
    assert torch.allclose(*found, atol=1e-2)


def test_training_moves_what_reads_the_vectors_and_nothing_of_the_encoder(make, family):
    encoder, batch = make().train(), family.batch(LENGTHS)
    before = {name: weight.clone() for name, weight in encoder.named_parameters()}
    optimizer = torch.optim.AdamW([weight for weight in encoder.parameters() if weight.requires_grad], lr=0.01)
    encoder(batch)[0].square().sum().backward()
    optimizer.step()
    moved = {name for name, weight in encoder.named_parameters() if not torch.equal(weight, before[name])}
    assert {name.partition(".")[0] for name in moved} == {"summary_pool", "link_pool"}
    assert encoder.pretrained_parameters() == []


def test_a_frozen_encoder_drops_nothing_while_the_rest_trains(make, family):
    encoder, batch = make(cache=None, dropout=0.0, token_dropout=0.9).train(), family.batch(LENGTHS)
    assert torch.equal(encoder(batch)[0], encoder.eval()(batch)[0])


def test_what_the_cache_knows_does_not_decide_what_is_drawn_next(make, family):
    note, batch = make().train(), family.batch(LENGTHS)
    after = []
    for _ in range(2):  # encoded, then read
        torch.manual_seed(0)
        note(batch)
        after.append(torch.rand(3))
    torch.testing.assert_close(*after, rtol=0, atol=0)


def test_chunks_that_stand_twice_in_a_batch_are_encoded_once(make, family):
    encoder, batch = make(), family.batch([20] * 8)
    seen = _count(encoder)
    tokens = batch.tokens[:2].repeat(4, 1)
    found = encoder.summaries(tokens, batch.token_valid)
    assert sum(seen) == 2
    assert torch.equal(found[:2].repeat(4, 1), found)


def test_other_weights_have_a_folder_of_their_own(make, family, tmp_path):
    encoder, batch = make(), family.batch(LENGTHS)
    first = encoder.summaries(batch.tokens, batch.token_valid)
    state = encoder.state_dict()
    name = next(name for name in state if "dense.weight" in name or "Wo.weight" in name)
    state[name] = state[name] * 1.5
    encoder.load_state_dict(state)
    assert not torch.equal(encoder.summaries(batch.tokens, batch.token_valid), first)
    encoder.flush()
    assert len(list(tmp_path.glob("embeddings-*"))) == 2


def test_lower_precision_has_a_folder_of_its_own(families, tmp_path):
    family = families["bert"]
    encoder = NoteTransformer(family.spec, pretrained=Pretrained(family.folder, "frozen", cache=str(tmp_path)))
    batch = family.batch(LENGTHS)
    first = encoder.summaries(batch.tokens, batch.token_valid)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder.summaries(batch.tokens, batch.token_valid)
    assert not torch.equal(half, first) and torch.allclose(half, first, atol=0.2)
    assert torch.equal(encoder.summaries(batch.tokens, batch.token_valid), first)


def test_the_hash_of_an_encoder_knows_every_weight_and_setting(families):
    encoder = NoteTransformer(families["bert"].spec, pretrained=Pretrained(families["bert"].folder, "frozen")).encoder
    config = encoder.config.to_dict()
    known = {encoder_hash(encoder, config, "torch.float32")}
    assert encoder_hash(encoder, config | {"transformers_version": "6", "_name_or_path": "x"}, "torch.float32") in known
    known.add(encoder_hash(encoder, config, "torch.bfloat16"))
    known.add(encoder_hash(encoder, config | {"hidden_act": "relu"}, "torch.float32"))
    with torch.no_grad():
        encoder.encoder.layer[1].output.LayerNorm.bias[-1] += 1e-6
    known.add(encoder_hash(encoder, config, "torch.float32"))
    assert len(known) == 4


def test_keys_are_those_of_the_valid_tokens_alone():
    tokens = np.array([[5, 6, 7, 0], [5, 6, 7, 9], [5, 6, 0, 0], [7, 6, 5, 0]])
    keys = chunk_keys(tokens, np.array([3, 3, 2, 3]))
    assert (keys[0] == keys[1]).all()
    assert len(np.unique(keys, axis=0)) == 3
    assert (chunk_keys(tokens[:1, :3], np.array([3]))[0] == keys[0]).all()


def test_what_waits_is_written_when_the_cache_is_gone(tmp_path):
    keys, vectors = _numbers(5)
    cache = EmbeddingCache(tmp_path, 12)
    cache.add(keys, vectors)
    assert list(tmp_path.iterdir()) == []
    del cache
    gc.collect()
    assert np.array_equal(EmbeddingCache(tmp_path, 12).read(keys)[0], vectors)


def test_a_copy_and_a_pickle_share_the_folder(tmp_path):
    keys, vectors = _numbers(5)
    cache = EmbeddingCache(tmp_path, 12)
    cache.add(keys, vectors)
    assert copy.deepcopy(cache) is cache
    cache.flush()
    assert pickle.loads(pickle.dumps(cache)).read(keys)[1].all()


def test_many_files_are_read_whatever_the_order_of_the_keys(tmp_path, monkeypatch):
    monkeypatch.setattr("ehrdl.models.notes.embedding_cache._OPEN", 2)
    keys, vectors = _numbers(100)
    cache = EmbeddingCache(tmp_path, 12)
    for start in range(0, 100, 20):
        cache.add(keys[start : start + 20], vectors[start : start + 20])
        cache.flush()
    order = np.random.default_rng(3).permutation(100)
    for opened in (cache, EmbeddingCache(tmp_path, 12)):
        found, known = opened.read(np.concatenate([keys[order], _numbers(3, seed=9)[0]]))
        assert known.tolist() == [True] * 100 + [False] * 3
        assert np.array_equal(found[:100], vectors[order])


def _add(folder, seed):
    keys, vectors = _numbers(300, seed)
    cache = EmbeddingCache(folder, 12)
    for start in range(0, 300, 60):
        cache.add(keys[start : start + 60], vectors[start : start + 60])
        cache.flush()


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(tmp_path, seed)) for seed in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cache = EmbeddingCache(tmp_path, 12)
    assert len(cache) == 900
    for seed in (1, 2, 3):
        keys, vectors = _numbers(300, seed)
        assert np.array_equal(cache.read(keys)[0], vectors)


def _truncate(data):
    return data[:-7]


def _garbage(data):
    return b"\x00" * len(data)


def _empty(_):
    return b""


def _flip(place):
    def flip(data):
        at = place % len(data)
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

    return flip


_VECTORS = {"truncated": _truncate, "garbage": _garbage, "empty": _empty, "vector": _flip(-1), "another": _flip(-50)}
_INDEX = {"count": _flip(9), "width": _flip(17), "sum": _flip(25), "key": _flip(40)}


@pytest.mark.parametrize("kind", [*_VECTORS, *_INDEX])
def test_a_damaged_file_is_said_and_removed_and_never_read_as_numbers(tmp_path, capsys, kind):
    keys, vectors, file = _written(tmp_path)
    file.write_bytes((_VECTORS | _INDEX)[kind](file.read_bytes()))
    _require_recovery(EmbeddingCache(tmp_path, 12), keys, vectors, file)
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("kind", _VECTORS)
def test_a_file_that_is_damaged_while_it_is_open_is_not_read_either(tmp_path, kind):
    keys, vectors, file = _written(tmp_path)
    cache = EmbeddingCache(tmp_path, 12)
    assert cache.read(keys)[1].all()
    file.write_bytes(_VECTORS[kind](file.read_bytes()))
    _require_recovery(cache, keys, vectors, file)


def _written(folder):
    keys, vectors = _numbers(3)
    cache = EmbeddingCache(folder, 12)
    cache.add(keys, vectors)
    cache.flush()
    (file,) = folder.iterdir()
    return keys, vectors, file


def _require_recovery(cache, keys, vectors, damaged):
    found, known = cache.read(keys)
    assert not known.any() and not found.any() and not damaged.exists()
    cache.add(keys, vectors)
    cache.flush()
    assert np.array_equal(cache.read(keys)[0], vectors)
    assert np.array_equal(EmbeddingCache(cache.folder, 12).read(keys)[0], vectors)


def test_what_a_killed_process_was_writing_is_not_read(tmp_path):
    _, _, file = _written(tmp_path)
    file.rename(tmp_path / f".{file.name}.0a1b2c3d.part")
    assert len(EmbeddingCache(tmp_path, 12)) == 0
