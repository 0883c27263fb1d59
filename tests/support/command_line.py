"""The `penchant` command as tests call it in their own process, and the small log as files for it."""

from __future__ import annotations

from pathlib import Path

import tiny_models
from typer.testing import CliRunner

from penchant import convert, jsonl
from penchant.cli import app


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Run `penchant` with these arguments: exit code, stdout, stderr."""
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.stdout, result.stderr


def write_small_log(folder: Path) -> None:
    """Write a tiny model to `model`, and the small log to `items.jsonl` and `signals.jsonl`."""
    tiny_models.tiny_bert(folder / "model")
    items, signals = tiny_models.small_log()
    (folder / "items.jsonl").write_text("".join(f"{jsonl.to_json(convert.from_item(item))}\n" for item in items))
    lines = (f"{jsonl.to_json(convert.from_signal(signal))}\n" for signal in signals)
    (folder / "signals.jsonl").write_text("".join(lines))
