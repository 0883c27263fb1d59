"""A backup is taken beside a running server, and a server that is started on it has all that was acknowledged."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import Server, StartServer, catalogue
from own_process import finished

from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import Profile
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import WrongState
from penchant_pipelines.record.backup import back_up

# peft asks transformers in a way that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


async def backup(*arguments: str | Path) -> tuple[int, str, str]:
    """Run it in a process of its own: exit code, stdout, stderr."""
    return await asyncio.to_thread(finished, "backup", *arguments)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def profile(server: Server, user_id: str) -> Profile:
    found = await server.client.profile(user_id)
    found.ClearField("as_of")
    return found


async def test_a_server_on_a_backup_has_what_was_acknowledged(
    start: StartServer, tmp_path: Path, make_adapter: Callable[[Path, int], Path]
) -> None:
    copy = tmp_path / "backups" / "2026" / "monday"
    async with start() as server:
        await server.client.upsert_items(catalogue())
        await server.client.capture(user_id="ann", text="I love hiking on mountain trails")
        make_adapter(server.data / "adapters" / "mine", 1)
        (server.data / "adapters" / "notes.txt").write_text("Mine is the first.")  # no adapter
        before = await profile(server, "ann")

        feeding = asyncio.create_task(feed(server))
        code, out, err = await backup(copy, "--data", server.data, "--json")
        feeding.cancel()
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told == {"record_bytes": (copy / "record.sqlite3").stat().st_size, "adapters": ["mine"]}
        # The server was neither locked out nor made to wait for good.
        await server.client.capture(user_id="late", text="Jazz piano")

    assert names(copy) == ["adapters", "record.sqlite3"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (copy, copy / "record.sqlite3")] == [0o700, 0o600]
    assert names(copy.parent) == ["monday"]
    async with start(copy) as restored:
        assert await profile(restored, "ann") == before
        await restored.index_ready()
        assert (await restored.recommended("ann"))[0].startswith("hiking")
        assert (await restored.client.load_adapter("mine")).id == "mine"


async def test_a_backup_that_is_put_back_beside_a_newer_index_does_not_trust_it(
    start: StartServer, data: Path, tmp_path: Path
) -> None:
    async with start() as server:
        await server.client.upsert_items([Item(id=f"i{n}", title=f"Hiking trail {n}") for n in range(8)])
        code, _, err = await backup(tmp_path / "copy", "--data", data)
        assert (code, err) == (0, "")
        await server.client.upsert_items([Item(id=f"i{n}", title=f"Jazz record {n}") for n in range(3)])
        await server.index_caught_up()
    newer = names(data / "index")
    shutil.copy(tmp_path / "copy" / "record.sqlite3", data / "record.sqlite3")
    async with start() as server:
        await server.index_ready()
        assert (await server.client.item("i0")).title == "Hiking trail 0"
    assert not set(newer) & set(names(data / "index"))


async def feed(server: Server) -> None:
    number = 0
    while True:
        await server.client.capture(user_id="feed", text=f"Sourdough bread number {number}")
        number += 1


async def test_a_stopped_servers_record_is_copied_and_left_alone(
    start: StartServer, data: Path, tmp_path: Path
) -> None:
    async with start() as server:
        await server.client.capture(user_id="ann", text="I love hiking")
    held = names(data)
    sha256 = file_sha256(data / "record.sqlite3")
    config = tmp_path / "penchant.toml"
    config.write_text(f"data = '{data}'")
    code, out, _ = await backup(tmp_path / "copy", "--config", config)
    assert code == 0
    assert "no adapters" in out
    assert f"to restore: put a copy of {tmp_path / 'copy'}" in out
    assert names(data) == held
    assert file_sha256(data / "record.sqlite3") == sha256


async def test_a_backup_overwrites_nothing_and_is_whole_or_not_there(
    start: StartServer, data: Path, tmp_path: Path
) -> None:
    async with start() as server:
        await server.client.capture(user_id="ann", text="I love hiking")
    there = tmp_path / "there"
    there.mkdir()
    code, _, err = await backup(there, "--data", data)
    assert (code, names(there)) == (1, [])
    assert "is there already, and nothing is overwritten" in err
    for folder in (tmp_path / "nowhere", there):
        code, _, err = await backup(tmp_path / "copy", "--data", folder)
        assert code == 1
        assert "no data folder" in err

    record = data / "record.sqlite3"
    whole = record.read_bytes()
    # Of another length, and of the same: pages that are copied without a look into them.
    for words in (20_000, (len(whole) - 40_000) // 4):
        record.write_bytes(whole[:40_000] + b"\xde\xad\xbe\xef" * words)
        code, _, err = await backup(tmp_path / "copy", "--data", data)
        assert code == 1
        assert "is damaged" in err
        assert not [name for name in names(tmp_path) if "copy" in name]


def test_what_is_half_made_among_the_adapters_stays_out_of_a_backup(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with closing(sqlite3.connect(data / "record.sqlite3")) as record:
        record.execute("CREATE TABLE users (key)")
    half = data / "adapters" / "mine.k3jx.part"
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_bytes(b"half of it")
    assert back_up(data, tmp_path / "monday").adapters == ()
    assert names(tmp_path / "monday") == ["adapters", "record.sqlite3"]
    assert names(tmp_path / "monday" / "adapters") == []
    # The next backup would hold this one, and no erasure reaches it.
    for inside in (data / "adapters" / "monday", data / "x" / ".." / "tuesday"):
        with pytest.raises(WrongState, match="in the data folder itself"):
            back_up(data, inside)
    assert names(data) == ["adapters", "record.sqlite3"]


@pytest.mark.parametrize("log", [False, True], ids=["in good order", "killed"])
async def test_what_stands_in_the_log_alone_is_in_the_backup(
    start: StartServer, data: Path, tmp_path: Path, log: bool
) -> None:
    crashed = tmp_path / "crashed"
    async with start() as server:
        await server.client.capture(user_id="ann", text="I love hiking")
        if log:  # as a kill would leave it
            crashed.mkdir()
            for name in ("record.sqlite3", "record.sqlite3-wal"):
                (crashed / name).write_bytes((data / name).read_bytes())
            assert (crashed / "record.sqlite3-wal").stat().st_size
    code, _, _ = await backup(tmp_path / "copy", "--data", crashed if log else data)
    assert code == 0
    async with start(tmp_path / "copy") as restored:
        assert await restored.signal_count() == 1
