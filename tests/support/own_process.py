"""`penchant` in a process of its own, forked from one that has imported what most commands spend their time on."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from penchant.cli import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["penchant.app", "chromadb", "peft", "sentence_transformers"])


def started(*arguments: str | Path, stdout: Path, stderr: Path) -> ForkServerProcess:
    """Start `penchant` with these arguments; what it prints goes into the files, which are there from the beginning."""
    for file in (stdout, stderr):
        file.touch()
    process = _CONTEXT.Process(target=_run, args=([*map(str, arguments)], stdout, stderr))
    process.start()
    return process


def finished(*arguments: str | Path, seconds: float = 60) -> tuple[int, str, str]:
    """Run `penchant` with these arguments: exit code, stdout, stderr."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = started(*arguments, stdout=out, stderr=err)
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            pytest.fail(f"`penchant {' '.join(map(str, arguments))}` did not end\n{out.read_text()}{err.read_text()}")
        return process.exitcode, out.read_text(), err.read_text()


def _run(arguments: list[str], stdout: Path, stderr: Path) -> None:
    for descriptor, file in ((1, stdout), (2, stderr)):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["penchant", *arguments]
    main()
