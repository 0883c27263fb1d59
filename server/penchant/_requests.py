"""The calls as Python functions: each builds its request. Both clients take their methods from here.

A response with a single field is answered as that field: `profile` gives a `Profile`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from penchant._arguments import checked, collection, string, strings, zoned
from penchant.exceptions import InvalidInputError
from penchant.v1 import admin_service_pb2 as admin
from penchant.v1 import catalog_service_pb2 as catalog
from penchant.v1 import interest_service_pb2 as interest
from penchant.v1 import recommendation_service_pb2 as recommendation
from penchant.v1.signal_pb2 import Action, Behavior, Post, Signal

M = TypeVar("M", bound=Message)
P = ParamSpec("P")
Out = TypeVar("Out", covariant=True)
Returned = TypeVar("Returned")
Response = TypeVar("Response", bound=Message)

LARGEST_PAGE = 2**31 - 1
"""A page size that every server cuts to the largest it gives."""


@dataclass(frozen=True, slots=True)
class Method(Generic[P, Out]):
    """A call: how its request is built from Python arguments, and what of the response is the answer."""

    request: Callable[P, Message]
    answer: Callable[[Any], Out]


def _answering(
    _: type[Response], answer: Callable[[Response], Out]
) -> Callable[[Callable[P, Message]], Method[P, Out]]:
    return lambda request: Method(checked(request), answer)


def named_after(method: Method[..., Any]) -> Callable[[Callable[..., Returned]], Callable[..., Returned]]:
    """Give a client's method the name, signature and docstring of the function that builds its request."""

    def rename(call: Callable[..., Returned]) -> Callable[..., Returned]:
        functools.update_wrapper(call, method.request)
        signature = inspect.signature(method.request)
        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        call.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[this, *signature.parameters.values()], return_annotation=inspect.Signature.empty
        )
        return call

    return rename


def with_ids(request: M) -> M:
    """Return the request, or a copy with an id for every signal that lacks one: sent twice, it is captured once."""
    if all(signal.id for signal in _signals_in(request)):
        return request
    filled = copy.deepcopy(request)
    for signal in _signals_in(filled):
        signal.id = signal.id or uuid.uuid4().hex
    return filled


def _signals_in(request: Message) -> Sequence[Signal]:
    match request:
        case interest.CaptureRequest() if request.HasField("signal"):
            return (request.signal,)
        case interest.BatchCaptureRequest():
            return request.signals
        case _:
            return ()


def _timestamp(field: str, time: datetime | None) -> Timestamp | None:
    zoned_time = zoned(field, time)
    if zoned_time is None:
        return None
    timestamp = Timestamp()
    try:
        timestamp.FromDatetime(zoned_time)
    except (OverflowError, ValueError):
        raise InvalidInputError.at(field, "must lie in the years 1 to 9999 of UTC") from None
    return timestamp


def _action(action: str | Action.ValueType) -> Action.ValueType:
    if not isinstance(action, str):
        return action
    name = action.upper().removeprefix("ACTION_")
    if f"ACTION_{name}" not in Action.keys() or name == "UNSPECIFIED":  # noqa: SIM118 (an enum, not a dict)
        known = ", ".join(key.removeprefix("ACTION_").lower() for key in Action.keys()[1:])
        raise InvalidInputError.at("action", f"{action!r} is none of {known}")
    return Action.Value(f"ACTION_{name}")


# InterestService


@_answering(interest.CaptureResponse, lambda response: response)
def capture(
    *,
    user_id: str,
    text: str = "",
    item_id: str = "",
    rating: float | None = None,
    language: str = "",
    time: datetime | None = None,
    context: Mapping[str, str] | None = None,
    id: str = "",  # noqa: A002 (the contract's name)
    validate_only: bool = False,
) -> interest.CaptureRequest:
    """Capture something a user wrote. Returns once it is durable and the profile reflects it.

    `rating` is the author's verdict, −1 (worst) to +1 (best); `language` a BCP-47 tag, detected where empty;
    `time` (with time zone) when it happened, on arrival where None. Safe to repeat with the same `id`,
    which is a random one where empty. `validate_only` checks and keeps nothing.
    """
    post = Post(text=text, item_id=item_id, rating=rating, language=language)
    signal = Signal(id=id, user_id=user_id, post=post, time=_timestamp("time", time), context=context)
    return _capture_request(signal, validate_only)


@_answering(interest.CaptureResponse, lambda response: response)
def behave(
    *,
    user_id: str,
    item_id: str,
    action: str | Action.ValueType,
    value: float | None = None,
    attribution_token: str = "",
    time: datetime | None = None,
    context: Mapping[str, str] | None = None,
    id: str = "",  # noqa: A002 (the contract's name)
    validate_only: bool = False,
) -> interest.CaptureRequest:
    """Capture something a user did with an item. Returns once it is durable and the profile reflects it.

    `action` is a name such as "like" or an `Action`; `value` its strength where it has one: seconds dwelt,
    rating −1…+1, share watched 0…1. `attribution_token` comes with the recommendation that led here.
    The rest is as for `capture`.
    """
    behavior = Behavior(item_id=item_id, action=_action(action), value=value, attribution_token=attribution_token)
    signal = Signal(id=id, user_id=user_id, behavior=behavior, time=_timestamp("time", time), context=context)
    return _capture_request(signal, validate_only)


@_answering(interest.CaptureResponse, lambda response: response)
def capture_signal(signal: Signal, *, validate_only: bool = False) -> interest.CaptureRequest:
    """Capture a signal as it is. An empty id is filled in on the way; `signal` itself is left alone."""
    return _capture_request(signal, validate_only)


def _capture_request(signal: Signal, validate_only: bool) -> interest.CaptureRequest:
    return with_ids(interest.CaptureRequest(signal=signal, validate_only=validate_only))


@_answering(interest.GetProfileResponse, lambda response: response.profile)
def profile(
    user_id: str,
    *,
    as_of: datetime | None = None,
    max_interests: int = 0,
    include_vectors: bool = False,
) -> interest.GetProfileRequest:
    """Get a user's interests, strongest first: as they are, or as they stood at `as_of` (with time zone).

    `max_interests` of 0 means all.
    """
    return interest.GetProfileRequest(
        user_id=user_id,
        as_of=_timestamp("as_of", as_of),
        max_interests=max_interests,
        include_vectors=include_vectors,
    )


@_answering(interest.WatchProfilesResponse, lambda response: response.profile)
def watch(user_ids: Iterable[str] = (), *, drift_only: bool = False) -> interest.WatchProfilesRequest:
    """Follow profiles as they change: each one now, then one per change.

    No ids: every user; the first profile then is nobody's (its `user_id` is empty) and says that the watch is on. The
    first ones come again where other profiles are served: after a switch of space, and as an experiment begins or ends.
    `drift_only` passes only changes where the user's recent signals no longer fit the longer record.
    Ends when the iterator is closed.
    """
    return interest.WatchProfilesRequest(user_ids=strings("user_ids", user_ids), drift_only=drift_only)


@_answering(interest.ExplainInterestResponse, lambda response: response)
def explain(user_id: str, interest_id: str, *, max_evidence: int = 0) -> interest.ExplainInterestRequest:
    """Get the signals that made an interest, each with its share; at most `max_evidence`, if not 0."""
    return interest.ExplainInterestRequest(user_id=user_id, interest_id=interest_id, max_evidence=max_evidence)


@_answering(interest.SteerInterestResponse, lambda response: response.interest)
def steer(
    user_id: str,
    *,
    interest_id: str = "",
    topic: str = "",
    muted: bool = False,
    pinned: bool = False,
    bias: float = 0.0,
) -> interest.SteerInterestRequest:
    """Set the user's own word on an interest, by its id or by a topic in words; it replaces any earlier word.

    `bias` is −1 (less) to +1 (more). Called with none of the three, the interest is as inferred again.
    """
    return interest.SteerInterestRequest(
        user_id=user_id,
        interest_id=interest_id,
        topic=topic,
        steering=interest.Steering(muted=muted, pinned=pinned, bias=bias),
    )


@_answering(interest.ListSignalsResponse, lambda response: response.signals)
def signals(user_id: str) -> interest.ListSignalsRequest:
    """Go through all signals of a user; pages are fetched as needed."""
    return interest.ListSignalsRequest(user_id=user_id)


@_answering(interest.ExportUserResponse, lambda response: response)
def export_user(user_id: str) -> interest.ExportUserRequest:
    """Stream all that is held about a user, in records of which each holds one thing.

    That is the `profile`, a `merged_user_id`, a word by which the user `steered`, or a `signal`.
    """
    return interest.ExportUserRequest(user_id=user_id)


@_answering(interest.DeleteUserResponse, lambda response: response)
def delete_user(user_id: str) -> interest.DeleteUserRequest:
    """Erase a user everywhere. Returns counts of what was erased, and a receipt."""
    return interest.DeleteUserRequest(user_id=user_id)


@_answering(interest.DeleteSignalsResponse, lambda response: response)
def delete_signals(user_id: str, signal_ids: Iterable[str]) -> interest.DeleteSignalsRequest:
    """Erase some of a user's signals, by their ids, as if they had never been captured; at most 1,000 at a time.

    Returns counts of what was erased, and a receipt: without an id where nothing was there.
    """
    return interest.DeleteSignalsRequest(user_id=user_id, signal_ids=signal_ids)


@_answering(interest.MergeUsersResponse, lambda response: response.profile)
def merge_users(*, from_user_id: str, into_user_id: str) -> interest.MergeUsersRequest:
    """Join the history of `from_user_id` to that of `into_user_id`. Returns the profile of both as one."""
    return interest.MergeUsersRequest(from_user_id=from_user_id, into_user_id=into_user_id)


# RecommendationService


@_answering(recommendation.RecommendResponse, lambda response: response)
def recommend(
    user_id: str,
    *,
    page_size: int = 0,
    filter: str = "",  # noqa: A002 (the contract's name)
    excluded_item_ids: Iterable[str] = (),
    include_seen: bool = False,
    diversity: float | None = None,
    exploration: float | None = None,
    explain: bool = False,
    query: str = "",
) -> recommendation.RecommendRequest:
    """Rank items of the catalogue for a user; `degraded` in the answer says why it is less than it could be.

    `page_size` of 0: the server's default. `filter` is an AIP-160 expression over id, title, categories, create_time
    and attributes. `diversity` and `exploration` run 0…1, None being the server's default. `query` holds
    words to lean towards this once.
    """
    return recommendation.RecommendRequest(
        user_id=user_id,
        page_size=page_size,
        filter=filter,
        excluded_item_ids=strings("excluded_item_ids", excluded_item_ids),
        include_seen=include_seen,
        diversity=diversity,
        exploration=exploration,
        explain=explain,
        query=query,
    )


@_answering(recommendation.RerankResponse, lambda response: response)
def rerank(
    user_id: str,
    candidates: Iterable[recommendation.Candidate | str],
    *,
    top_n: int = 0,
    prior_weight: float = 0.0,
    diversity: float | None = None,
    query: str = "",
    explain: bool = False,
) -> recommendation.RerankRequest:
    """Rank the caller's own candidates for a user; a string stands for the id of a catalogue item.

    A `Candidate` may be a text alone: `candidate_index` in the answer says where among `candidates` each one stands.
    `top_n` of 0: all. `prior_weight` runs from 0 (interests alone) to 1 (the given `prior_score` alone).
    `diversity` of None: 0.
    """
    return recommendation.RerankRequest(
        user_id=user_id,
        candidates=[
            _candidate(index, candidate) for index, candidate in enumerate(collection("candidates", candidates))
        ],
        top_n=top_n,
        prior_weight=prior_weight,
        diversity=diversity,
        query=query,
        explain=explain,
    )


def _candidate(index: int, candidate: recommendation.Candidate | str) -> recommendation.Candidate:
    if isinstance(candidate, recommendation.Candidate):
        return candidate
    if isinstance(candidate, str):
        return recommendation.Candidate(item_id=string(f"candidates[{index}]", candidate))
    raise InvalidInputError.at(f"candidates[{index}]", "must be a penchant.Candidate, or the id of a catalogue item")


@_answering(recommendation.FindUsersResponse, lambda response: response.matches)
def find_users(
    *,
    text: str | None = None,
    item_id: str | None = None,
    page_size: int = 0,
    min_similarity: float = 0.0,
    exclude_seen: bool = False,
) -> recommendation.FindUsersRequest:
    """Find the users who care most for what a text or an item is about; give one of the two.

    `min_similarity` is a cosine as seen from the middle of the space, −1…1: from `server_info().similarity` on it is
    the same thing, from 0 on there is more in common than any two texts have. `exclude_seen` leaves out whoever has
    touched the item already.
    """
    if (text is None) == (item_id is None):
        raise InvalidInputError.at("target", "give either text or item_id")
    request = recommendation.FindUsersRequest(
        page_size=page_size, min_similarity=min_similarity, exclude_seen=exclude_seen
    )
    if text is not None:
        request.text = text
    if item_id is not None:
        request.item_id = item_id
    return request


# CatalogService


@_answering(catalog.GetItemResponse, lambda response: response.item)
def item(item_id: str) -> catalog.GetItemRequest:
    """Get an item of the catalogue."""
    return catalog.GetItemRequest(item_id=item_id)


@_answering(catalog.ListItemsResponse, lambda response: response.items)
def items(filter: str = "") -> catalog.ListItemsRequest:  # noqa: A002 (the contract's name)
    """Go through the catalogue, or what of it passes an AIP-160 `filter`; pages are fetched as needed."""
    return catalog.ListItemsRequest(filter=filter)


@_answering(catalog.DeleteItemsResponse, lambda response: response.deleted_count)
def delete_items(item_ids: Sequence[str]) -> catalog.DeleteItemsRequest:
    """Delete up to `server_info().max_batch_size` items. Returns how many there were to delete."""
    return catalog.DeleteItemsRequest(item_ids=strings("item_ids", item_ids))


# AdminService


@_answering(admin.GetServerInfoResponse, lambda response: response)
def server_info() -> admin.GetServerInfoRequest:
    """Get the server's version, encoder, limits and counts."""
    return admin.GetServerInfoRequest()


@_answering(admin.ListAdaptersResponse, lambda response: response.adapters)
def adapters() -> admin.ListAdaptersRequest:
    """List the adapters that are loaded, the encoder of the server's settings first: its id is empty."""
    return admin.ListAdaptersRequest()


@_answering(admin.LoadAdapterResponse, lambda response: response.adapter)
def load_adapter(adapter_id: str) -> admin.LoadAdapterRequest:
    """Load a LoRA adapter from the server's adapter folder."""
    return admin.LoadAdapterRequest(adapter_id=adapter_id)


@_answering(admin.ActivateAdapterResponse, lambda response: response.job)
def activate_adapter(adapter_id: str, *, standby: bool = False) -> admin.ActivateAdapterRequest:
    """Start re-embedding everything into the adapter's space, to switch over when done. Returns the job.

    A space that is kept current already, as the former one is, is switched to at once: the job has ended.
    An empty id names the encoder of the server's settings. `standby` leaves out the switch.
    """
    return admin.ActivateAdapterRequest(adapter_id=adapter_id, standby=standby)


@_answering(admin.UnloadAdapterResponse, lambda response: None)
def unload_adapter(adapter_id: str) -> admin.UnloadAdapterRequest:
    """Unload an adapter, and with it the way back to its space."""
    return admin.UnloadAdapterRequest(adapter_id=adapter_id)


@_answering(admin.StartExperimentResponse, lambda response: response.experiment)
def start_experiment(name: str, adapter_id: str, share: float) -> admin.StartExperimentRequest:
    """Serve a share (0…1) of the users, always the same ones, from the space of a standby adapter."""
    return admin.StartExperimentRequest(name=name, adapter_id=adapter_id, share=share)


@_answering(admin.StopExperimentResponse, lambda response: response.experiment)
def stop_experiment() -> admin.StopExperimentRequest:
    """Serve everybody from the live space again."""
    return admin.StopExperimentRequest()


@_answering(admin.GetExperimentResponse, lambda response: response)
def experiment(name: str = "") -> admin.GetExperimentRequest:
    """Evaluate the feedback of an experiment by arm; without a name, of the newest."""
    return admin.GetExperimentRequest(name=name)


@_answering(admin.LearnMixResponse, lambda response: response.job)
def learn_mix() -> admin.LearnMixRequest:
    """Start learning from the record how to mix the sources of recommendations. Returns the job.

    The new mix goes live unless it ranks the latest days surely worse than what is live.
    """
    return admin.LearnMixRequest()


@_answering(admin.ListMixesResponse, lambda response: response.mixes)
def mixes() -> admin.ListMixesRequest:
    """Go through all mixes, newest first; pages are fetched as needed."""
    return admin.ListMixesRequest()


@_answering(admin.UseMixResponse, lambda response: response.mix if response.HasField("mix") else None)
def use_mix(mix_id: str) -> admin.UseMixRequest:
    """Put a mix to use at once; an empty id: none, interests alone rank. Returns what is live now."""
    return admin.UseMixRequest(mix_id=mix_id)


@_answering(admin.RebuildIndexResponse, lambda response: response.job)
def rebuild_index() -> admin.RebuildIndexRequest:
    """Start rebuilding the vector index from the record, beside the live one. Returns the job."""
    return admin.RebuildIndexRequest()


@_answering(admin.GetJobResponse, lambda response: response.job)
def job(job_id: str) -> admin.GetJobRequest:
    """Get a job as it stands."""
    return admin.GetJobRequest(job_id=job_id)


@_answering(admin.ListJobsResponse, lambda response: response.jobs)
def jobs() -> admin.ListJobsRequest:
    """Go through all jobs; pages are fetched as needed."""
    return admin.ListJobsRequest()


@_answering(admin.CancelJobResponse, lambda response: response.job)
def cancel_job(job_id: str) -> admin.CancelJobRequest:
    """Have a job stop. Returns it once it has."""
    return admin.CancelJobRequest(job_id=job_id)
