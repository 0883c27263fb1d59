"""What spoke for an item, as people are told."""

from __future__ import annotations

import numpy as np
import pytest

from penchant_pipelines.recommend.mix import FAMILIES, QUERY, Mix, own_share, shares
from penchant_pipelines.recommend.sources import SOURCES

HEARD = np.zeros(1, dtype=bool)


def standings(**named: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Of one item, 0 where a source isn't named."""
    return np.array([[named.get(source, 0.0)] for source in SOURCES])


def test_parts_sum_up_to_the_score() -> None:
    draw = np.random.default_rng(0)
    mix, said = Mix(draw.random(len(SOURCES))), draw.normal(size=(len(SOURCES), 7))
    parts = mix.parts(said, np.arange(7) % 2 == 0)
    assert parts.shape == (len(FAMILIES), 7)
    np.testing.assert_allclose(parts.sum(axis=0), mix.scores(said))


def test_half_lives_are_one_family_and_what_speaks_against_is_left_out() -> None:
    mix = Mix.of({"words_last3": 1.0, "words_30d": 3.0, "popular_30d": 2.0, "interests": 5.0})
    parts = mix.parts(standings(words_last3=2.0, words_30d=1.0, popular_30d=7.5, interests=-1.0, new=9.0), HEARD)
    assert shares(parts) == [(("popular", 0.75), ("words", 0.25))]


def test_small_shares_are_not_told() -> None:
    mix = Mix.of({"alike_users_ever": 1.0, "alike_items_last1": 1.0, "new": 1.0})
    told = shares(mix.parts(standings(alike_users_ever=0.9, alike_items_last1=0.06, new=0.04), HEARD))
    assert told == [(("people alike", 0.9), ("items alike", 0.06))]


def test_a_query_speaks_after_the_families() -> None:
    parts = Mix.of({"interests": 1.0}).parts(standings(interests=1.0), HEARD)
    assert shares(np.vstack([parts, [3.0]])) == [((QUERY, 0.75), ("interests", 0.25))]


@pytest.mark.parametrize("score", [0.0, -1.0])
def test_nothing_speaks_for_what_stands_below_the_rest(score: float) -> None:
    assert shares(Mix.of({"interests": 1.0}).parts(standings(interests=score), HEARD)) == [()]


def test_what_nobody_wrote_about_is_recommended_by_its_own_text() -> None:
    mix, said = Mix.of({"text_last3": 1.0, "said_last3": 3.0}), standings(text_last3=1.0, said_last3=1.0)
    assert shares(mix.parts(said, HEARD)) == [(("what others say", 0.75), ("text", 0.25))]
    assert shares(mix.parts(said, ~HEARD)) == [(("text", 1.0),)]


def test_each_item_is_told_its_own() -> None:
    parts = np.zeros((len(FAMILIES), 3))
    parts[FAMILIES.index("text")] = [1.0, 0.0, 1.0]
    parts[FAMILIES.index("popular")] = [0.0, 2.0, 3.0]
    assert shares(parts) == [(("text", 1.0),), (("popular", 1.0),), (("popular", 0.75), ("text", 0.25))]


def test_what_compares_with_the_users_own_is_their_own_share() -> None:
    parts = np.zeros((len(FAMILIES) + 1, 2))
    for family, said in (("text", 1.0), ("interests", 0.5), ("popular", 2.0), ("new", -3.0)):
        parts[FAMILIES.index(family), 0] = said
    assert own_share(parts[:-1]) == pytest.approx([1.5 / 3.5, 0])
    # Query words are a wish of the moment: they have a share in it all.
    parts[-1, 0] = 1.5
    assert own_share(parts) == pytest.approx([1.5 / 5, 0])
