"""What text and encoders made of a signal or an item, on its way into the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penchant_pipelines.interests import Evidence
from penchant_pipelines.model import Signal
from penchant_pipelines.record.rows import Vector


@dataclass(frozen=True, slots=True)
class Reading:
    """What text and encoders made of a signal or an item.

    `vectors`, by the key of the space, is empty where nothing was to be read.
    """

    vectors: Mapping[int, Vector] = field(default_factory=dict)
    language: str = "und"
    terms: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """All words of an item, for finding others with the same."""

    def evidence(self, signal: Signal, time: int, space: int) -> Evidence:
        """A signal that this was made of, at its event time (µs), as a space sees it."""
        return Evidence.of(signal, time, self.vectors.get(space), self.terms, self.language)


def joined(own: Reading, item: Reading) -> Reading:
    """What the user wrote about an item, with the item: the mean direction in each space, the user's words first.

    Of terms it has all that were taken from either.
    """
    if not own.vectors:
        return item
    vectors = {key: mean_direction(own.vectors[key], item.vectors[key]) for key in own.vectors if key in item.vectors}
    return Reading(vectors, own.language, tuple(dict.fromkeys([*own.terms, *item.terms])))


def mean_direction(own: Vector, item: Vector) -> Vector:
    """Unit vector between two of them."""
    total = own + item
    return (total / max(float((total @ total) ** 0.5), 1e-12)).astype("float32")
