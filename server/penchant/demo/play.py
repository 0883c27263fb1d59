"""`penchant demo`: a real server, half a year of invented people, and what comes out."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from penchant.client import Client
from penchant.demo import acts
from penchant.demo.server import ServerFailed, ServerProcess
from penchant.demo.show import Stage
from penchant.demo.story import load_story, time_of
from penchant.demo.watch import drift_watch
from penchant.exceptions import PenchantError

_INTERRUPTED = 130
_LOG_LINES = 8
_TIMEOUT_SECONDS = 60.0


def run_demo(data: Path | None) -> int:
    """Play the demo on a server of its own; `data` is a new or empty folder to keep, None a temporary one.

    Returns the exit status: 0, 1 where something failed or did not come out as it should, 130 if interrupted.
    Call it from the main thread: SIGTERM is taken as Ctrl-C meanwhile.
    """
    stage = Stage()
    if data is not None and data.exists() and any(data.iterdir()):
        stage.say(f"{data} is not empty; the demo wants a folder of its own.", "red")
        return 1
    with ExitStack() as stack:
        try:
            stack.enter_context(_terminated_like_interrupted())
            folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penchant-demo-")))
            return _play(stage, folder, kept=data is not None)
        except KeyboardInterrupt:
            stage.blank()
            stage.say("Interrupted; the server is stopped.")
            return _INTERRUPTED


def _play(stage: Stage, folder: Path, *, kept: bool) -> int:
    start = time.monotonic()
    story = load_story(datetime.now(UTC))
    stage.heading("Penchant: half a year of fourteen people")
    stage.say("Starting a server of its own …")
    server = ServerProcess(folder)
    try:
        server.wait_ready()
        stage.say(f"It listens on {server.address} after {acts.seconds_since(start)}.")
        with Client(server.address, timeout=_TIMEOUT_SECONDS) as client:
            _acts(acts.Play(client, story, stage), server.address)
            info = client.server_info()
        code = server.stop()
        stage.heading("The end")
        stage.claim(
            code == 0,
            "Told to stop, the server ended in good order: exit code 0.",
            f"Told to stop, the server ended with exit code {code}.",
        )
    except (PenchantError, ServerFailed) as error:
        stage.failed.append(str(error))
        return _failed(stage, server)
    finally:
        server.stop()
    stage.say(
        f"{info.user_count} users, {info.item_count} items, {info.signal_count} signals in"
        f" {acts.seconds_since(start)}, from the first line to the last."
    )
    if stage.failed:
        return _failed(stage, server)
    _next_steps(stage, folder if kept else None)
    return 0


def _acts(play: acts.Play, address: str) -> None:
    stage, story = play.stage, play.story
    acts.fill_catalog(play)
    with drift_watch(address) as watch:
        stage.heading("Five months, in which everybody is as ever")
        acts.capture(play, (s for s in story.signals if time_of(s) < story.turn))
        acts.show_before(play)
        stage.heading("The last weeks: oliver becomes a father, lin takes up running")
        acts.capture(play, (s for s in story.signals if time_of(s) >= story.turn))
        acts.show_after(play, watch)
    stage.heading("What to read, and why")
    acts.show_recommendations(play)
    stage.heading("What somebody wants less of")
    acts.show_dislike(play)
    stage.heading("The user's own word")
    acts.show_steering(play)
    stage.heading("Who would want this?")
    acts.show_audience(play)
    stage.heading("Chinese")
    acts.show_chinese(play)
    stage.heading("Everything once more")
    acts.send_again(play)


def _failed(stage: Stage, server: ServerProcess) -> int:
    server.stop()
    stage.blank()
    stage.say("Not as it should be:", "bold red")
    for failure in stage.failed:
        stage.say(f"  {failure}")
    stage.blank()
    stage.say("The last lines of the server's log:", "bold")
    stage.log(server.last_log(_LOG_LINES))
    return 1


def _next_steps(stage: Stage, folder: Path | None) -> None:
    where = folder or "demo-data"
    steps = {
        f"penchant serve --data {where}": "serve what was just played; in another terminal:",
        "penchant profile mei": "somebody's interests",
        "penchant recommend priya --explain": "what to read, and why",
        "penchant watch": "profiles as they change, while you write:",
        'penchant capture --user sam --text "…"': "a post",
        "make serve": "a server with an empty folder of your own",
    }
    if folder is None:
        steps = {f"penchant demo --data {where}": "play again, and keep what was played", **steps}
    stage.blank()
    stage.say("Next steps", "bold")
    width = max(map(len, steps))
    for command, purpose in steps.items():
        stage.say(f"  {command:{width}}  {purpose}")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that no server is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
