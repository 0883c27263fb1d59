"""Commands about one user, or about users as they change."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from penchant import jsonl
from penchant.cli.errors import fail
from penchant.cli.files import whole_file
from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, User, connect, parse_time
from penchant.cli.output import (
    INTEREST_COLUMNS,
    drift_words,
    interest_name,
    interest_row,
    plain,
    print_json,
    print_line,
    print_table,
    stderr,
    steering_words,
    when,
    write_line,
)
from penchant.v1.interest_service_pb2 import Profile


def register(app: Commands) -> None:
    """Add the commands."""
    for command in (profile, explain, steer, watch, forget):
        app.command()(command)
    app.command("export")(export)


def profile(
    user: User,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="As it stood then; UTC where no offset is given."),
    ] = None,
    limit: Annotated[int, typer.Option("-n", min=0, help="Most interests to show, strongest first; 0 for all.")] = 0,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Show a user's interests, now or as they stood at a time."""
    time = None if as_of is None else parse_time(as_of)
    with connect(server) as client:
        found = client.profile(user, as_of=time, max_interests=limit)
    if as_json:
        print_json(found)
    else:
        _show_profile(found)


def _show_profile(found: Profile) -> None:
    print_line(
        f"{found.user_id}:",
        f"{found.signal_count} signals",
        drift_words(found.drift),
        f"as of {when(found.as_of)}" if found.HasField("as_of") else "",
    )
    if found.summary:
        print_line(found.summary, f"(written {when(found.summary_time)})")
    print_table(INTEREST_COLUMNS, map(interest_row, found.interests), empty="no interests yet")


def explain(
    user: User,
    interest_id: Annotated[
        str | None,
        typer.Argument(metavar="INTEREST", help="Id of the interest; the strongest if not given."),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Show which signals made an interest, each with its share."""
    with connect(server) as client:
        if interest_id is None:
            strongest = client.profile(user, max_interests=1).interests
            if not strongest:
                fail(f"{user} has no interests yet")
            interest_id = strongest[0].id
        answer = client.explain(user, interest_id)
    if as_json:
        print_json(answer)
        return
    print_table(INTEREST_COLUMNS, [interest_row(answer.interest)], empty="")
    print_table(
        ("share", "time", "item", "text", "signal"),
        ((e.contribution, e.time, e.item_id, e.snippet, e.signal_id) for e in answer.evidence),
        empty="no evidence",
    )


def steer(
    user: User,
    interest_id: Annotated[str, typer.Option("--interest", metavar="ID", help="An interest of the profile …")] = "",
    topic: Annotated[str, typer.Option("--topic", metavar="WORDS", help="… or words for one.")] = "",
    mute: Annotated[bool, typer.Option("--mute", help="Leave it out.")] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Keep it, whatever comes.")] = False,
    bias: Annotated[float, typer.Option("--bias", min=-1, max=1, help="−1 (less) to +1 (more).")] = 0.0,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Set the user's own word on an interest; with none of --mute, --pin, --bias it is as inferred again."""
    if bool(interest_id) == bool(topic):
        raise typer.BadParameter("give either --interest or --topic")
    with connect(server) as client:
        changed = client.steer(user, interest_id=interest_id, topic=topic, muted=mute, pinned=pin, bias=bias)
    if as_json:
        print_json(changed)
    else:
        said = steering_words(changed.steering) or "as inferred"
        count = changed.signal_count
        of = (
            f"an interest from {count} signal{'s'[: count != 1]}"
            if count
            else "a topic of its own, without signals yet"
        )
        print_line(f"{interest_name(changed)} ({changed.id}), {of}: {said}")


def watch(
    users: Annotated[list[str] | None, typer.Argument(metavar="USER...", help="Whom; everybody if not given.")] = None,
    drift_only: Annotated[bool, typer.Option("--drift-only", help="Only changes with drift.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Print a line for each change of a profile, until Ctrl-C.

    Of users that are named, first how each stands; of everybody, "watching everybody" on stderr once nothing is missed.
    The same after a switch to another space.
    """
    with connect(server) as client, closing(client.watch(users or (), drift_only=drift_only)) as profiles:
        for found in profiles:
            if not found.user_id:
                stderr.print(f"watching everybody in the space {found.space_id}")
            elif as_json:
                print_json(found)
            else:
                top = ", ".join(f"{interest_name(i)} {i.weight:.2f}" for i in found.interests[:3])
                print_line(when(found.as_of), found.user_id, f"v{found.version}", top, drift_words(found.drift))


def export(
    user: User,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", dir_okay=False, help="Write here.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Write all that is held about a user as JSON lines, to stdout or to a file that its owner alone can read.

    What `jq -c '.signal // empty'` takes out of it can be captured again.

    --json is about what is said of a file: on stdout the lines are JSON anyway.
    """
    with connect(server) as client, closing(client.export_user(user)) as records:
        if output is None:
            for record in records:
                sys.stdout.write(jsonl.to_json(record) + "\n")
            return
        count = 0
        with whole_file(output) as place, open(place, "w", encoding="utf-8", opener=_for_the_owner) as file:
            for record in records:
                file.write(jsonl.to_json(record) + "\n")
                count += 1
    if as_json:
        write_line(f'{{"record_count": {count}}}')
    else:
        print_line(f"{count} records in {output}")


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def forget(
    user: User,
    signals: Annotated[
        list[str] | None,
        typer.Option("--signal", metavar="ID", help="Erase this signal alone, as `export` tells it; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Erase a user, or some of a user's signals, everywhere and for good, and print the receipt."""
    what = plain(f"{len(signals)} of {user}'s signals" if signals else user)
    try:
        sure = yes or typer.confirm(f"Erase {what} for good?", err=True)
    except typer.Abort as error:
        if not isinstance(error.__context__, EOFError):  # but Ctrl-C
            raise
        fail("nothing was erased: there is nobody to ask; give --yes")
    if not sure:
        fail("nothing was erased")
    with connect(server) as client:
        answer = client.delete_signals(user, signals) if signals else client.delete_user(user)
    if as_json:
        print_json(answer)
    elif not answer.receipt_id:
        print_line(f"{user} has no such signal: nothing was erased.")
    else:
        counts = f"{answer.signals_deleted} signals, {answer.vectors_deleted} vectors."
        said = f"Erased of {user}: {counts}" if signals else f"{user} is erased: {counts}"
        print_line(said, f"Receipt {answer.receipt_id}")
