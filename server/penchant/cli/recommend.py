"""`recommend` and `find-users`: from interests to items, and from items to interested users."""

from __future__ import annotations

from typing import Annotated

import typer

from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, User, connect
from penchant.cli.output import interest_name, print_details, print_json, print_line, print_table, stderr
from penchant.client import Client
from penchant.exceptions import NotFoundError
from penchant.v1.recommendation_service_pb2 import Recommendation, RecommendResponse

NOTHING = "nothing to recommend"

Count = Annotated[int, typer.Option("-n", min=1, help="How many at most.")]


def register(app: Commands) -> None:
    """Add the commands."""
    app.command()(recommend)
    app.command()(find_users)


def recommend(
    user: User,
    count: Count = 20,
    filter_: Annotated[
        str, typer.Option("--filter", metavar="EXPRESSION", help='AIP-160, such as category = "film".')
    ] = "",
    query: Annotated[str, typer.Option("--query", metavar="WORDS", help="Lean towards these this once.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="A paragraph an item: why it is here.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Rank items of the catalogue for a user.

    The score orders the list; compare it within one list only.

    The chance, once a mix is live: how likely the user takes to the item on
    the next day on which they take to anything new.

    With --explain each item names the interest that brought it in, the sources
    that spoke for it with their shares, and the user's own signals behind it,
    each with its share of all that spoke for it; none where others' doings,
    newness or the query decided.
    """
    with connect(server) as client:
        answer = client.recommend(user, page_size=count, filter=filter_, query=query, explain=explain)
        _tell_of_limit(client, count, len(answer.recommendations))
        if as_json:
            print_json(answer)
        else:
            _show(client, user, answer, explain)


def _tell_of_limit(client: Client, asked: int, found: int) -> None:
    """Say so where it is the server's limit that there are no more."""
    if found < asked and found == client.server_info().max_page_size:
        stderr.print(f"the server gives at most {found} at once (limits.page_size)", highlight=False)


def _show(client: Client, user: str, answer: RecommendResponse, explain: bool) -> None:
    names: dict[str, str] = {}
    if any(r.interest_id for r in answer.recommendations):
        names = {interest.id: interest_name(interest) for interest in client.profile(user).interests}
    found = [(r, _title(client, r.item_id), names.get(r.interest_id, r.interest_id)) for r in answer.recommendations]
    if explain:
        for place, (r, title, interest) in enumerate(found, start=1):
            _explain(place, r, title, interest)
        if not found:
            print_line(NOTHING)
    else:
        told = any(r.HasField("chance") for r, _, _ in found)
        columns = ["score", *["chance"] * told, "item", "title", "from interest"]
        rows = [(r.score, *[_chance(r)] * told, r.item_id, title, interest) for r, title, interest in found]
        print_table(columns, rows, empty=NOTHING)
    for reason in answer.degraded:
        print_line(f"degraded: {reason}")


def _explain(place: int, r: Recommendation, title: str, interest: str) -> None:
    worth = f"chance {_chance(r)}" if r.HasField("chance") else f"score {r.score:.3f}"
    print_line(f"{place:2}.", title or r.item_id, f"({r.item_id})" * bool(title), worth)
    reasons = [("interest", interest), ("sources", ", ".join(f"{s.source} {s.share:.0%}" for s in r.sources))]
    reasons += [("because of", f"{e.snippet or e.item_id} ({e.contribution:.0%})") for e in r.evidence]
    print_details((name, reason) for name, reason in reasons if reason)


def _chance(r: Recommendation) -> str:
    return f"{r.chance:.2%}" if r.HasField("chance") else ""


def _title(client: Client, item_id: str) -> str:
    try:
        item = client.item(item_id)
    except NotFoundError:
        # Deleted since it was recommended.
        return ""
    return item.title or item.text[:60]


def find_users(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What they should care about.")] = None,
    item_id: Annotated[str | None, typer.Option("--item", metavar="ID", help="An item, in place of a text.")] = None,
    count: Count = 20,
    min_similarity: Annotated[
        float | None,
        typer.Option(
            "--min-similarity",
            min=-1,
            max=1,
            metavar="COSINE",
            help="Least similarity, −1…1. The default is from where on the server takes two texts to be of one thing.",
        ),
    ] = None,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="With --item: leave out whoever has touched it already.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Find the users who care most for what a text or an item is about."""
    if (text is None) == (item_id is None):
        raise typer.BadParameter("give either TEXT or --item")
    if exclude_seen and item_id is None:
        raise typer.BadParameter("goes with --item", param_hint="--exclude-seen")
    with connect(server) as client:
        least = client.server_info().similarity if min_similarity is None else min_similarity
        matches = client.find_users(
            text=text, item_id=item_id, page_size=count, min_similarity=least, exclude_seen=exclude_seen
        )
        _tell_of_limit(client, count, len(matches))
    if as_json:
        for match in matches:
            print_json(match)
        return
    print_table(
        ("user", "interest", "similarity", "weight"),
        ((m.user_id, m.label or m.interest_id, m.similarity, m.weight) for m in matches),
        empty=f"nobody, with a similarity of {least:.3f} or more",
    )
