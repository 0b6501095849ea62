import numpy as np
import pytest

from ehrdl.data.notes.vocabulary import fit_channels, fit_tokenizer, load_tokenizer
from ehrdl.errors import ConfigError

NONE_HIDDEN = np.zeros(5, bool)

BODIES = [
    (1, 0, 0, "Patient ___ denies chest pain. Chest pain denied."),
    (2, 0, 0, "Chest clear, patient comfortable; chest clear."),
    (3, 0, 0, "zebra zebra zebra zebra"),
]


@pytest.fixture(scope="module")
def tokenizer(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer")
    fit_tokenizer(build.notes(BODIES), np.array([1, 2]), 200, out, min_patients=1)
    return load_tokenizer(str(out))


def test_words_of_the_training_notes_are_tokens_and_others_are_not(tokenizer):
    assert tokenizer.tokenize("Chest") == ["chest"]
    assert "zebra" not in tokenizer.get_vocab()
    assert not any("z" in token for token in tokenizer.get_vocab())


def test_what_was_deidentified_is_one_token_known_as_special(tokenizer):
    assert tokenizer.tokenize("patient ___ chest") == ["patient", "___", "chest"]


def test_a_chunk_can_be_framed_and_padded(tokenizer):
    assert None not in (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.pad_token_id == 0
    assert tokenizer.decode(tokenizer("chest pain").input_ids) == "[CLS] chest pain [SEP]"


def test_the_same_notes_give_the_same_files(build, tmp_path):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijkl"), rng.integers(2, 9))) for _ in range(300)]
    notes = build.notes([(1, i, i, " ".join(rng.choice(words, 40))) for i in range(30)])
    for i in range(5):
        fit_tokenizer(notes, np.array([1]), 300, tmp_path / str(i), min_patients=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert len({(tmp_path / str(i) / name).read_bytes() for i in range(5)}) == 1


def test_inner_letters_are_no_special_tokens(tokenizer):
    assert set(tokenizer.all_special_tokens) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert tokenizer.tokenize("chest ##t") == ["chest", "[UNK]", "[UNK]", "t"]


def test_the_vocabulary_keeps_to_its_size(build, tmp_path):
    fit_tokenizer(build.notes(BODIES), np.array([1, 2]), 50, tmp_path, min_patients=1)
    assert len(load_tokenizer(str(tmp_path))) == 50


def test_a_tokenizer_that_is_not_there_is_one_line_with_its_key(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.notes\.tokenizer: '.*nowhere' cannot be loaded") as caught:
        load_tokenizer(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_scalers_are_those_of_the_training_subjects_facts(build):
    facts = [
        (1, 0, 0, 2, 130),
        (1, 1, 1, 2, 140),
        (3, 0, 0, 2, 150),
        (1, 0, 0, 0, 1),
        (2, 0, 0, 2, 999),
        (2, 0, 0, 3, 5),
    ]
    specs = {spec.name: spec for spec in fit_channels(build.store(facts), np.array([1, 3]), NONE_HIDDEN)}
    sodium = specs["sodium"]
    assert (sodium.mean, sodium.std) == (140, pytest.approx(np.std([130, 140, 150])))
    assert (sodium.kind, sodium.unit, sodium.low, sodium.high) == ("numeric", "mEq/L", 50, 225)
    assert list(specs) == ["admission", "sodium"]  # no training subject has a creatinine or a discharge
    admission = specs["admission"]
    assert (admission.mean, admission.std, admission.low, admission.high) == (0, 1, 1, 1)


@pytest.mark.parametrize("n", [1, 3, 7, 1000])
def test_a_channel_that_never_varies_is_not_blown_up(build, n):
    facts = [(1, i, i, 3, 7.4) for i in range(n)]
    (spec,) = fit_channels(build.store(facts), np.array([1]), NONE_HIDDEN)
    assert (spec.mean, spec.std) == (pytest.approx(7.4, rel=1e-6), 1)


def test_a_small_spread_around_a_large_mean_is_kept(build):
    values = np.float32([760.0, 760.25, 760.5])
    facts = [(1, i, i, 2, v) for i, v in enumerate(values)]
    (spec,) = fit_channels(build.store(facts), np.array([1]), NONE_HIDDEN)
    assert spec.std == pytest.approx(values.astype(float).std(), rel=1e-6)


def test_sums_over_blocks_are_the_sums_over_all(build, monkeypatch):
    rng = np.random.default_rng(0)
    facts = [
        (int(s), i, i, 2, float(v))
        for i, (s, v) in enumerate(zip(rng.integers(0, 40, 500), rng.normal(140, 4, 500), strict=True))
    ]
    store, train = build.store(facts), np.arange(0, 40, 3)
    (whole,) = fit_channels(store, train, NONE_HIDDEN)
    monkeypatch.setattr("ehrdl.data.notes.vocabulary._FACTS_A_BLOCK", 30)
    (blocks,) = fit_channels(store, train, NONE_HIDDEN)
    values = np.float32([v for s, _, _, _, v in facts if s % 3 == 0]).astype(float)
    for spec in (whole, blocks):
        assert (spec.mean, spec.std) == (pytest.approx(values.mean()), pytest.approx(values.std()))


def test_hidden_channels_and_those_without_a_fact_are_left_out(build):
    store = build.store([(1, 0, 0, 2, 140), (1, 0, 0, 3, 1.1)])
    hidden = np.arange(5) == 3
    assert [spec.name for spec in fit_channels(store, np.array([1]), hidden)] == ["sodium"]
    assert fit_channels(build.store([]), np.array([1]), NONE_HIDDEN) == ()
