"""What is kept of a user: interests, horizons, drift. Plain data; `blend.py` changes it, `view.py` reads it.

The signals of the newest day are kept apart from those of the days before: no day counts more than a usual one of
the user, so what each of its signals counts is known only when the day is over.

Masses are kept per half-life, each as it stood at the interest's `updated` time: reading at a later time
is one multiplication by 2^(−Δ/h), and nothing ticks. (Forward decay after Cormode et al. 2009, with each
interest's last signal as landmark instead of a fixed epoch: 2^(Δ/h) over ten years at a half-life of two days
overflows a double.)
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.interests.drift import DriftState
from penchant_pipelines.interests.horizons import HORIZONS
from penchant_pipelines.interests.pace import Pace, WholePace
from penchant_pipelines.interests.repeats import Repeats
from penchant_pipelines.interests.settings import InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY, Steering

Vector = NDArray[np.float32]

SHORT = -2
"""Column of the short horizon in `Interest.mass`."""
FOREVER = -1
"""Column of the mass that never fades."""
FIRST_DAY = 20.0
"""Mass that a day may count while there is none to compare it with."""
DAYS_REMEMBERED = 30
"""Days over which the usual day is a mean, about."""


class Topic(msgspec.Struct):
    """What the user said of a topic, and where it lies, (d,)."""

    more: bool
    """More of it was asked for."""
    vector: Vector


class Interest(msgspec.Struct):
    """One interest, liked (`sign` 1) or disliked (`sign` −1)."""

    id: str
    sign: int
    centroid: Vector
    """Unit vector, (d,) float32."""
    mass: NDArray[np.float64]
    """(h + 2,): mass per half-life, then of the short horizon, then unfading; as of `updated`, of the days before."""
    updated: int
    first: int
    last: int
    today: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.empty(0))
    """Like `mass`, of the profile's newest day as if it counted whole. Empty in profiles that wait for a replay."""
    pace: Pace = msgspec.field(default_factory=Pace)
    signal_count: int = 0
    text_count: int = 0
    """Distinct texts: near-duplicates of late are one."""
    day_count: int = 0
    """Distinct days (UTC) with a signal."""
    agreement: float = 0.0
    """Sum over signals of cos(signal, centroid before the blend)."""
    terms: dict[str, float] = {}
    """Of the signals, each with its support."""
    recurrent: list[str] = []
    """Those that more than one text spoke of, sorted."""
    steering: Steering | None = None
    steered_time: int = 0
    """When that was last said."""
    steered_mass: float = 0.0
    """Unfading mass that the user's own word put in."""
    steered_terms: dict[str, float] = {}
    """Of the topic that opened the interest, until it is taken back."""
    topics: dict[str, Topic] = {}
    """Topics by which the user named it since it was last as inferred."""


BEFORE_ALL = -(2**62)
"""µs, earlier than any event."""


class Profile(msgspec.Struct):
    """The interests of a user: a pure function of the user's signals and steering in (time, id) order."""

    interests: list[Interest] = []
    fresh: Vector | None = None
    """(d,) decayed sum of positive signals at the short half-life, as of `updated`; not of unit length."""
    long: Vector | None = None
    """The same at the long half-life of posts."""
    past: NDArray[np.float32] | None = None
    """(h, d) the same at each of `HORIZONS`, as of `past_until`."""
    past_until: int = BEFORE_ALL
    """Time of the last signal in `past`."""
    today: Vector | None = None
    """(d,) sum of the newest day's positive signals, as if the day counted whole; on top of both."""
    day: int | None = None
    """The newest day (UTC), in days since 1970; None before the first event."""
    day_mass: float = 0.0
    """Absolute mass of the newest day's signals."""
    usual_day: float = FIRST_DAY
    """Mass of a usual day: a mean in which no day counts more than twice what was usual before."""
    days: int = 0
    """Days with signals before the newest."""
    repeats: Repeats = msgspec.field(default_factory=Repeats)
    updated: int = BEFORE_ALL
    fresh_count: float = 0.0
    """Decayed number of signals at the short half-life."""
    support: float = 0.0
    """Decayed absolute mass of all signals at the long half-life: how much is known."""
    languages: dict[str, float] = {}
    pace: WholePace = msgspec.field(default_factory=WholePace)
    drift: DriftState = msgspec.field(default_factory=DriftState)

    def find(self, interest_id: str) -> Interest | None:
        """Look up an interest by id."""
        return next((interest for interest in self.interests if interest.id == interest_id), None)

    @property
    def day_share(self) -> float:
        """What share of the newest day's mass counts."""
        return min(1.0, self.usual_day / self.day_mass) if self.day_mass else 1.0

    def mass_of(self, interest: Interest) -> NDArray[np.float64]:
        """(h + 2,): the masses of an interest as of its `updated`."""
        return interest.mass + self.day_share * interest.today

    def horizons(self) -> tuple[Vector, Vector] | None:
        """The fresh and the long horizon with the newest day, None before the first positive signal."""
        if self.today is None:
            return None
        today = np.float32(self.day_share) * self.today
        if self.fresh is None or self.long is None:
            return today, today
        return self.fresh + today, self.long + today

    def begin(self, day: int) -> None:
        """Close the newest day, if this one is later: what it counts stands from now on."""
        if self.day is not None and day <= self.day:
            return
        share, horizons = self.day_share, self.horizons()
        for interest in self.interests:
            # The others' day is empty.
            if interest.last // MICROS_PER_DAY == self.day:
                interest.mass = interest.mass + share * interest.today
                interest.today = np.zeros_like(interest.today)
        if horizons is not None and self.today is not None:
            # Each fades in place from now on: they must not be one array.
            self.fresh, self.long = horizons[0], horizons[1].copy()
            self.today = np.zeros_like(self.today)
        if self.day_mass:
            self.days += 1
            mass = min(self.day_mass, 2 * self.usual_day)
            self.usual_day += (mass - self.usual_day) / min(self.days + 1, DAYS_REMEMBERED)
        self.day, self.day_mass = day, 0.0


def half_lives(settings: InterestSettings) -> NDArray[np.float64]:
    """Half-lives in µs, ascending, then the short horizon's and infinity: the columns of `Interest.mass`."""
    days = sorted({rule.half_life_days for rule in [settings.post, *settings.actions.values()]})
    return np.array([*days, settings.short_half_life_days, np.inf]) * MICROS_PER_DAY


def decay(elapsed: int, lives: NDArray[np.float64]) -> NDArray[np.float64]:
    """2^(−elapsed/h) for each half-life; `elapsed` in µs, counted as 0 where negative."""
    factors: NDArray[np.float64] = np.exp2(-max(elapsed, 0) / lives)
    return factors


def total_mass(mass: NDArray[np.float64], floor: float) -> float:
    """One number from the masses: the fading ones, and a floor of what never fades."""
    return float((1 - floor) * mass[:SHORT].sum() + floor * mass[FOREVER])


def pack(profile: Profile) -> bytes:
    """Serialise exactly: unpacking gives the same numbers to the last bit."""
    return _ENCODER.encode(profile)


def unpack(data: bytes) -> Profile:
    """Read back what `pack` wrote."""
    profile = _DECODER.decode(data)
    if profile.past is not None:
        profile.past = profile.past.reshape(len(HORIZONS), -1)
    return profile


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    raise NotImplementedError(type(value))


def _decode_array(kind: type, value: Any) -> Any:
    return np.frombuffer(value, dtype=_dtype(kind)).copy()


@functools.cache
def _dtype(kind: type) -> type[np.floating]:
    # msgspec hands over the annotation: NDArray[np.float16], NDArray[np.float32] …
    return next(t for t in (np.float16, np.float32, np.float64) if t.__name__ in str(kind))


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_DECODER = msgspec.msgpack.Decoder(Profile, dec_hook=_decode_array)
