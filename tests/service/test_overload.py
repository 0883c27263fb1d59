"""A flood of calls: some are turned away and told when to come back, and whatever was acknowledged is there."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import grpc
import pytest
from harness import StartServer, refusal

from penchant.exceptions import OverloadedError, PenchantError, from_rpc_error, from_status
from penchant.v1.interest_service_pb2 import (
    BatchCaptureRequest,
    CaptureRequest,
    MergeUsersRequest,
    Steering,
    SteerInterestRequest,
    StreamCaptureRequest,
)
from penchant.v1.signal_pb2 import Post, Signal
from penchant_pipelines.capture import Capture
from penchant_pipelines.errors import Overloaded
from penchant_pipelines.spaces.space import Space

FLOOD = 200


async def test_a_flood_is_turned_away_in_part_and_what_was_acknowledged_is_in_the_record(start: StartServer) -> None:
    async with start(**{"encoder.max_wait_seconds": 0.05}) as server:
        # Not the client's: that sends again what is turned away.
        capture = server.rpc("Capture")

        async def send(number: int) -> str | PenchantError:
            post = Post(text=f"Hiking trail number {number}, with a view of the lake and a hut at the pass")
            try:
                answer = await capture(CaptureRequest(signal=Signal(id=f"s-{number}", user_id="u", post=post)))
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error)
            return str(answer.signal_id)

        answers = await asyncio.gather(*map(send, range(FLOOD)))
        acknowledged = {answer for answer in answers if isinstance(answer, str)}
        turned_away = [answer for answer in answers if isinstance(answer, OverloadedError)]
        assert len(acknowledged) + len(turned_away) == FLOOD
        assert acknowledged
        assert turned_away
        assert all(0 < (error.retry_after or 0) <= 30 for error in turned_away)
        assert {signal.id async for signal in server.client.signals("u")} == acknowledged

        # The server serves as if nothing had been, and what is sent again finds its place.
        first = next(number for number, answer in enumerate(answers) if not isinstance(answer, str))
        assert await send(first) == f"s-{first}"
        assert await server.signal_count() == len(acknowledged) + 1
        assert (await server.client.profile("u")).signal_count == len(acknowledged) + 1


async def test_who_has_written_and_who_watches_are_told_so_though_the_encoder_is_too_busy_for_names(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> None:
        raise Overloaded(1.5)

    async with start() as server:
        for user in ("u", "guest"):
            await server.client.capture(user_id=user, text="Hiking to a hut at the pass")
        (interest,) = (await server.client.profile("u")).interests
        async with aclosing(server.client.watch(["u"])) as watched:
            await anext(watched)
            monkeypatch.setattr(Space, "labels", busy)
            # Not the client's: that sends again what is turned away.
            steered = await server.rpc("SteerInterest")(
                SteerInterestRequest(user_id="u", interest_id=interest.id, steering=Steering(pinned=True))
            )
            assert steered.interest.steering.pinned
            merged = await server.rpc("MergeUsers")(MergeUsersRequest(from_user_id="guest", into_user_id="u"))
            assert merged.profile.signal_count == 2
            # The words of its only interest were encoded before.
            assert merged.profile.interests[0].label == interest.label
            versions = [(await anext(watched)).version for _ in range(2)]
            assert versions == [2, 3]
        async with aclosing(server.client.watch(["u"])) as watched:
            assert (await anext(watched)).version == 3


async def test_each_signal_of_a_batch_and_of_a_stream_is_turned_away_with_the_time_to_come_back(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> None:
        raise Overloaded(1.5)

    monkeypatch.setattr(Capture, "capture", busy)
    signals = [Signal(id="a", user_id="u"), Signal(id="b", user_id="u", post=Post(text="I love hiking"))]
    async with start() as server:
        batch = await server.rpc("BatchCapture")(BatchCaptureRequest(signals=signals))
        wrong, late = batch.errors
        assert (wrong.index, refusal(wrong.status).fields) == (0, ("signals[0].evidence",))
        error = from_status(late.status)
        assert isinstance(error, OverloadedError)
        assert (late.index, late.id, error.retry_after) == (1, "b", 1.5)
        assert [result.signal_id for result in batch.results] == ["", ""]

        requests = [StreamCaptureRequest(sequence=7 + number, signal=signal) for number, signal in enumerate(signals)]
        refused, turned_away = [answer async for answer in server.client.stream(*requests)]
        assert refused.refusal.sequence == 7
        assert (turned_away.backoff.sequence, turned_away.backoff.retry_delay.ToMilliseconds()) == (8, 1500)
