"""Counts the words that enough patients share. A word that only one patient has is often a name or telephone number.

The folder of a run contains the vocabulary, and people pass on such a folder more readily than notes. So the vocabulary
is learned only from words in the notes of several training patients (`data.notes.min_patients`). The number of notes
per patient makes no difference.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ehrdl.data.notes.store import Notes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ROWS_A_BATCH = 1000
#: The tokens that BERT's pre-tokenizer makes from ASCII: words, and every other visible character by itself.
_WORDS = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
#: The word count above which all counts are scaled down, since a trainer only compares them. The words per text.
_SHOWN, _WORDS_A_TEXT = 20_000_000, 1000


@dataclass(frozen=True)
class SharedWords:
    """The words that enough patients share, with the number of occurrences of each word.

    Attributes:
        counts: number of occurrences of each word that enough patients have, in alphabetical order.
        n_left_out: number of distinct words that too few patients have.
        n_patients: number of patients who have at least one text.
    """

    counts: dict[str, int]
    n_left_out: int
    n_patients: int

    def characters(self) -> list[str]:
        """Return all characters that occur in the shared words, sorted."""
        return sorted(set().union(*self.counts))

    def texts(self) -> Iterator[str]:
        """Yield texts that repeat each shared word as often as it occurs in the notes, to train a tokenizer.

        If the words occur more than 20 million times in total, all their counts are scaled down.
        """
        share = max(1, -(-sum(self.counts.values()) // _SHOWN))
        for word, count in self.counts.items():
            shown = -(-count // share)
            for start in range(0, shown, _WORDS_A_TEXT):
                yield " ".join([word] * min(shown - start, _WORDS_A_TEXT))


def shared_words(notes: Notes, subjects: np.ndarray, tokenizer: Tokenizer, min_patients: int) -> SharedWords:
    """Count the words in the notes of some subjects, and keep the words that at least `min_patients` subjects have.

    Args:
        notes: the notes, with their texts.
        subjects: subject_id of the subjects; only their notes are read.
        tokenizer: a tokenizer with the normalizer and pre-tokenizer of BERT, which define what a word is.
        min_patients: the fewest subjects that must have a word.
    """
    owner = notes.owners()
    rows = np.flatnonzero(np.isin(owner, subjects))
    rows = rows[np.argsort(owner[rows], kind="stable")]  # a subject's notes and records are adjacent
    total: Counter[str] = Counter()
    patients: Counter[str] = Counter()
    own: set[str] = set()
    current = None
    for start in range(0, len(rows), _ROWS_A_BATCH):
        batch = rows[start : start + _ROWS_A_BATCH]
        for subject, text in zip(owner[batch].tolist(), notes.texts(batch), strict=True):
            if subject != current:
                patients.update(own)
                own, current = set(), subject
            words = split_words(text, tokenizer)
            total.update(words)
            own.update(words)
    patients.update(own)
    kept = {word: total[word] for word in sorted(patients) if patients[word] >= min_patients}
    return SharedWords(kept, len(patients) - len(kept), len(np.unique(owner[rows])))


def split_words(text: str, tokenizer: Tokenizer) -> list[str]:
    """Split a text into words as a BERT tokenizer does. Plain ASCII is split by a regular expression, which is faster.

    Args:
        text: the note's text, unchanged.
        tokenizer: a tokenizer with a lower-casing BERT normalizer and BERT's pre-tokenizer.
    """
    if text.isascii():
        return _WORDS.findall(_CONTROLS.sub("", text.lower()))
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]
