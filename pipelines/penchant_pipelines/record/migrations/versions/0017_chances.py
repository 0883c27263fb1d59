"""Chances of mixes: curves of before read scores otherwise."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Forget them; the live mix is learnt anew, and with it what its scores mean."""
    op.execute("UPDATE mixes SET chance = NULL")
