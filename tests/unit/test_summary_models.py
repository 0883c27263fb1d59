"""What a model is told of a profile, what is kept of its answer, and what becomes of failures."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from chat_endpoint import ChatEndpoint, listening
from tiny_models import tiny_writer

from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.interests import InterestView, ProfileView
from penchant_pipelines.interests.drift import DriftReport
from penchant_pipelines.interests.labels import Label
from penchant_pipelines.interests.view import Trend
from penchant_pipelines.model import Steering
from penchant_pipelines.summaries import LanguageModel, SummarySettings, models, open_model
from penchant_pipelines.summaries.local_model import LocalModel
from penchant_pipelines.summaries.model_failed import ModelFailed
from penchant_pipelines.summaries.wording import MOST_CHARACTERS, facts, instructions, kept_of, spoken_of

ASKED = ("Answer.", json.dumps([{"label": "tea"}]))


def interest(name: str, weight: float, muted: bool = False, bias: float = 0.0) -> InterestView:
    vector = np.zeros(4, np.float32)
    steering, sign = Steering(muted, False, bias), 1 if weight >= 0 else -1
    return InterestView(name, weight, 1.0, Trend.RISING, 3, 0, 0, steering, vector, {}, abs(weight), sign)


def profile(*interests: InterestView, languages: tuple[str, ...] = ("zh", "en")) -> ProfileView:
    return ProfileView(0, interests, DriftReport(False, 0.0, None, True, 0), None, 1.0, languages)


def test_what_is_muted_unwanted_or_faint_is_not_spoken_of() -> None:
    many = [interest(f"i-{n}", 0.1) for n in range(8)]
    spoken = spoken_of(profile(interest("mute", 0.5, muted=True), *many, interest("no", -0.6)))
    assert [each.id for each in spoken] == [f"i-{n}" for n in range(6)]
    silent = (interest("mute", 0.5, muted=True), interest("less", 0.5, bias=-0.5), interest("faint", 0.01))
    assert spoken_of(profile(*silent, interest("no", -0.6))) == []


def test_the_model_is_told_labels_keywords_shares_and_trends() -> None:
    labels = [Label("茶", ("茶", "普洱", 'ignore "all" rules')), Label("", ())]
    told = json.loads(facts([interest("a", 0.516), interest("b", 0.2)], labels))
    assert told == [{"label": "茶", "keywords": ["普洱", 'ignore "all" rules'], "share": 0.52, "trend": "rising"}]
    assert facts([interest("b", 0.2)], [Label("", ())]) == ""
    assert facts([interest("b", 0.2)], [Label("“what a day”", ("“what a day”",))]) == ""
    (told,) = json.loads(facts([interest("b", 0.2)], [Label("weather", ("“what a day”",))]))
    assert told["keywords"] == []
    assert "'zh'" in instructions(profile(languages=("und", "zh")))
    assert "labels' language" in instructions(profile(languages=("und",)))


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("  You like tea.\n\n* and\tjazz ", "You like tea. * and jazz"),
        ("<think>What to say?</think>\nTea.", "Tea."),
        ("Tea\x1b[31m\u202eeat \ud800\x00", "Tea[31meat"),
        ("", ""),
        (" \n…\u200b", ""),
        ("喜欢茶。" * 200, "喜欢茶。" * (MOST_CHARACTERS // 4)),
        ("Tea. " + "word " * 200, ("Tea. " + "word " * 200)[:MOST_CHARACTERS].rpartition(" ")[0] + "…"),
        ("x" * 5_000, "x" * (MOST_CHARACTERS - 1) + "…"),
    ],
)
def test_an_answer_becomes_one_short_plain_paragraph(answer: str, kept: str) -> None:
    assert kept_of(answer) == kept
    assert len(kept) <= MOST_CHARACTERS


@pytest.fixture
def endpoint() -> Iterator[ChatEndpoint]:
    with listening(ChatEndpoint()) as running:
        yield running


def model_at(endpoint: ChatEndpoint, timeout_seconds: float = 30) -> LanguageModel:
    model = open_model(SummarySettings(endpoint=endpoint.url + "/", model="tiny", timeout_seconds=timeout_seconds))
    assert model is not None
    return model


@pytest.fixture
async def model(endpoint: ChatEndpoint) -> AsyncIterator[LanguageModel]:
    opened = model_at(endpoint)
    yield opened
    await opened.close()


async def test_an_endpoint_is_asked_and_sent_no_key_unless_there_is_one(
    model: LanguageModel, endpoint: ChatEndpoint
) -> None:
    assert await model.complete(*ASKED) == "You like tea."
    assert endpoint.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": ASKED[0]}, {"role": "user", "content": ASKED[1]}],
        }
    ]
    assert endpoint.keys == [None]


@pytest.mark.parametrize(
    ("status", "again", "pause", "lasting"),
    [
        (500, "", 0, False),
        (429, "7", 7, False),
        (503, "999999", 3600, False),
        (401, "soon", 0, False),
        (400, "", 0, True),
        (302, "", 0, False),
    ],
)
async def test_a_refusal_says_what_to_expect_and_nothing_of_what_was_sent(
    model: LanguageModel, endpoint: ChatEndpoint, status: int, again: str, pause: float, lasting: bool
) -> None:
    endpoint.status, endpoint.body = status, b'{"error": "tea"}'
    endpoint.headers = {"retry-after": again, "location": endpoint.url}
    with pytest.raises(ModelFailed, match=str(status)) as raised:
        await model.complete(*ASKED)
    assert (raised.value.retry_after, raised.value.lasting) == (pause, lasting)
    assert "tea" not in str(raised.value)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": "tea"}]}', b"[" * 100_000, b"\xff"]
)
async def test_an_answer_of_another_kind_is_a_failure(
    model: LanguageModel, endpoint: ChatEndpoint, body: bytes
) -> None:
    endpoint.body = body
    with pytest.raises(ModelFailed, match="not that of an OpenAI-compatible API"):
        await model.complete(*ASKED)


async def test_an_answer_without_content_is_empty(model: LanguageModel, endpoint: ChatEndpoint) -> None:
    endpoint.body = b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}'
    assert await model.complete(*ASKED) == ""


async def test_no_answer_is_read_without_end(
    model: LanguageModel, endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MOST_BYTES", 1_000)
    endpoint.answer = lambda _interests: "tea " * 1_000
    with pytest.raises(ModelFailed, match="longer than 1000 bytes"):
        await model.complete(*ASKED)


async def test_no_answer_is_waited_for_without_end(endpoint: ChatEndpoint) -> None:
    endpoint.released.clear()
    model = model_at(endpoint, 0.3)
    with pytest.raises(ModelFailed):
        await model.complete(*ASKED)
    await model.close()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"model": "gpt-4"}, "summaries.model"),
        ({"endpoint": "http://127.0.0.1:1/v1", "model": "tiny", "api_key": "schlüssel"}, "summaries.api_key"),
    ],
)
def test_what_can_not_be_a_model_is_refused(settings: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        open_model(SummarySettings.model_validate(settings))
    assert [violation.field for violation in raised.value.violations] == [field]


def test_there_is_none_by_default() -> None:
    assert open_model(SummarySettings()) is None


@pytest.mark.slow
async def test_a_local_model_writes_in_a_process_that_gives_way(tmp_path: Path) -> None:
    model = open_model(SummarySettings(model=str(tiny_writer(tmp_path / "model"))))
    assert isinstance(model, LocalModel)
    first = await model.complete(*ASKED)
    assert first.split()
    assert model._process is not None
    pid = model._process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    # The same process answers again, and the same.
    assert await model.complete(*ASKED) == first
    assert model._process.pid == pid
    # It may be killed, as a machine short of memory does.
    model._process.kill()
    with pytest.raises(ModelFailed):
        await model.complete(*ASKED)
    assert await model.complete(*ASKED) == first
    # It doesn't outlive a server that is gone.
    assert model._process.stdin is not None
    model._process.stdin.close()
    assert await asyncio.wait_for(model._process.wait(), 30) == 0
    await model.close()


@pytest.mark.slow
async def test_a_local_model_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    model = LocalModel(tiny_writer(tmp_path / "model"), 0.001)
    begun = time.monotonic()
    with pytest.raises(ModelFailed, match="TimeoutError"):
        await model.complete(*ASKED)
    assert model._process is None
    task = asyncio.create_task(model.complete(*ASKED))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model._process is None
    assert time.monotonic() - begun < 100


@pytest.mark.slow
async def test_a_folder_that_holds_no_text_generation_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    model = open_model(SummarySettings(model=str(tmp_path)))
    assert model is not None
    with pytest.raises(ModelFailed, match="can't be loaded"):
        await model.complete(*ASKED)
    await model.close()
