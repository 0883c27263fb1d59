"""Training of the bilingual adapter: new word rows and LoRA, towards the English that the model knows.

The teacher is the model as it was. Its vectors of English texts never change, so they are made once; a step then
costs one pass of the student over Chinese. Losses: InfoNCE (van den Oord et al. 2018) and cosine distillation (Reimers
and Gurevych 2020) on translations, glosses and what the second teacher reads, the teachers' neighbours of whole texts
(Fang et al. 2021), InfoNCE on paraphrases and passages, CoSENT (Su 2022) on graded pairs, and an anchor that holds
English texts where the teacher has them.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, normalize, pad
from torch.utils.tensorboard import SummaryWriter

from penchant_finetune.bilingual.corpus import Corpus, Graded, share
from penchant_finetune.bilingual.rewriting import chinese_words, rewritten
from penchant_finetune.bilingual.vocabulary import Glosses, meaning
from penchant_finetune.lora import add_lora, save_configuration
from penchant_finetune.run import check_settings
from penchant_pipelines.encoder import Vectors
from penchant_pipelines.encoder.words import WordVocabulary, word_embedding
from penchant_pipelines.errors import WrongState
from penchant_pipelines.precision import in_half

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

Led = tuple[str, Tensor]
"""A text and the unit vector (d,) that it should get."""
CHECKPOINT, BEST = "checkpoint.pt", "best.pt"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is begun with: whoever goes on with it must bring the same."""

    data_digest: str = ""
    """Of what it learns from, as `corpus.digest` tells it."""
    word_count: int = 72_000
    """Words beside the single characters."""
    steps: int = 4_500
    batch: int = 1
    """How many times the texts of `BATCHES` a step takes, but for kinds that are `SCARCE`."""
    reading: int = 36_000
    """Chinese sentences that the second teacher reads."""
    headlines: int = 40_000
    """Headlines that it reads, made of words that mean something alike, that news says together, or both."""
    seed: int = 7
    rank: int = 44
    lora_rate: float = 4e-4
    row_rate: float = 2e-3
    warmup: float = 0.03
    final_rate: float = 0.08
    temperature: float = 0.05
    distillation: float = 2.0
    geometry: float = 15.0
    neighbours: float = 1.0
    anchor: float = 12.0
    cosent_scale: float = 20.0
    foreign_negatives: int = 3_000
    longest: int = 72
    """Tokens of a text at most."""
    evaluate_every: int = 600
    patience: int = 3


BATCHES = {
    "glosses": 384,
    "bags": 160,
    "parallel": 160,
    "rewritten": 80,
    "titles": 96,
    "paraphrases": 48,
    "passages": 28,
    "graded": 64,
    "names": 384,
    "headlines": 160,
    "reading": 72,
}
"""Texts or pairs of a step, about equal work each, on two cores; a GPU takes several times as many."""
SHARES = {
    "glosses": 0.11,
    "bags": 0.14,
    "parallel": 0.18,
    "rewritten": 0.12,
    "titles": 0.11,
    "paraphrases": 0.12,
    "passages": 0.10,
    "graded": 0.12,
    "names": 0.08,
    "headlines": 0.48,
    "reading": 0.51,
}
"""How often a kind's turn comes, in proportion; that of single words more often in the first quarter."""
WORDS = frozenset({"glosses", "bags", "names"})
WHOLE = frozenset({"parallel", "titles", "headlines", "reading"})
"""Texts as people ask for neighbours of them."""
SCARCE = frozenset({"parallel", "titles", "graded"})
"""Kinds of which there are so few texts that a larger batch would only show them more often."""
ANCHOR_BATCH = 14


class WordEmbedding(nn.Module):
    """The model's own rows, frozen, and the words' rows after them, trained."""

    def __init__(self, own: Tensor, words: Tensor) -> None:
        super().__init__()
        self.own: Tensor
        self.register_buffer("own", own, persistent=False)
        self.words = nn.Embedding.from_pretrained(words, freeze=False, sparse=True)  # type: ignore[no-untyped-call]

    def forward(self, ids: Tensor) -> Tensor:
        """Embed ids of any shape."""
        first = self.own.shape[0]
        known = self.own[ids.clamp(max=first - 1)]
        words = self.words((ids - first).clamp(min=0))
        return torch.where((ids >= first).unsqueeze(-1), words, known)


class Student(nn.Module):
    """The model in training: texts → unit vectors (n, d) with gradients."""

    def __init__(self, model: SentenceTransformer, vocabulary: WordVocabulary, recipe: Recipe, device: str) -> None:
        super().__init__()
        self._tokenizer = model.tokenizer
        self._longest = recipe.longest
        self.device = device
        transformer: PreTrainedModel = model[0].auto_model  # type: ignore[assignment]
        if device == "cpu":
            # Of short texts in bfloat16 the fused kernel's way back takes longer than all the rest of a step.
            transformer.set_attn_implementation("eager")
        weight = word_embedding(model).weight.data
        first = len(weight) - len(vocabulary)
        self.embedding = WordEmbedding(weight[:first].clone(), weight[first:].clone())
        add_lora(model, recipe.rank, dropout=0.0)
        self.adapted = transformer
        transformer.set_input_embeddings(self.embedding)
        self.embedding.words.weight.requires_grad_(True)
        self._segmented: dict[str, list[int]] = {}
        # No dropout: the data is seen only a few times, and a pass without it is a tenth cheaper.
        self.eval()
        self.to(device)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, with those that frame it."""
        ids = self._segmented.get(text)
        if ids is None:
            ids = self._tokenizer(text)["input_ids"]
            if len(ids) > self._longest:
                ids = [*ids[: self._longest - 1], ids[-1]]
            self._segmented[text] = ids
        return ids

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode texts in order; those of about equal length share a pass."""
        ids = [self.tokens(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        parts, taken = [], 0
        cuts = [len(order) // 2, len(order)] if len(order) > 32 and self.device == "cpu" else [len(order)]
        for cut in cuts:
            chosen = order[taken:cut]
            taken = cut
            width = max(len(ids[i]) for i in chosen)
            batch = torch.tensor([ids[i] + [0] * (width - len(ids[i])) for i in chosen], device=self.device)
            mask = (torch.arange(width)[None] < torch.tensor([[len(ids[i])] for i in chosen])).to(self.device)
            with in_half(self.device):
                hidden = self.adapted(input_ids=batch, attention_mask=mask.long()).last_hidden_state.float()
            weights = mask.unsqueeze(-1).to(hidden)
            parts.append(normalize((hidden * weights).sum(1) / weights.sum(1), dim=1))
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[order] = torch.arange(len(order))
        return torch.cat(parts)[inverse.to(self.device)]


class Teacher:
    """Vectors of texts by a model as it was, made once."""

    def __init__(self, encode: Callable[[Sequence[str]], Vectors], texts: Sequence[str]) -> None:
        unique = list(dict.fromkeys(texts))
        self._rows = {text: row for row, text in enumerate(unique)}
        self.vectors = torch.from_numpy(encode(unique))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Look up vectors (n, d)."""
        return self.vectors[[self._rows[text] for text in texts]]


class Batches:
    """Endless batches of one kind of example, in shuffled epochs that a seed fixes."""

    def __init__(self, examples: Sequence[Any], size: int, seed: int) -> None:
        self._examples, self._size, self._draw = examples, size, random.Random(seed)
        self._order: list[int] = []

    def __next__(self) -> list[Any]:
        if len(self._order) < self._size:
            self._order = list(range(len(self._examples)))
            self._draw.shuffle(self._order)
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        return [self._examples[i] for i in chosen]


class Training:
    """One run: `run` trains, resuming where an interrupted one stopped."""

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        corpus: Corpus,
        vocabulary: WordVocabulary,
        glosses: Glosses,
        recipe: Recipe,
        folder: Path,
        led: Mapping[str, Sequence[Led]],
    ) -> None:
        """Take the data; `led` is what a second teacher read, by kind: names, headlines, reading."""
        self.student, self._teacher, self._recipe, self._folder = student, teacher, recipe, folder
        entries = [(word, meaning(glosses, word)) for word in vocabulary.words if word in glosses]
        words = [pair for pair in entries if len(pair[0]) > 1]
        # A word of the vocabulary is one row to learn; a phrase teaches how rows go together.
        sources: dict[str, Sequence[Any]] = {
            "glosses": [*entries, *((phrase, meaning(glosses, phrase)) for phrase in phrases(glosses, vocabulary))],
            "bags": bags([word for word, _ in words], teacher([gloss for _, gloss in words]), 60_000, recipe.seed),
            "parallel": corpus.parallel,
            "rewritten": rewritten(corpus.english, chinese_words(glosses, vocabulary)),
            "titles": corpus.titles,
            "paraphrases": corpus.paraphrases,
            "passages": corpus.passages,
            "graded": corpus.graded,
            **led,
        }
        self._batches = {
            name: Batches(examples, BATCHES[name] * (1 if name in SCARCE else recipe.batch), recipe.seed + number)
            for number, (name, examples) in enumerate(sources.items())
            if examples
        }
        self._anchor = Batches(corpus.english, ANCHOR_BATCH * recipe.batch, recipe.seed + 99)
        rows = [student.embedding.words.weight]
        lora = [p for p in student.adapted.parameters() if p.requires_grad and p is not rows[0]]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(lora, lr=recipe.lora_rate, weight_decay=0.01),
            torch.optim.SparseAdam(rows, lr=recipe.row_rate),
        ]
        self._lora = lora
        save_configuration(student.adapted, folder)
        self._schedule = schedule(recipe, list(self._batches))
        self._log = SummaryWriter(str(folder / "tensorboard"))
        self._foreign = random.Random()
        read = [target for kind, texts in led.items() if kind in WHOLE for _, target in texts]
        self._others = torch.cat([teacher.vectors, torch.stack(read)]) if read else teacher.vectors
        self._best, self._worse = -math.inf, 0

    def run(self, evaluate: Callable[[], dict[str, float]]) -> int:
        """Train to the end or until nothing helps any more, from the last checkpoint on; returns the step.

        The state that the evaluation (higher is better) liked best is kept in BEST.
        """
        recipe = self._recipe
        step = self._resume()
        started, tokens = time.monotonic(), 0
        running: dict[str, list[float]] = {}
        while step < recipe.steps and self._worse < recipe.patience:
            name = self._schedule[step]
            # By step, so that a resumed run draws what an uninterrupted one would have drawn.
            self._foreign.seed(f"{recipe.seed} {step}")
            rate = learning_rate(step, recipe)
            for optimizer, peak in zip(self._optimizers, (recipe.lora_rate, recipe.row_rate), strict=True):
                optimizer.param_groups[0]["lr"] = rate * peak
                optimizer.zero_grad(set_to_none=True)
            batch = next(self._batches[name])
            loss = self.loss(name, batch)
            english = next(self._anchor)
            anchor = 1 - (self.student(english) * self._target(english)).sum(1).mean()
            (loss + recipe.anchor * anchor).backward()
            nn.utils.clip_grad_norm_(self._lora, 1.0)
            for optimizer in self._optimizers:
                optimizer.step()
            step += 1
            running.setdefault(name, []).append(float(loss.detach()))
            running.setdefault("anchor", []).append(float(anchor.detach()))
            tokens += _count_tokens(self.student, [*_texts(batch), *english])
            if step % 50 == 0:
                speed = tokens / (time.monotonic() - started)
                line = {name: round(float(np.mean(values)), 4) for name, values in sorted(running.items())}
                for key, value in line.items():
                    self._log.add_scalar(f"loss/{key}", value, step)
                self._log.add_scalar("tokens_per_second", speed, step)
                print(f"step {step} {line} {speed:.0f} tokens/s {time.monotonic() - started:.0f} s", flush=True)
                running.clear()
            if step % recipe.evaluate_every == 0 or step == recipe.steps:
                figures = evaluate()
                for key, value in figures.items():
                    self._log.add_scalar(f"development/{key}", value, step)
                print(f"step {step} development {json.dumps(figures)}", flush=True)
                score = float(np.mean(list(figures.values())))
                improved = score > self._best
                self._best, self._worse = (score, 0) if improved else (self._best, self._worse + 1)
                # The checkpoint knows the best score: it must not say so of a state that was not kept.
                self._save(step, (BEST, CHECKPOINT) if improved else (CHECKPOINT,))
                if self._worse >= recipe.patience:
                    print("no better for a while: stopping early", flush=True)
        return step

    def loss(self, name: str, batch: Sequence[Any]) -> Tensor:
        """The loss of one batch of a kind."""
        recipe, student = self._recipe, self.student
        if name in {"parallel", "rewritten", "titles", "glosses"}:
            return self._towards([zh for zh, _ in batch], self._target([en for _, en in batch]), name)
        if name in {"bags", "names", "headlines", "reading"}:
            return self._towards(
                [text for text, _ in batch], torch.stack([t for _, t in batch]).to(student.device), name
            )
        if name == "graded":
            vectors = student([row.a for row in batch] + [row.b for row in batch])
            return cosent(
                vectors[: len(batch)], vectors[len(batch) :], [row.score for row in batch], recipe.cosent_scale
            )
        against = [row[2] for row in batch if len(row) > 2 and row[2]]
        vectors = student([row[0] for row in batch] + [row[1] for row in batch] + against)
        anchors, others = vectors[: len(batch)], vectors[len(batch) :]
        logits = anchors @ others.T / recipe.temperature
        same = _equal_texts([row[0] for row in batch], [row[1] for row in batch])
        logits[:, : len(batch)] = logits[:, : len(batch)].masked_fill(same.to(logits.device), -1e4)
        return cross_entropy(logits, torch.arange(len(batch), device=logits.device))

    def _towards(self, texts: Sequence[str], target: Tensor, name: str) -> Tensor:
        """InfoNCE and distillation towards the teacher's vectors (n, d), against others of both teachers' too."""
        recipe = self._recipe
        vectors = self.student(texts)
        logits = vectors @ target.T / recipe.temperature
        # Two entries may mean the very same.
        alike = (target @ target.T > 0.95) & ~torch.eye(len(texts), dtype=torch.bool, device=target.device)
        logits = logits.masked_fill(alike, -1e4)
        labels = torch.arange(len(texts), device=target.device)
        most = min(recipe.foreign_negatives, len(self._others))
        chosen = self._foreign.sample(range(len(self._others)), most)
        foreign = self._others[chosen].to(target.device)
        outside = (vectors @ foreign.T / recipe.temperature).masked_fill(target @ foreign.T > 0.9, -1e4)
        contrast = 0.5 * (cross_entropy(torch.cat([logits, outside], 1), labels) + cross_entropy(logits.T, labels))
        distance = (1 - (vectors * target).sum(1)).mean()
        weight = 4.0 if name == "bags" else recipe.distillation
        # Chinese texts keep the distances among themselves that their English has: without this they crowd together.
        geometry = (vectors @ vectors.T - target @ target.T).square().mean()
        loss: Tensor = (0.3 if name == "bags" else 1.0) * contrast + weight * distance + recipe.geometry * geometry
        if name in WHOLE:
            loss = loss + recipe.neighbours * neighbourhood(vectors, target, foreign, recipe.temperature)
        return loss

    def _target(self, texts: Sequence[str]) -> Tensor:
        return self._teacher(texts).to(self.student.device)

    def _save(self, step: int, names: Sequence[str]) -> None:
        weights = {
            "words": self.student.embedding.words.weight.data,
            "lora": get_peft_model_state_dict(self.student.adapted, save_embedding_layers=False),
        }
        state = {"step": step, **weights, "optimizers": [o.state_dict() for o in self._optimizers]}
        state |= {"best": self._best, "worse": self._worse, "recipe": asdict(self._recipe)}
        for name in names:
            unfinished = self._folder / f"{name}.part"
            torch.save(state, unfinished)
            unfinished.replace(self._folder / name)

    def _resume(self) -> int:
        state = begun(self._folder, self._recipe)
        if state is None:
            return 0
        self.student.embedding.words.weight.data.copy_(state["words"])
        set_peft_model_state_dict(self.student.adapted, state["lora"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._best, self._worse = state["best"], state["worse"]
        for name in self._schedule[: state["step"]]:
            next(self._batches[name])
            next(self._anchor)
        print(f"resumed at step {state['step']}", flush=True)
        return int(state["step"])


def begun(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The checkpoint that a folder's run goes on from, None without one; WrongState where it is of another recipe."""
    file = folder / CHECKPOINT
    if not file.exists():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    then, now = state.get("recipe", {}), asdict(recipe)
    if then.keys() != now.keys():
        raise WrongState("OTHER_RUN", f"{str(folder)!r} holds a run of another version; choose another folder")
    check_settings(then, now, folder)
    return state


def phrases(glosses: Glosses, vocabulary: WordVocabulary) -> list[str]:
    """Short entries of the dictionary that are several tokens, every other one."""
    words = set(vocabulary.words)
    return [entry for entry in glosses if len(entry) <= 6 and entry not in words and share(entry) < 0.5]


def bags(words: Sequence[str], meanings: Tensor, count: int, seed: int) -> list[Led]:
    """Texts of a few related words, each with the mean of what its words mean: what a headline is made of.

    A word and some of its 30 nearest by meaning, sometimes one from elsewhere; meanings: unit rows (n, d).
    """
    draw = random.Random(seed)
    made: list[Led] = []
    chosen = [draw.randrange(len(words)) for _ in range(count)]
    for start in range(0, count, 500):
        seeds = chosen[start : start + 500]
        near = (meanings[seeds] @ meanings.T).topk(min(30, len(words)), dim=1).indices.tolist()
        for first, others in zip(seeds, near, strict=True):
            members = [first, *draw.sample(others[1:], min(draw.randint(1, 4), len(others) - 1))]
            if draw.random() < 0.5:
                members.append(draw.randrange(len(words)))
            draw.shuffle(members)
            made.append((" ".join(words[i] for i in members), normalize(meanings[members].mean(0), dim=0)))
    return made


def cosent(a: Tensor, b: Tensor, scores: Sequence[float], scale: float) -> Tensor:
    """log(1 + Σ e^{scale·(cos_i − cos_j)}) over all i, j of which i is graded lower (Su 2022)."""
    cosines = cosine_similarity(a, b) * scale
    grades = torch.tensor(scores, device=a.device)
    lower = grades[:, None] < grades[None, :]
    differences = (cosines[:, None] - cosines[None, :])[lower]
    return torch.logsumexp(torch.cat([differences.new_zeros(1), differences]), dim=0)


def neighbourhood(vectors: Tensor, target: Tensor, foreign: Tensor, temperature: float) -> Tensor:
    """How far texts' neighbours are from those that the teacher gives them, ≥ 0 (Fang et al. 2021, SEED).

    The Kullback-Leibler divergence of softmaxed cosines, each text without itself: of the teacher's vectors (n, d) and
    of `foreign` ones (m, d) to the student's (n, d), and, for halves, of the student's among themselves.
    """
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)

    def shares(cosines: Tensor) -> Tensor:
        others: Tensor = cosines.masked_fill(pad(itself, (0, cosines.shape[1] - len(itself))), -100.0)
        return (others / temperature).log_softmax(dim=1)

    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        return kl_div(shares(student), shares(teacher), reduction="batchmean", log_target=True)

    everyone = torch.cat([target, foreign])
    return 0.5 * (
        divergence(vectors @ everyone.T, target @ everyone.T) + divergence(vectors @ vectors.T, target @ target.T)
    )


def schedule(recipe: Recipe, kinds: Sequence[str]) -> list[str]:
    """The kind of each step's batch, out of those that there are."""
    draw = random.Random(recipe.seed)
    turns: list[str] = []
    for step in range(recipe.steps):
        early = 2.5 if step < recipe.steps / 4 else 0.75
        turns += draw.choices(kinds, [SHARES[kind] * (early if kind in WORDS else 1.0) for kind in kinds])
    return turns


def learning_rate(step: int, recipe: Recipe) -> float:
    """Share of the peak rate: a linear warm-up, then half a cosine down to the final share."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, recipe.steps - warmup)
    return recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def write_configuration(recipe: Recipe, folder: Path, **more: Any) -> None:
    """Put all that the run depends on beside its weights."""
    configuration = {**asdict(recipe), "batches": BATCHES, "shares": SHARES, "anchor_batch": ANCHOR_BATCH, **more}
    (folder / "run.json").write_text(json.dumps(configuration, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _texts(batch: Sequence[Any]) -> Iterator[str]:
    for row in batch:
        if isinstance(row, Graded):
            yield from (row.a, row.b)
        elif isinstance(row[1], str) and len(row) > 2:
            yield from row[:2]
        else:
            yield row[0]


def _count_tokens(student: Student, texts: Sequence[str]) -> int:
    return sum(len(student.tokens(text)) for text in texts)


def _equal_texts(a: Sequence[str], b: Sequence[str]) -> Tensor:
    """Pairs off the diagonal whose texts are the same: not negatives."""
    codes = torch.from_numpy(np.unique([*a, *b], return_inverse=True)[1])
    x, y = codes[: len(a)], codes[len(a) :]
    same: Tensor = (x[:, None] == y) | (x[:, None] == x) | (y[:, None] == y)
    return same.fill_diagonal_(False)
