"""Generative models: an OpenAI-compatible endpoint, or a local one in a process of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Protocol

import httpx

from penchant_pipelines.errors import InvalidInput
from penchant_pipelines.summaries.local_model import LocalModel
from penchant_pipelines.summaries.model_failed import ModelFailed
from penchant_pipelines.summaries.settings import SummarySettings

MOST_BYTES = 1 << 20
"""Longest answer that is read from an endpoint."""
UNWANTED_TEXT = (400, 413, 422)
"""Statuses that an endpoint answers where it won't have this one text."""
MOST_PATIENCE_SECONDS = 3600.0
"""Longest pause that an endpoint may ask for."""


class LanguageModel(Protocol):
    """A model that follows instructions about a text. Belongs to one event loop."""

    async def complete(self, instructions: str, text: str) -> str:
        """Ask for an answer. Raises ModelFailed."""

    async def close(self) -> None:
        """Let go of connections and processes."""


def open_model(settings: SummarySettings) -> LanguageModel | None:
    """The model that the settings name, None where they name none. Raises InvalidInput."""
    if not settings.model:
        return None
    if settings.endpoint:
        key = settings.api_key.get_secret_value().strip() if settings.api_key else ""
        return ChatEndpoint(settings.endpoint, settings.model, key, settings.timeout_seconds)
    folder = Path(settings.model)
    if not (folder / "config.json").is_file():
        raise InvalidInput.at(
            "summaries.model",
            f"there is no model in the folder {settings.model!r}; for a model behind a URL set summaries.endpoint too",
        )
    return LocalModel(folder, settings.timeout_seconds)


class ChatEndpoint:
    """The chat completions of an OpenAI-compatible API. Raises InvalidInput for a key that no header can hold."""

    def __init__(self, endpoint: str, model: str, key: str, timeout_seconds: float) -> None:
        if not (key.isascii() and key.isprintable()):
            raise InvalidInput.at("summaries.api_key", "holds characters that no key has")
        self._url = endpoint.rstrip("/") + "/chat/completions"
        self._model = model
        self._timeout = timeout_seconds
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key}"} if key else {}, timeout=timeout_seconds
        )

    async def complete(self, instructions: str, text: str) -> str:
        """Ask for an answer. Raises ModelFailed."""
        # Nothing else is asked for: limits and temperatures have other names, or are refused, at one API or another.
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": text}]
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", self._url, json={"model": self._model, "messages": messages}) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise _refused(response)
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise ModelFailed(f"the endpoint's answer is longer than {MOST_BYTES} bytes")
        except TimeoutError:
            raise ModelFailed(f"the endpoint took longer than {self._timeout:g} s") from None
        except httpx.HTTPError as error:
            raise ModelFailed(f"the endpoint can't be asked: {type(error).__name__}") from None
        return _content(bytes(body))

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


def _refused(response: httpx.Response) -> ModelFailed:
    # The body isn't told: it may repeat what was sent.
    again = response.headers.get("retry-after", "")
    patience = min(float(again), MOST_PATIENCE_SECONDS) if again.isdecimal() else 0.0
    return ModelFailed(f"the endpoint answers {response.status_code}", patience, response.status_code in UNWANTED_TEXT)


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ModelFailed("the endpoint's answer is not that of an OpenAI-compatible API") from None
    # A refusal has no content.
    return content if isinstance(content, str) else ""
