"""A flood of calls: some are turned away and told when to come back, and whatever was acknowledged is there."""

from __future__ import annotations

import asyncio

import grpc
from harness import StartServer

from penchant.exceptions import OverloadedError, PenchantError, from_rpc_error
from penchant.v1.interest_service_pb2 import CaptureRequest
from penchant.v1.signal_pb2 import Post, Signal

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
