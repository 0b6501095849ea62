"""Words that enough patients share. One that a single patient has is a name or a telephone number as often as not.

A vocabulary is written into the run's folder, and a folder is passed on more easily than notes are. So it is learned
from the words alone that the notes of several training patients hold (`data.notes.min_patients`), whatever the number
of their notes.
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
#: What BERT's pre-tokenizer makes of ASCII: words, and every other visible character by itself.
_WORDS = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
#: A trainer weighs words against each other; from so many on, their numbers are divided. Words of one text.
_SHOWN, _WORDS_A_TEXT = 20_000_000, 1000


@dataclass(frozen=True)
class SharedWords:
    """The words of some patients' texts, as often as they stand there.

    Attributes:
        counts: those that enough patients have, by word, in the order of the alphabet.
        n_left_out: how many other words there are.
        n_patients: who have a text at all.
    """

    counts: dict[str, int]
    n_left_out: int
    n_patients: int

    def characters(self) -> list[str]:
        """What the words are written in, sorted."""
        return sorted(set().union(*self.counts))

    def texts(self) -> Iterator[str]:
        """Each word as often as it stands in the texts, if these are many a share of that, in texts of one word."""
        share = max(1, -(-sum(self.counts.values()) // _SHOWN))
        for word, count in self.counts.items():
            shown = -(-count // share)
            for start in range(0, shown, _WORDS_A_TEXT):
                yield " ".join([word] * min(shown - start, _WORDS_A_TEXT))


def shared_words(notes: Notes, subjects: np.ndarray, tokenizer: Tokenizer, min_patients: int) -> SharedWords:
    """Count the words of some subjects' notes, and keep those that enough of them have.

    Args:
        notes: the texts.
        subjects: subject_id of those whose notes are read.
        tokenizer: its normalizer and pre-tokenizer, BERT's, say what a word is.
        min_patients: so many subjects must have a word.
    """
    owner = notes.owners()
    rows = np.flatnonzero(np.isin(owner, subjects))
    rows = rows[np.argsort(owner[rows], kind="stable")]  # a subject's notes and records stand together
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
    """The words of a text as a tokenizer of BERT's kind splits it; plain ASCII without a call for each, much faster.

    Args:
        text: as the note has it.
        tokenizer: with a lower-casing BERT normalizer and BERT's pre-tokenizer.
    """
    if text.isascii():
        return _WORDS.findall(_CONTROLS.sub("", text.lower()))
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]
