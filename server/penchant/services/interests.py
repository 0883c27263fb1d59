"""InterestService: capture, profiles, explanation, steering, and whole users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from penchant import convert
from penchant.errors import to_status
from penchant.interceptors import Drain
from penchant.pages import PageTokens
from penchant.settings import Settings
from penchant.v1 import interest_service_pb2 as pb
from penchant.v1 import interest_service_pb2_grpc as pb_grpc
from penchant.v1 import signal_pb2
from penchant.validation import Validator
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import InvalidInput, Overloaded, PenchantError, Unavailable
from penchant_pipelines.interests import ProfileView
from penchant_pipelines.interests.labels import Label
from penchant_pipelines.model import Signal, now
from penchant_pipelines.profiles import Stored
from penchant_pipelines.record.commit import Captured, Change
from penchant_pipelines.spaces.space import Space
from penchant_pipelines.summaries import Summary
from penchant_pipelines.watch import SWITCHED, Watcher

Context = grpc.aio.ServicerContext[Any, Any]
STREAM_WINDOW = 256
"""Signals of one stream that are read ahead while a batch is captured."""
UNWRITABLE_SECONDS = 1.0
"""When a stream is asked to come back with what can't be written."""
READER = "stream-reader"
EXPORT_PAGE = 500


@dataclass(frozen=True, slots=True)
class InterestService(pb_grpc.InterestServiceServicer):
    """Serves InterestService on an engine."""

    engine: Engine
    settings: Settings
    validator: Validator
    tokens: PageTokens
    drain: Drain

    async def Capture(self, request: pb.CaptureRequest, context: Context) -> pb.CaptureResponse:
        """Capture one signal."""
        signal = convert.to_signal(request.signal)
        if request.validate_only:
            try:
                duplicate = await self.engine.check(signal)
            except InvalidInput as error:
                raise convert.at("signal", error) from error
            return pb.CaptureResponse(signal_id=signal.id, duplicate=duplicate)
        outcome = (await self.engine.capture([signal]))[0]
        if isinstance(outcome, PenchantError):
            raise convert.at("signal", outcome)
        return (await self._answers([outcome]))[0]

    async def BatchCapture(self, request: pb.BatchCaptureRequest, context: Context) -> pb.BatchCaptureResponse:
        """Capture many signals; each succeeds or fails alone."""
        outcomes = await self._capture_all(request.signals, [f"signals[{i}]" for i in range(len(request.signals))])
        response = pb.BatchCaptureResponse()
        answers = iter(await self._answers(outcomes))
        for index, (signal, outcome) in enumerate(zip(request.signals, outcomes, strict=True)):
            if isinstance(outcome, Captured):
                response.results.append(next(answers))
            else:
                response.results.add()
                response.errors.add(index=index, id=signal.id, status=to_status(outcome))
        return response

    async def StreamCapture(
        self, request_iterator: AsyncIterator[pb.StreamCaptureRequest], context: Context
    ) -> AsyncIterator[pb.StreamCaptureResponse]:
        """Capture a stream: what has arrived while a batch was captured makes the next one."""
        queue: asyncio.Queue[pb.StreamCaptureRequest | None] = asyncio.Queue(STREAM_WINDOW)

        async def read() -> None:
            try:
                async for request in request_iterator:
                    await queue.put(request)
            except Exception:
                await queue.put(None)
                raise
            # Not where it is cancelled: nobody takes from the queue any more.
            await queue.put(None)

        reader = asyncio.create_task(read(), name=READER)
        try:
            ended = False
            while not ended:
                batch = [await self.drain.unless_started(queue.get())]
                while not queue.empty() and len(batch) < self.settings.limits.batch_size:
                    batch.append(queue.get_nowait())
                ended = batch[-1] is None
                requests = [request for request in batch if request is not None]
                for response in await self._stream_batch(requests):
                    yield response
            await reader
        finally:
            reader.cancel()

    async def GetProfile(self, request: pb.GetProfileRequest, context: Context) -> pb.GetProfileResponse:
        """Read a profile, now or as it stood."""
        as_of = convert.micros(request.as_of) if request.HasField("as_of") else None
        with self.engine.serve(request.user_id) as space:
            stored = await space.profile(request.user_id, as_of)
            # A summary is of the present; it says nothing of how the profile stood.
            summary = await self.engine.summaries.find(request.user_id, space, stored.view) if as_of is None else None
            labels = await space.labels(stored.view)
            profile = _profile(space, stored, labels, summary, request.max_interests, request.include_vectors)
        return pb.GetProfileResponse(profile=profile)

    async def WatchProfiles(
        self, request: pb.WatchProfilesRequest, context: Context
    ) -> AsyncIterator[pb.WatchProfilesResponse]:
        """Stream profiles as they change."""
        with self.engine.watchers.listen(request.user_ids) as watcher:
            # From here on nothing is missed; the first messages say how things stand and that it is on.
            change = SWITCHED
            while True:
                if change == SWITCHED:
                    async for profile in self._standing(watcher, request.user_ids):
                        yield pb.WatchProfilesResponse(profile=profile)
                else:
                    news = await self._news(watcher, change, request.drift_only)
                    if news is not None:
                        yield pb.WatchProfilesResponse(profile=news)
                change = await self.drain.unless_started(watcher.next())

    async def ExplainInterest(self, request: pb.ExplainInterestRequest, context: Context) -> pb.ExplainInterestResponse:
        """Tell which signals made an interest."""
        with self.engine.serve(request.user_id) as space:
            stored, reasons = await space.explain(request.user_id, request.interest_id, request.max_evidence)
            labels = await space.labels(stored.view)
        named = zip(stored.view.interests, labels, strict=True)
        view, label = next(pair for pair in named if pair[0].id == request.interest_id)
        return pb.ExplainInterestResponse(
            interest=convert.from_interest(view, label),
            evidence=map(convert.from_reason, reasons),
            space_id=space.space_id,
        )

    async def SteerInterest(self, request: pb.SteerInterestRequest, context: Context) -> pb.SteerInterestResponse:
        """Take the user's own word."""
        steered = await self.engine.steer(
            request.user_id, convert.to_steering(request.steering), request.interest_id, request.topic
        )
        labels = await self.engine.labels(steered.view, steered.space_id)
        label = next(
            label for view, label in zip(steered.view.interests, labels, strict=True) if view.id == steered.interest.id
        )
        return pb.SteerInterestResponse(
            interest=convert.from_interest(steered.interest, label), space_id=steered.space_id
        )

    async def ListSignals(self, request: pb.ListSignalsRequest, context: Context) -> pb.ListSignalsResponse:
        """Page through a user's signals, newest first."""
        listing = self.tokens.listing(request, self.settings.limits.page_size, request.user_id)
        before = _position(listing.cursor)
        found = await asyncio.to_thread(self.engine.live.profiles.signals, request.user_id, before, listing.size + 1)
        page, token = listing.page([(f"{signal.time}:{signal.id}", convert.from_signal(signal)) for signal in found])
        return pb.ListSignalsResponse(signals=page, next_page_token=token)

    async def ExportUser(self, request: pb.ExportUserRequest, context: Context) -> AsyncIterator[pb.ExportUserResponse]:
        """Stream all that is held about a user: the profile, ids merged into it, words that steered, then signals."""
        with self.engine.serve(request.user_id) as space:
            stored = await space.profile(request.user_id)
            summary = await self.engine.summaries.find(request.user_id, space, stored.view)
            profile = _profile(space, stored, await space.labels(stored.view), summary, include_vectors=True)
        yield pb.ExportUserResponse(profile=profile)
        for merged_id in await asyncio.to_thread(self.engine.live.profiles.merged_ids, request.user_id):
            yield pb.ExportUserResponse(merged_user_id=merged_id)
        for steered in await asyncio.to_thread(self.engine.live.profiles.steerings, request.user_id):
            yield pb.ExportUserResponse(steered=convert.from_steered(steered))
        after: tuple[int, str] | None = None
        while True:
            page = await asyncio.to_thread(self.engine.live.profiles.signals, request.user_id, after, EXPORT_PAGE)
            for signal in page:
                yield pb.ExportUserResponse(signal=convert.from_signal(signal))
            if len(page) < EXPORT_PAGE:
                return
            after = (page[-1].time or 0, page[-1].id)

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Context) -> pb.DeleteUserResponse:
        """Erase a user."""
        receipt = await self.engine.erase(request.user_id)
        return pb.DeleteUserResponse(
            signals_deleted=receipt.signals_deleted,
            vectors_deleted=receipt.vectors_deleted,
            receipt_id=receipt.id,
        )

    async def DeleteSignals(self, request: pb.DeleteSignalsRequest, context: Context) -> pb.DeleteSignalsResponse:
        """Erase some of a user's signals."""
        receipt = await self.engine.erase_signals(request.user_id, request.signal_ids)
        return pb.DeleteSignalsResponse(
            signals_deleted=receipt.signals_deleted,
            vectors_deleted=receipt.vectors_deleted,
            receipt_id=receipt.id,
        )

    async def MergeUsers(self, request: pb.MergeUsersRequest, context: Context) -> pb.MergeUsersResponse:
        """Join the history of one id to another's."""
        view, version, signal_count, space_id = await self.engine.merge(request.from_user_id, request.into_user_id)
        labels = await self.engine.labels(view, space_id)
        return pb.MergeUsersResponse(
            profile=convert.from_profile(request.into_user_id, version, signal_count, view, labels, space_id, None)
        )

    async def _standing(self, watcher: Watcher, user_ids: Sequence[str]) -> AsyncIterator[pb.Profile]:
        """How the users that are watched stand; of everybody, in which space."""
        if not user_ids:
            yield pb.Profile(as_of=convert.timestamp(now()), space_id=self.engine.live.space_id)
        for user_id in dict.fromkeys(user_ids):
            with self.engine.serve(user_id) as space:
                stored = await asyncio.to_thread(space.profiles.find, user_id)
                if stored is None:
                    profile = _nobody(user_id, space)
                else:
                    # Its last changes may only come to the watcher now.
                    watcher.told(user_id, stored.version)
                    summary = await self.engine.summaries.find(user_id, space, stored.view)
                    labels = await self.engine.labels(stored.view, space.space_id)
                    profile = _profile(space, stored, labels, summary)
            yield profile

    async def _news(self, watcher: Watcher, change: Change, drift_only: bool) -> pb.Profile | None:
        """What a watcher is told of a change; None for nothing."""
        # Not around what waits for the watcher to read: a space that is in use can't be unloaded.
        with self.engine.serve(change.user_id) as space:
            if not change.version:
                return _nobody(change.user_id, space)
            packed = change.profiles.get(space.key)
            if packed is not None:
                # Many may watch everybody: it is made for the first of them.
                if space.key not in change.told:
                    view = space.profiles.of_packed(packed)
                    if drift_only and not view.drift.detected:
                        return None
                    made = self._message(change.user_id, space, change.version, change.signal_count, view)
                    change.told[space.key] = asyncio.create_task(made)
                message: pb.Profile = await asyncio.shield(change.told[space.key])
            else:
                # Committed before this space kept profiles, or long before it is read: told as it stands by now.
                stored = await asyncio.to_thread(space.profiles.find, change.user_id)
                if stored is None:
                    return None  # whose end comes next
                watcher.told(change.user_id, stored.version)
                message = await self._message(change.user_id, space, stored.version, stored.signal_count, stored.view)
        return None if drift_only and not message.drift.detected else message

    async def _message(
        self, user_id: str, space: Space, version: int, signal_count: int, view: ProfileView
    ) -> pb.Profile:
        labels = await self.engine.labels(view, space.space_id)
        summary = await self.engine.summaries.find(user_id, space, view)
        return convert.from_profile(user_id, version, signal_count, view, labels, space.space_id, summary)

    async def _capture_all(
        self, messages: Sequence[signal_pb2.Signal], prefixes: Sequence[str]
    ) -> list[Captured | Exception]:
        """Validate and capture signals, each alone; fields are named with the signal's prefix."""
        checked = [self._checked(message, prefix) for message, prefix in zip(messages, prefixes, strict=True)]
        sound = [signal for signal in checked if isinstance(signal, Signal)]
        captured: Sequence[Captured | PenchantError]
        try:
            captured = await self.engine.capture(sound)
        except Overloaded as error:
            captured = [error] * len(sound)
        outcomes = iter(captured)
        return [
            self._placed(next(outcomes), prefix) if isinstance(entry, Signal) else entry
            for entry, prefix in zip(checked, prefixes, strict=True)
        ]

    def _checked(self, message: signal_pb2.Signal, prefix: str) -> Signal | InvalidInput:
        try:
            self.validator.check(message, prefix)
        except InvalidInput as error:
            return error
        return convert.to_signal(message)

    @staticmethod
    def _placed(outcome: Captured | PenchantError, prefix: str) -> Captured | Exception:
        return outcome if isinstance(outcome, Captured) else convert.at(prefix, outcome)

    async def _stream_batch(self, requests: Sequence[pb.StreamCaptureRequest]) -> list[pb.StreamCaptureResponse]:
        outcomes: Sequence[Captured | Exception]
        try:
            outcomes = await self._capture_all([r.signal for r in requests], ["signal"] * len(requests))
        except Unavailable:  # the record can't be written now: the stream outlives that
            outcomes = [Overloaded(UNWRITABLE_SECONDS)] * len(requests)
        answers = iter(await self._answers(outcomes))
        responses = []
        for request, outcome in zip(requests, outcomes, strict=True):
            response = pb.StreamCaptureResponse()
            if isinstance(outcome, Captured):
                response.ack.sequence = request.sequence
                response.ack.result.CopyFrom(next(answers))
            elif isinstance(outcome, Overloaded):
                response.backoff.sequence = request.sequence
                delay = Duration()
                delay.FromMilliseconds(int(outcome.retry_after * 1000))
                response.backoff.retry_delay.CopyFrom(delay)
            else:
                response.refusal.sequence = request.sequence
                response.refusal.status.CopyFrom(to_status(outcome))
            responses.append(response)
        return responses

    async def _answers(self, outcomes: Sequence[Captured | Exception]) -> list[pb.CaptureResponse]:
        """What to answer to the signals that were captured, in order."""
        labels: dict[int, list[Label]] = {}
        answers = []
        for outcome in outcomes:
            if isinstance(outcome, Captured):
                whole = id(outcome.view)  # signals of one user in a batch share it
                if outcome.changed_ids and whole not in labels:
                    # From what is at hand: the answer to a capture never waits for the encoder again.
                    labels[whole] = self.engine.labels_at_hand(outcome.view, outcome.space_id)
                    await asyncio.sleep(0)  # a name costs milliseconds: others come in between
                answers.append(self._answer(outcome, labels.get(whole, [])))
        return answers

    @staticmethod
    def _answer(outcome: Captured, labels: Sequence[Label]) -> pb.CaptureResponse:
        named = zip(outcome.view.interests, labels, strict=False)
        changed = [convert.from_interest(view, label) for view, label in named if view.id in outcome.changed_ids]
        return pb.CaptureResponse(
            signal_id=outcome.signal_id,
            duplicate=outcome.duplicate,
            changed=changed,
            profile_version=outcome.version,
            drift=convert.from_drift(outcome.view.drift),
            space_id=outcome.space_id,
        )


def _nobody(user_id: str, space: Space) -> pb.Profile:
    """What there is to tell of a user who is not known."""
    return pb.Profile(user_id=user_id, as_of=convert.timestamp(now()), space_id=space.space_id)


def _profile(
    space: Space,
    stored: Stored,
    labels: Sequence[Label],
    summary: Summary | None,
    max_interests: int = 0,
    include_vectors: bool = False,
) -> pb.Profile:
    return convert.from_profile(
        stored.user_id,
        stored.version,
        stored.signal_count,
        stored.view,
        labels,
        space.space_id,
        summary,
        max_interests,
        include_vectors,
    )


def _position(cursor: str) -> tuple[int, str] | None:
    if not cursor:
        return None
    time, _, signal_id = cursor.partition(":")
    return int(time), signal_id
