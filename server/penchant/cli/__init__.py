"""The command line: `penchant COMMAND`, or `python -m penchant COMMAND`."""

from penchant.cli.app import app


def main() -> None:
    """Run the command line; exits with 0, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    app(prog_name="penchant")


__all__ = ["app", "main"]
