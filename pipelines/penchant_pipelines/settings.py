"""What all groups of settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings. A key that it doesn't know is refused: a slip of the pen must not pass unseen."""

    model_config = ConfigDict(extra="forbid")
