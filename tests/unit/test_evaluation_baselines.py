"""Each baseline on a tiny log that it must win: better than chance by far, and right about what it is for."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from small_logs import like, read
from torch import Tensor

from penchant_pipelines.evaluation import baselines_sequences
from penchant_pipelines.evaluation.baselines_neighbours import Als, EaseForAll, ItemNeighbours, UserNeighbours
from penchant_pipelines.evaluation.baselines_sequences import SequenceBaseline
from penchant_pipelines.evaluation.baselines_simple import Popularity, Random
from penchant_pipelines.evaluation.baselines_vectors import Ewma, LastPost, MeanOfLast
from penchant_pipelines.evaluation.baselines_words import Bm25, Svm, TfidfEwma, Trees
from penchant_pipelines.evaluation.log import Log, Past, places_by_user
from penchant_pipelines.evaluation.methods import Method, Run, run
from penchant_pipelines.evaluation.protocol import Phase, queries, replay
from penchant_pipelines.metrics import ndcg
from penchant_pipelines.model import MICROS_PER_DAY, Item, Signal

TOPICS = 6
EACH = 30


def topics(told: bool) -> list[Item]:
    """Items of six topics, which their titles tell or not."""
    dice = random.Random(1)
    noise = [f"noise{number}" for number in range(400)]
    return [
        Item(id=f"{topic}-{number}", title=" ".join([f"topic{topic}" if told else "thing", *dice.sample(noise, 2)]))
        for topic in range(TOPICS)
        for number in range(EACH)
    ]


def faithful(users: int, days: int = 20) -> list[Signal]:
    """Users who each keep to a topic."""
    dice = random.Random(2)
    return [
        like(f"u{user}", day + user / 1000, f"{user % TOPICS}-{number}")
        for user in range(users)
        for day, number in enumerate(dice.sample(range(EACH), days))
    ]


def figure(method: Callable[[int], Method], log: Log, seed: int = 0) -> tuple[float, Run]:
    """Mean NDCG@10 of the tests."""
    asked = queries(log)
    found = run(partial(method, seed), log, asked)
    tests = [place for place, query in enumerate(asked) if query.phase is Phase.TEST]
    return float(np.mean([found.by_setting[place, found.chosen[place]] for place in tests])), found


TEXT = [LastPost, MeanOfLast, Ewma, Bm25, TfidfEwma, Svm, Trees]
CROWD = [UserNeighbours, ItemNeighbours, EaseForAll, Als]
NETWORKS = [
    partial(SequenceBaseline, name="sasrec", by="ids"),
    partial(SequenceBaseline, name="gru-text", by="text", body="gru"),
    partial(SequenceBaseline, name="sasrec-text", by="text"),
]


@pytest.mark.parametrize("method", TEXT)
def test_text_is_enough_where_titles_tell_the_topic(method: Callable[[int], Method]) -> None:
    log = read(topics(told=True), faithful(users=6))
    chance, _ = figure(Random, log)
    found, _ = figure(method, log)
    assert found > 3 * chance
    assert found > 0.15


@pytest.mark.parametrize("method", CROWD)
def test_the_crowd_is_enough_where_titles_tell_nothing(method: Callable[[int], Method]) -> None:
    log = read(topics(told=False), faithful(users=60))
    found, _ = figure(method, log)
    text, _ = figure(Ewma, log)
    assert found > 2 * text
    assert found > 0.15


@pytest.mark.slow
@pytest.mark.parametrize("method", NETWORKS, ids=["sasrec", "gru-text", "sasrec-text"])
def test_a_network_learns_what_follows_what(method: Callable[[int], Method]) -> None:
    """Topic k is followed by topic k + 1, so that the last signal's neighbours are always wrong."""
    dice = random.Random(3)
    signals = [
        like(f"u{user}", day + user / 1000, f"{(user + day) % TOPICS}-{dice.randrange(EACH)}")
        for user in range(60)
        for day in range(40)
    ]
    log = read(topics(told=True), signals)
    last, _ = figure(LastPost, log)
    found, _ = figure(method, log)
    assert found > 2 * last
    assert found > 0.1


def test_networks_lose_nothing_by_knowing_what_is_popular(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some items are taken to far oftener than others, and there is nothing else to learn."""
    monkeypatch.setattr(baselines_sequences, "NEGATIVES", 8)
    items = [Item(id=f"{number}", title=f"word{number * 7919 % 997}") for number in range(400)]
    dice, chances = np.random.default_rng(5), 1 / np.arange(1, 401)
    signals = [
        like(f"u{user}", day + user / 1000, f"{number}")
        for user in range(80)
        for day, number in enumerate(dice.choice(400, 12, replace=False, p=chances / chances.sum()))
    ]
    log = read(items, signals)
    past = Past(log, len(signals), places_by_user(log))
    sequences = [past.liked(user) for user in range(80)]
    frequency = baselines_sequences._frequency(past, sequences, np.ones(80))

    class Told(baselines_sequences.Network):
        scores: Tensor

        def logits(self, found: Tensor, rows: Tensor | None = None) -> Tensor:
            return self.scores[rows].expand(len(found), -1)

    def loss(scores: Tensor) -> float:
        network, method = Told(past.catalogue.vectors, "ids", "attention"), SequenceBaseline(0, "sasrec", "ids")
        network.scores = scores
        parts = [sequences[start : start + 2] for start in range(0, 80, 2)]
        draw = np.random.default_rng(6)
        return float(np.mean([method._loss(network, past, part, frequency, draw, 0).item() for part in parts]))

    knowing = loss(torch.from_numpy(np.log(frequency + 1e-4)).float())
    assert knowing < loss(torch.zeros(400)) - 0.1


def test_popularity_wins_where_all_take_the_same() -> None:
    """Everybody goes down one list, and some are ahead of the others."""
    items = [Item(id=f"{number}", title=f"word{number * 7919 % 97}") for number in range(100)]
    signals = [like(f"u{user}", day + user, f"{day}") for user in range(20) for day in range(20)]
    log = read(items, signals)
    popular, _ = figure(Popularity, log)
    chance, _ = figure(Random, log)
    words, _ = figure(Ewma, log)
    assert popular > 0.3
    assert popular > 3 * max(chance, words)


def test_recent_popularity_sees_a_fashion() -> None:
    """Each month another ten items are what everybody takes to."""
    items = [Item(id=f"{number}", title=f"word{number}") for number in range(200)]
    dice = random.Random(4)
    signals = [
        like(f"u{user}", day + dice.random() / 2, f"{day // 30 * 10 + number}")
        for user in range(40)
        for day in range(user % 7, 300, 7)
        for number in dice.sample(range(10), 1)
    ]
    log = read(items, signals)
    ever, _ = figure(Popularity, log)
    recent, _ = figure(partial(Popularity, days=7), log)
    assert recent > 2 * ever


def test_half_life_is_tuned_to_whoever_keeps_changing() -> None:
    """Each has a topic for five days, then another: a long memory is wrong most of the time."""
    dice = random.Random(5)
    signals = [
        like(f"u{user}", 6 * day, f"{(user + day // 5) % TOPICS}-{number}")
        for user in range(12)
        for day in range(30)
        for number in [dice.randrange(EACH)]
    ]
    log = read(topics(told=True), signals)
    _, found = figure(Ewma, log)
    assert found.settings[found.chosen[-1]] in {"half_life_days=2", "half_life_days=7"}
    alone = np.nanmean(found.by_setting, axis=0)
    assert alone[0] > alone[-1]


def test_ease_by_users_equals_ease_by_items() -> None:
    log = read(topics(told=False), faithful(users=30))
    *_, (past, moment) = replay(log, queries(log))
    method = EaseForAll(0)
    method.learn(past)
    found = method.score(past, moment[0].question)
    matrix = past.matrix.toarray()
    for line, strength in zip(found, EaseForAll.strengths, strict=True):
        inverse = np.linalg.inv(matrix.T @ matrix + strength * np.eye(matrix.shape[1]))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        np.testing.assert_allclose(line, matrix[moment[0].question.user] @ weights, atol=1e-9)


def test_items_go_together_by_cosines_that_are_shrunk() -> None:
    log = read(topics(told=False), faithful(users=30))
    *_, (past, moment) = replay(log, queries(log))
    question = moment[0].question
    found = ItemNeighbours(0).score(past, question)
    matrix = past.matrix.toarray()
    norms = np.linalg.norm(matrix, axis=0)
    liked = past.liked(question.user)
    age = (past.times[liked].max() - past.times[liked]) / MICROS_PER_DAY
    lines = iter(found)
    for shrinkage in ItemNeighbours.shrinkages:
        cosines = matrix.T @ matrix / np.maximum(np.outer(norms, norms) + shrinkage, 1e-12)
        for days in ItemNeighbours.half_lives:
            masses = past.weights[liked] * 2.0 ** (-age / days)
            np.testing.assert_allclose(next(lines), cosines[:, past.rows[liked]] @ masses, atol=1e-9)


def test_the_same_seed_gives_the_same_lists_and_another_does_not() -> None:
    log = read(topics(told=True), faithful(users=12))
    for method in (Random, Svm, Als):
        first, again, other = (figure(method, log, seed)[1] for seed in (1, 1, 2))
        assert np.array_equal(first.top, again.top)
        assert not np.array_equal(first.top, other.top)


def test_a_stranger_gets_what_is_popular() -> None:
    """Whoever only disliked so far tells a text method nothing."""
    items = topics(told=True)
    signals = [*faithful(users=6), *[like("new", day, f"0-{day}", -1.0) for day in range(5)], like("new", 9, "1-1")]
    log = read(items, signals)
    asked = queries(log)
    text, crowd = (run(partial(make, 0), log, asked) for make in (Ewma, Popularity))
    places = [n for n, query in enumerate(asked) if query.question.user_id == "new" and query.phase is Phase.TEST]
    assert places
    assert np.array_equal(text.top[places], crowd.top[places])


def test_the_shelf_holds_only_what_nobody_touched_and_text_finds_its_way_there() -> None:
    """A list of its own for each test that someone's first touch answers, and for no other question."""
    log = read(topics(told=True), faithful(users=6))
    asked = queries(log)
    text, chance = (run(partial(make, 0), log, asked) for make in (Ewma, Random))
    touched = {query.known: set(log.rows[: query.known].tolist()) for query in asked}
    for query, shelf in zip(asked, text.shelf, strict=True):
        listed = set(shelf[shelf >= 0].tolist())
        assert bool(listed) == (query.phase is Phase.TEST and len(query.cold) > 0)
        assert not listed & touched[query.known]

    def found(shelves: Run) -> float:
        return float(np.nanmean([ndcg(top, q.cold, 10) for q, top in zip(asked, shelves.shelf, strict=True)]))

    assert found(text) > 3 * found(chance)
