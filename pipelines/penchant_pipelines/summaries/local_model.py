"""A text-generation model of transformers, in a process of its own that gives way to all others.

In the server's process it would hold the interpreter at each token, and could be neither stopped nor survived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from penchant_pipelines.summaries.model_failed import ModelFailed

LOADING_SECONDS = 600.0
PROCESS = "penchant_pipelines.summaries.local_process"


class LocalModel:
    """The model in a folder (config, tokenizer, safetensors), loaded when it is first asked. One question at a time."""

    def __init__(self, folder: Path, timeout_seconds: float) -> None:
        self._folder = folder
        self._timeout = timeout_seconds
        self._process: Process | None = None

    async def complete(self, instructions: str, text: str) -> str:
        """Ask for an answer. Raises ModelFailed."""
        question = json.dumps([instructions, text])
        try:
            if self._process is None:
                self._process = await self._start()
                await _answer(self._process, LOADING_SECONDS)
            assert self._process.stdin is not None  # noqa: S101 - it was asked for
            self._process.stdin.write(question.encode() + b"\n")
            return await _answer(self._process, self._timeout)
        except BaseException as error:
            # Whatever it was, a late answer must not be taken for the next one's.
            await self.close()
            if isinstance(error, OSError | ValueError):  # TimeoutError among them
                raise ModelFailed(f"the local model failed: {type(error).__name__}") from None
            raise

    async def close(self) -> None:
        """Stop the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    async def _start(self) -> Process:
        command = (sys.executable, "-m", PROCESS, str(self._folder))
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=os.environ | offline
        )


async def _answer(process: Process, seconds: float) -> str:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    async with asyncio.timeout(seconds):
        line = await process.stdout.readline()
    if not line:
        raise ModelFailed("the local model's process ended")
    answer, error = json.loads(line)
    if error:
        raise ModelFailed(f"the local model failed: {error}")
    return str(answer)
