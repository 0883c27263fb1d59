"""`adapters`: load, switch and compare adapters while the server runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import isinf
from typing import Annotated

import typer

from penchant.cli.errors import fail
from penchant.cli.jobs import Wait, followed, show_job
from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, connect
from penchant.cli.output import print_json, print_line, print_table, stderr, when
from penchant.client import Client
from penchant.exceptions import PenchantError
from penchant.v1.admin_service_pb2 import (
    ADAPTER_STATE_STANDBY,
    Adapter,
    AdapterState,
    Experiment,
    GetExperimentResponse,
    ListAdaptersRequest,
    UnloadAdapterResponse,
)

adapters = typer.Typer(no_args_is_help=True, help="Adapters: load, activate, roll back, unload, compare.")
experiment = typer.Typer(no_args_is_help=True, help="A/B: serve a share of the users from a second adapter.")
adapters.add_typer(experiment, name="experiment")

GAIN = "recall@50 gained"
LOADING_SECONDS = 600.0
"""How long a large model may take to load."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Folder in the server's adapter directory; '' for the encoder of the server's settings."
    ),
]


def register(app: Commands) -> None:
    """Add the commands."""
    app.add_typer(adapters, name="adapters")


@adapters.command("list")
def list_adapters(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the adapters that are loaded, and where each stands.

    Of those exported by `penchant finetune`, what they gain in recall@50, with
    its 95 % interval; --json tells all figures.
    """
    with connect(server) as client:
        if as_json:
            print_json(client.call(ListAdaptersRequest()))
            return
        print_table(
            ("id", "state", "space", "loaded", "figures"),
            [(_name(a.id), _state(a), a.space_id, a.load_time, _figures(a.metrics)) for a in client.adapters()],
            empty="no adapters",
        )


@adapters.command()
def load(adapter_id: Name, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Load an adapter and check it against its hash and the base model."""
    with connect(server, LOADING_SECONDS) as client:
        adapter = client.load_adapter(adapter_id)
    if as_json:
        print_json(adapter)
    else:
        print_line(f"{_name(adapter.id)} is {_state(adapter)}", adapter.space_id)


@adapters.command()
def activate(
    adapter_id: Name,
    standby: Annotated[bool, typer.Option("--standby", help="Build it and keep it current, but don't switch.")] = False,
    wait: Wait = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Re-embed everything into an adapter's space, then switch to it; it is loaded first if it isn't."""
    with connect(server, LOADING_SECONDS) as client:
        if adapter_id:
            client.load_adapter(adapter_id)
        if not standby:
            _tell_of_experiment(client)
        job = client.activate_adapter(adapter_id, standby=standby)
        show_job(followed(client, job, "activating") if wait else job, as_json)


@adapters.command()
def rollback(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Switch back to the space that stands by, at once."""
    with connect(server) as client:
        waiting = [adapter.id for adapter in client.adapters() if adapter.state == ADAPTER_STATE_STANDBY]
        if len(waiting) != 1:
            names = ", ".join(map(_name, waiting)) or "none"
            fail(f"one adapter must stand by to go back to, but there are: {names}; name it to `adapters activate`")
        _tell_of_experiment(client)
        show_job(followed(client, client.activate_adapter(waiting[0]), "activating"), as_json)


@adapters.command()
def unload(adapter_id: Name, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Drop an adapter with its vectors, profiles and index; there is no way back to it then but a new activation."""
    with connect(server) as client:
        client.unload_adapter(adapter_id)
    if as_json:
        print_json(UnloadAdapterResponse())
    else:
        print_line(f"{_name(adapter_id)} is unloaded")


@experiment.command("start")
def start_experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name; it decides who is in which arm.")],
    adapter_id: Name,
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="Share of the users that it serves.")] = 0.5,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Serve a share of the users from an adapter that stands by, always the same users."""
    with connect(server) as client:
        found = client.start_experiment(name, adapter_id, share)
    _show_experiment(found, as_json)


@experiment.command("stop")
def stop_experiment(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Serve everybody from the live adapter again."""
    with connect(server) as client:
        found = client.stop_experiment()
    _show_experiment(found, as_json)


@experiment.command()
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the experiment; the newest where left out.")] = "",
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Compare what users did with the lists of either arm, with 95 % intervals over users.

    Likes and dislikes by active user tell which arm does better, whatever else an app reports; their rates are of all
    signals that bring a list's token back.
    """
    with connect(server) as client:
        found = client.experiment(name)
    if as_json:
        print_json(found)
        return
    _show_experiment(found.experiment, as_json=False)
    print_table(
        ("arm", "active users", "likes a user", "dislikes a user", "signals", "liking", "disliking", "space"),
        [
            (
                arm,
                side.active_user_count,
                _estimate(side.positive_per_user),
                _estimate(side.negative_per_user),
                f"{side.signal_count} of {side.user_count} users",
                _estimate(side.positive_rate) if side.signal_count else "–",
                _estimate(side.negative_rate) if side.signal_count else "–",
                side.space_id,
            )
            for arm, side in (("control", found.control), ("trial", found.trial))
        ],
        empty="",
    )
    print_line(
        f"trial − control: likes a user {_estimate(found.positive_per_user_difference)}",
        f"dislikes a user {_estimate(found.negative_per_user_difference)}",
    )


def _tell_of_experiment(client: Client) -> None:
    """Say that the switch ends the experiment that runs, if one does."""
    with suppress(PenchantError):  # no experiment so far
        found = client.experiment().experiment
        if not found.HasField("end_time"):
            stderr.print(f"The switch ends experiment {found.name}; `adapters experiment report` shows what it found.")


def _show_experiment(found: Experiment, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    until = when(found.end_time) if found.HasField("end_time") else "now"
    print_line(
        f"experiment {found.name}: {found.share:.0%} of the users by {_name(found.adapter_id)}",
        f"{when(found.start_time)} to {until}",
    )


def _estimate(estimate: GetExperimentResponse.Estimate) -> str:
    if isinf(estimate.high):
        return "–"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _figures(metrics: Mapping[str, float]) -> str:
    """Say what an adapter gains; of figures of another kind, all by name."""
    if GAIN not in metrics:
        return "  ".join(f"{name} {value:g}" for name, value in sorted(metrics.items()))
    low, high = metrics.get(f"{GAIN}, low"), metrics.get(f"{GAIN}, high")
    interval = "" if low is None or high is None else f" ({low:+.3f} … {high:+.3f})"
    return f"{GAIN} {metrics[GAIN]:+.3f}{interval}"


def _name(adapter_id: str) -> str:
    return adapter_id or "(settings)"


def _state(adapter: Adapter) -> str:
    return AdapterState.Name(adapter.state).removeprefix("ADAPTER_STATE_").lower()
