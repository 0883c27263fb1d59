"""`call`: any call of the contract, as JSON."""

from __future__ import annotations

import difflib
import sys
from contextlib import closing
from typing import Annotated

import typer
from google.protobuf.message import Message

from penchant import jsonl
from penchant._rpcs import BY_NAME, Rpc
from penchant.cli.options import DEFAULT_SERVER, Commands, Json, Server, connect
from penchant.cli.output import print_json, write_line
from penchant.exceptions import InvalidInputError


def register(app: Commands) -> None:
    """Add the command."""
    app.command()(call)


def call(
    method: Annotated[str, typer.Argument(help="GetProfile, or in full penchant.v1.InterestService/GetProfile.")],
    request: Annotated[
        str,
        typer.Argument(
            metavar="JSON",
            help="The request as proto3 JSON; - for stdin, a line each where the call streams.",
        ),
    ] = "{}",
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Make any call of the contract and print what comes back; a line each where it streams."""
    rpc = _find(method)
    if request == "-":
        request = sys.stdin.read()
    # Not splitlines: JSON may hold the other line ends of Unicode as they are.
    texts = request.strip().split("\n") if rpc.client_streaming else [request]
    requests = [_parse(text, rpc) for text in texts]
    with connect(server) as client:
        if rpc.server_streaming:
            with closing(client.stream(*requests)) as responses:
                for response in responses:
                    print_json(response)
        else:
            response = client.call(requests[0])
            write_line(jsonl.to_json(response, defaults=True, indent=None if as_json else 2))


def _find(method: str) -> Rpc:
    service, _, name = method.strip("/").rpartition("/")
    rpc = BY_NAME.get(name)
    if rpc is None or (service and f"/{service}/{name}" != rpc.path):
        near = difflib.get_close_matches(name, BY_NAME, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(BY_NAME)}"
        raise typer.BadParameter(f"there is no call {method!r}{hint}", param_hint="METHOD")
    return rpc


def _parse(text: str, rpc: Rpc) -> Message:
    try:
        return jsonl.parse_message(text, rpc.request)
    except InvalidInputError as error:
        raise typer.BadParameter(error.message, param_hint="JSON") from None
