"""Real servers to test against: in this process, or in one of their own that can be killed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from own_process import finished, started

import penchant
from penchant.app import serve
from penchant.settings import load_settings
from penchant.v1 import (
    admin_service_pb2_grpc,
    catalog_service_pb2_grpc,
    interest_service_pb2_grpc,
    recommendation_service_pb2_grpc,
)
from penchant.v1.admin_service_pb2 import JobState
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.recommendation_service_pb2 import FindUsersRequest
from penchant_pipelines.encoder import Encoder

STUBS = {
    stub.__name__: stub
    for stub in (
        interest_service_pb2_grpc.InterestServiceStub,
        recommendation_service_pb2_grpc.RecommendationServiceStub,
        catalog_service_pb2_grpc.CatalogServiceStub,
        admin_service_pb2_grpc.AdminServiceStub,
    )
}

TOPICS = {
    "hiking": [
        "A guide to hiking trails in the Alps",
        "Light backpacks for long mountain hikes",
        "Alpine huts and ridge walks for hikers",
        "How to choose hiking boots for mountain trails",
    ],
    "jazz": [
        "The history of jazz piano",
        "Great bebop saxophone records",
        "Learning jazz improvisation on the trumpet",
        "An evening in a New York jazz club",
    ],
    "baking": [
        "Sourdough bread for beginners",
        "Baking crusty baguettes at home",
        "Croissants and other puff pastry from your own oven",
        "Rye bread with a long fermented dough",
    ],
    "astronomy": [
        "Observing the rings of Saturn with a small telescope",
        "Photographs of distant galaxies",
        "How stars are born in nebulae",
        "A beginner's atlas of the night sky",
    ],
}


def catalogue() -> list[Item]:
    """Sixteen items on four topics, `hiking-0` to `astronomy-3`."""
    return [
        Item(id=f"{topic}-{number}", title=title, categories=[topic], attributes={"level": str(number)})
        for topic, titles in TOPICS.items()
        for number, title in enumerate(titles)
    ]


def topics(item_ids: Iterable[str]) -> list[str]:
    """The topics of items from `catalogue`."""
    return [item_id.rpartition("-")[0] for item_id in item_ids]


class Server:
    """A running server with a client and raw stubs; belongs to one event loop."""

    def __init__(self, address: str, data: Path, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.data = data
        self.channel = channel
        self.client = penchant.AsyncClient(address, timeout=60)
        self._stubs: dict[str, Any] = {name: stub(channel) for name, stub in STUBS.items()}

    def rpc(self, name: str) -> Any:
        """The raw call with this name, of whichever service has it."""
        return next(getattr(stub, name) for stub in self._stubs.values() if hasattr(stub, name))

    async def recommended(self, user_id: str, **arguments: Any) -> list[str]:
        """Ids of the items recommended, best first."""
        answer = await self.client.recommend(user_id, **arguments)
        return [place.item_id for place in answer.recommendations]

    async def signal_count(self) -> int:
        return (await self.client.server_info()).signal_count

    async def index_ready(self) -> None:
        """Wait until no job runs and the index answers: a server that has none yet builds one when it starts."""

        async def at_rest() -> bool:
            if (await self.rpc("FindUsers")(FindUsersRequest(text="index"))).degraded:
                return False
            return all([job.state != JobState.JOB_STATE_RUNNING async for job in self.client.jobs()])

        await until(at_rest)

    async def index_caught_up(self) -> None:
        """Wait until the index holds all that is committed."""

        async def caught_up() -> bool:
            return (await self.client.server_info()).index_lag == 0

        await until(caught_up)


StartServer = Callable[..., AbstractAsyncContextManager[Server]]


@asynccontextmanager
async def connected(address: str, data: Path) -> AsyncIterator[Server]:
    async with grpc.aio.insecure_channel(address) as channel:
        server = Server(address, data, channel)
        async with server.client:
            yield server


@asynccontextmanager
async def in_process(data: Path, encoder: Encoder, settings: Mapping[str, Any] | None = None) -> AsyncIterator[Server]:
    overrides = {"data": data, "listen": "127.0.0.1:0", **(settings or {})}
    async with (
        serve(load_settings(overrides=overrides), encoder) as address,
        connected(address, data) as server,
    ):
        yield server


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server in a process of its own."""

    process: ForkServerProcess
    address: str

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def terminate(self) -> None:
        self.process.terminate()


def serve_command(data: Path, *settings: str) -> list[str]:
    flags = [flag for setting in ("log_format=json", *settings) for flag in ("--set", setting)]
    return ["serve", "--data", str(data), "--listen", "127.0.0.1:0", *flags]


@contextmanager
def own_process(data: Path, log: Path) -> Iterator[ServerProcess]:
    """Start `penchant serve` and wait until it says where it listens; killed at the end if it still runs."""
    with starting_process(data, log) as process:
        # Port 0 lets the system choose one that is free.
        yield ServerProcess(process, str(logged(process, log, "server.listening")["address"]))


@contextmanager
def starting_process(data: Path, log: Path, *settings: str) -> Iterator[ForkServerProcess]:
    """Start `penchant serve` without waiting for it; killed at the end if it still runs."""
    process = started(*serve_command(data, *settings), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def logged(process: ForkServerProcess, log: Path, event: str) -> dict[str, Any]:
    """Wait until a server logs an event."""
    give_up = time.monotonic() + 90
    while time.monotonic() < give_up and process.is_alive():
        for line in log.read_text().splitlines():
            if f'"{event}"' in line and line.endswith("}"):
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(0.05)
    raise AssertionError(f"the server did not log {event}:\n{log.read_text()}")


async def healthy(server: Server) -> bool:
    """Whether health says SERVING."""
    response = await health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest())
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a caller is told of a refused call."""

    code: grpc.StatusCode
    reason: str
    fields: tuple[str, ...]
    """Paths of the violations of google.rpc.BadRequest."""
    resource: tuple[str, str]
    """Type and name of google.rpc.ResourceInfo."""


CODES = {code.value[0]: code for code in grpc.StatusCode}


def refusal(status: Any) -> Refusal:
    """Read a google.rpc.Status."""
    info = _detail(status, error_details_pb2.ErrorInfo())
    request = _detail(status, error_details_pb2.BadRequest())
    resource = _detail(status, error_details_pb2.ResourceInfo())
    fields = tuple(violation.field for violation in request.field_violations)
    assert all(violation.description for violation in request.field_violations)
    assert info.domain in ("penchant", "")
    return Refusal(CODES[status.code], info.reason, fields, (resource.resource_type, resource.resource_name))


def _detail(status: Any, kind: Any) -> Any:
    for packed in status.details:
        if packed.Unpack(kind):
            break
    return kind


async def refused(call: Any) -> Refusal:
    """Make a raw call that must fail: unary, or a stream of answers."""
    try:
        if hasattr(call, "__aiter__"):
            answer: Any = [message async for message in call]
        else:
            answer = await call
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin")
        if details is None:
            return Refusal(error.code(), "", (), ("", ""))
        return refusal(status_pb2.Status.FromString(details))
    raise AssertionError(f"the call was answered: {answer}")


async def command(server: Server, *arguments: str) -> tuple[int, str, str]:
    """Run `penchant` against a server: exit code, stdout, stderr."""
    return await asyncio.to_thread(finished, *arguments, "--server", server.address)
