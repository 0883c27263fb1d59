"""The acts of the demo. Each asks the server and says only what its answers show."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rich.text import Text

from penchant.client import Client
from penchant.demo.show import Stage, signed
from penchant.demo.story import Story, time_of
from penchant.demo.watch import DriftWatch
from penchant.v1.catalog_service_pb2 import Item
from penchant.v1.interest_service_pb2 import Drift
from penchant.v1.recommendation_service_pb2 import RecommendResponse
from penchant.v1.signal_pb2 import Signal

HATER, HATED = "harriet", "cryptocurrency"
STEERED_TOPIC, STEERED_CATEGORY = "astronomy and the night sky", "astronomy"
WANTED_TEXT = "A weekend of climbing and trail running in the limestone hills"
WANTED_ITEM = "en-astro-deep-sky"
MANY_SIDED = "mateo"
CHINESE, CHINESE_TOPICS = "mei", ("tea", "cats", "films")
ENGLISH = 'attributes.language = "en"'

_LIST = 10
_SHORT_LIST = 5
_SHORTEST_LIST = 2
_INDEX_SECONDS = 30.0
_WATCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Notice:
    """A signal, and what the answer to it said about drift."""

    time: datetime
    drift: Drift


@dataclass(slots=True)
class Play:
    """The story, who plays it to which server, and what came back on the way."""

    client: Client
    story: Story
    stage: Stage
    noticed: dict[str, Notice] = field(default_factory=dict)
    """By user: when the server first spoke of drift, after the user's interests had changed."""
    accused: dict[str, Notice] = field(default_factory=dict)
    """The same for users whose interests did not change, or had not yet."""
    judged: set[str] = field(default_factory=set)
    """Users of whom the server had seen enough to say anything about drift."""

    def item(self, item_id: str) -> Item:
        """Look an item of the story up."""
        return next(item for item in self.story.items if item.id == item_id)


def fill_catalog(play: Play) -> None:
    """Put the items into the catalogue."""
    start = time.monotonic()
    result = play.client.upsert_items(play.story.items)
    play.stage.claim(
        not result.errors,
        f"{result.upserted_count} items put into the catalogue in {seconds_since(start)}.",
        f"{len(result.errors)} of {len(play.story.items)} items were refused: {result.errors[:1]}",
    )


def capture(play: Play, signals: Iterable[Signal]) -> None:
    """Send signals one by one, in order of time, as a backend would; remember when drift is told."""
    signals = list(signals)
    start = time.monotonic()
    with play.stage.progress(len(signals)) as played:
        for signal in signals:
            drift = play.client.capture_signal(signal).drift
            if drift.enough_evidence:
                play.judged.add(signal.user_id)
            if drift.detected:
                change = play.story.changes.get(signal.user_id)
                true = change is not None and time_of(signal) >= change
                told = play.noticed if true else play.accused
                told.setdefault(signal.user_id, Notice(time_of(signal), drift))
            played(time_of(signal))
    seconds = time.monotonic() - start
    play.stage.say(
        f"{len(signals)} signals captured in {seconds:.1f} s, one by one: each is durable and in its"
        f" profile when the answer comes, on average after {seconds / len(signals) * 1000:.0f} ms."
    )


def show_before(play: Play) -> None:
    """Show the changing users as they were."""
    eve = play.story.turn - timedelta(minutes=1)
    for user_id in play.story.changes:
        profile = play.client.profile(user_id, as_of=eve)
        play.stage.profile(profile, f"{user_id} before: {profile.signal_count} signals")


def show_after(play: Play, watch: DriftWatch) -> None:
    """Show the changing users as they are, and when drift was told of them and of anybody else."""
    stage = play.stage
    for user_id in play.story.changes:
        profile = play.client.profile(user_id)
        stage.profile(profile, f"{user_id} today: {profile.signal_count} signals")
    stage.blank()
    for user_id, change in play.story.changes.items():
        notice, said = play.noticed.get(user_id), ""
        if notice is not None:
            count = play.story.count_since_change(user_id, notice.time)
            since = notice.drift.since.ToDatetime(UTC)
            said = f"noticed on {_day(notice.time)}, {count} signals into it, and dated {_day(since)}"
        changed = f"{user_id}'s interests change on {_day(change)}"
        stage.claim(notice is not None, f"{changed}: {said}.", f"{changed}: not noticed.")
    told = watch.wait_for(set(play.noticed), _WATCH_SECONDS)
    stage.say(f"The open WatchProfiles stream, for drift only, told of: {', '.join(told) or 'nobody'}.")
    steady = set(play.story.users) - play.story.changes.keys()
    if play.accused:
        when = ", ".join(f"{user_id} on {_day(notice.time)}" for user_id, notice in play.accused.items())
        stage.say(f"False alarms, for people who had not changed: {when}.", "yellow")
    else:
        judged = f"{len(steady & play.judged)} of the {len(steady)} others have written enough to be judged"
        stage.say(f"Nobody else was ever said to drift; {judged}.")


def show_recommendations(play: Play) -> None:
    """Recommend to somebody with several interests and to those who changed, with reasons."""
    wait_for_index(play.client)
    play.stage.say(
        "Nothing that the user has seen, and varied: a list is not in strict order of its scores."
        f" English items alone, by the filter {ENGLISH}."
    )
    _recommend(play, MANY_SIDED, _SHORT_LIST, only=ENGLISH)
    for user_id in play.story.changes:
        _recommend(play, user_id, _SHORTEST_LIST, only=ENGLISH)


def show_dislike(play: Play) -> None:
    """Show that what a user damns counts against, and stays out of what is recommended."""
    stage = play.stage
    profile = play.client.profile(HATER)
    stage.profile(profile, f"{HATER} today: {profile.signal_count} signals")
    answer = _recommend(play, HATER, _LIST, shown=_SHORT_LIST)
    stage.blank()
    negative = [interest.weight for interest in profile.interests if interest.weight < 0]
    stage.claim(
        bool(negative),
        f"{HATER} rates {HATED} down, hides and dislikes it: it weighs {signed(sum(negative))}.",
        f"{HATER} damns {HATED}, and no interest has a negative weight.",
    )
    hated = [r.item_id for r in answer.recommendations if HATED in play.item(r.item_id).categories]
    stage.claim(
        not hated,
        f"Of the best {len(answer.recommendations)} items for {HATER} none is about {HATED}.",
        f"Recommended to {HATER} in spite of it: {', '.join(hated)}.",
    )


def show_steering(play: Play) -> None:
    """Let a user say what they want more of."""
    stage = play.stage
    before = play.client.recommend(HATER, page_size=_LIST)
    steered = play.client.steer(HATER, topic=STEERED_TOPIC, bias=1.0)
    after = play.client.recommend(HATER, page_size=_LIST)
    stage.say(f"{HATER} says: more “{STEERED_TOPIC}”. It stands at {signed(steered.weight)} at once.")
    stage.blank()
    columns = [[_steered_title(play, r.item_id) for r in a.recommendations] for a in (before, after)]
    stage.side_by_side(("before", "after"), zip(*columns, strict=True))
    counts = [_count(play, answer, STEERED_CATEGORY) for answer in (before, after)]
    said = f"Items about {STEERED_CATEGORY} among the best {_LIST}: {counts[0]} before, {counts[1]} after."
    stage.claim(counts[1] > counts[0], said, said)


def show_audience(play: Play) -> None:
    """Ask who would want a text and an item."""
    client, most = play.client, _SHORT_LIST
    least = client.server_info().similarity
    wanting = client.find_users(text=WANTED_TEXT, page_size=most, min_similarity=least)
    play.stage.matches(f"“{WANTED_TEXT}”", wanting)
    wanting = client.find_users(item_id=WANTED_ITEM, page_size=most, min_similarity=least)
    play.stage.matches(f"The item “{play.item(WANTED_ITEM).title}”", wanting)


def show_chinese(play: Play) -> None:
    """Show a user who writes Chinese."""
    profile = play.client.profile(CHINESE)
    play.stage.profile(profile, f"{CHINESE} today: {profile.signal_count} signals")
    _recommend(play, CHINESE, _SHORT_LIST)
    found = sum(interest.weight > 0 for interest in profile.interests)
    if found < len(CHINESE_TOPICS):
        play.stage.blank()
        play.stage.say(
            f"{CHINESE} writes about {', '.join(CHINESE_TOPICS)}; interests that the server found: {found}."
            " Chinese texts lie closer together than English ones, and two topics are sooner taken for one.",
            "yellow",
        )


def send_again(play: Play) -> None:
    """Send all signals once more: nothing may change."""
    users = play.story.users
    before = {user_id: play.client.profile(user_id).version for user_id in users}
    start = time.monotonic()
    results = list(play.client.capture_many(play.story.signals))
    known = sum(result.response is not None and result.response.duplicate for result in results)
    changed = [user_id for user_id in users if play.client.profile(user_id).version != before[user_id]]
    play.stage.claim(
        known == len(results) and not changed,
        f"All {known} signals sent again in {seconds_since(start)}: every one is known, no profile changed.",
        f"Of {len(results)} signals sent again {known} are known; changed: {', '.join(changed) or 'nobody'}.",
    )


def wait_for_index(client: Client) -> None:
    """Wait until the vector index has taken all that is committed, for a while."""
    end = time.monotonic() + _INDEX_SECONDS
    while client.server_info().index_lag and time.monotonic() < end:
        time.sleep(0.05)


def seconds_since(start: float) -> str:
    """Say how long ago a `time.monotonic()` was."""
    return f"{time.monotonic() - start:.1f} s"


def _recommend(play: Play, user_id: str, count: int, *, only: str = "", shown: int | None = None) -> RecommendResponse:
    answer = play.client.recommend(user_id, page_size=count, filter=only, explain=True)
    interests = {interest.id: interest for interest in play.client.profile(user_id).interests}
    rows = ((found, play.item(found.item_id).title) for found in answer.recommendations[:shown])
    play.stage.recommendations(f"For {user_id}", rows, interests)
    if answer.degraded:
        play.stage.say(f"The server says: {'; '.join(answer.degraded)}", "yellow")
    return answer


def _steered_title(play: Play, item_id: str) -> Text:
    item = play.item(item_id)
    return Text(item.title, style="bold green" if STEERED_CATEGORY in item.categories else "")


def _count(play: Play, answer: RecommendResponse, category: str) -> int:
    return sum(category in play.item(found.item_id).categories for found in answer.recommendations)


def _day(time: datetime) -> str:
    return f"{time.day} {time:%B}"
