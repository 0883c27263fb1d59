"""Commands against a running server: what people and scripts get to see."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from harness import Server, StartServer, catalogue, command, until

from penchant.cli import options
from penchant.cli.doctor import _index
from penchant.v1.catalog_service_pb2 import Item
from penchant_pipelines.capture import Capture
from penchant_pipelines.errors import NotFound
from penchant_pipelines.interests import Calibration
from penchant_pipelines.profiles import Profiles
from penchant_pipelines.spaces.adapters import Adapters


async def test_a_file_of_signals_without_ids_can_be_sent_twice(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "signals.jsonl"
    once = {"user_id": "mei", "time": "2026-01-02T00:00:00Z", "post": {"text": "手冲咖啡"}}
    twice = {"user_id": "mei", "post": {"text": "I love hiking"}}
    own = {"user_id": "mei", "id": "own", "post": {"text": "I love hiking"}}
    lines = [json.dumps(line) for line in (once, twice, twice, own)]
    file.write_text("\n".join(lines))
    code, out, _ = await command(server, "capture", str(file), "--json")
    assert (code, json.loads(out)["captured"]) == (0, 4)
    # In another order, and with more behind it.
    file.write_text("\n".join([*reversed(lines), json.dumps(twice), json.dumps(twice | {"user_id": "ann"})]))
    code, out, _ = await command(server, "capture", str(file), "--json")
    told = json.loads(out)
    assert (code, told["captured"], told["duplicates"]) == (0, 2, 4)
    assert await server.signal_count() == 6


@pytest.mark.parametrize("arguments", [["items", "import"], ["capture"]], ids=" ".join)
async def test_what_was_sent_before_the_server_failed_is_counted(
    start: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    calls = 0

    def fails_the_third_time(work: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise RuntimeError("a fault of the server")
            return await work(*args, **kwargs)

        return call

    for name in ("upsert_items", "capture"):
        monkeypatch.setattr(Capture, name, fails_the_third_time(getattr(Capture, name)))
    file = tmp_path / "lines.jsonl"
    made = '"title": "Hiking"' if "items" in arguments else '"user_id": "mei", "post": {"text": "Hiking"}'
    lines = [f'{{"id": "{n}", {made}}}' for n in range(20)]
    file.write_text("\n".join(["{}", "broken", *lines]))
    async with start(**{"limits.batch_size": 2}) as server:
        code, out, err = await command(server, *arguments, str(file), "--json")
    told = json.loads(out)
    # The empty one takes a place in the first batch, and is refused by the server.
    assert (code, err) == (1, "")
    assert [told.get("imported", told.get("captured")), told["refused"], told["error"]] == [3, 2, "internal error"]
    assert [refusal["line"] for refusal in told["refusals"]] == [1, 2]


async def test_a_deadline_that_passed_is_told_with_what_to_do_and_loading_an_adapter_may_take_longer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> None:
        await asyncio.sleep(2)
        raise NotFound("adapter", "large")

    monkeypatch.setattr(options, "_TIMEOUT_SECONDS", 0.5)
    for name in ("load", "unload"):
        monkeypatch.setattr(Adapters, name, slow)
    code, _, err = await asyncio.to_thread(run, "adapters", "unload", "large", "--server", server.address)
    assert code == 1
    assert err.startswith("error: no answer came in time (Deadline Exceeded), but the call may have taken effect")
    for name in ("load", "activate"):
        code, _, err = await asyncio.to_thread(run, "adapters", name, "large", "--server", server.address)
        assert (code, err) == (1, "error: adapter 'large' does not exist\n")


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["for people", "for machines"])
async def test_who_watches_everybody_is_told_of_users_alone(server: Server, flags: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penchant", "watch", *flags, "--server", server.address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(60):
        assert (await process.stderr.readline()).startswith(b"watching everybody in the space ")
        await server.client.capture(user_id="mei", text="I love hiking")
        assert b"mei" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_a_command_that_is_told_to_stop_leaves_nothing_half_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.client.capture(user_id="mei", text="I love hiking")
    goes_on = threading.Event()
    monkeypatch.setattr(Profiles, "signals", lambda *_: goes_on.wait())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penchant", "export", "mei", "-o", str(tmp_path / "mei.jsonl")),
        *("--server", server.address),
    )

    def written() -> list[str]:
        return [path.name for path in tmp_path.glob("mei*")]

    async def begun() -> bool:
        return written() == ["mei.jsonl.part"]

    try:
        await until(begun)
        process.terminate()
        assert await process.wait() == 143
    finally:
        goes_on.set()
    assert not written()


async def test_it_is_told_that_the_server_gives_no_more_at_once(start: StartServer) -> None:
    told = "the server gives at most 3 at once (limits.page_size)\n"
    async with start(**{"limits.page_size": 3}) as server:
        await server.client.upsert_items(catalogue())
        for user in range(4):
            await server.client.capture(user_id=f"u-{user}", text="I love hiking on mountain trails")
        await server.index_caught_up()
        for arguments in (["recommend", "u-0"], ["find-users", "mountain hiking trails"]):
            code, out, err = await command(server, *arguments, "-n", "4")
            assert (code, err, len(out.splitlines())) == (0, told, 4)
        for arguments in (["-n", "3"], ["-n", "4", "--filter", 'category = "none"']):
            code, _, err = await command(server, "recommend", "u-0", *arguments)
            assert (code, err) == (0, "")


async def test_reasons_for_a_recommendation_stand_below_it(server: Server) -> None:
    await server.client.upsert_items(catalogue())
    await server.client.capture(user_id="mei", text="A long walk along the ridge, hut to hut, with a light backpack")
    code, out, _ = await command(server, "recommend", "mei", "--explain", "-n", "2")
    assert code == 0
    lines = [line.rstrip() for line in out.splitlines()]
    assert [line[:3] for line in lines if not line.startswith("     ")] == [" 1.", " 2."]
    assert re.fullmatch(r" 1\.  \S.*  \(hiking-\d\)  score \d\.\d{3}", lines[0])
    assert re.fullmatch(r"     because of +A long walk along the ridge.* \(100%\)", lines[2])
    code, out, _ = await command(server, "recommend", "nobody", "--explain", "--filter", 'category = "none"')
    assert (code, out.splitlines()[0]) == (0, "nothing to recommend")


async def test_find_users_lists_only_those_to_whom_it_is_the_same_thing(
    server: Server, calibration: Calibration
) -> None:
    assert (await server.client.server_info()).similarity == calibration.similarity
    await server.client.capture(user_id="hiker", text="I love hiking on mountain trails")
    await server.client.capture(user_id="taxpayer", text="Filing the quarterly tax return")

    async def found(*arguments: str) -> list[str]:
        code, out, _ = await command(server, "find-users", *arguments, "--json")
        assert code == 0
        return [json.loads(line)["user_id"] for line in out.splitlines()]

    assert await found("mountain hiking trails") == ["hiker"]
    assert await found("mountain hiking trails", "--min-similarity", "-1") == ["hiker", "taxpayer"]
    code, out, _ = await command(server, "find-users", "mountain hiking trails", "--min-similarity", "0.999")
    assert (code, out) == (0, "nobody, with a similarity of 0.999 or more\n")


async def test_jobs_are_listed_and_cancelled_and_the_index_is_rebuilt(server: Server) -> None:
    await server.client.upsert_items(Item(id=f"i-{n}", title=f"Hiking trail {n % 30}") for n in range(1_500))
    code, out, _ = await command(server, "reindex", "--wait", "--json")
    done = json.loads(out)
    assert (code, done["kind"], done["state"]) == (0, "rebuild_index", "JOB_STATE_SUCCEEDED")
    running = await server.client.rebuild_index()
    code, out, err = await command(server, "jobs", "--cancel", running.id, "--json")
    ended = json.loads(out)
    if ended["state"] == "JOB_STATE_SUCCEEDED":  # it was faster
        assert code == 0
    else:
        assert (code, ended["state"]) == (0, "JOB_STATE_CANCELLED"), err
    code, out, _ = await command(server, "jobs", "-n", "1", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [running.id]
    code, out, _ = await command(server, "jobs")
    heading, newest, before, *_ = out.splitlines()
    assert heading.split() == ["id", "kind", "state", "progress", "created", "ended", "error"]
    assert newest.split()[:2] == [running.id, "rebuild_index"]
    assert before.split()[:3] == [done["id"], "rebuild_index", "succeeded"]
    code, _, err = await command(server, "jobs", "--cancel", done["id"])
    assert (code, err) == (1, "error: the job has ended as succeeded\n")


async def test_the_strongest_interests_can_be_asked_for_and_an_export_counts_its_records(
    server: Server, tmp_path: Path
) -> None:
    for text in ("I love hiking on mountain trails", "I love hiking", "Filing the quarterly tax return"):
        await server.client.capture(user_id="mei", text=text)
    code, out, _ = await command(server, "profile", "mei", "-n", "1", "--json")
    (strongest,) = json.loads(out)["interests"]
    assert strongest["signal_count"] == "2"
    file = tmp_path / "mei.jsonl"
    code, out, _ = await command(server, "export", "mei", "-o", str(file), "--json")
    assert (code, json.loads(out)) == (0, {"record_count": len(file.read_text().splitlines())})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code, out, _ = await command(server, "export", "mei", "--json")
    assert [json.loads(line).keys() for line in out.splitlines()] == [
        json.loads(line).keys() for line in file.read_text().splitlines()
    ]


async def test_one_signal_is_erased_by_its_id_and_then_the_user(server: Server) -> None:
    for number, text in enumerate(("Hiking in the Alps", "Jazz piano")):
        await server.client.capture(user_id="mei", text=text, id=f"s{number}")
    code, out, err = await command(server, "forget", "mei", "--signal", "s1", "--signal", "gone", "--yes")
    assert (code, err) == (0, "")
    assert out.startswith("Erased of mei: 1 signals, 1 vectors.  Receipt r-")
    assert [signal.id async for signal in server.client.signals("mei")] == ["s0"]
    code, out, _ = await command(server, "forget", "mei", "--signal", "s1", "--yes")
    assert (code, out) == (0, "mei has no such signal: nothing was erased.\n")
    code, out, _ = await command(server, "forget", "mei", "--yes")
    assert out.startswith("mei is erased: 1 signals, ")


async def test_doctor_tells_whether_the_index_answers(start: StartServer) -> None:
    async with start() as server:
        await server.index_ready()
        assert (await asyncio.to_thread(_index, server.address))[0]
    async with start(**{"index.url": "http://127.0.0.1:9"}) as server:
        # Nothing is behind: there is none that could be.
        assert (await server.client.server_info()).index_lag == 0
        ok, detail = await asyncio.to_thread(_index, server.address)
        assert not ok
        assert "exact search" in detail
