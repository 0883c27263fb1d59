"""Programs of their own, beside the `penchant` command: what goes wrong ends in one line there, too."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penchant_pipelines.errors import PenchantError


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """End the program with exit code 1 and a line on stderr for what a person can mend: data, a folder, a package."""
    try:
        yield
    except (PenchantError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def at_least(least: int) -> Callable[[str], int]:
    """Read an option of the command line that must not be less."""

    def read(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is below {least}")
        return number

    read.__name__ = "whole number"
    return read
