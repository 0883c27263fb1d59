from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penchant_pipelines.interests import InterestView, Trend
from penchant_pipelines.interests.labels import MAX_KEYWORDS, Label, candidates, name_interests, shown_as
from penchant_pipelines.interests.terms import CANDIDATES
from penchant_pipelines.model import Steering

WORDS = [
    "running",
    "trail running",
    "Running",
    "trail running shoes",
    "shoes",
    "art",
    "party",
    "越野",
    "越野跑",
    "跑鞋",
]


def axis(index: int) -> NDArray[np.float32]:
    row: NDArray[np.float32] = np.eye(4, dtype=np.float32)[index]
    return row


def interest(terms: dict[str, float], direction: int = 0) -> InterestView:
    return InterestView("i", 0.5, 0.5, Trend.STEADY, 1, 0, 0, Steering(), axis(direction), terms)


def nothing(word: str) -> None:
    return None


def test_the_word_nearest_to_the_centre_names_an_interest() -> None:
    vectors = {"coffee": axis(1), "espresso": axis(0)}
    found = name_interests([interest({"coffee": 1.0, "espresso": 0.9})], vectors.get)
    assert found[0].label == "espresso"
    assert found[0].keywords == ("espresso", "coffee")


def test_what_recurs_names_an_interest_before_an_oddity_in_it() -> None:
    terms, vectors = {"bicycle": 1.0, "tuba": 1.0, "tyre": 0.4}, {"tuba": axis(0) * 0.15}
    assert name_interests([interest(terms)], vectors.get)[0].label == "tuba"
    recurring = replace(interest(terms), recurrent=frozenset({"bicycle", "tyre"}))
    assert name_interests([recurring], vectors.get)[0].keywords == ("bicycle", "tuba", "tyre")


def test_a_topic_is_what_is_shown_under_that_very_label() -> None:
    shown = [replace(interest({}), id=name, sign=sign) for name, sign in (("a", 1), ("b", 1), ("c", -1))]
    labels = [Label(name, (name, "coffee")) for name in ("tea", "Caf\u00e9", "cars")]
    assert [shown_as(shown, labels, topic, False) for topic in ("Tea", "cafe\u0301", "CARS")] == ["a", "b", "c"]
    assert [shown_as(shown, labels, topic, True) for topic in ("tea", "cars")] == ["a", ""]
    assert shown_as(shown, labels, "coffee", False) == ""
    # The user's earlier word on it is found by that.
    named = replace(shown[1], topics={"TEA": axis(0)})
    assert shown_as([shown[0], named], labels[:2], "tea", False) == ""


def test_what_the_users_word_opened_keeps_its_name_whatever_signals_say_of_it() -> None:
    terms = {"football": 2.0} | {f"word {n}": 5.0 for n in range(CANDIDATES)}
    called = replace(interest(terms), called="football")
    assert name_interests([called], {"word 0": axis(0)}.get)[0].keywords[:2] == ("football", "word 0")
    assert name_interests([replace(called, called="")], {"word 0": axis(0)}.get)[0].label == "word 0"


def test_support_names_it_where_no_vector_is_known() -> None:
    found = name_interests([interest({"coffee": 1.0, "espresso": 3.0})], nothing)
    assert found[0].keywords == ("espresso", "coffee")


def test_a_name_is_one_short_line_whatever_the_user_called_it() -> None:
    lines = interest({" dark\r\nroast\u2028\x1b[31m\tcoffee ": 1.0})
    (long,) = name_interests([interest({"咖啡" * 100: 1.0})], nothing)
    assert name_interests([lines], nothing)[0].label == "dark roast [31m coffee"
    assert long.label == "咖啡" * 29 + "咖…"
    assert long.keywords == (long.label,)


def test_labels_differ_within_a_profile() -> None:
    same = {"coffee": 2.0, "espresso": 1.0}
    found = name_interests([interest(same), interest(same), interest({"Coffee": 9.0, "tea": 1.0})], nothing)
    assert [label.label for label in found] == ["coffee", "espresso", "tea"]
    assert found[1].keywords == ("espresso", "coffee")
    found = name_interests([interest({"貓咪": 2.0, "猫咪": 1.0}), interest({"猫咪": 2.0, "貓砂": 1.0})], nothing)
    assert [label.keywords for label in found] == [("貓咪",), ("貓砂", "猫咪")]


def test_a_label_is_repeated_only_when_words_run_out() -> None:
    found = name_interests([interest({"coffee": 1.0}), interest({"coffee": 1.0}), interest({})], nothing)
    assert [label.label for label in found] == ["coffee", "coffee", ""]
    assert found[2].keywords == ()


def test_the_beginning_of_a_text_names_an_interest_only_for_want_of_a_word() -> None:
    found = name_interests(
        [interest({"“same”": 5.0, "“what a day”": 2.0}), interest({"“same”": 5.0, "tea": 0.1})], nothing
    )
    assert [label.keywords for label in found] == [("“same”", "“what a day”"), ("tea",)]


@pytest.mark.parametrize(
    ("longer", "shorter"),
    [
        ("trail running", "running"),
        ("Trail Running", "running"),
        ("trail running shoes", "trail running"),
        ("越野跑", "越野"),
        ("越野跑鞋", "跑鞋"),
        ("日本のコーヒー", "コーヒー"),
        ("горный велосипед", "велосипед"),
    ],
)
@pytest.mark.parametrize("longer_leads", [True, False])
def test_part_of_a_keyword_is_not_another(longer: str, shorter: str, longer_leads: bool) -> None:
    terms = {longer: 3.0 if longer_leads else 1.0, shorter: 1.5}
    found = name_interests([interest(terms)], nothing)
    assert found[0].keywords == ((longer,) if longer_leads else (shorter,))


@pytest.mark.parametrize(("one", "two"), [("art", "party"), ("кот", "который"), ("öl", "köln"), ("été", "étéindre")])
def test_letters_in_common_are_not_a_part(one: str, two: str) -> None:
    found = name_interests([interest({one: 2.0, two: 1.0})], nothing)
    assert set(found[0].keywords) == {one, two}


def test_words_keep_the_language_and_spelling_of_the_user() -> None:
    found = name_interests([interest({"手冲咖啡": 2.0, "NASA": 1.0}), interest({"espresso": 1.0})], nothing)
    assert found[0].keywords == ("手冲咖啡", "NASA")
    assert found[1].label == "espresso"


@pytest.mark.parametrize(
    ("name", "no_name"),
    [
        ("巴厘岛", "羡慕"),
        ("马拉松", "跑步"),
        ("兵馬俑", "精美"),
        ("华为", "不会"),
        ("火车站", "车站"),
        ("小红书", "帖子"),
        ("Monstera", "Stubborn fig"),
        ("burr grinder", "grinding finer"),
        ("dark chocolate", "flatten"),
    ],
)
def test_names_and_things_come_before_what_is_done_or_felt(name: str, no_name: str) -> None:
    found = name_interests([interest({no_name: 1.0, name: 0.95})], nothing)
    assert found[0].label == name


def test_much_support_outweighs_the_kind_of_word() -> None:
    found = name_interests([interest({"跑步": 1.0, "巴厘岛": 0.1})], nothing)
    assert found[0].label == "跑步"


@given(st.lists(st.dictionaries(st.sampled_from(WORDS), st.floats(0.01, 9), max_size=8), max_size=4))
def test_labels_are_an_interests_own_words(profile: list[dict[str, float]]) -> None:
    found = name_interests([interest(terms) for terms in profile], nothing)
    assert len(found) == len(profile)
    for label, terms in zip(found, profile, strict=True):
        assert set(label.keywords) <= set(terms)
        assert len(label.keywords) == len({word.casefold() for word in label.keywords}) <= MAX_KEYWORDS
        assert (label.label == "") == (not terms)
        assert not terms or label.keywords[0] == label.label


def test_only_the_best_supported_words_are_candidates() -> None:
    terms = {f"w{n:02}": float(n) for n in range(30)}
    assert candidates(interest(terms)) == [f"w{n:02}" for n in range(29, 29 - CANDIDATES, -1)]
