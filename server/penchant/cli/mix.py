"""`mix`: learn how the sources of recommendations are weighed, and choose the mix that serves."""

from __future__ import annotations

from typing import Annotated

import typer

from penchant.cli.jobs import followed, show_job
from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, connect
from penchant.cli.output import print_json, print_line, print_table
from penchant.v1.admin_service_pb2 import Mix, UseMixResponse

mix = typer.Typer(no_args_is_help=True, help="Mixes of sources: learn, list, and use one, an earlier one too.")

HEAVIEST = 5
NONE_LIVE = "no mix is live: interests alone rank, by the formula of the server's settings"


def register(app: Commands) -> None:
    """Add the commands."""
    app.add_typer(mix, name="mix")


@mix.command()
def learn(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Learn from the record how to mix the sources; goes live unless surely worse. Ctrl-C leaves the job running."""
    with connect(server) as client:
        show_job(followed(client, client.learn_mix(), "learning"), as_json)
        if not as_json:
            _show(next(client.mixes()))


@mix.command("list")
def list_mixes(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the mixes that were learnt, newest first, with the sources that weigh most."""
    with connect(server) as client:
        found = list(client.mixes())
    if as_json:
        for each in found:
            print_json(each)
        return
    print_table(
        ("id", "created", "live", "favours", "days", "NDCG@10", "before", "heaviest sources"),
        [
            (
                m.mix_id,
                m.create_time,
                "live" if m.live else "",
                m.favour_count,
                m.lesson_count,
                m.quality,
                m.quality_before,
                _heaviest(m),
            )
            for m in found
        ],
        empty="no mix was learnt yet",
    )
    if not any(m.live for m in found):
        print_line(NONE_LIVE)


@mix.command()
def use(
    mix_id: Annotated[str, typer.Argument(metavar="ID", help="Of a mix; '' for none, so that interests alone rank.")],
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Put a mix to use at once, or go back to an earlier one."""
    with connect(server) as client:
        live = client.use_mix(mix_id)
    if as_json:
        print_json(UseMixResponse(mix=live))
    elif live is None:
        print_line(NONE_LIVE)
    else:
        _show(live)


def _show(found: Mix) -> None:
    if found.live:
        state = "is live"
        if found.quality < found.quality_before:
            state += ", though it ranked the latest days worse: so few that it may be chance"
    elif found.quality < found.quality_before:
        state = "is not put to use: it surely ranked the latest days worse"
    else:
        state = "is not put to use: another was chosen meanwhile"
    quality = f"NDCG@10 {found.quality:.3f}, before {found.quality_before:.3f}"
    print_line(f"mix {found.mix_id} {state}", quality, _heaviest(found))


def _heaviest(found: Mix) -> str:
    """Name the heaviest sources with their share of all weight."""
    whole = sum(found.weights.values())
    ranked = sorted(found.weights.items(), key=lambda weighed: (-weighed[1], weighed[0]))
    return ", ".join(f"{source} {weight / whole:.0%}" for source, weight in ranked[:HEAVIEST])
