"""The example for Node.js runs against a real server, with packages from the registry."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import node
import pytest
from harness import Server

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "node"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example with its packages installed."""
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    copy = tmp_path / "examples" / "node"
    node.install(EXAMPLE, copy)
    return copy


@pytest.mark.slow
async def test_the_example_prints_interests_and_recommendations(server: Server, example: Path) -> None:
    async def play(address: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(node.run, example, "penchant.mjs", address)

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
