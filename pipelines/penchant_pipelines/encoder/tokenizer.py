"""Chinese words as a model's tokens. Apart from `words`, since importing transformers takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from penchant_pipelines.encoder.words import WordVocabulary, word_embedding
from penchant_pipelines.errors import WrongState

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel


class WordTokenizer(PreTrainedTokenizerFast):
    """A WordPiece tokenizer that has Chinese cut into its own words first."""

    def __init__(self, base: PreTrainedTokenizerBase, vocabulary: WordVocabulary, first: int) -> None:
        """Extend `base` by the words, which get the ids from `first` on. Raises WrongState for another kind of base."""
        backend = getattr(base, "backend_tokenizer", None)
        if backend is None or (state := msgspec.json.decode(backend.to_str()))["model"]["type"] != "WordPiece":
            raise WrongState("ADAPTER_MISMATCH", "a word vocabulary needs a model with a WordPiece tokenizer")
        # A character that the model knew gets the new row too; its old one is left without a token.
        state["model"]["vocab"] |= {word: first + number for number, word in enumerate(vocabulary.words)}
        state["normalizer"]["handle_chinese_chars"] = False
        state["truncation"] = state["padding"] = None
        names = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
        super().__init__(  # type: ignore[no-untyped-call]
            tokenizer_object=Tokenizer.from_buffer(msgspec.json.encode(state)),
            model_max_length=base.model_max_length,
            **{name: getattr(base, name) for name in names},
        )
        self._vocabulary = vocabulary

    def __call__(self, text: str | list[str], *arguments: Any, **options: Any) -> Any:
        """Tokenize one text or several, as every tokenizer does."""
        segment = self._vocabulary.segment
        segmented = segment(text) if isinstance(text, str) else [segment(each) for each in text]
        return super().__call__(segmented, *arguments, **options)


def add_words(model: SentenceTransformer, vocabulary: WordVocabulary, rows: NDArray[np.float32]) -> None:
    """Give a WordPiece model the words as tokens; rows: float32 (n, d) input embeddings.

    Raises WrongState where the model has no WordPiece tokenizer or the rows don't fit.
    """
    if isinstance(model.tokenizer, WordTokenizer):
        raise WrongState("ADAPTER_MISMATCH", "the model has Chinese words as tokens already and can't take others")
    embedding = word_embedding(model)
    if rows.shape != (len(vocabulary), embedding.embedding_dim):
        raise WrongState(
            "ADAPTER_MISMATCH",
            f"word rows are {rows.shape}, expected {(len(vocabulary), embedding.embedding_dim)} for this model",
        )
    model[0].processor = WordTokenizer(model.tokenizer, vocabulary, embedding.num_embeddings)  # type: ignore[assignment]
    transformer: PreTrainedModel = model[0].auto_model  # type: ignore[assignment]
    # `resize_token_embeddings` throws dice for all new rows first, which takes most of a second.
    weight = torch.cat([embedding.weight.data, torch.from_numpy(rows).to(embedding.weight)])
    grown = torch.nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        weight, freeze=False, padding_idx=embedding.padding_idx
    )
    transformer.set_input_embeddings(grown)
    transformer.config.vocab_size = len(weight)
