"""A tokenizer whose tokens are Chinese words. Apart from `words`, since importing transformers takes seconds."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from penchant_pipelines.encoder.words import WordVocabulary
from penchant_pipelines.errors import WrongState


class WordTokenizer(PreTrainedTokenizerFast):
    """A WordPiece tokenizer that has Chinese cut into its own words first."""

    def __init__(self, base: PreTrainedTokenizerBase, vocabulary: WordVocabulary, first: int) -> None:
        """Extend `base` by the words, which get the ids from `first` on. Raises WrongState for another kind of base."""
        backend = getattr(base, "backend_tokenizer", None)
        if backend is None or (state := json.loads(backend.to_str()))["model"]["type"] != "WordPiece":
            raise WrongState("ADAPTER_MISMATCH", "a word vocabulary needs a model with a WordPiece tokenizer")
        # A character that the model knew gets the new row too; its old one is left without a token.
        state["model"]["vocab"] |= {word: first + number for number, word in enumerate(vocabulary.words)}
        state["normalizer"]["handle_chinese_chars"] = False
        state["truncation"] = state["padding"] = None
        names = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
        super().__init__(  # type: ignore[no-untyped-call]
            tokenizer_object=Tokenizer.from_str(json.dumps(state)),
            model_max_length=base.model_max_length,
            **{name: getattr(base, name) for name in names},
        )
        self._vocabulary = vocabulary

    def __call__(self, text: str | list[str], *arguments: Any, **options: Any) -> Any:
        """Tokenize one text or several, as every tokenizer does."""
        segment = self._vocabulary.segment
        segmented = segment(text) if isinstance(text, str) else [segment(each) for each in text]
        return super().__call__(segmented, *arguments, **options)
