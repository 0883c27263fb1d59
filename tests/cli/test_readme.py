"""Every command of the README is tried, in order, as a newcomer would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penchant.demo.server import ServerProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh.md").read_text("utf-8")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def commands(block: str) -> list[str]:
    return [line.partition("   #")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def address(clone: Path) -> Iterator[str]:
    server = ServerProcess(clone / "penchant-data")
    try:
        server.wait_ready()
        yield server.address
    finally:
        assert server.stop() == 0


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name of the clone, so that what they write stays out of it."""
    folder = tmp_path_factory.mktemp("clone")
    demo = folder / "server" / "penchant" / "demo"
    demo.mkdir(parents=True)
    for name in ("items.jsonl", "signals.jsonl"):
        shutil.copy(ROOT / "server" / "penchant" / "demo" / name, demo)
    return folder


def run(command: str, clone: Path, address: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PENCHANT_SERVER": address,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_tour_runs_line_by_line(clone: Path, address: str) -> None:
    tour = README.split("<!-- tour")[1]
    lines = [line for line in commands(blocks(tour, "sh")[0]) if not line.startswith("source ")]
    assert len(lines) >= 10
    for line in lines:
        done = run(line, clone, address)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip(), f"{line} printed nothing"


def test_the_chinese_tour_runs(clone: Path, address: str) -> None:
    for line in commands(blocks(CHINESE, "sh")[1]):
        if not line.startswith("source "):
            done = run(line, clone, address)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_the_python_snippet_runs(clone: Path, address: str) -> None:
    snippet = blocks(README, "python")[0].replace("127.0.0.1:50051", address)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "+1.00" in done.stdout


def test_make_knows_every_target_that_is_named() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make ([\w-]+)", "\n".join([*blocks(README, "sh"), *blocks(CHINESE, "sh")]), flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
