"""What Recommend leaves out, leans to, varies and says of itself."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import Server, StartServer, catalogue, topics

from penchant.v1.catalog_service_pb2 import Item, ListItemsRequest
from penchant.v1.recommendation_service_pb2 import Candidate, RecommendRequest
from penchant_pipelines.model import MICROS_PER_DAY, now
from penchant_pipelines.recommend.candidates import Candidates
from penchant_pipelines.spaces.space import Space

DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def shop(server: Server) -> Server:
    """A server with the catalogue, and a user `hiker`."""
    await server.client.upsert_items(catalogue())
    await server.client.capture(user_id="hiker", text="I love hiking on mountain trails")
    return server


async def test_the_same_request_gives_the_same_answer(shop: Server) -> None:
    await shop.client.capture(user_id="hiker", text="Jazz piano in the evening", item_id="jazz-1")
    await shop.client.behave(user_id="hiker", item_id="baking-0", action="dislike")
    await shop.index_caught_up()
    request = RecommendRequest(user_id="hiker", page_size=10, explain=True, query="bread", exploration=0.2)
    first = await shop.rpc("Recommend")(request)
    for _ in range(5):
        assert await shop.rpc("Recommend")(request) == first


async def test_a_list_for_a_changed_profile_has_a_token_of_its_own(shop: Server) -> None:
    async def token() -> str:
        return (await shop.client.rerank("hiker", ["jazz-1"])).attribution_token

    first = await token()
    assert await token() == first
    await shop.client.capture(user_id="hiker", text="Jazz piano in the evening")
    assert await token() != first
    # Strangers get the same list, and yet what either does with it is told apart.
    one, other = [await shop.client.recommend(user) for user in ("stranger", "somebody else")]
    assert one.recommendations == other.recommendations
    assert one.attribution_token != other.attribution_token


async def test_what_was_seen_is_left_out_unless_asked_for(shop: Server) -> None:
    best = (await shop.recommended("hiker"))[0]
    await shop.client.behave(user_id="hiker", item_id=best, action="view")
    assert best not in await shop.recommended("hiker", page_size=100)
    assert best in await shop.recommended("hiker", page_size=100, include_seen=True)
    await shop.client.capture(user_id="hiker", text="About this one", item_id="jazz-0")
    assert "jazz-0" not in await shop.recommended("hiker", page_size=100)
    assert len(await shop.recommended("somebody else", page_size=100)) == 16


async def test_excluded_items_are_left_out(shop: Server) -> None:
    first, second, *_ = await shop.recommended("hiker")
    assert not {first, second} & set(
        await shop.recommended("hiker", page_size=100, excluded_item_ids=[first, second, "no such item"])
    )
    everything = [item.id for item in catalogue()]
    assert await shop.recommended("hiker", excluded_item_ids=everything) == []


async def test_filters_narrow_the_choice(shop: Server) -> None:
    assert set(topics(await shop.recommended("hiker", filter='category = "jazz"'))) == {"jazz"}
    high = "category = hiking AND attributes.level >= 3"
    assert await shop.recommended("hiker", filter=high) == ["hiking-3"]
    assert await shop.recommended("hiker", filter="category = painting") == []
    assert len(await shop.recommended("nobody", filter="NOT category = jazz")) == 12
    listed = [item.id async for item in shop.client.items("category = jazz OR attributes.level = 0")]
    assert listed == ["astronomy-0", "baking-0", "hiking-0", *(f"jazz-{n}" for n in range(4))]


async def test_items_come_in_pages(shop: Server) -> None:
    rpc, request, found = shop.rpc("ListItems"), ListItemsRequest(page_size=3), []
    while True:
        page = await rpc(request)
        found += [item.id for item in page.items]
        if not page.next_page_token:
            break
        assert len(page.items) == 3
        request.page_token = page.next_page_token
    assert found == sorted(item.id for item in catalogue())


async def test_a_query_leans_the_answer_once(shop: Server) -> None:
    assert topics(await shop.recommended("hiker", page_size=2)) == ["hiking", "hiking"]
    asked = await shop.client.recommend("hiker", page_size=2, query="jazz piano and bebop", diversity=0, explain=True)
    assert topics(place.item_id for place in asked.recommendations) == ["jazz", "jazz"]
    # It was asked for, and has nothing to do with hiking.
    assert [(place.interest_id, list(place.evidence)) for place in asked.recommendations] == [("", [])] * 2
    assert topics(await shop.recommended("hiker", page_size=2)) == ["hiking", "hiking"]
    strangers = await shop.recommended("nobody", page_size=3, query="sourdough bread", diversity=0)
    assert topics(strangers) == ["baking"] * 3


async def test_what_was_asked_for_and_is_none_of_the_users_interests_has_no_reason(shop: Server) -> None:
    answer = await shop.client.recommend("hiker", page_size=12, query="jazz piano", explain=True)
    by_topic: dict[str, list[int]] = {"jazz": [], "hiking": []}
    for place in answer.recommendations:
        if (topic := place.item_id.split("-")[0]) in by_topic:
            by_topic[topic].append(len(place.evidence))
    assert answer.recommendations[0].item_id.startswith("jazz")
    assert not any(by_topic["jazz"])
    assert all(by_topic["hiking"])


async def test_who_writes_a_name_finds_what_bears_it(server: Server) -> None:
    client = server.client
    await client.upsert_items(catalogue())
    named = [Item(id=f"name-{n}", title=title) for n, title in enumerate(("Zorbulax, a life", "《卜算子集》重读"))]
    await client.upsert_items(named)
    # Names that no encoder knows, in a language each.
    await client.capture(user_id="en", text="Everything about Zorbulax, please")
    await client.capture(user_id="zh", text="又把《卜算子集》翻了出来")
    for user, item in (("en", "name-0"), ("zh", "name-1")):
        answer = await client.recommend(user, page_size=3, explain=True)
        assert answer.recommendations[0].item_id == item
        assert answer.recommendations[0].evidence
    candidates = [Candidate(item_id=item) for item in ("hiking-0", "name-0", "jazz-0")]
    reranked = await client.rerank("en", candidates)
    assert reranked.recommendations[0].item_id == "name-0"


async def test_diversity_varies_the_answer(shop: Server) -> None:
    by_score = await shop.recommended("hiker", page_size=4, diversity=0)
    varied = await shop.recommended("hiker", page_size=4, diversity=0.9)
    assert topics(by_score) == ["hiking"] * 4
    assert by_score[0] == varied[0]
    assert len(set(topics(varied))) > 2


async def test_exploration_goes_beyond_known_tastes(shop: Server) -> None:
    known = await shop.client.recommend("hiker", page_size=4, exploration=0, diversity=0)
    assert topics(place.item_id for place in known.recommendations) == ["hiking"] * 4
    explored = await shop.client.recommend("hiker", page_size=4, exploration=0.5, diversity=0)
    found = topics(place.item_id for place in explored.recommendations)
    assert found.count("hiking") == 2
    assert [place.interest_id == "" for place in explored.recommendations].count(True) == 2
    everything = topics(await shop.recommended("hiker", page_size=4, exploration=1))
    assert "hiking" not in everything
    assert len(everything) == 4


async def test_what_is_deleted_while_others_are_explored_is_not_listed(
    shop: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, *others = await shop.recommended("hiker", page_size=4)
    matching = Candidates.matching

    async def late(self: Candidates, *of: Any) -> Any:
        await shop.client.delete_items([best])
        return await matching(self, *of)

    monkeypatch.setattr(Candidates, "matching", late)
    found = await shop.recommended("hiker", page_size=4, exploration=0.25)
    assert best not in found
    assert set(others) <= set(found)


async def test_a_candidate_whose_item_is_deleted_meanwhile_is_ranked_by_its_text(
    shop: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit = Space.visit

    async def late(self: Space, *of: Any) -> Any:
        found = await visit(self, *of)
        await shop.client.delete_items(["hiking-0"])
        return found

    monkeypatch.setattr(Space, "visit", late)
    given = [Candidate(item_id="hiking-0", text="Mountain trails for hiking"), Candidate(item_id="jazz-1")]
    answer = await shop.client.rerank("hiker", given)
    assert [place.item_id for place in answer.recommendations] == ["hiking-0", "jazz-1"]
    assert not answer.missing_item_ids


@pytest.mark.parametrize("user_id", ["hiker", "nobody"])
async def test_what_is_explored_differs_by_day(shop: Server, user_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = []
    for day in range(3):
        time = now() + day * MICROS_PER_DAY
        monkeypatch.setattr("penchant_pipelines.spaces.space.now", lambda time=time: time)
        lists.append(await shop.recommended(user_id, page_size=12, exploration=1))
    assert lists[0] != lists[1] != lists[2]


async def test_a_few_items_beyond_known_tastes_are_found_among_many(shop: Server) -> None:
    trails = [Item(id=f"trail-{number}", text=f"Hiking on mountain trails, day {number}") for number in range(150)]
    await shop.client.upsert_items(trails)
    explored = await shop.recommended("hiker", page_size=11, exploration=1)
    assert not [item_id for item_id in explored if item_id.startswith(("hiking", "trail"))]
    assert len(set(explored)) == 11


async def test_what_is_new_leaves_the_others_that_are_explored_in_their_order(shop: Server) -> None:
    before = await shop.recommended("nobody", page_size=8, exploration=1)
    news = [Item(id=f"new-{number}", text=f"News of the day {number}") for number in range(8)]
    await shop.client.upsert_items(news)
    after = await shop.recommended("nobody", page_size=24, exploration=1)
    assert [item_id for item_id in after if item_id in before] == before
    assert {item.id for item in news} < set(after)


async def test_exploration_leaves_out_what_is_disliked(shop: Server) -> None:
    for number in range(3):
        await shop.client.behave(user_id="hiker", item_id=f"jazz-{number}", action="dislike")
    explored = topics(await shop.recommended("hiker", page_size=7, exploration=1, include_seen=True))
    assert set(explored) == {"astronomy", "baking"}


async def test_a_stranger_gets_what_is_popular_and_is_told_so(shop: Server) -> None:
    for number in range(3):
        await shop.client.behave(user_id=f"fan-{number}", item_id="jazz-2", action="like")
    await shop.client.behave(user_id="fan-0", item_id="baking-1", action="like")
    await shop.client.behave(user_id="fan-0", item_id="hiking-0", action="dislike")
    answer = await shop.client.recommend("nobody", page_size=2, diversity=0)
    assert [place.item_id for place in answer.recommendations] == ["jazz-2", "baking-1"]
    assert list(answer.degraded) == ["cold_user"]
    assert not (await shop.client.recommend("hiker")).degraded


async def test_an_empty_catalogue_is_told(server: Server) -> None:
    await server.client.capture(user_id="u", text="I love hiking")
    answer = await server.client.recommend("u")
    assert not answer.recommendations
    assert list(answer.degraded) == ["empty_catalog"]


async def test_page_sizes_are_coerced(shop: Server) -> None:
    copies = [Item(id=f"copy-{n:03}", title="Hiking trails in the Alps") for n in range(150)]
    await shop.client.upsert_items(copies)
    assert len(await shop.recommended("hiker")) == 20
    assert len(await shop.recommended("hiker", page_size=10_000)) == 100
    assert len(await shop.recommended("nobody", page_size=10_000)) == 100
    for number in range(21):
        await shop.client.capture(user_id=f"hiker-{number}", text="I love hiking on mountain trails")
    assert len(await shop.client.find_users(text="mountain trails", page_size=3)) == 3
    assert len(await shop.client.find_users(text="mountain trails")) == 20
    assert len(await shop.client.find_users(text="mountain trails", page_size=10_000)) == 22


async def test_newer_items_go_first_among_equals(shop: Server) -> None:
    items = [Item(id=f"copy-{n}", title="Hiking trails in the Alps") for n in range(3)]
    for item, age in zip(items, (400, 2, 40), strict=True):
        item.create_time.FromDatetime(datetime.now(UTC) - timedelta(days=age))
    await shop.client.upsert_items(items)
    order = [i for i in await shop.recommended("hiker", page_size=100, diversity=0) if i.startswith("copy")]
    assert order == ["copy-1", "copy-2", "copy-0"]


async def test_found_users_are_named_as_their_profiles_are_even_after_a_restart(start: StartServer) -> None:
    # The words that lead in a text are not those that lie nearest to it.
    texts = [
        "Riveting phrase of the day: this superhero movie villain steals every scene",
        "Windowsill report, week two: tomato seedlings and basil",
        "Dialled in at last: espresso, 18 g in and 36 g out of the coffee grinder",
    ]
    async with start() as server:
        for user, number in itertools.product(("ann", "bob"), range(3)):
            await server.client.capture(user_id=user, text=texts[number], time=DAY_0 + timedelta(days=number))
        await server.index_caught_up()
    async with start() as server:
        found = [match for text in texts for match in await server.client.find_users(text=text)]
        assert len(found) == 6
        for match in found:
            interests = (await server.client.profile(match.user_id)).interests
            assert match.label == next(i.label for i in interests if i.id == match.interest_id)
