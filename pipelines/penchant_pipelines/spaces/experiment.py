"""A/B: a share of the users is served by a second space, and what they did with its lists is held against the rest.

Every list that is handed out names its space in the attribution token. Signals that bring such a token back
are the feedback; no table of lists is kept. What tells which arm does better is therefore counted by user: likes of
all who were active, whether they sent feedback or not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from penchant_pipelines.errors import Conflict, WrongState
from penchant_pipelines.interests import Evidence, InterestSettings
from penchant_pipelines.interests.evidence import weighing
from penchant_pipelines.model import MICROS_PER_DAY, Action, now
from penchant_pipelines.record import Record, nothing, rows
from penchant_pipelines.record.ledger import Ledger
from penchant_pipelines.record.schema import experiments, signals, users
from penchant_pipelines.statistics import middle, resamples

TAG_LENGTH = 8
RESAMPLES = 1000
ACTIVE_BEFORE_DAYS = 28
"""Who was active in so many days before an experiment takes part: those whom an arm drives away count too."""
Interval = tuple[float, float, float]
"""An estimate with the ends of its 95 % interval."""
_Counts = Counter[tuple[int, bool]]
"""Signals by user, and whether they like."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment. Times in µs; `end_time` is None while it runs."""

    name: str
    adapter_id: str
    share: float
    """Of the users, 0…1, served by the trial space."""
    control_space_id: str
    trial_space_id: str
    start_time: int
    end_time: int | None = None

    def takes(self, user_id: str) -> bool:
        """Tell whether a user is served by the trial space: always the same answer for a name and a user."""
        digest = hashlib.sha256(f"{self.name}\x1f{user_id}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.share * 2.0**64


@dataclass(frozen=True, slots=True)
class Arm:
    """What came back from the lists of one space."""

    space_id: str
    users: int
    lists: int
    """Lists that some feedback names; those without any are not counted anywhere."""
    signals: int
    positive: Interval
    """Share of positive signals among them."""
    negative: Interval
    active_users: int
    """Users of the arm who sent any signal meanwhile or shortly before."""
    positive_per_user: Interval
    """Positive signals on lists of either arm, by active user."""
    negative_per_user: Interval


@dataclass(frozen=True, slots=True)
class Report:
    """Both arms, and the difference trial − control of their rates."""

    control: Arm
    trial: Arm
    positive: Interval
    negative: Interval
    positive_per_user: Interval
    negative_per_user: Interval


def attribution_token(space_id: str, *parts: str) -> str:
    """Name a list that was recommended: equal for equal parts, opaque to the caller; its beginning tells the space."""
    return _tag(space_id) + hashlib.sha256("\x1f".join([space_id, *parts]).encode()).hexdigest()[: 32 - TAG_LENGTH]


def find(record: Record, name: str) -> Experiment | None:
    """Read an experiment by its name, or the newest where the name is empty; blocks."""
    query = sa.select(experiments).order_by(experiments.c.seq.desc()).limit(1)
    if name:
        query = query.where(experiments.c.name == name)
    with record.read() as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    return Experiment(
        row.name,
        row.adapter_id,
        row.share,
        row.control_space_id,
        row.trial_space_id,
        row.start_time,
        row.end_time,
    )


def begin(ledger: Ledger, experiment: Experiment) -> Callable[[], None]:
    """Note that an experiment runs. Raises WrongState where another does, Conflict where its name was used before."""
    other = ledger.connection.execute(sa.select(experiments.c.name).where(experiments.c.end_time.is_(None))).scalar()
    if other is not None:
        raise WrongState("EXPERIMENT_RUNNING", f"experiment {other!r} runs; stop it first")
    name = experiment.name
    if ledger.connection.execute(sa.select(experiments.c.seq).where(experiments.c.name == name)).first() is not None:
        raise Conflict("EXPERIMENT_EXISTS", f"there was an experiment {name!r} before; choose another name")
    ledger.connection.execute(experiments.insert().values(asdict(experiment)))
    return nothing


def end(ledger: Ledger) -> Callable[[], None]:
    """Note that no experiment runs any more."""
    ledger.connection.execute(experiments.update().where(experiments.c.end_time.is_(None)).values(end_time=now()))
    return nothing


def report(record: Record, experiment: Experiment, settings: InterestSettings) -> Report:
    """Evaluate the feedback of an experiment; blocks.

    Rates are over signals, intervals by bootstrap over users (Efron & Tibshirani 1993), since a user's signals
    are not independent. With fewer than two users nothing is known: 0…1. Figures by user are means over the active
    users of the arm that a user belongs to by name (intention to treat), with normal intervals; infinite where an arm
    has fewer than two, or neither has any feedback.
    """
    tables = {_tag(space_id): _Feedback() for space_id in (experiment.control_space_id, experiment.trial_space_id)}
    token = signals.c.attribution_token
    query = sa.select(signals.c.user_key, users.c.user_id, signals.c.action, signals.c.value, token).where(
        users.c.key == signals.c.user_key,
        sa.func.substr(token, 1, TAG_LENGTH).in_(tables),
        rows.STANDING,
        signals.c.time >= experiment.start_time,
    )
    if experiment.end_time is not None:
        query = query.where(signals.c.time <= experiment.end_time)
    active, likes = [0, 0], [_Counts(), _Counts()]
    with record.read() as connection:
        for user_id in connection.execute(_active(experiment)).scalars():
            active[experiment.takes(user_id)] += 1
        for row in connection.execute(query):
            evidence = Evidence("", 0, None, Action(row.action), row.value)
            weight = weighing(evidence, settings).weight
            tables[row.attribution_token[:TAG_LENGTH]].add(row.user_key, row.attribution_token, weight)
            likes[experiment.takes(row.user_id)][row.user_key, weight > 0] += weight != 0
    control, trial = (tables[_tag(key)] for key in (experiment.control_space_id, experiment.trial_space_id))
    resampled = [control.resampled(0), trial.resampled(1)]
    rates = [control.rates(), trial.rates()]
    means = [
        # While nobody brings a token back, there is no telling a user who likes nothing from one who isn't heard.
        [_mean(counts, positive, count) if any(likes) else (0.0, np.inf) for positive in (True, False)]
        for counts, count in zip(likes, active, strict=True)
    ]
    liked, disliked = (
        _normal((trial_mean - control_mean, trial_error + control_error))
        for (control_mean, control_error), (trial_mean, trial_error) in zip(*means, strict=True)
    )
    # The arm of fewer users says how far the difference may be off.
    count = min(control.users, trial.users)
    positive, negative = (
        _interval(rates[1][sign] - rates[0][sign], resampled[1][:, sign] - resampled[0][:, sign], -1.0, count)
        for sign in (0, 1)
    )
    return Report(
        control.arm(experiment.control_space_id, resampled[0], active[0], *map(_normal, means[0])),
        trial.arm(experiment.trial_space_id, resampled[1], active[1], *map(_normal, means[1])),
        positive,
        negative,
        liked,
        disliked,
    )


def _active(experiment: Experiment) -> sa.Select[Any]:
    """Ids of users who sent a signal while an experiment ran, or shortly before."""
    window = signals.c.time >= experiment.start_time - ACTIVE_BEFORE_DAYS * MICROS_PER_DAY
    if experiment.end_time is not None:
        window &= signals.c.time <= experiment.end_time
    sent = sa.exists().where(signals.c.user_key == users.c.key, window)
    return sa.select(users.c.user_id).where(sent)


def _mean(counts: _Counts, positive: bool, users_active: int) -> tuple[float, float]:
    """Mean by active user of the signals that like, or that dislike, and its squared error; ∞ for fewer than two."""
    found = np.array([count for (_, sign), count in counts.items() if sign is positive], dtype=np.float64)
    mean = float(found.sum()) / max(users_active, 1)
    if users_active < 2:
        return mean, np.inf
    spread = float((found**2).sum()) / users_active - mean**2
    return mean, max(spread, 0.0) / (users_active - 1)


def _normal(estimate: tuple[float, float]) -> Interval:
    """An estimate, given with its squared error, and its 95 % interval."""
    value, error = estimate
    return value, value - 1.96 * float(np.sqrt(error)), value + 1.96 * float(np.sqrt(error))


class _Feedback:
    """Feedback of one arm, counted by user."""

    def __init__(self) -> None:
        self._users: dict[int, list[int]] = {}
        self._lists: set[str] = set()

    def add(self, user: int, token: str, weight: float) -> None:
        counts = self._users.setdefault(user, [0, 0, 0])
        counts[0] += weight > 0
        counts[1] += weight < 0
        counts[2] += 1
        self._lists.add(token)

    @property
    def users(self) -> int:
        """How many there is some feedback of."""
        return len(self._users)

    def rates(self) -> NDArray[np.float64]:
        """(2,) share of positive and of negative signals."""
        return _rates(self._counts().sum(axis=0))

    def resampled(self, seed: int) -> NDArray[np.float64]:
        """(RESAMPLES, 2) rates, each over users drawn anew; none where there are too few to draw from."""
        counts = self._counts()
        if len(counts) < 2:
            return np.full((RESAMPLES, 2), np.nan)
        return np.stack([_rates(times @ counts) for times in resamples(len(counts), seed, RESAMPLES)])

    def arm(
        self, space_id: str, resampled: NDArray[np.float64], active: int, liked: Interval, disliked: Interval
    ) -> Arm:
        rates = self.rates()
        total = int(self._counts()[:, 2].sum())
        positive, negative = (_interval(rates[sign], resampled[:, sign], 0.0, self.users) for sign in (0, 1))
        lists = len(self._lists)
        return Arm(space_id, self.users, lists, total, positive, negative, active, liked, disliked)

    def _counts(self) -> NDArray[np.int64]:
        return np.array(list(self._users.values()), dtype=np.int64).reshape(-1, 3)


def _rates(totals: NDArray[np.integer] | NDArray[np.float64]) -> NDArray[np.float64]:
    rates: NDArray[np.float64] = totals[:2] / max(int(totals[2]), 1)
    return rates


def _interval(value: float, resampled: NDArray[np.float64], least: float, users: int) -> Interval:
    if np.isnan(resampled).any():
        return float(value), least, 1.0
    return float(value), *middle(resampled, users)


def _tag(space_id: str) -> str:
    return hashlib.sha256(space_id.encode()).hexdigest()[:TAG_LENGTH]
