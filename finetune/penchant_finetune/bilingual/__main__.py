"""`python -m penchant_finetune.bilingual --data DIR --run DIR`: trains the bilingual adapter, or goes on with it."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from penchant_finetune.bilingual.corpus import read_corpus, read_corpus_parts
from penchant_finetune.bilingual.export import export
from penchant_finetune.bilingual.measures import held_out
from penchant_finetune.bilingual.training import Recipe, Student, Teacher, Training, phrases, write_configuration
from penchant_finetune.bilingual.vocabulary import choose_words, first_rows, meaning, read_glosses
from penchant_pipelines.encoder import Vectors
from penchant_pipelines.encoder.sentence import embedded_model
from penchant_pipelines.encoder.words import add_words, word_embedding


class _Encode:
    """The student as an encoder, for the measures."""

    def __init__(self, student: Student) -> None:
        self._student = student

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts in order."""
        order = sorted(range(len(texts)), key=lambda i: len(self._student.tokens(texts[i])))
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        for start in range(0, len(order), 128):
            rows = order[start : start + 128]
            vectors[rows] = self._student([texts[i] for i in rows]).cpu().numpy()
        return vectors


def main() -> None:
    """Read the data, train, save."""
    from sentence_transformers import SentenceTransformer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps)
    arguments.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.monotonic()
    corpus = read_corpus(arguments.data, recipe.seed)
    development, _ = read_corpus_parts(arguments.data)
    glosses = read_glosses(arguments.data / "lexicon/cedict.jsonl.gz")
    vocabulary = choose_words(glosses, corpus.chinese, recipe.word_count)
    vocabulary.save(arguments.run / "words.txt")
    model = SentenceTransformer(str(embedded_model()), device=device, local_files_only=True)
    meanings = [meaning(glosses, word) for word in vocabulary.words]
    pieces = model.tokenizer.get_vocab()
    spelt = [model.tokenizer.tokenize(text) for text in meanings]
    own = word_embedding(model).weight.detach().cpu().numpy()
    print(f"{len(vocabulary)} words, {time.monotonic() - started:.0f} s", flush=True)
    english = [en for _, en in corpus.parallel + corpus.titles] + corpus.english
    english += [
        meaning(glosses, word) for word in [*vocabulary.words, *phrases(glosses, vocabulary)] if word in glosses
    ]

    def encode(texts: Sequence[str]) -> Vectors:
        # Minutes of work, named for what it was made of: an interrupted run need not do it again.
        cache = arguments.run / f"teacher-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}.npy"
        if cache.exists():
            found: Vectors = np.load(cache)
            return found
        vectors: Vectors = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        np.save(cache, vectors)
        return vectors

    teacher = Teacher(encode, english)
    print(f"{len(teacher.vectors)} teacher vectors, {time.monotonic() - started:.0f} s", flush=True)
    add_words(model, vocabulary, first_rows(vocabulary, spelt, pieces, own))
    student = Student(model, vocabulary, recipe, device)
    write_configuration(recipe, arguments.run, data={name: len(getattr(corpus, name)) for name in corpus.__slots__})
    training = Training(student, teacher, corpus, vocabulary, glosses, recipe, arguments.run)
    encoder = _Encode(student)
    print(f"start {held_out(encoder, development)} {time.monotonic() - started:.0f} s", flush=True)
    training.run(lambda: held_out(encoder, development))
    export(arguments.run, arguments.run / "adapter")


if __name__ == "__main__":
    main()
