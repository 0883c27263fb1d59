"""`python -m penchant_finetune.bilingual.evaluate --data DIR`: the card's figures, beside plain MiniLM's.

The embedded encoder as it ships is measured, or with `--adapter` another folder on the same model. `development`
steered the recipe; `test` is reported and steers nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from penchant_finetune.bilingual.corpus import read, read_corpus_parts, read_lines, read_topics
from penchant_finetune.bilingual.export import describe
from penchant_finetune.bilingual.measures import cosine, held_out, topical
from penchant_finetune.program import told_in_a_line
from penchant_pipelines.encoder import Encoder, EncoderSettings, open_encoder
from penchant_pipelines.encoder.adapter import write_manifest
from penchant_pipelines.encoder.sentence import BILINGUAL, embedded_model, open_model
from penchant_pipelines.encoder.tokenizer import WordTokenizer
from penchant_pipelines.encoder.words import WORDS_FILE, WordVocabulary
from penchant_pipelines.text.scripts import HAN

TOPICS = {"thucnews": "zh", "tnews": "zh", "ag_news": "en"}
LABELLED = {"thucnews": 3000, "tnews": 3500, "ag_news": 2000}
ASKED = {"thucnews": 2000, "tnews": 2250, "ag_news": 1300}
_HAN = re.compile(f"[{HAN}]")


def figures(encoder: Encoder, data: Path, part: str) -> dict[str, float]:
    """Every measure on one part, `development` or `test`."""
    development, test = read_corpus_parts(data)
    rows = {name: read_topics(data, name, language) for name, language in TOPICS.items()}
    number = ("development", "test").index(part)
    return held_out(encoder, (development, test)[number]) | topical(encoder, rows, number, LABELLED, ASKED)


def english_kept(encoder: Encoder, plain: Encoder, data: Path) -> float:
    """Mean cosine of the two encoders on English news."""
    texts = [row.text for row in read_topics(data, "ag_news", "en")[:1000]]
    return cosine(encoder.encode(texts), plain.encode(texts))


def token_costs(adapter: Path, data: Path) -> dict[str, float]:
    """Tokens of Chinese posts against the same text cut by characters, and the share of unknown ones."""
    model, _, _ = open_model(EncoderSettings(model=str(embedded_model())))
    tokenizer = WordTokenizer(model.tokenizer, WordVocabulary.load(adapter / WORDS_FILE), len(model.tokenizer))
    posts = [row["post"]["text"][:500] for row in read_lines(data / "zh_blogs/signals.jsonl.gz")]
    posts += [r["post"]["text"] for r in read_lines(data / "douban/signals.jsonl.gz") if "post" in r]
    texts = [text for post in posts if (text := read(post, "zh"))]
    tokens = unknown = characters = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += len(ids)
        unknown += ids.count(tokenizer.unk_token_id)
        rest = tokenizer(_HAN.sub(" ", text), add_special_tokens=False)["input_ids"]
        characters += len(_HAN.findall(text)) + len(rest)
    return {"token_ratio": tokens / characters, "unknown": unknown / tokens}


def open_undescribed(adapter: Path, plain: Encoder) -> Encoder:
    """Open an adapter, its manifest may still be to come; its folder stays as it is. Raises as `open_encoder` does."""
    # A manifest without figures in the folder itself would let a server load it.
    with TemporaryDirectory() as scratch:
        copy = shutil.copytree(adapter, Path(scratch) / adapter.resolve().name)
        write_manifest(copy, plain.space_id, plain.dimensions, {})
        return open_encoder(EncoderSettings(model=str(embedded_model()), adapter=copy))


@told_in_a_line()
def main() -> None:
    """Measure, print a table, and write the card where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("development", "test"), default="test")
    parser.add_argument("--adapter", type=Path, help="a folder of an adapter of all-MiniLM-L6-v2")
    parser.add_argument("--describe", action="store_true", help="write the adapter's card and manifest")
    arguments = parser.parse_args()
    if arguments.describe and (arguments.adapter is None or arguments.part != "test"):
        parser.error("--describe writes the test part's figures into --adapter: give that folder, and no other --part")
    plain = open_encoder(EncoderSettings(model=str(embedded_model())))
    adapter = arguments.adapter
    encoder = open_undescribed(adapter, plain) if adapter else open_encoder(EncoderSettings())
    found = figures(encoder, arguments.data, arguments.part)
    found["english_cosine"] = english_kept(encoder, plain, arguments.data)
    found |= token_costs(arguments.adapter or BILINGUAL, arguments.data)
    before = figures(plain, arguments.data, arguments.part)
    for name, value in found.items():
        print(f"{name:16} {value:.4f}" + (f"   plain {before[name]:.4f}" if name in before else ""))
    if arguments.describe:
        describe(arguments.adapter, plain.space_id, found, before)


if __name__ == "__main__":
    main()
