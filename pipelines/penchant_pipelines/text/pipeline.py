"""The way of a text: clean → language → simplified characters → what the encoder reads, and keywords."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from penchant_pipelines.settings import Section
from penchant_pipelines.text.chinese import to_simplified
from penchant_pipelines.text.clean import clean, tidy
from penchant_pipelines.text.emojis import drop_emoji, name_emoji
from penchant_pipelines.text.keywords import beginning, extract_characters, extract_terms, extract_units, gist
from penchant_pipelines.text.language import UNDETERMINED, resolve_language
from penchant_pipelines.text.segment import Segmenter, parts


class TextSettings(Section):
    """How texts are read."""

    user_dictionary: Path | None = Field(
        default=None,
        description="Words of your own for Chinese segmentation: a jieba user dictionary, UTF-8, a line each "
        "`word [frequency] [tag]`. A change takes effect within seconds, without a restart.",
    )
    max_terms: int = Field(default=8, ge=0, le=64, description="How many keywords to take from a text at most.")


@dataclass(frozen=True, slots=True)
class Document:
    """A text as read: `text` for the encoder, "" if nothing is left; BCP-47 `language`; best `terms` first.

    `text` is in simplified characters where it is Chinese; `terms` are in the script of the user. Where no word is fit
    to be a term, the beginning of the text is the only one, in quotation marks. `wordless`: it is emoji, figures and
    marks alone.
    """

    text: str
    language: str
    terms: tuple[str, ...]
    wordless: bool = False


def encoder_text(cleaned: str, language: str) -> str:
    """What the encoder is given of a cleaned text: emoji by name, Chinese in simplified characters; "" for nothing."""
    named = tidy(name_emoji(cleaned, language))
    return tidy(to_simplified(named)) if language == "zh" else named


class TextPipeline:
    """Reads texts. Safe to share among threads; equal texts give equal documents."""

    def __init__(self, settings: TextSettings, cache_dir: Path | None = None) -> None:
        self._max_terms = settings.max_terms
        self._segmenter = Segmenter(settings.user_dictionary, cache_dir)

    def read(self, text: str, language: str = "") -> Document:
        """Read `text`; a `language` that the caller knows is taken at its word. TextError for binary data."""
        cleaned = clean(text)
        plain = drop_emoji(cleaned.text)
        found = resolve_language(plain, language)
        spoken = encoder_text(cleaned.text, found)
        if not spoken:
            return Document("", UNDETERMINED, ())
        if not any(map(str.isalpha, plain)):
            return Document(spoken, found, (), wordless=True)
        terms = extract_terms(plain, cleaned.hashtags, found, self._segmenter, self._max_terms)
        if not terms and found == "zh":
            terms = extract_characters(plain, self._segmenter)
        terms = terms or extract_units(plain) or (beginning(plain),)
        return Document(spoken, found, terms[: self._max_terms])

    def gist(self, document: Document) -> Document:
        """A document without what says nothing of its subject, where it is short."""
        return replace(document, text=gist(document.text, document.language, self._segmenter))

    def words(self, text: str) -> tuple[str, ...]:
        """Return what `text` is searched by, in order and lower case: sci-fi is two words, Bumrah's is bumrah."""
        return tuple(part for word in self._segmenter.cut(text.replace("’", "'")) for part in parts(word.lower()))

    def segment(self, text: str) -> list[str]:
        """Return the words and marks of `text` in order, Chinese cut by jieba; no white space among them."""
        return self._segmenter.cut(text)
