"""Makes a pretrained tokenizer read a de-identification blank, `___` in place of a name or a date, as one token.

By itself, BERT's WordPiece reads a blank as three underscores. A byte-level tokenizer reads it as pieces that may
include punctuation. The token for a blank is `___` if the vocabulary has it, as byte-level vocabularies may, and
otherwise `_`. Pretraining has seen both tokens in such places, and no embedding is added. The mask token is not used,
because it means a word to be guessed, as in masked language modelling on notes. The unknown token is not used either,
because an encoder over bytes never learned it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: A blank of any length, and the possible tokens for it; the first one in the vocabulary is used.
_RUN = "_{2,}"
_TOKENS = ("___", "_")
_SPECIAL = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def with_blanks(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer that reads a de-identification blank (`___`) as one token.

    If the given tokenizer already does, it is returned unchanged. Otherwise the result is a plain
    `PreTrainedTokenizerFast`. Classes such as `BertTokenizer` rebuild their normaliser from options when they are
    loaded from a folder, and would lose the change.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if _reads_blanks(backend):
        return tokenizer
    token = next((one for one in _TOKENS if backend.token_to_id(one) is not None), _TOKENS[-1])
    blank = normalizers.Replace(Regex(_RUN), token)
    backend.normalizer = normalizers.Sequence([blank, backend.normalizer]) if backend.normalizer else blank
    if backend.token_to_id(token) is not None:
        # The token keeps its id, and is split off before words, with the space before it: ` ___.` is two tokens.
        backend.add_tokens([AddedToken(token, lstrip=True, normalized=True)])
    backend.no_truncation()
    backend.no_padding()
    special = {name: getattr(tokenizer, name) for name in _SPECIAL if getattr(tokenizer, name) is not None}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, model_max_length=tokenizer.model_max_length, **special
    )


def _reads_blanks(backend: Any) -> bool:
    """Return whether `___` is a token of its own, as in tokenizers fitted here, or a normaliser makes it one."""
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    normalizer = json.dumps(json.loads(backend.to_str())["normalizer"])
    return "___" in added or json.dumps(_RUN) in normalizer
