"""Servers for tests: each is a real one, with its own data folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from harness import Server, StartServer, in_process

from penchant_pipelines.encoder import Encoder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(data: Path, encoder: Encoder) -> StartServer:
    """Starts a server in this process, on the test's data folder unless another is named, with further settings."""

    def start(folder: Path = data, **settings: Any) -> AbstractAsyncContextManager[Server]:
        return in_process(folder, encoder, settings)

    return start


@pytest.fixture
async def server(start: StartServer) -> AsyncIterator[Server]:
    async with start() as running:
        await running.index_ready()
        yield running
