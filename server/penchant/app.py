"""The server: engine, services, health and reflection on one port, started and drained in good order."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.metadata import version

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from threadpoolctl import threadpool_limits

from penchant.interceptors import CallInterceptor, Drain
from penchant.logs import configure_logging
from penchant.metrics import serve_metrics
from penchant.pages import PageTokens
from penchant.services.admin import AdminService
from penchant.services.catalog import CatalogService
from penchant.services.interests import InterestService
from penchant.services.recommendations import RecommendationService
from penchant.settings import Settings, strange_variables
from penchant.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    interest_service_pb2,
    interest_service_pb2_grpc,
    recommendation_service_pb2,
    recommendation_service_pb2_grpc,
)
from penchant.validation import Limits, Validator
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import InvalidInput, PenchantError, WrongState
from penchant_pipelines.memory import settle

log = structlog.get_logger(__name__)

SERVICES = [
    descriptor.services_by_name[name].full_name
    for descriptor, name in (
        (interest_service_pb2.DESCRIPTOR, "InterestService"),
        (recommendation_service_pb2.DESCRIPTOR, "RecommendationService"),
        (catalog_service_pb2.DESCRIPTOR, "CatalogService"),
        (admin_service_pb2.DESCRIPTOR, "AdminService"),
    )
]
WRITING = ["", *(name for name in SERVICES if not name.endswith(".RecommendationService"))]
"""Services that are out of order while the record can't be written, the server as a whole among them."""
_KEEPALIVE = [
    # Whoever keeps a silent stream open past a proxy pings; left to itself gRPC ends such a channel within minutes.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # A watcher whose machine is gone is not watched for.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]
FEW_FILES = 4096
"""Fewer than these may be open at a time: that is told."""
HEALTH_SECONDS = 1.0
"""Pause between looks whether the record can be written."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit status."""
    configure_logging(settings.log_level, settings.log_format)
    _allow_many_files()
    # The encoder takes seconds more, the first time after an installation many: nobody should take it for dead.
    log.info("server.starting", version=version("penchant"), data=str(settings.data))
    for name, hint in strange_variables().items():
        log.warning("settings.unknown_variable", name=name, hint=hint)
    try:
        # Calls have the cores among them: a sum that is shared by all cores waits for the busiest.
        with threadpool_limits(1, "blas"):
            asyncio.run(_serve_until_told(settings))
    except PenchantError as error:
        log.error("server.failed", reason=error.reason, message=error.message)
        return 1
    return 0


def _allow_many_files() -> None:
    """Open as many files as the system lets this process: a connection is one, and Chroma takes dozens."""
    try:
        import resource
    except ImportError:  # not everywhere are they counted
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 0 <= hard < FEW_FILES:
        log.warning(
            "server.few_files", limit=hard, hint="a connection is one: allow the process more, as LimitNOFILE does"
        )


async def _serve_until_told(settings: Settings) -> None:
    serving = asyncio.create_task(_serve_for_good(settings), name="serve")

    def stop() -> None:
        # Once: told again, the server still drains.
        if not serving.cancelling():
            serving.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with suppress(asyncio.CancelledError):
        await serving
    log.info("server.stopped")


async def _serve_for_good(settings: Settings) -> None:
    """Serve until cancelled, which may be long before the start is done: it may have to embed all anew."""
    async with serve(settings):
        settle()
        await asyncio.Event().wait()


@asynccontextmanager
async def serve(settings: Settings, encoder: Encoder | None = None) -> AsyncIterator[str]:
    """Run a server for as long as the context lasts; yields the address it listens on.

    On leaving: health says NOT_SERVING, new calls are refused, those in hand finish (up to `drain_seconds`),
    then what is committed is flushed. Raises WrongState where a port or the data folder is taken, InvalidInput where
    an address is none.
    """
    _check_addresses(settings)
    async with (
        Engine.open(settings, settings.data, encoder) as engine,
        serve_metrics(engine, settings.metrics_listen) as called,
    ):
        limits = settings.limits
        drain = Drain()
        validator = Validator(Limits(limits.text_bytes, limits.batch_size))
        server = grpc.aio.server(
            interceptors=[CallInterceptor(validator, drain, called)],
            options=[
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_send_message_length", -1),
                # Without this a second server on the same port would silently share its calls.
                ("grpc.so_reuseport", 0),
                *_KEEPALIVE,
            ],
        )
        tokens = PageTokens(engine.record.secret("pages"))
        interest_service_pb2_grpc.add_InterestServiceServicer_to_server(
            InterestService(engine, settings, validator, tokens, drain), server
        )
        recommendation_service_pb2_grpc.add_RecommendationServiceServicer_to_server(
            RecommendationService(engine, settings), server
        )
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(
            CatalogService(engine, settings, validator, tokens), server
        )
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(engine, settings, tokens), server)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        address = _bind(server, settings.listen)
        await server.start()
        for name in ["", *SERVICES]:
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        watching = asyncio.create_task(_keep_health(checks, engine), name="health")
        log.info("server.listening", address=address, data=str(settings.data), space_id=engine.live.space_id)
        try:
            yield address
        finally:
            log.info("server.draining", in_flight=drain.in_flight)
            watching.cancel()
            await checks.enter_graceful_shutdown()
            drain.start()
            await drain.wait_idle(settings.drain_seconds)
            await server.stop(grace=0.5)


async def _keep_health(checks: health.aio.HealthServicer, engine: Engine) -> None:
    """Say that nothing is served which writes, for as long as the record can't be written."""
    serving = True
    while True:
        await asyncio.sleep(HEALTH_SECONDS)
        if await engine.try_record() is serving:
            continue
        serving = not serving
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        log.warning("server.health", status=health_pb2.HealthCheckResponse.ServingStatus.Name(status))
        for name in WRITING:
            await checks.set(name, status)


def _check_addresses(settings: Settings) -> None:
    """Hear that an address is taken, or is none, before a model is loaded and a data folder made."""
    with ExitStack() as held:
        _hold("listen", settings.listen, held)
        if settings.metrics_listen:
            # Beside the other: two names may be one address.
            _hold("metrics_listen", settings.metrics_listen, held)


def _hold(key: str, listen: str, held: ExitStack) -> None:
    """Listen on an address until `held` is closed."""
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidInput.at(key, f"there is no host {host!r} ({error})") from error
    for family, kind, protocol, _, address in dict.fromkeys(found):  # a name may lead to one twice
        try:
            probe = held.enter_context(socket.socket(family, kind, protocol))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
        except OSError as error:
            # Of a name's addresses some may not exist here; gRPC then takes the others.
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise _taken(key, listen) from error


def _bind(server: grpc.aio.Server, listen: str) -> str:
    host = listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise _taken("listen", listen) from error
    return f"{host}:{port}"


def _taken(key: str, listen: str) -> WrongState:
    who = "is another server running there?" if key == "listen" else "another process does, or this server's `listen`"
    return WrongState("ADDRESS_TAKEN", f"{key}: can't listen on {listen}: {who}")
