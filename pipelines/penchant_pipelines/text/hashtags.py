"""Hashtags, Western (`#TrailRunning`) and Chinese (`#手冲咖啡#`), as the words that they are made of."""

from __future__ import annotations

import re

_HASHTAG = re.compile(
    r"(?<![A-Za-z0-9&#＃])[#＃]++(?:"
    r"([^\s#＃<>]{0,40}[\u2e80-\u9fff\uac00-\ud7a3][^\s#＃<>]{0,40})[#＃]"  # closed, with East Asian text
    r"|(\w{1,100}(?:-\w{1,100}){0,10}))[#＃]?"
)
_LONE_MARKS = re.compile(r"(?<![A-Za-z0-9#＃])[#＃]++(?!\w)")
_SUPERTOPIC = re.compile(r"\[超话\]$")
_QUOTATION_MARKS = str.maketrans("", "", '“”„"「」『』')
# TrailRunning, NBAFinals, 100DaysOfCode; a single letter stays with what follows it (iPhone).
_HUMP = re.compile(r"(?<=[A-Za-z][a-z])(?=[A-Z][a-z])|(?<=[A-Z][A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[A-Z][a-z])")
_WHOLE = """
    AliExpress BitTorrent ChatGPT DeepMind DeepSeek DevOps FaceTime GitHub GitLab HarmonyOS JavaScript LaTeX
    LinkedIn McDonalds MongoDB OnePlus OpenAI PayPal PlayStation PostgreSQL PowerPoint PyTorch SoundCloud
    StackOverflow TensorFlow TikTok TypeScript WeChat WhatsApp WordPress YouTube
"""
_WHOLE_NAMES = frozenset(_WHOLE.split())


def take_hashtags(text: str, without: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Return `text` with its hashtags spelt as words, and those words, one entry a tag, in order.

    A tag whose words are `without` is left out of the text.
    """
    if "#" not in text and "＃" not in text:
        return text, ()
    found: list[str] = []

    def spell(match: re.Match[str]) -> str:
        # Among terms, what stands in quotation marks is a text's beginning.
        words = split_tag(_SUPERTOPIC.sub("", match[1] or match[2]).translate(_QUOTATION_MARKS))
        if any(map(str.isalpha, words)):
            found.append(words)
        return " " if words == without else f" {words} "

    text = _HASHTAG.sub(spell, text)
    return _LONE_MARKS.sub(" ", text), tuple(dict.fromkeys(found))


def split_tag(tag: str) -> str:
    """Part CamelCase, snake_case and kebab-case into words; well-known names in mixed case stay whole."""
    words = tag.replace("_", " ").replace("-", " ").split()
    return " ".join(word if word in _WHOLE_NAMES else _HUMP.sub(" ", word) for word in words)
