from __future__ import annotations

import pytest

from penchant_pipelines.text.language import canonical, detect_language, resolve_language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天天气不错，去公园跑步", "zh"),
        ("今天天氣不錯，去公園跑步", "zh"),
        ("周末用 Docker 部署了一个 Kubernetes 集群", "zh"),
        ("鮮の每日，果汁很好喝", "zh"),
        ("Kubernetes ingress nginx controller 升级", "zh"),
        ("Fedora 和 CentOS Stream", "zh"),
        ("骗不了人的男人 / ダマせない男", "zh"),
        ("日本语ない是什么意思", "zh"),
        ("The word 茶 means tea in Chinese and I love it very much", "en"),
        ("私は毎朝コーヒーを飲みます", "ja"),
        ("写真撮影が趣味", "ja"),
        ("刘亦菲が出てるドラマを見た", "ja"),
        ("커피를 좋아해요", "ko"),
        ("I went for a long run in the hills this morning", "en"),
        ("Ich backe jeden Sonntag frisches Brot", "de"),
        ("J'aime beaucoup le café du matin", "fr"),
        ("Я люблю бегать по утрам в парке", "ru"),
        ("Люблю кофе", "ru"),
        ("I speak русский", "und"),
        ("أحب القهوة في الصباح الباكر", "ar"),
        ("אני אוהב לשתות קפה בבוקר", "he"),
        ("lol", "en"),
        ("Ultimate Edition 3.9 Linux Distro Is a Complete Mess", "en"),
        ("coffee", "en"),
        ("THIS IS GREAT COFFEE", "en"),
        ("She smiled!! An actual smile not wind", "en"),
        ("What a day!! An actual miracle in the kitchen", "en"),
        ("Our new striker can't hit a barn door", "en"),
        ("NO SPOILERS pls im on ep 6", "en"),
        ("Avui he anat a la muntanya i a la tarda hem fet pa a casa. Me n'he fet un tip.", "ca"),
        ("12345", "und"),
        ("", "und"),
    ],
)
def test_detection(text: str, expected: str) -> None:
    assert detect_language(text) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("zh", "zh"), ("zh-Hans", "zh"), ("zh_CN", "zh"), ("ZH-tw", "zh"), ("yue", "zh"), ("cmn-Hant", "zh"),
        ("en-US", "en"), ("eng", "en"), (" pt-BR ", "pt"), ("und", ""), ("", ""), ("english!", ""), ("x", ""),
    ],
)  # fmt: skip
def test_canonical_tags(tag: str, expected: str) -> None:
    assert canonical(tag) == expected


def test_the_callers_word_wins_where_it_is_a_tag() -> None:
    assert resolve_language("今天天气不错", "ja-JP") == "ja"
    assert resolve_language("今天天气不错", "??") == "zh"
