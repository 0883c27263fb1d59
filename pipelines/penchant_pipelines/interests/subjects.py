"""Subjects: common names of interests, such as houseplants or 桌游, for those that surely are one of them.

The words of three posts may be fern, moss and pot; what their author would call the interest is in none of them. The
list is our own. It names no product, place or person, which the user's own words name better, and nothing that is the
user's alone to tell: health, faith, politics, whom they love. What would else be taken for one of them, as the news of
a country for its films, is known (`nameless.txt`), and keeps the user's own words, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.encoder import Vectors
from penchant_pipelines.interests.calibration import Calibration
from penchant_pipelines.interests.terms import holds, plain
from penchant_pipelines.text.chinese import to_simplified, to_traditional

SURE = 2.4
"""Cosine from which an interest is called by a subject, in θ: see docs/decisions.md."""
NEARLY = 0.85
"""Share of the nearest subject's cosine from which another goes first where the texts name it."""
LEAST_SIGNALS = 3
"""Signals from which it is: of one or two texts their own words tell more."""


class Subject(NamedTuple):
    """A subject's name in either language."""

    english: str
    chinese: str

    def called(self, language: str, terms: Collection[str]) -> str:
        """Its name in a user's language, in the characters of the user's terms; empty in languages that lack one."""
        if language == "en":
            return self.english
        if language != "zh":
            return ""
        writes_traditional = any(to_simplified(term) != term for term in terms)
        return to_traditional(self.chinese) if writes_traditional else self.chinese


def all_subjects() -> list[Subject]:
    """Every subject that an interest may be called by."""
    return _read("subjects.txt")


def nameless() -> list[Subject]:
    """Every subject that none is called by, and that others lie near to."""
    return _read("nameless.txt")


def _read(name: str) -> list[Subject]:
    lines = resources.files(__package__).joinpath(name).read_text("utf-8").splitlines()
    return [Subject(*line.split("\t")) for line in lines]


class Subjects:
    """The subjects as an encoder reads them. Safe from any thread."""

    def __init__(self, encode: Callable[[Sequence[str]], Vectors], calibration: Calibration) -> None:
        """Encode all names, which blocks for most of a second."""
        self._calibration = calibration
        self._subjects = all_subjects()
        seen = calibration.seen(encode([", ".join(subject) for subject in [*self._subjects, *nameless()]]))
        # Short names have more in common with each other than with texts.
        apart = seen - seen[: len(self._subjects)].mean(axis=0)
        self._vectors: Vectors = apart / np.linalg.norm(apart, axis=1, keepdims=True)

    def surely(self, vector: NDArray[np.float32], terms: Collection[str]) -> Subject | None:
        """What an interest of this vector (d,) surely is, by what its texts named before what is nearest."""
        cosines = self._vectors @ self._calibration.seen(vector[None])[0]
        if cosines.argmax() >= len(self._subjects):
            return None
        cosines = cosines[: len(self._subjects)]
        rows = np.flatnonzero(cosines >= max(SURE * self._calibration.similarity, NEARLY * cosines.max()))
        sure = [self._subjects[row] for row in rows[np.argsort(-cosines[rows], kind="stable")].tolist()]
        said = [plain(term) for term in terms] if len(sure) > 1 else []
        return next((subject for subject in sure if _is_named(subject, said)), sure[0] if sure else None)


def _is_named(subject: Subject, terms: Sequence[str]) -> bool:
    names = [plain(name) for name in subject]
    # Hashtags are words without spaces.
    return any(holds(term, name) or term == name.replace(" ", "") for name in names for term in terms)
