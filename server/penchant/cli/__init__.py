"""The command line: `penchant COMMAND`, or `python -m penchant COMMAND`."""

import io
import signal
import sys

from penchant.cli.app import app

TERMINATED = 143


def main() -> None:
    """Run the command line; exits with 0, 1 on an error, 2 on wrong usage, 130 when interrupted, 143 on SIGTERM."""
    # By itself it ends a process at once, and what is half written would be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    _speak_utf8()
    app(prog_name="penchant")


def _speak_utf8() -> None:
    """Read and write UTF-8, as JSON has it, whatever the locale; what a terminal can't show becomes an escape."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


__all__ = ["app", "main"]
