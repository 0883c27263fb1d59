"""What goes wrong ends in one clear line on stderr and an exit code, never in a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from penchant.cli.output import plain, stderr
from penchant.exceptions import DeadlineError, InvalidInputError, PenchantError, UnavailableError
from penchant_pipelines.errors import PenchantError as DomainError

INTERRUPTED = 130


class CommandGroup(TyperGroup):
    """Runs a command and says in one line why it failed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command named in `ctx`."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except PenchantError as error:
            fail(describe(error))
        except DomainError as error:
            fail(error.message)
        except BrokenPipeError:
            # Whoever read our output has had enough, as `head` does; nothing may be flushed into it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (OSError, EOFError) as error:
            fail(str(error))
        except (KeyboardInterrupt, typer.Abort):
            stderr.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        return result


def fail(message: str) -> NoReturn:
    """Print one line and end the command with exit code 1."""
    stderr.print(f"error: {plain(message)}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def describe(error: PenchantError) -> str:
    """Say what went wrong, naming the fields where there are any."""
    if isinstance(error, InvalidInputError) and error.violations:
        return "; ".join(f"{field}: {description}" for field, description in error.violations)
    if isinstance(error, UnavailableError) and not error.reason:
        return f"no server answers ({error.message})"
    if isinstance(error, DeadlineError):
        return (
            f"no answer came in time ({error.message}), but the call may have taken effect: look before you repeat it, "
            "and repeat a signal with the same id"
        )
    return error.message
