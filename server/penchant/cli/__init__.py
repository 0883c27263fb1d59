"""The command line: `penchant COMMAND`, or `python -m penchant COMMAND`."""

import contextlib
import io
import os
import signal
import sys
import threading

from penchant.cli.app import app

TERMINATED = 143
LONGEST_END = 10.0
"""Seconds after SIGTERM in which a command removes what is half written."""


def main() -> None:
    """Run the command line; exits with 0, 1 on an error, 2 on wrong usage, 130 when interrupted, 143 on SIGTERM."""
    # By itself it ends a process at once, and what is half written would be left behind.
    signal.signal(signal.SIGTERM, _stop)
    _speak_utf8()
    try:
        app(prog_name="penchant")
    except SystemExit as end:
        if end.code == TERMINATED:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(TERMINATED)
        raise


def _stop(*_: object) -> None:
    # Where this comes while gRPC makes a call, its channel waits for that without end: as it is closed, and again as
    # the interpreter ends.
    last = threading.Timer(LONGEST_END, os._exit, [TERMINATED])
    last.daemon = True
    last.start()
    sys.exit(TERMINATED)


def _speak_utf8() -> None:
    """Read and write UTF-8, as JSON has it, whatever the locale; what a terminal can't show becomes an escape."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


__all__ = ["app", "main"]
