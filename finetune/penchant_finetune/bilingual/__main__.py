"""`python -m penchant_finetune.bilingual --data DIR --run DIR`: trains the bilingual adapter, or goes on with it."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from penchant_finetune.bilingual.corpus import FILES, Corpus, Held, digest, read_corpus, read_corpus_parts
from penchant_finetune.bilingual.export import export
from penchant_finetune.bilingual.measures import cosine, held_out
from penchant_finetune.bilingual.news import read_news_topics
from penchant_finetune.bilingual.second_teacher import Bridge, Encode, lessons, open_multilingual, word_meanings
from penchant_finetune.bilingual.training import (
    Recipe,
    Student,
    Teacher,
    Training,
    begun,
    phrases,
    write_configuration,
)
from penchant_finetune.bilingual.vocabulary import (
    choose_words,
    first_rows,
    meaning,
    read_glosses,
    rows_by_meaning,
)
from penchant_finetune.program import at_least, told_in_a_line
from penchant_pipelines.encoder import Vectors
from penchant_pipelines.encoder.sentence import embedded_model
from penchant_pipelines.encoder.tokenizer import add_words
from penchant_pipelines.encoder.words import WORDS_FILE, word_embedding
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.precision import in_half

TRANSLATED, NAMED = 10_000, 6_000
"""Sentences, and words of the dictionary, that the way between the teachers is learnt from, beside all titles."""
UNTAUGHT = 1_000
"""Sentences set aside, which tell whether the student reads as the second teacher would what it never saw."""
OPTIONS = {
    "steps": "steps at most",
    "batch": "how many times the texts of a step on two cores; a GPU takes 12",
    "reading": "sentences that the second teacher reads",
    "headlines": "headlines that it reads, made of words alike or of one subject",
    "rank": "rank of the LoRA",
    "seed": "seed of the run: of headlines, and of the order in which it learns",
}


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


def kept(folder: Path, name: str, encode: Encode, texts: Sequence[str]) -> Vectors:
    """Vectors of texts, which an interrupted run need not make again: minutes of work, named for what they are of."""
    cache = folder / f"{name}-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}.npy"
    if cache.exists():
        found: Vectors = np.load(cache)
        return found
    vectors = encode(texts)
    half_written = cache.with_suffix(".part.npy")
    np.save(half_written, vectors)
    half_written.replace(cache)
    return vectors


def check_enough(corpus: Corpus, development: Held) -> None:
    """Raise InvalidInput where there is too little to learn from, or to tell by how that goes."""
    wanted: dict[str, tuple[Sequence[object], int]] = {
        "translated sentences beside the 2,000 that are set aside": (corpus.parallel, 1),
        "translated titles beside the 1,000 that are set aside": (corpus.titles, 1),
        "untranslated sentences": (corpus.reading, UNTAUGHT + 1),
        "graded pairs to be judged by": (development.graded, 2),
    }
    few = [f"{len(texts):,} {name}, needs {least:,}" for name, (texts, least) in wanted.items() if len(texts) < least]
    if few:
        raise InvalidInput.at("data", "holds too little: " + "; ".join(few))


@told_in_a_line()
def main() -> None:
    """Read the data, train, save."""
    from sentence_transformers import SentenceTransformer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    for name, meant in OPTIONS.items():
        least = 0 if name == "seed" else 1
        parser.add_argument(f"--{name}", type=at_least(least), default=getattr(Recipe(), name), help=meant)
    parser.add_argument("--threads", type=at_least(1), default=2)
    arguments = parser.parse_args()
    recipe = Recipe(**{name: getattr(arguments, name) for name in OPTIONS}, data_digest=digest(arguments.data))
    # Before all else: what comes takes minutes, and other options or data, or a missing package, are told at once.
    begun(arguments.run, recipe)
    multilingual, news = open_multilingual(), read_news_topics()
    arguments.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.monotonic()
    corpus = read_corpus(arguments.data, UNTAUGHT + recipe.reading)
    development, _ = read_corpus_parts(arguments.data)
    check_enough(corpus, development)
    glosses = read_glosses(arguments.data / FILES["cedict"])
    vocabulary = choose_words(glosses, corpus.chinese, recipe.word_count)
    vocabulary.save(arguments.run / WORDS_FILE)
    model = SentenceTransformer(str(embedded_model()), device=device, local_files_only=True)
    spelt = [model.tokenizer.tokenize(meaning(glosses, word)) for word in vocabulary.words]
    own = word_embedding(model).weight.detach().cpu().numpy()
    rows = first_rows(vocabulary, spelt, model.tokenizer.get_vocab(), own)
    print(f"{len(vocabulary)} words, {time.monotonic() - started:.0f} s", flush=True)
    english = [en for _, en in corpus.parallel + corpus.titles] + corpus.english
    english += [
        meaning(glosses, word) for word in [*vocabulary.words, *phrases(glosses, vocabulary)] if word in glosses
    ]

    def encode(texts: Sequence[str]) -> Vectors:
        with in_half(device):
            found: Vectors = model.encode(
                list(texts), batch_size=64 * recipe.batch, normalize_embeddings=True, show_progress_bar=False
            )
        return found

    teacher = Teacher(partial(kept, arguments.run, "teacher", encode), english)
    print(f"{len(teacher.vectors)} teacher vectors, {time.monotonic() - started:.0f} s", flush=True)
    foreign = partial(kept, arguments.run, "multilingual", multilingual)
    dictionary = [word for word in vocabulary.words if word in glosses and len(word) > 1][:NAMED]
    pairs = [
        *corpus.titles,
        *corpus.parallel[:TRANSLATED],
        *((word, meaning(glosses, word)) for word in dictionary),
    ]
    bridge = Bridge(foreign([zh for zh, _ in pairs]), teacher([en for _, en in pairs]).numpy())

    def read(texts: Sequence[str]) -> Vectors:
        return bridge(foreign(texts))

    meanings = word_meanings(teacher, read, vocabulary, glosses)
    rows = rows_by_meaning(rows, np.array([word in glosses for word in vocabulary.words]), meanings)
    untaught, taught = corpus.reading[:UNTAUGHT], corpus.reading[UNTAUGHT:]
    led = lessons(read, taught, recipe.headlines, news, vocabulary, glosses, meanings, recipe.seed)
    expected = read(untaught)
    print(f"second teacher's lessons, {time.monotonic() - started:.0f} s", flush=True)
    add_words(model, vocabulary, rows)
    student = Student(model, vocabulary, recipe, device)
    sizes = {name: len(getattr(corpus, name)) for name in corpus.__slots__}
    write_configuration(recipe, arguments.run, data=sizes | {kind: len(examples) for kind, examples in led.items()})
    training = Training(student, teacher, corpus, vocabulary, glosses, recipe, arguments.run, led)
    encoder = _Encode(student)

    def judged() -> dict[str, float]:
        return held_out(encoder, development) | {"as_second_teacher": cosine(encoder.encode(untaught), expected)}

    print(f"start {judged()} {time.monotonic() - started:.0f} s", flush=True)
    training.run(judged)
    adapter = arguments.run / "adapter"
    if not adapter.exists():  # else it is this run's already, maybe with its card
        export(arguments.run, adapter)


if __name__ == "__main__":
    main()
