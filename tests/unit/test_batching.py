from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from penchant_pipelines.encoder import BatchingEncoder, EncoderSettings, Vectors
from penchant_pipelines.encoder import batching as batching_module
from penchant_pipelines.errors import Overloaded, WrongState

DIMENSIONS = 8


def vector(text: str) -> Vectors:
    """A unit vector from the text's letters, each with its own direction."""
    total = np.zeros(DIMENSIONS)
    for letter in ["", *text]:
        seed = int.from_bytes(hashlib.sha256(letter.encode()).digest()[:8])
        total += np.random.default_rng(seed).standard_normal(DIMENSIONS)
    return (total / np.linalg.norm(total)).astype(np.float32)


class Letters:
    """A small model that encodes by letters, keeps its batches, and can be held at the door."""

    dimensions = DIMENSIONS
    space_id = "letters"
    base_model = "letters"
    adapter_id = ""
    device = "cpu"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.inside = threading.Event()

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        self.inside.set()
        assert self.open.wait(10)
        if "poison" in texts:
            raise RuntimeError("the model broke")
        return np.stack([vector(text) for text in texts])

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


class Slow(Letters):
    """Takes 4 ms a text."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        time.sleep(0.004 * len(texts))
        return super().encode(texts)


@asynccontextmanager
async def batching(model: Letters, **settings: Any) -> AsyncIterator[BatchingEncoder]:
    encoder = BatchingEncoder(model, EncoderSettings(**{"workers": 1, **settings}))
    try:
        yield encoder
    finally:
        model.open.set()
        await encoder.close()


def pending(encoder: BatchingEncoder) -> int:
    """Texts that wait for the model or are in it."""
    return len(encoder._pending)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def held(model: Letters, encoder: BatchingEncoder) -> AsyncIterator[None]:
    """Keep the model busy with a text of its own, so that what comes next must wait."""
    model.open.clear()
    model.inside.clear()
    first = asyncio.create_task(encoder.encode(["first"]))
    await until(model.inside.is_set)
    yield
    model.open.set()
    await first


async def test_rows_come_in_the_order_of_the_texts() -> None:
    texts = [f"text {n % 7}" for n in range(40)]
    async with batching(Letters(), batch_size=4) as encoder:
        found = await encoder.encode(texts)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.stack([vector(text) for text in texts]))
        np.testing.assert_array_equal(await encoder.encode(texts[::-1]), found[::-1])
        assert (await encoder.encode([])).shape == (0, DIMENSIONS)


async def test_equal_texts_are_encoded_once() -> None:
    model = Letters()
    async with batching(model) as encoder:
        async with held(model, encoder):
            waiting = [asyncio.create_task(encoder.encode(["a", "b", "a"])) for _ in range(5)]
            await until(lambda: pending(encoder) == 3)
        for found in await asyncio.gather(*waiting):
            np.testing.assert_array_equal(found, np.stack([vector("a"), vector("b"), vector("a")]))
        await encoder.encode(["b", "first"])
        assert sorted(model.texts) == ["a", "b", "first"]
        assert pending(encoder) == 0


async def test_a_text_in_the_model_is_shared_too() -> None:
    model = Letters()
    async with batching(model) as encoder, held(model, encoder):
        again = asyncio.create_task(encoder.encode(["first"]))
        await asyncio.sleep(0.01)
        model.open.set()
        np.testing.assert_array_equal(await again, [vector("first")])
        assert model.texts == ["first"]


async def test_concurrent_requests_share_a_batch() -> None:
    model = Letters()
    async with batching(model, batch_size=32) as encoder:
        async with held(model, encoder):
            waiting = [asyncio.create_task(encoder.encode([f"text {n}"])) for n in range(20)]
            await until(lambda: pending(encoder) == 21)
        await asyncio.gather(*waiting)
        assert [len(batch) for batch in model.batches] == [1, 20]


async def test_no_batch_is_larger_than_asked() -> None:
    model = Letters()
    async with batching(model, batch_size=3) as encoder:
        await encoder.encode([f"text {n}" for n in range(10)])
        assert [len(batch) for batch in model.batches] == [3, 3, 3, 1]


@pytest.mark.parametrize("shared", [False, True])
async def test_one_text_is_not_stuck_behind_a_bulk_feed(shared: bool) -> None:
    model = Letters()
    async with batching(model, batch_size=8) as encoder:
        async with held(model, encoder):
            bulk = asyncio.create_task(encoder.encode([f"bulk {n}" for n in range(5000)]))
            await until(lambda: pending(encoder) == 5001)
            # The second case: the text is one of the feed's last.
            text = "bulk 4999" if shared else "single"
            single = asyncio.create_task(encoder.encode([text]))
            await asyncio.sleep(0.01)
        await single
        await bulk
        assert model.texts.index(text) < 10
        assert sorted(model.texts) == sorted(set(model.texts))


async def test_requests_that_nobody_waits_for_never_reach_the_model() -> None:
    model = Letters()
    async with batching(model, batch_size=8) as encoder:
        async with held(model, encoder):
            gone = asyncio.create_task(encoder.encode(["gone", "wanted", "gone too"]))
            kept = asyncio.create_task(encoder.encode(["wanted", "kept"]))
            await until(lambda: pending(encoder) == 5)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        np.testing.assert_array_equal(await kept, np.stack([vector("wanted"), vector("kept")]))
        await until(lambda: pending(encoder) == 0)
        assert sorted(model.texts) == ["first", "kept", "wanted"]
        # A text that was dropped can be asked for again.
        np.testing.assert_array_equal(await encoder.encode(["gone"]), [vector("gone")])


async def test_a_dropped_text_that_is_asked_for_again_at_once_is_encoded() -> None:
    model = Letters()
    async with batching(model) as encoder:
        async with held(model, encoder):
            for _ in range(3):
                gone = asyncio.create_task(encoder.encode(["again"]))
                await asyncio.sleep(0)
                gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            kept = asyncio.create_task(encoder.encode(["again"]))
            await asyncio.sleep(0.01)
        np.testing.assert_array_equal(await asyncio.wait_for(kept, 5), [vector("again")])
        assert model.texts.count("again") == 1


async def test_who_would_wait_too_long_is_told_when_to_come_back() -> None:
    model = Slow()
    async with batching(model, max_wait_seconds=0.3) as encoder:
        await encoder.encode([f"measured {n}" for n in range(100)])
        model.batches.clear()

        asked = [encoder.encode([f"text {n}"]) for n in range(300)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
        taken = len(outcomes) - len(refused)
        # All would take 1.2 s. How many are taken in 0.3 s depends on what else the machine does.
        assert refused
        assert taken > 1
        assert all(0.3 < error.retry_after <= 30 for error in refused)
        # Nothing of what was refused was taken; it is as soon as there is room.
        assert len(model.texts) == taken
        await encoder.encode(["text 299"])


async def test_what_waits_already_costs_nothing_more() -> None:
    model = Letters()
    async with batching(model, max_wait_seconds=0.001) as encoder, held(model, encoder):
        waiting = asyncio.create_task(encoder.encode(["a text that waits"] + [f"text {n}" for n in range(9)]))
        await until(lambda: pending(encoder) == 11)
        sharing = asyncio.create_task(encoder.encode(["a text that waits"]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await encoder.encode(["more"])
        assert pending(encoder) == 11
        model.open.set()
        await asyncio.gather(waiting, sharing)


async def test_whoever_gave_up_is_waited_for_no_more() -> None:
    model = Letters()
    async with batching(model, max_wait_seconds=0.001) as encoder, held(model, encoder):
        gone = asyncio.create_task(encoder.encode([f"text {n}" for n in range(9)]))
        await until(lambda: pending(encoder) == 10)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        model.open.set()
        await encoder.encode(["more"])


async def test_an_idle_model_takes_a_request_of_any_size() -> None:
    async with batching(Letters(), max_wait_seconds=0.001) as encoder:
        assert len(await encoder.encode([f"text {n}" for n in range(50)])) == 50


async def test_feeds_that_come_back_when_told_all_get_through() -> None:
    model = Slow()
    async with batching(model, max_wait_seconds=0.05) as encoder:
        refusals = 0

        async def feed(name: str) -> None:
            nonlocal refusals
            for part in range(2):
                while True:
                    try:
                        await encoder.encode([f"{name} {part} {n}" for n in range(30)])
                        break
                    except Overloaded as error:
                        refusals += 1
                        await asyncio.sleep(error.retry_after)

        await asyncio.wait_for(asyncio.gather(*(feed(name) for name in "abcdef")), 20)
        assert refusals
        assert len(model.texts) == 6 * 2 * 30


async def test_a_batch_is_about_what_a_worker_does_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching_module, "TURN_SECONDS", 0.05)
    model = Slow()
    async with batching(model) as encoder:
        await encoder.encode([f"text {n}" for n in range(120)])
        assert 1 < max(len(batch) for batch in model.batches[3:]) < 30


async def test_a_failure_reaches_all_who_wait_for_it_and_nobody_else() -> None:
    model = Letters()
    async with batching(model, batch_size=4) as encoder:
        async with held(model, encoder):
            hit = [asyncio.create_task(encoder.encode(["poison", f"text {n}"])) for n in range(3)]
            await until(lambda: pending(encoder) == 5)
        for outcome in await asyncio.gather(*hit, return_exceptions=True):
            assert isinstance(outcome, RuntimeError)
        assert pending(encoder) == 0
        np.testing.assert_array_equal(await encoder.encode(["text 1"]), [vector("text 1")])
        assert encoder.cached("poison") is None


async def test_closing_fails_what_waits_and_answers_what_is_in_the_model() -> None:
    model = Letters()
    encoder = BatchingEncoder(model, EncoderSettings(workers=1, batch_size=1))
    model.open.clear()
    inside = asyncio.create_task(encoder.encode(["inside"]))
    await until(model.inside.is_set)
    waiting = asyncio.create_task(encoder.encode(["waiting"]))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(encoder.close())
    await asyncio.sleep(0.01)
    model.open.set()
    await closing
    np.testing.assert_array_equal(await inside, [vector("inside")])
    for late in (waiting, encoder.encode(["late"])):
        with pytest.raises(WrongState) as raised:
            await late
        assert raised.value.reason == "SHUTTING_DOWN"
    assert model.texts == ["inside"]


async def test_the_cache_is_bounded_and_can_be_emptied() -> None:
    model = Letters()
    async with batching(model, cache_size=5) as encoder:
        await encoder.encode([f"text {n}" for n in range(20)])
        assert sum(encoder.cached(f"text {n}") is not None for n in range(20)) == 5
        known = next(f"text {n}" for n in range(20) if encoder.cached(f"text {n}") is not None)
        np.testing.assert_array_equal(encoder.cached(known), vector(known))
        encoder.forget()
        assert encoder.cached(known) is None
        await encoder.encode([known])
        assert model.texts.count(known) == 2


async def test_what_is_being_encoded_is_forgotten_too() -> None:
    model = Letters()
    async with batching(model) as encoder:
        async with held(model, encoder):
            waiting = asyncio.create_task(encoder.encode(["waiting"]))
            await until(lambda: pending(encoder) == 2)
            encoder.forget()
        np.testing.assert_array_equal(await waiting, [vector("waiting")])
        assert encoder.cached("first") is None
        assert encoder.cached("waiting") is None
        await encoder.encode(["waiting"])
        assert encoder.cached("waiting") is not None


async def test_without_a_cache_every_request_is_encoded() -> None:
    model = Letters()
    async with batching(model, cache_size=0) as encoder:
        for _ in range(3):
            np.testing.assert_array_equal(await encoder.encode(["a", "a"]), [vector("a")] * 2)
        assert model.texts == ["a"] * 3


@pytest.mark.parametrize("workers", [1, 3])
async def test_many_tasks_with_common_texts_all_get_their_rows(workers: int) -> None:
    model = Letters()
    generator = np.random.default_rng(0)
    async with batching(model, batch_size=7, cache_size=10, workers=workers) as encoder:

        async def caller(texts: list[str], patience: float) -> None:
            try:
                found = await asyncio.wait_for(encoder.encode(texts), patience)
            except TimeoutError:
                return
            np.testing.assert_array_equal(found, np.stack([vector(text) for text in texts]))

        await asyncio.gather(
            *(
                caller(
                    [f"text {n}" for n in generator.integers(0, 60, 12)],
                    float(generator.choice([0.001, 5.0])),
                )
                for _ in range(100)
            )
        )
        await until(lambda: pending(encoder) == 0)


class Hitch(Letters):
    """Stands still once, then takes a millisecond a text."""

    stands_still = 1.5

    def encode(self, texts: Sequence[str]) -> Vectors:
        time.sleep(self.stands_still or 0.001 * len(texts))
        self.stands_still = 0.0
        return super().encode(texts)


async def test_a_machine_that_stood_still_for_once_turns_nobody_away_for_long() -> None:
    async with batching(Hitch()) as encoder:
        first = asyncio.create_task(encoder.encode(["first"]))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, encoder.encode(["second", "third"]))
        for number in range(50):
            await encoder.encode([f"light {number}"])
        await asyncio.gather(*(encoder.encode([f"burst {number} " + "x" * 100]) for number in range(20)))
