"""Between messages of the contract and nouns of the domain."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from penchant.v1 import catalog_service_pb2 as catalog
from penchant.v1 import interest_service_pb2 as interest
from penchant.v1 import signal_pb2
from penchant_pipelines.errors import InvalidInput, Violation
from penchant_pipelines.interests import InterestView, ProfileView
from penchant_pipelines.interests.drift import DriftReport
from penchant_pipelines.interests.labels import Label
from penchant_pipelines.model import Action, Behavior, Item, Post, Signal, Steering
from penchant_pipelines.profiles import PastSteering, Reason
from penchant_pipelines.summaries import Summary


def micros(time: Timestamp) -> int:
    """Microseconds since 1970."""
    return time.seconds * 1_000_000 + time.nanos // 1_000


def timestamp(time: int) -> Timestamp:
    """A timestamp from microseconds since 1970."""
    return Timestamp(seconds=time // 1_000_000, nanos=time % 1_000_000 * 1_000)


def to_signal(message: signal_pb2.Signal) -> Signal:
    """A validated signal."""
    evidence: Post | Behavior
    if message.WhichOneof("evidence") == "post":
        post = message.post
        rating = post.rating if post.HasField("rating") else None
        evidence = Post(post.text, post.language, post.item_id, rating)
    else:
        behavior = message.behavior
        value = behavior.value if behavior.HasField("value") else None
        evidence = Behavior(behavior.item_id, Action(behavior.action), value, behavior.attribution_token)
    time = micros(message.time) if message.HasField("time") else None
    return Signal(message.id, message.user_id, evidence, time, dict(message.context))


def from_signal(signal: Signal) -> signal_pb2.Signal:
    """A signal as it was captured."""
    message = signal_pb2.Signal(id=signal.id, user_id=signal.user_id, context=dict(signal.context))
    if signal.time is not None:
        message.time.CopyFrom(timestamp(signal.time))
    evidence = signal.evidence
    if isinstance(evidence, Post):
        message.post.text = evidence.text
        message.post.language = evidence.language
        message.post.item_id = evidence.item_id
        if evidence.rating is not None:
            message.post.rating = evidence.rating
        if evidence.inferred_rating is not None:
            message.post.inferred_rating = evidence.inferred_rating
    else:
        message.behavior.item_id = evidence.item_id
        message.behavior.action = signal_pb2.Action.ValueType(evidence.action)
        message.behavior.attribution_token = evidence.attribution_token
        if evidence.value is not None:
            message.behavior.value = evidence.value
    return message


def to_item(message: catalog.Item) -> Item:
    """A validated item."""
    return Item(
        id=message.id,
        title=message.title,
        text=message.text,
        categories=tuple(message.categories),
        create_time=micros(message.create_time) if message.HasField("create_time") else None,
        attributes=dict(message.attributes),
        hidden=message.hidden,
    )


def from_item(item: Item) -> catalog.Item:
    """An item as it was given."""
    return catalog.Item(
        id=item.id,
        title=item.title,
        text=item.text,
        categories=item.categories,
        create_time=None if item.create_time is None else timestamp(item.create_time),
        attributes=dict(item.attributes),
        hidden=item.hidden,
    )


def to_steering(message: interest.Steering) -> Steering:
    """A validated steering."""
    return Steering(message.muted, message.pinned, message.bias)


def from_steering(steering: Steering) -> interest.Steering:
    """A steering."""
    return interest.Steering(muted=steering.muted, pinned=steering.pinned, bias=steering.bias)


def from_steered(steered: PastSteering) -> interest.Steered:
    """A word of the user's as it was taken."""
    return interest.Steered(
        time=timestamp(steered.time),
        interest_id=steered.interest_id,
        topic=steered.topic,
        steering=from_steering(steered.steering),
    )


def from_interest(view: InterestView, label: Label, include_vector: bool = False) -> interest.Interest:
    """An interest with its name."""
    return interest.Interest(
        id=view.id,
        label=label.label,
        keywords=label.keywords,
        weight=view.weight,
        confidence=view.confidence,
        trend=interest.Trend.ValueType(view.trend),
        signal_count=view.signal_count,
        first_time=timestamp(view.first),
        last_time=timestamp(view.last),
        steering=from_steering(view.steering),
        vector=view.vector.tolist() if include_vector else (),
    )


def from_drift(report: DriftReport) -> interest.Drift:
    """A drift report."""
    return interest.Drift(
        detected=report.detected,
        magnitude=report.magnitude,
        since=None if report.since is None else timestamp(report.since),
        enough_evidence=report.enough_evidence,
        recent_signal_count=report.recent_signal_count,
    )


def from_profile(
    user_id: str,
    version: int,
    signal_count: int,
    view: ProfileView,
    labels: Sequence[Label],
    space_id: str,
    summary: Summary | None,
    max_interests: int = 0,
    include_vectors: bool = False,
) -> interest.Profile:
    """A profile with its interests named."""
    named = list(zip(view.interests, labels, strict=True))[: max_interests or None]
    return interest.Profile(
        user_id=user_id,
        interests=[from_interest(each, label, include_vectors) for each, label in named],
        drift=from_drift(view.drift),
        version=version,
        as_of=timestamp(view.as_of),
        space_id=space_id,
        signal_count=signal_count,
        summary=summary.text if summary else "",
        summary_time=timestamp(summary.time) if summary else None,
    )


def from_reason(reason: Reason) -> interest.Evidence:
    """A signal behind an interest or a recommendation."""
    return interest.Evidence(
        signal_id=reason.signal_id,
        item_id=reason.item_id,
        snippet=reason.snippet,
        time=timestamp(reason.time),
        contribution=reason.share,
    )


def at(prefix: str, error: Exception) -> Exception:
    """Name the fields of a violation as they stand in the whole request."""
    if isinstance(error, InvalidInput):
        return InvalidInput([Violation(f"{prefix}.{v.field}", v.description) for v in error.violations])
    return error
