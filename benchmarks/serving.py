"""How fast one server captures and answers, beside the raw encoder in the same run.

    .venv/bin/python benchmarks/serving.py --items ITEMS.jsonl.gz [--signals SIGNALS.jsonl.gz]

Starts a server of its own on a temporary data folder, imports the items (and signals), then measures
- the raw encoder: `Encoder.encode` over the same texts, the server idle; and the same model by the library's own
  `SentenceTransformer.encode`;
- Capture at 1 and at 32 clients with texts that no cache has seen, as texts/s and as a share of the raw encoder;
- GetProfile, Recommend and Rerank of 100 items: p50 and p99 in milliseconds, one client, over the users of the signals;
  lists by interests alone, then by a mix learnt from these very signals;
- Recommend by 16 clients at once, lists a second, and GetProfile of one more beside them;
- the most memory that the server held.
Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from google.protobuf.message import Message

import penchant
from penchant import jsonl
from penchant.demo.server import ServerProcess
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.signal_pb2 import Signal
from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.encoder.batching import cores
from penchant_pipelines.encoder.sentence import open_model

M = TypeVar("M", bound=Message)
WORDS = (
    "trail running shoes mud winter espresso grinder dial recipe sourdough starter crust telescope planet "
    "night chess board game rules expansion monstera leaf light repot guitar jazz record sleeve solo bond "
    "market index fund python rust compiler borrow cat vet kitten climb boulder finger hike ridge train "
    "museum tram noodle broth kettle tea leaf "
)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, required=True, help="JSON Lines of items")
    parser.add_argument("--signals", type=Path, help="JSON Lines of signals, for profiles to read")
    parser.add_argument("--texts", type=int, default=600, help="texts of each throughput measurement")
    parser.add_argument("--reads", type=int, default=400, help="calls of each latency measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder) / "data")
        try:
            server.wait_ready()
            figures = measure(server.address, options)
        finally:
            server.stop()
    # The server is the only child; Linux counts in KiB.
    figures["server_peak_mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(json.dumps(figures, indent=2))
    return 0


def measure(address: str, options: argparse.Namespace) -> dict[str, float]:
    """Run all measurements against a server."""
    figures: dict[str, float] = {}
    with penchant.Client(address, timeout=120) as client:
        start = time.perf_counter()
        items = list(read(options.items, Item))
        item_ids = sorted({item.id for item in items})
        figures["items"] = client.upsert_items(items).upserted_count
        figures["items_per_s"] = figures["items"] / (time.perf_counter() - start)
        users = ["bench-0"]
        if options.signals:
            start = time.perf_counter()
            signals = list(read(options.signals, Signal))
            figures["signals"] = sum(1 for _ in client.capture_many(signals))
            figures["signals_per_s"] = figures["signals"] / (time.perf_counter() - start)
            users = sorted({signal.user_id for signal in signals})
        settle(client)
        figures["library_texts_per_s"] = library_rate(make_texts(options.texts, 1000))
        encoder = open_encoder(EncoderSettings())
        for clients in (1, 32):
            texts = make_texts(options.texts, clients)
            rate = raw_rate(encoder.encode, make_texts(options.texts, 1000 + clients))
            figures[f"raw_encoder_texts_per_s_{clients}"] = rate
            captured = asyncio.run(capture_rate(address, texts, clients))
            figures[f"capture_per_s_{clients}_clients"] = captured
            figures[f"capture_share_of_raw_{clients}_clients"] = captured / rate
        chooser = random.Random(7)
        chosen = [chooser.choice(users) for _ in range(options.reads)]
        for user in users[:200]:
            client.profile(user)
        figures |= latencies("profile", lambda user: client.profile(user), chosen)
        if options.signals:
            client.use_mix("")
            figures |= latencies("recommend_by_interests", lambda user: client.recommend(user), chosen)
            start = time.perf_counter()
            client.wait_for_job(client.learn_mix().id)
            figures["learn_mix_s"] = time.perf_counter() - start
            if newest := next(iter(client.mixes()), None):  # a short log teaches none
                client.use_mix(newest.mix_id)
        figures |= latencies("recommend", lambda user: client.recommend(user), chosen)
        figures |= asyncio.run(at_once(address, chosen))
        figures |= latencies("recommend_explained", lambda user: client.recommend(user, explain=True), chosen)
        shown = [chooser.sample(item_ids, min(100, len(item_ids))) for _ in chosen]
        figures |= latencies("rerank_100", lambda user: client.rerank(user, shown.pop()), chosen)
    return {name: round(value, 3) for name, value in figures.items()}


def settle(client: penchant.Client) -> None:
    """Wait until the index has caught up, and until no job runs, such as a mix that the server learns by itself."""
    while client.server_info().index_lag:
        time.sleep(0.5)
    for job in client.jobs():
        client.wait_for_job(job.id)


def read(path: Path, kind: type[M]) -> Iterator[M]:
    """Messages of a JSON Lines file; lines that are no such message are left out."""
    with jsonl.open_source(path) as source:
        for line in jsonl.read_messages(source, kind):
            if isinstance(line.content, kind):
                yield line.content


def make_texts(count: int, seed: int) -> list[str]:
    """Posts of 6 to 30 words that no cache has seen."""
    chooser = random.Random(seed)
    return [" ".join(chooser.choices(WORDS.split(), k=chooser.randint(6, 30))) + f" {seed}-{n}" for n in range(count)]


def raw_rate(encode: Callable[[list[str]], object], texts: list[str]) -> float:
    """Texts a second of the encoder alone, on as many threads as there are cores."""
    encode(texts[:16])
    parts = [texts[core :: cores()] for core in range(cores())]
    start = time.perf_counter()
    threads = [threading.Thread(target=encode, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(texts) / (time.perf_counter() - start)


def library_rate(texts: list[str]) -> float:
    """Texts a second of the same model as its library encodes them, on all cores."""
    model, _, _ = open_model(EncoderSettings())
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        model.encode(texts[:16], show_progress_bar=False)
        start = time.perf_counter()
        model.encode(texts, show_progress_bar=False)
        return len(texts) / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)


async def capture_rate(address: str, texts: list[str], clients: int) -> float:
    """Signals a second with as many callers that each wait for their answer."""
    async with penchant.AsyncClient(address, timeout=120) as client:

        async def worker(number: int) -> None:
            for text in texts[number::clients]:
                await client.capture(user_id=f"bench-{number}", text=text)

        start = time.perf_counter()
        workers: list[Awaitable[None]] = [worker(number) for number in range(clients)]
        await asyncio.gather(*workers)
        return len(texts) / (time.perf_counter() - start)


async def at_once(address: str, users: list[str], clients: int = 16) -> dict[str, float]:
    """Lists a second of as many callers that each wait for their answer, and what a profile takes beside them."""
    async with penchant.AsyncClient(address, timeout=120) as client:

        async def worker(number: int) -> None:
            for user in users[number::clients]:
                await client.recommend(user)

        start = time.perf_counter()
        lists = asyncio.gather(*(worker(number) for number in range(clients)))
        took: list[float] = []
        while not lists.done():
            asked = time.perf_counter()
            await client.profile(users[len(took) % len(users)])
            took.append(1000 * (time.perf_counter() - asked))
            await asyncio.sleep(0.01)
        await lists
        rate = len(users) / (time.perf_counter() - start)
    return {f"recommend_per_s_{clients}_clients": rate} | percentiles("profile_beside", took)


def latencies(name: str, call: Callable[[str], object], users: list[str]) -> dict[str, float]:
    """Milliseconds of a call at the median and the 99th percentile."""
    took = []
    for user in users:
        start = time.perf_counter()
        call(user)
        took.append(1000 * (time.perf_counter() - start))
    return percentiles(name, took)


def percentiles(name: str, took: list[float]) -> dict[str, float]:
    """The median and the 99th percentile of milliseconds, named."""
    return {f"{name}_p50_ms": float(np.percentile(took, 50)), f"{name}_p99_ms": float(np.percentile(took, 99))}


if __name__ == "__main__":
    raise SystemExit(main())
