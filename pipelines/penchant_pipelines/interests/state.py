"""What is kept of a user: interests, horizons, drift. Plain data; `blend.py` changes it, `view.py` reads it.

Masses are kept per half-life, each as it stood at the interest's `updated` time: reading at a later time
is one multiplication by 2^(−Δ/h), and nothing ticks. (Forward decay after Cormode et al. 2009, with each
interest's last signal as landmark instead of a fixed epoch: 2^(Δ/h) over ten years at a half-life of two days
overflows a double.)
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penchant_pipelines.drift import DriftState
from penchant_pipelines.interests.settings import InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY, Steering

Vector = NDArray[np.float32]

SHORT = -2
"""Column of the short horizon in `Interest.mass`."""
FOREVER = -1
"""Column of the mass that never fades."""
HORIZON_DAYS = (2.0, 7.0, 30.0, 90.0, 365.0)
"""Half-lives under which the whole past is kept as one vector, side by side: which is best differs by catalogue."""


class Interest(msgspec.Struct):
    """One interest, liked (`sign` 1) or disliked (`sign` −1)."""

    id: str
    sign: int
    centroid: Vector
    """Unit vector, (d,) float32."""
    mass: NDArray[np.float64]
    """(h + 2,): mass per half-life, then of the short horizon, then unfading; as of `updated`."""
    updated: int
    first: int
    last: int
    signal_count: int = 0
    day_count: int = 0
    """Distinct days (UTC) with a signal."""
    agreement: float = 0.0
    """Sum over signals of cos(signal, centroid before the blend)."""
    terms: dict[str, float] = {}
    steering: Steering | None = None
    steered_mass: float = 0.0
    """Unfading mass that the user's own word put in."""


class Profile(msgspec.Struct):
    """The interests of a user: a pure function of the user's signals and steering in (time, id) order."""

    interests: list[Interest] = []
    fresh: Vector | None = None
    """(d,) decayed sum of positive signals at the short half-life, as of `updated`; not of unit length."""
    long: Vector | None = None
    """The same at the long half-life of posts."""
    horizons: NDArray[np.float32] | None = None
    """(h, d) the same at each of `HORIZON_DAYS`, as of `horizons_at`."""
    horizons_at: int = 0
    """Time of the last signal in the horizons."""
    updated: int = 0
    fresh_count: float = 0.0
    """Decayed number of signals at the short half-life."""
    support: float = 0.0
    """Decayed absolute mass of all signals at the long half-life: how much is known."""
    languages: dict[str, float] = {}
    drift: DriftState = msgspec.field(default_factory=DriftState)

    def find(self, interest_id: str) -> Interest | None:
        """Look up an interest by id."""
        return next((interest for interest in self.interests if interest.id == interest_id), None)


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
    if profile.horizons is not None:
        profile.horizons = profile.horizons.reshape(len(HORIZON_DAYS), -1)
    return profile


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    raise NotImplementedError(type(value))


def _decode_array(kind: type, value: Any) -> Any:
    # msgspec hands over the annotation: NDArray[np.float32] or NDArray[np.float64].
    dtype = np.float32 if "float32" in str(kind) else np.float64
    return np.frombuffer(value, dtype=dtype).copy()


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_DECODER = msgspec.msgpack.Decoder(Profile, dec_hook=_decode_array)
