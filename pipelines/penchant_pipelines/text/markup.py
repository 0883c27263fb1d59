"""HTML to plain text: tags and comments go, scripts and styles with their content, entities are decoded."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

_TAG_BODY = r"(?:/?[A-Za-z][A-Za-z0-9-]{0,30}(?:\s[^<>]{0,2000})?/?|!(?:--|DOCTYPE)[^<>]{0,2000})>"
_TAG = re.compile("<" + _TAG_BODY)
_NO_TAG = re.compile(f"<(?!{_TAG_BODY})")
_COMMENT_END = re.compile(r"--\s*>")
_CDATA = re.compile(r"<!\[CDATA\[|\]\]>")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_SILENT = frozenset({"script", "style"})
_SILENT_TAG = re.compile(r"<(/?)(script|style)(?:\s[^<>]{0,2000})?>", re.IGNORECASE)
_INLINE_TAGS = """
    a abbr b bdi bdo big cite code del dfn em font i ins kbd label mark q s samp small span strike strong sub
    sup time tt u var wbr
"""
_INLINE = frozenset(_INLINE_TAGS.split())


def strip_markup(text: str) -> str:
    """Return `text` without HTML; text that holds no tag and no entity comes back as it is."""
    if "<![CDATA[" in text:
        text = _CDATA.sub("", text)
    if _TAG.search(text):
        parser = _TextOnly()
        # The parser goes over the rest of the text again for each "<" that begins no tag, or no comment that ends.
        parser.feed(_NO_TAG.sub("&lt;", _end_comments(_open_up(text))))
        parser.close()
        return parser.text()
    if _ENTITY.search(text):
        return html.unescape(text)
    return text


def _open_up(text: str) -> str:
    """Drop a script or style tag that nothing closes: somebody writes about the tag."""
    unclosed: re.Match[str] | None = None
    for tag in _SILENT_TAG.finditer(text):
        if not tag[1]:
            unclosed = unclosed or tag
        elif unclosed and tag[2].lower() == unclosed[2].lower():
            unclosed = None
    return text if unclosed is None else text[: unclosed.start()] + " " + text[unclosed.end() :]


def _end_comments(text: str) -> str:
    """Write as text what begins a comment that nothing ends."""
    last = max((end.end() for end in _COMMENT_END.finditer(text)), default=0)
    return text[:last] + text[last:].replace("<!--", "&lt;!--")


class _TextOnly(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._silent_since: int | None = None

    def text(self) -> str:
        """Return what a reader would see."""
        return "".join(self._parts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._boundary(tag)
        if tag in _SILENT and self._silent_since is None:
            self._silent_since = len(self._parts)

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT and self._silent_since is not None:
            del self._parts[self._silent_since :]
            self._silent_since = None
        self._boundary(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._boundary(tag)

    def handle_data(self, data: str) -> None:
        self._parts.append(data)

    def _boundary(self, tag: str) -> None:
        # Block elements part words that stand on both sides of them; inline ones do not.
        if tag not in _INLINE:
            self._parts.append("\n")
