"""The command line: `penchant COMMAND`, or `python -m penchant COMMAND`."""

import signal
import sys

from penchant.cli.app import app

TERMINATED = 143


def main() -> None:
    """Run the command line; exits with 0, 1 on an error, 2 on wrong usage, 130 when interrupted, 143 on SIGTERM."""
    # By itself it ends a process at once, and what is half written would be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    app(prog_name="penchant")


__all__ = ["app", "main"]
