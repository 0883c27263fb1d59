"""The demo end to end: its own server, the whole story, and an end that leaves nothing running."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len

from penchant.demo.story import load_story

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "penchant", "demo"]
SECONDS = 110


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **environment},
        check=False,
    )


@contextmanager
def started(temporary: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A demo whose server listens, and whose temporary folder is in `temporary`."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([*DEMO, *arguments], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def address_of(text: str) -> tuple[str, int]:
    found = re.search(r"listens on ([\d.]+):(\d+)", text)
    assert found is not None, text
    return found[1], int(found[2])


def listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


@pytest.mark.slow
def test_whole_story_comes_out_as_told() -> None:
    # Run by another make, make would tell where it is, and complain of what `make -j` hands down.
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    command = ["make", "--no-print-directory", "demo"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    output = ended.stdout
    assert ended.returncode == 0, output + ended.stderr
    assert ended.stderr == ""

    assert "✗" not in output
    for user_id in ("oliver", "lin"):
        assert re.search(rf"✓ {user_id}'s interests change on [^.]*noticed on", output.replace("\n", " "))
    assert re.search(r"All 369 signals sent again in [\d.]+ s: every one is known", output)
    assert "14 users, 187 items, 369 signals" in output
    assert not listens(address_of(output))

    assert "\x1b" not in output
    assert max(cell_len(line) for line in output.splitlines()) <= 100


@pytest.mark.slow
@pytest.mark.parametrize(("number", "kept"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_interrupted_it_stops_its_server_and_cleans_up_but_for_what_data_names(
    number: signal.Signals, kept: bool, tmp_path: Path
) -> None:
    data = tmp_path / "kept"
    with started(tmp_path, *(("--data", data) if kept else ())) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "listens on" in line)
        assert listens(address_of(line))
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(SECONDS) == 130, rest
    assert "Interrupted" in rest
    assert not listens(address_of(line))
    assert list(tmp_path.glob("penchant-demo-*")) == []
    if kept:
        assert any(data.iterdir())
        again = run("--data", data)
        assert again.returncode == 1
        assert "is not empty" in " ".join(again.stdout.split())


@pytest.mark.slow
def test_server_that_can_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    ended = run(PENCHANT_ENCODER__MODEL=str(tmp_path / "no-such-model"))
    assert ended.returncode == 1
    assert "the server did not start" in ended.stdout
    assert "server.failed" in ended.stdout
    assert "no-such-model" in ended.stdout


def test_story_ends_an_hour_ago_and_nothing_lies_in_the_future() -> None:
    now = datetime(2030, 5, 17, 12, 30, tzinfo=UTC)
    story = load_story(now)
    times = [signal.time.ToDatetime(UTC) for signal in story.signals]
    assert times == sorted(times)
    assert times[-1] == now - timedelta(hours=1)
    assert max(item.create_time.ToDatetime(UTC) for item in story.items) < now
    for user_id, change in story.changes.items():
        assert story.count_since_change(user_id, now) == sum(
            s.user_id == user_id and s.time.ToDatetime(UTC) >= change for s in story.signals
        )
        assert 10 < story.count_since_change(user_id, now) < 30
