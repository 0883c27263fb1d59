"""Words: jieba for runs of Chinese, white space for the rest. User dictionaries reload as they change."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from penchant_pipelines.errors import WrongState
from penchant_pipelines.text.chinese import to_simplified
from penchant_pipelines.text.lexicon import newer_words
from penchant_pipelines.text.quiet_jieba import jieba
from penchant_pipelines.text.scripts import HAN, JOINED

_log = structlog.get_logger(__name__)

_IN_WORDS = r"A-Za-z0-9+#&._%\-"  # what jieba allows inside a word beside Han characters: T恤, 卡拉OK
_STOPS = r"，。！？、；：…“”‘’（）《》〈〉【】「」『』—～·,;:!?()\[\]"
# The bound on a run keeps jieba's hidden Markov model, quadratic in the length of unknown runs, cheap.
_PIECE = re.compile(
    rf"(?P<chinese>[{_IN_WORDS}]{{0,40}}[{HAN}][{_IN_WORDS}{HAN}]{{0,300}})|[{_STOPS}]|[^\s{HAN}{_STOPS}]+?"
    rf"(?=[\s{HAN}{_STOPS}]|$)"
)
POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)
_PART = re.compile(rf"(?:[^\W_]|[{JOINED}])+")
_CHECK_SECONDS = 1.0

_Stamp = tuple[int, int] | None


class Segmenter:
    """Cuts text into words. Safe to share among threads. Raises WrongState for a user dictionary that can't be read."""

    def __init__(self, user_dictionary: Path | None = None, cache_dir: Path | None = None) -> None:
        self._base = _base_tokenizer(cache_dir)
        self._tokenizer = self._base
        self._user_words: frozenset[str] = frozenset()
        self._user_dictionary = user_dictionary
        self._stamp: _Stamp = None
        self._reloading = threading.Lock()
        self._next_check = time.monotonic() + _CHECK_SECONDS
        if user_dictionary is not None:
            try:
                self._load(user_dictionary, _stamp(user_dictionary))
            except (OSError, ValueError) as error:
                raise WrongState(
                    "DICTIONARY_UNREADABLE", f"text.user_dictionary {str(user_dictionary)!r} can't be read: {error}"
                ) from error

    def cut(self, text: str) -> list[str]:
        """Return the words and marks of `text` in order; joined they give it without white space."""
        return [word for word, _ in self.cut_with_offsets(text)]

    def cut_with_offsets(self, text: str) -> list[tuple[str, int]]:
        """Return each word or mark with the index of its first character."""
        return list(_cut(self._current(), text))

    @property
    def user_words(self) -> frozenset[str]:
        """The words of the user dictionary."""
        return self._user_words

    def knows(self, word: str) -> bool:
        """Whether `word` stands in jieba's dictionary, or is a newer one."""
        return bool(self._base.FREQ.get(word))  # 0: only the beginning of a word

    def _current(self) -> jieba.Tokenizer:
        path = self._user_dictionary
        # Whoever finds a reload under way goes on with the dictionary at hand.
        if path is not None and time.monotonic() >= self._next_check and self._reloading.acquire(blocking=False):
            try:
                self._next_check = time.monotonic() + _CHECK_SECONDS
                stamp = _stamp(path)
                if stamp != self._stamp:
                    self._load(path, stamp)
            except (OSError, ValueError) as error:  # it goes on with the one at hand
                _log.warning("user_dictionary_unreadable", path=str(path), error=str(error))
            finally:
                self._reloading.release()
        return self._tokenizer

    def _load(self, path: Path, stamp: _Stamp) -> None:
        self._stamp = stamp
        tokenizer = _with_user_words(self._base, path.read_text(encoding="utf-8-sig"))
        self._tokenizer = tokenizer
        self._user_words = frozenset(
            word for word, count in tokenizer.FREQ.items() if count and self._base.FREQ.get(word) != count
        )


def parts(word: str) -> list[str]:
    """Cut a word at the marks in it; 's goes, and what an apostrophe parts belongs together.

    Of figures beside marks, as of "#2", nothing is left: they tell which of a kind something is, and not what it is.
    """
    # Most words are whole, and to search them takes six times as long.
    if word.isalnum():
        return [word]
    found = _PART.findall(POSSESSIVE.sub("", word).replace("'", ""))
    return [part for part in found if not part.isdecimal()]


def _cut(tokenizer: jieba.Tokenizer, text: str) -> Iterator[tuple[str, int]]:
    for piece in _PIECE.finditer(text):
        start = piece.start()
        if piece["chinese"] is None:
            yield piece.group(), start
            continue
        for word in tokenizer.cut(piece.group()):
            yield word, start
            start += len(word)


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _with_user_words(base: jieba.Tokenizer, lines: str) -> jieba.Tokenizer:
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total, tokenizer.initialized = dict(base.FREQ), base.total, True
    # Texts are segmented in simplified characters whatever script the dictionary is in.
    for script in dict.fromkeys((lines, to_simplified(lines))):
        tokenizer.load_userdict(io.BytesIO(script.encode()))
    return tokenizer


_base: jieba.Tokenizer | None = None
_base_lock = threading.Lock()


def _base_tokenizer(cache_dir: Path | None) -> jieba.Tokenizer:
    """Load jieba's own dictionary once a process; nothing changes it afterwards."""
    global _base
    with _base_lock:
        if _base is None:
            _base = load_dictionary(cache_dir)
        return _base


def load_dictionary(cache_dir: Path | None) -> jieba.Tokenizer:
    """Load jieba's dictionary, cached in `cache_dir`, and newer words; without a folder nothing is written."""
    tokenizer = jieba.Tokenizer()
    if cache_dir is None:
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
        tokenizer.initialized = True
    else:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tokenizer.tmp_dir = str(cache_dir)
        tokenizer.cache_file = f"jieba-{jieba.__version__}.cache"
        tokenizer.initialize()
    # jieba logs nothing here, and its cache keeps its own words alone.
    for word, tag in newer_words().items():
        tokenizer.add_word(word, tag=tag)
    return tokenizer
