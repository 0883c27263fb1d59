"""What Prometheus gets to see of a server, over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from harness import Server, StartServer, catalogue, refused
from prometheus_client.parser import text_string_to_metric_families

from penchant.app import serve
from penchant.settings import load_settings
from penchant.v1.interest_service_pb2 import GetProfileRequest
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.errors import WrongState

OPERATING = (Path(__file__).parents[2] / "docs/operating.md").read_text("utf-8")
Figures = dict[tuple[str, frozenset[str]], float]
GET_PROFILE = "/penchant.v1.InterestService/GetProfile"


class Scraped:
    """A server's figures at an HTTP address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.text = ""

    async def read(self) -> Figures:
        """All values by name and values of labels."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{self.address}/metrics", timeout=30)
        assert answer.status_code == 200
        self.text = answer.text
        return {
            (sample.name, frozenset(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


@asynccontextmanager
async def scraped(start: StartServer, **settings: Any) -> AsyncIterator[tuple[Server, Scraped]]:
    with structlog.testing.capture_logs() as lines:
        async with start(metrics_listen="127.0.0.1:0", **settings) as server:
            (address,) = (line["address"] for line in lines if line["event"] == "metrics.listening")
            await server.index_ready()
            yield server, Scraped(address)
    with pytest.raises(httpx.ConnectError):
        await Scraped(address).read()


async def test_figures_tell_of_calls_and_of_what_an_operator_watches(start: StartServer, encoder: Encoder) -> None:
    async with scraped(start) as (server, metrics):
        await server.client.upsert_items(catalogue())
        for text in ("I love hiking", "Jazz piano"):
            await server.client.capture(user_id="someone", text=text)
        assert (await refused(server.rpc("GetProfile")(GetProfileRequest()))).reason == "INVALID_INPUT"
        await server.client.profile("someone")
        await _rebuilt(server)
        await server.index_caught_up()
        figures = await metrics.read()
        assert "someone" not in metrics.text
        documented = set(re.findall(r"`(penchant_\w+)`", OPERATING))
        assert {name for name, _ in figures if name.startswith("penchant_")} == {
            *(documented - {"penchant_call_seconds"}),
            *(f"penchant_call_seconds_{part}" for part in ("bucket", "count", "sum", "created")),
        }

        def told(name: str, *labels: str) -> float:
            return figures[name, frozenset(labels)]

        assert told("penchant_call_seconds_count", GET_PROFILE, "OK") == 1
        assert told("penchant_call_seconds_count", GET_PROFILE, "INVALID_ARGUMENT") == 1
        assert told("penchant_call_seconds_count", "/penchant.v1.InterestService/Capture", "OK") == 2
        assert told("penchant_call_seconds_bucket", GET_PROFILE, "OK", "+Inf") == 1
        assert 0 < told("penchant_call_seconds_sum", GET_PROFILE, "OK") < 30
        counts = [told(f"penchant_{name}") for name in ("users", "items", "signals", "index_lag", "writes_waiting")]
        assert counts == [1, 16, 2, 0, 0]
        assert told("penchant_index_up") == told("penchant_record_writable") == 1
        assert told("penchant_record_bytes") == (server.data / "record.sqlite3").stat().st_size
        assert told("penchant_record_log_bytes") > 0
        assert told("penchant_disk_free_bytes") > 0
        assert told("penchant_jobs", "rebuild_index", "succeeded") == 1
        assert told("penchant_texts_waiting", encoder.space_id) == 0
        assert told("penchant_encoder_refusals_total", encoder.space_id) == 0
        assert told("process_resident_memory_bytes") > 0


async def _rebuilt(server: Server) -> None:
    job = await server.client.rebuild_index()
    await server.client.wait_for_job(job.id, timeout=30, interval=0.02)


async def test_an_address_that_is_taken_is_named_before_anything_is_made(start: StartServer, encoder: Encoder) -> None:
    async with start() as server:
        other = server.data.with_name("other")
        overrides = {"data": other, "listen": "127.0.0.1:0", "metrics_listen": server.address}
        with pytest.raises(WrongState, match=server.address) as error:
            async with serve(load_settings(overrides=overrides), encoder):
                pass
        assert error.value.reason == "ADDRESS_TAKEN"
        assert not other.exists()
