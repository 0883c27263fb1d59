"""Fine-tuning from the record of a server that goes on working."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import tiny_models
from command_line import run
from harness import Server, StartServer

from penchant import convert
from penchant_finetune.corpus import make_corpus
from penchant_finetune.log import read_log, read_record
from penchant_finetune.prepare import load_prepared
from penchant_pipelines.encoder import Encoder
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import WrongState
from penchant_pipelines.interests import InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Item, Signal
from penchant_pipelines.text import TextPipeline, TextSettings


def the_log() -> tuple[list[Item], list[Signal]]:
    """The small log, and what somebody took back."""
    items, signals = tiny_models.small_log()
    undone = Behavior("1-3", Action.SAVE), Behavior("1-3", Action.UNDO)
    extra = [Signal(f"x{n}", "undoer", act, tiny_models.START + n) for n, act in enumerate(undone)]
    return items, [*signals, *extra]


async def fill(server: Server) -> None:
    items, signals = the_log()
    await server.client.upsert_items([convert.from_item(item) for item in items])
    answers = server.client.capture_many([convert.from_signal(signal) for signal in signals])
    assert not [answer async for answer in answers if answer.error]


async def test_a_running_servers_record_gives_the_log_that_was_sent(server: Server) -> None:
    await fill(server)
    read = read_record(server.data, TextSettings())
    sent = read_log(*the_log(), TextPipeline(TextSettings()))
    assert {entry.user for entry in read.signals if entry.undone is not None} == {tiny_models.USERS}
    assert {item.id: item for item in read.items} == {item.id: item for item in sent.items}
    assert [(s.evidence, s.text, s.hashtags, s.undone) for s in read.signals] == [
        (s.evidence, s.text, s.hashtags, s.undone) for s in sent.signals
    ]
    one, other = (make_corpus(log, InterestSettings(), None, (0.7, 0.8)) for log in (read, sent))
    assert one.times.max() - one.times.min() < 15 * MICROS_PER_DAY
    assert one.parts.tolist() == other.parts.tolist()
    # The server was neither locked out nor written to.
    await server.client.capture(user_id="u0", text="still here")
    assert len(read_record(server.data, TextSettings()).signals) == len(read.signals) + 1


def contents(folder: Path) -> dict[str, str]:
    """The files that lie in a folder itself, with their hashes."""
    return {file.name: file_sha256(file) for file in folder.iterdir() if file.is_file()}


async def test_a_stopped_servers_record_is_read_and_left_alone(start: StartServer, data: Path) -> None:
    async with start() as server:
        await fill(server)
    before = contents(data)
    assert len(read_record(data, TextSettings()).items) == 120
    assert contents(data) == before


async def test_a_log_is_prepared_for_the_encoder_that_it_is_served_with(
    start: StartServer, data: Path, encoder: Encoder, tmp_path: Path
) -> None:
    async with start() as server:
        await fill(server)
    other = f"encoder.model={tiny_models.tiny_bert(tmp_path / 'model')}"
    prepare = (
        "finetune",
        "prepare",
        tmp_path / "prepared",
        "--data",
        data,
        "--validation-from",
        "0.7",
        "--test-from",
        "0.8",
    )
    code, _, err = run(*prepare, "--set", other)
    assert code == 1
    assert f"live space is {encoder.space_id}, these settings open model-" in err
    assert not (tmp_path / "prepared").exists()
    code, _, err = run(*prepare)
    assert code == 0, err
    assert load_prepared(tmp_path / "prepared").manifest.live_space_id == encoder.space_id


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongState, match=r"no record\.sqlite3"):
        read_record(tmp_path, TextSettings())
    sqlite3.connect(tmp_path / "record.sqlite3").close()
    with pytest.raises(WrongState, match="can't be read"):
        read_record(tmp_path, TextSettings())
