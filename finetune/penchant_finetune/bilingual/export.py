"""From a run's checkpoint to the adapter folder that ships with the package, its card included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors.torch import save_file

from penchant_finetune.bilingual.training import BEST
from penchant_finetune.folder import new_folder
from penchant_finetune.lora import PREFIX
from penchant_pipelines.encoder.adapter import CONFIG, WEIGHTS, write_manifest
from penchant_pipelines.encoder.words import ROWS_FILE, WORDS_FILE, WordVocabulary, save_rows

CARD = """# The bilingual adapter of the embedded encoder

Teaches all-MiniLM-L6-v2 Chinese and leaves its English where it was. It is what Penchant reads with unless another
model is configured.

## Method

jieba's words are the tokens: {words} words and characters are added to the WordPiece vocabulary, Chinese is cut into
them by jieba's own algorithm over this very list, and each new row starts at the mean input embedding of what is
telling in the word's English glosses, scaled to the length of an English row. The rows and a LoRA of rank {rank} on
attention and feed-forward layers are then trained by InfoNCE and cosine distillation towards the English model
(translations, English put word for word into Chinese, glosses, bags of related words), InfoNCE on paraphrases and
passages of one document, CoSENT on graded pairs, and an anchor that holds English texts in place. A second teacher,
multilingual-e5-small, tells of the rest: what it reads in names that no dictionary has, in headlines made of related
words or of words that news says together, and in Chinese sentences without a translation is led into the English
model's space by a ridge regression on texts whose English is known. Whole texts learn from both teachers whose
neighbours they are, too (Fang et al. 2021). Rows are kept in 4 bits, the LoRA in 16.

{runs}

`finetune/runs/bilingual.sh` makes a run; `run.json` holds the configuration of each.

## Data

{data}

CC-CEDICT (CC BY-SA 4.0) gave the glosses; Tatoeba (CC BY 2.0 FR) sentences; the Linux China translation project
(Apache-2.0) titles and articles; the CSTS collection sentence pairs; public blogs, film, book and music titles the
rest; multilingual-e5-small (MIT; Wang et al. 2024) read what has no translation; the topics of news are those of the
package jionlp (Apache-2.0). No topic-labelled text was learnt from: those measure. Sentences, titles and pairs that are
measured on were set aside by hash before the training.

## Figures

The test part, which steered nothing (`python -m penchant_finetune.bilingual.evaluate --data DATA --part test`):

| measure | this adapter | plain MiniLM |
|---|---|---|
{figures}

## Licence

Weights: Apache-2.0, as the base model; glosses of CC-CEDICT shaped them, with thanks to its editors (CC BY-SA 4.0).
"""
MEASURES = {
    "zh_sts": "Chinese STS-B, Spearman",
    "tatoeba_zh_en": "zh → en, Tatoeba 1,000, top 1",
    "titles_zh_en": "zh → en, technical titles 500, top 1",
    "thucnews": "THUCNews topics, 10-NN accuracy",
    "tnews": "TNEWS topics, 10-NN accuracy",
    "ag_news": "AG News topics (English), 10-NN accuracy",
    "english_cosine": "cosine with plain MiniLM, English news",
    "token_ratio": "tokens of Chinese posts against characters",
    "unknown": "unknown tokens of Chinese posts",
}


def export(run: Path, folder: Path) -> None:
    """Write the adapter of a run's best checkpoint into a new folder: words with 4-bit rows, LoRA in half precision.

    It can't be loaded before `describe` adds its card and manifest. Raises WrongState where the folder holds something.
    """
    state: dict[str, Any] = torch.load(run / BEST, map_location="cpu", weights_only=True)
    lora = {PREFIX + name: tensor.half().contiguous() for name, tensor in state["lora"].items()}
    recipe = {**json.loads((run / "run.json").read_text(encoding="utf-8")), "step": state["step"]}
    with new_folder(folder) as whole:
        shutil.copyfile(run / WORDS_FILE, whole / WORDS_FILE)
        save_rows(whole / ROWS_FILE, state["words"].numpy())
        save_file(lora, whole / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(run / CONFIG, whole / CONFIG)
        (whole / "run.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def describe(folder: Path, base_space_id: str, figures: dict[str, float], plain: dict[str, float]) -> None:
    """Write the card of an adapter and then the manifest, without which nobody loads it with that card."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    runs = runs_of(run)
    rows = [
        f"| {title} | {figures[name]:.4f} | {f'{plain[name]:.4f}' if name in plain else '–'} |"
        for name, title in MEASURES.items()
    ]
    card = CARD.format(
        words=f"{len(WordVocabulary.load(folder / WORDS_FILE)):,}",
        rank=run["rank"],
        runs=_told(runs),
        data="\n".join(f"- {name}: {count:,}" for name, count in runs[0]["data"].items()),
        figures="\n".join(rows),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    rounded: dict[str, JsonValue] = {name: round(value, 4) for name, value in figures.items()}
    write_manifest(folder, base_space_id, 384, rounded)


def runs_of(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """List the runs that `run.json` tells of: one, or those that an adapter is the mean of, each with its share.

    `made_by`, where a run has it, was written there by hand: it was made by another program than this one.
    """
    runs: list[dict[str, Any]] = configuration.get("runs", [configuration])
    return [{"share": 1 / len(runs)} | run for run in runs]


def _told(runs: Sequence[dict[str, Any]]) -> str:
    opening = (
        "The mean of the weights of these runs (Wortsman et al. 2022)" if len(runs) > 1 else "The weights of one run"
    )
    lines = [
        f"- step {run['step']:,} of {run['steps']:,} at most, in batches {run['batch']} times those of two cores; "
        f"a LoRA of rank {run['rank']}; {run['reading']:,} sentences and {run['headlines']:,} headlines"
        + (f"; {run['share']:.0%} of the mean" if len(runs) > 1 else "")
        + (f"; made by {run['made_by']}" if "made_by" in run else "")
        for run in runs
    ]
    return "\n".join([f"{opening}, in the state that did best on development data:", "", *lines])
