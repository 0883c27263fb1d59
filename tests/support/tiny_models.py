"""What fine-tuning is tested with: small models of random weights, and a log that can be learnt from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Post, Signal

TOPICS = 6
ITEMS_A_TOPIC = 20
USERS = 30
START = 1_700_000_000_000_000
"""µs; a day's beginning is not needed."""
INSTRUCTION = "find what a reader likes "
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


NOISE = [f"{first}{second}" for first in ("ba", "de", "fi", "go", "lu") for second in ("ma", "ne", "pi", "ro")]


def words() -> list[str]:
    """All words that the log is made of."""
    telling = [f"{kind}{topic}" for topic in range(TOPICS) for kind in ("one", "other")]
    return sorted({*telling, *NOISE, *INSTRUCTION.split(), "enjoyed"})


def title(topic: int, number: int) -> str:
    """One of two words that tell the topic, unlike each other, among three that tell nothing."""
    draw = random.Random(topic * 1000 + number)
    return " ".join([("one", "other")[number % 2] + str(topic), *draw.sample(NOISE, 3)])


def small_log() -> tuple[list[Item], list[Signal]]:
    """120 items of 6 topics; 30 users, each of one topic, who take to an item a day, write and rate now and then."""
    draw = random.Random(7)
    items = [
        Item(id=f"{topic}-{number}", title=title(topic, number))
        for topic in range(TOPICS)
        for number in range(ITEMS_A_TOPIC)
    ]
    signals = []
    for user in range(USERS):
        topic = user % TOPICS
        for day, number in enumerate(draw.sample(range(ITEMS_A_TOPIC), 14)):
            time = START + day * MICROS_PER_DAY + user
            item = f"{topic}-{number}"
            post = Post(f"enjoyed {title(topic, number)} #one{topic}", item_id=item, rating=0.5)
            liked = Behavior(item, Action.LIKE, 1.0 if day % 3 else 0.5)
            signals.append(Signal(f"{user}-{day}", f"u{user}", post if day % 4 == 3 else liked, time))
    return items, signals


def tiny_bert(folder: Path) -> Path:
    """A BERT of two layers with mean pooling."""
    tokenizer = _tokenizer(SPECIAL)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    return _saved(BertModel(config), _fast(tokenizer, "right"), "mean", folder)


def tiny_qwen(folder: Path) -> Path:
    """A Qwen3 of two layers, padded on the left, pooled at the last token, with prompts but no default."""
    tokenizer = _tokenizer(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    config = _qwen(tokenizer, positions=64)
    torch.manual_seed(0)
    saved = _saved(Qwen3Model(config), _fast(tokenizer, "left"), "lasttoken", folder)
    model = SentenceTransformer(str(saved), device="cpu", local_files_only=True)
    model.prompts = {"query": INSTRUCTION, "document": ""}
    model.save(str(folder))
    return folder


def tiny_writer(folder: Path) -> Path:
    """A Qwen3 of two layers that writes: words at random, always the same ones."""
    tokenizer = _tokenizer(SPECIAL)
    config = _qwen(tokenizer, positions=1024)
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    _fast(tokenizer, "left").save_pretrained(folder)
    return folder


def _qwen(tokenizer: Tokenizer, positions: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=positions,
    )


def _tokenizer(special: Sequence[str]) -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate([*special, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _fast(tokenizer: Tokenizer, side: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        padding_side=side,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        eos_token="[SEP]",
    )


def _saved(transformer: BertModel | Qwen3Model, tokenizer: PreTrainedTokenizerFast, pooling: str, folder: Path) -> Path:
    parts = folder / "parts"
    transformer.save_pretrained(parts)
    tokenizer.save_pretrained(parts)
    module = Transformer(str(parts))
    SentenceTransformer(modules=[module, Pooling(32, pooling_mode=pooling)], device="cpu").save(str(folder))
    return folder
