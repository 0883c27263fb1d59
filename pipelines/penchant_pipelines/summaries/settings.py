"""Settings of summaries."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from penchant_pipelines.settings import Section


class SummarySettings(Section):
    """A generative model that writes a sentence or two about each profile, in the background. Off without a model."""

    endpoint: str = Field(
        default="",
        description=(
            "Base URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1. It is sent a user's "
            "language, labels, keywords, shares and trends of interests, never an id or a text."
        ),
    )
    model: str = Field(
        default="",
        description=(
            "Name of the model at the endpoint; without an endpoint, the folder of a transformers model for text."
        ),
    )
    api_key: SecretStr | None = Field(
        default=None, description="Key for the endpoint; best given as PENCHANT_SUMMARIES__API_KEY in the environment."
    )
    every_signals: int = Field(
        default=10, ge=1, description="Signals from which a user has a summary, and after which it is written anew."
    )
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600, description="Seconds that the model may take for one.")

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str) -> str:
        url = urlsplit(value)
        if value and (url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment):
            raise ValueError("must be a URL such as http://127.0.0.1:8000/v1")
        return value

    @model_validator(mode="after")
    def _named(self) -> SummarySettings:
        if self.endpoint and not self.model:
            raise ValueError("an endpoint needs summaries.model, the name of one of its models")
        return self
