from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from penchant_pipelines.encoder import Encoder, Vectors
from penchant_pipelines.interests import Calibration, InterestView, Trend
from penchant_pipelines.interests.labels import name_interests
from penchant_pipelines.interests.subjects import (
    LEAST_SIGNALS,
    NEARLY,
    SURE,
    Subject,
    Subjects,
    all_subjects,
    nameless,
)
from penchant_pipelines.model import Steering

FERNS = (
    "Repotted the fern, roots everywhere",
    "The monstera on the windowsill grew two leaves",
    "Which of my houseplants survive a dark corner?",
)
CATS = ("两只猫终于睡到一个窝里了", "橘猫又打翻了猫粮", "给猫剪指甲，它记仇到晚上")


@pytest.fixture(scope="session")
def subjects(encoder: Encoder, calibration: Calibration) -> Subjects:
    return Subjects(encoder.encode, calibration)


def interest(encoder: Encoder, texts: Sequence[str], *terms: str, signals: int = LEAST_SIGNALS) -> InterestView:
    mean = encoder.encode(list(texts)).mean(axis=0)
    vector = mean / np.linalg.norm(mean)
    supported = dict.fromkeys(terms, 1.0)
    return InterestView("i", 0.5, 0.5, Trend.STEADY, signals, 0, 0, Steering(), vector, supported)


def labels(subjects: Subjects, language: str, *interests: InterestView) -> list[str]:
    return [label.label for label in name_interests(interests, lambda _: None, subjects, language)]


def test_every_subject_has_one_short_name_in_either_language() -> None:
    english, chinese = zip(*all_subjects(), *nameless(), strict=True)
    assert len(english) == len(set(english)) > 400
    assert len(set(chinese)) == len(chinese)
    assert [name for name in english if not re.fullmatch(r"[A-Z0-9]?[A-Za-z0-9 '&-]{1,29}", name)] == []
    assert [name for name in chinese if not 1 <= len(name) <= 7 or name != name.strip()] == []


@pytest.mark.parametrize(
    ("language", "name"), [("en", "houseplants"), ("zh", "室内植物"), ("de", "fern"), ("", "fern")]
)
def test_what_an_interest_surely_is_names_it_in_the_users_language(
    encoder: Encoder, subjects: Subjects, language: str, name: str
) -> None:
    (label,) = name_interests([interest(encoder, FERNS, "fern", "moss")], lambda _: None, subjects, language)
    assert label.label == name
    assert label.keywords == ("fern", "moss")


def test_who_writes_traditional_characters_reads_them(encoder: Encoder, subjects: Subjects) -> None:
    # As the text pipeline hands them on.
    texts = ("底片摄影好慢，也好安静", "用老相机拍了一卷黑白底片", "自己在家冲洗底片，照片出来那一刻真开心")
    film = interest(encoder, texts, "底片", "過片")
    assert labels(subjects, "zh", film) == ["攝影"]
    assert labels(subjects, "zh", replace(film, terms={"底片": 1.0})) == ["摄影"]


def test_what_is_no_subject_for_sure_keeps_the_users_own_words(encoder: Encoder, subjects: Subjects) -> None:
    own = interest(encoder, ["Told Richie that Loren left early", "Late again, sigh", "Nifty!"], "richie")
    assert labels(subjects, "en", own) == ["richie"]
    few = interest(encoder, FERNS, "fern", signals=LEAST_SIGNALS - 1)
    assert labels(subjects, "en", few) == ["fern"]


@pytest.mark.parametrize(
    ("language", "texts", "own"),
    [
        ("en", ["North Korea missile test", "Seoul protests against martial law", "Korean election polls"], "seoul"),
        ("en", ["booked flights to japan", "osaka vs kyoto 4 days", "japan rail pass worth it"], "japan"),
        ("zh", ["订了去日本的机票", "大阪和京都四天怎么安排", "日本铁路周游券值不值"], "日本"),
        ("zh", ["曼谷酒店住哪里", "清迈十一月天气", "泰国落地签", "甲米跳岛一日游", "泰国火车卧铺"], "泰国"),
        ("zh", ["两会今天开幕", "国务院新规", "外交部发言人回应", "中美贸易谈判", "政府工作报告要点"], "两会"),
    ],
)
def test_a_country_is_not_called_by_what_it_is_known_for_and_politics_by_nothing(
    encoder: Encoder, subjects: Subjects, language: str, texts: list[str], own: str
) -> None:
    assert labels(subjects, language, interest(encoder, texts, own)) == [own]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        (
            "Japanese learning",
            ["JLPT N3 in december", "japanese particles wa and ga", "how to practise speaking japanese"],
        ),
        ("Italian food", ["carbonara without cream", "fresh pasta by hand", "risotto milanese"]),
        ("Korean dramas", ["new kdrama with Song Kang", "best korean dramas on netflix", "slow burn kdrama"]),
    ],
)
def test_what_a_country_is_known_for_is_called_so(
    encoder: Encoder, subjects: Subjects, name: str, texts: list[str]
) -> None:
    assert labels(subjects, "en", interest(encoder, texts, "own")) == [name]


def test_the_users_own_name_for_an_interest_stays(encoder: Encoder, subjects: Subjects) -> None:
    called = replace(interest(encoder, FERNS, "my jungle", "fern"), called="my jungle")
    assert labels(subjects, "en", called) == ["my jungle"]


def test_a_second_interest_in_the_same_goes_by_its_words(encoder: Encoder, subjects: Subjects) -> None:
    one = interest(encoder, CATS, "橘猫")
    assert labels(subjects, "zh", one, replace(one, terms={"猫粮": 1.0})) == ["猫", "猫粮"]


WIDTH = len(all_subjects()) + len(nameless()) + 4
"""A dimension for each subject, and a last one that none lies in."""


def fixed(rows: dict[str, list[float]]) -> Subjects:
    """Subjects of which those named lie as given, all others apart from them; θ is .1."""

    def encode(texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), WIDTH), dtype=np.float32)
        spare = iter(range(3, WIDTH - 1))
        for row, text in zip(found, texts, strict=True):
            known = rows.get(text.split(", ")[0])
            if known:
                row[:3] = known
            else:
                row[next(spare)] = 1
        unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    return Subjects(encode, Calibration(0.1, np.zeros(WIDTH, dtype=np.float32)))


def at(subjects: Subjects, cosine: float, *terms: str) -> Subject | None:
    """What an interest at this cosine to football is that is near to no other subject but by football."""
    vector = np.zeros(WIDTH, dtype=np.float32)
    vector[0], vector[-1] = cosine, np.sqrt(1 - cosine**2)
    return subjects.surely(vector, terms)


def test_it_takes_a_cosine_of_so_many_times_what_strange_texts_reach() -> None:
    sports = fixed({"football": [1, 0, 0], "rugby": [0.5, 0.87, 0]})
    level = SURE * 0.1
    assert at(sports, level * 1.05) == Subject("football", "足球")
    assert at(sports, level * 0.95) is None


def test_of_two_that_are_about_as_near_the_one_that_the_texts_name_goes_first() -> None:
    near, far = NEARLY + 0.05, NEARLY - 0.05
    for cosine, said in ((near, "rugby"), (far, "football")):
        sports = fixed({"football": [1, 0, 0], "rugby": [cosine, float(np.sqrt(1 - cosine**2)), 0]})
        assert at(sports, 0.9, "Rugby boots", "mud") == next(s for s in all_subjects() if s.english == said)
        assert at(sports, 0.9, "橄榄球") == next(s for s in all_subjects() if s.english == said)
        assert at(sports, 0.9, "rugbyman") == Subject("football", "足球")
    trails = fixed({"hiking": [1, 0, 0], "trail running": [near, float(np.sqrt(1 - near**2)), 0]})
    vector = np.zeros(WIDTH, dtype=np.float32)
    vector[0] = 1
    assert trails.surely(vector, ["trailrunning"]) == Subject("trail running", "越野跑")
