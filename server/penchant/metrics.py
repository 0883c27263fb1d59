"""Figures for Prometheus: how calls end, and what an operator would want to be woken for. No label names a user."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penchant.interceptors import Called
from penchant_pipelines.engine import Engine
from penchant_pipelines.errors import WrongState
from penchant_pipelines.record.record import FILE

log = structlog.get_logger(__name__)

_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@asynccontextmanager
async def serve_metrics(engine: Engine, listen: str) -> AsyncIterator[Called]:
    """Answer `GET /metrics` at HOST:PORT for as long as the context lasts; nowhere if that is empty.

    Yields the function that is to be told of each call. Raises WrongState where the address is taken.
    """
    registry = CollectorRegistry()
    calls = Histogram(
        "penchant_call_seconds",
        "Calls by how they ended: how many, and how long they took. A stream lasts as long as its caller likes.",
        ("method", "code"),
        buckets=_SECONDS,
        registry=registry,
    )
    registry.register(_EngineCollector(engine))
    ProcessCollector(registry=registry)

    def called(method: str, code: str, seconds: float) -> None:
        calls.labels(method, code).observe(seconds)

    if not listen:
        yield called
        return
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise WrongState("ADDRESS_TAKEN", f"can't listen on {listen} for metrics: {error.strerror}") from error
    log.info("metrics.listening", address=f"{host}:{server.server_port}")
    try:
        yield called
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


class _EngineCollector(Collector):
    """Asks the engine at each scrape, in a thread of the HTTP server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> list[Metric]:
        """Describe nothing beforehand: else the engine would be asked when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read all figures anew."""
        engine = self._engine
        users, items, signals, lag = engine.counts()
        record = engine.record.folder / FILE
        log_file = record.with_name(f"{FILE}-wal")
        for name, what, value in (
            ("users", "Users in the record.", users),
            ("items", "Items in the catalogue.", items),
            ("signals", "Signals in the record.", signals),
            ("index_lag", "Writes in the record that the live index has yet to take.", lag),
            (
                "index_up",
                "0 while there is no live index, and exact search answers.",
                engine.live.relay.live is not None,
            ),
            ("writes_waiting", "Writes that wait for the record.", engine.writer.waiting),
            ("record_writable", "0 from a write that failed until a trial succeeds.", engine.writer.writable),
            ("record_bytes", "Size of the record.", record.stat().st_size),
            ("record_log_bytes", "Size of its write-ahead log.", log_file.stat().st_size if log_file.exists() else 0),
            ("disk_free_bytes", "Room on the disk of the data folder.", shutil.disk_usage(record.parent).free),
        ):
            yield GaugeMetricFamily(f"penchant_{name}", what, float(value))

        jobs = GaugeMetricFamily("penchant_jobs", "Jobs in the record, by how they stand.", labels=["kind", "state"])
        for (kind, state), count in engine.jobs.counts().items():
            jobs.add_metric([kind, state.name.lower()], count)
        yield jobs

        waiting = GaugeMetricFamily("penchant_texts_waiting", "Texts that wait for the encoder.", labels=["space"])
        refused = CounterMetricFamily(
            "penchant_encoder_refusals", "Requests turned away because the encoder was too busy.", labels=["space"]
        )
        for space in engine.adapters.serving.kept:
            waiting.add_metric([space.space_id], space.encoder.waiting)
            refused.add_metric([space.space_id], space.encoder.refusals)
        yield from (waiting, refused)
