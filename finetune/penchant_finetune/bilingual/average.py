"""`python -m penchant_finetune.bilingual.average OUT ADAPTER ADAPTER …`: one bilingual adapter, the mean of several.

Runs that began at the same rows and differ in what they drew err apart; the mean of their weights costs nothing when
texts are read and did better than each on nearly all that was measured (Wortsman et al. 2022, "Model soups"). What the
LoRA layers of all change in a linear map is averaged and cut to one rank by its singular values.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from penchant_finetune.bilingual.export import runs_of
from penchant_finetune.bilingual.training import Recipe
from penchant_finetune.folder import new_folder
from penchant_finetune.program import at_least, told_in_a_line
from penchant_pipelines.encoder.adapter import CONFIG, WEIGHTS
from penchant_pipelines.encoder.words import ROWS_FILE, WORDS_FILE, WordVocabulary, load_rows, save_rows
from penchant_pipelines.errors import InvalidInput, WrongState

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def average(adapters: Sequence[Path], folder: Path, rank: int) -> None:
    """Write the mean of adapters' weights into a new folder, with the first one's frequencies of words.

    It can't be loaded before `describe` adds its card and manifest. Raises WrongState where the adapters have other
    words than the first or the folder holds something, InvalidInput where no map has so high a rank.
    """
    vocabulary = WordVocabulary.load(adapters[0] / WORDS_FILE)
    rows = np.mean([_rows(adapter, vocabulary) for adapter in adapters], axis=0)
    changes = [_changes(adapter) for adapter in adapters]
    most = min(min(change.shape) for change in changes[0].values())
    if rank > most:
        raise InvalidInput.at("rank", f"{rank} is above {most}, the rank of the smallest map")
    lora: dict[str, NDArray[np.float16]] = {}
    for name in changes[0]:
        left, values, right = np.linalg.svd(np.mean([change[name] for change in changes], axis=0), full_matrices=False)
        root = np.sqrt(values[:rank])
        # The scale, α over the rank, is 2.
        lora[name + _UP] = np.ascontiguousarray(left[:, :rank] * root / 2, dtype=np.float16)
        lora[name + _DOWN] = np.ascontiguousarray(root[:, None] * right[:rank], dtype=np.float16)
    configuration: dict[str, Any] = json.loads((adapters[0] / CONFIG).read_text(encoding="utf-8"))
    configuration |= {"r": rank, "lora_alpha": 2 * rank}
    known = [runs_of(json.loads((adapter / "run.json").read_text(encoding="utf-8"))) for adapter in adapters]
    runs = [run | {"share": run["share"] / len(adapters)} for those in known for run in those]
    with new_folder(folder) as whole:
        shutil.copyfile(adapters[0] / WORDS_FILE, whole / WORDS_FILE)
        save_rows(whole / ROWS_FILE, rows.astype(np.float32))
        save_file(lora, whole / WEIGHTS, metadata={"format": "pt"})
        (whole / CONFIG).write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
        text = json.dumps({"rank": rank, "runs": runs}, indent=2, ensure_ascii=False)
        (whole / "run.json").write_text(text + "\n", encoding="utf-8")


def _rows(adapter: Path, vocabulary: WordVocabulary) -> NDArray[np.float32]:
    """An adapter's rows in the order of a vocabulary."""
    own = {word: row for row, word in enumerate(WordVocabulary.load(adapter / WORDS_FILE).words)}
    if own.keys() != set(vocabulary.words):
        raise WrongState(
            "ADAPTER_MISMATCH", f"{str(adapter)!r} has other words; only runs on the same data have a mean"
        )
    return load_rows(adapter / ROWS_FILE)[[own[word] for word in vocabulary.words]]


def _changes(adapter: Path) -> dict[str, NDArray[np.float32]]:
    """What an adapter adds to each linear map."""
    layers = load_file(adapter / WEIGHTS)
    configuration = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    scale = np.float32(configuration["lora_alpha"] / configuration["r"])
    return {
        (name := key.removesuffix(_DOWN)): scale * layers[name + _UP].astype(np.float32) @ down.astype(np.float32)
        for key, down in layers.items()
        if key.endswith(_DOWN)
    }


@told_in_a_line()
def main() -> None:
    """Average, for `evaluate --describe` to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("adapters", type=Path, nargs="+", help="adapters of runs on the same data")
    parser.add_argument("--rank", type=at_least(1), default=Recipe().rank)
    options = parser.parse_args()
    average(options.adapters, options.out, options.rank)


if __name__ == "__main__":
    main()
