"""What a user typed in plain letters, less what carries no meaning: markup, addresses, the invisible, the drawn-out."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from penchant_pipelines.text.hashtags import take_hashtags
from penchant_pipelines.text.markup import strip_markup

_JOINERS = {"\u200d", "\ufe0f", *map(chr, range(0xE0020, 0xE0080))}

# Everything that a link can hold, up to white space, quotes or East Asian text, brackets only in pairs.
_LINK_CHAR = r"[^\s<>\"()\[\]\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]"
_LINK_REST = rf"(?:{_LINK_CHAR}|\({_LINK_CHAR}*\))*"
_TLD = (
    "com|org|net|edu|gov|info|biz|io|ai|app|dev|xyz|top|club|site|online|shop|blog|cn|tw|hk|jp|kr|sg|in|us|uk|ca|au|nz"
    "|eu|de|fr|es|it|nl|be|ch|at|se|no|fi|dk|pl|cz|ru|ua|br|mx|ar|me|tv|cc|co|ly|gl|gg|ee|im|to|be"
)
_LINKED = re.compile(r"(?:!\[[^\[\]]{0,200}\]|\[([^\[\]]{1,200})\])(?=\((?:https?://|www\.))")
"""What a link in Markdown is called; the name of a picture is none to its reader."""
_URL = re.compile(rf"(?<![A-Za-z0-9])(?:[A-Za-z][A-Za-z0-9+.-]{{1,20}}://|www\.){_LINK_REST}")
_LABEL = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}\."
# Without a path, asp.net and socket.io are names; blog.example.net is an address.
_BARE_URL = re.compile(
    rf"(?<![A-Za-z0-9_.@＠-])(?:(?:{_LABEL}){{1,8}}(?:{_TLD})(?=/|[:?]\w){_LINK_REST}"
    rf"|(?:(?:{_LABEL}){{1,8}}(?:com|org|edu|gov|cn|(?:com?|org)\.[a-z]{{2}})|(?:{_LABEL}){{2,8}}(?:net|io))"
    r"(?![A-Za-z0-9_-]))"
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9_.+@＠-])(?:mailto:)?[A-Za-z0-9_.+-]{1,64}[@＠][A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"
)
# `//@name:` is how a repost quotes on Chinese networks; `@name@host` is a name on federated ones.
_MENTION = re.compile(
    r"(?://\s?)?(?<![A-Za-z0-9_])[@＠](?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,60}(?:@[A-Za-z0-9.-]{1,100})?|[\w·-]{1,30})"
    r"(?:(?<=[\w-])[:：])?"
)
_DRAWN_OUT = re.compile(r"([^\W\d_]|[^\w\s])\1{3,}")
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|（\s*）|【\s*】|<\s*>|《\s*》")

_UNREADABLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufffd-\uffff\U000f0000-\U0010ffff]"
)
# Letters in another dress, wide, bold, round or joined, and the radicals that a PDF gives for characters, which no
# encoder knows.
_DRESSED = re.compile(
    "[\u2160-\u217f\u24b6-\u24e9\u2f00-\u2fdf\ufb00-\ufb06\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff]"
)
_ENCODED_RUN = re.compile(r"[A-Za-z0-9+/=_-]{60,}")


class TextError(ValueError):
    """The text can't be read as something that a person wrote. The message says what to change."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Text with its line breaks and emoji still in place, and the words of its hashtags in order."""

    text: str
    hashtags: tuple[str, ...]


def clean(text: str, without: str | None = None) -> Cleaned:
    """Drop what carries no meaning, and the hashtag whose words are `without`. TextError for binary data."""
    _refuse_unreadable(text)
    text = _drop_invisible(unicodedata.normalize("NFC", text), keep_joiners=True)
    text = _drop_addresses(strip_markup(text))
    _refuse_encoded(text)
    text, hashtags = take_hashtags(text, without)
    text = _EMPTY_BRACKETS.sub(" ", _DRAWN_OUT.sub(r"\1\1\1", text))
    return Cleaned(text, hashtags)


def tidy(text: str) -> str:
    """Return `text` as NFC without invisible characters, single-spaced, "" if no word is left."""
    text = unicodedata.normalize("NFC", _drop_invisible(text, keep_joiners=False))
    return " ".join(text.split()) if any(map(str.isalnum, text)) else ""


def _refuse_unreadable(text: str) -> None:
    bad = len(_UNREADABLE.findall(text))
    if bad >= 8 and bad > len(text) / 10:
        share = f"{bad / len(text):.0%}"
        raise TextError(f"looks like binary data ({share} of it is no readable character): send decoded Unicode text")


def _refuse_encoded(text: str) -> None:
    runs = (run.group() for run in _ENCODED_RUN.finditer(text))
    # Long words and rows of dashes have few different characters, encoded bytes have many.
    if sum(len(run) for run in runs if len(set(run)) >= 12 and any(map(str.isdigit, run))) > len(text) / 2:
        raise TextError("looks like encoded data (base64, hex): send decoded Unicode text")


def _drop_addresses(text: str) -> str:
    if "](" in text:
        text = _LINKED.sub(lambda link: link[1] or " ", text)
    if "://" in text or "www." in text:
        text = _URL.sub(" ", text)
    if "@" in text or "＠" in text:
        text = _MENTION.sub(" ", _EMAIL.sub(" ", text))
    return _BARE_URL.sub(" ", text) if "." in text else text


class _Invisible(dict[int, str | None]):
    """A `str.translate` table that fills itself: controls to spaces or nothing, letters to plain ones, others as is."""

    def __init__(self, keep: set[str]) -> None:
        super().__init__({ord(c): c for c in keep} | {ord(c): "\n" for c in "\n\r\v\f\x85\u2028\u2029"} | {9: " "})

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        kept = None if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co"} or code & 0xFFFE == 0xFFFE else char
        if code == 0xFFFD:
            kept = None
        elif _DRESSED.match(char):
            kept = unicodedata.normalize("NFKC", char)
        self[code] = kept
        return kept


_TO_DROP = _Invisible(keep=set())
_TO_DROP_LATER = _Invisible(keep=_JOINERS)


def _drop_invisible(text: str, *, keep_joiners: bool) -> str:
    if keep_joiners:
        return text.translate(_TO_DROP_LATER)
    return text.translate(_TO_DROP).replace("\ufe0f", "")
