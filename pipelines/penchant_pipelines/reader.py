"""The reader: from what users and backends write to documents, ready to be encoded."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from penchant_pipelines.complaints import RATING as COMPLAINT_RATING
from penchant_pipelines.complaints import complains
from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.model import Action, Behavior, Item, Post
from penchant_pipelines.refusals import RATING as REFUSAL_RATING
from penchant_pipelines.refusals import refused
from penchant_pipelines.stance import open_stance
from penchant_pipelines.text import Document, TextError, TextPipeline
from penchant_pipelines.text.chinese import to_simplified
from penchant_pipelines.text.keywords import beginning, is_beginning

NOTHING = Document(text="", language="und", terms=())
NOTHING_SAID = "needs words to tell what the item is: give a title, a text or categories"
LONGEST_OF_WORDS = 6_000
"""Characters of an item whose words are kept: what an item is about is said early."""


class Reader:
    """Reads texts: cleans and segments them."""

    def __init__(self, text: TextPipeline) -> None:
        self._text = text

    def post(self, post: Post) -> tuple[Document, Post]:
        """Read a post, and where it has no rating, what its text tells of one; blocks. Raises InvalidInput."""
        document = self.said(post.text, post.language, "post.text")
        if post.rating is not None or not document.text:
            return self._said_of(document, post.item_id), post
        subject = self._refused(document, post.text)
        if subject is not None:
            return subject, replace(post, inferred_rating=REFUSAL_RATING)
        return self._said_of(document, post.item_id), replace(post, inferred_rating=self._blame(document))

    def subject(self, text: str, language: str, item_id: str, inferred_rating: float | None) -> Document:
        """What a post is about, of which `post` told this rating; blocks."""
        document = self.said(text, language, "post.text")
        refused_subject = self._refused(document, text) if document.text and inferred_rating == REFUSAL_RATING else None
        return self._said_of(document, item_id) if refused_subject is None else refused_subject

    def _said_of(self, document: Document, item_id: str) -> Document:
        """What a post says of its own subject. Of an item every word tells: "seen live" is said of some alone."""
        return document if item_id else self._text.gist(document)

    def _refused(self, document: Document, written: str) -> Document | None:
        """What a text refuses, if it does: the phrase that refuses is the same whatever that is."""
        rest = refused(document.text, self._text.segment)
        if rest is None:
            return None
        subject = self._text.gist(self._text.read(rest, document.language))
        if not subject.text or subject.wordless:
            # "Not my cup of tea" says nothing of tea.
            subject = replace(document, terms=(beginning(document.text),))
        return replace(subject, terms=tuple(_as_written(term, written) for term in subject.terms))

    def _blame(self, document: Document) -> float | None:
        if document.language == "zh" and complains(document.text, self._text.segment):
            return COMPLAINT_RATING
        stance = open_stance()
        # Segmenting is the costly part.
        if not stance.can_blame(document.language):
            return None
        return stance.blame(self._text.segment(document.text), document.language)

    def words(self, document: Document) -> tuple[str, ...]:
        """All words of a text in lower case, without marks; blocks."""
        return self.words_of(document.text[:LONGEST_OF_WORDS])

    def words_of(self, text: str) -> tuple[str, ...]:
        """The same of a text that was cleaned already, or a part of one."""
        return self._text.words(text)

    def said(self, text: str, language: str, field: str) -> Document:
        """Clean what a user wrote, NOTHING where it holds no word; blocks. Raises InvalidInput that names the field."""
        document = self.document(text, language, field)
        return NOTHING if document.wordless else document

    def document(self, text: str, language: str, field: str) -> Document:
        """Clean one text; blocks. Raises InvalidInput that names the field."""
        if not text:
            return NOTHING
        try:
            return self._text.read(text, language)
        except TextError as error:
            raise InvalidInput.at(field, str(error)) from error

    def new_item(self, item: Item) -> Document:
        """What an item says that comes in now, else as `item`: what the record holds from before is still read."""
        document = self.item(item)
        if not any(map(_is_visible, document.text)):
            raise InvalidInput.at("text", NOTHING_SAID)
        return document

    def item(self, item: Item) -> Document:
        """What an item says: its title, its text unless that repeats the title, its categories where there is no text.

        Blocks. Raises InvalidInput.
        """
        parts = [item.title] if item.title and not item.text.startswith(item.title) else []
        parts += [item.text] if item.text else list(item.categories)
        document = self.document("\n".join(part for part in parts if part), item.attributes.get("language", ""), "text")
        # A name need not be a word that says something: there are "1984", "Friends" and a band called "!!!".
        name = " ".join([item.title, *item.categories]).strip()
        named = document.text and not document.wordless and not any(map(is_beginning, document.terms))
        if named or (document.text and not name):
            return document
        if not name:
            raise InvalidInput.at("text", NOTHING_SAID)
        return Document(document.text or name, document.language, (item.title,) if item.title else item.categories)


def check_value(behavior: Behavior) -> None:
    """Raise InvalidInput where the value is none that goes with the action."""
    action, value = behavior.action, behavior.value
    if value is None:
        return
    if action is Action.DWELL:
        if value < 0:
            raise InvalidInput.at("behavior.value", "must not be negative: it is the seconds dwelt")
    elif action is Action.VIEW and not 0 <= value <= 1:
        raise InvalidInput.at("behavior.value", "must lie between 0 and 1: it is the share that was viewed")
    elif not -1 <= value <= 1:
        raise InvalidInput.at(
            "behavior.value", "must lie between -1 and 1 (a rating or share; seconds go with ACTION_DWELL)"
        )


def _as_written(term: str, text: str) -> str:
    """A term of a text that was read in simplified characters, in those of the text."""
    words = term.strip("“…”")
    place = to_simplified(text).find(words)
    return term if place < 0 else term.replace(words, text[place : place + len(words)])


def _is_visible(char: str) -> bool:
    return not char.isspace() and unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co"}
