"""Emoji, and those that are written as [doge]: their names for the encoder, nothing for the keywords."""

from __future__ import annotations

import re
from collections.abc import Callable

import emoji

# A coarse net: most texts hold no emoji, and looking for them one character at a time is slow.
_MAYBE = re.compile("[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff]")
_NAMED = r"\[\w{1,12}\]"
# One that a line begins with may be what it is filed under: [足球] …
_NAMED_EMOJI = re.compile(rf"(?<=.){_NAMED}|^{_NAMED}(?=\s*(?:{_NAMED}|$))")
_SKIN_TONES = dict.fromkeys(range(0x1F3FB, 0x1F400))
_SIGNS = frozenset("©®™")

emoji.config.load_language("zh")


def name_emoji(text: str, language: str) -> str:
    """Put each emoji's name in its place, Chinese for `zh`, else English; repeated ones once."""
    seen: set[str] = set()

    def name(chars: str, data: dict[str, str]) -> str:
        if chars in seen or chars in _SIGNS:
            return " "
        seen.add(chars)
        if chars[0].isascii():  # a keycap: the digit is its name
            return chars[0]
        known = data.get(language) if language == "zh" else None
        return f" {(known or data['en']).strip(':').replace('_', ' ')} "

    return _replace(text, name)


def drop_emoji(text: str) -> str:
    """Replace each emoji by a space."""
    if "[" in text:
        text = _NAMED_EMOJI.sub(" ", text)
    return _replace(text, lambda chars, _: chars[0] if chars[0].isascii() else " ")


def _replace(text: str, replacement: Callable[[str, dict[str, str]], str]) -> str:
    if not _MAYBE.search(text):
        return text
    return emoji.replace_emoji(text.translate(_SKIN_TONES), replacement)
