"""An activation of an adapter under constant traffic: what fails, how long it takes, what a rollback costs.

    .venv/bin/python benchmarks/activation.py [--items 20000] [--signals 50000] [--adapter FOLDER] [--rate 40] [--kill]

Starts a server of its own on a temporary data folder and fills it with made-up items and signals. Then callers
capture and ask for recommendations all the time (--rate), while an adapter (without --adapter one of small random
weights) is activated, and rolled back. With --kill the server is killed (-9) half-way through and started again.
Prints JSON: calls and failed calls, answers by space and any from neither, latencies before and during, seconds
of the activation and of the rollback, and how many signals each space holds in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import itertools
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from serving import WORDS

import penchant
from penchant.demo.server import ServerProcess
from penchant.v1.admin_service_pb2 import JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.signal_pb2 import ACTION_LIKE, Behavior, Post, Signal
from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.encoder.adapter import write_manifest
from penchant_pipelines.record import Record, schema

CALLERS = 4
"""Of each kind: as many capture as ask for recommendations."""


def main() -> int:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--signals", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--rate", type=float, default=40.0, help="calls a second in all, or as many as it takes")
    parser.add_argument("--adapter", type=Path, help="folder of an adapter for the embedded encoder")
    parser.add_argument("--kill", action="store_true", help="kill the server half-way through, and start it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        shelf = data / "adapters" / "tuned"
        if options.adapter:
            shutil.copytree(options.adapter, shelf)
        else:
            make_adapter(shelf)
        print(json.dumps(asyncio.run(measure(data, options)), indent=2))
    return 0


def make_adapter(folder: Path) -> None:
    """Write an adapter of small random weights for the embedded encoder."""
    import torch
    from peft import LoraConfig, get_peft_model

    encoder: Any = open_encoder(EncoderSettings())
    torch.manual_seed(0)
    model = copy.deepcopy(encoder._model[0].get_submodule("auto_model"))
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=8, target_modules=["query", "value"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    write_manifest(folder, encoder.space_id, encoder.dimensions, {})


class Traffic:
    """Callers at a constant rate, and what became of their calls."""

    def __init__(self, users: int, rate: float) -> None:
        self._users = users
        self._seconds = 2 * CALLERS / rate
        """Between two calls of one caller."""
        self._numbers = itertools.count()
        self._chooser = random.Random(1)
        self.took: dict[str, list[float]] = {}
        self.spaces: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.captured = 0

    @asynccontextmanager
    async def running(self, address: str, phase: str) -> Any:
        """Let callers call for as long as the context lasts."""
        ended = asyncio.Event()
        async with penchant.AsyncClient(address, timeout=60) as client:

            async def call(kind: str) -> None:
                while not ended.is_set():
                    start = time.perf_counter()
                    try:
                        answer = await self._call(client, kind)
                    except penchant.PenchantError as error:
                        self.failed[f"{phase} {kind} {type(error).__name__} {error.message[:60]}"] += 1
                    else:
                        self.took.setdefault(f"{kind}_{phase}", []).append(1000 * (time.perf_counter() - start))
                        self.spaces[answer.space_id] += 1
                        self.captured += kind == "capture"
                    await asyncio.sleep(max(self._seconds - (time.perf_counter() - start), 0))

            tasks = [asyncio.create_task(call(kind)) for kind in ("capture", "recommend") for _ in range(CALLERS)]
            try:
                yield
            finally:
                ended.set()
                await asyncio.gather(*tasks)

    async def _call(self, client: penchant.AsyncClient, kind: str) -> Any:
        user = f"u-{self._chooser.randrange(self._users)}"
        if kind == "recommend":
            return await client.recommend(user, page_size=10)
        return await client.capture(user_id=user, text=text(self._chooser), id=f"live-{next(self._numbers)}")


async def measure(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fill a server, activate under traffic, roll back."""
    figures: dict[str, Any] = {}
    server = ServerProcess(data)
    try:
        server.wait_ready()
        start = time.perf_counter()
        await asyncio.to_thread(fill, server.address, options)
        figures["fill_s"] = time.perf_counter() - start
        traffic = Traffic(options.users, options.rate)
        async with penchant.AsyncClient(server.address, timeout=120) as client:
            before = (await client.server_info()).space_id
            adapter = await client.load_adapter("tuned")
            async with traffic.running(server.address, "before"):
                await asyncio.sleep(10)
            start = time.perf_counter()
            async with traffic.running(server.address, "during"):
                job = await client.activate_adapter("tuned")
                while job.state == JOB_STATE_RUNNING:
                    await asyncio.sleep(0.5)
                    job = await client.job(job.id)
                    if options.kill and 0 < job.total_count <= 2 * job.done_count:
                        break
        if options.kill:
            figures["killed_at"] = f"{job.done_count} of {job.total_count}"
            server._process.kill()
            server._process.wait()
            server = ServerProcess(data)
            server.wait_ready()
        async with penchant.AsyncClient(server.address, timeout=120) as client:
            async with traffic.running(server.address, "after_kill" if options.kill else "after"):
                job = await client.wait_for_job(job.id)
                figures["activation_s"] = time.perf_counter() - start
                await asyncio.sleep(5)
                start = time.perf_counter()
                back = await client.activate_adapter("")
                figures["rollback_ms"] = 1000 * (time.perf_counter() - start)
                await asyncio.sleep(5)
            figures["job"] = f"{job.done_count} of {job.total_count}"
            figures["succeeded"] = job.state == back.state == JOB_STATE_SUCCEEDED
            figures["rolled_back"] = (await client.server_info()).space_id == before
    finally:
        server.stop()
    names = {before: "base", adapter.space_id: "adapter"}
    figures["answers_by_space"] = {names.get(key, "NEITHER"): count for key, count in traffic.spaces.items()}
    figures["failed"] = dict(traffic.failed)
    for name, took in sorted(traffic.took.items()):
        figures[f"{name}_calls"] = len(took)
        figures[f"{name}_p50_ms"], figures[f"{name}_p99_ms"] = np.percentile(took, [50, 99]).round(1).tolist()
    figures["signals_acknowledged"] = options.signals + traffic.captured
    figures |= await asyncio.to_thread(held, data)
    return figures


def fill(address: str, options: argparse.Namespace) -> None:
    """Items and signals of made-up texts; a third of the signals are likes."""
    chooser = random.Random(0)

    def signals() -> Iterator[Signal]:
        for number in range(options.signals):
            user = f"u-{chooser.randrange(options.users)}"
            if number % 3:
                yield Signal(id=f"s-{number}", user_id=user, post=Post(text=text(chooser)))
            else:
                liked = Behavior(item_id=f"i-{chooser.randrange(options.items)}", action=ACTION_LIKE)
                yield Signal(id=f"s-{number}", user_id=user, behavior=liked)

    with penchant.Client(address, timeout=120) as client:
        client.upsert_items(Item(id=f"i-{n}", title=text(chooser)) for n in range(options.items))
        for result in client.capture_many(signals()):
            if result.error is not None:
                raise result.error


def text(chooser: random.Random) -> str:
    """A post of 5 to 20 words, seldom made twice."""
    return " ".join(chooser.choices(WORDS.split(), k=chooser.randint(5, 20)))


def held(data: Path) -> dict[str, Any]:
    """How many signals and profiles the record holds, in all and by space."""
    record = Record(data)
    try:
        with record.read() as connection:

            def count(table: sa.Table, *where: Any) -> int:
                query = sa.select(sa.func.count()).select_from(table).where(*where)
                return int(connection.execute(query).scalar_one())

            spaces = connection.execute(sa.select(schema.spaces)).all()
            return {
                "signals": count(schema.signals),
                "users": count(schema.users),
                "by_space": {
                    row.adapter_id or "base": {
                        "signals": count(schema.signal_vectors, schema.signal_vectors.c.space == row.key),
                        "items": count(schema.item_vectors, schema.item_vectors.c.space == row.key),
                        "profiles": count(schema.profiles, schema.profiles.c.space == row.key),
                        "state": row.state,
                    }
                    for row in spaces
                },
            }
    finally:
        record.close()


if __name__ == "__main__":
    raise SystemExit(main())
